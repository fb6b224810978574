"""Connections besides a relay: who is dialled, what counts, and which end listens. Requirement D4, cases R4 and T9."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio
from multiaddr import Multiaddr
from trio.testing import wait_all_tasks_blocked

from libp2p.abc import Direction, RawConnection, SecureMuxedConnection, Transport
from libp2p.addressing import parse
from libp2p.errors import DialError, NoAddresses, PeerIdMismatch, TransportError
from libp2p.events import ConnectionOpened
from libp2p.peer_id import PeerId
from libp2p.testing import Memory, MemoryNetwork
from tests.protocols.waiting import until
from tests.swarm.nodes import Below, P, echo, open_node, works

MEETING = parse("/memory/77")


class Meets(Below):
    """Punches as TCP does: what comes of it is a raw connection, made by whoever dials ``meeting``."""

    meeting = MEETING

    async def punch(self, addr: Multiaddr, *, peer: PeerId) -> RawConnection | SecureMuxedConnection:
        listener = await self.below.listen(self.meeting)
        try:
            return await listener.accept()
        finally:
            await listener.aclose()


class MeetsOutside(Meets):
    """At an address that has an IP address."""

    meeting = parse("/ip4/6.0.0.1/tcp/77")


class Waits(Below):
    """Punches as QUIC does: it only opens the way."""

    async def punch(self, addr: Multiaddr, *, peer: PeerId) -> RawConnection | SecureMuxedConnection:
        await trio.sleep_forever()
        raise AssertionError


async def test_a_plain_dial_and_then_the_same_connection() -> None:
    network = MemoryNetwork()
    async with open_node(network, "ann") as ann, open_node(network, "ben") as ben:
        ben.handle(P, echo)
        first = await ann.connect_directly(ben.local_peer, ben.addrs)
        assert first.direction is Direction.OUTBOUND and first.stream_count == 0
        assert await ann.connect_directly(ben.local_peer, []) is first
        async with await first.open_stream(P) as stream:
            assert await works(stream) and first.stream_count == 1


async def test_nothing_to_dial_and_nobody_there() -> None:
    network = MemoryNetwork()
    async with open_node(network, "ann") as ann, open_node(network, "ben", ip="5.0.0.1", listen=[]) as ben:
        with pytest.raises(NoAddresses):
            await ann.connect_directly(ben.local_peer, [])
        with pytest.raises(DialError) as caught:
            await ann.connect_directly(ben.local_peer, [MEETING, parse("/memory/78")])
        assert sorted(str(addr) for addr, _ in caught.value.attempts) == ["/memory/77", "/memory/78"]
        assert all(isinstance(exc, TransportError) for _, exc in caught.value.attempts)


async def test_t9_what_leads_inside_or_to_others_is_left_out() -> None:
    network = MemoryNetwork()
    async with open_node(network, "ann", ip="5.0.0.1", listen=[]) as ann, open_node(network, "ben") as ben:
        told = [
            "/ip4/10.0.0.1/tcp/1",
            "/ip4/127.0.0.1/tcp/1",
            "/ip4/5.0.0.2/udp/1/quic-v1",
            "/memory/1/p2p-circuit",
            f"/memory/1/p2p/{ann.local_peer}",
        ]
        with pytest.raises(NoAddresses):
            await ann.connect_directly(ben.local_peer, [parse(addr) for addr in told])


async def test_r4_eight_at_a_time() -> None:
    network = MemoryNetwork()
    async with open_node(network, "ann") as ann, open_node(network, "ben") as ben:
        with pytest.raises(DialError) as caught:
            await ann.connect_directly(ben.local_peer, [parse(f"/memory/{900 + number}") for number in range(20)])
        assert len(caught.value.attempts) == 8


@pytest.mark.parametrize("wrap", [Meets, Waits], ids=["raw", "accepted"])
async def test_d4_who_meets_takes_the_listeners_part(wrap: Callable[[Transport], Transport]) -> None:
    network = MemoryNetwork()
    async with open_node(network, "ann") as ann, open_node(network, "ben", wrap=wrap) as ben:
        ben.handle(P, echo)
        target = MEETING if wrap is Meets else ben.addrs[0]
        async with trio.open_nursery() as nursery:

            async def meet() -> None:
                met = await ben.connect_directly(ann.local_peer, ann.addrs, direction=Direction.INBOUND)
                assert met.direction is Direction.INBOUND and met.peer == ann.local_peer

            nursery.start_soon(meet)
            await wait_all_tasks_blocked()
            ours = await ann.connect_directly(ben.local_peer, [target])
            assert ours.direction is Direction.OUTBOUND
        async with await ours.open_stream(P) as stream:
            assert await works(stream)


@pytest.mark.parametrize("wrap", [MeetsOutside, Waits], ids=["raw", "accepted"])
async def test_t2_who_is_met_counts_for_its_address(wrap: Callable[[Transport], Transport]) -> None:
    """Whoever dials through a relay is met, and could come back any number of times."""
    network = MemoryNetwork()
    async with (
        open_node(network, "ann", ip="5.0.0.1", listen=["/ip4/5.0.0.1/tcp/4001"]) as ann,
        open_node(network, "ben", ip="6.0.0.1", listen=["/ip4/6.0.0.1/tcp/4001"], wrap=wrap) as ben,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(lambda: ben.connect_directly(ann.local_peer, ann.addrs, direction=Direction.INBOUND))
        await wait_all_tasks_blocked()
        await ann.connect_directly(ben.local_peer, [MeetsOutside.meeting if wrap is MeetsOutside else ben.addrs[0]])
        await until(lambda: ben.connections(ann.local_peer))
        assert [host.swarm.scopes.usage()["connections_per_ip"] for host in (ann, ben)] == [0, 1]


async def test_somebody_else_at_the_meeting() -> None:
    """Is not who was to be met; who is may still come another way."""
    network = MemoryNetwork()
    async with (
        open_node(network, "ann") as ann,
        open_node(network, "ben", wrap=Meets) as ben,
        open_node(network, "eve") as eve,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(lambda: ben.connect_directly(ann.local_peer, ann.addrs, direction=Direction.INBOUND))
        await wait_all_tasks_blocked()
        await eve.connect(MEETING)
        with trio.move_on_after(1):
            await until(lambda: ben.connections(eve.local_peer))
        assert not ben.connections(eve.local_peer)
        await ann.connect(ben.addrs[0])


async def test_whoever_answers_must_be_the_peer() -> None:
    network = MemoryNetwork()
    async with open_node(network, "ann") as ann, open_node(network, "ben") as ben, open_node(network, "eve") as eve:
        with pytest.raises(DialError) as caught:
            await ann.connect_directly(ben.local_peer, [parse(str(eve.addrs[0]).split("/p2p/")[0])])
        [(_, failure)] = caught.value.attempts
        assert isinstance(failure, PeerIdMismatch)


async def test_what_the_peer_dials_will_do() -> None:
    network = MemoryNetwork()
    async with open_node(network, "ann", wrap=Waits) as ann, open_node(network, "ben") as ben:
        with ann.subscribe(ConnectionOpened) as opened, trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ben.connect, ann.addrs[0])
                met = await ann.connect_directly(ben.local_peer, [], direction=Direction.INBOUND)
            assert (await opened.receive()).connection is met


async def test_a_transport_that_cannot() -> None:
    network = MemoryNetwork()
    transport = Memory(network, "one")
    with pytest.raises(TransportError, match="punches no holes"):
        await transport.punch(MEETING, peer=PeerId.parse("QmNnooDu7bfjPFoTZYxMNLWUQJyrVwtbZg5gBMjTezGAJN"))
