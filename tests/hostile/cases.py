"""What the cases have in common: a host under attack, three canaries, and attackers with addresses of their own."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from multiaddr import Multiaddr

from libp2p.abc import Listener, Service, Stream
from libp2p.addressing import parse
from libp2p.errors import TransportError
from libp2p.events import ConnectionOpened
from libp2p.host import HostConfig, RunningHost
from libp2p.muxers.yamux import Yamux
from libp2p.testing import Hosts, Link, Memory, memory_network
from libp2p.testing.raw import ACK, DATA, SYN, WINDOW_UPDATE, Identity, RawPeer, Wants, YamuxFrame, yamux
from libp2p.testing.rig import Budget, Rig, open_rig

VICTIM = "10.0.0.1"
CANARIES = ("10.1.0.1", "10.2.0.1", "10.3.0.1")
SETTLE = 10.0
"""Virtual seconds after the attack until nothing may be left of it."""


class Attack:
    """Attackers on the network of a victim.

    Attributes:
        hosts: the victim and the canaries.
        victim: who is attacked.
        rig: what watches.
        opened: connections of the victim to anybody but the canaries, ever.
    """

    def __init__(self, hosts: Hosts, rig: Rig) -> None:
        self.hosts = hosts
        self.victim: RunningHost = hosts[0]
        self.rig = rig
        self.opened: list[ConnectionOpened] = []
        self._streams: list[trio.abc.AsyncResource] = []
        self._numbers = itertools.count(1)

    @property
    def victim_addr(self) -> Multiaddr:
        """Where the victim listens."""
        return self.victim.listen_addrs()[0]

    def node(self, ip: str | None = None) -> Memory:
        """A new machine; without ``ip``, one in a network nobody else is in."""
        number = next(self._numbers)
        return Memory(self.hosts.network, ip=ip or f"100.{number // 200}.{number % 200}.7")

    async def dial(self, ip: str | None = None, *, identity: Identity | None = None) -> RawPeer:
        """A raw connection to the victim."""
        dialed = await self.node(ip).dial(self.victim_addr, peer=None)
        self._streams.append(dialed.stream)
        return RawPeer(dialed.stream, identity=identity or Identity(f"attacker-{next(self._numbers)}"))

    async def connect(self, ip: str | None = None, *, wants: Wants | None = None) -> RawPeer:
        """A connection to the victim, up to the muxer, early agreed; when it returns the victim has taken it in."""
        peer, before = await self.dial(ip), len(self.opened)
        await peer.connect(wants or Wants(muxers=("/yamux/1.0.0",)))
        with trio.fail_after(5):
            while len(self.opened) == before:
                await trio.sleep(0.01)
        return peer

    async def listen(self, ip: str | None = None) -> tuple[Multiaddr, Listener]:
        """Somewhere for the victim to dial to."""
        listener = await self.node(ip).listen(parse(f"/ip4/{ip}/tcp/4001" if ip else "/memory/0"))
        self._streams.append(listener)
        return listener.addresses[0], listener

    async def accept(self, listener: Listener, *, identity: Identity | None = None) -> RawPeer:
        """The next connection of the victim to ``listener``."""
        accepted: Any = await listener.accept()
        self._streams.append(accepted.stream)
        return RawPeer(accepted.stream, identity=identity, dialer=False)

    async def leave(self) -> None:
        """Close everything the attackers have."""
        for stream in self._streams:
            await trio.aclose_forcefully(stream)


@asynccontextmanager
async def under_attack(
    *,
    config: HostConfig | None = None,
    services: Sequence[Callable[[], Service]] = (),
    muxers: Sequence[Callable[[], Any]] = (Yamux,),
    link: Link | None = None,
    budget: Budget | None = None,
    settle: float = SETTLE,
) -> AsyncIterator[Attack]:
    """Everything a case in memory needs; the verdict comes when the block is left in order."""
    async with (
        memory_network(
            4, ips=(VICTIM, *CANARIES), config=config, services=services, muxers=muxers, link=link, seed=1
        ) as hosts,
        open_rig(hosts[0], hosts[1:]) as rig,
    ):
        attack = Attack(hosts, rig)
        usage = dict(hosts[0].swarm.scopes.usage())
        async with rig.attack(), trio.open_nursery() as nursery:
            nursery.start_soon(_watch, attack)
            yield attack
            await attack.leave()
            nursery.cancel_scope.cancel()
        await trio.sleep(settle)
        rig.verdict(budget)
        for name, count in hosts[0].swarm.scopes.usage().items():
            assert count <= max(usage.get(name, 0), 2), f"{name} was {usage.get(name)} and is {count}"


async def _watch(attack: Attack) -> None:
    with attack.victim.subscribe(ConnectionOpened) as events:
        async for event in events:
            attack.opened.append(event)


async def ends(peer: RawPeer, within: float = 1.0) -> list[YamuxFrame]:
    """The victim must end the connection within some seconds; what it said before."""
    with trio.fail_after(within):
        return await peer.frames_until_end()


async def refused(what: Callable[[], Awaitable[object]]) -> None:
    """The victim must not let ``what`` succeed."""
    with pytest.raises((EOFError, trio.BrokenResourceError, TransportError)):
        await what()


async def open_raw_stream(peer: RawPeer, stream: int, data: bytes) -> None:
    """Open a yamux stream with its first data."""
    await peer.send(yamux(DATA, SYN, stream, data))


async def pump(peer: RawPeer, stream: int, got: bytearray, size: int) -> None:
    """Collect the data of one stream until there are ``size`` bytes, giving back window, answering nothing else."""
    while len(got) < size:
        frame = await peer.next_frame()
        if frame.kind == DATA and frame.stream == stream:
            got += frame.payload
            if frame.payload:
                await peer.send(yamux(WINDOW_UPDATE, 0, stream, length=len(frame.payload)))
        elif frame.flags & SYN and frame.stream:
            await peer.send(yamux(WINDOW_UPDATE, ACK, frame.stream))


async def never_called(stream: Stream) -> None:
    """A handler that an attack must not reach."""
    raise AssertionError("the handler was called")
