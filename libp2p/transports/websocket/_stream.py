"""WebSocket streams: frames over a socket, without task switches, and over any other byte stream.

Both are ``Frames`` with a stream below. They differ in who may write. Below a direct stream, writing
never waits, so that whoever reads may answer a ping in passing, and a send that is cancelled leaves a frame that the
next send goes on filling. Below any other stream (TLS), nobody can tell how much a cancelled send got out: the stream
sends nothing any more then, which is all that Trio promises too, and a lock keeps a reader's answers between frames.

The end of the stream below counts as the end of the WebSocket between two frames, because many implementations say no
goodbye; inside of a frame it is an error.
"""

from __future__ import annotations

import os
from operator import index

import trio
from trio.abc import Stream as ByteStream

from ..._util.conflict import ConflictGuard
from ..._util.eager import send_directly
from ...abc import Buffer, DirectStream
from ...errors import RemoteProtocolError
from ._machine import Frames

RECEIVE_SIZE = 64 * 1024
"""Bytes unframed in one go. More would be faster with large frames, and let a peer that sends tiny ones hold up the
whole process: 20,000 frames fit here, which take 40 ms."""
CLOSE_GRACE = 1.0
"""Seconds that the close frame may take to get out. Nobody waits for the peer's."""

_CLOSED = "this stream is closed"
_GONE = "the WebSocket was closed"


def new_frames(*, client: bool) -> Frames:
    """The framing of a new connection."""
    return Frames(client=client, make_key=_random_key)


def _random_key() -> bytes:
    return os.urandom(4)


def _capacity(max_bytes: int | None) -> int:
    if max_bytes is None:
        return RECEIVE_SIZE
    if index(max_bytes) < 1:
        raise ValueError("max_bytes must be at least 1")
    return min(max_bytes, RECEIVE_SIZE)


def _unframe(frames: Frames, buffer: memoryview, size: int) -> int:
    if not size:
        if not frames.at_border:
            raise trio.BrokenResourceError("the connection ended inside a frame")
        return 0
    try:
        return frames.unframe(buffer, size)
    except RemoteProtocolError as exc:
        raise trio.BrokenResourceError(str(exc)) from exc


