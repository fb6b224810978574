"""Pubsub between whole hosts: requirements PS1 to PS12, FS1, case G1."""

from __future__ import annotations

import hashlib

import pytest
import trio

from libp2p.abc import Stream
from libp2p.errors import NegotiationError, ServiceError, StreamReset
from libp2p.events import PeerDisconnected
from libp2p.protocols.pubsub import (
    Message,
    Messages,
    MessageTooLarge,
    NoPeers,
    Pubsub,
    PubsubConfig,
    PubsubError,
    SignaturePolicy,
    TopicPeerJoined,
    TopicPeerLeft,
)
from libp2p.protocols.pubsub._codec import MessageId, Rpc, Subscription
from libp2p.protocols.pubsub._router import Fault
from libp2p.protocols.pubsub._signing import Signer
from libp2p.testing import memory_network
from tests.protocols.pubsub.networks import Services, raw_peers, rpc_of, subscribed
from tests.protocols.waiting import settled

PAIR = [(0, 1)]
LINE = [(0, 1), (1, 2), (2, 3), (3, 4)]
RING = [*LINE, (4, 0)]


# --- who gets what ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("links", [LINE, RING], ids=["line", "ring"])
async def test_fs1_five_nodes(links: list[tuple[int, int]]) -> None:
    async with subscribed(links) as net:
        for number in range(3):
            message_id = await net.pubsubs[0].publish("t", b"%d" % number)
            for messages in net.messages[1:]:
                message = await messages.receive()
                assert message.id == message_id
                assert message.data == b"%d" % number
                assert message.author == net.hosts[0].local_peer
        await settled()
        for messages in net.messages:
            with pytest.raises(trio.WouldBlock):
                messages.receive_nowait()
        assert [pubsub.metrics().get("dropped_outbound") for pubsub in net.pubsubs] == [None] * 5


async def test_fs1_a_peer_that_is_not_subscribed_gets_nothing() -> None:
    async with raw_peers(3) as (_, pubsub, messages, (one, two, three)):
        assert messages is not None
        for peer, topic in ((one, "t"), (two, "t"), (three, "other")):
            await peer.subscribe(topic)
        raw = one.signed(b"x")
        await one.publish(raw)
        assert (await messages.receive()).received_from == one.host.local_peer
        await settled()
        assert two.published == [raw]  # byte for byte
        assert one.published == three.published == []
        await three.publish(raw)
        await settled()
        assert pubsub.metrics()["duplicates"] == 1


async def test_ps12_the_author_does_not_get_its_own_back() -> None:
    async with raw_peers(2) as (_, _, messages, (author, forwarder)):
        assert messages is not None
        for peer in (author, forwarder):
            await peer.subscribe("t")
        await forwarder.publish(author.signed(b"x"))
        await messages.receive()
        await settled()
        assert author.published == []


async def test_who_sends_a_message_in_the_same_moment_does_not_get_it() -> None:
    async with raw_peers(3) as (_, pubsub, messages, (author, *peers)):
        assert messages is not None
        for peer in peers:
            await peer.subscribe("t")
        await pubsub.wait_for_peers("t", 2)
        raw = author.signed(b"x")
        for peer in peers:
            assert peer.stream is not None
            peer.stream.send_nowait(rpc_of(raw))
        await settled()
        assert messages.receive_nowait().data == b"x"
        assert [peer.published for peer in peers] == [[], []]
        assert pubsub.metrics()["duplicates"] == pubsub.metrics()["not_wanted_any_more"] == 1


async def test_a_copy_that_comes_while_others_are_checked_is_not_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[MessageId] = []
    check = Signer.check

    def counting(signer: Signer, message: Message) -> Fault | None:
        checked.append(message.id)
        return check(signer, message)

    monkeypatch.setattr(Signer, "check", counting)
    async with raw_peers(2) as (_, pubsub, _, peers):
        raws = [peers[0].signed(bytes((number,))) for number in range(20)]
        for peer in peers:
            (await peer.open()).send_nowait(rpc_of(*raws))
        await settled()
        assert len(checked) == 20
        assert (pubsub.metrics()["delivered"], pubsub.metrics()["duplicates"]) == (20, 20)


async def test_ps9_what_is_published_twice_arrives_twice() -> None:
    async with subscribed(PAIR) as net:
        ids = {await net.pubsubs[0].publish("t", b"same") for _ in range(3)}
        assert len(ids) == 3
        assert [(await net.messages[1].receive()).data for _ in range(3)] == [b"same"] * 3


