"""Gossipsub 1.3: what peers say of themselves, and messages in parts. Requirements G13.1 to G13.6."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest
import trio

from libp2p._util.contain import Containment
from libp2p.abc import ProtocolId
from libp2p.errors import DecodeError
from libp2p.pb import pubsub_pb2
from libp2p.peer_id import PeerId
from libp2p.protocols.pubsub import (
    MESHSUB_12,
    MESHSUB_13,
    Floodsub,
    Gossipsub,
    GossipsubConfig,
    PartialConfig,
    Parts,
    Pubsub,
    TopicScore,
    Verdict,
)
from libp2p.protocols.pubsub._codec import Rpc, Subscription, encode_rpc
from libp2p.protocols.pubsub._control import decode_control, encode_ihave
from libp2p.protocols.pubsub._extensions import (
    TEST_RPC,
    Extensions,
    PartialRpc,
    decode_extensions,
    decode_messages,
    encode_extensions,
    encode_partial,
)
from libp2p.protocols.pubsub._partial_channel import MAX_UPDATES, Contained
from libp2p.protocols.pubsub._router import Action, DeliverPartial, SendControl, SendExtension, SendHello
from libp2p.protocols.pubsub._score_config import PeerScoreConfig
from tests.protocols.pubsub.networks import raw_peers, subscribed
from tests.protocols.pubsub.parts import WHOLE, Eight, eight
from tests.protocols.pubsub.test_gossipsub import (
    PEERS,
    A,
    B,
    C,
    accept,
    beat,
    counts,
    join,
    message,
    receivers,
    router,
    sent,
)
from tests.protocols.waiting import settled, until

PARTIAL, BOTH = Extensions(partial=True), Extensions(partial=True, test=True)
ASKS = Subscription("t", True, requests_partial=True)
SENDS = Subscription("t", True, supports_partial=True)
PLAIN = Subscription("t", True)


def hello(gossip: Gossipsub, peer: PeerId, *said: Extensions, **fields: Any) -> list[Action]:
    control = b"".join(map(encode_extensions, said))
    return gossip.receive_rpc(peer, Rpc(control=control, **fields), (), 0.0)


def partial_router(peers: Sequence[PeerId] = (A,), change: Subscription = ASKS, **config: Any) -> Gossipsub:
    """A router that asks for parts of t, with ``peers`` that know parts and announced ``change``."""
    gossip = router(**config)
    gossip.open_partial("t", requests=True)
    gossip.subscribe("t", 0.0)
    for peer in peers:
        gossip.peer_joined(peer, MESHSUB_13, 0.0)
        hello(gossip, peer, PARTIAL, subscriptions=(change,))
    return gossip


def told(actions: Iterable[Action]) -> dict[PeerId, tuple[bytes, bytes]]:
    """Parts and metadata that are sent, by peer; each gets one at most."""
    found: dict[PeerId, tuple[bytes, bytes]] = {}
    for action in actions:
        if isinstance(action, SendExtension):
            rpc, _ = decode_messages(action.field)
            assert rpc is not None
            assert action.peer not in found
            found[action.peer] = (rpc.parts, rpc.metadata)
    return found


def say(gossip: Gossipsub, peer: PeerId, metadata: bytes = b"", parts: bytes = b"", **fields: Any) -> list[Action]:
    rpc = PartialRpc(**{"topic": "t", "group": b"g", "parts": parts, "metadata": metadata, **fields})
    return gossip.receive_rpc(peer, Rpc(extensions=encode_partial(rpc)), (), 0.0)


# --- on the wire ------------------------------------------------------------------------------------------------------


def test_g13_3_g13_4_bytes_are_those_of_the_schema() -> None:
    control = pubsub_pb2.ControlMessage()
    control.extensions.partialMessages = True
    control.extensions.testExtension = True
    assert encode_extensions(BOTH) == control.SerializeToString()
    rpc = pubsub_pb2.RPC()
    rpc.testExtension.SetInParent()
    assert rpc.SerializeToString() == TEST_RPC
    rpc.partial.topicID, rpc.partial.groupID = b"t", b"g"
    rpc.partial.partialMessage, rpc.partial.partsMetadata = b"parts", b"have"
    whole = encode_partial(PartialRpc(topic="t", group=b"g", parts=b"parts", metadata=b"have"))
    assert whole + TEST_RPC == rpc.SerializeToString()
    assert decode_messages(rpc.SerializeToString()) == (
        PartialRpc(topic="t", group=b"g", parts=b"parts", metadata=b"have"),
        True,
    )
    rpc = pubsub_pb2.RPC()
    rpc.subscriptions.add(subscribe=True, topicid="t", requestsPartial=True, supportsSendingPartial=True)
    asks = Subscription("t", True, requests_partial=True, supports_partial=True)
    assert encode_rpc(Rpc(subscriptions=(asks,))) == rpc.SerializeToString()


def test_g13_1_what_is_not_known_is_left_alone() -> None:
    control = pubsub_pb2.ControlMessage()
    control.extensions.MergeFromString(b"\x50\x01" + b"\x18\x01" + b"\x0a\x01x" + b"\x80\x80\x80\x02\x01")
    (said,) = decode_control(control.SerializeToString()).extensions
    assert decode_extensions(said) == PARTIAL
    assert decode_extensions(b"\x50\x00") == decode_extensions(b"") == Extensions()
    assert decode_messages(b"\x58\x01" + b"\x62\x01x") == (None, False)
    assert decode_messages(encode_partial(PartialRpc(topic="", group=b"g"))) == (None, False)
    assert decode_messages(b"\x52\x03\x0a\x01\xff") == (None, False)
    for malformed in (b"\x50", b"\x57\x00"):
        with pytest.raises(DecodeError):
            decode_extensions(malformed)
        with pytest.raises(DecodeError):
            decode_messages(b"\x52" + bytes((len(malformed),)) + malformed)


def test_g1_few_fields_are_looked_at() -> None:
    unknown = b"\x58\x01"
    assert decode_extensions(unknown * 63 + b"\x50\x01") == PARTIAL
    for decode in (decode_extensions, lambda data: decode_messages(b"\x52\x82\x01" + data)):
        with pytest.raises(DecodeError, match="64 fields"):
            decode(unknown * 65)


def test_a_field_that_comes_twice_is_joined() -> None:
    twice = encode_partial(PartialRpc(topic="t", group=b"g")) + encode_partial(PartialRpc(topic="u", group=b"h"))
    assert decode_messages(twice) == (PartialRpc(topic="u", group=b"h"), False)


# --- hello ------------------------------------------------------------------------------------------------------------


def test_g13_1_the_first_thing_on_a_stream() -> None:
    gossip = router()
    assert gossip.peer_joined(A, MESHSUB_13, 0.0) == [SendHello(A, encode_extensions(PARTIAL))]
    assert gossip.peer_joined(B, MESHSUB_12, 0.0) == []


def test_g13_1_said_again_it_is_a_misdeed() -> None:
    gossip = router()
    gossip.peer_joined(A, MESHSUB_13, 0.0)
    assert hello(gossip, A, PARTIAL) == []
    assert hello(gossip, A) == []
    for _ in range(3):
        assert counts(hello(gossip, A, PARTIAL)) == {"extensions_repeated": 1}
    assert gossip.scores(0.0)[A] < 0


def test_g13_1_later_than_first_it_is_a_misdeed_too() -> None:
    gossip = router(test_extension=True)
    gossip.peer_joined(A, MESHSUB_13, 0.0)
    assert hello(gossip, A, subscriptions=(PLAIN,)) != []
    assert hello(gossip, A, BOTH) != []
    assert hello(gossip, A) == []  # and does not count
    gossip.peer_began(A)
    assert hello(gossip, A, BOTH) == [SendExtension(A, TEST_RPC)]
    gossip.peer_began(B)  # which never joined


def test_g13_2_older_versions_have_no_extensions() -> None:
    gossip = router(test_extension=True)
    gossip.open_partial("t", requests=True)
    gossip.peer_joined(A, MESHSUB_12, 0.0)
    assert hello(gossip, A, BOTH) == []
    assert hello(gossip, A, BOTH) == []
    assert say(gossip, A, b"\x01") == []
    assert gossip.scores(0.0)[A] == 0


def test_g13_2_g13_3_the_test_extension() -> None:
    """Its message is sent once on each stream when both know it, and never otherwise."""
    gossip = router(test_extension=True)
    assert gossip.peer_joined(A, MESHSUB_13, 0.0) == [SendHello(A, encode_extensions(BOTH))]
    assert hello(gossip, A, Extensions(test=True)) == [SendExtension(A, TEST_RPC)]
    assert gossip.receive_rpc(A, Rpc(extensions=TEST_RPC), (), 0.0) != []
    # Our stream broke, and is there again.
    assert gossip.peer_joined(A, MESHSUB_13, 1.0)[1:] == [SendExtension(A, TEST_RPC)]
    gossip.peer_joined(B, MESHSUB_13, 0.0)
    assert hello(gossip, B, PARTIAL) == []
    ignorant = router()
    ignorant.peer_joined(A, MESHSUB_13, 0.0)
    assert hello(ignorant, A, BOTH) == []
    assert ignorant.receive_rpc(A, Rpc(extensions=TEST_RPC), (), 0.0) == []


def test_who_leaves_is_forgotten() -> None:
    gossip = partial_router()
    gossip.publish_partial("t", eight(b"g", 1), 0.0)
    gossip.peer_left(A, 0.0)
    assert gossip.publish_partial("t", eight(b"g", 1, 2), 0.0) == []
    gossip.peer_joined(A, MESHSUB_13, 0.0)
    assert hello(gossip, A, subscriptions=(ASKS,)) != []
    assert gossip.publish_partial("t", eight(b"g", 1, 2), 0.0) == []  # it does not know parts any more


# --- who gets parts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ours", [None, False, True], ids=["off", "sends", "asks"])
@pytest.mark.parametrize("theirs", [PLAIN, SENDS, ASKS], ids=["plain", "sends", "asks"])
def test_g13_5_who_gets_what(ours: bool | None, theirs: Subscription) -> None:
    """Parts for who asks, metadata where one of the two asks, whole messages for everybody else."""
    gossip = router(idontwant_size=1)
    if ours is not None:
        gossip.open_partial("t", requests=ours)
    gossip.subscribe("t", 0.0)
    for peer in (A, B):
        gossip.peer_joined(peer, MESHSUB_13, 0.0)
        hello(gossip, peer, PARTIAL, subscriptions=(theirs,))
    assert gossip.mesh("t") == (A, B)
    parts = ours is not None and theirs is ASKS
    item = message(1, A)
    assert receivers(accept(gossip, item)) == (set() if parts else {B})
    assert receivers(gossip.publish(message(2), 0.0)) == (set() if parts else {A, B})
    gossip.receive_rpc(A, Rpc(), [third := message(3, A)], 0.0)
    idontwant = {peer for peer, said in sent(gossip.authenticated(third, 0.0)).items() if said.idontwant}
    assert idontwant == (set() if ours and theirs is not PLAIN else {B})
    if ours is None:
        return
    first = told(gossip.publish_partial("t", eight(b"g", 1, eager=True), 0.0))
    if parts:
        assert first == {A: (b"\x01\x65", b"\x02"), B: (b"\x01\x65", b"\x02")}
    elif ours and theirs is SENDS:
        assert first == {A: (b"", b"\x02"), B: (b"", b"\x02")}
    else:
        assert first == {}


def test_g13_5_announcements() -> None:
    gossip = router()
    assert gossip.subscription("t") == PLAIN
    gossip.open_partial("t", requests=False)
    assert gossip.subscription("t") == SENDS
    gossip.open_partial("t", requests=True)
    assert gossip.subscription("t") == Subscription("t", True, requests_partial=True, supports_partial=True)
    gossip.close_partial("t")
    assert gossip.subscription("t") == PLAIN
    assert Floodsub().subscription("t") == PLAIN


def test_subscriptions_change() -> None:
    gossip = partial_router()
    assert receivers(gossip.publish(message(1), 0.0)) == set()
    gossip.receive_rpc(A, Rpc(subscriptions=(PLAIN,)), (), 0.0)
    assert receivers(gossip.publish(message(2), 0.0)) == {A}
    gossip.receive_rpc(A, Rpc(subscriptions=(ASKS,)), (), 0.0)
    assert receivers(gossip.publish(message(3), 0.0)) == set()
    gossip.receive_rpc(A, Rpc(subscriptions=(Subscription("t", False, requests_partial=True),)), (), 0.0)
    assert told(gossip.publish_partial("t", eight(b"g", 1), 0.0)) == {}


def test_subscriptions_beyond_the_bound_are_not_kept() -> None:
    gossip = partial_router(topics_per_peer=1)
    gossip.open_partial("u", requests=True)
    gossip.receive_rpc(A, Rpc(subscriptions=(Subscription("u", True, requests_partial=True),)), (), 0.0)
    assert told(gossip.publish_partial("u", eight(b"g", 1), 0.0)) == {}


def test_parts_to_a_topic_this_host_is_not_subscribed_to() -> None:
    """It tells what it has; who asks for it is answered, and it is nobody's mesh."""
    gossip = router()
    gossip.open_partial("t", requests=False)
    gossip.peer_joined(A, MESHSUB_13, 0.0)
    hello(gossip, A, PARTIAL, subscriptions=(ASKS,))
    assert told(gossip.publish_partial("t", eight(b"g", 1, 2), 0.0)) == {A: (b"", b"\x06")}
    assert told(say(gossip, A, b"\x02")) == {A: (b"\x02\x66", b"")}


