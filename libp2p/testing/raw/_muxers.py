"""Frames of yamux and mplex."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple

from ._encoding import read_uvarint, uvarint

DATA, WINDOW_UPDATE, PING, GO_AWAY = range(4)
SYN, ACK, FIN, RST = 1, 2, 4, 8

_HEADER = struct.Struct("!BBHII")


class YamuxFrame(NamedTuple):
    """A frame as it was read."""

    kind: int
    flags: int
    stream: int
    length: int
    payload: bytes


def yamux(
    kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"", *, length: int | None = None, version: int = 0
) -> bytes:
    """A frame. Its length is that of the payload unless it lies."""
    return _HEADER.pack(version, kind, flags, stream, len(payload) if length is None else length) + payload


def yamux_frames(data: bytes) -> Iterator[YamuxFrame]:
    """The whole frames at the front of ``data``."""
    while len(data) >= 12:
        _, kind, flags, stream, length = _HEADER.unpack(data[:12])
        size = length if kind == DATA else 0
        if len(data) < 12 + size:
            return
        yield YamuxFrame(kind, flags, stream, length, data[12 : 12 + size])
        data = data[12 + size :]


class MplexMessage(NamedTuple):
    """A message as it was read."""

    stream: int
    flag: int
    payload: bytes


def mplex(stream: int, flag: int, payload: bytes = b"", *, length: int | None = None) -> bytes:
    """A message. Its length is that of the payload unless it lies."""
    return uvarint(stream * 8 + flag) + uvarint(len(payload) if length is None else length) + payload


def mplex_messages(data: bytes) -> Iterator[MplexMessage]:
    """The whole messages at the front of ``data``."""
    while data:
        try:
            header, rest = read_uvarint(data)
            length, rest = read_uvarint(rest)
        except IndexError:
            return
        if len(rest) < length:
            return
        yield MplexMessage(header // 8, header % 8, rest[:length])
        data = rest[length:]
