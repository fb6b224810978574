"""Multihash, multibase and CID."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libp2p.errors import DecodeError
from libp2p.wire import multihash, varint

BASES = ["base16", "base32", "base36", "base58btc", "base64url"]
# multiformats/multibase, tests/basic.csv and leading_zero.csv
KNOWN = {
    b"yes mani !": {
        "base16": "f796573206d616e692021",
        "base32": "bpfsxgidnmfxgsibb",
        "base36": "k2lcpzo5yikidynfl",
        "base58btc": "z7paNL19xttacUY",
        "base64url": "ueWVzIG1hbmkgIQ",
    },
    b"\x00\x00yes mani !": {
        "base16": "f0000796573206d616e692021",
        "base32": "baaahszltebwwc3tjeaqq",
        "base36": "k002lcpzo5yikidynfl",
        "base58btc": "z117paNL19xttacUY",
        "base64url": "uAAB5ZXMgbWFuaSAh",
    },
    b"": dict(zip(BASES, "fbkzu", strict=True)),
}


def test_identity_and_sha2_256() -> None:
    assert multihash.identity(b"abc") == b"\x00\x03abc"
    assert multihash.sha2_256(b"abc") == b"\x12\x20" + hashlib.sha256(b"abc").digest()
    assert multihash.decode(b"\x00\x03abc") == (0, b"abc")
    assert multihash.decode(b"\xb2\x20\x01x") == (0x1032, b"x")


@pytest.mark.parametrize("data", [b"", b"\x00", b"\x00\x02a", b"\x00\x01ab", b"\x80\x00\x01a", b"\x12\xff"])
def test_malformed_multihash(data: bytes) -> None:
    with pytest.raises(DecodeError):
        multihash.decode(data)


@pytest.mark.parametrize("data", [multihash.sha2_256(b""), multihash.identity(b"x"), multihash.identity(bytes(42))])
def test_k8_multihashes_of_peers(data: bytes) -> None:
    multihash.check_peer_multihash(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        b"\x00\x00",
        b"\x00\x02a",
        b"\x00\x01ab",
        multihash.identity(bytes(43)),
        multihash.sha2_256(b"")[:-1],
        multihash.sha2_256(b"") + b"\x00",
        b"\x12\x1f" + bytes(31),
        b"\x13\x20" + bytes(32),
        b"\x16\x20" + bytes(32),
    ],
)
def test_k8_multihashes_of_nobody(data: bytes) -> None:
    with pytest.raises(DecodeError):
        multihash.check_peer_multihash(data)


@pytest.mark.parametrize("data", KNOWN)
@pytest.mark.parametrize("base", BASES)
def test_known_texts(data: bytes, base: str) -> None:
    text = KNOWN[data][base]
    assert multihash.encode_multibase(base, data) == text
    assert multihash.decode_multibase(text) == data


def test_upper_case_twins() -> None:
    assert multihash.decode_multibase("BPFSXGIDNMFXGSIBB") == b"yes mani !"
    assert multihash.decode_multibase("K2LCPZO5YIKIDYNFL") == b"yes mani !"
    assert multihash.decode_multibase("F796573206D616E692021") == b"yes mani !"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x123",
        "Bpfsx",  # mixed case
        "bPFSX",
        "bpfsx1",  # not in the alphabet
        "bab",  # left-over bits
        "bpfsxgidnmfxgsibb======",  # padding
        "bpf=x",
        "bé",
        "k-1",
        "k 1",
        "k1_0",
        "k٣",
        "kZ",
        "z0",
        "zl1O",
        "z7paNL19xttacUY ",
        "zé",
        "ueWVzIG1hbmkgIQ==",
        "ueWVzIG1hbmkgIR",
        "ueWV+",
        "ue",
        "f7",
        "f79 6",
        "fxy",
        "b" + "a" * 256,
    ],
)
def test_texts_that_nobody_would_write(text: str) -> None:
    with pytest.raises(DecodeError):
        multihash.decode_multibase(text)


@pytest.mark.parametrize("text", [" ", "1 ", "\n", "0", "é", "1" * 257])
def test_base58_alone_is_as_strict(text: str) -> None:
    with pytest.raises(DecodeError):
        multihash.decode_base58(text)


def test_an_unknown_base_is_a_callers_mistake() -> None:
    with pytest.raises(ValueError, match="unknown base 'base64'"):
        multihash.encode_multibase("base64", b"")


def test_cid_has_version_1_and_the_codec_of_keys() -> None:
    found = multihash.sha2_256(b"")
    assert multihash.from_cid(multihash.to_cid(found)) == found
    for head in (b"", b"\x01", b"\x02\x72", b"\x01\x70", b"\x72\x01"):
        with pytest.raises(DecodeError):
            multihash.from_cid(head + found)


@given(st.sampled_from(BASES), st.binary(max_size=60))
def test_round_trip_of_text(base: str, data: bytes) -> None:
    assert multihash.decode_multibase(multihash.encode_multibase(base, data)) == data


@given(st.text("fbkzuBKF", max_size=1), st.text("0123abcxyzABCXYZ=-_ +é", max_size=20))
def test_any_text_gives_bytes_in_their_one_form_or_the_typed_error(prefix: str, body: str) -> None:
    try:
        data = multihash.decode_multibase(prefix + body)
    except DecodeError:
        return
    bases = {"f": "base16", "b": "base32", "k": "base36", "z": "base58btc", "u": "base64url"}
    written = multihash.encode_multibase(bases[prefix.lower()], data)
    assert written == (prefix + body if prefix.islower() else (prefix + body).lower())


@given(st.binary(max_size=50))
def test_any_bytes_give_a_multihash_or_the_typed_error(data: bytes) -> None:
    try:
        code, digest = multihash.decode(data)
    except DecodeError:
        return
    assert varint.encode(code) + varint.encode(len(digest)) + digest == data