def test_parts_from_who_is_not_subscribed() -> None:
    """It must hear what is wanted of it."""
    gossip = router()
    gossip.open_partial("t", requests=True)
    gossip.subscribe("t", 0.0)
    gossip.peer_joined(A, MESHSUB_13, 0.0)
    hello(gossip, A, PARTIAL)
    assert told(say(gossip, A, b"\xff")) == {}
    assert told(gossip.publish_partial("t", eight(), 0.0)) == {A: (b"", b"\x00")}


def test_parts_pushed_by_who_wants_to_hear_nothing() -> None:
    """It neither subscribed nor told what it has."""
    gossip = router()
    gossip.open_partial("t", requests=True)
    gossip.peer_joined(A, MESHSUB_13, 0.0)
    hello(gossip, A, PARTIAL)
    assert len(say(gossip, A, parts=b"\x01\x65")) == 1
    assert gossip.publish_partial("t", eight(b"g", 1), 0.0) == []


# --- parts ------------------------------------------------------------------------------------------------------------


def test_offer_request_answer() -> None:
    """Two hosts with halves of a message complete each other, and then are silent."""
    one, two = partial_router([B]), partial_router([A])
    mine, yours = eight(b"g", 0, 1, 2, 3), eight(b"g", 4, 5, 6, 7)
    on_the_way: list[tuple[Gossipsub, PeerId, Eight, Action]] = [
        *((two, A, yours, action) for action in one.publish_partial("t", mine, 0.0)),
        *((one, B, mine, action) for action in two.publish_partial("t", yours, 0.0)),
    ]
    count = 0
    while on_the_way:
        count += 1
        receiver, peer, has, action = on_the_way.pop(0)
        assert isinstance(action, SendExtension)
        other, other_peer, other_has = (one, B, mine) if receiver is two else (two, A, yours)
        answers = receiver.receive_rpc(peer, Rpc(extensions=action.field), (), 0.0)
        rpc, _ = decode_messages(action.field)
        assert rpc is not None
        assert answers[0] == DeliverPartial(peer, rpc)
        if has.add(rpc.parts):
            answers += receiver.publish_partial("t", has, 0.0)
        on_the_way += [(other, other_peer, other_has, item) for item in answers if isinstance(item, SendExtension)]
    assert mine.parts == yours.parts
    assert mine.bits == WHOLE
    assert count <= 6


