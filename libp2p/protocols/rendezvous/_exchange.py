"""What both sides of rendezvous do: read messages, open a record."""

from __future__ import annotations

from collections import deque

from ...abc import ProtocolId, Stream
from ...errors import DecodeError, RemoteProtocolError
from ...records.peer_record import OBSOLETE, PeerRecord, open_peer_record
from ...wire.framing import FrameBuffer
from ._codec import Message, decode

RENDEZVOUS: ProtocolId = "/rendezvous/1.0.0"
"""The protocol id."""


def open_record(data: bytes) -> tuple[PeerRecord, bool]:
    """Return the signed record in ``data``, and whether it has the form that everybody uses.

    Raises:
        DecodeError: it has neither form, or its signature is wrong.
    """
    try:
        return open_peer_record(data), True
    except DecodeError as exc:
        try:
            return open_peer_record(data, form=OBSOLETE), False
        except DecodeError:
            raise exc from None


class Messages:
    """Reads the messages of a stream.

    Args:
        max_length: of each, in bytes.
    """

    def __init__(self, stream: Stream, max_length: int) -> None:
        self._stream = stream
        self._frames = FrameBuffer(max_length)
        self._read: deque[bytes] = deque()

    async def receive(self) -> Message | None:
        """Read the next message; None at the end of the stream.

        Raises:
            RemoteProtocolError: it is too long or malformed, or the stream ended before it was complete.
            StreamReset, ConnectionClosed: as they are.
        """
        try:
            while not self._read:
                chunk = await self._stream.receive_some()
                if not chunk:
                    if self._frames.buffered:
                        raise RemoteProtocolError("the stream ended before the rendezvous message was complete")
                    return None
                self._read += self._frames.receive_data(chunk)
            return decode(self._read.popleft())
        except DecodeError as exc:
            raise RemoteProtocolError(f"rendezvous: {exc}") from exc
