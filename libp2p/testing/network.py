"""Whole hosts on a network in memory.

Run such tests under a virtual clock (:class:`trio.testing.MockClock` with ``autojump_threshold=0``, or pytest-trio's
``autojump_clock``): then timeouts of minutes take no time, and the hosts are as deterministic as Trio's scheduler; see
:func:`libp2p.testing.deterministic` for the rest.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from itertools import combinations, pairwise
from typing import Literal, TypeAlias

import trio
from trio.abc import Stream as ByteStream

from ..abc import Connection, Muxer, Protector, Resolver, Routing, SecurityFactory, Service
from ..crypto.keys import PrivateKey
from ..events import PeerConnected
from ..host import HostConfig, RunningHost, open_host
from ..muxers.yamux import Yamux
from ..peerstore import MemoryPeerstore
from ..protocols.identify import Identify
from ..protocols.ping import Ping
from ..security.noise import Noise
from ..swarm import Gater
from ..transports.dns import DnsResolver
from ..transports.memory import Link, Memory, MemoryNetwork
from .flaky import WrappingTransport
from .keys import seeded_key

__all__ = ["DEFAULT_SERVICES", "Connect", "Hosts", "LeftBehind", "memory_network", "open_memory_host"]

Connect: TypeAlias = Literal["none", "line", "full"]
"""Which hosts to connect: none, each with the next, or each with each."""

DEFAULT_SERVICES: tuple[Callable[[], Service], ...] = (Identify, Ping)
"""What every host serves, as with :func:`libp2p.open_host`."""


class LeftBehind(AssertionError):
    """Something was not given back when all hosts had ended."""


class Hosts(tuple[RunningHost, ...]):
    """The hosts of one network, in order.

    Attributes:
        network: what connects them; the node of ``hosts[i]`` is ``hosts.node(i)``.
    """

    network: MemoryNetwork

    def node(self, host: RunningHost | int) -> str:
        """The name of a host's node, for links and cuts."""
        return _node_name(host if isinstance(host, int) else self.index(host))

    async def connect(self, how: Connect = "full") -> None:
        """Connect the hosts: each with the next one, or everybody with everybody."""
        pairs: Iterable[tuple[RunningHost, RunningHost]] = ()
        if how != "none":
            pairs = pairwise(self) if how == "line" else combinations(self, 2)
        for one, other in pairs:
            # The dialer is done a moment before the listener is.
            with other.subscribe(PeerConnected) as connected:
                await one.connect(other.addrs[0])
                while not other.connections(one.local_peer):
                    await connected.receive()

    def connections(self, a: int, b: int) -> Sequence[Connection]:
        """The connections of host ``a`` with host ``b``."""
        return self[a].connections(self[b].local_peer)


def _node_name(index: int) -> str:
    return f"host-{index}"


@asynccontextmanager
async def open_memory_host(
    network: MemoryNetwork,
    *,
    name: str | None = None,
    ip: str | None = None,
    key: PrivateKey | None = None,
    services: Sequence[Callable[[], Service]] = (),
    defaults: Sequence[Callable[[], Service]] = DEFAULT_SERVICES,
    security: Sequence[SecurityFactory] = (Noise,),
    muxers: Sequence[Callable[[], Muxer]] = (Yamux,),
    gater: Gater | None = None,
    resolver: Resolver | None = None,
    config: HostConfig | None = None,
    strict: bool = True,
    psk: Protector | None = None,
    routing: Routing | None = None,
    wrap: Callable[[ByteStream], ByteStream] | None = None,
) -> AsyncIterator[RunningHost]:
    """Run one host on ``network``; see :func:`memory_network` for most arguments.

    Args:
        network: the network it joins.
        name: its node's name.
        ip: its IP address; without one it listens on a ``/memory`` address.
        key: its identity; by default made from the seed of the network and the name.
        gater: allows everything by default.
        resolver: for names in addresses; the system's by default.
        strict: raise what containment would contain.
        psk: the key of the private network it is in; none by default.
        routing: is asked where peers are.
        wrap: put around every raw stream of this host; see :mod:`libp2p.testing.flaky`.
    """
    transport = Memory(network, name, ip=ip)
    kinds = {service for service in services if isinstance(service, type)}
    wanted = [service for service in defaults if service not in kinds]
    async with open_host(
        key=key or seeded_key(f"{network.seed}/{transport.name}"),
        listen=["/memory/0" if ip is None else f"/ip{6 if ':' in ip else 4}/{ip}/tcp/4001"],
        services=[make() for make in (*wanted, *services)],
        transports=[transport if wrap is None else WrappingTransport(transport, wrap)],
        security=security,
        muxers=[make() for make in muxers],
        peerstore=MemoryPeerstore(),
        resolver=resolver or DnsResolver(),
        gater=gater or Gater(),
        config=replace(config or HostConfig(), strict=strict),
        protector=psk,
        routing=routing,
    ) as host:
        yield host
    if used := {name: count for name, count in host.swarm.scopes.usage().items() if count}:
        raise LeftBehind(f"{transport.name} ended and still holds {used}")


@asynccontextmanager
async def memory_network(
    n: int,
    *,
    services: Sequence[Callable[[], Service]] = (),
    defaults: Sequence[Callable[[], Service]] = DEFAULT_SERVICES,
    seed: int = 0,
    link: Link | None = None,
    ips: Sequence[str] = (),
    security: Sequence[SecurityFactory] = (Noise,),
    muxers: Sequence[Callable[[], Muxer]] = (Yamux,),
    config: HostConfig | None = None,
    connect: Connect = "none",
) -> AsyncIterator[Hosts]:
    """Run ``n`` hosts on one :class:`~libp2p.transports.memory.MemoryNetwork`.

    Containment is strict: an exception in a handler that would be a bug in production ends the host, and so the test.
    When the block is left in order, nothing may be left: no connection, no listener, nothing that a limit counts.

    Args:
        n: how many.
        services: what each runs besides ``defaults``, called once for each host: classes, or functions.
        defaults: what each runs anyway; identify and ping.
        seed: decides keys, jitter and losses.
        link: what lies between any two hosts; nothing at all by default.
        ips: IP addresses of the hosts, in order. Hosts that have one listen on port 4001 there; the others on
            ``/memory`` addresses.
        security: security protocols, best first.
        muxers: muxers, best first.
        config: of all hosts.
        connect: which hosts to connect before the block starts.

    Yields:
        The hosts: unpack them, or index.

    Raises:
        LeftBehind: something was not given back.
    """
    link = link or Link()
    network = MemoryNetwork(
        seed, latency=link.latency, jitter=link.jitter, rate=link.rate, loss=link.loss, buffer=link.buffer
    )
    async with AsyncExitStack() as stack:
        opened = [
            await stack.enter_async_context(
                open_memory_host(
                    network,
                    name=_node_name(index),
                    ip=ips[index] if index < len(ips) else None,
                    services=services,
                    defaults=defaults,
                    security=security,
                    muxers=muxers,
                    config=config,
                )
            )
            for index in range(n)
        ]
        hosts = Hosts(opened)
        hosts.network = network
        await hosts.connect(connect)
        yield hosts
    await trio.lowlevel.checkpoint()
    if network.connections or network.listening:
        raise LeftBehind(f"left open: {[*network.connections, *network.listening]}")