def test_nothing_is_sent_twice() -> None:
    gossip = partial_router([A, B])
    has = eight(b"g", 1, eager=True)
    assert set(told(gossip.publish_partial("t", has, 0.0))) == {A, B}
    assert gossip.publish_partial("t", has, 0.0) == []
    has.add(b"\x02\x66")
    assert told(gossip.publish_partial("t", has, 0.0)) == {A: (b"\x02\x66", b"\x06"), B: (b"\x02\x66", b"\x06")}
    assert told(say(gossip, A, b"\x06")) == {}
    # What it says last counts, whatever was sent.
    assert told(say(gossip, A, b"\x02")) == {A: (b"\x02\x66", b"")}
    # On a new stream everything is told again.
    gossip.peer_joined(A, MESHSUB_13, 0.0)
    assert told(gossip.publish_partial("t", has, 0.0)) == {A: (b"\x01\x65\x02\x66", b"\x06")}


def test_peers_that_spoke_first_are_answered_when_the_message_is_there() -> None:
    gossip = partial_router([A])
    assert say(gossip, A, b"\x01") == [DeliverPartial(A, PartialRpc(topic="t", group=b"g", metadata=b"\x01"))]
    assert told(gossip.publish_partial("t", eight(b"g", 0, 1), 0.0)) == {A: (b"\x01\x65", b"\x03")}


