"""The wire format of pubsub: requirements PS1, PS2, PS6, PS10, G1 (gossipsub), case G1."""

from __future__ import annotations

import contextlib
import hashlib
import math
import time
import tracemalloc

import pytest
from google.protobuf.message import DecodeError as ProtobufError
from hypothesis import given, settings
from hypothesis import strategies as st

from libp2p.errors import DecodeError
from libp2p.pb import pubsub_pb2 as pb
from libp2p.peer_id import PeerId
from libp2p.protocols.pubsub import RpcLimits
from libp2p.protocols.pubsub._codec import (
    Rpc,
    Subscription,
    decode_message,
    decode_rpc,
    decode_rpcs,
    default_message_id,
    encode_control,
    encode_message,
    encode_publish,
    encode_rpc,
    encode_subscription,
    frame_publish,
    pack,
    rpc_overhead,
    signed_bytes,
)
from libp2p.protocols.pubsub._control import decode_control
from libp2p.protocols.pubsub._extensions import decode_messages
from libp2p.testing.keys import seeded_key
from libp2p.wire import proto, varint

LIMITS = RpcLimits()
AUTHOR = PeerId.from_key(seeded_key("author").public_key)
PEER = PeerId.from_key(seeded_key("peer").public_key)
SEQNO = (7).to_bytes(8, "big")


# --- RPCs -------------------------------------------------------------------------------------------------------------


def test_ps1_bytes() -> None:
    rpc = Rpc(
        subscriptions=(Subscription("ab", True), Subscription("c", False, True, True)),
        publish=(b"\x22\x01t",),
        control=b"\x1a\x00",
        extensions=proto.write_bytes(10, b"x"),
    )
    encoded = bytes.fromhex(
        "0a06 0801 1202 6162"  # subscribe to ab
        "0a09 0800 1201 63 1801 2001"  # leave c
        "1203 220174"  # publish
        "1a02 1a00"  # control: one empty GRAFT
        "5201 78"  # the extension for partial messages
    )
    assert encode_rpc(rpc) == encoded
    assert decode_rpc(encoded, LIMITS) == rpc


def test_an_empty_rpc() -> None:
    assert decode_rpc(b"", LIMITS) == Rpc()
    assert encode_rpc(Rpc()) == b""


def test_parts_that_are_repeated_add_up() -> None:
    data = encode_control(b"\x1a\x00") + encode_publish(b"a") + encode_control(b"\x22\x00") + encode_publish(b"b")
    rpc = decode_rpc(data, LIMITS)
    assert rpc.control == b"\x1a\x00\x22\x00"
    assert rpc.publish == (b"a", b"b")


def test_unknown_fields_are_kept_for_the_router() -> None:
    unknown = proto.write_uint(9, 300) + bytes.fromhex("6d01020304") + bytes.fromhex("710102030405060708")
    rpc = decode_rpc(unknown[:3] + encode_publish(b"x") + unknown[3:], LIMITS)
    assert rpc.extensions == unknown
    test_extension = pb.RPC(testExtension=pb.TestExtension()).SerializeToString()
    assert decode_rpc(test_extension, LIMITS).extensions == test_extension


def test_subscriptions_without_a_topic_are_left_out() -> None:
    data = b"".join(proto.write_bytes(1, body) for body in (b"", b"\x08\x01", b"\x08\x01\x12\x00", b"\x12\x01\xff"))
    assert decode_rpc(data + encode_subscription(Subscription("ok", True)), LIMITS) == Rpc(
        subscriptions=(Subscription("ok", True),)
    )


def test_unknown_fields_of_subscriptions_are_skipped() -> None:
    body = bytes.fromhex("0801 120161 4801 5a0178")
    assert decode_rpc(proto.write_bytes(1, body), LIMITS).subscriptions == (Subscription("a", True),)


def test_numbers_need_not_be_in_shortest_form() -> None:
    rpc = decode_rpc(bytes.fromhex("0a8900 08818000 128200 6162"), LIMITS)
    assert rpc.subscriptions == (Subscription("ab", True),)
    rpc = decode_rpc(bytes.fromhex("0a08 08808000 12026162"), LIMITS)
    assert rpc.subscriptions == (Subscription("ab", False),)


