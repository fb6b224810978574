"""What TLS and WebSocket have in common: a stream over a direct one, without task switches."""

from __future__ import annotations

from operator import index

import trio

from ..._util.conflict import ConflictGuard
from ..._util.eager import send_directly
from ...abc import Buffer, DirectStream

RECEIVE_SIZE = 64 * 1024
"""Bytes a plain ``receive_some`` returns at most."""
CLOSED = "this stream is closed"


class LayerStream(DirectStream):
    """A stream over ``raw``, which it owns. Trio's methods are made of those that never wait."""

    __slots__ = ("_closed", "_raw", "_receiving", "_sending")

    def __init__(self, raw: DirectStream) -> None:
        self._raw = raw
        self._closed = False
        self._sending = ConflictGuard("another task is sending on this stream")
        self._receiving = ConflictGuard("another task is receiving from this stream")

    @property
    def kernel(self) -> bool:
        return self._raw.kernel

    def _check_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError(CLOSED)

    async def wait_writable(self) -> None:
        await self._raw.wait_writable()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """As in Trio."""
        if max_bytes is not None and index(max_bytes) < 1:
            raise ValueError("max_bytes must be at least 1")
        with self._receiving:
            await trio.lowlevel.checkpoint()
            buffer = memoryview(bytearray(min(max_bytes or RECEIVE_SIZE, RECEIVE_SIZE)))
            while True:
                try:
                    return bytes(buffer[: self.receive_into_nowait(buffer)])
                except trio.WouldBlock:
                    await self.wait_readable()

    async def send_all(self, data: Buffer) -> None:
        """As in Trio. Who cancels it must not send anything else afterwards; see :meth:`send_nowait`."""
        with self._sending:
            await trio.lowlevel.checkpoint()
            self._check_open()
            await send_directly(self, data)

    async def wait_send_all_might_not_block(self) -> None:
        """As in Trio."""
        with self._sending:
            await self._raw.wait_send_all_might_not_block()
