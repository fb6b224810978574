"""What is asked of a relay of version 1, and of those who wait behind it."""

from __future__ import annotations

from ...abc import Stream
from ...addressing import Part, from_parts
from ...errors import DecodeError, RemoteProtocolError
from ...peer_id import PeerId
from ._exchange import receive_message, send_message
from ._v1 import End, Kind, MessageV1, decode, encode


async def ask(stream: Stream, request: MessageV1) -> int | None:
    """Send ``request`` and return the status that comes back. Resets the stream when none does.

    Raises:
        RemoteProtocolError: the answer broke the rules.
        StreamReset, ConnectionClosed: the stream ended before the answer was complete.
    """
    try:
        await send_message(stream, encode(request))
        answer = decode(await receive_message(stream))
        if answer.kind is not Kind.STATUS:
            raise RemoteProtocolError(f"a relay answered with a {answer.kind.name}")
    except DecodeError as exc:
        stream.reset()
        raise RemoteProtocolError(f"relay: {exc}") from exc
    except BaseException:
        stream.reset()
        raise
    return answer.status


def hop(source: PeerId, destination: PeerId) -> MessageV1:
    """The request to be connected with ``destination``."""
    return MessageV1(kind=Kind.HOP, source=_end(source), destination=_end(destination))


def _end(peer: PeerId) -> End:
    # With an address, because js reads the first without looking whether there is one.
    return End(bytes(peer), (from_parts((Part("p2p", bytes(peer)),)).to_bytes(),))
