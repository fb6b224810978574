"""Multiaddrs in bytes and text (checklist A1, A3, A4, A10, A11, section 0.2)."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from multiaddr.protocols import PROTOCOLS

from libp2p.errors import DecodeError
from libp2p.wire import maddr, multihash, varint
from libp2p.wire.maddr import Part

PEER = "12D3KooWBtg3aaRMjxwedh83aGiUkwSxDwUZkzuJcfaqUmo7R3pq"
PEER_BYTES = multihash.decode_base58(PEER)
ONION3 = "vww6ybal4bd7szmgncyruucpgfkqahzddi37ktceo3ah7ngmcopnpyyd:1234"

# One of each protocol: text and bytes, codes from section 0.2 and multiformats/multicodec.
KNOWN = {
    "/ip4/1.2.3.4": "04 01020304",
    "/tcp/4001": "06 0fa1",
    "/dccp/1": "21 0001",
    "/ip6/2001:db8::1": "29 20010db8000000000000000000000001",
    "/ip6/::ffff:1.2.3.4": "29 00000000000000000000ffff01020304",
    "/ip6/::": "29 00000000000000000000000000000000",
    "/ip6zone/eth0/ip6/fe80::1": "2a 04 65746830 29 fe800000000000000000000000000001",
    "/ip4/10.0.0.0/ipcidr/8": "04 0a000000 2b 08",
    "/dns/example.com": "35 0b 6578616d706c652e636f6d",
    "/dns4/a_b": "36 03 615f62",
    "/dns6/x": "37 01 78",
    "/dnsaddr/bücher.example": "38 0f 62c3bc636865722e6578616d706c65",
    "/sctp/1": "8401 0001",
    "/udp/65535": "9102 ffff",
    "/p2p-webrtc-star": "9302",
    "/p2p-webrtc-direct": "9402",
    "/webrtc-direct": "9802",
    "/webrtc": "9902",
    "/p2p-circuit": "a202",
    "/udt": "ad02",
    "/utp": "ae02",
    "/unix/run/p2p.sock": "9003 0d 2f72756e2f7032702e736f636b",
    "/p2p/" + PEER: "a503 26 " + PEER_BYTES.hex(),
    "/https": "bb03",
    "/onion/aaimaq4ygg2iegci:80": "bc03 0010c0439831b48218480050",
    "/onion3/" + ONION3: "bd03 adadec040be047f9658668b11a504f3155001f231a37f54c4476c07fb4cc139ed7e30304d2",
    "/garlic32/" + "a" * 52: "bf03 20 " + "00" * 32,
    "/tls": "c003",
    "/sni/example.com": "c103 0b 6578616d706c652e636f6d",
    "/noise": "c603",
    "/quic": "cc03",
    "/quic-v1": "cd03",
    "/webtransport": "d103",
    "/certhash/uEiAkH5a4DPGKUuOBjYw0CgwjvcJCJMD2K_1aluKR_tpevQ": (
        "d203 22 1220241f96b80cf18a52e3818d8c340a0c23bdc24224c0f62bfd5a96e291feda5ebd"
    ),
    "/ws": "dd03",
    "/wss": "de03",
    "/p2p-websocket-star": "df03",
    "/http": "e003",
    "/http-path/a%2Fb%20c": "e103 05 612f622063",
    "/memory/18446744073709551615": "8906 ffffffffffffffff",
}


@pytest.mark.parametrize(("text", "data"), KNOWN.items())
def test_a1_both_forms(text: str, data: str) -> None:
    parts = maddr.split(bytes.fromhex(data))
    assert maddr.from_text(text) == parts
    assert maddr.to_text(parts) == text
    assert maddr.join(parts) == bytes.fromhex(data)


def test_a1_the_table_above_is_complete() -> None:
    seen = {part.name for text in KNOWN for part in maddr.from_text(text)}
    assert seen == set(maddr._BY_NAME) - {"garlic64"}


def test_a1_garlic64() -> None:
    text = "/garlic64/" + "~-" * 258
    [part] = maddr.from_text(text)
    assert len(part.value) == 387
    assert maddr.to_text(maddr.split(maddr.join([part]))) == text


def test_all_in_one() -> None:
    text = "".join(text for text in list(KNOWN)[:20] if "unix" not in text)
    assert maddr.to_text(maddr.split(maddr.join(maddr.from_text(text)))) == text


def test_values_as_text() -> None:
    assert [part.text for part in maddr.from_text(f"/ip4/1.2.3.4/udp/5/quic-v1/p2p/{PEER}")] == [
        "1.2.3.4", "5", "", PEER,
    ]  # fmt: skip


def test_a3_ipfs_is_p2p() -> None:
    assert maddr.from_text("/ipfs/" + PEER) == maddr.from_text("/p2p/" + PEER)
    assert maddr.to_text(maddr.from_text("/ipfs/" + PEER)) == "/p2p/" + PEER


def test_a4_all_texts_of_a_peer_give_the_multihash() -> None:
    for base in ("base16", "base32", "base36", "base58btc"):
        text = multihash.encode_multibase(base, multihash.to_cid(PEER_BYTES))
        assert maddr.from_text("/p2p/" + text) == (Part("p2p", PEER_BYTES),)


def test_a4_a_cid_in_binary_becomes_the_multihash() -> None:
    """The package multiaddr, and with it py-libp2p, sends CIDs."""
    cid = multihash.to_cid(PEER_BYTES)
    assert maddr.split(maddr.join([Part("p2p", cid)])) == (Part("p2p", PEER_BYTES),)


def test_slashes_at_the_end_are_ignored() -> None:
    assert maddr.from_text("/ip4/1.2.3.4/tcp/1//") == maddr.from_text("/ip4/1.2.3.4/tcp/1")
    assert maddr.from_text("/unix/a/b/") == maddr.from_text("/unix/a/b") == (Part("unix", b"/a/b"),)
    assert maddr.from_text("/") == ()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ip4/1.2.3.4",
        "//ip4/1.2.3.4",
        "/ip4//1.2.3.4",
        "/ip4",
        "/ip4/1.2.3.4/tcp",
        "/ip4/1.2.3",
        "/ip4/1.2.3.4.5",
        "/ip4/1.2.3.256",
        "/ip4/01.2.3.4",
        "/ip4/::1",
        "/ip4=1.2.3.4",
        "/ip6/1.2.3.4",
        "/ip6/fe80::1%eth0",
        "/ip6/:::",
        "/ip6zone/a b/ip6/::1",
        "/tcp/65536",
        "/tcp/-1",
        "/tcp/+1",
        "/tcp/1_0",
        "/tcp/ 1",
        "/tcp/٣",
        "/tcp/0x10",
        "/tcp/" + "0" * 30,
        "/ipcidr/256",
        "/memory/18446744073709551616",
        "/dns4/a b",
        "/dns4/a\nb",
        "/dns4/a\u2028b",
        "/dns4/a\x00b",
        "/dns4/" + "a" * 256,
        "/dns4/\ud800",
        "/p2p/abc",
        "/p2p/Qm",
        "/p2p/" + PEER[:-1],
        "/p2p/" + multihash.encode_multibase("base32", b"\x01\x70" + PEER_BYTES),
        "/certhash/uAAAA",
        "/certhash/xyz",
        "/onion/aaimaq4ygg2iegci:0",
        "/onion/aaimaq4ygg2iegci",
        "/onion/aaimaq4ygg2iegc:80",
        "/onion3/aaimaq4ygg2iegci:80",
        "/onion3/" + ONION3.replace("v", "1", 1),
        "/garlic32/" + "a" * 10,
        "/garlic32/" + "1" * 52,
        "/garlic64/" + "a" * 100,
        "/garlic64/" + "!" * 516,
        "/http-path",
        "/unix",
        "/unix/a\nb",
        "/unknown/1",
        "/4/1.2.3.4",
        "/IP4/1.2.3.4",
        "/ws" * 33,
        "/http-path/" + "a" * 4000,
    ],
)
def test_a10_a11_texts_that_are_none(text: str) -> None:
    with pytest.raises(DecodeError):
        maddr.from_text(text)


@pytest.mark.parametrize(
    "data",
    [
        "04",
        "04010203",
        "0600",
        "36",
        "3600",  # empty name
        "3605616263",
        "36 03 612f62",  # a slash would become a part of its own
        "36 03 612062",
        "36 03 610a62",
        "36 02 ffff",  # not UTF-8
        "36 ffffffffffffffff7f",  # giant length
        "36 8000",  # length not minimal
        "8400",  # code not minimal
        "848000",
        "80",
        "ffffffffffffffffff01",
        "00",
        "05 0000",
        "a503 00",
        "a503 04 00017800",  # a byte too many
        "a503 02 0172",  # CID of nothing
        "a503 04 01700001",
        "a503 22 1320" + "00" * 32,
        "d203 03 122000",
        "bc03" + "00" * 12,  # port 0
        "bf03 01 00",
        "be03 01 00",
        "e103 00",
        "9003 00",
        "9003 01 2f",
        "9003 02 2f61 dd03",  # goes on behind a path
        "dd03" * 33,
    ],
)
def test_a10_a11_bytes_that_are_none(data: str) -> None:
    with pytest.raises(DecodeError):
        maddr.split(bytes.fromhex(data))


def test_lengths_are_limited() -> None:
    maddr.split(maddr.join([Part("http-path", bytes(maddr.MAX_LENGTH - 4))]))
    with pytest.raises(DecodeError, match="above the limit of 1024"):
        maddr.split(maddr.join([Part("http-path", bytes(maddr.MAX_LENGTH - 3))]))


def test_paths_have_one_form() -> None:
    for value in (b"a/b", b"/a/b", b"//a/b//"):
        assert maddr.split(maddr.join([Part("unix", value)])) == (Part("unix", b"/a/b"),)


@pytest.mark.parametrize("part", [Part("nothing"), Part("ip4", b"\x01"), Part("tls", b"x"), Part("tcp")])
def test_joining_what_is_no_part_is_a_callers_mistake(part: Part) -> None:
    with pytest.raises(ValueError, match="no part of an address"):
        maddr.join([part])


SOME = [maddr.split(bytes.fromhex(data)) for data in KNOWN.values()]


@settings(max_examples=300)
@given(st.binary(max_size=60))
@example(b"\x36\x03\xc2\xa0a")
@example(b"\xe1\x03\x01\xff")
def test_a11_any_bytes_give_an_address_that_prints_or_the_typed_error(data: bytes) -> None:
    check_bytes(data)


@settings(max_examples=300)
@given(st.sampled_from(SOME), st.sampled_from(SOME), st.integers(0, 100), st.integers(0, 255))
def test_a11_one_changed_byte(one: tuple[Part, ...], other: tuple[Part, ...], position: int, value: int) -> None:
    data = bytearray(maddr.join(one + other))
    data[position % len(data)] = value
    check_bytes(bytes(data))


def check_bytes(data: bytes) -> None:
    try:
        parts = maddr.split(data)
    except DecodeError:
        return
    text = maddr.to_text(parts)
    assert text == "" or maddr.from_text(text) == parts
    assert text.isprintable()
    assert maddr.split(maddr.join(parts)) == parts
    # Only peers and paths have second forms.
    assert maddr.join(parts) == data or {"p2p", "unix"} & {part.name for part in parts}


@settings(max_examples=300)
@given(
    st.lists(st.sampled_from([*maddr._BY_NAME, "ipfs", "1.2.3.4", "::1", "80", "a", "", PEER]), max_size=6)
    | st.lists(st.text(max_size=8), max_size=6)
)
def test_a11_any_text_gives_an_address_or_the_typed_error(words: list[str]) -> None:
    try:
        parts = maddr.from_text("/" + "/".join(words))
    except DecodeError:
        return
    assert maddr.split(maddr.join(parts)) == parts
    assert maddr.from_text(maddr.to_text(parts) or "/") == parts


def test_codes_are_those_of_the_package() -> None:
    assert {protocol.name: varint.encode(protocol.code) for protocol in PROTOCOLS} == maddr._HEAD
