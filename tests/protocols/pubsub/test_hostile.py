"""Pubsub with peers that break the rules, and consumers that are slow: PS10, cases G1, G6, G7, G10."""

from __future__ import annotations

import pytest
import trio

from libp2p.errors import NegotiationError, StreamReset
from libp2p.peer_id import PeerId
from libp2p.protocols.pubsub import (
    MESHSUB_12,
    Fault,
    Message,
    Messages,
    Pubsub,
    PubsubConfig,
    Verdict,
)
from libp2p.protocols.pubsub._codec import decode_message, encode_message
from libp2p.protocols.pubsub._signing import Signer
from libp2p.protocols.pubsub._subscriber import Subscribers
from libp2p.testing.keys import seeded_key
from libp2p.wire.framing import frame
from tests.protocols.pubsub.networks import raw_peers, rpc_of, subscribed, unsigned
from tests.protocols.waiting import settled, until

PAIR = [(0, 1)]


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        frame(b"\x0a"),
        b"\xff\xff\xff\x7f",  # a length of 256 MiB
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
        frame(b"\x0a\x06\x08\x01\x12\x02tt" * 5001),
        frame(b"\x1a\x81\x80\x01" + bytes(16 * 1024 + 1)),
    ],
    ids=["malformed", "long", "endless", "entries", "control"],
)
async def test_g1_ps10_the_stream_of_who_breaks_the_rules_is_reset(data: bytes) -> None:
    async with raw_peers() as (victim, pubsub, messages, (peer,)):
        assert messages is not None
        stream = await peer.open()
        with pytest.raises((StreamReset, NegotiationError)):
            await peer.send_bytes(data)
            await stream.receive_some()
        assert victim.connections(peer.host.local_peer)
        await peer.open()
        await peer.publish(peer.signed(b"back"))
        assert (await messages.receive()).data == b"back"
        assert pubsub.peers() == (peer.host.local_peer,)


async def test_g7_copies_of_what_is_wrong_are_held_against_everybody_who_sends_them() -> None:
    async with raw_peers(2, protocol=MESHSUB_12) as (_, pubsub, _, peers):
        forged = bytearray(peers[0].signed(b"forged"))
        forged[-1] ^= 1
        for peer in peers:
            await peer.publish(bytes(forged))
            await settled()
        assert pubsub.metrics()["bad_signature"] == 2
        assert [pubsub.scores()[peer.host.local_peer] < 0 for peer in peers] == [True, True]


async def test_what_is_known_by_another_id_is_another_message() -> None:
    async with raw_peers() as (_, pubsub, messages, (peer,)):
        assert messages is not None
        raw = peer.signed(b"x")
        for message_id in (b"one", b"two"):

            def identify(_: Message, found: bytes = message_id) -> bytes:
                return found

            pubsub.set_message_id("t", identify)
            await peer.publish(raw, raw)
            assert (await messages.receive()).id == message_id
        await settled()
        assert pubsub.metrics()["duplicates"] == 2


async def test_copies_of_messages_of_a_topic_that_was_left_do_not_count() -> None:
    async with raw_peers(topic=None) as (_, pubsub, _, (peer,)):
        raw = peer.signed(b"x")
        async with pubsub.subscribe("t") as messages:
            await peer.publish(raw)
            await messages.receive()
        await peer.publish(raw)
        await settled()
        assert pubsub.metrics().get("duplicates") is None
        assert pubsub.metrics()["not_subscribed"] == 1


async def test_g7_what_is_wrong_is_dropped_and_counted() -> None:
    async with raw_peers(2) as (victim, pubsub, messages, (peer, other)):
        assert messages is not None
        for raw in (peer, other):
            await raw.subscribe("t")
        await pubsub.wait_for_peers("t", 2)
        good = peer.signed(b"good")
        forged = bytearray(peer.signed(b"forged"))
        forged[-1] ^= 1
        ours = encode_message(topic="t", data=b"d", author=bytes(victim.local_peer), seqno=bytes(8))
        await peer.publish(
            unsigned(b"x"), bytes(forged), ours, b"\x00", peer.signed(b"x", "not subscribed"), good, good
        )
        assert (await messages.receive()).data == b"good"
        await settled()
        assert other.published == [good]
        assert pubsub.metrics() == {
            "missing_signature": 1,
            "bad_signature": 1,
            "self_origin": 1,
            "malformed": 1,
            "not_subscribed": 1,
            "duplicates": 1,
            "accept": 1,
            "delivered": 1,
        }


