"""Who is in the routing table: peers get in by answering, and lose their place by not answering.

Nobody enters on anybody's word. A peer that says it serves the DHT, or that waits for a place, is asked one question
first (FIND_NODE for its own id, as go does); what is asked in lookups counts, too.
"""

from __future__ import annotations

from collections.abc import Sequence

import trio
from multiaddr import Multiaddr

from ...abc import Host
from ...addressing import is_relay
from ...errors import Libp2pError, NegotiationError
from ...peer_id import PeerId
from ._addrs import groups_of
from ._codec import Message, MessageType
from ._config import KadConfig
from ._keyspace import Point
from ._messenger import Messenger
from ._routing_table import RoutingTable


class Members:
    """The care for a routing table.

    Args:
        table: is filled and emptied.
        bootstrap: peers to ask when the table is empty; they are never forgotten.
    """

    def __init__(
        self,
        host: Host,
        config: KadConfig,
        table: RoutingTable,
        messenger: Messenger,
        nursery: trio.Nursery,
        bootstrap: Sequence[PeerId],
    ) -> None:
        self.table: RoutingTable = table
        self._host = host
        self._config = config
        self._messenger = messenger
        self._nursery = nursery
        self._bootstrap = tuple(bootstrap)
        self._checking: dict[PeerId, None] = {}
        self._slots = trio.CapacityLimiter(config.checks_at_once)

    def seeds(self, point: Point, count: int) -> list[PeerId]:
        """Whom to ask first about ``point``."""
        return self.table.nearest(point, count) or list(self._bootstrap)

    def answered(self, peer: PeerId) -> None:
        """A server has answered a question."""
        addrs = reached_at(self._host, peer)
        known = [addr for addr in (*addrs, *self._host.peerstore.addrs(peer)) if self._config.reach.admits(addr)]
        if addrs and known:
            # Its groups are those of the addresses it was reached at: what it says of itself costs it nothing.
            self.table.add(peer, groups_of(addrs), trio.current_time())

    def failed(self, peer: PeerId, *, speaks: bool = True) -> None:
        """A peer did not answer.

        Args:
            speaks: False when it no longer speaks the protocol, so that it is no server any more.
        """
        waiting = self.table.failed(peer) if speaks else self.table.remove(peer)
        if waiting is not None:
            self.check(waiting)

    def left(self, peer: PeerId) -> None:
        """A peer says that it is no server any more."""
        self.failed(peer, speaks=False)

    def check(self, peer: PeerId) -> None:
        """Find out whether ``peer`` answers, and take it in if it does. Forgotten when too many wait for it already."""
        if peer not in self._checking and len(self._checking) < self._config.checks:
            self._checking[peer] = None
            self._nursery.start_soon(self._check, peer)

    async def _check(self, peer: PeerId) -> None:
        try:
            async with self._slots:
                await self._messenger.ask(peer, Message(type=MessageType.FIND_NODE, key=bytes(peer)))
        except (Libp2pError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError) as exc:
            self.failed(peer, speaks=not isinstance(exc, NegotiationError))
        else:
            self.answered(peer)
        finally:
            del self._checking[peer]


def reached_at(host: Host, peer: PeerId) -> list[Multiaddr]:
    """Where ``peer`` is connected. Not through relays: those addresses are not its own."""
    return [each.remote_addr for each in host.connections(peer) if not is_relay(each.remote_addr)]
