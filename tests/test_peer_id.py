"""Peer ids (checklist K8 to K11, K13; vectors V2)."""

from __future__ import annotations

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libp2p.crypto.keys import KeyType, generate, unmarshal_public_key
from libp2p.errors import DecodeError
from libp2p.peer_id import PeerId
from libp2p.wire import multihash
from tests.crypto.vectors import VECTORS, Vector

ED25519 = VECTORS[KeyType.ED25519]
RSA = VECTORS[KeyType.RSA]

every_vector = pytest.mark.parametrize("vector", VECTORS.values(), ids=lambda vector: vector.key_type.name)


@every_vector
def test_k8_k10_v2_id_of_a_key_in_all_texts(vector: Vector) -> None:
    peer = PeerId.from_key(unmarshal_public_key(vector.public))
    assert str(peer) == vector.base58
    assert peer.to_cid() == vector.base32
    assert peer.to_cid("base36") == vector.base36


@every_vector
def test_k9_v2_all_texts_are_one_peer(vector: Vector) -> None:
    peer = PeerId.from_key(unmarshal_public_key(vector.public))
    texts = [vector.base58, vector.base32, vector.base36, peer.to_cid("base58btc"), peer.to_cid("base16")]
    for text in texts:
        assert PeerId.parse(text) == PeerId.parse("/p2p/" + text) == PeerId.parse("/ipfs/" + text) == peer
        assert str(PeerId.parse(text)) == vector.base58
    assert PeerId.from_bytes(bytes(peer)) == peer


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (
            "bafzbeie5745rpv2m6tjyuugywy4d5ewrqgqqhfnf445he3omzpjbx5xqxe",
            "QmYyQSo1c1Ym7orWxLYvCrM2EmxFTANf8wXmmE7DWjhx5N",
        ),
        (
            "12D3KooWATZi2wFwQxQ14Z3q24TDNWKap6f8W5ryLE6Da4RMfsxy",
            "k51qzi5uqu5dgf513xbrfjl4smgo2eh1x8p8y6grzsf1oz0reiy56p65tds3s6",
        ),
    ],
)
def test_v2_examples_of_the_specification(one: str, other: str) -> None:
    assert PeerId.parse(one) == PeerId.parse(other)


def test_v2_example_in_identity_form() -> None:
    key = PeerId.parse("12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA").public_key()
    assert key is not None
    assert key.key_type is KeyType.ED25519


@pytest.mark.parametrize("key_type", [KeyType.ED25519, KeyType.SECP256K1])
def test_k11_short_keys_are_in_the_id(key_type: KeyType) -> None:
    key = generate(key_type).public_key
    peer = PeerId.from_key(key)
    assert peer.public_key() == key
    assert peer.matches(key)
    assert not peer.matches(generate(key_type).public_key)


@pytest.mark.parametrize("key_type", [KeyType.RSA, KeyType.ECDSA])
def test_k8_long_keys_are_hashed(key_type: KeyType) -> None:
    key = unmarshal_public_key(VECTORS[key_type].public)
    peer = PeerId.from_key(key)
    assert bytes(peer) == multihash.sha2_256(VECTORS[key_type].public)
    assert peer.public_key() is None
    assert peer.matches(key)


def test_s5_key_that_does_not_match_its_id() -> None:
    keys = {key_type: unmarshal_public_key(vector.public) for key_type, vector in VECTORS.items()}
    for one in keys:
        for other in keys:
            assert PeerId.from_key(keys[one]).matches(keys[other]) == (one is other)


def test_k8_the_hash_of_a_short_key_is_another_id() -> None:
    assert not PeerId.from_bytes(multihash.sha2_256(ED25519.public)).matches(unmarshal_public_key(ED25519.public))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "/p2p/",
        "/p2p/" + "/p2p/" + ED25519.base58,
        "/ip4/1.2.3.4",
        " " + ED25519.base58,
        ED25519.base58 + "\n",
        ED25519.base58 + "/",
        ED25519.base58[:-1],  # truncated
        ED25519.base58 + "1",
        ED25519.base58.replace("K", "0"),  # not in the alphabet
        RSA.base58[:-2],
        RSA.base58 + "a",
        "Qm",
        "1",
        "11",
        multihash.encode_base58(multihash.sha2_256(b"")[:-1]),  # CIDv0 of bad length
        multihash.encode_base58(b"\x16\x20" + bytes(32)),  # sha3-256
        multihash.encode_multibase("base32", b"\x01\x70" + multihash.sha2_256(b"")),  # codec dag-pb
        multihash.encode_multibase("base32", b"\x01\x55" + multihash.sha2_256(b"")),  # codec raw
        multihash.encode_multibase("base32", b"\x02\x72" + multihash.sha2_256(b"")),  # version 2
        multihash.encode_multibase("base32", multihash.sha2_256(b"")),  # no CID
        multihash.encode_multibase("base32", multihash.to_cid(b"\x13\x40" + bytes(64))),  # sha2-512
        RSA.base32.replace("b", "c", 1),  # another base
        RSA.base32[:-1],
        RSA.base32.upper()[:10] + RSA.base32[10:],
        "z" + ED25519.base58,  # multibase without CID
        "k" + "z" * 500,
        "1" * 10_000,
        "½",
    ],
)
def test_k9_texts_of_nobody(text: str) -> None:
    with pytest.raises(DecodeError):
        PeerId.parse(text)


