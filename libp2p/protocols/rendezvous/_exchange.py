"""What both sides of rendezvous do: read a message, open a record."""

from __future__ import annotations

from ...abc import ProtocolId, Stream
from ...errors import DecodeError, RemoteProtocolError
from ...records.peer_record import OBSOLETE, PeerRecord, open_peer_record
from ...wire.framing import FrameBuffer
from ._codec import Message, decode

RENDEZVOUS: ProtocolId = "/rendezvous/1.0.0"


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


async def receive(stream: Stream, max_length: int) -> Message:
    """Read the next message, which must be the only one so far.

    Raises:
        RemoteProtocolError: it is too long, malformed, or not the only one; or the stream ended before it was complete.
        StreamReset, ConnectionClosed: as they are.
    """
    frames = FrameBuffer(max_length)
    try:
        async for chunk in stream:
            if messages := frames.receive_data(chunk):
                if len(messages) > 1 or frames.buffered:
                    raise RemoteProtocolError("more than one rendezvous message")
                return decode(messages[0])
    except DecodeError as exc:
        raise RemoteProtocolError(f"rendezvous: {exc}") from exc
    raise RemoteProtocolError("the stream ended before the rendezvous message was complete")
