"""The two ends of a connection in memory."""

from __future__ import annotations

from collections.abc import Callable
from operator import index

import trio
from trio.abc import HalfCloseableStream

from ..._util.conflict import ConflictGuard
from ..._util.eager import send_directly
from ...abc import Buffer, DirectStream
from ._pipe import Pipe

RECEIVE_SIZE = 65536
"""Bytes a plain ``receive_some`` returns at most."""


class MemoryStream(DirectStream, HalfCloseableStream):
    """One end. Made by a :class:`~libp2p.transports.memory.MemoryNetwork`.

    Like a socket, it knows no farewell but the end of its bytes: closing with unread data loses that data.

    Attributes:
        node: the name of the node this end belongs to.
    """

    __slots__ = ("__weakref__", "_closed", "_in", "_on_close", "_out", "_receiving", "_sending", "_sent_eof", "node")

    def __init__(self, node: str, outgoing: Pipe, incoming: Pipe, on_close: Callable[[], None]) -> None:
        self.node: str = node
        self._out = outgoing
        self._in = incoming
        self._on_close = on_close
        self._closed = self._sent_eof = False
        self._sending = ConflictGuard("another task is sending on this stream")
        self._receiving = ConflictGuard("another task is receiving from this stream")

    @property
    def kernel(self) -> bool:
        return False

    def __repr__(self) -> str:
        return f"<MemoryStream of {self.node}, {'closed' if self._closed else 'open'}>"

    @property
    def closed(self) -> bool:
        """Whether this end was closed."""
        return self._closed

    # --- directly

    def receive_into_nowait(self, buffer: memoryview) -> int:
        if self._closed:
            raise trio.ClosedResourceError("this stream is closed")
        return self._in.receive_into_nowait(buffer)

    def send_nowait(self, data: Buffer) -> int:
        self._check_sendable()
        return self._out.send_nowait(data)

    def _check_sendable(self) -> None:
        if self._closed or self._sent_eof:
            raise trio.ClosedResourceError("this stream is closed for sending")

    async def wait_readable(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this stream is closed")
        await self._in.wait_readable()
        if self._closed:
            raise trio.ClosedResourceError("this stream was closed while it was being read")

    async def wait_writable(self) -> None:
        self._check_sendable()
        await self._out.wait_writable()
        self._check_sendable()

    # --- as in Trio

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """As in Trio."""
        if max_bytes is not None and index(max_bytes) < 1:
            raise ValueError("max_bytes must be at least 1")
        with self._receiving:
            await trio.lowlevel.checkpoint()
            while True:
                if self._closed:
                    raise trio.ClosedResourceError("this stream is closed")
                try:
                    return self._in.take(max_bytes or RECEIVE_SIZE)
                except trio.WouldBlock:
                    await self.wait_readable()

    async def send_all(self, data: Buffer) -> None:
        """As in Trio."""
        with self._sending:
            await trio.lowlevel.checkpoint()
            self._check_sendable()
            await send_directly(self, data)

    async def wait_send_all_might_not_block(self) -> None:
        """As in Trio."""
        with self._sending:
            await trio.lowlevel.checkpoint()
            await self.wait_writable()

    async def send_eof(self) -> None:
        """As in Trio."""
        with self._sending:
            await trio.lowlevel.checkpoint()
            if self._closed:
                raise trio.ClosedResourceError("this stream is closed")
            self._sent_eof = True
            self._out.send_eof()

    async def aclose(self) -> None:
        """Close this end. Does not wait."""
        if not self._closed:
            self._closed = True
            self._out.close_sender()
            self._in.close_reader()
            self._on_close()
        await trio.lowlevel.checkpoint()