@pytest.mark.parametrize(
    "data",
    [b"", b"\x00\x00", b"\x00\x01", multihash.identity(bytes(43)), b"\x12\x20" + bytes(31), b"\x12\x20" + bytes(33)],
)
def test_k9_k13_bytes_of_nobody(data: bytes) -> None:
    with pytest.raises(DecodeError):
        PeerId.from_bytes(data)


@pytest.mark.parametrize(
    "held",
    [
        b"x",
        ED25519.public[:-1],
        ED25519.public + b"\x00",
        b"\x08\x09" + ED25519.public[2:],  # unknown type
        b"\x08\x02\x12\x21\x02" + bytes(31) + b"\x05",  # not on the curve
    ],
)
def test_k11_an_id_that_holds_no_key(held: bytes) -> None:
    peer = PeerId.from_bytes(multihash.identity(held))
    with pytest.raises(DecodeError):
        peer.public_key()


def test_value_type() -> None:
    peer, same, other = PeerId.parse(ED25519.base58), PeerId.parse(ED25519.base32), PeerId.parse(RSA.base58)
    assert peer == same
    assert hash(peer) == hash(same)
    assert len({peer, same, other}) == 2
    assert peer != other
    assert peer != ED25519.base58
    assert copy.deepcopy(peer) == peer
    assert pickle.loads(pickle.dumps(peer)) == peer


def test_order_is_that_of_the_bytes() -> None:
    peers = [PeerId.parse(vector.base58) for vector in VECTORS.values()]
    assert [bytes(peer) for peer in sorted(peers)] == sorted(bytes(peer) for peer in peers)
    assert peers[0] <= peers[0]
    with pytest.raises(TypeError):
        peers[0] < 5  # noqa: B015


def test_it_does_not_change() -> None:
    peer = PeerId.parse(ED25519.base58)
    for name in ("_bytes", "_text", "new"):
        with pytest.raises(AttributeError):
            setattr(peer, name, b"")
    with pytest.raises(AttributeError):
        del peer._bytes
    with pytest.raises(TypeError):
        PeerId()


def test_bytes_are_copied() -> None:
    data = bytearray(multihash.sha2_256(b""))
    peer = PeerId.from_bytes(bytes(data))
    data[5] ^= 1
    assert bytes(peer) == multihash.sha2_256(b"")


def test_short_forms() -> None:
    peer = PeerId.parse(ED25519.base58)
    assert peer.short() == "…Umo7R3pq"
    assert repr(peer) == "<PeerId …Umo7R3pq>"


def test_an_unknown_base_is_a_callers_mistake() -> None:
    with pytest.raises(ValueError, match="unknown base"):
        PeerId.parse(ED25519.base58).to_cid("base2")


peer_bytes = st.binary(min_size=32, max_size=32).map(lambda digest: b"\x12\x20" + digest) | st.binary(
    min_size=1, max_size=42
).map(multihash.identity)


@given(peer_bytes)
def test_round_trip(data: bytes) -> None:
    peer = PeerId.from_bytes(data)
    assert bytes(peer) == data
    for text in (str(peer), peer.to_cid(), peer.to_cid("base36"), peer.to_cid("base58btc")):
        assert bytes(PeerId.parse(text)) == data


@given(st.binary(max_size=50) | peer_bytes)
def test_k13_any_bytes_give_an_id_or_the_typed_error(data: bytes) -> None:
    try:
        peer = PeerId.from_bytes(data)
        peer.public_key()
    except DecodeError:
        return
    assert bytes(peer) == data


@given(st.text(max_size=60) | st.text("1Qmbkz/p2abc", max_size=60))
def test_k9_any_text_gives_an_id_or_the_typed_error(text: str) -> None:
    try:
        peer = PeerId.parse(text)
    except DecodeError:
        return
    assert PeerId.parse(str(peer)) == peer