def test_metadata_the_application_can_not_read_is_an_invalid_message() -> None:
    gossip = partial_router([A])
    say(gossip, A, b"two")
    assert counts(gossip.publish_partial("t", eight(b"g", 1), 0.0)) == {"partial_malformed": 1}
    assert gossip.scores(0.0)[A] < 0


def test_verdicts() -> None:
    score = PeerScoreConfig(topics={"t": TopicScore()})
    gossip = partial_router([A, B, C], score=score)
    for peer, verdict in ((A, Verdict.ACCEPT), (B, Verdict.REJECT), (C, Verdict.IGNORE)):
        gossip.judge_partial(peer, "t", verdict)
    scores = gossip.scores(0.0)
    assert scores[A] > 0 > scores[B]
    assert scores[C] == 0


def test_gossip_tells_metadata_instead_of_ids() -> None:
    """Once, to those that ask for parts; others are told of whole messages."""
    gossip = partial_router()
    gossip.publish_partial("t", eight(b"g", 1), 0.0)
    gossip.peer_joined(B, MESHSUB_13, 0.0)
    gossip.peer_joined(C, MESHSUB_13, 0.0)
    accept(gossip, message(1, A))
    for _ in range(3):  # so that they are not grafted
        gossip._score.penalize(B)
        gossip._backoff.add(C, "t", until=100.0)
    gossip._backoff.add(B, "t", until=100.0)
    hello(gossip, B, PARTIAL, subscriptions=(ASKS,))
    hello(gossip, C, PARTIAL, subscriptions=(SENDS,))
    gossip._score._records[B].misdeeds = 0.0
    actions = beat(gossip)
    assert told(actions) == {B: (b"", b"\x02")}
    assert {peer for peer, said in sent(actions).items() if said.ihave} == {C}
    assert told(beat(gossip, now=2.0)) == {}
    # And where there are no whole messages at all.
    say(gossip, B, b"\x08", group=b"theirs")
    assert told(beat(gossip, now=3.0)) == {}
    gossip.publish_partial("t", eight(b"h", 2), 3.0)
    assert told(beat(gossip, now=4.0)) == {B: (b"", b"\x04")}


