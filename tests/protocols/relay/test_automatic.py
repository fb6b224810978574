"""Relays while AutoNAT finds that they are needed: requirement HP1."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from libp2p.addressing import is_relay
from libp2p.events import Reachability, ReachabilityChanged
from libp2p.host import RunningHost
from libp2p.peer_id import PeerId
from libp2p.protocols.autonat import AutoNat, AutoNatServer
from libp2p.protocols.ping import ping
from libp2p.protocols.relay import RelayClient, RelayLimits, RelayServer
from tests.protocols.autonat.nodes import CLIENT, Firewall, Net, net, server_ip
from tests.protocols.relay.nodes import client, through, wall
from tests.protocols.waiting import settled, until

SERVERS = 5


@dataclass
class World:
    """A host behind a firewall, and public ones that serve AutoNAT and are relays."""

    net: Net
    firewall: Firewall
    autonat: AutoNat
    relays: RelayClient
    host: RunningHost
    servers: list[RunningHost]

    @property
    def held(self) -> set[PeerId]:
        """The relays through which it listens."""
        return set(self.relays.reservations)

    @property
    def relayed(self) -> list[str]:
        """What it announces of them."""
        return [str(addr) for addr in self.host.addrs if is_relay(addr)]


@asynccontextmanager
async def world(limits: RelayLimits | None = None) -> AsyncIterator[World]:
    async with net() as found:
        firewall, autonat, relays = Firewall(), AutoNat(), client(automatic=True)
        host = await found.open("host", autonat, relays, ip=CLIENT, gater=firewall)
        servers = []
        for number in range(SERVERS):
            ip = server_ip(number)
            services = [AutoNatServer(found.dialer(ip)), RelayServer(limits, clock=wall)]
            servers.append(await found.open(f"server-{number}", *services, ip=ip))
        yield World(found, firewall, autonat, relays, host, servers)


async def test_hp1_who_is_private_is_reached_through_two_relays() -> None:
    async with world() as world_:
        for server in world_.servers[:3]:
            await world_.host.connect(server.addrs[0])
        await trio.sleep(300)
        assert world_.autonat.reachability is Reachability.UNKNOWN and not world_.held
        for server in world_.servers[3:]:
            await world_.host.connect(server.addrs[0])
        await until(lambda: len(world_.held) == 2)
        assert world_.autonat.reachability is Reachability.PRIVATE
        assert len(world_.relayed) == 2
        caller = await world_.net.open("caller", client(), ip="40.0.0.1")
        [relay] = [server for server in world_.servers if server.local_peer in world_.held][:1]
        assert len(await ping(caller, through(relay, world_.host))) == 1
        # Others hear of it.
        other = next(server for server in world_.servers if server.local_peer not in world_.held)
        await until(lambda: any(is_relay(addr) for addr in other.peerstore.addrs(world_.host.local_peer)))


async def test_hp1_relays_are_replaced_and_renewed() -> None:
    async with world(RelayLimits(reservation_ttl=600)) as world_:
        for server in world_.servers:
            await world_.host.connect(server.addrs[0])
        await until(lambda: len(world_.held) == 2)
        [lost, kept] = [server for server in world_.servers if server.local_peer in world_.held]
        await lost.disconnect(world_.host.local_peer)
        await until(lambda: len(world_.held) == 2 and lost.local_peer not in world_.held)
        assert kept.local_peer in world_.held
        for _ in range(30):
            await trio.sleep(100)
            assert len(world_.held) == 2


async def test_hp1_who_becomes_public_lets_go_of_them() -> None:
    async with world() as world_:
        for server in world_.servers:
            await world_.host.connect(server.addrs[0])
        await until(lambda: len(world_.held) == 2)
        relays = [server for server in world_.servers if server.local_peer in world_.held]
        world_.firewall.shut = False
        with world_.host.subscribe(ReachabilityChanged) as events:
            while (await events.receive()).reachability is not Reachability.PUBLIC:
                pass
        await settled()
        assert not world_.held and not world_.relayed
        assert len(world_.host.addrs) == 1
        for relay in relays:
            assert not world_.host.swarm.tags.protected(relay.local_peer)
        await trio.sleep(3000)
        assert not world_.held
        # And it takes them again when nobody gets in any more.
        world_.firewall.shut = True
        with trio.fail_after(20_000):
            while len(world_.held) < 2:
                await trio.sleep(100)
        assert world_.autonat.reachability is Reachability.PRIVATE


async def test_who_is_public_takes_none() -> None:
    async with world() as world_:
        world_.firewall.shut = False
        for server in world_.servers:
            await world_.host.connect(server.addrs[0])
        await trio.sleep(3000)
        assert world_.autonat.reachability is Reachability.PUBLIC
        assert not world_.held and not world_.relayed