async def test_g7_a_forged_copy_does_not_keep_the_real_one_out() -> None:
    async with raw_peers() as (_, pubsub, messages, (peer,)):
        assert messages is not None
        good = peer.signed(b"good")
        forged = bytearray(good)
        forged[-1] ^= 1
        await peer.publish(bytes(forged), good)
        assert (await messages.receive()).raw == good
        assert pubsub.metrics()["bad_signature"] == 1


@pytest.mark.parametrize("packed", [True, False], ids=["in one RPC", "in an RPC each"])
@pytest.mark.parametrize(("forged", "most"), [(True, 64), (False, 1)], ids=["forged", "good"])
async def test_g6_a_thousand_copies(forged: bool, most: int, packed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what is forged so many are looked at as come at once, of what is good one."""
    checked: list[Message] = []
    check = Signer.check

    def counting(signer: Signer, message: Message) -> Fault | None:
        checked.append(message)
        return check(signer, message)

    monkeypatch.setattr(Signer, "check", counting)
    async with raw_peers() as (_, pubsub, _, (peer,)):
        raw = bytearray(peer.signed(b"x"))
        raw[-1] ^= forged
        await peer.send_bytes(rpc_of(*[bytes(raw)] * 1000) if packed else rpc_of(bytes(raw)) * 1000)
        await settled()
        metrics = pubsub.metrics()
        assert 0 < len(checked) <= most
        assert (metrics.get("graylisted", 0) > 0) == forged
        assert metrics.get("duplicates", 0) == (0 if forged else 999)


# --- slow consumers (case G10) ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("attackers", [1, 10, pytest.param(50, marks=pytest.mark.bar_n)])
async def test_g6_floods_of_bad_signatures(attackers: int) -> None:
    """A few of them are looked at for each attacker; then nothing of it is heard, and the honest one always is."""
    async with raw_peers(attackers + 1) as (_, pubsub, messages, (honest, *liars)):
        assert messages is not None
        for number in range(30):
            forged = [bytearray(liar.signed(b"%d" % number)) for liar in liars]
            for liar, raw in zip(liars, forged, strict=True):
                raw[-1] ^= 1
                await liar.publish(*[bytes(raw)] * 10)
            await honest.publish(honest.signed(b"%d" % number))
            assert (await messages.receive()).data == b"%d" % number
        metrics, scores = pubsub.metrics(), pubsub.scores()
        assert metrics["bad_signature"] <= 20 * attackers
        assert metrics["graylisted"] >= 25 * attackers
        assert all(scores[liar.host.local_peer] < -80 for liar in liars)
        assert scores[honest.host.local_peer] > 0


async def test_g10_a_peer_that_does_not_read_holds_up_nobody_for_long() -> None:
    config = PubsubConfig(publish_patience=1.0)
    async with raw_peers(3, lambda: Pubsub(config=config)) as (_, pubsub, _, (slow, *quick)):
        for peer in (slow, *quick):
            await peer.subscribe("t")
        await pubsub.wait_for_peers("t", 3)
        slow.read = trio.Event()
        await pubsub.publish("t", b"wakes its reader")
        started = trio.current_time()
        for _ in range(120):
            await pubsub.publish("t", bytes(100_000))
        assert trio.current_time() - started == pytest.approx(config.publish_patience, abs=0.5)
        await until(lambda: [len(peer.published) for peer in quick] == [121, 121])
        dropped = pubsub.metrics()["dropped_outbound"]
        assert 0 < dropped < 120
        outbox = pubsub._links[slow.host.local_peer].outbox
        assert outbox.stalled
        assert outbox._message_bytes <= config.queue_bytes
        assert len(outbox._messages) <= config.queue_messages
        slow.read.set()
        await until(lambda: len(slow.published) == 121 - dropped)
        await pubsub.publish("t", b"it takes messages again")
        await until(lambda: len(slow.published) == 122 - dropped)


async def test_g10_forwarding_drops_for_a_peer_that_does_not_read() -> None:
    async with raw_peers(3) as (_, pubsub, messages, (source, slow, quick)):
        assert messages is not None
        for peer in (slow, quick):
            await peer.subscribe("t")
        await pubsub.wait_for_peers("t", 2)
        slow.read = trio.Event()
        for number in range(200):
            await source.publish(source.signed(bytes(50_000) + b"%d" % number))
        await until(lambda: len(quick.published) == 200)
        assert pubsub.metrics()["dropped_outbound"] > 100
        slow.read.set()
        await until(lambda: len(slow.published) == 200 - pubsub.metrics()["dropped_outbound"])


async def test_g10_a_subscriber_that_does_not_receive() -> None:
    config = PubsubConfig(subscriber_messages=10)
    async with subscribed(PAIR, lambda: Pubsub(config=config)) as net, net.pubsubs[1].subscribe("t") as quick:
        for number in range(30):
            await net.pubsubs[0].publish("t", b"%d" % number)
            assert (await quick.receive()).data == b"%d" % number
        slow = net.messages[1]
        assert slow.lost == net.pubsubs[1].metrics()["lost"] == 20
        assert (await slow.receive()).data == b"20"


@pytest.mark.parametrize("is_async", [False, True], ids=["checked at once", "checked by tasks"])
async def test_g10_a_burst_is_not_lost_by_a_subscriber_that_runs(is_async: bool) -> None:
    """Messages are checked several in a turn; whoever takes one in two turns or three must get all."""

    async def accept(_: Message) -> Verdict:
        await trio.lowlevel.checkpoint()
        return Verdict.ACCEPT

    config = PubsubConfig(subscriber_messages=100)  # half of it is more than may be validated at a time
    async with raw_peers(make=lambda: Pubsub(config=config)) as (_, pubsub, messages, (source,)):
        assert messages is not None
        if is_async:
            pubsub.set_validator("t", accept)
        raws = [source.signed(b"%d" % number) for number in range(500)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(source.publish, *raws)
            for _ in range(500):
                await messages.receive()
                await trio.lowlevel.checkpoint()
        assert messages.lost == 0
        assert "lost" not in pubsub.metrics()


async def test_g10_a_subscriber_that_is_idle_is_waited_for_once() -> None:
    held = Subscribers()
    slow = Messages("t", own=True, max_messages=4, max_bytes=1000)
    held.add(slow)
    raw = decode_message(encode_message(topic="t", data=b""), PeerId.from_key(seeded_key("a").public_key))
    for _ in range(3):
        held.deliver(raw, own=False)
    assert held.behind
    await held.let_catch_up()
    held.deliver(raw, own=False)
    assert not held.behind
    slow.receive_nowait()
    held.deliver(raw, own=False)
    assert held.behind
    held.remove(slow)
    assert not held.behind


async def test_g10_a_stream_that_is_reset_during_a_fan_out() -> None:
    async with raw_peers(50) as (_, pubsub, _, peers):
        for peer in peers:
            await peer.subscribe("t")
        await pubsub.wait_for_peers("t", 50)
        for number in range(20):
            if number == 10:
                peers[3].inbound[-1].reset()
            await pubsub.publish("t", b"%d" % number)
        await trio.sleep(1)
        for index, peer in enumerate(peers):
            data = [decode_message(raw, peer.host.local_peer).data for raw in peer.published]
            if index != 3:
                assert data == [b"%d" % number for number in range(20)]
            assert data[-1] == b"19"


async def test_frames_in_pieces_and_many_in_one() -> None:
    async with raw_peers() as (_, _, messages, (peer,)):
        assert messages is not None
        raws = [peer.signed(b"%d" % number) for number in range(6)]
        for byte in rpc_of(raws[0]):
            await peer.send_bytes(bytes((byte,)))
        await peer.send_bytes(b"".join(map(rpc_of, raws[1:4])) + rpc_of(*raws[4:]))
        assert [(await messages.receive()).data for _ in range(6)] == [b"%d" % number for number in range(6)]