async def test_several_subscriptions_of_one_host() -> None:
    async with subscribed(PAIR) as net:
        a, b = net.pubsubs
        async with b.subscribe("t") as second, a.subscribe("t", own=True) as echo:
            await a.publish("t", b"x")
            for messages in (net.messages[1], second, echo):
                assert (await messages.receive()).data == b"x"
        assert (await echo_after_leaving(echo)) is None
        with pytest.raises(trio.WouldBlock):
            net.messages[0].receive_nowait()
        await a.publish("t", b"y")
        assert (await net.messages[1].receive()).data == b"y"


async def echo_after_leaving(messages: Messages) -> Message | None:
    try:
        return await messages.receive()
    except trio.ClosedResourceError:
        return None


async def test_topics_are_apart() -> None:
    async with subscribed(PAIR) as net:
        a, b = net.pubsubs
        async with b.subscribe("u") as other:
            await a.wait_for_peers("u")
            await a.publish("u", b"x")
            assert (await other.receive()).topic == "u"
            with pytest.raises(trio.WouldBlock):
                net.messages[1].receive_nowait()
            assert set(b.topics()) == {"t", "u"}
        await settled()
        assert a.peers("u") == ()
        assert a.peers() == (net.hosts[1].local_peer,)


# --- subscriptions ----------------------------------------------------------------------------------------------------


async def test_ps3_the_whole_list_then_changes() -> None:
    async with raw_peers(topic="t") as (_, pubsub, _, (peer,)):
        assert peer.announced == [("t", True)]
        async with pubsub.subscribe("u"), pubsub.subscribe("u"), pubsub.subscribe("t"):
            await settled()
            assert peer.announced == [("t", True), ("u", True)]
        await settled()
        assert peer.announced == [("t", True), ("u", True), ("u", False)]
        assert [len(rpc.publish) for rpc in peer.received] == [0, 0, 0]


async def test_without_topics_nothing_is_sent() -> None:
    async with raw_peers(topic=None) as (_, _, _, (peer,)):
        assert peer.received == []
        assert len(peer.inbound) == 1


async def test_events() -> None:
    async with raw_peers() as (victim, pubsub, _, (peer,)):
        with victim.subscribe(TopicPeerJoined, TopicPeerLeft) as events:
            await peer.subscribe("t", "u")
            await peer.send(Rpc(subscriptions=(Subscription("u", False),)))
            who = peer.host.local_peer
            assert [await events.receive() for _ in range(3)] == [
                TopicPeerJoined(who, "t"),
                TopicPeerJoined(who, "u"),
                TopicPeerLeft(who, "u"),
            ]
            assert pubsub.peers("t") == (who,)
            await peer.host.disconnect(victim.local_peer)
            assert await events.receive() == TopicPeerLeft(who, "t")
            assert pubsub.peers() == ()


async def test_connections_from_before_the_service() -> None:
    async with memory_network(2, connect="full") as (a, b):
        one, two = Pubsub(), Pubsub()
        async with trio.open_nursery() as nursery:
            for host, pubsub in ((a, one), (b, two)):
                for protocol, handler in pubsub.handlers.items():
                    host.handle(protocol, handler)
                await settled()
                await nursery.start(pubsub.run, host)
            async with two.subscribe("t") as messages:
                await one.wait_for_peers("t")
                await one.publish("t", b"x")
                assert (await messages.receive()).data == b"x"
            nursery.cancel_scope.cancel()


async def test_g1_nothing_stays_of_a_peer() -> None:
    async with raw_peers() as (victim, pubsub, _, (peer,)):
        await peer.subscribe(*[f"topic {number}" for number in range(200)])
        await settled()
        assert pubsub.metrics()["subscriptions_left_out"] == 100
        await peer.host.disconnect(victim.local_peer)
        await settled()
        assert not pubsub._links
        assert not pubsub._router._topics._by_topic  # type: ignore[attr-defined]


# --- streams ----------------------------------------------------------------------------------------------------------


async def test_ps1_one_stream_each_way() -> None:
    async with raw_peers() as (_, pubsub, messages, (peer,)):
        assert messages is not None
        stream = await peer.open()
        for data in (b"x", b"y"):
            await peer.publish(peer.signed(data))
            assert (await messages.receive()).data == data
        await pubsub.publish("t", b"z", require_peers=False)
        await settled()
        assert len(peer.inbound) == 1
        with trio.move_on_after(1000) as scope:
            await stream.receive_some()  # neither written to nor closed
        assert scope.cancelled_caught


