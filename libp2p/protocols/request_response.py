"""One request, one response: the helper for protocols that need no more.

Each request has a stream of its own. Both messages travel behind their length as an unsigned varint, as in most
libp2p protocols, so that other implementations can serve and ask.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

import trio

from ..abc import Host, ProtocolId, Service, Stream, StreamHandler, Target
from ..errors import DecodeError, RemoteProtocolError, ServiceError, ServiceTimeout
from ..peer_id import PeerId
from ..wire.framing import FrameBuffer, frame

RequestHandler: TypeAlias = Callable[[PeerId, bytes], Awaitable[bytes]]
"""Answers a request: called with the peer that asks, and what it asks."""

MAX_SIZE = 1024 * 1024
"""Bytes of a request or a response, unless said otherwise."""
TIMEOUT = 10.0
"""Seconds for a request and its response, unless said otherwise."""


class RequestTooLarge(ServiceError):
    """The request is longer than the protocol allows. Nothing was sent.

    Attributes:
        size: its bytes.
        limit: how many there may be.
    """

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(size, limit)
        self.size = size
        self.limit = limit

    def __str__(self) -> str:
        return f"a request of {self.size} bytes is above the limit of {self.limit}"


class RequestTimeout(ServiceTimeout):
    """No response in time."""

    what = "response"


class RequestResponse(Service):
    """A protocol of requests and responses.

    As a service of a host it serves ``handler``; :meth:`request` also works on an object that serves nothing.

    Args:
        protocol: the protocol id.
        handler: answers requests; None to only ask. What it raises resets the stream, which the asking side sees.
        max_request: bytes of a request; a peer that sends a longer one is cut off.
        max_response: bytes of a response, likewise. A handler that returns more has a bug.
        timeout: seconds in all for one request of ours; of a peer's, seconds to send it, and again to take the
            response. How long the handler may take is its own affair.
        allow_limited: whether to serve it, and to ask, over relayed connections with limits, too.
    """

    def __init__(
        self,
        protocol: ProtocolId,
        handler: RequestHandler | None = None,
        *,
        max_request: int = MAX_SIZE,
        max_response: int = MAX_SIZE,
        timeout: float = TIMEOUT,
        allow_limited: bool = False,
    ) -> None:
        if min(max_request, max_response) < 0 or timeout <= 0:
            raise ValueError("sizes must not be negative, and the timeout positive")
        self.protocol = protocol
        self._handler = handler
        self._max_request = max_request
        self._max_response = max_response
        self._timeout = timeout
        self._allow_limited = allow_limited

    @property
    def handlers(self) -> Mapping[ProtocolId, StreamHandler]:
        """The protocol, if there is a handler for it."""
        return {} if self._handler is None else {self.protocol: self._answer}

    @property
    def limited_protocols(self) -> frozenset[ProtocolId]:
        """The protocol, if that was asked for."""
        return frozenset((self.protocol,)) if self._allow_limited else frozenset()

    async def request(self, host: Host, target: Target, data: bytes) -> bytes:
        """Ask a peer, and return its response.

        Args:
            host: the host to ask from.
            target: the peer; dialled when there is no connection.
            data: the request.

        Raises:
            RequestTooLarge: ``data`` is longer than ``max_request``.
            RequestTimeout: there was no complete response in time.
            RemoteProtocolError: the peer sent something else than one response of at most ``max_response`` bytes.
            StreamReset: the peer refused: it was not willing or not able to answer.
            DialError, NegotiationError, LimitExceeded: no stream could be opened.
            ConnectionClosed: the connection was lost.
        """
        if len(data) > self._max_request:
            raise RequestTooLarge(len(data), self._max_request)
        try:
            with trio.fail_after(self._timeout):
                async with await host.open_stream(target, self.protocol, allow_limited=self._allow_limited) as stream:
                    await stream.send_eof(frame(data))
                    return await _receive(stream, self._max_response, "response")
        except trio.TooSlowError as exc:
            raise RequestTimeout(target, self._timeout) from exc

    async def _answer(self, stream: Stream) -> None:
        assert self._handler is not None  # otherwise this is no handler
        with trio.fail_after(self._timeout):
            request = await _receive(stream, self._max_request, "request")
        response = await self._handler(stream.connection.peer, request)
        if len(response) > self._max_response:
            raise ValueError(f"the response of {len(response)} bytes is above the limit of {self._max_response}")
        with trio.fail_after(self._timeout):
            await stream.send_eof(frame(response))


async def _receive(stream: Stream, max_length: int, what: str) -> bytes:
    """The one message on ``stream``. Whether the peer half-closes after it makes no difference."""
    frames = FrameBuffer(max_length)
    try:
        async for chunk in stream:
            if messages := frames.receive_data(chunk):
                if len(messages) > 1 or frames.buffered:
                    raise RemoteProtocolError(f"the peer sent more than one {what}")
                return messages[0]
    except DecodeError as exc:
        raise RemoteProtocolError(f"{what}: {exc}") from exc
    raise RemoteProtocolError(f"the peer closed the stream before its {what} was complete")
