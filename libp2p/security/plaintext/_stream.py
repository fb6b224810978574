"""A raw stream with the interface of a secure one: nothing is encrypted."""

from __future__ import annotations

from collections.abc import Sequence

from trio.abc import Stream as ByteStream

from ...abc import Buffer
from .._record_stream import RecordStream

RECEIVE_SIZE = 256 * 1024
"""Bytes asked of the stream at a time."""


class PlaintextStream(RecordStream):
    """Passes bytes through. Owns ``raw``."""

    __slots__ = ()

    def __init__(self, raw: ByteStream, *, initial: bytes = b"") -> None:
        super().__init__(raw, (initial,) if initial else ())

    async def _receive(self) -> Sequence[bytes]:
        if self._direct is None:
            data = await self._raw.receive_some(RECEIVE_SIZE)
            return (bytes(data),) if data else ()
        buffer = memoryview(bytearray(RECEIVE_SIZE))
        received = await self._receive_into(self._direct, buffer)
        return (bytes(buffer[:received]),) if received else ()

    def write(self, buffers: Sequence[Buffer]) -> bool:
        self._check_flushed()
        self._push(memoryview(buffers[0] if len(buffers) == 1 else b"".join(buffers)))
        return not self._pending
