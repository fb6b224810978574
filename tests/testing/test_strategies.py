"""What the strategies draw is what they say."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from libp2p.addressing import parse, scope
from libp2p.crypto.keys import unmarshal_private_key, unmarshal_public_key
from libp2p.multistream import Dialer, Listener
from libp2p.peer_id import PeerId
from libp2p.records.peer_record import open_peer_record
from libp2p.testing import strategies

FEW = settings(max_examples=40)


@FEW
@given(strategies.private_keys())
def test_keys(key) -> None:
    assert unmarshal_private_key(key.marshal()) == key
    assert unmarshal_public_key(key.public_key.marshal()) == key.public_key
    assert key.public_key.verify(b"x", key.sign(b"x"))


@FEW
@given(strategies.peer_ids())
def test_peer_ids(peer) -> None:
    assert PeerId.from_bytes(bytes(peer)) == peer


@FEW
@given(st.one_of(strategies.multiaddrs(), strategies.ip_addrs(), strategies.memory_addrs()))
def test_addresses(addr) -> None:
    assert parse(str(addr)) == addr
    scope(addr)


@FEW
@given(strategies.protocol_ids())
def test_protocol_ids(protocol) -> None:
    listener = Listener({protocol}.__contains__)
    assert listener.receive_data(Dialer([protocol]).data_to_send())


@FEW
@given(strategies.identify_infos(), strategies.peer_records())
def test_messages(info, drawn) -> None:
    key, record = drawn
    assert open_peer_record(record.seal(key)) == record
    assert len(info.protocols) == len(set(info.protocols))


@FEW
@given(strategies.envelopes())
def test_envelopes(data) -> None:
    open_peer_record(data)


@FEW
@given(st.data(), st.binary(max_size=50))
def test_pieces(data, whole) -> None:
    pieces = data.draw(strategies.pieces(whole))
    assert b"".join(pieces) == whole
    assert all(pieces)


@FEW
@given(strategies.multistream_wire(), strategies.yamux_wire(), strategies.mplex_wire())
def test_wires_are_bytes(multistream, yamux, mplex) -> None:
    assert all(isinstance(wire, bytes) for wire in (multistream, yamux, mplex))
