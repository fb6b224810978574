"""Gossipsub between hosts: requirements G3, G6, G11.3, G11.13, G12.2; case G10; nothing is lost when a host closes."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from libp2p.abc import Host
from libp2p.errors import ConnectionClosed, StreamReset
from libp2p.peer_id import PeerId
from libp2p.protocols.pubsub import (
    MESHSUB_12,
    Floodsub,
    Gossipsub,
    GossipsubConfig,
    Messages,
    PeersTooSlow,
    Pubsub,
    PubsubConfig,
    ScoreThresholds,
    Verdict,
)
from libp2p.protocols.pubsub._codec import Message
from libp2p.protocols.pubsub._control import (
    Exchanged,
    Prune,
    encode_graft,
    encode_idontwant,
    encode_iwant,
    encode_prune,
)
from libp2p.protocols.pubsub._exchange import MAX_CONNECTS
from libp2p.protocols.pubsub._link import FAREWELL
from libp2p.protocols.pubsub._router import Action, Connect
from libp2p.records.peer_record import PeerRecord
from libp2p.testing import memory_network
from libp2p.testing.keys import seeded_key
from libp2p.testing.network import open_memory_host
from tests.protocols.pubsub.networks import RawPeer, raw_peers, rpc_of, subscribed
from tests.protocols.waiting import settled, until


def gossipsub(**config: Any) -> Pubsub:
    return Pubsub(Gossipsub(random.Random(1), GossipsubConfig(**config)))


class Lazy(Gossipsub):
    """Sends no message by itself: others have to hear of it, and ask."""

    def publish(self, message: Message, now: float) -> list[Action]:
        super().publish(message, now)
        return []


# --- meshes -----------------------------------------------------------------------------------------------------------


async def test_everybody_gets_everything() -> None:
    """Twelve hosts in a ring with chords, from each of them."""
    size = 12
    links = [(index, (index + step) % size) for index in range(size) for step in (1, 3, 5)]
    async with subscribed(links, lambda: gossipsub(flood_publish=False)) as net:
        await trio.sleep(3)
        assert all(pubsub.mesh("t") for pubsub in net.pubsubs)
        for index, pubsub in enumerate(net.pubsubs):
            await pubsub.publish("t", b"%d" % index)
        await trio.sleep(3)
        for index, messages in enumerate(net.messages):
            got = sorted([int(messages.receive_nowait().data) for _ in range(size - 1)])
            assert got == [number for number in range(size) if number != index]
            with pytest.raises(trio.WouldBlock):
                messages.receive_nowait()
        assert all(score >= 0 for pubsub in net.pubsubs for score in pubsub.scores().values())


async def test_a_line_right_after_the_peers_are_known() -> None:
    """No heartbeat is waited for: who is alone in a topic takes the next one in at once."""
    async with subscribed([(0, 1), (1, 2), (2, 3)]) as net:
        await net.pubsubs[0].publish("t", b"x")
        for messages in net.messages[1:]:
            with trio.fail_after(0.5):
                assert (await messages.receive()).data == b"x"


async def test_with_floodsub_on_the_other_side() -> None:
    routers = iter([Floodsub(), Gossipsub(random.Random(1)), Floodsub()])
    async with subscribed([(0, 1), (1, 2)], lambda: Pubsub(next(routers))) as net:
        await net.pubsubs[0].publish("t", b"x")
        for messages in net.messages[1:]:
            assert (await messages.receive()).data == b"x"


async def test_g6_what_is_not_sent_is_asked_for() -> None:
    async with subscribed([(0, 1)], lambda: Pubsub(Lazy(random.Random(1)))) as net:
        # Who is in the mesh is not told: it is supposed to have everything.
        for pubsub in net.pubsubs:
            pubsub._router._mesh["t"].clear()  # type: ignore[attr-defined]
            for peer in pubsub.peers("t"):
                pubsub._router._backoff.add(peer, "t", until=1000.0)  # type: ignore[attr-defined]
        await net.pubsubs[0].publish("t", b"x")
        with trio.fail_after(5):
            assert (await net.messages[1].receive()).data == b"x"


async def test_publishing_where_one_is_not_subscribed() -> None:
    async with raw_peers(2, protocol=MESHSUB_12, topic=None) as (_, pubsub, _, peers):
        for peer in peers:
            await peer.subscribe("t")
        await pubsub.wait_for_peers("t", 2)
        await pubsub.publish("t", b"x", require_peers=True)
        await settled()
        assert [len(peer.published) for peer in peers] == [1, 1]
        assert pubsub.mesh("t") == ()


# --- what peers see ---------------------------------------------------------------------------------------------------


async def test_g3_subscriptions_come_before_grafts() -> None:
    async with raw_peers(protocol=MESHSUB_12) as (_, pubsub, _, (peer,)):
        await peer.subscribe("t")
        await until(lambda: peer.control.graft == ["t"])
        assert peer.announced == [("t", True)]
        assert pubsub.mesh("t") == (peer.host.local_peer,)


async def test_g3_leaving_prunes() -> None:
    async with raw_peers(protocol=MESHSUB_12, topic=None) as (_, pubsub, _, (peer,)):
        async with pubsub.subscribe("u"):
            await peer.subscribe("u")
            await until(lambda: peer.control.graft == ["u"])
        await settled()
        assert peer.control.prune == [Prune("u", 10.0)]
        assert peer.announced == [("u", True), ("u", False)]


async def test_g7_a_message_is_forwarded_as_it_came() -> None:
    async with raw_peers(2, protocol=MESHSUB_12) as (_, _, messages, (one, other)):
        assert messages is not None
        for peer in (one, other):
            await peer.subscribe("t")
            await until(lambda peer=peer: peer.control.graft)  # type: ignore[misc]
        strange = one.signed(b"x") + bytes.fromhex("5801")  # with a field that nobody knows
        await one.publish(strange)
        await settled()
        assert other.published == []  # which is not signed
        raw = one.signed(b"y")
        await one.publish(raw)
        await until(lambda: other.published == [raw])


async def test_g4_iwant_again_and_again() -> None:
    async with raw_peers(protocol=MESHSUB_12) as (_, pubsub, _, (peer,)):
        await peer.subscribe("t")
        await pubsub.wait_for_peers("t")
        message_id = await pubsub.publish("t", b"x")
        for _ in range(10):
            await peer.say(encode_iwant([message_id]))
            await settled()
        assert len(peer.published) == 4  # pushed, and three times asked for
        assert pubsub.metrics()["iwant_refused"] == 7


async def test_g12_2_what_is_not_wanted_any_more_is_taken_out_of_the_queue() -> None:
    async with raw_peers(protocol=MESHSUB_12) as (_, pubsub, _, (peer,)):
        await peer.subscribe("t")
        await pubsub.wait_for_peers("t")
        peer.read = trio.Event()
        await pubsub.publish("t", b"wakes its reader")
        ids = [await pubsub.publish("t", bytes(100_000) + b"%d" % number) for number in range(10)]
        await settled()
        queued = len(pubsub._links[peer.host.local_peer].outbox._messages)
        assert queued > 0
        await peer.say(encode_idontwant(ids))
        await settled()
        assert pubsub.metrics()["not_wanted_any_more"] == queued
        peer.read.set()
        await settled()
        assert len(peer.published) == 11 - queued
        # It left meanwhile: nothing is queued for it any more.
        await peer.host.disconnect(pubsub._running()[0].local_peer)
        await settled()
        assert pubsub.peers() == ()


# --- peers of others --------------------------------------------------------------------------------------------------


def record_of(host: Host, *, seq: int = 1) -> bytes:
    addrs = tuple([addr.decapsulate("/p2p/" + str(host.local_peer)) for addr in host.addrs])
    return PeerRecord(peer=host.local_peer, seq=seq, addrs=addrs).seal(host.private_key)


@asynccontextmanager
async def pruned_with(
    exchanged: list[Exchanged], *, strangers: int = 1
) -> AsyncIterator[tuple[Host, Pubsub, list[Host]]]:
    """A host that was pruned by a peer it believes, which proposes others."""

    def make() -> Pubsub:
        return gossipsub(thresholds=ScoreThresholds(accept_exchange=0.0))

    async with raw_peers(protocol=MESHSUB_12, make=make) as (victim, pubsub, _, (peer,)):
        assert peer.network is not None
        async with open_memory_host(peer.network, name="stranger") as stranger:
            if not exchanged:
                exchanged = [Exchanged(stranger.local_peer, record_of(stranger))]
            await peer.subscribe("t")
            await peer.say(encode_prune(Prune("t", 60.0, tuple(exchanged))))
            await settled()
            yield victim, pubsub, [stranger]


async def test_g11_3_a_proposed_peer_is_connected_to() -> None:
    async with pruned_with([]) as (victim, pubsub, (stranger,)):
        await until(lambda: victim.connections(stranger.local_peer))
        assert pubsub.metrics()["connected_to_wanted"] == 1


async def test_g11_3_records_are_verified() -> None:
    key, other = seeded_key("proposed"), seeded_key("other")
    peer, signer = PeerId.from_key(key.public_key), PeerId.from_key(other.public_key)
    of_somebody_else = PeerRecord(peer=signer, seq=1, addrs=()).seal(other)
    broken = bytearray(PeerRecord(peer=peer, seq=1, addrs=()).seal(key))
    broken[-1] ^= 1
    proposed = [Exchanged(peer, of_somebody_else), Exchanged(peer, bytes(broken)), Exchanged(peer, b"junk")]
    async with pruned_with(proposed) as (victim, pubsub, _):
        assert pubsub.metrics()["bad_peer_record"] == 3
        assert "connected_to_wanted" not in pubsub.metrics()
        assert not victim.connections(peer)


async def test_a_proposed_peer_that_nobody_can_reach() -> None:
    peer = PeerId.from_key(seeded_key("proposed").public_key)
    async with pruned_with([Exchanged(peer)]) as (_, pubsub, _):
        assert pubsub.metrics()["connects_failed"] == 1


async def test_only_so_many_attempts_at_a_time() -> None:
    async with raw_peers(protocol=MESHSUB_12) as (victim, pubsub, _, _):
        strangers = [PeerId.from_key(seeded_key(f"{number}").public_key) for number in range(MAX_CONNECTS + 5)]
        pubsub._perform([Connect(peer) for peer in (*strangers[:3], *strangers, victim.local_peer)])
        assert pubsub.metrics()["connects_left_out"] == 5
        await settled()
        assert not pubsub._connector._under_way


async def test_g11_3_records_go_with_a_prune() -> None:
    """Of those whose record is known: without one, nobody would believe it."""
    async with raw_peers(3, lambda: gossipsub(exchange=True), protocol=MESHSUB_12) as (victim, _, _, peers):
        for peer in peers:
            await peer.subscribe("t")
        await settled()
        known = peers[1].host
        victim.peerstore.add_envelope(record_of(known), ttl=1000.0)
        await peers[0].say(encode_prune(Prune("t", 60.0)))
        await peers[0].say(encode_graft("t"))  # in back-off: pruned without proposals
        await settled()
        assert peers[0].control.prune == [Prune("t", 60.0)]


async def test_g11_13_direct_peers_are_connected_to() -> None:
    async with memory_network(1) as hosts:
        target = hosts[0]

        def make() -> Pubsub:
            return gossipsub(direct_peers=(target.local_peer,))

        async with open_memory_host(hosts.network, name="other", services=[make]) as host:
            host.peerstore.add_addrs(target.local_peer, [target.addrs[0]], ttl=1000.0)
            await until(lambda: host.connections(target.local_peer))


# --- nothing is lost silently -----------------------------------------------------------------------------------------


async def test_g10_publishing_tells_when_nobody_takes_it() -> None:
    config = PubsubConfig(publish_patience=0.5)
    async with raw_peers(2, lambda: Pubsub(config=config), protocol=MESHSUB_12) as (_, pubsub, _, (slow, other)):
        await slow.subscribe("t")
        await pubsub.wait_for_peers("t")
        slow.read = trio.Event()
        await pubsub.publish("t", b"wakes its reader")
        with pytest.raises(PeersTooSlow) as caught:
            for _ in range(200):
                await pubsub.publish("t", bytes(100_000))
        assert (caught.value.topic, caught.value.peers) == ("t", 1)
        assert "none of 1 peers" in str(caught.value)
        assert caught.value.message_id in pubsub._router._cache  # type: ignore[attr-defined]
        # With one that reads it is no error: the slow one may ask for it later.
        await other.subscribe("t")
        await pubsub.wait_for_peers("t", 2)
        await pubsub.publish("t", bytes(100_000))
        assert pubsub.metrics()["dropped_outbound"] == 2


async def received(messages: Messages, count: int) -> list[bytes]:
    with trio.fail_after(60):
        return [(await messages.receive()).data for _ in range(count)]


@pytest.mark.parametrize("size", [10, 50_000])
async def test_a_host_that_closes_right_after_publishing(size: int) -> None:
    """All it has published arrives."""
    ours, theirs = Pubsub(), Pubsub()
    data = [b"%d " % number + bytes(size) for number in range(100)]
    async with memory_network(1, services=[lambda: theirs]) as hosts, theirs.subscribe("t") as messages:
        async with open_memory_host(hosts.network, name="publisher", services=[lambda: ours]) as host:
            await host.connect(hosts[0].addrs[0])
            await ours.wait_for_peers("t")
            for item in data:
                await ours.publish("t", item)
        assert await received(messages, 100) == data
        await settled()
        assert theirs.peers() == ()


async def test_a_farewell_is_short() -> None:
    """A peer that does not read cannot keep the host from closing."""
    ours = Pubsub()
    async with memory_network(1) as hosts:
        peer = RawPeer(hosts[0], hosts[0], MESHSUB_12)
        peer.read = trio.Event()
        async with open_memory_host(hosts.network, name="publisher", services=[lambda: ours]) as host:
            await host.connect(hosts[0].addrs[0])
            await settled()
            peer.victim = host
            await peer.subscribe("t")
            await ours.wait_for_peers("t")
            for _ in range(20):
                await ours.publish("t", bytes(100_000))
            started = trio.current_time()
        assert trio.current_time() - started <= 2 * FAREWELL
        peer.read.set()


async def test_a_peer_that_comes_back_before_the_last_of_it_was_read() -> None:
    """What it sent before it left still counts, and afterwards it is a peer again."""
    gate = trio.Event()

    async def slow(message: Message) -> Verdict:
        await gate.wait()
        return Verdict.ACCEPT

    def make() -> Pubsub:
        pubsub = Pubsub(config=PubsubConfig(validations_per_peer=1))
        pubsub.set_validator("t", slow, timeout=100.0)
        return pubsub

    async with raw_peers(make=make, protocol=MESHSUB_12) as (victim, pubsub, messages, (peer,)):
        assert messages is not None
        await peer.subscribe("t")
        await pubsub.wait_for_peers("t")
        await peer.send_bytes(b"".join([rpc_of(peer.signed(b"%d" % number)) for number in range(4)]))
        await settled()
        await peer.host.disconnect(victim.local_peer)
        await settled()
        assert pubsub.peers() == (peer.host.local_peer,)
        await peer.host.connect(victim.addrs[0])
        await settled()
        gate.set()
        assert await received(messages, 4) == [b"0", b"1", b"2", b"3"]
        await until(lambda: len(peer.inbound) == 2)
        peer.stream = None
        await peer.subscribe("t")
        await pubsub.wait_for_peers("t")


async def test_a_stream_that_is_opened_during_the_farewell() -> None:
    """It is refused: whoever comes now would keep the host from closing."""
    ours = Pubsub()
    async with memory_network(2) as hosts, trio.open_nursery() as nursery:
        slow, newcomer = [RawPeer(host, host, MESHSUB_12) for host in hosts]
        slow.read = trio.Event()
        newcomer.registration.__exit__(None, None, None)
        async with open_memory_host(hosts.network, name="publisher", services=[lambda: ours]) as host:
            for peer in (slow, newcomer):
                await peer.host.connect(host.addrs[0])
                peer.victim = host
            await settled()

            async def come() -> None:
                await trio.sleep(FAREWELL / 2)
                newcomer.registration = newcomer.host.handle(MESHSUB_12, newcomer.serve)
                with pytest.raises((StreamReset, ConnectionClosed)):
                    await (await newcomer.open()).receive_some()

            nursery.start_soon(come)
            started = trio.current_time()
        assert trio.current_time() - started <= 2 * FAREWELL
        slow.read.set()