# --- bounds -----------------------------------------------------------------------------------------------------------


def test_g13_6_groups_that_peers_speak_of_first() -> None:
    gossip = partial_router(PEERS[:3], partial=PartialConfig(groups_of_peer=2, groups_of_peers=3))

    def heard(peer: PeerId, group: bytes) -> bool:
        actions = say(gossip, peer, b"\x01", group=group)
        assert counts(actions) in ({}, {"partial_groups_left_out": 1})
        return any(isinstance(action, DeliverPartial) for action in actions)

    assert [heard(A, bytes((number,))) for number in range(3)] == [True, True, False]
    assert [heard(B, bytes((10 + number,))) for number in range(2)] == [True, False]
    assert heard(B, b"\x00")  # is there already
    gossip.publish_partial("t", eight(b"\x00"), 0.0)  # is now ours
    assert heard(C, b"\x20")
    beat(gossip, 5)
    assert heard(A, b"\x01")


def test_g13_6_groups_end() -> None:
    with pytest.raises(ValueError, match="three heartbeats"):
        PartialConfig(group_beats=2)
    gossip = partial_router(partial=PartialConfig(group_beats=3))
    gossip.publish_partial("t", eight(b"g", 1), 0.0)
    beat(gossip, 2)
    gossip.publish_partial("t", eight(b"g", 1), 2.0)
    beat(gossip, 2, now=3.0)
    assert told(say(gossip, A, b"\x00")) == {A: (b"\x01\x65", b"")}
    beat(gossip, 1, now=5.0)
    assert told(say(gossip, A, b"\x00")) == {}
    gossip.close_partial("t")
    assert counts(say(gossip, A, b"\x00")) == {"partial_ignored": 1}


