"""The streams between this host and one peer.

Each side opens one stream and only writes to it; the stream that the peer opened is only read. On our own we read as
well, but any byte, or its end, means that the peer has given it up (as in go): then a new one is opened, a few times.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import trio

from ...abc import Connection, Host, ProtocolId, Stream
from ...errors import Libp2pError, NegotiationError, RemoteProtocolError
from ...peer_id import PeerId
from ._outbox import Outbox

MAX_ATTEMPTS = 4
"""Streams opened to one peer in a row (go ``MaxBackoffAttempts``)."""
FAREWELL = 1.0
"""Seconds to send what is queued when the host closes (closing never waits longer for a peer)."""
_FIRST_DELAY, _MAX_DELAY = 0.1, 10.0
"""Seconds between two attempts: doubling, with jitter (go)."""
_STABLE = 60.0
"""Seconds after which the end of a stream is no longer counted as a failed attempt (ours)."""


@dataclass(eq=False, slots=True)
class Link:
    """Everything between this host and one peer.

    Attributes:
        joined: set when the outbound stream is there for the first time, or never will be.
        scope: around the task that writes; shielded, so that it may say goodbye when the service is cancelled.
        inbound: the stream that is read; None while there is none.
        examined: new messages of the peer that were looked at.
        validations: as many asynchronous validations of this peer's messages as may still start.
        leaving: whether the peer is not connected any more, and only what it has sent is still read.
        gone: whether the link has ended.
    """

    peer: PeerId
    outbox: Outbox
    validations: trio.Semaphore
    joined: trio.Event = field(default_factory=trio.Event)
    scope: trio.CancelScope = field(default_factory=lambda: trio.CancelScope(shield=True))
    inbound: Stream | None = None
    examined: int = 0
    leaving: bool = False
    gone: bool = False

    def say_farewell(self) -> None:
        """Send what is queued, in at most :data:`FAREWELL` seconds, then stop writing."""
        # Not cancelled where there is a stream: that would reset it, and cost the peer what it has not read yet.
        self.outbox.finish()
        self.scope.deadline = trio.current_time() + FAREWELL if self.joined.is_set() else trio.current_time()

    def end(self) -> None:
        """Nobody uses it any more."""
        self.gone = True
        self.scope.cancel()
        self.joined.set()
        self.outbox.close()
        if self.inbound is not None:
            self.inbound.reset()


def usable_connection(host: Host, peer: PeerId) -> Connection | None:
    """The best connection to ``peer`` that no relay limits; None when there is none."""
    return next((connection for connection in host.connections(peer) if not connection.limited), None)


async def keep_writing(
    host: Host,
    link: Link,
    protocols: Sequence[ProtocolId],
    opened: Callable[[Link, Stream], None],
    rng: random.Random,
) -> None:
    """Write what is in the link's outbox, on as many streams as it takes.

    Args:
        opened: called for each stream before anything is sent on it.

    Returns:
        When the outbox has finished, or the peer is not connected any more, does not speak the protocols, or ends every
        stream.
    """
    attempts, speaks = 0, True
    while speaks and attempts < MAX_ATTEMPTS and (connection := usable_connection(host, link.peer)) is not None:
        if attempts:
            delay = min(_MAX_DELAY, _FIRST_DELAY * 2**attempts)
            await trio.sleep(delay * rng.uniform(0.5, 1.0))
        started = trio.current_time()
        try:
            async with await connection.open_stream(*protocols) as stream:
                opened(link, stream)
                await _write(link.outbox, stream)
                return
        except* NegotiationError:
            speaks = False
        except* (Libp2pError, trio.BrokenResourceError, trio.ClosedResourceError):
            attempts = 1 if trio.current_time() - started > _STABLE else attempts + 1


async def _write(outbox: Outbox, stream: Stream) -> None:
    """Write until the outbox has finished and the peer has read everything. Raises when the stream ends before."""
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_watch, outbox, stream, nursery.cancel_scope)
        outbox.send_nowait = stream.send_nowait
        while (batch := await outbox.next_batch()) is not None:
            try:
                stream.send_nowait(batch)
            except trio.WouldBlock:
                await stream.send_all(batch)
        outbox.send_nowait = None
        # Whoever reads to the end closes its side, too. Some (js) drop what is unread when the connection ends.
        await stream.send_eof()
        await trio.sleep_forever()


async def _watch(outbox: Outbox, stream: Stream, scope: trio.CancelScope) -> None:
    """Wait for the end of a stream on which nothing is to be read. Raises, unless it was to end."""
    said = await stream.receive_some(1)
    if said:
        raise RemoteProtocolError("the peer wrote on our stream")
    if not outbox.finished:
        raise RemoteProtocolError("the peer closed our stream")
    scope.cancel()
