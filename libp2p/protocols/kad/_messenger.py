"""Questions to other servers, on streams that are used again.

A stream that has carried a question and its answer waits for the next question to the same peer. What was announced
without an answer (ADD_PROVIDER) ends its stream: some implementations answer all the same, and that answer would be
taken for the next question's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import trio

from ...abc import Host, Stream
from ...errors import DecodeError, NoAddresses, RemoteProtocolError, ServiceError
from ...peer_id import PeerId
from ...wire.framing import FrameBuffer, frame
from ._addrs import readable
from ._codec import MAX_ANSWER, Message, decode, encode
from ._config import KadConfig


class LimitedConnection(ServiceError):
    """The only way to a peer is a relay that counts its bytes: not for the DHT."""


@dataclass(slots=True)
class _Idle:
    stream: Stream
    until: float


class Messenger:
    """Asks peers.

    Args:
        host: dials them.
        config: the protocol, times and bounds.
    """

    def __init__(self, host: Host, config: KadConfig) -> None:
        self._host = host
        self._config = config
        # In the order in which they became idle.
        self._idle: dict[PeerId, _Idle] = {}

    async def ask(self, peer: PeerId, message: Message, addrs: Sequence[bytes] = ()) -> Message:
        """Send a request and return the answer.

        Args:
            addrs: where the peer is said to be; dialled when there is no connection.

        Raises:
            trio.TooSlowError: there was no answer within ``request_timeout``.
            RemoteProtocolError: it answered something else.
            DialError, NegotiationError, LimitExceeded, LimitedConnection: no stream could be opened.
            trio.BrokenResourceError: the stream or the connection was lost.
        """
        data = frame(encode(message))
        with trio.fail_after(self._config.request_timeout):
            idle = self._take(peer)
            if idle is not None:
                try:
                    return await self._exchange(peer, idle, data, message)
                except (trio.BrokenResourceError, trio.ClosedResourceError, RemoteProtocolError):
                    pass  # the peer may close an idle stream at any moment; a new one tells what is wrong
            return await self._exchange(peer, await self._open(peer, addrs), data, message)

    async def tell(self, peer: PeerId, messages: bytes) -> None:
        """Send messages, each in its frame, that have no answer. Raises as :meth:`ask`.

        On a stream of their own: an idle one the peer may have closed, and here no missing answer would tell.
        """
        with trio.fail_after(self._config.request_timeout):
            async with await self._open(peer) as stream:
                await stream.send_all(messages)

    async def _open(self, peer: PeerId, addrs: Sequence[bytes] = ()) -> Stream:
        host = self._host
        found = [] if host.connections(peer) else readable(addrs, peer) or host.peerstore.addrs(peer)
        if not found and not host.connections(peer):
            # The host would ask its routing for addresses, which is us.
            raise NoAddresses(peer)
        connection = await host.connect(peer, found)
        if connection.limited:
            raise LimitedConnection(f"{peer} is reached through a relay with limits")
        return await connection.open_stream(self._config.protocol)

    async def _exchange(self, peer: PeerId, stream: Stream, data: bytes, request: Message) -> Message:
        try:
            await stream.send_all(data)
            answer, clean = await _receive(stream)
            if answer.type is not request.type:
                raise RemoteProtocolError(f"asked for {request.type.name}, got {answer.type.name}")
        except BaseException:
            stream.reset()
            raise
        if clean and peer not in self._idle:
            self._keep(peer, stream)
        else:
            await stream.aclose()
        return answer

    # --- idle streams

    def _take(self, peer: PeerId) -> Stream | None:
        idle = self._idle.pop(peer, None)
        return None if idle is None else idle.stream

    def _keep(self, peer: PeerId, stream: Stream) -> None:
        if len(self._idle) >= self._config.idle_streams:
            self._drop(next(iter(self._idle)))
        # Half of what the other side waits: a question must not cross its close.
        self._idle[peer] = _Idle(stream, trio.current_time() + self._config.idle_timeout / 2)

    def _drop(self, peer: PeerId) -> None:
        self._idle.pop(peer).stream.reset()

    def sweep(self) -> None:
        """End streams that were idle for too long."""
        now = trio.current_time()
        for peer in [peer for peer, idle in self._idle.items() if idle.until <= now]:
            self._drop(peer)

    def close(self) -> None:
        """End all idle streams."""
        for peer in tuple(self._idle):
            self._drop(peer)


async def _receive(stream: Stream) -> tuple[Message, bool]:
    """One answer, and whether nothing came behind it."""
    frames = FrameBuffer(MAX_ANSWER)
    try:
        async for chunk in stream:
            if messages := frames.receive_data(chunk, 1):
                return decode(messages[0]), not frames.buffered
    except DecodeError as exc:
        raise RemoteProtocolError(f"not an answer of the DHT: {exc}") from exc
    raise RemoteProtocolError("the peer closed the stream before its answer was complete")