def test_groups_of_this_host() -> None:
    gossip = partial_router(partial=PartialConfig(groups=2))
    for name in (b"g", b"h", b"i"):
        gossip.publish_partial("t", eight(name, 1), 0.0)
    assert told(say(gossip, A, b"\x00", group=b"g")) == {}
    assert told(say(gossip, A, b"\x00", group=b"h")) == {A: (b"\x01\x65", b"")}


def test_answers_are_counted() -> None:
    """Who says for ever that it has nothing gets a message only so often."""
    gossip = partial_router(partial=PartialConfig(answers=3))
    gossip.publish_partial("t", eight(b"g", 1), 0.0)
    assert sum(bool(told(say(gossip, A, b"\x00"))) for _ in range(10)) == 3


@pytest.mark.parametrize("fields", [{"group": b""}, {"group": bytes(257)}, {"metadata": bytes(4097)}])
def test_what_is_too_large(fields: dict[str, bytes]) -> None:
    assert counts(say(partial_router(), A, **{"metadata": b"\x00", **fields})) == {"partial_too_large": 1}


def test_who_is_not_told_of_messages_is_not_heard_of_parts() -> None:
    gossip = partial_router()
    for _ in range(3):
        gossip._score.penalize(A)
    assert counts(say(gossip, A, b"\x00"))["partial_ignored"] == 1


# --- between hosts ----------------------------------------------------------------------------------------------------


async def test_parts_between_hosts() -> None:
    """Three in a row: the first has all parts; the others get them, and no more."""
    async with subscribed([(0, 1), (1, 2)]) as net, trio.open_nursery() as nursery:
        complete = [trio.Event() for _ in range(3)]

        async def take_part(number: int, has: Eight) -> None:
            async with net.pubsubs[number].partial("t") as partial:
                await until(lambda: len(net.pubsubs[number].mesh("t")) == (2 if number == 1 else 1))
                await trio.sleep(1)
                partial.publish(has)
                async for update in partial:
                    new = has.add(update.parts)
                    partial.judge(update, Verdict.ACCEPT if new else Verdict.IGNORE)
                    if new:
                        partial.publish(has)
                    if has.bits == WHOLE:
                        complete[number].set()

        for number in range(3):
            nursery.start_soon(take_part, number, eight(b"g", *(range(8) if not number else ())))
        with trio.fail_after(20):
            for event in complete[1:]:
                await event.wait()
        # Asking for parts, they get no whole messages of each other.
        await net.pubsubs[0].publish("t", b"whole")
        await trio.sleep(3)
        assert net.messages[1].waiting == 0
        for pubsub in net.pubsubs:
            assert not {"partial_malformed", "dropped_outbound", "extensions_repeated"} & pubsub.metrics().keys()
            assert all(score >= 0 for score in pubsub.scores().values())
        nursery.cancel_scope.cancel()


