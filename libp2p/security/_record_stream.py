"""What secure streams share, whatever their records look like: the way between them and the stream below.

A task switch costs 5 to 11 µs, so both directions try the stream below first and wait only when it says so. What the
kernel does not take is kept here, in order, until :meth:`RecordStream.flush`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from collections.abc import Iterable, Sequence

import trio
from trio.abc import Stream as ByteStream

from ..abc import Buffer, DirectStream, SecureStream

CHECKPOINT_EVERY = 8
"""Receives without a pause before other tasks get a turn."""
DRAINED_BELOW = 4096
"""A receive that brings less was all there was: to try again at once would be a call of the kernel for nothing."""


class RecordStream(SecureStream):
    """A byte stream of records over ``raw``, which it owns.

    Args:
        raw: the stream below; a :class:`~libp2p.abc.DirectStream` is used directly.
        chunks: what was received already, and is read first.
    """

    __slots__ = ("_chunks", "_direct", "_drained", "_pending", "_raw", "_turns")

    def __init__(self, raw: ByteStream, chunks: Iterable[bytes] = ()) -> None:
        self._raw = raw
        self._direct = raw if isinstance(raw, DirectStream) else None
        self._chunks: deque[bytes] = deque(chunks)
        self._pending = bytearray()
        self._turns = 0
        self._drained = False

    @property
    def raw(self) -> ByteStream:
        """The stream below."""
        return self._raw

    @property
    def kernel(self) -> bool:
        return self._direct is not None and self._direct.kernel

    # --- what a kind of records adds

    @abstractmethod
    async def _receive(self) -> Sequence[bytes]:
        """Receive at least one chunk, or none at the end."""

    # --- receiving

    async def receive_chunks(self) -> Sequence[bytes]:
        if self._chunks:
            chunks = tuple(self._chunks)
            self._chunks.clear()
            return chunks
        return await self._receive()

    async def _receive_into(self, direct: DirectStream, buffer: memoryview) -> int:
        """Receive at least one byte, 0 at the end. The buffer may be shared: nothing awaits after it was filled."""
        while True:
            self._turns += 1
            if self._turns >= CHECKPOINT_EVERY:
                self._turns = 0
                await trio.lowlevel.checkpoint()
            if self._drained:
                self._turns = 0
                await direct.wait_readable()
            try:
                received = direct.receive_into_nowait(buffer)
            except trio.WouldBlock:
                self._drained = True
                continue
            self._drained = received < DRAINED_BELOW
            return received

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive up to ``max_bytes``, as in Trio; for negotiations that run before the muxer takes over."""
        await trio.lowlevel.checkpoint()
        if not self._chunks:
            self._chunks.extend(await self._receive())
        if not self._chunks:
            return b""
        chunk = self._chunks.popleft()
        if max_bytes is not None and len(chunk) > max_bytes:
            self._chunks.appendleft(chunk[max_bytes:])
            chunk = chunk[:max_bytes]
        return chunk

    # --- sending

    def _check_flushed(self) -> None:
        if self._pending:
            raise trio.BusyResourceError("flush the last write first")

    def _push(self, output: memoryview) -> None:
        """Give ``output`` to the kernel; keep what it does not take. Nothing of ``output`` is needed afterwards."""
        sent = self._send_now(output)
        if sent < len(output):
            self._pending += output[sent:]

    def _send_now(self, output: memoryview) -> int:
        """Hand the front of ``output`` to the kernel, if that is possible and nothing waits before it."""
        sent = 0
        if self._direct is not None and not self._pending:
            try:
                while sent < len(output):
                    sent += self._direct.send_nowait(output[sent:])
            except trio.WouldBlock:
                pass
        return sent

    async def flush(self) -> None:
        """Send what :meth:`write` left behind.

        Over a stream that is not direct, cancelling leaves the connection unusable: part of a record may be out.
        """
        direct = self._direct
        if direct is None:
            pending, self._pending = self._pending, bytearray()
            await self._raw.send_all(memoryview(pending))
            return
        sent = 0
        try:
            # The tail is at most a few hundred KiB, sent in as few steps as the kernel allows.
            view = memoryview(bytes(self._pending))
            while sent < len(view):
                try:
                    sent += direct.send_nowait(view[sent:])
                except trio.WouldBlock:
                    await direct.wait_writable()
        finally:
            del self._pending[:sent]

    async def send_all(self, data: Buffer) -> None:
        """Send all of ``data``, in records."""
        await trio.lowlevel.checkpoint()
        if not self.write((data,)):
            await self.flush()

    async def wait_send_all_might_not_block(self) -> None:
        """As in Trio."""
        await self._raw.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Close the stream below."""
        await self._raw.aclose()
