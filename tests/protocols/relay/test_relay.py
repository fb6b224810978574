"""``libp2p.protocols.relay`` between whole hosts: requirements R1 to R15 of relay v2, cases R1 to R3."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from libp2p.abc import Service
from libp2p.host import RunningHost
from libp2p.protocols.ping import ping
from libp2p.protocols.relay import RelayClient, RelayLimits, RelayServer
from libp2p.testing.network import open_memory_host
from libp2p.transports.memory import MemoryNetwork


@dataclass
class Trio_:
    """A relay, a host that listens through it, and one that dials."""

    relay: RunningHost
    server: RelayServer
    listener: RunningHost
    dialer: RunningHost

    @property
    def circuit(self) -> str:
        """Where the listener is reached."""
        return f"{self.relay.addrs[0]}/p2p-circuit/p2p/{self.listener.local_peer}"


@asynccontextmanager
async def three(limits: RelayLimits | None = None) -> AsyncIterator[Trio_]:
    network = MemoryNetwork(0)
    server = RelayServer(limits, clock=lambda: 1e9)
    async with AsyncExitStack() as stack:

        async def host(name: str, service: Callable[[], Service]) -> RunningHost:
            return await stack.enter_async_context(open_memory_host(network, name=name, services=[service]))

        relay = await host("relay", lambda: server)
        listener = await host("listener", lambda: RelayClient(clock=lambda: 1e9))
        dialer = await host("dialer", lambda: RelayClient(clock=lambda: 1e9))
        await listener.listen(f"{relay.addrs[0]}/p2p-circuit")
        yield Trio_(relay, server, listener, dialer)


async def test_a_circuit() -> None:
    async with three() as net:
        await net.dialer.connect(net.circuit)
        assert len(await ping(net.dialer, net.listener.local_peer, count=3)) == 3
        [connection] = net.dialer.connections(net.listener.local_peer)
        assert connection.limited
