"""WebSocket streams: frames over a direct stream, without task switches.

Writing never waits, so whoever reads may answer a ping in passing.

The end of the stream below counts as the end of the WebSocket between two frames, because many implementations say no
goodbye; inside of a frame it is an error.
"""

from __future__ import annotations

import os

import trio

from ..._util.rate import Budget
from ...abc import Buffer, DirectStream
from ...errors import RemoteProtocolError
from ._layer import LayerStream
from ._machine import Frames, Mask, mask

UNFRAME_SIZE = 64 * 1024
"""Bytes unframed in one go. More would be faster with large frames, and let a peer that sends tiny ones hold up the
whole process: 20,000 frames fit here, which take 40 ms."""


EMPTY_FRAMES = 1000
"""Frames without payload that a peer may send in a second, as with the muxers; twice as many at once."""


def _random_key() -> bytes:
    return os.urandom(4)


class WebSocketStream(LayerStream):
    """A WebSocket over ``raw``, which it owns. :meth:`begin` comes before all use but closing."""

    __slots__ = ("_begun", "_early", "_empty", "_frames")

    def __init__(self, raw: DirectStream, *, client: bool, mask: Mask = mask) -> None:
        super().__init__(raw)
        self._frames = Frames(client=client, make_key=_random_key, mask=mask)
        self._empty = Budget(EMPTY_FRAMES, 2 * EMPTY_FRAMES)
        self._early = b""
        self._begun = False

    def begin(self, early: bytes) -> None:
        """Start with bytes of the peer that were read with its side of the handshake."""
        self._early = early
        self._begun = True

    def receive_into_nowait(self, buffer: memoryview) -> int:
        self._check_open()
        frames = self._frames
        if frames.error is not None:
            raise trio.BrokenResourceError(frames.error)
        if frames.closed:
            return 0
        buffer = buffer[:UNFRAME_SIZE]
        if self._early:
            size = min(len(buffer), len(self._early))
            buffer[:size], self._early = self._early[:size], self._early[size:]
        else:
            size = self._raw.receive_into_nowait(buffer)
        try:
            payload = self._unframe(buffer, size)
        finally:
            if frames.has_answer:
                self._answer()
        if not payload and size and not frames.closed:
            # Nothing but control frames. One read, one turn: who sends only those must not keep us here.
            raise trio.WouldBlock
        return payload

    def _unframe(self, buffer: memoryview, size: int) -> int:
        frames = self._frames
        if not size and not frames.at_border:
            raise trio.BrokenResourceError("the connection ended inside a frame")
        try:
            payload = frames.unframe(buffer, size)
        except RemoteProtocolError as exc:
            raise trio.BrokenResourceError(str(exc)) from exc
        if frames.empty and not self._empty.charge(trio.current_time(), frames.empty):
            frames.fail("a flood of frames without payload, one read after the other")
            raise trio.BrokenResourceError(frames.error)
        return payload

    def _answer(self) -> None:
        """Write a control frame, as far as there is room; the rest leaves with the next data."""
        try:
            self._frames.wrote(self._raw.send_nowait(self._frames.encode(b"")))
        except (trio.WouldBlock, trio.BrokenResourceError):
            pass

    def send_nowait(self, data: Buffer) -> int:
        self._check_open()
        if self._frames.finished:
            raise trio.BrokenResourceError("the WebSocket was closed")
        taken = self._frames.wrote(self._raw.send_nowait(self._frames.encode(data)))
        if not taken and len(data):
            raise trio.WouldBlock  # there was room for a part of the head
        return taken

    async def wait_readable(self) -> None:
        if self._early or self._frames.closed:
            await trio.lowlevel.checkpoint()
        else:
            await self._raw.wait_readable()

    async def aclose(self) -> None:
        """Say goodbye if there is room for it, and close. Does not wait."""
        if self._begun and not self._closed:
            self._frames.close()
            if self._frames.has_answer:
                self._answer()
        self._closed = True
        await self._raw.aclose()
