"""Getting into a network: a list of peers that are always there, and whoever was there the last time.

While the host is connected with fewer peers than it should be, peers of the list are dialled, in random order so that a
thousand hosts do not all take the first; when they do not do, peers that were connected in this life or an earlier one,
which a peerstore on disk remembers. One that fails is left alone for a while, longer after every failure; to hang up
before that while is over is a failure, too, or a full peer that takes and drops us would be dialled without a pause.

Unlike :class:`libp2p.protocols.keep_connected.KeepConnected` it holds on to nobody: once there are enough connections
it only watches.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import trio
from multiaddr import Multiaddr

from ..abc import Direction, Host, Service
from ..addressing import parse, split_peer
from ..errors import ConnectionDenied, DialError, LimitExceeded
from ..events import PeerDisconnected
from ..peer_id import PeerId

AMINO: tuple[str, ...] = (
    "/dnsaddr/bootstrap.libp2p.io/p2p/QmNnooDu7bfjPFoTZYxMNLWUQJyrVwtbZg5gBMjTezGAJN",
    "/dnsaddr/bootstrap.libp2p.io/p2p/QmQCU2EcMqAqQPR2i9bChDtGNJchTbq5TbXJJ16u19uLTa",
    "/dnsaddr/bootstrap.libp2p.io/p2p/QmbLHAnMoJPWSCR5Zhtx6BHJX9KiKNN6tpvbUcqanj75Nb",
    "/dnsaddr/bootstrap.libp2p.io/p2p/QmcZf59bWwK5XFi76CZX8cbJ4BhTzzA3gU1ZjYZcYW3dwt",
    "/dnsaddr/va1.bootstrap.libp2p.io/p2p/12D3KooWKnDdG3iXw9eTFijk3EWSunZcFi54Zka4wmtqtt6rPxc8",
    "/ip4/104.131.131.82/tcp/4001/p2p/QmaCpDMGvV2BGHeYERUEnRQAwe3N8SzbUtfsmvsqQLuvuJ",
    "/ip4/104.131.131.82/udp/4001/quic-v1/p2p/QmaCpDMGvV2BGHeYERUEnRQAwe3N8SzbUtfsmvsqQLuvuJ",
)
"""The public network that IPFS uses (go-libp2p-kad-dht's list)."""
SEEN = "bootstrap_seen"
"""In a peer's metadata: when it was last connected, in seconds since 1970."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BootstrapConfig:
    """When to dial whom. Times are in seconds."""

    minimum: int = 4
    """Peers to be connected with; fewer when there are no more (kubo)."""
    parallel: int = 4
    """Dials at a time."""
    interval: float = 30.0
    """Between two looks, while nobody leaves (kubo)."""
    first_delay: float = 5.0
    """How long a peer is left alone after it was dialled; doubled until a connection has lasted as long."""
    max_delay: float = 600.0
    """The longest."""
    remembered: int = 20
    """Connected peers to remember at a time (kubo keeps 20)."""
    memory: float = 7 * 86400.0
    """How long they are remembered."""

    def __post_init__(self) -> None:
        if min(self.minimum, self.parallel) < 1 or self.remembered < 0:
            raise ValueError("there must be peers to connect with")
        if min(self.interval, self.memory) <= 0 or not 0 < self.first_delay <= self.max_delay:
            raise ValueError("times must be positive, and max_delay the largest")


@dataclass(slots=True)
class _Failed:
    """A peer that could not be dialled, or has yet to show that it stays."""

    times: int = 0
    until: float = 0.0


class Bootstrap(Service):
    """Sees to it that the host is connected with some peers.

    Args:
        targets: addresses that end in ``/p2p/<peer>``, ``/dnsaddr`` among them, as :data:`AMINO`; several of one peer
            are alternatives. The host itself may be in the list.
        config: when to dial whom.
        rng: the order, and the jitter.
        wall_clock: seconds since 1970.

    Raises:
        ValueError: an address does not say whose it is.
        DecodeError: it does not parse.
    """

    def __init__(
        self,
        targets: Iterable[Multiaddr | str],
        *,
        config: BootstrapConfig | None = None,
        rng: random.Random | None = None,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._config = config or BootstrapConfig()
        self._rng = rng or random.Random()
        self._wall_clock = wall_clock
        self._listed: dict[PeerId, list[Multiaddr]] = {}
        # Of peers in the list, and of those remembered that were tried in this round: bounded by both.
        self._failed: dict[PeerId, _Failed] = {}
        for target in targets:
            addr, peer = split_peer(parse(target))
            if peer is None:
                raise ValueError(f"{target} does not say whose address it is: it must end in /p2p/<peer>")
            self._listed.setdefault(peer, []).append(addr)

    @property
    def targets(self) -> Mapping[PeerId, Sequence[Multiaddr]]:
        """The list: peers, and their addresses without ``/p2p``."""
        return self._listed

    async def run(self, host: Host, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Watch and dial, until cancelled."""
        with host.subscribe(PeerDisconnected) as left:
            task_status.started()
            while True:
                self._remember(host)
                self._forgive(host)
                if _connected(host) < self._config.minimum:
                    await self._round(host)
                    self._remember(host)
                with trio.move_on_after(self._pause(host)):
                    await left.receive()

    def _pause(self, host: Host) -> float:
        """Seconds until the next look: sooner when peers are missing and one may be tried again."""
        interval = self._config.interval
        if _connected(host) >= self._config.minimum or not self._failed:
            return interval
        return max(0.1, min(interval, min(failed.until for failed in self._failed.values()) - trio.current_time()))

    # --- dialling

    async def _round(self, host: Host) -> None:
        """Try those that may be tried until there are enough, a few at a time."""
        waiting = self._candidates(host)

        async def work() -> None:
            while waiting and _connected(host) < self._config.minimum:
                peer, addrs = waiting.pop(0)
                await self._dial(host, peer, addrs)

        async with trio.open_nursery() as nursery:
            for _ in range(min(self._config.parallel, len(waiting), self._config.minimum - _connected(host))):
                nursery.start_soon(work)

    def _candidates(self, host: Host) -> list[tuple[PeerId, Sequence[Multiaddr]]]:
        remembered = self._remembered(host)
        self._failed = {
            peer: failed for peer, failed in self._failed.items() if peer in self._listed or peer in remembered
        }
        listed = list(self._listed)
        self._rng.shuffle(listed)
        now = trio.current_time()
        return [
            (peer, self._listed.get(peer, ()))
            for peer in dict.fromkeys([*listed, *remembered])
            if peer != host.local_peer and not host.connections(peer) and self._may_try(peer, now)
        ]

    def _may_try(self, peer: PeerId, now: float) -> bool:
        failed = self._failed.get(peer)
        return failed is None or failed.until <= now

    async def _dial(self, host: Host, peer: PeerId, addrs: Sequence[Multiaddr]) -> None:
        with suppress(DialError, LimitExceeded, ConnectionDenied):
            await host.connect(peer, addrs)
        failed = self._failed.setdefault(peer, _Failed())
        delay = min(self._config.max_delay, self._config.first_delay * 2.0 ** min(failed.times, 64))
        failed.times += 1
        failed.until = trio.current_time() + delay * self._rng.uniform(0.5, 1.0)

    def _forgive(self, host: Host) -> None:
        """A connection that has lasted makes up for what was before."""
        now = trio.current_time()
        for peer in [peer for peer, failed in self._failed.items() if failed.until <= now and host.connections(peer)]:
            del self._failed[peer]

    # --- remembering

    def _remember(self, host: Host) -> None:
        """Keep the addresses of some peers that we have dialled for longer than the peerstore would."""
        dialled = {each.peer: each.remote_addr for each in host.connections() if each.direction is Direction.OUTBOUND}
        for peer, addr in list(dialled.items())[: self._config.remembered]:
            host.peerstore.add_addrs(peer, [addr], ttl=self._config.memory)
            host.peerstore.set_metadata(peer, SEEN, str(int(self._wall_clock())))

    def _remembered(self, host: Host) -> list[PeerId]:
        """Peers that were connected once, the last seen first."""
        store = host.peerstore
        found = [(store.metadata(peer).get(SEEN, ""), peer) for peer in store.peers()]
        seen = [(int(text), peer) for text, peer in found if text.isdecimal() and store.addrs(peer)]
        seen.sort(key=lambda item: -item[0])
        return [peer for _, peer in seen[: self._config.remembered]]


def _connected(host: Host) -> int:
    return len({connection.peer for connection in host.connections()})
