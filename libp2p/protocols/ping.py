"""``/ipfs/ping/1.0.0``: is the peer alive, and how far away is it?

The dialer sends 32 random bytes, the listener sends them back, as often as the dialer likes on one stream. The swarm's
limits allow a peer two such streams at a time.

Source: libp2p/specs, ping.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager

import trio

from .._util.conflict import ConflictGuard
from .._util.eager import send_eagerly
from ..abc import Host, ProtocolId, Service, Stream, StreamHandler, Target
from ..errors import RemoteProtocolError, ServiceTimeout
from ..metrics import Metric, counter

PING: ProtocolId = "/ipfs/ping/1.0.0"
"""The protocol id."""
SIZE = 32
"""Bytes of a ping."""
REPLY_TIMEOUT = 10.0
"""Seconds to wait for an answer (go and js)."""
STREAM_LIFE = 30.0
"""Seconds an inbound stream is served (go ``pingDuration``, case I5). Whoever pings for longer opens another one."""


class PingTimeout(ServiceTimeout):
    """The peer did not answer in time."""

    what = "answer to a ping"


class Ping(Service):
    """Answers pings.

    Args:
        stream_life: seconds after which an inbound stream is closed, however busy it is.
    """

    def __init__(self, *, stream_life: float = STREAM_LIFE) -> None:
        self._stream_life = stream_life
        self._answered = 0

    @property
    def handlers(self) -> Mapping[ProtocolId, StreamHandler]:
        """The one protocol."""
        return {PING: self._answer}

    @property
    def limited_protocols(self) -> frozenset[ProtocolId]:
        """A ping is small enough for a relayed connection with limits."""
        return frozenset((PING,))

    async def _answer(self, stream: Stream) -> None:
        # Closing in order after the time is up, not resetting: the peer may well be in the middle of reading an answer.
        rest = b""
        with trio.move_on_after(self._stream_life):
            async for chunk in stream:
                # Whatever pings came together are answered together: a flood of them costs no more than its bytes.
                data = rest + chunk
                whole = len(data) // SIZE * SIZE
                rest = data[whole:]
                if whole:
                    self._answered += whole // SIZE
                    await send_eagerly(stream, data[:whole])

    def measure(self) -> Iterable[Metric]:
        """Pings of others."""
        yield counter("libp2p_ping_answered_total", "Pings of others that were answered", self._answered)


class PingSession:
    """Pings one peer again and again. Made by :func:`open_ping`."""

    def __init__(self, host: Host, target: Target, timeout: float) -> None:
        self._host = host
        self._target = target
        self._timeout = timeout
        self._stream: Stream | None = None
        self._guard = ConflictGuard("another task is pinging with this session")

    async def once(self) -> float:
        """Ping the peer once.

        The stream is kept for the next ping; when the peer has ended it since the last one, a new one is opened.
        Cancelled, the session stays usable.

        Returns:
            The round trip in seconds, without the time it took to open the stream.

        Raises:
            PingTimeout: no answer in time.
            RemoteProtocolError: the answer was wrong.
            trio.BusyResourceError: another task is using this session.
            DialError, NegotiationError, LimitExceeded: no stream could be opened.
            StreamReset, ConnectionClosed: the stream ended before the answer came.
        """
        try:
            # Not fail_after, which costs as much as the rest of this method.
            with self._guard, trio.CancelScope(deadline=trio.current_time() + self._timeout) as scope:
                if (stream := self._stream) is not None:
                    try:
                        return await self._round_trip(stream)
                    except (trio.BrokenResourceError, trio.EndOfChannel):
                        # Peers end long-lived ping streams (go, and we, after 30 s).
                        self._drop(stream)
                stream = self._stream = await self._host.open_stream(self._target, PING, allow_limited=True)
                return await self._round_trip(stream)
        except trio.EndOfChannel as exc:
            raise RemoteProtocolError("the peer closed the ping stream without an answer") from exc
        assert scope.cancelled_caught
        raise PingTimeout(self._target, self._timeout)

    async def _round_trip(self, stream: Stream) -> float:
        """One ping on ``stream``, which is given up unless all went well: a late answer would spoil the next ping."""
        payload = secrets.token_bytes(SIZE)
        try:
            sent_at = trio.current_time()
            await send_eagerly(stream, payload)
            answer = await _receive_payload(stream)
            elapsed = trio.current_time() - sent_at
            if not answer:
                raise trio.EndOfChannel
            if answer != payload:
                raise RemoteProtocolError("the peer answered a ping with other bytes than it was sent")
        except BaseException:
            self._drop(stream)
            raise
        return elapsed

    def _drop(self, stream: Stream) -> None:
        stream.reset()
        if self._stream is stream:
            self._stream = None

    async def _aclose(self) -> None:
        if self._stream is not None:
            await self._stream.aclose()


@asynccontextmanager
async def open_ping(host: Host, target: Target, *, timeout: float = REPLY_TIMEOUT) -> AsyncIterator[PingSession]:
    """Ping a peer as often as wanted: ``await session.once()``.

    Args:
        host: the host to ping from.
        target: who to ping; dialled when there is no connection.
        timeout: seconds for each ping, connecting included.
    """
    session = PingSession(host, target, timeout)
    try:
        yield session
    finally:
        await session._aclose()


async def ping(host: Host, target: Target, *, count: int = 1, timeout: float = REPLY_TIMEOUT) -> list[float]:
    """Ping a peer ``count`` times, one after the other, on one stream.

    Args:
        host: the host to ping from.
        target: who to ping; dialled when there is no connection.
        count: how often.
        timeout: seconds for each ping, connecting included.

    Returns:
        The round trips in seconds.

    Raises:
        ValueError: ``count`` is less than one.
        PingTimeout, RemoteProtocolError, DialError, NegotiationError, LimitExceeded, StreamReset, ConnectionClosed:
            as :meth:`PingSession.once`; the round trips before the failure are lost.
    """
    if count < 1:
        raise ValueError(f"cannot ping {count} times")
    async with open_ping(host, target, timeout=timeout) as session:
        return [await session.once() for _ in range(count)]


async def _receive_payload(stream: Stream) -> bytes:
    """The next 32 bytes, in however many pieces they arrive; empty when the stream ends before they are complete."""
    parts: list[bytes | bytearray] = []
    missing = SIZE
    while missing:
        chunk = await stream.receive_some(missing)
        if not chunk:
            return b""
        parts.append(chunk)
        missing -= len(chunk)
    return b"".join(parts)
