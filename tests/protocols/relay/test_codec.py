"""Relay messages and vouchers: requirements R1 to R4, R11, R15; the fuzz invariant of hop, stop and voucher."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libp2p.addressing import parse
from libp2p.errors import DecodeError
from libp2p.pb import relay_pb2 as pb
from libp2p.peer_id import PeerId
from libp2p.protocols.relay import CircuitLimit, Status, Voucher
from libp2p.protocols.relay._codec import (
    MAX_ADDRS,
    MAX_MESSAGE,
    VOUCHER_DOMAIN,
    VOUCHER_TYPE,
    HopMessage,
    HopType,
    ReservationMessage,
    StopMessage,
    StopType,
    decode_hop,
    decode_stop,
    encode_hop,
    encode_stop,
    status_name,
)
from libp2p.records.envelope import Envelope
from libp2p.testing.keys import seeded_key

RELAY_KEY = seeded_key("relay")
RELAY = PeerId.from_key(RELAY_KEY.public_key)
PEER = PeerId.from_key(seeded_key("peer").public_key)
ADDR = parse(f"/ip4/1.2.3.4/tcp/5/p2p/{RELAY}")
GRANTED = ReservationMessage(expire=1_700_000_000, addrs=(ADDR,), voucher=b"voucher")
LIMIT = CircuitLimit(duration=120, data=128 * 1024)

HOPS = [
    HopMessage(type=HopType.RESERVE),
    HopMessage(type=HopType.CONNECT, peer=PEER),
    HopMessage(type=HopType.STATUS, status=Status.OK, reservation=GRANTED, limit=LIMIT),
    HopMessage(type=HopType.STATUS, status=Status.OK, reservation=ReservationMessage(expire=1)),
    HopMessage(type=HopType.STATUS, status=999),
]
STOPS = [
    StopMessage(type=StopType.CONNECT, peer=PEER, limit=CircuitLimit(data=1)),
    StopMessage(type=StopType.CONNECT, peer=PEER),
    StopMessage(type=StopType.STATUS, status=Status.PERMISSION_DENIED),
]


def test_r2_a_type_of_zero_is_on_the_wire() -> None:
    assert encode_hop(HopMessage(type=HopType.RESERVE)) == b"\x08\x00"
    assert encode_stop(StopMessage(type=StopType.CONNECT)) == b"\x08\x00"


def test_r1_r3_bytes() -> None:
    peer = bytes(PEER)
    in_message = b"\x12" + bytes((len(peer) + 2,)) + b"\x0a" + bytes((len(peer),)) + peer
    assert encode_hop(HOPS[1]) == b"\x08\x01" + in_message
    assert encode_stop(STOPS[0]) == b"\x08\x00" + in_message + b"\x1a\x04\x08\x00\x10\x01"
    assert encode_hop(HopMessage(type=HopType.STATUS, status=Status.NO_RESERVATION)) == b"\x08\x02\x28\xcc\x01"
    assert encode_stop(STOPS[2]) == b"\x08\x01\x20\xca\x01"
    granted = HopMessage(type=HopType.STATUS, reservation=ReservationMessage(expire=1, addrs=(ADDR,), voucher=b"v"))
    addr = ADDR.to_bytes()
    inner = b"\x08\x01\x12" + bytes((len(addr),)) + addr + b"\x1a\x01v"
    assert encode_hop(granted) == b"\x08\x02\x1a" + bytes((len(inner),)) + inner


@pytest.mark.parametrize("message", HOPS, ids=str)
def test_hop_round_trip(message: HopMessage) -> None:
    assert decode_hop(encode_hop(message)) == message


@pytest.mark.parametrize("message", STOPS, ids=str)
def test_stop_round_trip(message: StopMessage) -> None:
    assert decode_stop(encode_stop(message)) == message


def test_r2_a_missing_type_is_zero() -> None:
    assert decode_hop(b"").type is HopType.RESERVE
    assert decode_stop(b"").type is StopType.CONNECT


def test_unknown_types() -> None:
    for decode in (decode_hop, decode_stop):
        with pytest.raises(DecodeError, match="unknown type 7"):
            decode(b"\x08\x07")


def test_r9_zero_is_no_limit_but_a_limit_all_the_same() -> None:
    assert decode_hop(pb.HopMessage(limit=pb.Limit(duration=0, data=0)).SerializeToString()).limit == CircuitLimit()
    assert decode_hop(b"").limit is None


def test_a_peer_that_is_none() -> None:
    for message, decode in ((pb.HopMessage, decode_hop), (pb.StopMessage, decode_stop)):
        with pytest.raises(DecodeError):
            decode(message(type=1, peer=pb.Peer(id=b"nonsense")).SerializeToString())


def test_addresses_that_cannot_be_read_are_left_out() -> None:
    addrs = [b"", b"\xff", ADDR.to_bytes(), ADDR.to_bytes()]
    message = pb.HopMessage(type=2, reservation=pb.Reservation(expire=1, addrs=addrs))
    found = decode_hop(message.SerializeToString()).reservation
    assert found is not None and found.addrs == (ADDR,)


def test_addresses_are_bounded() -> None:
    addrs = tuple(parse(f"/ip4/1.2.3.4/tcp/{port}") for port in range(1, 100))
    encoded = encode_hop(HopMessage(type=HopType.STATUS, reservation=ReservationMessage(expire=1, addrs=addrs)))
    found = decode_hop(encoded).reservation
    assert found is not None and found.addrs == addrs[:MAX_ADDRS]
    message = pb.HopMessage(type=2, reservation=pb.Reservation(expire=1, addrs=[addr.to_bytes() for addr in addrs]))
    found = decode_hop(message.SerializeToString()).reservation
    assert found is not None and found.addrs == addrs[:MAX_ADDRS]


def test_status_names() -> None:
    assert status_name(Status.NO_RESERVATION) == "NO_RESERVATION"
    assert status_name(999) == "status 999"
    assert status_name(None) == "without a status"


def test_r11_voucher() -> None:
    voucher = Voucher(relay=RELAY, peer=PEER, expiration=1_700_000_000)
    sealed = voucher.seal(RELAY_KEY)
    assert Voucher.open(sealed) == voucher
    assert Envelope.open(sealed, "libp2p-relay-rsvp").payload_type == b"\x03\x02"


def test_r2_vouchers_that_are_not_genuine() -> None:
    voucher = Voucher(relay=RELAY, peer=PEER, expiration=1)
    with pytest.raises(DecodeError, match="not signed by the relay"):
        Voucher.open(voucher.seal(seeded_key("somebody else")))
    sealed = bytearray(voucher.seal(RELAY_KEY))
    sealed[-1] ^= 1
    with pytest.raises(DecodeError, match="signature"):
        Voucher.open(bytes(sealed))
    with pytest.raises(DecodeError):
        Voucher.open(Envelope.seal(RELAY_KEY, "other", VOUCHER_TYPE, b"").marshal())
    with pytest.raises(DecodeError):
        Voucher.open(Envelope.seal(RELAY_KEY, VOUCHER_DOMAIN, VOUCHER_TYPE, b"\xff").marshal())


@given(st.binary(max_size=MAX_MESSAGE))
def test_garbage(data: bytes) -> None:
    """Any bytes give a message or a DecodeError."""
    for decode in (decode_hop, decode_stop, Voucher.open):
        try:
            decode(data)
        except DecodeError:
            continue
