"""Receiving records that are encrypted, whatever they look like: the way from the stream below to the cipher.

All connections of a host receive into one large buffer: nothing awaits while it is in use. A connection keeps only the
front of a record that is not whole yet.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

import trio
from trio.abc import Stream as ByteStream

from ..abc import DirectStream
from ..errors import SecurityError
from ._record_stream import CHECKPOINT_EVERY, RecordStream

RECEIVE_SIZE = 1024 * 1024
"""Bytes asked of the socket at a time; 256 KiB cost a sixth more than 1 MiB, and 16 KiB two to three times as much."""
FIRST_RECEIVE_SIZE = 64 * 1024
"""What a stream begins with, doubling it whenever it was filled."""
MANY_RECORDS = 2048
"""Records at a time from which on a stream begins anew: a mebibyte of tiny ones would hold up everybody for 100 ms."""
PLAIN_RECEIVE_SIZE = 256 * 1024
"""The same of a stream that makes a new ``bytes`` of this size each time."""


class SealedStream(RecordStream):
    """A byte stream of encrypted records over ``raw``, which it owns.

    Args:
        buffer: the host's, of :data:`RECEIVE_SIZE` bytes and a record more.
        initial: what came with the last handshake message.
    """

    __slots__ = ("_broken", "_buffer", "_early", "_ended", "_left", "_opened", "_size")

    def __init__(self, raw: ByteStream, buffer: memoryview, initial: bytes) -> None:
        super().__init__(raw)
        self._buffer = buffer
        self._left = initial
        self._early = bool(initial)
        self._ended = False
        self._broken = ""
        self._opened = 0
        self._size = FIRST_RECEIVE_SIZE

    # --- what a kind of records adds

    @abstractmethod
    def _open(self, buffer: memoryview, end: int) -> Sequence[bytes]:
        """Decrypt every whole record in ``buffer[:end]``.

        Keep what is left in ``_left``, note how many there were in ``_opened``, and the end in ``_ended``.
        """

    @abstractmethod
    def _check_end(self) -> None:
        """Raise if the stream below may not end here."""

    # --- receiving

    async def _receive(self) -> Sequence[bytes]:
        if self._broken:
            raise SecurityError(self._broken, stage="record")
        try:
            if self._early:
                # It may hold whole records.
                self._early = False
                buffer = memoryview(self._left)
                if chunks := self._open(buffer, len(buffer)):
                    return chunks
            if self._ended:
                await trio.lowlevel.checkpoint()
                return ()
            return await (self._receive_direct(self._direct) if self._direct is not None else self._receive_plain())
        except SecurityError as exc:
            # What comes behind a record that was lost must not pass for what comes behind the last good one.
            self._broken = str(exc)
            raise

    async def _receive_direct(self, direct: DirectStream) -> Sequence[bytes]:
        buffer = self._buffer
        while True:
            have = len(self._left)
            received = await self._receive_into(direct, buffer[have : have + self._size])
            if not received:
                self._check_end()
                return ()
            if have:
                buffer[:have] = self._left
            chunks = self._open(buffer, have + received)
            if self._opened >= MANY_RECORDS:
                self._size = FIRST_RECEIVE_SIZE
                self._turns = CHECKPOINT_EVERY
            elif received == self._size < RECEIVE_SIZE:
                self._size *= 2
            if chunks or self._ended:
                return chunks

    async def _receive_plain(self) -> Sequence[bytes]:
        while True:
            data = await self._raw.receive_some(PLAIN_RECEIVE_SIZE)
            if not data:
                self._check_end()
                return ()
            if self._left:
                data = self._left + data
            if (chunks := self._open(memoryview(data), len(data))) or self._ended:
                return chunks
