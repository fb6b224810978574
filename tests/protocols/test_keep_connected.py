"""``libp2p.protocols.keep_connected``."""

from __future__ import annotations

import random
from contextlib import contextmanager
from itertools import pairwise

import pytest
import trio

from libp2p.addressing import parse
from libp2p.errors import DecodeError, DialError
from libp2p.peer_id import PeerId
from libp2p.peerstore import MemoryPeerstore
from libp2p.protocols.keep_connected import KeepConnected, KeepConnectedConfig, KeptPeer
from libp2p.testing import memory_network
from libp2p.testing.keys import seeded_key
from libp2p.testing.network import open_memory_host
from tests.protocols.waiting import settled, until

STRANGER = PeerId.from_key(seeded_key("stranger").public_key)


def keeper(*targets, **options) -> KeepConnected:
    return KeepConnected(targets, rng=random.Random(1), **options)


async def test_connected_at_once() -> None:
    async with memory_network(2) as hosts:
        a, b = hosts
        service = keeper(a.addrs[0], str(b.addrs[0]))
        assert [kept.connected for kept in service.peers().values()] == [False, False]
        started = trio.current_time()
        async with open_memory_host(hosts.network, name="c", services=[lambda: service]):
            await until(lambda: all(kept.connected for kept in service.peers().values()))
            assert trio.current_time() - started < 0.1
            (one, two) = service.peers().values()
            assert (one.peer, two.peer) == (a.local_peer, b.local_peer)
            assert one.addrs == (parse(str(a.addrs[0]).partition("/p2p/")[0]),)
            assert (one.failures, one.next_dial, one.last_error) == (0, None, None)


async def test_connected_again() -> None:
    async with memory_network(1) as hosts:
        (a,) = hosts
        service = keeper(a.addrs[0])
        async with open_memory_host(hosts.network, name="c", services=[lambda: service]) as c:
            for _ in range(3):
                await until(lambda: c.connections(a.local_peer))
                await trio.sleep(60)
                await a.disconnect(c.local_peer)
                lost_at = trio.current_time()
                await until(lambda: not c.connections(a.local_peer))
                await until(lambda: c.connections(a.local_peer))
                assert 0.4 < trio.current_time() - lost_at < 1.2


class Nowhere:
    """As much of a host as the service needs, connected with nobody."""

    def __init__(self) -> None:
        self.local_peer = PeerId.from_key(seeded_key("nowhere").public_key)
        self.peerstore = MemoryPeerstore()
        self.dialled_at: list[float] = []

    @contextmanager
    def subscribe(self, *kinds):
        yield trio.open_memory_channel[None](1)[1]

    def protect(self, peer: PeerId, tag: str) -> None:
        pass

    def unprotect(self, peer: PeerId, tag: str) -> None:
        pass

    def connections(self, peer: PeerId):
        return ()

    async def connect(self, peer: PeerId, addrs=()):
        await trio.lowlevel.checkpoint()
        self.dialled_at.append(trio.current_time())
        raise DialError(peer)


async def test_back_off() -> None:
    host, service = Nowhere(), keeper(STRANGER)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(service.run, host)  # type: ignore[arg-type]
        await trio.sleep(3600)
        nursery.cancel_scope.cancel()
    assert host.dialled_at[0] == 0
    delays = [after - before for before, after in pairwise(host.dialled_at)]
    assert len(delays) > 15
    for step, delay in enumerate(delays):
        longest = min(300, 2**step)
        assert longest / 2 <= delay <= longest
    assert len({delay / min(300, 2**step) for step, delay in enumerate(delays)}) == len(delays)
    assert state(service).failures == len(host.dialled_at)
    assert isinstance(state(service).last_error, DialError)


async def test_after_a_partition() -> None:
    async with memory_network(1) as hosts:
        (a,) = hosts
        hosts.network.cut(hosts.node(a), "c")
        service = keeper(a.addrs[0])
        async with open_memory_host(hosts.network, name="c", services=[lambda: service]) as c:
            await trio.sleep(100)
            assert isinstance(state(service).last_error, DialError)
            hosts.network.heal(hosts.node(a), "c")
            await trio.sleep(100)
            assert c.connections(a.local_peer)
            assert state(service).last_error is None


def state(service: KeepConnected) -> KeptPeer:
    (kept,) = service.peers().values()
    return kept


