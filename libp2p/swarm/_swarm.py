"""The swarm: connections by peer, and how they come and go.

It owns every connection's supervisor, every dial and every accept loop, all in the one nursery of :meth:`Swarm.run`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager

import trio
from multiaddr import Multiaddr

from .._util.contain import Containment
from ..abc import (
    Connection,
    Direction,
    EventT,
    Muxer,
    Network,
    Peerstore,
    Protector,
    ProtocolId,
    Resolver,
    SecurityProtocol,
    Stream,
    Transport,
)
from ..addressing import is_relay
from ..errors import (
    ConnectionClosed,
    ConnectionDenied,
    DialError,
    DialToSelf,
    LimitExceeded,
    NoAddresses,
    TransportError,
)
from ..events import ConnectionEnded, ConnectionOpened, Event, PeerConnected, PeerDisconnected
from ..metrics import Metric
from ..peer_id import PeerId
from ._config import SwarmConfig
from ._connection import Handler, SwarmConnection
from ._dialing import Dialing
from ._events import EventBus
from ._gater import ContainedGater, Gater
from ._limits import PendingToken, Scopes, source_ip
from ._listening import Listening
from ._measured import SwarmCounters, measure_use
from ._trim import ConnInfo, Tags, choose_victims
from ._unsupported import not_listened_on
from ._upgrade import Upgraded, Upgrader

_log = logging.getLogger("libp2p.swarm")

GARBAGE_COLLECTED = 0x1006
"""Connection error code for trimmed connections (specs error-codes)."""
CONNECTED_TTL = 3600.0
"""Seconds that an address which worked is remembered after the last use."""


class Swarm(Network):
    """Connections of one host.

    Args:
        local_peer: this host's id; connections to it are refused.
        handlers: protocol id to handler; shared with, and changed by, the host.
        protector: of the private network; None in the public one.
    """

    def __init__(
        self,
        *,
        local_peer: PeerId,
        peerstore: Peerstore,
        transports: Sequence[Transport],
        security: Sequence[SecurityProtocol],
        muxers: Sequence[Muxer],
        resolver: Resolver,
        gater: Gater,
        containment: Containment,
        handlers: Mapping[ProtocolId, Handler],
        config: SwarmConfig,
        protector: Protector | None = None,
    ) -> None:
        self._local_peer = local_peer
        self._peerstore = peerstore
        self._transports = tuple(transports)
        self._gater = ContainedGater(gater, containment)
        self._containment = containment
        self._handlers = handlers
        self._config = config
        self._nursery: trio.Nursery | None = None
        self._connections: dict[PeerId, list[SwarmConnection]] = {}
        self._count = 0
        self.scopes: Scopes = Scopes(config.limits)
        self.tags: Tags = Tags()
        self.events: EventBus = EventBus()
        self._counters = SwarmCounters()
        upgrader = Upgrader(security, muxers, protector)
        self._dialing = Dialing(
            transports=self._transports,
            upgrader=upgrader,
            resolver=resolver,
            gater=self._gater,
            scopes=self.scopes,
            containment=containment,
            config=config,
            admit=self._admit,
            counters=self._counters,
            peerstore=peerstore,
        )
        self._listening = Listening(
            upgrader=upgrader,
            gater=self._gater,
            scopes=self.scopes,
            containment=containment,
            config=config,
            admit=self._admit,
            publish=self.events.publish,
        )

    @property
    def local_peer(self) -> PeerId:
        return self._local_peer

    @property
    def peerstore(self) -> Peerstore:
        return self._peerstore

    # --- life

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep transports, listeners, dials and connections going until cancelled."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                for transport in self._transports:
                    await nursery.start(transport.run)
                task_status.started()
                while True:
                    # Connections are also trimmed when one is added; this catches those whose grace has ended since.
                    await trio.sleep(self._config.trim.silence)
                    self._trim()
        finally:
            # Whoever still holds the host is told so, before anything is opened that nobody would close.
            self._nursery = None

    async def stop_listening(self) -> None:
        """Close all listeners. Connections stay."""
        await self._listening.close()

    async def aclose(self) -> None:
        """Stop listening and say goodbye on every connection, within ``close_timeout``."""
        await self._listening.close()
        with trio.move_on_after(self._config.close_timeout):
            await _close_all(self._all())

    def _running(self) -> trio.Nursery:
        if self._nursery is None:
            raise RuntimeError("the host is not running: its block has ended")
        return self._nursery

    # --- listening

    async def listen(self, addr: Multiaddr) -> Sequence[Multiaddr]:
        """Listen on ``addr``; returns the concrete addresses.

        Raises:
            TransportError: no transport understands it, or it cannot be bound.
        """
        # A host that is being cancelled is cancelled here; only one that has ended is misused.
        await trio.lowlevel.checkpoint_if_cancelled()
        nursery = self._running()
        for transport in self._transports:
            if transport.can_listen(addr):
                listener = await transport.listen(addr)
                self._listening.start(listener, nursery)
                return listener.addresses
        raise TransportError(addr, not_listened_on(addr))

    def bound_addrs(self) -> list[Multiaddr]:
        """What the listeners are bound to, unspecified hosts not expanded."""
        return [addr for listener in self._listening.listeners for addr in listener.addresses]

    def listen_addrs(self) -> Sequence[Multiaddr]:
        return self.bound_addrs()

    def can_dial(self, addr: Multiaddr) -> bool:
        return any(transport.can_dial(addr) for transport in self._transports)

    # --- connections

    def connections(self, peer: PeerId | None = None) -> Sequence[Connection]:
        if peer is None:
            return self._all()
        return sorted(self._connections.get(peer, ()), key=_preference)

    def _all(self) -> list[SwarmConnection]:
        return [conn for conns in self._connections.values() for conn in conns]

    def _best(self, peer: PeerId) -> SwarmConnection | None:
        conns = self._connections.get(peer)
        if not conns:
            return None
        return conns[0] if len(conns) == 1 else min(conns, key=_preference)

    async def connect(self, peer: PeerId | None, addrs: Iterable[Multiaddr] = ()) -> Connection:
        """See :meth:`libp2p.abc.Network.connect`. ``peer`` may be None: whoever answers at ``addrs``."""
        if peer is not None:
            if peer == self._local_peer:
                raise DialToSelf(peer)
            if (conn := self._best(peer)) is not None:
                await trio.lowlevel.checkpoint()
                return conn
            if not self._gater.dial_peer(peer):
                raise ConnectionDenied(peer)
        return await self._dialing.connect(peer, list(addrs), self._running())

    async def connect_directly(
        self, peer: PeerId, addrs: Iterable[Multiaddr], *, direction: Direction = Direction.OUTBOUND
    ) -> Connection:
        """See :meth:`libp2p.abc.Network.connect_directly`."""
        await trio.lowlevel.checkpoint_if_cancelled()
        failures: list[tuple[Multiaddr, Exception]] = []
        tried = self._dialing.reachable(peer, addrs)

        async def attempt(addr: Multiaddr) -> None:
            found = await self._dialing.try_once(peer, addr, direction)
            if isinstance(found, Exception):
                failures.append((addr, found))
                if direction is Direction.OUTBOUND and len(failures) == len(tried):
                    nursery.cancel_scope.cancel()

        # The first to be direct is the result, be it ours or the peer's.
        with self.events.subscribe(ConnectionOpened) as opened:
            async with trio.open_nursery() as nursery:
                if (tried or direction is Direction.INBOUND) and self._direct(peer) is None:
                    for addr in tried:
                        nursery.start_soon(attempt, addr)
                    while self._direct(peer) is None:
                        await opened.receive()
                nursery.cancel_scope.cancel()
        connection = self._direct(peer)
        if connection is None:
            raise (DialError if tried else NoAddresses)(peer, failures)
        await trio.lowlevel.checkpoint_if_cancelled()
        return connection

    def _direct(self, peer: PeerId) -> SwarmConnection | None:
        """The best connection to ``peer`` that goes through no relay."""
        direct = [conn for conn in self._connections.get(peer, ()) if not is_relay(conn.remote_addr)]
        return min(direct, key=_preference, default=None)

    async def open_stream(
        self, peer: PeerId, *protocols: ProtocolId, allow_limited: bool = False, addrs: Iterable[Multiaddr] = ()
    ) -> Stream:
        """See :meth:`libp2p.abc.Network.open_stream`; ``addrs`` as in :meth:`connect`."""
        existing = self._best(peer)
        if existing is not None:
            try:
                return await existing.open_stream(*protocols, allow_limited=allow_limited)
            except ConnectionClosed:
                # It ended under our hands; the peer may well be there still.
                self._forget(existing)
        conn = await self.connect(peer, addrs)
        return await conn.open_stream(*protocols, allow_limited=allow_limited)

    async def disconnect(self, peer: PeerId) -> None:
        conns = tuple(self._connections.get(peer, ()))
        if len(conns) == 1:
            await conns[0].aclose()
        else:
            await _close_all(conns)

    def subscribe(self, *kinds: type[EventT]) -> AbstractContextManager[trio.abc.ReceiveChannel[EventT]]:
        return self.events.subscribe(*kinds)

    # --- admission

    def _admit(self, upgraded: Upgraded, direction: Direction, pending: PendingToken | None = None) -> SwarmConnection:
        """Take a connection in, or end it and raise."""
        peer = upgraded.remote_peer
        try:
            if peer == self._local_peer:
                raise DialToSelf(peer)
            if not self._gater.secured(direction, peer, upgraded.remote_addr):
                raise ConnectionDenied(peer)
            token = self.scopes.reserve_connection(
                peer, source_ip(upgraded.remote_addr), inbound=direction is Direction.INBOUND, pending=pending
            )
        except (ConnectionDenied, DialToSelf, LimitExceeded) as exc:
            self._running().start_soon(self._refuse, upgraded, getattr(exc, "wire_code", 0x1008))
            raise
        conn = SwarmConnection(
            upgraded,
            direction=direction,
            opened_at=trio.current_time(),
            handlers=self._handlers,
            peerstore=self._peerstore,
            scopes=self.scopes,
            containment=self._containment,
            config=self._config.streams,
        )
        self._add(conn)
        self._running().start_soon(conn.run, token, self._forget)
        self._trim()
        return conn

    async def _refuse(self, upgraded: Upgraded, code: int) -> None:
        """Tell the peer that it is not wanted. ``run`` is what closes the streams below."""
        # Contained, because it may already have sent nonsense, which the muxer then reports.
        with self._containment.contain("refused connection of", upgraded.remote_peer):
            upgraded.muxed.abort(code)
            await upgraded.muxed.run(lambda stream: stream.reset())

    def _add(self, conn: SwarmConnection) -> None:
        peer = conn.peer
        conns = self._connections.setdefault(peer, [])
        conns.append(conn)
        self._count += 1
        if len(conns) == 1:
            self._peerstore.set_connected(peer, True)
        self._dialing.connected(conn)
        self._peerstore.add_key(peer, conn.remote_key)
        if conn.direction is Direction.OUTBOUND:
            self._peerstore.add_addrs(peer, (conn.remote_addr,), ttl=CONNECTED_TTL)
        self._counters.opened(conn)
        self.events.publish(ConnectionOpened(peer, conn))
        if len(conns) == 1:
            self.events.publish(PeerConnected(peer))

    def _forget(self, conn: SwarmConnection) -> None:
        """Take ``conn`` out of the tables. Idempotent."""
        conns = self._connections.get(conn.peer, [])
        if conn not in conns:
            return
        conns.remove(conn)
        self._count -= 1
        self._counters.closed(conn, trio.current_time())
        self.events.publish(ConnectionEnded(conn.peer, conn, conn.reason))
        if not conns:
            del self._connections[conn.peer]
            self._peerstore.set_connected(conn.peer, False)
            self.events.publish(PeerDisconnected(conn.peer))

    def _trim(self) -> None:
        """Close connections that nobody needs when there are too many; see ``choose_victims``."""
        config = self._config.trim
        if self._count <= config.high:
            return
        infos = [
            ConnInfo(
                key=conn,
                peer=conn.peer,
                opened_at=conn.opened_at,
                streams=conn.stream_count,
                inbound=conn.direction is Direction.INBOUND,
                limited=conn.limited,
                tags=self.tags,
            )
            for conn in self._all()
        ]
        for victim in choose_victims(infos, trio.current_time(), config):
            victim.key.abort(GARBAGE_COLLECTED)

    def publish(self, event: Event) -> None:
        """Tell subscribers."""
        self.events.publish(event)

    def measure(self) -> Iterator[Metric]:
        """What the swarm and its transports have counted, and what is in use."""
        yield from self._counters.measure()
        yield from measure_use(self._all(), self.scopes.streams().items(), self.scopes.refusals().items())
        for transport in self._transports:
            yield from transport.measure()


async def _close_all(conns: Iterable[SwarmConnection]) -> None:
    """Close ``conns`` side by side: a cancelled close of one must not spare the others."""
    async with trio.open_nursery() as nursery:
        for conn in conns:
            nursery.start_soon(conn.aclose)


def _preference(conn: SwarmConnection) -> tuple[bool, bool, int, float]:
    """Best first: direct, then without limits, then busiest, then oldest, so that both sides tend to agree.

    Not all relays have limits: without regard to the way, the relayed connection, being the older and busier one, would
    be preferred for ever to the direct one that replaces it.
    """
    return (is_relay(conn.remote_addr), conn.limited, -conn.stream_count, conn.opened_at)
