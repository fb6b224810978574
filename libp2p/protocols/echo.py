"""``/echo/1.0.0``: send back what you receive.

The smallest useful protocol: what a protocol of your own looks like, and something to test connections with.
"""

from __future__ import annotations

from collections.abc import Mapping

from .._util.nursery import open_unwrapping_nursery
from ..abc import Host, ProtocolId, Service, Stream, StreamHandler, Target

ECHO: ProtocolId = "/echo/1.0.0"
"""The protocol id."""


class Echo(Service):
    """Sends back what it receives, until the peer has no more to say."""

    @property
    def handlers(self) -> Mapping[ProtocolId, StreamHandler]:
        """The one protocol."""
        return {ECHO: self._answer}

    async def _answer(self, stream: Stream) -> None:
        async for chunk in stream:
            await stream.send_all(chunk)


async def echo(host: Host, target: Target, data: bytes) -> bytes:
    """Send ``data`` to a peer and return what comes back.

    Args:
        host: the host to send from.
        target: the peer; dialled when there is no connection.
        data: any amount; it is sent while the answer is read.

    Raises:
        DialError, NegotiationError, LimitExceeded: no stream could be opened.
        StreamReset, ConnectionClosed: the stream ended before everything came back.
    """
    async with await host.open_stream(target, ECHO) as stream, open_unwrapping_nursery() as nursery:
        # At the same time: the peer stops reading while it cannot get rid of its answer.
        nursery.start_soon(_say, stream, data)
        return b"".join([chunk async for chunk in stream])


async def _say(stream: Stream, data: bytes) -> None:
    await stream.send_all(data)
    await stream.send_eof()
