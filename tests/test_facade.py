"""``libp2p.open_host`` with its defaults, over real sockets on loopback."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import trio

import libp2p
from libp2p._facade import default_services
from libp2p.addressing import host_port, parse, with_peer
from libp2p.errors import DialError, StoreLocked, TransportError
from libp2p.events import PeerIdentified
from libp2p.host import HostConfig
from libp2p.peerstore import MemoryPeerstore
from libp2p.peerstore.sqlite import SqlitePeerstore
from libp2p.protocols.identify import Identify
from libp2p.protocols.ping import PING, Ping, ping
from libp2p.swarm import SwarmConfig
from libp2p.testing import seeded_key
from tests.swarm.nodes import Answers, P, echo, works

pytestmark = pytest.mark.sockets

LOOPBACK = ("/ip4/127.0.0.1/tcp/0",)


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


ipv6 = pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6 loopback")


# --- slips ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("slip", "hint"),
    [
        ({"listen": LOOPBACK[0]}, r"listen=\['/ip4/127.0.0.1/tcp/0'\]"),
        ({"listen": parse(LOOPBACK[0])}, r"listen=\['/ip4/127.0.0.1/tcp/0'\]"),
        ({"key": "node.key"}, "load_or_create"),
        ({"services": [Ping]}, r"services=\[Ping\(\.\.\.\)\]"),
    ],
)
def test_what_is_easily_mistaken(slip, hint: str) -> None:
    with pytest.raises(TypeError, match=hint):
        libp2p.open_host(**slip)


async def test_protocols_in_a_list() -> None:
    async with libp2p.open_host(listen=LOOPBACK) as b, libp2p.open_host() as a:
        with pytest.raises(TypeError, match="one by one"):
            await a.open_stream(b.addrs[0], [P])  # type: ignore[arg-type]


# --- listening and dialling -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("addr", ["/ip4/127.0.0.1/tcp/0", pytest.param("/ip6/::1/tcp/0", marks=ipv6)])
async def test_port_0_and_a_stream(addr) -> None:
    async with libp2p.open_host(listen=[addr]) as b, libp2p.open_host() as a:
        [bound] = b.listen_addrs()
        assert (host_port(bound) or ("", 0))[1] > 0
        assert list(b.addrs) == [with_peer(bound, b.local_peer)]
        assert not a.addrs
        b.handle(P, echo)
        async with await a.open_stream(b.addrs[0], P) as stream:
            assert await works(stream, bytes(100_000))
            assert stream.connection.remote_addr == bound
        assert len(await ping(a, b.local_peer)) == 1


@ipv6
async def test_both_families_on_one_host() -> None:
    async with libp2p.open_host(listen=["/ip4/127.0.0.1/tcp/0", "/ip6/::1/tcp/0"]) as b:
        assert len(b.addrs) == 2
        for addr in b.addrs:
            async with libp2p.open_host() as a:
                assert (await a.connect(addr)).peer == b.local_peer


async def test_an_unspecified_address_is_expanded() -> None:
    async with libp2p.open_host(listen=["/ip4/0.0.0.0/tcp/0"]) as b, libp2p.open_host() as a:
        assert any(str(addr).startswith("/ip4/127.0.0.1/tcp/") for addr in b.addrs)
        assert not any("0.0.0.0" in str(addr) for addr in b.addrs)
        assert (await a.connect(b.local_peer, b.listen_addrs())).peer == b.local_peer


async def test_an_address_in_use() -> None:
    async with libp2p.open_host(listen=LOOPBACK) as b:
        with pytest.raises(TransportError, match="in use"):
            async with libp2p.open_host(listen=[b.listen_addrs()[0]]):
                raise AssertionError("not reached")


async def test_a_port_nobody_listens_on() -> None:
    async with libp2p.open_host(listen=LOOPBACK) as b:
        dead = b.addrs[0]
    async with libp2p.open_host() as a:
        with pytest.raises(DialError, match="refused") as caught:
            await a.connect(dead)
        assert len(caught.value.attempts) == 1


async def test_names_through_a_resolver_of_ones_own() -> None:
    async with libp2p.open_host(listen=LOOPBACK) as b:
        resolver = Answers(**{"b.example": b.listen_addrs()})
        async with libp2p.open_host(resolver=resolver) as a:
            port = (host_port(b.listen_addrs()[0]) or ("", 0))[1]
            conn = await a.connect(f"/dns4/b.example/tcp/{port}/p2p/{b.local_peer}")
            assert conn.remote_addr == b.listen_addrs()[0]


async def test_two_simultaneous_dials() -> None:
    async with libp2p.open_host(listen=LOOPBACK) as a, libp2p.open_host(listen=LOOPBACK) as b:
        for host in (a, b):
            host.handle(P, echo)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(a.connect, b.addrs[0])
            nursery.start_soon(b.connect, a.addrs[0])
        for here, there in ((a, b), (b, a)):
            async with await here.open_stream(there.local_peer, P) as stream:
                assert await works(stream)


async def test_a_host_that_is_left_while_streams_are_busy() -> None:
    async with libp2p.open_host(listen=LOOPBACK) as b:
        b.handle(P, echo)
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery, libp2p.open_host() as a:
                for _ in range(10):
                    stream = await a.open_stream(b.addrs[0], P)
                    nursery.start_soon(_talk, stream)
                await trio.lowlevel.checkpoint()


async def _talk(stream: libp2p.Stream) -> None:
    with pytest.raises((trio.BrokenResourceError, trio.ClosedResourceError)):
        while True:
            await works(stream, bytes(10_000))


# --- parts ------------------------------------------------------------------------------------------------------------


async def test_identify_and_ping_are_served_by_default() -> None:
    async with libp2p.open_host(listen=LOOPBACK) as b, libp2p.open_host() as a:
        assert PING in b.protocols and "/ipfs/id/1.0.0" in b.protocols
        with a.subscribe(PeerIdentified) as events, trio.fail_after(10):
            await a.connect(b.addrs[0])
            event = await events.receive()
            assert event.peer == b.local_peer and PING in event.protocols


async def test_a_service_takes_the_place_of_the_default_of_its_class() -> None:
    class Quiet(Ping):
        """Another ping."""

    for mine in (Ping(), Quiet()):
        async with libp2p.open_host(services=[mine]) as a:
            assert list(a.protocols).count(PING) == 1
    assert [type(service) for service in default_services()] == [Identify, Ping]


async def test_a_key_of_ones_own_and_a_new_one_otherwise() -> None:
    key = seeded_key("facade")
    async with libp2p.open_host(key=key) as a, libp2p.open_host() as b, libp2p.open_host() as c:
        assert a.local_peer == libp2p.PeerId.from_key(key.public_key)
        assert len({a.local_peer, b.local_peer, c.local_peer}) == 3


async def test_parts_that_are_given_are_used_even_when_they_are_empty() -> None:
    class Empty(MemoryPeerstore):
        def __bool__(self) -> bool:
            return False

    class Nothing(Answers):
        def __len__(self) -> int:
            return 0

    store, resolver = Empty(), Nothing()
    async with libp2p.open_host(peerstore=store, resolver=resolver, transports=[]) as a:
        assert a.peerstore is store


async def test_a_configuration() -> None:
    config = HostConfig(swarm=SwarmConfig(dial_timeout=0.05))
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        addr = parse(f"/ip4/127.0.0.1/tcp/{silent.getsockname()[1]}")
        async with libp2p.open_host(config=config) as a:
            with pytest.raises(DialError, match=r"security negotiation: no answer within 0\.05 s"):
                await a.connect(addr)


# --- the peerstore's file ---------------------------------------------------------------------------------------------


async def test_a_peerstore_file_that_is_in_use(tmp_path: Path) -> None:
    file = tmp_path / "peers.sqlite"
    async with libp2p.open_host(peerstore=SqlitePeerstore(file)):
        with pytest.raises(StoreLocked) as caught:
            async with libp2p.open_host(peerstore=SqlitePeerstore(file)):
                raise AssertionError("not reached")
        assert caught.value.path == str(file)
    async with libp2p.open_host(peerstore=SqlitePeerstore(file)):
        pass


async def test_peers_are_known_after_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "peers.sqlite"
    async with libp2p.open_host(listen=LOOPBACK) as b:
        async with libp2p.open_host(peerstore=SqlitePeerstore(file)) as a:
            await a.connect(b.addrs[0])
        async with libp2p.open_host(peerstore=SqlitePeerstore(file)) as a:
            assert (await a.connect(b.local_peer)).peer == b.local_peer