@pytest.mark.parametrize(
    "data",
    [
        "0a",  # no length
        "0a05 0801",  # truncated
        "0a ffffffffffffffffff01",  # a length of 2**64
        "0a ffffffffffffffffffffff01",
        "0b 0c",  # groups
        "0e",  # an unknown wire type
        "00",  # field zero
        "0d 0102",
        "ffffffffff7f 00",  # a field number of 32 bits
        "0a02 0a05",  # inside of a subscription
        "1a02 0a05",  # inside of control
    ],
)
def test_malformed(data: str) -> None:
    with pytest.raises(DecodeError):
        decode_rpc(bytes.fromhex(data), LIMITS)


@given(st.binary(max_size=64))
@settings(max_examples=500)
def test_it_agrees_with_protobuf(data: bytes) -> None:
    """Fuzz target 22: what is read here, protobuf reads as well, and the same."""
    try:
        rpc = decode_rpc(data, LIMITS)
    except DecodeError:
        return
    other = pb.RPC()
    try:
        other.ParseFromString(data)
    except ProtobufError:
        # Protobuf also looks into messages, and into fields that are carried here as bytes.
        assert rpc.publish or rpc.control or rpc.extensions
        return
    assert len(other.publish) == len(rpc.publish)
    topics = [(s.topicid, s.subscribe) for s in other.subscriptions if s.topicid and isinstance(s.topicid, str)]
    assert [(s.topic, s.subscribe) for s in rpc.subscriptions] == topics


texts = st.text(min_size=1, max_size=20)
subscriptions = st.builds(Subscription, texts, st.booleans(), st.booleans(), st.booleans())


@given(st.lists(subscriptions, max_size=5), st.lists(st.binary(max_size=50), max_size=5))
@settings(max_examples=100)
def test_round_trip(wanted: list[Subscription], publish: list[bytes]) -> None:
    rpc = Rpc(subscriptions=tuple(wanted), publish=tuple(publish), control=b"\x1a\x00")
    assert decode_rpc(encode_rpc(rpc), LIMITS) == rpc
    other = pb.RPC.FromString(encode_rpc(Rpc(subscriptions=tuple(wanted))))
    assert [s.topicid for s in other.subscriptions] == [s.topic for s in wanted]


# --- limits (case G1) -------------------------------------------------------------------------------------------------


def test_g1_size() -> None:
    limits = RpcLimits(size=100)
    decode_rpc(encode_publish(bytes(98)), limits)
    with pytest.raises(DecodeError, match="101 bytes"):
        decode_rpc(encode_publish(bytes(99)), limits)


def test_g1_entries() -> None:
    topic = encode_subscription(Subscription("t", True))
    decode_rpc(topic * 2500 + encode_publish(b"") * 2500, LIMITS)
    for bomb in (topic * 100_000, encode_publish(b"") * 5001, proto.write_uint(9, 1) * 5001):
        with pytest.raises(DecodeError, match="5000 entries"):
            decode_rpc(bomb, LIMITS)


def test_g1_control_entries() -> None:
    graft = proto.write_bytes(3, b"")
    decode_rpc(encode_control(graft * 4999), LIMITS)
    with pytest.raises(DecodeError, match="5000 entries"):
        decode_rpc(encode_control(graft * 5001), LIMITS)
    with pytest.raises(DecodeError, match="5000 entries"):
        decode_rpc(encode_control(graft * 3000) * 2, LIMITS)


def test_g1_control_size() -> None:
    ids = proto.write_bytes(2, bytes(46)) * 5000
    decode_rpc(encode_control(proto.write_bytes(1, ids) * 2), LIMITS)  # what go sends
    for bomb in (encode_control(proto.write_bytes(1, ids) * 3), encode_control(proto.write_bytes(1, ids)) * 3):
        with pytest.raises(DecodeError, match="524288 bytes of control"):
            decode_rpc(bomb, LIMITS)
    with pytest.raises(DecodeError, match="524288 bytes of control"):
        decode_rpc(encode_control(proto.write_bytes(1, proto.write_bytes(2, b"") * 300_000)), LIMITS)


