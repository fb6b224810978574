"""One identify conversation: reading what a peer says, and saying it."""

from __future__ import annotations

import trio

from ...abc import Host, ProtocolId, Stream, Target
from ...errors import DecodeError, NegotiationError, RemoteProtocolError, ServiceError, StreamReset
from ...events import PeerIdentified
from ...wire.framing import FrameBuffer, frame
from ._codec import MAX_PARTS, MAX_RECEIVED, IdentifyInfo, decode

IDENTIFY: ProtocolId = "/ipfs/id/1.0.0"
"""The protocol id of identify."""
IDENTIFY_PUSH: ProtocolId = "/ipfs/id/push/1.0.0"
"""The protocol id of identify push."""
TIMEOUT = 5.0
"""Seconds that one conversation may take (go; js gives it 10)."""
TURN = 1.0
"""Seconds to wait for another conversation with the same peer to end, before asking again (ours)."""


class IdentifyFailed(ServiceError):
    """A peer could not be identified.

    Attributes:
        target: who was asked.
        reason: why not, for people.
    """

    def __init__(self, target: Target, reason: str) -> None:
        super().__init__(target, reason)
        self.target = target
        self.reason = reason

    def __str__(self) -> str:
        return f"could not identify {self.target}: {self.reason}"


async def identify(host: Host, target: Target, *, timeout: float = TIMEOUT) -> IdentifyInfo:
    """Ask a peer what it says about itself, now. Nothing is remembered of the answer.

    The host's :class:`Identify` service has done this already on every connection; what it learnt is in the peerstore.

    Args:
        host: the host to ask from.
        target: who to ask; dialled when there is no connection.
        timeout: seconds for the whole of it.

    Raises:
        IdentifyFailed: no complete answer in time.
        RemoteProtocolError: the answer broke the rules, or came with somebody else's key.
        DialError, NegotiationError, LimitExceeded: no stream could be opened.
        StreamReset, ConnectionClosed: the stream ended before the answer was complete.
    """
    try:
        with trio.fail_after(timeout), host.subscribe(PeerIdentified) as identified:
            peer = (await host.connect(target)).peer
            try:
                return await request(await host.open_stream(peer, IDENTIFY, allow_limited=True))
            except (StreamReset, NegotiationError) as exc:
                reset = exc if isinstance(exc, StreamReset) else exc.__cause__
                if not isinstance(reset, StreamReset) or not reset.remote:
                    raise
            # A js peer answers one identify at a time, and the host's service may just be asking, too: after it, then.
            with trio.move_on_after(TURN):
                async for event in identified:
                    if event.peer == peer:
                        break
            return await request(await host.open_stream(peer, IDENTIFY, allow_limited=True))
    except trio.TooSlowError as exc:
        raise IdentifyFailed(target, f"no answer within {timeout:g} s") from exc


async def request(stream: Stream) -> IdentifyInfo:
    """Read the answer on a stream that was opened for :data:`IDENTIFY`, close it, and check the key."""
    async with stream:
        info = await receive(stream)
        check_key(stream, info)
        return info


async def receive(stream: Stream) -> IdentifyInfo:
    """Read messages until the peer has no more to say.

    Raises:
        RemoteProtocolError: no message, too many or too long ones, or one that does not parse or end.
    """
    frames = FrameBuffer(MAX_RECEIVED)
    parts: list[bytes] = []
    try:
        async for chunk in stream:
            parts += frames.receive_data(chunk, MAX_PARTS + 1 - len(parts))
            if len(parts) > MAX_PARTS:
                break
        if frames.buffered and len(parts) <= MAX_PARTS:
            raise RemoteProtocolError("the peer ended an identify message in the middle")
        if not parts:
            raise RemoteProtocolError("the peer closed the identify stream without a message")
        return decode(parts)
    except DecodeError as exc:
        raise RemoteProtocolError(f"identify: {exc}") from exc


def check_key(stream: Stream, info: IdentifyInfo) -> None:
    """Compare the key in ``info`` with the one that the connection's handshake proved.

    Raises:
        WrongKey: it is another one.
    """
    if info.public_key is not None and info.public_key != stream.connection.remote_key.marshal():
        raise WrongKey("the peer identified itself with a key that is not its own")


class WrongKey(RemoteProtocolError):
    """The peer gave a public key that is not the one of its connection."""


async def send(stream: Stream, message: bytes, *, timeout: float) -> None:
    """Say ``message``; that it is all, the end of the stream says. Not a checkpoint where the peer's window is open.

    Raises:
        trio.TooSlowError: the peer did not let us within ``timeout`` seconds.
    """
    data = frame(message)
    try:
        stream.send_nowait(data)
    except trio.WouldBlock:
        with trio.fail_after(timeout):
            await stream.send_all(data)