async def test_a_second_inbound_stream_replaces_the_first() -> None:
    async with raw_peers() as (_, _, messages, (peer,)):
        assert messages is not None
        first = await peer.open()
        await peer.publish(peer.signed(b"one"))
        await messages.receive()
        await peer.open()
        await peer.publish(peer.signed(b"two"))
        assert (await messages.receive()).data == b"two"
        with pytest.raises(StreamReset):
            await first.receive_some()


@pytest.mark.parametrize("how", ["close", "reset", "write"])
async def test_a_lost_outbound_stream_is_opened_again(how: str) -> None:
    async with raw_peers() as (_, pubsub, _, (peer,)):
        await peer.subscribe("t")
        for attempt in range(3):
            stream = peer.inbound[-1]
            if how == "write":
                await stream.send_all(b"x")
            elif how == "close":
                await stream.aclose()
            else:
                stream.reset()
            await trio.sleep(100)  # longer than any delay
            assert len(peer.inbound) == attempt + 2
        assert peer.announced == [("t", True)] * 4
        await pubsub.publish("t", b"x", require_peers=True)
        await settled()
        assert len(peer.published) == 1


async def test_only_so_many_attempts() -> None:
    async with raw_peers(connect=False) as (victim, pubsub, _, (peer,)):
        opened = []

        async def refuse(stream: Stream) -> None:
            opened.append(trio.current_time())
            stream.reset()

        peer.handler = refuse
        await peer.host.connect(victim.addrs[0])
        await trio.sleep(1000)
        assert 1 <= len(opened) <= 4
        assert pubsub.peers() == ()


async def test_after_a_while_attempts_are_counted_anew() -> None:
    async with raw_peers() as (_, pubsub, _, (peer,)):
        for _ in range(10):
            await trio.sleep(100)
            peer.inbound[-1].reset()
        await trio.sleep(100)
        assert pubsub.peers() == (peer.host.local_peer,)


async def test_a_peer_that_does_not_speak_pubsub() -> None:
    async with raw_peers(connect=False) as (victim, pubsub, _, (peer,)):
        peer.registration.__exit__(None, None, None)
        await peer.host.connect(victim.addrs[0])
        await settled()
        assert pubsub.peers() == ()


async def test_a_peer_that_stops_to_speak_it() -> None:
    async with raw_peers() as (_, pubsub, _, (peer,)):
        assert pubsub.peers() == (peer.host.local_peer,)
        peer.registration.__exit__(None, None, None)
        peer.inbound[-1].reset()
        await trio.sleep(1000)
        assert pubsub.peers() == ()


async def test_a_peer_that_cannot_be_answered_is_not_listened_to() -> None:
    async with raw_peers(connect=False) as (victim, pubsub, messages, (peer,)):
        assert messages is not None
        peer.registration.__exit__(None, None, None)
        await peer.host.connect(victim.addrs[0])
        with pytest.raises((StreamReset, NegotiationError)):
            await peer.publish(peer.signed(b"x"))
            await peer.stream.receive_some()  # type: ignore[union-attr]
        assert pubsub.peers() == ()
        with pytest.raises(trio.WouldBlock):
            messages.receive_nowait()


async def test_a_peer_that_leaves_with_messages_under_way() -> None:
    async with raw_peers() as (victim, pubsub, messages, (peer,)):
        assert messages is not None
        raws = [peer.signed(b"%d" % number) for number in range(200)]
        await peer.send_bytes(rpc_of(*raws))
        while not pubsub.metrics().get("delivered"):
            await trio.lowlevel.checkpoint()
        await victim.disconnect(peer.host.local_peer)
        await settled()
        assert pubsub.metrics()["delivered"] < len(raws)


async def test_reconnecting() -> None:
    async with subscribed(PAIR) as net:
        (a, b), (one, two) = net.hosts, net.pubsubs
        for _ in range(2):
            with a.subscribe(PeerDisconnected) as events:
                await b.disconnect(a.local_peer)
                await events.receive()
            await settled()
            assert one.peers("t") == two.peers("t") == ()
            await a.connect(b.addrs[0])
            await one.wait_for_peers("t")
            await one.publish("t", b"again")
            assert (await net.messages[1].receive()).data == b"again"


