"""Messages behind their lengths, on streams that carry nothing else."""

from __future__ import annotations

from collections import deque

from ...abc import ProtocolId, Stream
from ...errors import DecodeError, RemoteProtocolError
from ...wire.framing import FrameBuffer, frame
from ._codec import MAX_MESSAGE

AUTONAT: ProtocolId = "/libp2p/autonat/1.0.0"
"""The protocol id of AutoNAT 1."""
DIAL_REQUEST: ProtocolId = "/libp2p/autonat/2/dial-request"
"""The protocol id of AutoNAT 2 on which a client asks."""
DIAL_BACK: ProtocolId = "/libp2p/autonat/2/dial-back"
"""The protocol id of AutoNAT 2 on which a server proves that it got through."""


class Messages:
    """The messages of one stream. Reading is bounded by :data:`~libp2p.protocols.autonat._codec.MAX_MESSAGE`."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._frames = FrameBuffer(MAX_MESSAGE)
        self._waiting: deque[bytes] = deque()

    async def send(self, message: bytes) -> None:
        """Send ``message``."""
        await self._stream.send_all(frame(message))

    async def receive(self) -> bytes:
        """Wait for the next message.

        Raises:
            RemoteProtocolError: it is too long, or the stream ends before it does.
            StreamReset, ConnectionClosed: the stream was lost.
        """
        while not self._waiting:
            chunk = await self._stream.receive_some()
            if not chunk:
                raise RemoteProtocolError("the peer ended the stream before its message was complete")
            try:
                self._waiting += self._frames.receive_data(chunk)
            except DecodeError as exc:
                raise RemoteProtocolError(f"autonat: {exc}") from exc
        return self._waiting.popleft()