async def test_g13_1_the_hello_comes_first_whatever_there_is_to_say() -> None:
    async with (
        raw_peers(protocol=MESHSUB_13, connect=False) as (_, pubsub, _, (peer,)),
        AsyncExitStack() as stack,
    ):
        for number in range(150):
            await stack.enter_async_context(pubsub.subscribe(f"topic {number}"))
        await peer.host.connect(peer.victim.addrs[0])
        await until(lambda: len(peer.announced) == 151)
        assert peer.received[0] == Rpc(control=encode_extensions(PARTIAL))
        assert all(not decode_control(rpc.control).extensions for rpc in peer.received[1:])


async def test_g13_1_each_stream_has_its_first_rpc() -> None:
    async with raw_peers(protocol=MESHSUB_13) as (_, pubsub, _, (peer,)):
        for _ in range(3):
            stream = await peer.open()
            await peer.say(encode_extensions(PARTIAL))
            await peer.say(encode_ihave("t", [b"id"]))
            await settled()
            stream.reset()
        assert "extensions_repeated" not in pubsub.metrics()
        await peer.open()
        await peer.say(encode_extensions(PARTIAL))
        await peer.say(encode_ihave("t", [b"id"]), encode_extensions(PARTIAL))
        await settled()
        assert pubsub.metrics()["extensions_repeated"] == 1


async def test_subscribers_learn_when_parts_are_opened_and_closed() -> None:
    async with raw_peers(protocol=MESHSUB_13) as (_, pubsub, _, (peer,)):
        async with pubsub.partial("t"):
            await settled()
        async with pubsub.partial("u"):  # not subscribed to: nothing to tell
            await settled()
        changes = [change for rpc in peer.received for change in rpc.subscriptions]
        assert changes == [PLAIN, Subscription("t", True, requests_partial=True, supports_partial=True), PLAIN]


async def test_updates_that_are_not_received() -> None:
    async with raw_peers(protocol=MESHSUB_13) as (_, pubsub, _, (peer,)), pubsub.partial("t") as partial:
        await peer.say(encode_extensions(PARTIAL))
        for number in range(MAX_UPDATES + 5):
            rpc = PartialRpc(topic="t", group=b"g", metadata=bytes((number,)))
            await peer.send(Rpc(extensions=encode_partial(rpc)))
        await settled()
        assert partial.lost == 5
        assert partial.receive_nowait().metadata == b"\x05"
        assert (await partial.receive()).metadata == b"\x06"
        await partial.aclose()
        with pytest.raises(trio.ClosedResourceError):
            partial.receive_nowait()


async def test_a_flood_of_updates_costs_only_who_sends_it() -> None:
    async with raw_peers(protocol=MESHSUB_13, count=2) as (_, pubsub, _, (good, bad)), pubsub.partial("t") as partial:
        for peer in (good, bad):
            await peer.say(encode_extensions(PARTIAL))
        for peer, count in ((good, 3), (bad, 5 * MAX_UPDATES), (good, 3)):
            for number in range(count):
                rpc = PartialRpc(topic="t", group=b"g", metadata=bytes((number % 256,)))
                await peer.send(Rpc(extensions=encode_partial(rpc)))
            await settled()
        received = [partial.receive_nowait() for _ in range(MAX_UPDATES)]
        of_good = [update.metadata for update in received if update.peer == good.host.local_peer]
        assert of_good == [b"\0", b"\1", b"\2"] * 2


