"""Hosts in memory: connected as asked, the same in every run, strict, and checked at the end."""

from __future__ import annotations

import pytest
import trio

from libp2p.abc import Stream
from libp2p.addressing import parse
from libp2p.errors import DialError
from libp2p.events import PeerDisconnected
from libp2p.host import HostConfig
from libp2p.muxers.mplex import Mplex
from libp2p.peer_id import PeerId
from libp2p.protocols.identify import Identify
from libp2p.protocols.ping import Ping, ping
from libp2p.security.plaintext import Plaintext
from libp2p.swarm import SwarmConfig
from libp2p.testing import Link, MemoryNetwork, memory_network, open_memory_host, seeded_key
from libp2p.testing.network import Hosts, LeftBehind
from libp2p.transports.memory import Memory


def _degrees(hosts: Hosts) -> list[int]:
    return [len(host.connections()) for host in hosts]


async def test_nobody_is_connected_at_first() -> None:
    async with memory_network(3) as hosts:
        assert _degrees(hosts) == [0, 0, 0]
        assert len({host.local_peer for host in hosts}) == 3


async def test_line_and_full() -> None:
    async with memory_network(4, connect="line") as hosts:
        assert _degrees(hosts) == [1, 2, 2, 1]
        assert hosts.connections(0, 1)
        assert not hosts.connections(0, 2)
        await hosts.connect("full")
        assert _degrees(hosts) == [3, 3, 3, 3]


async def test_hosts_unpack_and_ping() -> None:
    async with memory_network(2, link=Link(latency=0.1)) as (a, b):
        assert await ping(a, b.addrs[0], count=3) == pytest.approx([0.2] * 3)


async def test_keys_depend_on_the_seed_only() -> None:
    async def peers(seed: int) -> list[PeerId]:
        async with memory_network(2, seed=seed) as hosts:
            return [host.local_peer for host in hosts]

    assert await peers(1) == await peers(1)
    assert await peers(1) != await peers(2)
    assert seeded_key("x") == seeded_key("x") != seeded_key("y")


async def test_parts_can_be_chosen() -> None:
    config = HostConfig(swarm=SwarmConfig(dial_timeout=3.0))
    async with memory_network(
        2, security=[Plaintext], muxers=[Mplex], config=config, ips=["192.0.2.1", "2001:db8::2"], connect="full"
    ) as hosts:
        (connection,) = hosts.connections(0, 1)
        assert str(connection.remote_addr) == "/ip6/2001:db8::2/tcp/4001"
        assert str(hosts[0].addrs[0]).startswith("/ip4/192.0.2.1/tcp/4001/p2p/")
        with hosts[0].subscribe(PeerDisconnected) as ended:
            await hosts[0].disconnect(hosts[1].local_peer)
            await ended.receive()
        hosts.network.cut(hosts.node(0), hosts.node(hosts[1]))
        before = trio.current_time()
        with pytest.raises(DialError, match="no answer within 3 s"):
            await hosts[0].connect(hosts[1].addrs[0])
        assert trio.current_time() - before == pytest.approx(3.0)


async def test_services_come_on_top_of_the_defaults() -> None:
    async with memory_network(1, services=[Ping]) as (host,):
        assert "/ipfs/id/1.0.0" in host.protocols
    async with memory_network(1, services=[Ping], defaults=[]) as (host,):
        assert host.protocols == ["/ipfs/ping/1.0.0"]
    async with memory_network(1, defaults=[Identify]) as (host,):
        assert "/ipfs/ping/1.0.0" not in host.protocols


async def test_a_bug_in_a_handler_fails_the_test(expected_bugs: list[BaseException]) -> None:
    async def handler(stream: Stream) -> None:
        await stream.receive_some()
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        async with memory_network(2, connect="full") as (a, b):
            b.handle("/bug/1", handler)
            stream = await a.open_stream(b.local_peer, "/bug/1")
            await stream.send_all(b"x")
            await trio.sleep_forever()
    assert expected_bugs


async def test_an_error_in_the_block_comes_out_as_itself() -> None:
    with pytest.raises(KeyError):
        async with memory_network(3, connect="full"):
            raise KeyError


async def test_what_is_left_behind_is_named() -> None:
    with pytest.raises(LeftBehind, match="memory/77"):
        async with memory_network(1) as hosts:
            await Memory(hosts.network, "stray").listen(parse("/memory/77"))


async def test_one_host_by_itself() -> None:
    network = MemoryNetwork(5)
    key = seeded_key("mine")
    async with (
        open_memory_host(network, name="one", key=key) as one,
        open_memory_host(network, ip="10.0.0.1") as other,
    ):
        assert one.local_peer == PeerId.from_key(key.public_key)
        assert network.nodes == ("one", "node-2")
        await other.connect(one.addrs[0])