async def test_connections_that_do_not_last_are_failures() -> None:
    async with memory_network(1) as hosts:
        (a,) = hosts
        service = keeper(a.addrs[0], config=KeepConnectedConfig(stable=30))
        async with open_memory_host(hosts.network, name="c", services=[lambda: service]) as c:
            started = trio.current_time()
            for _ in range(6):
                await until(lambda: c.connections(a.local_peer))
                await a.disconnect(c.local_peer)
                await until(lambda: not c.connections(a.local_peer))
            assert trio.current_time() - started > 10
            await until(lambda: c.connections(a.local_peer))
            await trio.sleep(31)
            await a.disconnect(c.local_peer)
            await until(lambda: state(service).next_dial is not None)
            assert state(service).failures == 1


async def test_adding_and_removing() -> None:
    async with memory_network(2) as hosts:
        a, b = hosts
        service = keeper()
        async with open_memory_host(hosts.network, name="c", services=[lambda: service]) as c:
            assert service.add(a.addrs[0]) == a.local_peer
            await until(lambda: c.connections(a.local_peer))
            service.add(STRANGER)
            service.add(b.addrs[0])
            await until(lambda: c.connections(b.local_peer))
            service.remove(str(a.local_peer))
            assert c.connections(a.local_peer)
            await a.disconnect(c.local_peer)
            await trio.sleep(1000)
            assert not c.connections(a.local_peer)
            assert c.connections(b.local_peer)
            with pytest.raises(KeyError):
                service.remove(a.local_peer)


async def test_a_new_address_is_tried_at_once() -> None:
    async with memory_network(1) as hosts:
        (a,) = hosts
        service = keeper(a.local_peer)
        async with open_memory_host(hosts.network, name="c", services=[lambda: service]) as c:
            await trio.sleep(500)
            assert not state(service).connected
            service.add(a.addrs[0])
            added_at = trio.current_time()
            await until(lambda: c.connections(a.local_peer))
            assert trio.current_time() - added_at < 0.1


async def test_addresses_of_the_peerstore() -> None:
    async with memory_network(1) as hosts:
        (a,) = hosts
        service = keeper()
        async with open_memory_host(hosts.network, name="c", services=[lambda: service]) as c:
            c.peerstore.add_addrs(a.local_peer, a.listen_addrs(), ttl=1000)
            service.add(a.local_peer)
            await until(lambda: c.connections(a.local_peer))


async def test_the_peer_comes_by_itself() -> None:
    async with memory_network(1) as hosts:
        (a,) = hosts
        service = keeper(a.local_peer)
        async with open_memory_host(hosts.network, name="c", services=[lambda: service]) as c:
            await trio.sleep(200)
            assert state(service).next_dial is not None
            await a.connect(c.addrs[0])
            await settled()
            assert (state(service).connected, state(service).next_dial) == (True, None)


async def test_the_host_itself_is_left_alone() -> None:
    async with memory_network(1) as hosts:
        service = keeper()
        async with open_memory_host(hosts.network, name="c", services=[lambda: service]) as c:
            service.add(c.addrs[0])
            await trio.sleep(100)
            assert state(service).failures == 0


def test_targets() -> None:
    service = keeper(STRANGER, f"/ip4/1.2.3.4/tcp/1/p2p/{STRANGER}", f"/ip4/1.2.3.4/tcp/2/p2p/{STRANGER}")
    assert [str(addr) for addr in state(service).addrs] == ["/ip4/1.2.3.4/tcp/1", "/ip4/1.2.3.4/tcp/2"]
    service.add(f"/p2p/{STRANGER}")
    assert len(state(service).addrs) == 2
    with pytest.raises(ValueError, match="does not say whose"):
        keeper("/ip4/1.2.3.4/tcp/1")
    with pytest.raises(DecodeError):
        keeper("nonsense")


def test_delays() -> None:
    for wrong in ({"first_delay": 0.0}, {"first_delay": 10.0, "max_delay": 5.0}, {"stable": -1.0}):
        with pytest.raises(ValueError, match="positive"):
            KeepConnectedConfig(**wrong)


async def test_kept_peers_are_protected_from_trimming() -> None:
    async with memory_network(2, services=[]) as (a, b):
        service = KeepConnected([b.addrs[0]])
        async with trio.open_nursery() as nursery:
            await nursery.start(service.run, a)
            await settled()
            assert a.connections(b.local_peer)
            assert a.swarm.tags.protected(b.local_peer)
            service.remove(b.local_peer)
            await settled()
            assert not a.swarm.tags.protected(b.local_peer)
            nursery.cancel_scope.cancel()
