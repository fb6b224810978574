"""Staying connected with chosen peers: bootstrap nodes, a cluster, one's own other devices.

A peer is dialled as soon as it is added. When that fails, and when the connection ends, it is dialled again after a
while: about a second at first, twice as long after every failure, at most five minutes, with jitter, so that a
thousand hosts do not all come back in the same moment. A connection that held for a while starts it from the beginning.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import trio
from multiaddr import Multiaddr
from trio.lowlevel import ParkingLot

from ..abc import Host, Service, Target
from ..addressing import parse, split_peer
from ..errors import ConnectionDenied, DialError, LimitExceeded
from ..events import PeerConnected, PeerDisconnected
from ..peer_id import PeerId


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepConnectedConfig:
    """When to dial again."""

    first_delay: float = 1.0
    """Seconds after the first failure; doubled with each one that follows."""
    max_delay: float = 300.0
    """The longest, in seconds."""
    stable: float = 30.0
    """Seconds after which the end of a connection is no failure."""

    def __post_init__(self) -> None:
        if not 0 < self.first_delay <= self.max_delay or self.stable < 0:
            raise ValueError("delays must be positive, and max_delay the largest")


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptPeer:
    """How things are with one peer.

    Attributes:
        addrs: the addresses that were given; those in the peerstore are tried, too.
        connected: whether there is a connection.
        failures: dials and short-lived connections that failed, in a row.
        next_dial: when it is dialled again, on Trio's clock; None when it is connected or being dialled.
        last_error: why the last dial failed.
    """

    peer: PeerId
    addrs: tuple[Multiaddr, ...]
    connected: bool
    failures: int
    next_dial: float | None
    last_error: Exception | None


PROTECTION = "keep_connected"
"""The tag under which kept peers are protected from trimming."""


@dataclass(eq=False, slots=True)
class _Kept:
    """A peer, and the task that looks after it, which waits in ``news`` for whatever concerns it.

    ``hurry`` is set when there is a new address, and the next dial need not wait.
    """

    peer: PeerId
    addrs: dict[Multiaddr, None] = field(default_factory=dict[Multiaddr, None])
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    news: ParkingLot = field(default_factory=ParkingLot)
    hurry: bool = False
    failures: int = 0
    next_dial: float | None = None
    last_error: Exception | None = None


class KeepConnected(Service):
    """Dials peers, and dials them again, for as long as the host runs.

    The host itself may be among the peers, as in a list of bootstrap nodes that all of them share; it is left alone.

    Args:
        targets: peers (their addresses are looked up in the peerstore) and addresses that end in ``/p2p/<peer>``;
            several addresses of one peer are alternatives.
        config: when to dial again.
        rng: the jitter.

    Raises:
        ValueError: an address does not say whose it is.
        DecodeError: a target does not parse.
    """

    def __init__(
        self,
        targets: Iterable[Target] = (),
        *,
        config: KeepConnectedConfig | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._config = config or KeepConnectedConfig()
        self._rng = rng or random.Random()
        self._kept: dict[PeerId, _Kept] = {}
        self._host: Host | None = None
        self._nursery: trio.Nursery | None = None
        for target in targets:
            self.add(target)

    def add(self, target: Target) -> PeerId:
        """Keep connected with ``target`` from now on; returns its peer id.

        A peer that is kept already gets one more address, and is dialled at once if it is not connected.

        Raises:
            ValueError: an address does not say whose it is.
            DecodeError: it does not parse.
        """
        peer, addr = _resolve(target)
        kept = self._kept.get(peer)
        if kept is None:
            kept = self._kept[peer] = _Kept(peer)
            self._start(kept)
        if addr is not None:
            kept.addrs[addr] = None
        kept.hurry = True
        kept.news.unpark_all()
        return peer

    def remove(self, target: Target) -> None:
        """No longer keep connected with ``target``. A connection stays as long as others need it.

        Raises:
            KeyError: it is not kept.
        """
        peer, _ = _resolve(target)
        self._kept.pop(peer).scope.cancel()

    def peers(self) -> Mapping[PeerId, KeptPeer]:
        """How things are with every peer that is kept."""
        return {peer: self._describe(kept) for peer, kept in self._kept.items()}

    async def run(self, host: Host, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Dial, until cancelled."""
        self._host = host
        try:
            with host.subscribe(PeerConnected, PeerDisconnected) as events:
                async with trio.open_nursery() as nursery:
                    self._nursery = nursery
                    for kept in self._kept.values():
                        self._start(kept)
                    task_status.started()
                    async for event in events:
                        if isinstance(event, PeerConnected | PeerDisconnected) and event.peer in self._kept:
                            self._kept[event.peer].news.unpark_all()
        finally:
            self._host = self._nursery = None

    def _start(self, kept: _Kept) -> None:
        if self._host is not None and self._nursery is not None and kept.peer != self._host.local_peer:
            self._nursery.start_soon(self._keep, self._host, kept)

    def _describe(self, kept: _Kept) -> KeptPeer:
        return KeptPeer(
            peer=kept.peer,
            addrs=tuple(kept.addrs),
            connected=self._host is not None and bool(self._host.connections(kept.peer)),
            failures=kept.failures,
            next_dial=kept.next_dial,
            last_error=kept.last_error,
        )

    async def _keep(self, host: Host, kept: _Kept) -> None:
        host.protect(kept.peer, PROTECTION)
        try:
            with kept.scope:
                while True:
                    if not host.connections(kept.peer):
                        await self._dial(host, kept)
                    if host.connections(kept.peer):
                        await self._while_connected(host, kept)
                    await self._pause(host, kept)
        finally:
            host.unprotect(kept.peer, PROTECTION)

    async def _while_connected(self, host: Host, kept: _Kept) -> None:
        since = trio.current_time()
        while host.connections(kept.peer):
            await kept.news.park()
        if trio.current_time() - since >= self._config.stable:
            kept.failures = 0

    async def _dial(self, host: Host, kept: _Kept) -> None:
        kept.hurry = False
        try:
            await host.connect(kept.peer, (*kept.addrs, *host.peerstore.addrs(kept.peer)))
            kept.last_error = None
        except (DialError, LimitExceeded, ConnectionDenied) as exc:
            kept.last_error = exc

    async def _pause(self, host: Host, kept: _Kept) -> None:
        """Wait before the next dial, or until the peer has connected by itself, or has got a new address."""
        config = self._config
        delay = min(config.max_delay, config.first_delay * 2.0 ** min(kept.failures, 64))
        kept.failures += 1
        kept.next_dial = trio.current_time() + delay * self._rng.uniform(0.5, 1.0)
        with trio.CancelScope(deadline=kept.next_dial):
            while not (kept.hurry or host.connections(kept.peer)):
                await kept.news.park()
        kept.next_dial = None


def _resolve(target: Target) -> tuple[PeerId, Multiaddr | None]:
    if isinstance(target, PeerId):
        return target, None
    if isinstance(target, str) and not target.startswith("/"):
        return PeerId.parse(target), None
    addr, peer = split_peer(parse(target))
    if peer is None:
        raise ValueError(f"{target} does not say whose address it is: it must end in /p2p/<peer>")
    return peer, addr if addr.to_bytes() else None
