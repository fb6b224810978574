"""Muxer frames written and read by hand, from the specifications. Shares no code with the library, on purpose."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

# --- yamux ------------------------------------------------------------------------------------------------------------

DATA, WINDOW, PING, GOAWAY = 0, 1, 2, 3
SYN, ACK, FIN, RST = 1, 2, 4, 8
WINDOW_SIZE = 262_144


class Frame(NamedTuple):
    """A yamux frame."""

    kind: int
    flags: int
    stream: int
    length: int
    payload: bytes = b""


def frame(kind: int, flags: int, stream: int, length: int, payload: bytes = b"", *, version: int = 0) -> bytes:
    """Any twelve bytes, and a payload that need not agree with them."""
    return b"".join([
        version.to_bytes(1, "big"),
        kind.to_bytes(1, "big"),
        flags.to_bytes(2, "big"),
        stream.to_bytes(4, "big"),
        length.to_bytes(4, "big"),
        payload,
    ])  # fmt: skip


def data(stream: int, payload: bytes = b"", flags: int = 0) -> bytes:
    """A data frame."""
    return frame(DATA, flags, stream, len(payload), payload)


def window(stream: int, delta: int = 0, flags: int = 0) -> bytes:
    """A window update."""
    return frame(WINDOW, flags, stream, delta)


def ping(value: int, flags: int = SYN) -> bytes:
    """A ping, or with ACK its answer."""
    return frame(PING, flags, 0, value)


def goaway(code: int) -> bytes:
    """A farewell."""
    return frame(GOAWAY, 0, 0, code)


def join(buffers: Iterable[Any]) -> bytes:
    """What a machine has to send, as one piece."""
    return b"".join(bytes(buffer) for buffer in buffers)


def frames(wire: bytes) -> list[Frame]:
    """Cut bytes into yamux frames; all of them must be whole."""
    found = []
    while wire:
        assert len(wire) >= 12, f"cut short: {wire!r}"
        assert wire[0] == 0, f"version {wire[0]}"
        kind, flags = wire[1], int.from_bytes(wire[2:4], "big")
        stream, length = int.from_bytes(wire[4:8], "big"), int.from_bytes(wire[8:12], "big")
        size = length if kind == DATA else 0
        payload = wire[12 : 12 + size]
        assert len(payload) == size, "cut short"
        found.append(Frame(kind, flags, stream, length, payload))
        wire = wire[12 + size :]
    return found


# --- mplex ------------------------------------------------------------------------------------------------------------

NEW, MESSAGE_R, MESSAGE_I, CLOSE_R, CLOSE_I, RESET_R, RESET_I = range(7)


def uvarint(value: int) -> bytes:
    """The shortest LEB128 form."""
    out = bytearray()
    while True:
        out.append(value % 128 + (128 if value >= 128 else 0))
        value //= 128
        if not value:
            return bytes(out)


class Message(NamedTuple):
    """An mplex frame."""

    stream: int
    flag: int
    payload: bytes = b""


def message(stream: int, flag: int, payload: bytes = b"") -> bytes:
    """An mplex frame."""
    return uvarint(stream * 8 + flag) + uvarint(len(payload)) + payload


def messages(wire: bytes) -> list[Message]:
    """Cut bytes into mplex frames; all of them must be whole."""
    found = []
    while wire:
        numbers = []
        for _ in range(2):
            value = shift = 0
            while True:
                byte, wire = wire[0], wire[1:]
                value += (byte % 128) << shift
                shift += 7
                if byte < 128:
                    break
            numbers.append(value)
        header, length = numbers
        assert len(wire) >= length, "cut short"
        found.append(Message(header // 8, header % 8, wire[:length]))
        wire = wire[length:]
    return found
