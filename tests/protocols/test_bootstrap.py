"""``libp2p.protocols.bootstrap``."""

from __future__ import annotations

import itertools
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import trio

import libp2p
from libp2p.abc import Connection, Service
from libp2p.addressing import parse, with_peer
from libp2p.errors import DecodeError
from libp2p.peer_id import PeerId
from libp2p.peerstore.sqlite import SqlitePeerstore
from libp2p.protocols.bootstrap import AMINO, SEEN, Bootstrap, BootstrapConfig
from libp2p.testing import memory_network, open_memory_host
from libp2p.testing.keys import seeded_key
from libp2p.transports.dns import DnsResolver
from libp2p.transports.memory import MemoryNetwork

NOBODY = PeerId.from_key(seeded_key("nobody").public_key)


def connected(host) -> int:
    return len({connection.peer for connection in host.connections()})


async def run(stack: AsyncExitStack, host, service: Service) -> None:
    nursery = await stack.enter_async_context(trio.open_nursery())
    stack.callback(nursery.cancel_scope.cancel)
    await nursery.start(service.run, host)


async def test_connects_with_as_many_as_it_should() -> None:
    async with memory_network(7) as (host, *others), AsyncExitStack() as stack:
        targets = [other.addrs[0] for other in others]
        await run(stack, host, Bootstrap([host.addrs[0], *targets], config=BootstrapConfig(minimum=3)))
        await trio.sleep(1)
        assert connected(host) == 3
        await trio.sleep(1000)
        assert connected(host) == 3  # and no more


async def test_who_leaves_is_replaced() -> None:
    async with memory_network(4) as (host, *others), AsyncExitStack() as stack:
        service = Bootstrap([other.addrs[0] for other in others], config=BootstrapConfig(minimum=2))
        await run(stack, host, service)
        await trio.sleep(1)
        (gone, _) = [other for other in others if host.connections(other.local_peer)]
        await gone.disconnect(host.local_peer)
        await trio.sleep(1)
        assert connected(host) == 2


async def test_peers_that_are_away_are_left_alone_ever_longer() -> None:
    async with memory_network(1) as (host,), AsyncExitStack() as stack:
        dials: list[float] = []
        connect = host.connect

        async def counted(*args, **more):
            dials.append(trio.current_time())
            return await connect(*args, **more)

        host.connect = counted  # type: ignore[method-assign]
        service = Bootstrap([with_peer(parse("/memory/4711"), NOBODY)], config=BootstrapConfig(minimum=1))
        await run(stack, host, service)
        await trio.sleep(3600)
        gaps = [later - earlier for earlier, later in itertools.pairwise(dials)]
        assert gaps[0] <= 6
        assert 10 <= len(dials) <= 30
        assert 270 <= gaps[-1] <= 631


async def test_peers_that_take_and_drop_us_are_left_alone_ever_longer() -> None:
    async with memory_network(2) as (host, full), AsyncExitStack() as stack:
        dials: list[float] = []
        connect = host.connect

        async def dropped(*args: Any, **more: Any) -> Connection:
            dials.append(trio.current_time())
            connection = await connect(*args, **more)
            while not full.connections():
                await trio.sleep(0.01)
            await full.disconnect(host.local_peer)
            return connection

        host.connect = dropped  # type: ignore[method-assign]
        await run(stack, host, Bootstrap([full.addrs[0]], config=BootstrapConfig(minimum=1)))
        await trio.sleep(3600)
        assert 10 <= len(dials) <= 30


async def test_a_connection_that_lasted_is_replaced_at_once() -> None:
    async with memory_network(2) as (host, server), AsyncExitStack() as stack:
        await run(stack, host, Bootstrap([server.addrs[0]], config=BootstrapConfig(minimum=1)))
        for _ in range(8):
            await trio.sleep(100)
            assert connected(host) == 1
            await server.disconnect(host.local_peer)
            await trio.sleep(0.5)
            assert connected(host) == 1


async def test_dnsaddr() -> None:
    async def texts(name: str) -> list[str]:
        await trio.lowlevel.checkpoint()
        assert name == "_dnsaddr.bootstrap.test"
        return [f"dnsaddr={server.addrs[0]}"]

    network = MemoryNetwork(0)
    async with (
        open_memory_host(network, name="server", ip="10.0.0.1") as server,
        open_memory_host(network, name="host", ip="10.0.0.2", resolver=DnsResolver(lookup_txt=texts)) as host,
        AsyncExitStack() as stack,
    ):
        await run(stack, host, Bootstrap([f"/dnsaddr/bootstrap.test/p2p/{server.local_peer}"]))
        await trio.sleep(1)
        assert host.connections(server.local_peer)


async def test_who_was_connected_is_tried_when_the_list_does_not_do() -> None:
    async with memory_network(3) as (host, old, older), AsyncExitStack() as stack:
        for seen, other in ((200, old), (100, older)):
            host.peerstore.add_addrs(other.local_peer, other.listen_addrs(), ttl=1e6)
            host.peerstore.set_metadata(other.local_peer, SEEN, str(seen))
        host.peerstore.add_addrs(NOBODY, [parse("/memory/4711")], ttl=1e6)  # was never connected
        service = Bootstrap([with_peer(parse("/memory/4711"), NOBODY)], config=BootstrapConfig(minimum=1))
        await run(stack, host, service)
        await trio.sleep(1)
        assert [each.peer for each in host.connections()] == [old.local_peer]


@pytest.mark.real_clock("real sockets and a file")
async def test_peers_are_remembered_across_restarts(tmp_path: Path) -> None:
    path = tmp_path / "peers.db"
    async with libp2p.open_host(listen=["/ip4/127.0.0.1/tcp/0"]) as server:
        for targets in ([server.addrs[0]], []):
            service = Bootstrap(targets, config=BootstrapConfig(minimum=1))
            async with libp2p.open_host(peerstore=SqlitePeerstore(path), services=[service]) as host:
                with trio.fail_after(20):
                    while not host.connections(server.local_peer) or SEEN not in host.peerstore.metadata(
                        server.local_peer
                    ):
                        await trio.sleep(0.01)


async def test_only_so_many_are_remembered() -> None:
    async with memory_network(6) as (host, *others), AsyncExitStack() as stack:
        for other in others:
            await host.connect(other.addrs[0])
        await run(stack, host, Bootstrap([], config=BootstrapConfig(remembered=2)))
        await trio.sleep(1)
        assert sum(SEEN in host.peerstore.metadata(other.local_peer) for other in others) == 2


def test_targets_are_looked_at() -> None:
    with pytest.raises(ValueError, match="whose address"):
        Bootstrap(["/ip4/1.2.3.4/tcp/1"])
    with pytest.raises(DecodeError):
        Bootstrap(["nonsense"])
    both = Bootstrap([f"/ip4/1.2.3.4/tcp/1/p2p/{NOBODY}", f"/ip4/1.2.3.4/tcp/2/p2p/{NOBODY}"])
    assert {peer: list(map(str, addrs)) for peer, addrs in both.targets.items()} == {
        NOBODY: ["/ip4/1.2.3.4/tcp/1", "/ip4/1.2.3.4/tcp/2"]
    }


def test_the_public_network() -> None:
    assert len(Bootstrap(AMINO).targets) == 6


@pytest.mark.parametrize(
    "wrong", [{"minimum": 0}, {"parallel": 0}, {"remembered": -1}, {"interval": 0}, {"first_delay": 1000}]
)
def test_configs_that_make_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        BootstrapConfig(**wrong)
