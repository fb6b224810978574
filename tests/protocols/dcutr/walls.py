"""Hosts behind walls, on a network in memory: a wall lets in whoever the host behind it has just sent something to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field

import trio
from multiaddr import Multiaddr

from libp2p.abc import RawConnection, SecureMuxedConnection, Service
from libp2p.addressing import host_port
from libp2p.errors import TransportError
from libp2p.host import HostConfig, RunningHost, open_host
from libp2p.muxers.yamux import Yamux
from libp2p.peer_id import PeerId
from libp2p.peerstore import MemoryPeerstore
from libp2p.protocols.identify import Identify
from libp2p.protocols.ping import Ping
from libp2p.protocols.relay import RelayClient, RelayServer
from libp2p.security.noise import Noise
from libp2p.swarm import Gater
from libp2p.testing.keys import seeded_key
from libp2p.transports.dns import DnsResolver
from libp2p.transports.memory import Memory, MemoryNetwork
from tests.protocols.relay.nodes import wall as clock

RELAY, ANN, BEN = "7.0.0.1", "5.0.0.1", "6.0.0.1"
"""Where the relay is, where Ann, who dials, and where Ben, who listens through the relay."""
AGAIN = 0.05
"""Seconds between two packets that ask for a connection."""


@dataclass
class Walls:
    """Who is behind a wall, through which wall the way is open, and what was tried when."""

    behind: set[str] = field(default_factory=set)
    open: list[tuple[str, str]] = field(default_factory=list)
    refusing: set[str] = field(default_factory=set)
    """Who answers a dial that is not let in by a refusal, in place of silence."""
    sent: list[tuple[float, str, str, str]] = field(default_factory=list)
    """Time, who, ``dial`` or ``punch``, and where to."""

    @contextmanager
    def opened(self, inside: str, outside: str, how: str) -> Iterator[None]:
        """Send from inside to outside for a while."""
        self.sent.append((trio.current_time(), inside, how, outside))
        self.open.append((inside, outside))
        try:
            yield
        finally:
            self.open.remove((inside, outside))

    def let_in(self, source: str, target: str) -> bool:
        return target not in self.behind or (target, source) in self.open


class Walled(Memory):
    """A node that may be behind a wall. Punching is as with QUIC: the connection arrives at the listener."""

    def __init__(self, network: MemoryNetwork, name: str, ip: str, walls: Walls) -> None:
        super().__init__(network, name, ip=ip)
        self._walls = walls
        self.ip = ip

    async def dial(self, addr: Multiaddr, *, peer: PeerId | None) -> RawConnection:
        target = _host(addr)
        with self._walls.opened(self.ip, target, "dial"):
            while not self._walls.let_in(self.ip, target):
                await trio.sleep(AGAIN)
                if target in self._walls.refusing:
                    raise TransportError(addr, "refused")
            return await super().dial(addr, peer=peer)

    async def punch(self, addr: Multiaddr, *, peer: PeerId) -> RawConnection | SecureMuxedConnection:
        with self._walls.opened(self.ip, _host(addr), "punch"):
            await trio.sleep_forever()
            raise AssertionError


def _host(addr: Multiaddr) -> str:
    found = host_port(addr)
    assert found is not None
    return found[0]


@dataclass
class Pair:
    """A relay, Ben who is reached through it, and Ann who dials him there."""

    network: MemoryNetwork
    walls: Walls
    relay: RunningHost
    ann: RunningHost
    ben: RunningHost

    @property
    def circuit(self) -> str:
        return f"{self.relay.addrs[0]}/p2p-circuit/p2p/{self.ben.local_peer}"

    def tried(self, who: str) -> list[tuple[float, str]]:
        """When ``who`` sent something to somebody who is not the relay, and how."""
        return [(at, how) for at, source, how, target in self.walls.sent if source == who and target != RELAY]


@asynccontextmanager
async def host(
    network: MemoryNetwork, walls: Walls, name: str, ip: str, *services: Service, listen: bool = True
) -> AsyncIterator[RunningHost]:
    async with open_host(
        key=seeded_key(name),
        listen=[f"/ip4/{ip}/tcp/4001"] if listen else [],
        services=[Identify(), Ping(), *services],
        transports=[Walled(network, name, ip, walls)],
        security=[Noise],
        muxers=[Yamux()],
        peerstore=MemoryPeerstore(),
        resolver=DnsResolver(),
        gater=Gater(),
        config=HostConfig(strict=True),
    ) as opened:
        yield opened


@asynccontextmanager
async def pair(
    *,
    ann: Callable[[], Service] | None = None,
    ben: Callable[[], Service] | None = None,
    behind: tuple[str, ...] = (ANN, BEN),
    latency: float = 0.0,
    listen: bool = True,
) -> AsyncIterator[Pair]:
    """Ann and Ben, each with a service, and who is behind a wall; Ben listens through the relay."""
    network, walls = MemoryNetwork(0, latency=latency), Walls(behind=set(behind))
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        relay = await enter(host(network, walls, "relay", RELAY, RelayServer(clock=clock)))
        services = [[RelayClient(clock=clock), *([make()] if make else [])] for make in (ann, ben)]
        first = await enter(host(network, walls, "ann", ANN, *services[0], listen=listen))
        second = await enter(host(network, walls, "ben", BEN, *services[1], listen=listen))
        await second.listen(f"{relay.addrs[0]}/p2p-circuit")
        yield Pair(network, walls, relay, first, second)
