"""Single hosts from parts that a test chooses: what :func:`libp2p.testing.memory_network` does not let one choose."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager

import trio
from multiaddr import Multiaddr

from libp2p.abc import (
    Listener,
    RawConnection,
    Resolver,
    SecureMuxedConnection,
    SecurityFactory,
    Service,
    Stream,
    Transport,
)
from libp2p.host import HostConfig, RunningHost, open_host
from libp2p.muxers.yamux import Yamux
from libp2p.peer_id import PeerId
from libp2p.peerstore import MemoryPeerstore
from libp2p.security.noise import Noise
from libp2p.swarm import Gater
from libp2p.testing import Memory, MemoryNetwork, seeded_key
from libp2p.transports.dns import DnsResolver

P = "/test/1"


@asynccontextmanager
async def open_node(
    network: MemoryNetwork,
    name: str,
    *,
    ip: str | None = None,
    wrap: Callable[[Transport], Transport] = lambda transport: transport,
    listen: Sequence[str] = ("/memory/0",),
    services: Sequence[Service] = (),
    security: Sequence[SecurityFactory] = (Noise,),
    gater: Gater | None = None,
    resolver: Resolver | None = None,
    config: HostConfig | None = None,
) -> AsyncIterator[RunningHost]:
    """A host on ``network`` whose bugs are contained, as in production, and without services of its own."""
    async with open_host(
        key=seeded_key(name),
        listen=listen,
        services=services,
        transports=[wrap(Memory(network, name, ip=ip))],
        security=security,
        muxers=[Yamux()],
        peerstore=MemoryPeerstore(),
        resolver=resolver or DnsResolver(),
        gater=gater or Gater(),
        config=config or HostConfig(),
    ) as host:
        yield host


class Answers(Resolver):
    """A resolver with a table of answers."""

    def __init__(self, **answers: Iterable[Multiaddr]) -> None:
        self.answers = answers
        self.asked: list[Multiaddr] = []

    async def resolve(self, addr: Multiaddr) -> Sequence[Multiaddr]:
        await trio.lowlevel.checkpoint()
        self.asked.append(addr)
        return [found for name, answer in self.answers.items() if name in str(addr) for found in answer]


class Below(Transport):
    """A transport that passes everything on, for tests to override a part of."""

    def __init__(self, below: Transport) -> None:
        self.below = below

    def can_dial(self, addr: Multiaddr) -> bool:
        return self.below.can_dial(addr)

    def can_listen(self, addr: Multiaddr) -> bool:
        return self.below.can_listen(addr)

    async def dial(self, addr: Multiaddr, *, peer: PeerId | None) -> RawConnection | SecureMuxedConnection:
        return await self.below.dial(addr, peer=peer)

    async def listen(self, addr: Multiaddr) -> Listener:
        return await self.below.listen(addr)


async def echo(stream: Stream) -> None:
    """A handler that sends everything back."""
    async for chunk in stream:
        await stream.send_all(chunk)


async def works(stream: Stream, data: bytes = b"hello") -> bool:
    """Whether ``stream`` leads to an echo."""
    await stream.send_all(data)
    got = b""
    while len(got) < len(data):
        chunk = await stream.receive_some()
        if not chunk:
            return False
        got += chunk
    return got == data


def checkpoints(count: int) -> Callable[[], Awaitable[None]]:
    """Something that takes so many steps."""

    async def wait() -> None:
        for _ in range(count):
            await trio.lowlevel.checkpoint()

    return wait
