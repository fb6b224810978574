"""Peer records (checklist A10, E4, E5, E7; reliability case S8)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libp2p.addressing import parse
from libp2p.crypto.keys import KeyType, generate
from libp2p.errors import DecodeError
from libp2p.pb import peer_record_pb2
from libp2p.peer_id import PeerId
from libp2p.records.envelope import Envelope
from libp2p.records.peer_record import DOMAIN, MAX_ADDRS, MAX_SEQ, PAYLOAD_TYPE, PeerRecord, open_peer_record
from libp2p.wire import proto
from tests.crypto.vectors import VECTORS, private_key

KEY = private_key(KeyType.ED25519)
PEER = PeerId.from_key(KEY.public_key)
ADDRS = tuple(map(parse, ["/ip4/1.2.3.4/tcp/4001", "/ip6/2a00::1/udp/4001/quic-v1", "/dns4/example.com/tcp/443/wss"]))
RECORD = PeerRecord(peer=PEER, seq=7, addrs=ADDRS)


def payload(addrs: list[bytes], peer: bytes = bytes(PEER), seq: int = 7) -> bytes:
    """A record as protobuf writes it."""
    message = peer_record_pb2.PeerRecord(peer_id=peer, seq=seq)
    for addr in addrs:
        message.addresses.add(multiaddr=addr)
    return message.SerializeToString(deterministic=True)


def signed(content: bytes) -> bytes:
    return Envelope.seal(KEY, DOMAIN, PAYLOAD_TYPE, content).marshal()


def test_e7_the_strings_everybody_uses() -> None:
    assert DOMAIN == "libp2p-peer-record"
    assert bytes.fromhex("0301") == PAYLOAD_TYPE


@pytest.mark.parametrize("key_type", KeyType, ids=lambda key_type: key_type.name)
def test_e4_e5_seal_and_open(key_type: KeyType) -> None:
    key = private_key(key_type)
    record = PeerRecord(peer=PeerId.from_key(key.public_key), seq=1, addrs=ADDRS)
    assert open_peer_record(record.seal(key)) == record


@pytest.mark.parametrize("seq", [0, 1, 2**63, MAX_SEQ])
def test_e4_the_bytes(seq: int) -> None:
    record = PeerRecord(peer=PEER, seq=seq, addrs=ADDRS)
    assert record.marshal() == payload([addr.to_bytes() for addr in ADDRS], seq=seq)
    assert open_peer_record(record.seal(KEY)).seq == seq


def test_e4_no_addresses() -> None:
    record = PeerRecord(peer=PEER, seq=1, addrs=())
    assert open_peer_record(record.seal(KEY)) == record


@pytest.mark.parametrize("seq", [-1, MAX_SEQ + 1])
def test_s8_sequence_out_of_range(seq: int) -> None:
    with pytest.raises(ValueError, match="64 bits"):
        PeerRecord(peer=PEER, seq=seq, addrs=()).seal(KEY)
    with pytest.raises(DecodeError):
        open_peer_record(signed(proto.write_bytes(1, bytes(PEER)) + b"\x10" + b"\xff" * 9 + b"\x02"))


def test_e5_signer_is_not_the_subject() -> None:
    with pytest.raises(DecodeError, match="somebody else"):
        open_peer_record(signed(payload([], peer=bytes(PeerId.from_key(generate().public_key)))))
    with pytest.raises(ValueError, match="its own key"):
        RECORD.seal(generate())


@pytest.mark.parametrize("peer", [b"", b"\x00\x01x", bytes(PEER)[:-1], bytes(PEER) + b"\x00", b"x" * 5000])
def test_e5_subject_is_nobody(peer: bytes) -> None:
    with pytest.raises(DecodeError):
        open_peer_record(signed(payload([], peer=peer)))


def test_s8_other_domain() -> None:
    data = Envelope.seal(KEY, "libp2p-relay-rsvp", PAYLOAD_TYPE, RECORD.marshal()).marshal()
    with pytest.raises(DecodeError, match="signature"):
        open_peer_record(data)


@pytest.mark.parametrize("payload_type", [b"\x03\x02", b"/libp2p/routing-state-record", b"\x03\x01\x00", b"\x81\x06"])
def test_s8_other_payload_type(payload_type: bytes) -> None:
    envelope = Envelope.seal(KEY, DOMAIN, payload_type, RECORD.marshal())
    with pytest.raises(DecodeError, match="type"):
        open_peer_record(envelope.marshal())
    with pytest.raises(DecodeError, match="holds no peer record"):
        PeerRecord.from_envelope(envelope)


def test_a10_one_bad_address_does_not_cost_the_others() -> None:
    good = [addr.to_bytes() for addr in ADDRS]
    bad = [b"", b"\x04\x01", b"\xff" * 20, b"\x05\x00\x00", b"\x36\x03a/b", good[0] + b"\x80"]
    mixed = [addr for pair in zip(bad, good * 2, strict=True) for addr in pair]
    assert open_peer_record(signed(payload(mixed))).addrs == ADDRS


def test_addresses_are_about_the_subject_and_told_once() -> None:
    own = parse(f"/ip4/1.2.3.4/tcp/4001/p2p/{PEER}").to_bytes()
    others = parse(f"/ip4/5.6.7.8/tcp/4001/p2p/{VECTORS[KeyType.RSA].base58}").to_bytes()
    alone = parse(f"/p2p/{PEER}").to_bytes()
    found = open_peer_record(signed(payload([own, ADDRS[0].to_bytes(), others, alone, own])))
    assert found.addrs == (ADDRS[0],)


def test_s8_number_of_addresses() -> None:
    addrs = [parse(f"/ip4/1.2.3.4/tcp/{port}").to_bytes() for port in range(1, MAX_ADDRS + 2)]
    assert len(open_peer_record(signed(payload(addrs[:-1]))).addrs) == MAX_ADDRS
    for many in (addrs, [b""] * 2000):
        with pytest.raises(DecodeError, match=r"too many|more than"):
            open_peer_record(signed(payload(many)))


def test_s8_10_000_addresses() -> None:
    addrs = [parse("/ip4/1.2.3.4/tcp/1").to_bytes()] * 10_000
    with pytest.raises(DecodeError, match="above the limit"):
        open_peer_record(signed(payload(addrs)))


@pytest.mark.parametrize(
    "content",
    [
        b"\x08\x01",  # peer id as a number
        proto.write_bytes(1, bytes(PEER)) + proto.write_bytes(2, b"\x01"),  # seq as bytes
        proto.write_bytes(1, bytes(PEER)) + b"\x18\x01",  # address as a number
        proto.write_bytes(1, bytes(PEER)) + proto.write_bytes(3, b"\x08\x01"),
        proto.write_bytes(1, bytes(PEER)) + proto.write_bytes(3, b"\x0a\x05"),
        proto.write_bytes(1, bytes(PEER)) + proto.write_bytes(3, b"\x0a\x00" * 9),
        proto.write_bytes(1, bytes(PEER)) + b"\x1a",
    ],
)
def test_k13_malformed_records(content: bytes) -> None:
    with pytest.raises(DecodeError):
        open_peer_record(signed(content))


def test_unknown_fields_are_skipped() -> None:
    entry = proto.write_bytes(1, ADDRS[0].to_bytes()) + proto.write_bytes(2, b"new")
    content = proto.write_bytes(1, bytes(PEER)) + proto.write_bytes(3, entry) + proto.write_bytes(9, b"new")
    assert open_peer_record(signed(content)) == PeerRecord(peer=PEER, seq=0, addrs=ADDRS[:1])


@settings(max_examples=100)
@given(st.binary(max_size=100).map(lambda rest: proto.write_bytes(1, bytes(PEER)) + rest) | st.binary(max_size=100))
def test_k13_any_signed_bytes_give_a_record_of_the_signer_or_the_typed_error(content: bytes) -> None:
    envelope = Envelope(public_key=KEY.public_key, payload_type=PAYLOAD_TYPE, payload=content, signature=b"")
    try:
        record = PeerRecord.from_envelope(envelope)
    except DecodeError:
        return
    assert record.peer == PEER
    assert 0 <= record.seq <= MAX_SEQ
