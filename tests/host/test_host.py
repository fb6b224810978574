"""What a running host offers: protocols, targets, addresses."""

from __future__ import annotations

import pytest
import trio

from libp2p.abc import Stream
from libp2p.addressing import host_port, parse, with_peer
from libp2p.errors import DecodeError, NegotiationError, NoAddresses
from libp2p.events import ListenAddrsChanged, ProtocolsChanged
from libp2p.host._interfaces import interface_addresses
from libp2p.testing import MemoryNetwork, memory_network
from tests.protocols.waiting import settled
from tests.swarm.nodes import Below, P, echo, open_node, works

Q = "/test/2"

# --- protocols --------------------------------------------------------------------------------------------------------


async def test_a_protocol_is_served_once_and_until_its_context_is_left() -> None:
    async with memory_network(2, defaults=(), connect="full") as (a, b):
        with b.handle(P, echo):
            assert list(b.protocols) == [P]
            with pytest.raises(ValueError, match="/test/1 is served already"):
                b.handle(P, echo)
            async with await a.open_stream(b.local_peer, P) as stream:
                assert await works(stream)
        assert not b.protocols
        with pytest.raises(NegotiationError, match=f"none of {P} .{b.local_peer}") as caught:
            await a.open_stream(b.local_peer, P)
        assert (caught.value.peer, caught.value.offered) == (b.local_peer, (P,))
        b.handle(P, echo)
        async with await a.open_stream(b.local_peer, P) as stream:
            assert await works(stream)


async def test_a_registration_ends_only_itself() -> None:
    async with memory_network(1, defaults=()) as (a,):
        first = a.handle(P, echo)
        with first:
            pass
        second = a.handle(P, echo)
        with first:  # left a second time
            pass
        assert list(a.protocols) == [P]
        with second:
            pass
        assert not a.protocols


async def test_streams_outlive_the_registration() -> None:
    async with memory_network(2, defaults=(), connect="full") as (a, b):
        with b.handle(P, echo):
            stream = await a.open_stream(b.local_peer, P)
        async with stream:
            assert await works(stream)


async def test_changes_of_protocols_and_addresses_are_announced() -> None:
    async with memory_network(1, defaults=()) as (a,):
        with a.subscribe(ProtocolsChanged, ListenAddrsChanged) as events:
            with a.handle(Q, echo), a.handle(P, echo):
                pass
            seen = [await events.receive() for _ in range(4)]
            assert seen == [ProtocolsChanged(found) for found in ((Q,), (P, Q), (Q,), ())]
            await a.listen("/memory/77")
            event = await events.receive()
            assert isinstance(event, ListenAddrsChanged) and event.addrs == tuple(a.addrs)


# --- targets ----------------------------------------------------------------------------------------------------------


async def test_all_kinds_of_targets() -> None:
    async with memory_network(2, defaults=()) as (a, b):
        b.handle(P, echo)
        bare = b.listen_addrs()[0]
        for target in (with_peer(bare, b.local_peer), str(with_peer(bare, b.local_peer)), bare, str(bare)):
            async with await a.open_stream(target, P) as stream:
                assert stream.connection.peer == b.local_peer and await works(stream)
            await a.disconnect(b.local_peer)
        for target in (b.local_peer, str(b.local_peer), parse(f"/p2p/{b.local_peer}"), f"/p2p/{b.local_peer}"):
            async with await a.open_stream(target, P) as stream:
                assert stream.connection.peer == b.local_peer and await works(stream)


async def test_targets_that_are_none() -> None:
    async with memory_network(1, defaults=()) as (a,):
        for target in ("", "nobody", "/nothing/1", "/ip4/300.0.0.1/tcp/1"):
            with pytest.raises(DecodeError):
                await a.connect(target)
        with pytest.raises(DecodeError, match=r"'10.0.0.1:4001' is neither an address, as /ip4/.*, nor a peer id"):
            await a.connect("10.0.0.1:4001")
        with pytest.raises(TypeError, match="an address is text"):
            await a.connect(None)
        with pytest.raises(NoAddresses, match="must end in the peer to reach"):
            await a.connect(f"/ip4/10.0.0.1/tcp/1/p2p/{a.local_peer}/p2p-circuit")


async def test_addresses_may_be_given_beside_the_target() -> None:
    async with memory_network(2, defaults=()) as (a, b):
        conn = await a.connect(b.local_peer, [str(b.listen_addrs()[0]), parse("/memory/99")])
        assert conn.peer == b.local_peer


# --- addresses --------------------------------------------------------------------------------------------------------


async def test_an_unspecified_address_is_announced_as_those_of_the_interfaces() -> None:
    class Anywhere(Below):
        """Binds to all interfaces, as a kernel would."""

        async def listen(self, addr):
            listener = await super().listen(addr)
            port = (host_port(listener.addresses[0]) or ("", 0))[1]
            listener._addr = parse(f"/ip4/0.0.0.0/tcp/{port}")  # type: ignore[attr-defined]
            return listener

    async with open_node(MemoryNetwork(), "a", ip="10.0.0.1", wrap=Anywhere, listen=["/ip4/0.0.0.0/tcp/4001"]) as a:
        assert [str(addr) for addr in a.swarm.listen_addrs()] == ["/ip4/0.0.0.0/tcp/4001"]
        expected = [f"/ip4/{ip}/tcp/4001" for ip in interface_addresses() if ":" not in ip]
        assert [str(addr) for addr in a.listen_addrs()] == expected
        assert [str(addr) for addr in a.addrs] == [f"{addr}/p2p/{a.local_peer}" for addr in expected]


async def test_a_host_that_only_dials() -> None:
    network = MemoryNetwork()
    async with open_node(network, "a", listen=[]) as a, open_node(network, "b") as b:
        assert not a.addrs
        b.handle(P, echo)
        async with await a.open_stream(b.addrs[0], P) as stream:
            assert await works(stream)


# --- odds and ends ----------------------------------------------------------------------------------------------------


async def test_what_it_tells_of_itself() -> None:
    async with memory_network(2, defaults=(), connect="full") as (a, b):
        assert repr(a) == f"<Host {a.local_peer}>"
        assert a.private_key.public_key == b.peerstore.key(a.local_peer)
        assert a.swarm.local_peer == a.local_peer and a.swarm.peerstore is a.peerstore
        assert [conn.peer for conn in a.connections()] == [b.local_peer]


async def test_both_sides_open_streams_at_once() -> None:
    async with memory_network(2, defaults=(), connect="full") as (a, b):
        done = []

        async def many(here, there) -> None:
            for _ in range(50):
                async with await here.open_stream(there.local_peer, P) as stream:
                    assert await works(stream, bytes(1000))
            done.append(here)

        async with trio.open_nursery() as nursery:
            with a.handle(P, echo), b.handle(P, echo):
                async with trio.open_nursery() as workers:
                    workers.start_soon(many, a, b)
                    workers.start_soon(many, b, a)
            nursery.cancel_scope.cancel()
        assert len(done) == 2
        await settled()


async def test_a_stream_knows_where_it_belongs() -> None:
    seen: list[Stream] = []

    async def look(stream: Stream) -> None:
        seen.append(stream)

    async with memory_network(2, defaults=(), connect="full") as (a, b):
        b.handle(P, look)
        async with await a.open_stream(b.local_peer, P) as stream:
            await stream.receive_some()
        [inbound] = seen
        assert (inbound.protocol, inbound.connection.peer) == (P, a.local_peer)
        assert inbound.direction.value == "inbound"
