"""Messages of the DHT: requirements KD2, KD15, KD17, case K1."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libp2p.addressing import parse
from libp2p.errors import DecodeError
from libp2p.peer_id import PeerId
from libp2p.protocols.kad._codec import (
    MAX_ADDR,
    MAX_ADDR_BYTES,
    MAX_ADDRS,
    MAX_PEERS,
    MAX_PROVIDERS,
    MAX_SENT,
    SENT_ADDRS,
    Message,
    MessageType,
    PeerInfo,
    Record,
    decode,
    encode,
    encode_closer,
    encode_closer_peers,
)
from libp2p.wire import proto


def peer(number: int) -> PeerId:
    return PeerId.from_bytes(b"\x12\x20" + number.to_bytes(32, "big"))


ADDR = parse("/ip4/1.2.3.4/tcp/4001").to_bytes()


def test_kd2_bytes() -> None:
    """KD2."""
    message = Message(
        type=MessageType.GET_VALUE,
        key=b"key",
        record=Record(key=b"key", value=b"value", received="2026-01-01T00:00:00Z"),
        closer=(PeerInfo(peer(1), (ADDR,)),),
        providers=(PeerInfo(peer(2), (ADDR,)),),
    )
    info = proto.write_bytes(2, ADDR)
    assert encode(message) == (
        b"\x08\x01"
        + proto.write_bytes(2, b"key")
        + proto.write_bytes(
            3,
            proto.write_bytes(1, b"key")
            + proto.write_bytes(2, b"value")
            + proto.write_bytes(5, b"2026-01-01T00:00:00Z"),
        )
        + proto.write_bytes(9, proto.write_bytes(1, bytes(peer(2))) + info)
        + proto.write_bytes(8, proto.write_bytes(1, bytes(peer(1))) + info)
    )
    assert decode(encode(message)) == message


@pytest.mark.parametrize("kind", MessageType)
def test_kd2_types(kind: MessageType) -> None:
    """KD2."""
    assert decode(encode(Message(type=kind))) == Message(type=kind)
    assert decode(b"") == Message(type=MessageType.PUT_VALUE)


def test_kd2_what_others_add_is_ignored() -> None:
    """KD2: cluster level, the connection of a peer, fields of other implementations."""
    inner = proto.write_bytes(1, bytes(peer(1))) + proto.write_uint(3, 3) + proto.write_bytes(4, b"signed")
    data = b"\x08\x04" + proto.write_bytes(8, inner) + proto.write_uint(10, 7) + proto.write_bytes(11, b"sender")
    assert decode(data) == Message(type=MessageType.FIND_NODE, closer=(PeerInfo(peer(1)),))


@pytest.mark.parametrize("data", [b"\x08\x63", b"\x08", b"\xff", proto.write_bytes(3, b"\xff")])
def test_k1_no_message(data: bytes) -> None:
    """K1: a type that does not exist, and garbage."""
    with pytest.raises(DecodeError):
        decode(data)


def test_k1_a_hundred_thousand_peers() -> None:
    """K1."""
    one = proto.write_bytes(8, b"")
    with pytest.raises(DecodeError, match="too many fields"):
        decode(b"\x08\x04" + one * 100_000)
    many = b"".join([proto.write_bytes(8, proto.write_bytes(1, bytes(peer(number)))) for number in range(1000)])
    assert len(decode(many).closer) == MAX_PEERS
    many = b"".join([proto.write_bytes(9, proto.write_bytes(1, bytes(peer(number)))) for number in range(1000)])
    assert len(decode(many).providers) == MAX_PROVIDERS


def test_k1_ten_thousand_addresses() -> None:
    """K1."""
    inner = proto.write_bytes(1, bytes(peer(1))) + proto.write_bytes(2, ADDR) * 10_000
    (found,) = decode(proto.write_bytes(8, inner)).closer
    assert len(found.addrs) == MAX_ADDRS
    inner = proto.write_bytes(1, bytes(peer(1))) + proto.write_bytes(2, bytes(MAX_ADDR + 1))
    (found,) = decode(proto.write_bytes(8, inner)).closer
    assert found.addrs == ()


def test_a_peer_without_an_id_is_left_out() -> None:
    data = proto.write_bytes(8, proto.write_bytes(1, b"nonsense")) + encode_closer(PeerInfo(peer(1)))
    assert decode(data).closer == (PeerInfo(peer(1)),)


def test_kd2_a_time_that_is_no_text() -> None:
    record = proto.write_bytes(1, b"k") + proto.write_bytes(2, b"v") + proto.write_bytes(5, b"\xff")
    try:
        found = decode(proto.write_bytes(3, record)).record
    except DecodeError:
        return  # what protobuf makes of it depends on its version
    assert found is not None
    assert found.received in ("", "\ufffd")


def test_kd15_sent_size() -> None:
    """KD15, KD17: rust reads no more than 16 KiB, so peers have few addresses, and what comes last is left out."""
    infos = tuple([PeerInfo(peer(number), (bytes(80),) * 20) for number in range(40)])
    message = Message(type=MessageType.GET_PROVIDERS, closer=infos, providers=infos[:1])
    data = encode(message)
    assert len(data) <= MAX_SENT
    assert [len(info.addrs) for info in decode(data).providers] == [SENT_ADDRS]
    assert len(decode(data).closer) == 20
    closer = encode_closer_peers([encode_closer(info) for info in infos], MAX_SENT)
    assert MAX_SENT - 1000 < len(closer) <= MAX_SENT
    long = encode_closer(PeerInfo(peer(0), (bytes(500), bytes(500), bytes(200), bytes(1))))
    assert [len(addr) for addr in decode(long).closer[0].addrs] == [500, 200]


def test_k1_addresses_of_an_answer_are_bounded_together() -> None:
    """K1: to read a hundred thousand addresses would stop everything else."""
    data = b"".join([proto.write_bytes(2, bytes(500))] * 32)
    infos = [proto.write_bytes(9, proto.write_bytes(1, bytes(peer(number))) + data) for number in range(10)]
    found = decode(b"".join(infos)).providers
    assert len(found) == 10
    assert [len(info.addrs) for info in found[:3]] == [32, 32, 1]
    assert sum([len(addr) for info in found for addr in info.addrs]) <= MAX_ADDR_BYTES


def test_a_large_record_leaves_room_for_peers() -> None:
    infos = tuple([PeerInfo(peer(number), (ADDR,)) for number in range(20)])
    message = Message(type=MessageType.GET_VALUE, record=Record(key=b"k", value=bytes(60_000)), closer=infos)
    assert decode(encode(message)) == message


@given(st.binary(max_size=300))
def test_garbage(data: bytes) -> None:
    try:
        message = decode(data)
    except DecodeError:
        return
    assert decode(encode(message)).type is message.type