async def test_parts_that_fit_nowhere_are_dropped_and_counted() -> None:
    async with raw_peers(protocol=MESHSUB_13) as (_, pubsub, _, (peer,)), pubsub.partial("t") as partial:
        await peer.say(encode_extensions(PARTIAL))
        await peer.send(Rpc(subscriptions=(ASKS,)))
        await settled()

        class Huge(Eight):
            def metadata(self) -> bytes:
                return bytes(2**20)

        partial.publish(Huge(b"g"))
        assert pubsub.metrics()["dropped_outbound"] == 1


async def test_a_message_that_fails_at_what_a_peer_says(expected_bugs: list[BaseException]) -> None:
    """At a heartbeat it is asked by the service itself, which must go on."""

    class Broken(Eight):
        def metadata(self) -> bytes:
            return bytes((256,)) if self.parts else b""

        def parts_for(self, metadata: bytes | None) -> Parts | None:
            return super().parts_for(metadata and str(struct.unpack(">Q", metadata)).encode())

    containment = Containment()
    message = Contained(Broken(b"g", {1: 2}), containment.contain)
    assert message.metadata() == b""
    assert message.parts_for(b"\x00") is None
    assert containment.bugs == {"ValueError": 1, "error": 1}
    with pytest.raises(DecodeError):
        message.parts_for(bytes(8))
    assert message.parts_for(None) is None
    gossip = partial_router()
    say(gossip, A, b"\x00")
    assert told(gossip.publish_partial("t", message, 0.0)) == {}
    assert gossip.handle_timeout(1.0) is not None
    async with raw_peers(protocol=MESHSUB_13) as (_, pubsub, _, (peer,)), pubsub.partial("t") as partial:
        await peer.say(encode_extensions(PARTIAL))
        await peer.send(Rpc(subscriptions=(ASKS,)))
        await settled()
        with pytest.raises(ValueError, match="bytes must be"):  # what stops at the boundary, strict hosts show
            partial.publish(Broken(b"g", {1: 2}))
    assert {type(bug) for bug in expected_bugs} == {ValueError, struct.error}


async def test_what_is_refused() -> None:
    async with raw_peers(count=0) as (_, pubsub, _, _):
        async with pubsub.partial("t") as partial:
            with pytest.raises(ValueError, match="open already"):
                async with pubsub.partial("t"):
                    pass
        with pytest.raises(trio.ClosedResourceError):
            partial.publish(eight())
    with pytest.raises(RuntimeError):
        async with pubsub.partial("t"):
            pass
    async with raw_peers(make=lambda: Pubsub(Floodsub()), count=0) as (_, pubsub, _, _):
        with pytest.raises(ValueError, match="need gossipsub"):
            async with pubsub.partial("t"):
                pass


async def test_updates_end_with_the_service() -> None:
    async with trio.open_nursery() as nursery:
        opened, ended = trio.Event(), trio.Event()

        async def listen(pubsub: Pubsub) -> None:
            async with pubsub.partial("t") as partial:
                opened.set()
                async for _ in partial:
                    raise AssertionError("there is nobody else")
                with pytest.raises(trio.ClosedResourceError):
                    partial.publish(eight())
                ended.set()

        async with raw_peers(count=0) as (_, pubsub, _, _):
            nursery.start_soon(listen, pubsub)
            await opened.wait()
        with trio.fail_after(5):
            await ended.wait()


def test_versions_of_peers() -> None:
    """IDONTWANT goes to 1.3 as to 1.2."""
    gossip = router(idontwant_size=1)
    gossip.subscribe("t", 0.0)
    for peer, version in ((A, MESHSUB_13), (B, MESHSUB_12), (C, ProtocolId("/meshsub/1.1.0"))):
        join(gossip, [peer], protocol=version)
    join(gossip, [PEERS[9]], protocol=MESHSUB_13)
    item = message(1, PEERS[9])
    gossip.receive_rpc(PEERS[9], Rpc(), [item], 0.0)
    assert {action.peer for action in gossip.authenticated(item, 0.0) if isinstance(action, SendControl)} == {A, B}
    assert GossipsubConfig().test_extension is False
