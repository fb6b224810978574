"""Identify messages: requirements I1, I4, I8, I9, case I1."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libp2p._util.rate import RateLimit
from libp2p.addressing import ip_addr, parse
from libp2p.errors import DecodeError
from libp2p.pb import identify_pb2
from libp2p.protocols.identify import IdentifyInfo
from libp2p.protocols.identify._addresses import believable, without_loopback
from libp2p.protocols.identify._codec import (
    MAX_ADDRS,
    MAX_FIELDS,
    MAX_PARTS,
    MAX_PROTOCOLS,
    MAX_SENT,
    MAX_TEXT,
    decode,
    encode,
    merge,
)
from libp2p.wire import proto

FULL = IdentifyInfo(
    public_key=b"key",
    listen_addrs=(parse("/ip4/1.2.3.4/tcp/4001"), parse("/ip6/::1/udp/4001/quic-v1")),
    protocols=("/a/1", "/b/2"),
    observed_addr=parse("/ip4/5.6.7.8/tcp/1"),
    protocol_version="ipfs/0.1.0",
    agent_version="us/1",
    signed_peer_record=b"envelope",
)


def field(number: int, value: bytes) -> bytes:
    return proto.write_bytes(number, value)


# --- bytes ------------------------------------------------------------------------------------------------------------


def test_i1_fields() -> None:
    assert encode(FULL) == (
        field(1, b"key")
        + field(2, FULL.listen_addrs[0].to_bytes())
        + field(2, FULL.listen_addrs[1].to_bytes())
        + field(3, b"/a/1")
        + field(3, b"/b/2")
        + field(4, parse("/ip4/5.6.7.8/tcp/1").to_bytes())
        + field(5, b"ipfs/0.1.0")
        + field(6, b"us/1")
        + field(8, b"envelope")
    )


def test_round_trip() -> None:
    assert decode([encode(FULL)]) == FULL
    assert decode([encode(IdentifyInfo())]) == IdentifyInfo() == decode([])


def test_i2_several_messages_add_up() -> None:
    parts = [field(2, FULL.listen_addrs[0].to_bytes()) + field(6, b"old"), field(8, b"envelope"), field(6, b"new")]
    parts.append(field(2, FULL.listen_addrs[1].to_bytes()))
    info = decode(parts)
    assert info.listen_addrs == FULL.listen_addrs
    assert info.agent_version == "new"
    assert info.signed_peer_record == b"envelope"
    assert decode([field(6, b"x")] * MAX_PARTS).agent_version == "x"
    with pytest.raises(DecodeError, match="more than 10"):
        decode([b""] * (MAX_PARTS + 1))


def test_what_cannot_be_read_is_left_out_alone() -> None:
    good = FULL.listen_addrs[0]
    info = decode(
        [
            field(2, b"\xff\xff\xff")
            + field(2, b"")
            + field(2, good.to_bytes())
            + field(2, good.to_bytes())
            + field(3, b"\xff\xfe")
            + field(3, b"")
            + field(3, b"/" + b"x" * 2000)
            + field(3, b"/ok")
            + field(3, b"/ok")
            + field(4, b"nonsense")
            + field(6, b"\xffagent")
            + field(99 // 9, b"unknown")
        ]
    )
    assert info.listen_addrs == (good,)
    assert info.protocols == ("/ok",)
    assert info.observed_addr is None
    assert info.agent_version == "\ufffdagent"


def test_texts_are_fit_for_a_terminal() -> None:
    info = decode([field(6, b"a\x1b[31m\n" + b"b" * 5000) + field(5, "ü\u202e".encode())])
    assert info.agent_version is not None
    assert info.agent_version.startswith("a?[31m?bbb")
    assert len(info.agent_version) == MAX_TEXT
    assert info.protocol_version == "ü?"


@pytest.mark.parametrize("data", [b"\x0a", b"\x0a\x05abc", b"\xff\xff", b"\x00"])
def test_no_identify_message(data: bytes) -> None:
    with pytest.raises(DecodeError):
        decode([data])


@given(st.lists(st.binary(max_size=200), max_size=4))
@settings(max_examples=200)
def test_garbage_is_refused_or_read(parts: list[bytes]) -> None:
    try:
        info = decode(parts)
    except DecodeError:
        return
    assert decode([encode(info, max_length=10_000)]).protocols == info.protocols


# --- amounts ----------------------------------------------------------------------------------------------------------


def many_addrs(count: int):
    return [ip_addr(f"10.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}", 4001) for n in range(count)]


def test_generated_code_agrees() -> None:
    message = identify_pb2.Identify(
        publicKey=FULL.public_key,
        listenAddrs=[addr.to_bytes() for addr in FULL.listen_addrs],
        protocols=FULL.protocols,
        observedAddr=parse("/ip4/5.6.7.8/tcp/1").to_bytes(),
        protocolVersion=FULL.protocol_version,
        agentVersion=FULL.agent_version,
        signedPeerRecord=FULL.signed_peer_record,
    )
    assert message.SerializeToString() == encode(FULL)
    assert decode([message.SerializeToString()]) == FULL


def test_case_i1_only_so_many_are_kept() -> None:
    message = b"".join(field(2, addr.to_bytes()) for addr in many_addrs(600))
    message += b"".join(field(3, f"/p/{n}".encode()) for n in range(200))
    info = decode([message])
    assert info.listen_addrs == tuple(many_addrs(MAX_ADDRS))
    assert info.protocols == tuple(f"/p/{n}" for n in range(MAX_PROTOCOLS))


@pytest.mark.parametrize("number", [2, 3, 15], ids=["addresses", "protocols", "unknown"])
def test_case_i1_the_fields_of_all_messages_together_are_bounded(number: int) -> None:
    """Two bytes make a field: the longest answer would hold 40,960, and hold up the node while they are read."""
    half = field(number, b"") * (MAX_FIELDS // 2)
    decode([half, half])
    with pytest.raises(DecodeError, match="too many fields"):
        decode([half, half, field(number, b"")])


def test_i8_what_is_sent_fits_into_4096_bytes() -> None:
    many = IdentifyInfo(
        public_key=b"k" * 36,
        listen_addrs=tuple(many_addrs(300)),
        protocols=tuple(f"/protocol/{n}/1.0.0" for n in range(300)),
        protocol_version="p" * 1000,
        agent_version="a" * 1000,
        signed_peer_record=b"e" * 300,
    )
    data = encode(many)
    assert MAX_SENT - 30 < len(data) <= MAX_SENT
    info = decode([data])
    assert info.signed_peer_record is None
    assert info.public_key == many.public_key
    assert info.listen_addrs[:8] == many.listen_addrs[:8]
    assert info.protocols == many.protocols[: len(info.protocols)]
    assert len(info.protocols) > 100
    assert info.agent_version == "a" * MAX_TEXT


def test_i8_the_record_goes_first() -> None:
    addrs, protocols = tuple(many_addrs(10)), tuple(f"/p/{n}" for n in range(20))
    fits = IdentifyInfo(listen_addrs=addrs, protocols=protocols, signed_peer_record=b"e" * 3000)
    assert decode([encode(fits)]) == fits
    too_long = IdentifyInfo(listen_addrs=addrs, protocols=protocols, signed_peer_record=b"e" * 4000)
    info = decode([encode(too_long)])
    assert info.signed_peer_record is None
    assert info.listen_addrs == addrs
    assert info.protocols == protocols


@given(st.integers(0, 60), st.integers(0, 60), st.integers(0, 2000), st.integers(100, 3000))
@settings(max_examples=60)
def test_i8_for_any_limit(addrs: int, protocols: int, record: int, limit: int) -> None:
    info = IdentifyInfo(
        listen_addrs=tuple(many_addrs(addrs)),
        protocols=tuple(f"/p/{n}" for n in range(protocols)),
        signed_peer_record=b"e" * record or None,
    )
    assert len(encode(info, max_length=limit)) <= limit


# --- pushes -----------------------------------------------------------------------------------------------------------


def test_i4_a_push_replaces_what_it_says() -> None:
    assert merge(FULL, IdentifyInfo()) == FULL
    changed = merge(FULL, IdentifyInfo(protocols=("/c/3",), agent_version=""))
    assert changed.protocols == ("/c/3",)
    assert changed.agent_version == ""
    assert changed.listen_addrs == FULL.listen_addrs
    assert changed.signed_peer_record == b"envelope"


def test_i4_new_addresses_do_not_keep_the_old_record() -> None:
    moved = merge(FULL, IdentifyInfo(listen_addrs=FULL.listen_addrs[:1]))
    assert moved.signed_peer_record is None
    assert moved.listen_addrs == FULL.listen_addrs[:1]
    certified = merge(FULL, IdentifyInfo(signed_peer_record=b"newer"))
    assert certified.listen_addrs == ()
    assert certified.signed_peer_record == b"newer"


# --- addresses --------------------------------------------------------------------------------------------------------

ALL = [
    parse(text)
    for text in (
        "/ip4/127.0.0.1/tcp/1",
        "/ip4/192.168.1.2/tcp/1",
        "/ip4/169.254.1.1/tcp/1",
        "/ip4/8.8.8.8/tcp/1",
        "/ip4/0.0.0.0/tcp/1",
        "/dns/example.com/tcp/1",
        "/memory/7",
    )
]


@pytest.mark.parametrize(
    ("remote", "kept"),
    [
        ("/ip4/127.0.0.1/tcp/9", (0, 1, 2, 3, 5, 6)),
        ("/memory/3", (0, 1, 2, 3, 5, 6)),
        ("/ip4/10.1.1.1/tcp/9", (1, 2, 3, 5)),
        ("/ip6/fe80::1/tcp/9", (1, 2, 3, 5)),
        ("/ip4/9.9.9.9/tcp/9", (3, 5)),
    ],
)
def test_i9_addresses_of_other_scopes(remote: str, kept: tuple[int, ...]) -> None:
    assert believable(ALL, parse(remote)) == tuple(ALL[index] for index in kept)


def test_i9_loopback() -> None:
    assert without_loopback(ALL) == tuple(ALL[1:])


# --- rates ------------------------------------------------------------------------------------------------------------


def test_rate_limit() -> None:
    rate = RateLimit(rate=0.5, burst=3, sources=2)
    assert [rate.take("a", 0.0) for _ in range(5)] == [True, True, True, False, False]
    assert [rate.take("a", now) for now in (1.0, 2.0, 2.5, 4.0)] == [False, True, False, True]
    assert rate.take("b", 4.0)
    assert [rate.take("a", 1000.0) for _ in range(4)] == [True, True, True, False]


def test_rate_limit_forgets_who_is_quiet() -> None:
    rate = RateLimit(rate=0.0, burst=1, sources=2)
    assert rate.take("a", 0.0)
    assert not rate.take("a", 0.0)
    assert all(rate.take(source, 0.0) for source in ("b", "c"))
    assert rate.take("a", 0.0)
    assert list(itertools.islice(rate._buckets, 3)) == ["c", "a"]
