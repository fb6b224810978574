"""Control entries of gossipsub on the wire: requirements G1, G11.1, G12.1; cases G1, G2."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libp2p.errors import DecodeError
from libp2p.pb import pubsub_pb2 as pb
from libp2p.peer_id import PeerId
from libp2p.protocols.pubsub._control import (
    MAX_EXCHANGED,
    Control,
    Exchanged,
    Prune,
    decode_control,
    encode_graft,
    encode_idontwant,
    encode_ihave,
    encode_iwant,
    encode_prune,
    split_ids,
)
from libp2p.testing.keys import seeded_key
from libp2p.wire import proto

A, B = (PeerId.from_key(seeded_key(name).public_key) for name in "ab")
BINARY = b"\xff\x00\xfe"


def test_g1_bytes() -> None:
    """Ids need not be UTF-8."""
    data = encode_ihave("t", [BINARY, b""]) + encode_iwant([BINARY]) + encode_graft("t") + encode_idontwant([BINARY])
    assert data == bytes.fromhex("0a0a 0a0174 1203ff00fe 1200 1205 0a03ff00fe 1a03 0a0174 2a05 0a03ff00fe")
    assert decode_control(data) == Control(
        ihave={"t": [BINARY, b""]}, iwant=[BINARY], graft=["t"], idontwant=[[BINARY]]
    )


def test_g11_1_prune_bytes() -> None:
    prune = Prune("t", 60.0, (Exchanged(A, b"record"), Exchanged(B)))
    other = pb.ControlMessage.FromString(encode_prune(prune))
    assert [(p.topicID, p.backoff) for p in other.prune] == [("t", 60)]
    peers = [(peer.peerID, peer.signedPeerRecord) for peer in other.prune[0].peers]
    assert peers == [(bytes(A), b"record"), (bytes(B), b"")]
    assert decode_control(encode_prune(prune)).prune == [prune]
    assert encode_prune(Prune("t")) == bytes.fromhex("2203 0a0174")
    assert decode_control(encode_prune(Prune("t"))).prune == [Prune("t")]
    assert encode_prune(Prune("t", 1.5)) == bytes.fromhex("2205 0a0174 1802")


def test_entries_of_one_topic_add_up() -> None:
    assert decode_control(encode_ihave("t", [b"a"]) + encode_ihave("t", [b"b"])).ihave == {"t": [b"a", b"b"]}


def test_entries_without_a_topic_are_left_out() -> None:
    nothing = bytes.fromhex("0a02 1200 1a00 2200 1a03 0a01ff 1a02 0a00 2203 0a01ff 2204 1801 1802")
    assert decode_control(nothing) == Control()


def test_what_is_not_known_is_skipped() -> None:
    data = bytes.fromhex("0801 3a0161 1a05 1001 0a0174 2208 0a0174 480152 0161")
    assert decode_control(data) == Control(graft=["t"], prune=[Prune("t")])
    peer = proto.write_bytes(1, bytes(A)) + proto.write_uint(9, 1)
    body = proto.write_bytes(1, b"t") + proto.write_bytes(2, peer)
    assert decode_control(proto.write_bytes(4, body)).prune == [Prune("t", None, (Exchanged(A),))]
    assert decode_control(proto.write_bytes(1, proto.write_uint(7, 1) + proto.write_bytes(1, b"t"))).ihave == {"t": []}


def test_extensions_are_kept_as_bytes() -> None:
    assert decode_control(bytes.fromhex("3202 5001")).extensions == [bytes.fromhex("5001")]


@pytest.mark.parametrize("data", ["0a", "0a02 1205", "1a02 0a05", "2202 1880", "2204 1202 0a05", "0b"])
def test_malformed(data: str) -> None:
    with pytest.raises(DecodeError):
        decode_control(bytes.fromhex(data))


def test_g1_ids_have_a_limit() -> None:
    control = decode_control(encode_ihave("t", [b"a", b"b"]) + encode_iwant([b"c", b"d"]), max_ids=3)
    assert (control.ihave, control.iwant, control.ids_left_out) == ({"t": [b"a", b"b"]}, [b"c"], True)
    # The limit is for ids: what else there is still counts.
    control = decode_control(encode_iwant([b""] * 1_000_000) + encode_graft("t"))
    assert (len(control.iwant), control.graft, control.ids_left_out) == (5000, ["t"], True)


def test_g1_long_ids_are_left_out() -> None:
    control = decode_control(encode_idontwant([b"x" * 257, b"x" * 256, b"a"]))
    assert (control.idontwant, control.ids_left_out) == ([[b"x" * 256, b"a"]], True)


@pytest.mark.parametrize(
    ("sent", "taken"),
    [(0, None), (1, 1.0), (60, 60.0), (3600, 3600.0), (3601, 3600.0), (2**63 - 1, 3600.0), (2**64 - 1, 3600.0)],
)
def test_g2_backoff_is_clamped(sent: int, taken: float | None) -> None:
    body = proto.write_bytes(1, b"t") + proto.write_uint(3, sent)
    assert decode_control(proto.write_bytes(4, body)).prune == [Prune("t", taken)]


def test_g2_strange_encodings_of_a_backoff() -> None:
    negative = bytes.fromhex("0a0174 18 ffffffffffffffffff01")
    assert decode_control(proto.write_bytes(4, negative)).prune == [Prune("t", 3600.0)]
    no_varint = bytes.fromhex("0a0174 19 000000000000f87f")  # NaN as a double
    assert decode_control(proto.write_bytes(4, no_varint)).prune == [Prune("t")]
    more_than_64_bits = bytes.fromhex("0a0174 18 ffffffffffffffffff7f")
    assert decode_control(proto.write_bytes(4, more_than_64_bits)).prune == [Prune("t", 3600.0)]


def test_g2_few_peers_are_taken() -> None:
    peer = proto.write_bytes(2, proto.write_bytes(1, bytes(A)))
    (prune,) = decode_control(proto.write_bytes(4, proto.write_bytes(1, b"t") + peer * 10_000)).prune
    assert len(prune.peers) == MAX_EXCHANGED


def test_peers_that_are_none_are_left_out() -> None:
    junk = proto.write_bytes(2, proto.write_bytes(1, b"nobody")) + proto.write_bytes(2, b"")
    body = proto.write_bytes(1, b"t") + junk + proto.write_bytes(2, proto.write_bytes(1, bytes(A)))
    assert decode_control(proto.write_bytes(4, body)).prune == [Prune("t", None, (Exchanged(A),))]


def test_splitting_ids() -> None:
    assert list(split_ids([])) == []
    assert list(split_ids([b"a" * 4] * 5, 20)) == [[b"aaaa"] * 2, [b"aaaa"] * 2, [b"aaaa"]]
    assert list(split_ids([b"a" * 50, b"b"], 20)) == [[b"a" * 50], [b"b"]]
    parts = list(split_ids([b"x" * 46] * 5000))
    assert sum(map(len, parts)) == 5000
    assert all(len(encode_ihave("t" * 100, part)) < 16 * 1024 for part in parts)


ids = st.lists(st.binary(max_size=20), max_size=4)
topics = st.text(min_size=1, max_size=8)


@given(st.dictionaries(topics, ids, max_size=3), ids, st.lists(topics, max_size=3), st.lists(ids, max_size=3))
@settings(max_examples=100)
def test_round_trip(
    ihave: dict[str, list[bytes]], iwant: list[bytes], graft: list[str], not_: list[list[bytes]]
) -> None:
    data = b"".join([encode_ihave(topic, held) for topic, held in ihave.items()])
    data += encode_iwant(iwant) + b"".join(map(encode_graft, graft)) + b"".join(map(encode_idontwant, not_))
    assert decode_control(data) == Control(ihave=ihave, iwant=iwant, graft=graft, idontwant=not_)
    other = pb.ControlMessage.FromString(data)
    assert [list(entry.messageIDs) for entry in other.idontwant] == not_


@given(st.binary(max_size=80))
@settings(max_examples=500)
def test_any_bytes_are_control_or_an_error(data: bytes) -> None:
    """Fuzz target 12."""
    try:
        control = decode_control(data)
    except DecodeError:
        return
    assert all(prune.backoff is None or 1 <= prune.backoff <= 3600 for prune in control.prune)