class DirectWebSocketStream(DirectStream):
    """A WebSocket over a stream into the kernel, which it owns."""

    __slots__ = ("_closed", "_early", "_frames", "_raw", "_receiving", "_sending")

    def __init__(self, raw: DirectStream, *, client: bool) -> None:
        self._raw = raw
        self._frames = new_frames(client=client)
        self._early = b""
        self._closed = False
        self._sending = ConflictGuard("another task is sending on this stream")
        self._receiving = ConflictGuard("another task is receiving from this stream")

    def begin(self, early: bytes) -> None:
        """Start with bytes of the peer that were read with its side of the handshake."""
        self._early = early

    def receive_into_nowait(self, buffer: memoryview) -> int:
        if self._closed:
            raise trio.ClosedResourceError(_CLOSED)
        frames = self._frames
        if frames.error is not None:
            raise trio.BrokenResourceError(frames.error)
        if frames.closed:
            return 0
        buffer = buffer[:RECEIVE_SIZE]
        if self._early:
            size = min(len(buffer), len(self._early))
            buffer[:size], self._early = self._early[:size], self._early[size:]
        else:
            size = self._raw.receive_into_nowait(buffer)
        try:
            payload = _unframe(frames, buffer, size)
        finally:
            if frames.has_answer:
                self._answer()
        if not payload and size and not frames.closed:
            # Nothing but control frames. One read, one turn: who sends only those must not keep us here.
            raise trio.WouldBlock
        return payload

    def _answer(self) -> None:
        """Write a control frame, as far as there is room; the rest leaves with the next data."""
        try:
            self._frames.wrote(self._raw.send_nowait(self._frames.encode(b"")))
        except (trio.WouldBlock, trio.BrokenResourceError):
            pass

    def send_nowait(self, data: Buffer) -> int:
        if self._closed:
            raise trio.ClosedResourceError(_CLOSED)
        if self._frames.finished:
            raise trio.BrokenResourceError(_GONE)
        taken = self._frames.wrote(self._raw.send_nowait(self._frames.encode(data)))
        if not taken and len(data):
            raise trio.WouldBlock  # there was room for a part of the head
        return taken

    async def wait_readable(self) -> None:
        if self._early or self._frames.closed:
            await trio.lowlevel.checkpoint()
        else:
            await self._raw.wait_readable()

    async def wait_writable(self) -> None:
        await self._raw.wait_writable()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """As in Trio."""
        capacity = _capacity(max_bytes)
        with self._receiving:
            await trio.lowlevel.checkpoint()
            buffer = memoryview(bytearray(capacity))
            while True:
                try:
                    return bytes(buffer[: self.receive_into_nowait(buffer)])
                except trio.WouldBlock:
                    await self.wait_readable()

    async def send_all(self, data: Buffer) -> None:
        """As in Trio. A send that is cancelled harms nobody: what is sent next goes on where it stopped."""
        with self._sending:
            await trio.lowlevel.checkpoint()
            if self._closed:
                raise trio.ClosedResourceError(_CLOSED)
            await send_directly(self, data)

    async def wait_send_all_might_not_block(self) -> None:
        """As in Trio."""
        with self._sending:
            await self._raw.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Say goodbye if there is room for it, and close. Does not wait."""
        if not self._closed:
            self._frames.close()
            if self._frames.has_answer:
                self._answer()
            self._closed = True
        await self._raw.aclose()


class WebSocketStream(ByteStream):
    """A WebSocket over any byte stream, which it owns."""

    __slots__ = ("_broken", "_closed", "_early", "_frames", "_raw", "_receiving", "_sending", "_writing")

    def __init__(self, raw: ByteStream, *, client: bool) -> None:
        self._raw = raw
        self._frames = new_frames(client=client)
        self._early = b""
        self._closed = False
        self._broken = False
        self._sending = ConflictGuard("another task is sending on this stream")
        self._receiving = ConflictGuard("another task is receiving from this stream")
        self._writing = trio.Lock()

    def begin(self, early: bytes) -> None:
        """Start with bytes of the peer that were read with its side of the handshake."""
        self._early = early

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """As in Trio."""
        capacity = _capacity(max_bytes)
        frames = self._frames
        with self._receiving:
            await trio.lowlevel.checkpoint()
            while True:
                if self._closed:
                    raise trio.ClosedResourceError(_CLOSED)
                if frames.has_answer and not self._writing.locked():
                    await self._answer()  # before the next bytes, so that cancelling it loses none
                if frames.error is not None:
                    raise trio.BrokenResourceError(frames.error)
                if frames.closed:
                    return b""
                data, self._early = self._early[:capacity], self._early[capacity:]
                buffer = bytearray(data or await self._raw.receive_some(capacity))
                try:
                    payload = _unframe(frames, memoryview(buffer), len(buffer))
                except trio.BrokenResourceError:
                    if frames.has_answer and not self._writing.locked():
                        with trio.move_on_after(CLOSE_GRACE):
                            await self._answer()
                    raise
                if payload or not buffer:
                    return bytes(memoryview(buffer)[:payload])

    async def _answer(self) -> None:
        """Send a control frame; whoever is sending this moment does it for us."""
        try:
            async with self._writing:
                await self._write(b"")
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass

    async def _write(self, data: Buffer) -> int:
        if self._broken:
            raise trio.BrokenResourceError("a send was cancelled before")
        output = self._frames.encode(data)
        self._broken = True
        await self._raw.send_all(output)
        self._broken = False
        return self._frames.wrote(len(output))

    async def send_all(self, data: Buffer) -> None:
        """As in Trio. Cancelled while it waits, nothing more can be sent: nobody knows how much was."""
        with self._sending:
            await trio.lowlevel.checkpoint()
            async with self._writing:
                with memoryview(data) as view:
                    sent = 0
                    while sent < len(view) or (self._frames.has_answer and not self._closed):
                        if self._closed:
                            raise trio.ClosedResourceError(_CLOSED)
                        if self._frames.finished and sent < len(view):
                            raise trio.BrokenResourceError(_GONE)
                        sent += await self._write(view[sent:])
            if self._closed:
                raise trio.ClosedResourceError(_CLOSED)

    async def wait_send_all_might_not_block(self) -> None:
        """As in Trio."""
        with self._sending:
            async with self._writing:
                await self._raw.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Say goodbye, for which there is :data:`CLOSE_GRACE`, and close."""
        try:
            if not self._closed:
                self._closed = True
                self._frames.close()
                if self._frames.has_answer and not self._writing.locked():
                    with trio.move_on_after(CLOSE_GRACE):
                        await self._answer()
        finally:
            await self._raw.aclose()
