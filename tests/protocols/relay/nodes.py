"""Relays and those who use them, on a network in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import trio

from libp2p.abc import Host, ProtocolId, Service, Stream
from libp2p.host import HostConfig, RunningHost
from libp2p.peer_id import PeerId
from libp2p.protocols.relay import HOP, RelayClient, RelayLimits, RelayServer
from libp2p.protocols.relay._codec import HopMessage, decode_hop, encode_hop
from libp2p.protocols.relay._exchange import receive_message, send_message
from libp2p.testing.network import open_memory_host
from libp2p.transports.memory import MemoryNetwork

ECHO: ProtocolId = "/test/echo"


def wall() -> float:
    """The wall clock of all hosts here."""
    return 1e9 + trio.current_time()


def client(**options: object) -> RelayClient:
    return RelayClient(clock=wall, **options)  # type: ignore[arg-type]


class Net:
    """Hosts that come when they are asked for, and go with the network."""

    def __init__(self, stack: AsyncExitStack) -> None:
        self.network = MemoryNetwork(0)
        self._stack = stack

    async def open(
        self, name: str, *services: Service, ip: str | None = None, config: HostConfig | None = None
    ) -> RunningHost:
        made: list[Callable[[], Service]] = [lambda service=service: service for service in services]  # type: ignore[misc]
        host = open_memory_host(self.network, name=name, services=made, ip=ip, config=config)
        return await self._stack.enter_async_context(host)


@asynccontextmanager
async def net() -> AsyncIterator[Net]:
    async with AsyncExitStack() as stack:
        yield Net(stack)


@dataclass
class Three:
    """A relay, a host that listens through it, and one that dials."""

    relay: RunningHost
    server: RelayServer
    listener: RunningHost
    client: RelayClient
    dialer: RunningHost
    net: Net

    @property
    def circuit(self) -> str:
        """Where the listener is reached."""
        return through(self.relay, self.listener)

    @property
    def target(self) -> PeerId:
        return self.listener.local_peer


def through(relay: Host, target: Host) -> str:
    return f"{relay.addrs[0]}/p2p-circuit/p2p/{target.local_peer}"


@asynccontextmanager
async def three(limits: RelayLimits | None = None) -> AsyncIterator[Three]:
    async with net() as found:
        server, listening = RelayServer(limits, clock=wall), client()
        relay = await found.open("relay", server)
        listener = await found.open("listener", listening)
        dialer = await found.open("dialer", client())
        await listener.listen(f"{relay.addrs[0]}/p2p-circuit")
        listener.handle(ECHO, echo, allow_limited=True)
        yield Three(relay, server, listener, listening, dialer, found)


async def echo(stream: Stream) -> None:
    async for chunk in stream:
        await stream.send_all(chunk)


async def ask(host: Host, relay: Host, request: HopMessage | bytes) -> HopMessage:
    """What a relay answers to a request, which may be no message at all."""
    async with await host.open_stream(relay.addrs[0], HOP, allow_limited=True) as stream:
        await send_message(stream, request if isinstance(request, bytes) else encode_hop(request))
        return decode_hop(await receive_message(stream))
