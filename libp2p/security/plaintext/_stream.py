"""A raw stream with the interface of a secure one: nothing is encrypted."""

from __future__ import annotations

from collections.abc import Sequence

import trio
from trio.abc import Stream as ByteStream

from ...abc import Buffer, DirectStream, SecureStream

RECEIVE_SIZE = 256 * 1024
"""Bytes asked of the stream at a time."""
CHECKPOINT_EVERY = 8
"""Receives without a pause before other tasks get a turn."""


class PlaintextStream(SecureStream):
    """Passes bytes through. Owns ``raw``."""

    __slots__ = ("_direct", "_initial", "_pending", "_raw", "_turns")

    def __init__(self, raw: ByteStream, *, initial: bytes = b"") -> None:
        self._raw = raw
        self._direct = raw if isinstance(raw, DirectStream) else None
        self._initial = initial
        self._pending: bytes = b""
        self._turns = 0

    @property
    def kernel(self) -> bool:
        return self._direct is not None and self._direct.kernel

    async def receive_chunks(self) -> Sequence[bytes]:
        if self._initial:
            initial, self._initial = self._initial, b""
            return (initial,)
        if self._direct is None:
            data = await self._raw.receive_some(RECEIVE_SIZE)
            return (bytes(data),) if data else ()
        buffer = memoryview(bytearray(RECEIVE_SIZE))
        while True:
            self._turns += 1
            if self._turns >= CHECKPOINT_EVERY:
                self._turns = 0
                await trio.lowlevel.checkpoint()
            try:
                received = self._direct.receive_into_nowait(buffer)
            except trio.WouldBlock:
                self._turns = 0
                await self._direct.wait_readable()
            else:
                return (bytes(buffer[:received]),) if received else ()

    def write(self, buffers: Sequence[Buffer]) -> bool:
        if self._pending:
            raise trio.BusyResourceError("flush the last write first")
        data = buffers[0] if len(buffers) == 1 else b"".join(buffers)
        view = memoryview(data)
        if self._direct is not None:
            try:
                while view:
                    view = view[self._direct.send_nowait(view) :]
            except trio.WouldBlock:
                pass
        self._pending = bytes(view)
        return not self._pending

    async def flush(self) -> None:
        if self._direct is None:
            pending, self._pending = self._pending, b""
            await self._raw.send_all(pending)
            return
        view = memoryview(self._pending)
        sent = 0
        try:
            while sent < len(view):
                try:
                    sent += self._direct.send_nowait(view[sent:])
                except trio.WouldBlock:
                    await self._direct.wait_writable()
        finally:
            self._pending = bytes(view[sent:])

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """As in Trio."""
        if self._initial:
            await trio.lowlevel.checkpoint()
            size = len(self._initial) if max_bytes is None else max_bytes
            chunk, self._initial = self._initial[:size], self._initial[size:]
            return chunk
        return bytes(await self._raw.receive_some(max_bytes))

    async def send_all(self, data: Buffer) -> None:
        """As in Trio."""
        await self._raw.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """As in Trio."""
        await self._raw.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Close the stream below."""
        await self._raw.aclose()
