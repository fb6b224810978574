"""Messages of hole punching: requirements D1 and D8; the fuzz invariant."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libp2p.addressing import parse
from libp2p.errors import DecodeError
from libp2p.protocols.dcutr._codec import MAX_ADDRS, HolePunch, Kind, decode, encode, punchable
from libp2p.testing.raw import pb

SEEN = parse("/ip4/5.0.0.1/tcp/4001")


def test_d1_bytes() -> None:
    assert encode(HolePunch(kind=Kind.SYNC)) == bytes.fromhex("08ac02")
    connect = HolePunch(kind=Kind.CONNECT, addrs=(SEEN,))
    assert encode(connect) == bytes.fromhex("0864") + pb(2, SEEN.to_bytes())
    assert decode(encode(connect)) == connect


@pytest.mark.parametrize("data", [b"", b"\x08", b"\x08\x01", b"\xff"])
def test_nonsense(data: bytes) -> None:
    with pytest.raises(DecodeError):
        decode(data)


def test_addresses_that_cannot_be_read_are_left_out() -> None:
    data = b"\x08\x64" + pb(2, b"\xff\xff") + pb(2, SEEN.to_bytes()) * 2
    assert decode(data).addrs == (SEEN,)


def test_d8_relays_and_what_leads_nowhere_are_left_out() -> None:
    useless = ["/ip4/5.0.0.1/tcp/1/p2p-circuit", "/ip4/127.0.0.1/tcp/1", "/ip6/fe80::1/tcp/1", "/dns/a.example/tcp/1"]
    kept = [parse("/ip4/10.0.0.1/udp/1/quic-v1"), SEEN]
    assert punchable([parse(addr) for addr in useless] + kept) == tuple(kept)
    assert decode(encode(HolePunch(kind=Kind.CONNECT, addrs=tuple(parse(addr) for addr in useless)))).addrs == ()


def test_r4_sixteen_addresses() -> None:
    many = tuple(parse(f"/ip4/5.0.0.{number}/tcp/1") for number in range(100))
    assert decode(encode(HolePunch(kind=Kind.CONNECT, addrs=many))).addrs == many[:MAX_ADDRS]
    assert punchable(many) == many[:MAX_ADDRS]


@given(st.binary(max_size=200))
def test_anything_parses_or_is_refused(data: bytes) -> None:
    try:
        message = decode(data)
    except DecodeError:
        return
    assert decode(encode(message)) == message