# --- policies and ids -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", list(SignaturePolicy))
async def test_ps4_hosts_of_one_policy_understand_each_other(policy: SignaturePolicy) -> None:
    async with subscribed([(0, 1), (1, 2)], lambda: Pubsub(signature_policy=policy)) as net:
        for number in range(20):
            message_id = await net.pubsubs[0].publish("t", b"%d" % number)
            for messages in net.messages[1:]:
                message = await messages.receive()
                assert message.id == message_id
                assert message.author == (net.hosts[0].local_peer if policy.signs else None)


async def test_ps4_without_authors_the_data_makes_the_message() -> None:
    async with subscribed(PAIR, lambda: Pubsub(signature_policy=SignaturePolicy.STRICT_NO_SIGN)) as net:
        for _ in range(2):
            assert await net.pubsubs[0].publish("t", b"same") == hashlib.sha256(b"same").digest()
            await settled()
        await net.messages[1].receive()
        assert net.pubsubs[1].metrics()["duplicates"] == 1


async def test_ps9_ids_by_topic() -> None:
    def by_data(message: Message) -> bytes:
        assert message.id  # the default
        return b"id " + message.data

    async with subscribed(PAIR) as net:
        for pubsub in net.pubsubs:
            pubsub.set_message_id("t", by_data)
        assert await net.pubsubs[0].publish("t", b"x") == b"id x"
        assert (await net.messages[1].receive()).id == b"id x"
        await net.pubsubs[0].publish("t", b"x")
        await settled()
        assert net.pubsubs[1].metrics()["duplicates"] == 1


async def test_ps9_an_id_for_all_topics() -> None:
    async with subscribed(PAIR, lambda: Pubsub(message_id=lambda message: message.data)) as net:
        assert await net.pubsubs[0].publish("t", b"x") == b"x"


# --- publishing -------------------------------------------------------------------------------------------------------


async def test_publishing_to_nobody() -> None:
    async with memory_network(1, services=[services := Services()]):
        (pubsub,) = services.made
        await pubsub.publish("t", b"x")
        assert pubsub.metrics() == {"published": 1, "published_to_nobody": 1}
        with pytest.raises(NoPeers, match="no peer of this host is subscribed to 't'") as caught:
            await pubsub.publish("t", b"x", require_peers=True)
        assert isinstance(caught.value, ServiceError)
        for nonsense in (pubsub.publish("", b""), pubsub.subscribe("").__aenter__()):
            with pytest.raises(ValueError, match="needs a name"):
                await nonsense


async def test_ps10_the_largest_message() -> None:
    async with subscribed(PAIR) as net:
        a, _ = net.pubsubs
        size = 1024 * 1024
        with pytest.raises(MessageTooLarge) as caught:
            await a.publish("t", bytes(size - 20))
        assert caught.value.limit == size
        assert isinstance(caught.value, PubsubError)
        assert "split it" in str(caught.value)
        with pytest.raises(MessageTooLarge):
            await a.publish("t", bytes(2 * size))
        largest = bytes(size - (caught.value.size - (size - 20)))
        await a.publish("t", largest)
        assert (await net.messages[1].receive()).data == largest


async def test_many_at_once() -> None:
    async with subscribed([(0, 1), (1, 2)]) as net:
        async with trio.open_nursery() as nursery:
            for number in range(500):
                nursery.start_soon(net.pubsubs[0].publish, "t", b"%d" % number)
        assert net.pubsubs[0].metrics() == {"published": 500}
        for messages in net.messages[1:]:
            assert {(await messages.receive()).data for _ in range(500)} == {b"%d" % number for number in range(500)}


async def test_before_and_after_the_host_runs() -> None:
    pubsub = Pubsub()
    for unused in (pubsub.publish("t", b""), pubsub.wait_for_peers("t"), pubsub.subscribe("t").__aenter__()):
        with pytest.raises(RuntimeError, match="not running"):
            await unused
    ended: list[Message] = []
    async with trio.open_nursery() as nursery, memory_network(1, services=[lambda: pubsub]):

        async def listen() -> None:
            async with pubsub.subscribe("t") as messages:
                ended.extend([message async for message in messages])

        async def wait() -> None:
            with pytest.raises(RuntimeError, match="not running"):
                await pubsub.wait_for_peers("t")

        nursery.start_soon(listen)
        nursery.start_soon(wait)
        await settled()
        assert pubsub.topics() == ("t",)
    assert ended == []


def test_bounds_are_positive() -> None:
    for wrong in ("queue_messages", "queue_bytes", "subscriber_messages", "validations_per_peer"):
        with pytest.raises(ValueError, match="positive"):
            PubsubConfig(**{wrong: 0})  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="positive"):
        PubsubConfig(publish_patience=-1)
