"""Hosts that ask and hosts that dial, on a network in memory with public addresses."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from itertools import count

import trio
from multiaddr import Multiaddr

import libp2p
from libp2p.abc import Host, Service
from libp2p.addressing import is_relay
from libp2p.host import RunningHost
from libp2p.protocols.autonat import AutoNatLimits, AutoNatServer
from libp2p.swarm import Gater, LimitsConfig, SwarmConfig
from libp2p.testing.network import open_memory_host
from libp2p.transports.memory import Memory, MemoryNetwork

CLIENT = "20.0.0.1"


def server_ip(number: int) -> str:
    """Each in a neighbourhood of its own."""
    return f"30.{number}.0.1"


class Net:
    """Hosts that come when they are asked for, and go with the network."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self.network = MemoryNetwork(0)
        self.dials: list[str] = []
        self.times: list[float] = []
        self._stack = stack
        self._names: Iterator[int] = count()

    async def open(
        self, name: str, *services: Service, ip: str | None = None, gater: Gater | None = None
    ) -> RunningHost:
        made: list[Callable[[], Service]] = [lambda service=service: service for service in services]  # type: ignore[misc]
        host = open_memory_host(self.network, name=name, services=made, ip=ip, gater=gater)
        return await self._stack.enter_async_context(host)

    def dialer(self, ip: str, *, dial_queue: int = 8) -> Callable[[], AbstractAsyncContextManager[Host]]:
        """Makes hosts that dial from ``ip``, and remembers what and when."""

        @asynccontextmanager
        async def opened() -> AsyncIterator[Host]:
            transport = Memory(self.network, f"dialer-{next(self._names)}", ip=ip)
            limits = LimitsConfig(dial_queue=dial_queue)
            config = libp2p.HostConfig(strict=True, swarm=SwarmConfig(limits=limits))
            async with libp2p.open_host(transports=[transport], gater=_Remembering(self), config=config) as dialer:
                yield dialer

        return opened

    async def server(self, number: int, *, limits: AutoNatLimits | None = None) -> RunningHost:
        """A host that serves AutoNAT."""
        ip = server_ip(number)
        server = AutoNatServer(self.dialer(ip), limits=limits, rng=random.Random(number))
        return await self.open(f"server-{number}", server, ip=ip)


class _Remembering(Gater):
    def __init__(self, net: Net) -> None:
        self._net = net

    def dial_addr(self, peer: object, addr: object) -> bool:
        self._net.dials.append(str(addr))
        self._net.times.append(trio.current_time())
        return True


class Firewall(Gater):
    """While it is shut, lets nobody in but through relays."""

    def __init__(self) -> None:
        self.shut = True

    def accept(self, addr: Multiaddr) -> bool:
        return not self.shut or is_relay(addr)


@asynccontextmanager
async def net() -> AsyncIterator[Net]:
    async with AsyncExitStack() as stack:
        yield Net(stack)