@pytest.mark.parametrize(
    "bomb",
    [
        encode_subscription(Subscription("t", True)) * 170_000,
        b"".join([encode_subscription(Subscription(f"{number}", True)) for number in range(80_000)]),
        encode_publish(b"") * 500_000,
        encode_control(proto.write_bytes(3, b"") * 500_000),
        encode_control(proto.write_bytes(1, proto.write_bytes(2, b"") * 250_000)),
        encode_control(proto.write_bytes(2, proto.write_bytes(1, bytes(46)) * 10_000)),
        encode_control(proto.write_bytes(6, proto.write_uint(10, 1) * 250_000)),
        proto.write_bytes(10, proto.write_bytes(2, b"") * 500_000),
        proto.write_uint(9, 1) * 500_000,
    ],
    ids=["topic", "topics", "messages", "grafts", "ids", "many ids", "hellos", "parts", "unknown"],
)
def test_g1_bombs_cost_little_memory(bomb: bytes) -> None:
    """A little more than twice their size, from the first byte looked at to the decoded control entries."""
    tracemalloc.start()
    try:
        with contextlib.suppress(DecodeError):
            rpc = decode_rpc(bomb, LIMITS)
            decode_control(rpc.control)
            decode_messages(rpc.extensions)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= 2 * len(bomb) + 20_000


def test_g1_parts_in_pieces_are_joined_once() -> None:
    """A message of a megabyte in five thousand pieces took a second when each was added to those before it."""

    def seconds(pieces: int, size: int) -> float:
        data = proto.write_bytes(10, proto.write_bytes(3, bytes(size))) * pieces
        best = math.inf
        for _ in range(3):
            started = time.process_time()
            with pytest.raises(DecodeError, match="64 fields"):
                decode_messages(data)
            best = min(best, time.process_time() - started)
        return best

    assert seconds(4990, 200) < 8 * seconds(4990, 2) + 0.01


def test_g1_depth() -> None:
    nested = b""
    for _ in range(101):
        nested = proto.write_bytes(3, nested)
    decode_rpc(nested, LIMITS)  # only two levels are looked at


def test_limits_are_positive() -> None:
    for wrong in ({"size": 0}, {"entries": 0}, {"control_size": 0}):
        with pytest.raises(ValueError, match="positive"):
            RpcLimits(**wrong)


# --- RPCs in a row ----------------------------------------------------------------------------------------------------

NEWS = encode_subscription(Subscription("t", True))


def test_messages_in_a_row_come_as_one_rpc() -> None:
    frames = [encode_publish(b"1"), encode_publish(bytes(200)), NEWS, encode_publish(b"3") + NEWS, encode_publish(b"4")]
    news = (Subscription("t", True),)
    assert list(decode_rpcs(frames, LIMITS)) == [
        Rpc(publish=(b"1", bytes(200))),
        Rpc(subscriptions=news),
        Rpc(publish=(b"3",), subscriptions=news),
        Rpc(publish=(b"4",)),
    ]
    assert list(decode_rpcs([], LIMITS)) == []
    assert list(decode_rpcs([b""], LIMITS)) == [Rpc()]


@pytest.mark.parametrize("row", [True, False], ids=["in a row", "in one RPC"])
def test_g6_only_so_many_messages_come_at_once(row: bool) -> None:
    for count in (64, 65, 130):
        messages = [encode_publish(b"%d" % number) for number in range(count)]
        rpcs = list(decode_rpcs(messages if row else [NEWS + b"".join(messages)], LIMITS))
        assert [raw for rpc in rpcs for raw in rpc.publish] == [b"%d" % number for number in range(count)]
        assert max(len(rpc.publish) for rpc in rpcs) == 64
        assert [bool(rpc.subscriptions) for rpc in rpcs] == [not row, *[False] * (len(rpcs) - 1)]


@pytest.mark.parametrize("bad", [b"\x12", b"\x12" + b"\x80" * 11, b"\x12\x05x", encode_publish(bytes(99))])
def test_g1_what_came_before_a_bad_rpc_counts(bad: bytes) -> None:
    decoded = decode_rpcs([encode_publish(b"1"), bad, encode_publish(b"2")], RpcLimits(size=100))
    assert next(decoded) == Rpc(publish=(b"1",))
    with pytest.raises(DecodeError):
        next(decoded)


