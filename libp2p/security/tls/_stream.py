"""The byte stream of an established TLS connection.

    write:    payload ─▶ plain buffer ─ cipher ─▶ send buffer ─▶ kernel
    receive:  kernel ─▶ receive buffer ─ cipher ─▶ plain buffer ─▶ payload

The buffers belong to the host's engine and serve all its connections: nothing awaits while they are in use. Content and
kind of a record must lie side by side to be encrypted, hence the plain buffer; what goes through it stays in the
processor's cache.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence

import trio
from trio.abc import Stream as ByteStream

from ..._util.heap import keep_freed_memory
from ...abc import Buffer
from .._sealed_stream import RECEIVE_SIZE, SealedStream
from ._records import (
    ALERT,
    APPLICATION_DATA,
    FAREWELL,
    HANDSHAKE,
    HEADER_SIZE,
    MAX_CIPHERTEXT,
    MAX_PLAINTEXT,
    MAX_RECORDS,
    NEW_KEY,
    OVERHEAD,
    Incoming,
    TrafficKey,
)

CHUNK_RECORDS = 4
"""Full records that are handed on as one chunk."""
SEND_RECORDS = 16
"""Full records handed to the socket at a time."""
CLOSE_GRACE = 1.0
"""Seconds that the farewell may take over a stream that cannot take it at once."""


class Scratch:
    """The buffers all connections of a host share."""

    __slots__ = ("plain", "receive", "send")

    def __init__(self) -> None:
        keep_freed_memory()
        # Pages of an anonymous mapping take memory when they are first used; a bytearray is zeroed, so all of it would.
        self.receive: memoryview = memoryview(mmap.mmap(-1, RECEIVE_SIZE + HEADER_SIZE + MAX_CIPHERTEXT))
        self.plain: memoryview = memoryview(bytearray(CHUNK_RECORDS * MAX_PLAINTEXT + 1))
        self.send: memoryview = memoryview(mmap.mmap(-1, SEND_RECORDS * (MAX_PLAINTEXT + OVERHEAD)))


class TlsStream(SealedStream):
    """An encrypted byte stream over ``raw``, which it owns.

    Args:
        initial: what came with the last handshake message.
    """

    __slots__ = ("_incoming", "_key", "_scratch")

    def __init__(
        self, raw: ByteStream, *, send: TrafficKey, receive: Incoming, scratch: Scratch, initial: bytes = b""
    ) -> None:
        super().__init__(raw, scratch.receive, initial)
        self._key = send
        self._incoming = receive
        self._scratch = scratch

    # --- receiving

    def _open(self, buffer: memoryview, end: int) -> Sequence[bytes]:
        chunks, start = self._incoming.open(buffer, end, self._scratch.plain)
        self._left = bytes(buffer[start:end])
        self._opened = self._incoming.opened
        self._ended = self._incoming.ended
        return chunks

    def _check_end(self) -> None:
        # Without TLS's own farewell it may be anybody who ended the connection.
        raise trio.BrokenResourceError("the peer's connection ended without a farewell")

    # --- sending

    def write(self, buffers: Sequence[Buffer]) -> bool:
        self._check_flushed()
        plain = self._scratch.plain
        used = filled = 0
        if self._incoming.asked or self._key.used >= MAX_RECORDS:
            used = self._renew_key()
        for data in buffers:
            view, start = memoryview(data), 0
            while start < len(view):
                step = min(MAX_PLAINTEXT - filled, len(view) - start)
                plain[filled : filled + step] = view[start : start + step]
                start += step
                filled += step
                if filled == MAX_PLAINTEXT:
                    used, filled = self._seal(filled, APPLICATION_DATA, used), 0
        if filled:
            used = self._seal(filled, APPLICATION_DATA, used)
        self._push(self._scratch.send[:used])
        return not self._pending

    def _seal(self, filled: int, kind: int, used: int) -> int:
        """Append what is in the plain buffer to the send buffer as a record; returns the new fill."""
        plain, send = self._scratch.plain, self._scratch.send
        if used + filled + OVERHEAD > len(send):
            self._push(send[:used])
            used = 0
        plain[filled] = kind
        return self._key.seal(plain[: filled + 1], send, used)

    def _say(self, content: bytes, kind: int) -> int:
        """Begin the send buffer with a record of ``content``; returns its fill."""
        self._scratch.plain[: len(content)] = content
        return self._seal(len(content), kind, 0)

    def _renew_key(self) -> int:
        used = self._say(NEW_KEY, HANDSHAKE)
        self._key.renew()
        self._incoming.asked = False
        return used

    async def aclose(self) -> None:
        """Say farewell, where that is possible at once or soon, and close the stream below."""
        try:
            await self._say_farewell()
        finally:
            await self._raw.aclose()

    async def _say_farewell(self) -> None:
        if self._pending:
            return  # in the middle of a record; the peer takes it for cut off, as it is
        farewell = self._scratch.send[: self._say(FAREWELL, ALERT)]
        try:
            if self._direct is not None:
                self._send_now(farewell)
            else:
                with trio.move_on_after(CLOSE_GRACE):
                    await self._raw.send_all(bytes(farewell))  # the buffer is everybody's
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass
