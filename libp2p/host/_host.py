"""The host that :func:`libp2p.open_host` yields."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType

import trio
from multiaddr import Multiaddr

from .._util.contain import Containment
from ..abc import (
    Connection,
    Direction,
    EventT,
    Host,
    Peerstore,
    ProtocolId,
    Routing,
    Service,
    Stream,
    StreamHandler,
    Target,
)
from ..addressing import is_relay, parse, split_peer, with_peer
from ..crypto.keys import PrivateKey
from ..errors import DecodeError, DialError, NoAddresses
from ..events import Event, ListenAddrsChanged, ProtocolsChanged, Reachability
from ..metrics import Kind, Metric, bounded
from ..peer_id import PeerId
from ..swarm import Handler, Swarm
from ._addresses import ObservedAddresses, ObservedConfig, announced, expand
from ._interfaces import Interfaces


class Registration(AbstractContextManager["Registration"]):
    """A protocol that is served until this is left, or for the host's life when it is not entered."""

    def __init__(self, end: Callable[[], None]) -> None:
        self._end = end

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()


class RunningHost(Host):
    """A host while its ``async with`` block is open; see :class:`libp2p.abc.Host`."""

    def __init__(
        self,
        *,
        key: PrivateKey,
        swarm: Swarm,
        handlers: dict[ProtocolId, Handler],
        services: Sequence[Service],
        containment: Containment,
        observed: ObservedConfig,
        routing: Routing | None = None,
    ) -> None:
        self._key = key
        self._swarm = swarm
        self._handlers = handlers
        self._services = tuple(services)
        self._routing = routing
        self._observed = ObservedAddresses(observed)
        self._verdicts: Mapping[Multiaddr, Reachability] = {}
        self._mapped: tuple[Multiaddr, ...] = ()
        self._interfaces = Interfaces()
        # What the addresses were made of the last time, and what came of it: every connection asks.
        self._made_of: tuple[object, ...] = ()
        self._addrs: tuple[Multiaddr, ...] = ()
        self.containment = containment

    def __repr__(self) -> str:
        return f"<Host {self.local_peer}>"

    # --- who and where

    @property
    def local_peer(self) -> PeerId:
        return self._swarm.local_peer

    @property
    def private_key(self) -> PrivateKey:
        return self._key

    @property
    def peerstore(self) -> Peerstore:
        return self._swarm.peerstore

    @property
    def swarm(self) -> Swarm:
        """The swarm, for inspection: limits in use, tags, connections."""
        return self._swarm

    def listen_addrs(self) -> Sequence[Multiaddr]:
        return expand(self._swarm.bound_addrs(), self._interfaces.addresses())

    @property
    def addrs(self) -> Sequence[Multiaddr]:
        bound, confirmed = self._swarm.bound_addrs(), self._observed.confirmed(trio.current_time())
        made_of = (bound, confirmed, self._mapped, self._interfaces.addresses(), self._verdicts)
        if made_of != self._made_of:
            own = announced((*self.listen_addrs(), *self._mapped), confirmed, self._verdicts)
            self._addrs = tuple([with_peer(addr, self.local_peer) for addr in own])
            self._made_of = made_of
        return self._addrs

    @property
    def candidate_addrs(self) -> Sequence[Multiaddr]:
        own = (*self.listen_addrs(), *self._mapped, *self._observed.confirmed(trio.current_time()))
        return [addr for addr in dict.fromkeys(own) if not is_relay(addr)]

    def judge(self, verdicts: Mapping[Multiaddr, Reachability]) -> None:
        before = self.addrs
        self._verdicts = dict(verdicts)
        if self.addrs != before:
            self._announce()

    @property
    def observed_addrs(self) -> Sequence[Multiaddr]:
        return self._observed.candidates(trio.current_time())

    def observe(self, addr: Multiaddr, connection: Connection) -> None:
        changed = self._observed.add(
            addr,
            local=connection.local_addr,
            observer=connection.remote_addr,
            listening=self._swarm.bound_addrs(),
            now=trio.current_time(),
        )
        if changed:
            self._announce()

    def set_mapped_addrs(self, addrs: Iterable[Multiaddr]) -> None:
        mapped = tuple(addrs)
        if mapped != self._mapped:
            self._mapped = mapped
            self._announce()

    async def listen(self, addr: Multiaddr | str) -> Sequence[Multiaddr]:
        bound = await self._swarm.listen(parse(addr))
        self._interfaces.forget()  # perhaps it is an address the machine has only just got
        self._announce()
        return bound

    def _announce(self) -> None:
        self._swarm.publish(ListenAddrsChanged(tuple(self.addrs)))

    def publish(self, event: Event) -> None:
        self._swarm.publish(event)

    def protect(self, peer: PeerId, tag: str) -> None:
        self._swarm.tags.protect(peer, tag)

    def unprotect(self, peer: PeerId, tag: str) -> None:
        self._swarm.tags.unprotect(peer, tag)

    def contain(self, what: str, peer: object = None) -> AbstractContextManager[None]:
        return self.containment.contain(what, peer)

    def measure(self) -> Sequence[Metric]:
        found = [*self._swarm.measure()]
        contained = [("expected", self.containment.expected), ("bug", self.containment.bugs)]
        errors = [((kind, name), float(count)) for kind, counts in contained for name, count in counts.items()]
        help_text = "Errors that were stopped before they reached the host: peers' doing, or bugs"
        found.append(
            Metric("libp2p_contained_errors_total", help_text, Kind.COUNTER, bounded(errors), ("kind", "error"))
        )
        for service in self._services:
            with self.contain("measuring", type(service).__name__):
                found += service.measure()
        return found

    # --- protocols

    @property
    def protocols(self) -> Sequence[ProtocolId]:
        return sorted(self._handlers)

    def handle(
        self, protocol: ProtocolId, handler: StreamHandler, *, allow_limited: bool = False
    ) -> AbstractContextManager[object]:
        if protocol in self._handlers:
            raise ValueError(f"{protocol} is served already")
        entry = self._handlers[protocol] = Handler(serve=handler, allow_limited=allow_limited)
        self._swarm.publish(ProtocolsChanged(tuple(self.protocols)))

        def end() -> None:
            if self._handlers.get(protocol) is entry:
                del self._handlers[protocol]
                self._swarm.publish(ProtocolsChanged(tuple(self.protocols)))

        return Registration(end)

    # --- peers

    def connections(self, peer: PeerId | None = None) -> Sequence[Connection]:
        return self._swarm.connections(peer)

    def can_dial(self, addr: Multiaddr) -> bool:
        return self._swarm.can_dial(addr)

    async def connect(self, target: Target, addrs: Iterable[Multiaddr | str] = ()) -> Connection:
        peer, own = _target(target)
        given = [*own, *(parse(addr) for addr in addrs)]
        if peer is None or given or self._routing is None:
            return await self._swarm.connect(peer, given)
        try:
            return await self._swarm.connect(peer)
        except DialError:
            # No address is known, or those that were lead to it no more.
            found = await self._routing.find_peer(peer)
            if not found:
                raise
            return await self._swarm.connect(peer, found)

    async def open_stream(self, target: Target, *protocols: ProtocolId, allow_limited: bool = False) -> Stream:
        peer, own = _target(target)
        if peer is None:
            connection = await self._swarm.connect(None, own)
            return await connection.open_stream(*protocols, allow_limited=allow_limited)
        if self._routing is not None and not self._swarm.connections(peer):
            await self.connect(peer, own)
        return await self._swarm.open_stream(peer, *protocols, allow_limited=allow_limited, addrs=own)

    async def connect_directly(
        self, peer: PeerId, addrs: Iterable[Multiaddr], *, direction: Direction = Direction.OUTBOUND
    ) -> Connection:
        return await self._swarm.connect_directly(peer, addrs, direction=direction)

    async def disconnect(self, peer: PeerId) -> None:
        await self._swarm.disconnect(peer)

    def subscribe(self, *kinds: type[EventT]) -> AbstractContextManager[trio.abc.ReceiveChannel[EventT]]:
        return self._swarm.subscribe(*kinds)


def _target(target: Target) -> tuple[PeerId | None, list[Multiaddr]]:
    """Who is meant, and where to find them."""
    if isinstance(target, PeerId):
        return target, []
    if isinstance(target, str) and not target.startswith("/"):
        try:
            return PeerId.parse(target), []
        except DecodeError as exc:
            raise DecodeError(
                f"{target[:80]!r} is neither an address, as /ip4/192.0.2.7/tcp/4001, nor a peer id: {exc}"
            ) from exc
    addr, peer = split_peer(parse(target))
    if not addr.to_bytes():
        return peer, []
    if peer is None and "p2p-circuit" in str(addr):
        raise NoAddresses(None, [(addr, DecodeError("a relay address must end in the peer to reach"))])
    return peer, [addr]