# --- messages ---------------------------------------------------------------------------------------------------------


def test_ps2_bytes() -> None:
    raw = encode_message(topic="t", data=b"d", author=b"a", seqno=SEQNO, signature=b"s", key=b"k")
    assert raw == bytes.fromhex("0a0161 120164 1a080000000000000007 220174 2a0173 32016b")
    other = pb.Message.FromString(raw)
    assert (other.from_peer, other.data, other.seqno, other.topic) == (b"a", b"d", SEQNO, "t")
    assert (other.signature, other.key) == (b"s", b"k")
    assert encode_message(topic="t", data=b"") == bytes.fromhex("1200 220174")


def test_a_message_keeps_its_bytes() -> None:
    raw = encode_message(topic="t", data=b"d", author=bytes(AUTHOR), seqno=SEQNO, signature=b"s", key=b"k")
    message = decode_message(raw, PEER)
    assert message.raw is raw
    assert (message.topic, message.data, message.seqno) == ("t", b"d", SEQNO)
    assert (message.signature, message.key) == (b"s", b"k")
    assert (message.author, message.received_from) == (AUTHOR, PEER)
    assert message.id == bytes(AUTHOR) + SEQNO


def test_an_anonymous_message() -> None:
    message = decode_message(encode_message(topic="t", data=b"d"), PEER)
    assert (message.author, message.seqno, message.signature, message.key) == (None, None, None, None)
    assert message.id == hashlib.sha256(b"d").digest()


def test_ps9_default_ids() -> None:
    assert default_message_id(b"a", b"s", b"d") == b"as"
    for author, seqno in ((None, b"s"), (b"a", None), (b"", b""), (None, None)):
        assert default_message_id(author, seqno, b"d") == hashlib.sha256(b"d").digest()


def test_of_several_topics_the_last_counts() -> None:
    raw = proto.write_bytes(4, b"one") + proto.write_bytes(4, b"two")
    assert decode_message(raw, PEER).topic == "two"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\x12\x01d",
        b"\x22\x00",
        b"\x22\x01\xff",
        b"\x22\x05t",
        encode_message(topic="t", data=b"", author=b"nobody"),
        encode_message(topic="t", data=b"", author=b""),
    ],
)
def test_no_message(raw: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_message(raw, PEER)


def test_ps6_signed_bytes() -> None:
    unsigned = encode_message(topic="t", data=b"d", author=b"a", seqno=SEQNO)
    signed = encode_message(topic="t", data=b"d", author=b"a", seqno=SEQNO, signature=b"s", key=b"k")
    assert signed_bytes(signed) == signed_bytes(unsigned) == b"libp2p-pubsub:" + unsigned
    # Fields that are not known here belong to what was signed.
    assert signed_bytes(b"\x58\x01" + signed + b"\x60\x02") == b"libp2p-pubsub:\x58\x01" + unsigned + b"\x60\x02"


@given(st.binary(max_size=60))
@settings(max_examples=300)
def test_any_bytes_are_a_message_or_an_error(raw: bytes) -> None:
    try:
        message = decode_message(raw, PEER)
    except DecodeError:
        return
    assert pb.Message.FromString(message.raw).topic == message.topic
    assert decode_message(message.raw, PEER) == message


# --- putting RPCs together --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 127, 128, 70_000])
def test_a_framed_message(size: int) -> None:
    raw = bytes(size)
    length, start = varint.decode(frame_publish(raw))
    rpc = frame_publish(raw)[start:]
    assert len(rpc) == length == size + rpc_overhead(size)
    assert rpc == encode_publish(raw)


def test_ps10_packing() -> None:
    assert list(pack([], size=10, count=5)) == []
    assert list(pack([b"aaaa", b"bbbb", b"cccc", b"d" * 20, b"e"], size=10, count=5)) == [
        b"aaaabbbb",
        b"cccc",
        b"d" * 20,
        b"e",
    ]
    assert list(pack([b"a"] * 5, size=10, count=2)) == [b"aa", b"aa", b"a"]
