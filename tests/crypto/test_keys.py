"""What is common to all key types (checklist K1 to K3, K13; reliability cases S2 and S5)."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libp2p.crypto import _codec
from libp2p.crypto.keys import (
    KeyType,
    PrivateKey,
    PublicKey,
    generate,
    unmarshal_private_key,
    unmarshal_public_key,
)
from libp2p.errors import DecodeError
from libp2p.pb import keys_pb2
from libp2p.wire import varint
from tests.crypto.vectors import VECTORS, Vector, private_key

PRIVATE = {key_type: private_key(key_type) for key_type in KeyType}
PUBLIC = {key_type: unmarshal_public_key(vector.public) for key_type, vector in VECTORS.items()}

every_vector = pytest.mark.parametrize("vector", VECTORS.values(), ids=lambda vector: vector.key_type.name)
every_type = pytest.mark.parametrize("key_type", KeyType, ids=lambda key_type: key_type.name)


# --- the serialized form ----------------------------------------------------------------------------------------------


@every_vector
def test_k1_k2_v1_vectors_decode_and_encode_to_the_same_bytes(vector: Vector) -> None:
    public, private = unmarshal_public_key(vector.public), unmarshal_private_key(vector.private)
    assert public.key_type is private.key_type is vector.key_type
    assert public.marshal() == vector.public
    assert private.marshal() == vector.private
    assert private.public_key == public


@every_vector
def test_k1_protobuf_agrees(vector: Vector) -> None:
    public = keys_pb2.PublicKey.FromString(vector.public)
    assert int(public.Type) == vector.key_type
    assert public.Data == unmarshal_public_key(vector.public).raw
    private = keys_pb2.PrivateKey.FromString(vector.private)
    assert int(private.Type) == vector.key_type
    assert private.Data == unmarshal_private_key(vector.private).raw
    assert private.SerializeToString(deterministic=True) == vector.private


def test_k2_the_zero_of_rsa_is_written() -> None:
    assert PUBLIC[KeyType.RSA].marshal()[:3] == b"\x08\x00\x12"


@every_vector
def test_k13_every_truncation_is_refused(vector: Vector) -> None:
    for data, decode in ((vector.public, unmarshal_public_key), (vector.private, unmarshal_private_key)):
        for size in (*range(40), *range(40, len(data), 97), len(data) - 1):
            if size < len(data):
                with pytest.raises(DecodeError):
                    decode(data[:size])


@every_vector
def test_k13_trailing_bytes_are_refused(vector: Vector) -> None:
    for more in (b"\x00", b"\x18\x00", b"\x1a\x00", vector.public):
        with pytest.raises(DecodeError):
            unmarshal_public_key(vector.public + more)
        with pytest.raises(DecodeError):
            unmarshal_private_key(vector.private + more)


@every_vector
def test_k2_other_spellings_of_the_same_protobuf_are_refused(vector: Vector) -> None:
    key_type, raw = vector.key_type, PUBLIC[vector.key_type].raw
    length = varint.encode(len(raw))
    type_field, data_field = bytes((8, key_type)), b"\x12" + length + raw
    for data in (
        data_field + type_field,  # order
        bytes((8, key_type | 0x80, 0)) + data_field,  # long varint
        bytes((0x88, 0, key_type)) + data_field,  # long tag
        type_field + b"\x12" + length[:-1] + bytes((length[-1] | 0x80, 0)) + raw,  # long length
        type_field + data_field + data_field,  # twice
        type_field + type_field + data_field,
        type_field,  # missing fields
        data_field,
        b"\x18\x00" + type_field + data_field,  # unknown field
    ):
        with pytest.raises(DecodeError):
            unmarshal_public_key(data)


@pytest.mark.parametrize("number", [4, 5, 127, 128, 2**32, 2**63 - 1])
def test_s5_unknown_type_is_refused(number: int) -> None:
    data = _codec.encode(number, bytes(32))
    for decode in (unmarshal_public_key, unmarshal_private_key):
        with pytest.raises(DecodeError, match=f"unknown key type {number}"):
            decode(data)


@every_type
def test_s5_a_key_of_another_type_is_refused(key_type: KeyType) -> None:
    for other in KeyType:
        if other is not key_type:
            with pytest.raises(DecodeError):
                unmarshal_public_key(_codec.encode(key_type, PUBLIC[other].raw))
            with pytest.raises(DecodeError):
                unmarshal_private_key(_codec.encode(key_type, PRIVATE[other].raw))


@pytest.mark.parametrize("size", [16 * 1024 + 1, 1024 * 1024])
def test_s5_giant_key_message_is_refused_unread(size: int) -> None:
    data = b"\x08\x00\x12".ljust(size, b"\x30")
    for decode in (unmarshal_public_key, unmarshal_private_key):
        with pytest.raises(DecodeError, match="above the limit of 16384"):
            decode(data)


@pytest.mark.parametrize("data", [b"", b"\x08", b"\x08\x01", b"\x08\x01\x12", b"\x08\x01\x12\x80", b"\x12\x00"])
def test_k1_both_fields_are_required(data: bytes) -> None:
    with pytest.raises(DecodeError):
        unmarshal_public_key(data)


@every_type
@pytest.mark.parametrize("raw", [b"", b"\x00", b"\x30", b"\x30\x80", bytes(32), bytes(33), bytes(64), b"\xff" * 200])
def test_k13_data_that_is_no_key(key_type: KeyType, raw: bytes) -> None:
    if key_type is KeyType.ED25519 and len(raw) == 64:
        raw = raw[1:] + b"\x01"  # 64 zero bytes would be a seed and a wrong public key as well
    with pytest.raises(DecodeError):
        unmarshal_private_key(_codec.encode(key_type, raw if len(raw) != 32 else bytes(31)))
    with pytest.raises(DecodeError):
        unmarshal_public_key(_codec.encode(key_type, raw))


# --- signatures -------------------------------------------------------------------------------------------------------


@every_type
def test_k3_sign_and_verify(key_type: KeyType) -> None:
    private, public = PRIVATE[key_type], PUBLIC[key_type]
    for data in (b"", b"x", bytes(100_000)):
        signature = private.sign(data)
        assert public.verify(data, signature)
        assert not public.verify(data + b"\x00", signature)


@every_type
def test_s2_every_flipped_byte_is_refused(key_type: KeyType) -> None:
    signature = PRIVATE[key_type].sign(b"data")
    for position in range(len(signature)):
        changed = bytearray(signature)
        changed[position] ^= 0x01
        assert not PUBLIC[key_type].verify(b"data", bytes(changed)), position


@every_type
def test_s2_malformed_signatures_are_refused_without_an_exception(key_type: KeyType) -> None:
    signature = PRIVATE[key_type].sign(b"data")
    for wrong in (b"", b"\x00", signature[:-1], signature + b"\x00", b"\x00" + signature, bytes(len(signature)),
                  b"\xff" * len(signature), b"\x30\x06\x02\x01\x00\x02\x01\x00", bytes(10_000)):  # fmt: skip
        assert PUBLIC[key_type].verify(b"data", wrong) is False


def test_s2_signatures_of_other_keys_and_types_are_refused() -> None:
    signatures = {key_type: key.sign(b"data") for key_type, key in PRIVATE.items()}
    for key_type, public in PUBLIC.items():
        for other, signature in signatures.items():
            assert public.verify(b"data", signature) == (key_type is other)
    for key_type in (KeyType.ED25519, KeyType.SECP256K1, KeyType.ECDSA):
        assert not PUBLIC[key_type].verify(b"data", generate(key_type).sign(b"data"))


# --- objects ----------------------------------------------------------------------------------------------------------


@every_type
def test_k3_generated_keys(key_type: KeyType) -> None:
    key = generate(key_type)
    assert key.key_type is key.public_key.key_type is key_type
    assert unmarshal_private_key(key.marshal()) == key
    assert unmarshal_public_key(key.public_key.marshal()) == key.public_key
    assert key.public_key.verify(b"data", unmarshal_private_key(key.marshal()).sign(b"data"))


def test_ed25519_is_the_default() -> None:
    assert generate().key_type is KeyType.ED25519
    assert generate() != generate()


@pytest.mark.parametrize("bits", [0, 1024, 2047, 8193])
def test_k12_rsa_sizes_to_generate(bits: int) -> None:
    with pytest.raises(ValueError, match="2048 to 8192"):
        generate(KeyType.RSA, bits=bits)


@every_vector
def test_keys_are_values(vector: Vector) -> None:
    public, private = unmarshal_public_key(vector.public), unmarshal_private_key(vector.private)
    assert public == PUBLIC[vector.key_type]
    assert private == PRIVATE[vector.key_type]
    assert hash(public) == hash(PUBLIC[vector.key_type])
    assert hash(private) == hash(PRIVATE[vector.key_type])
    assert public != private
    assert private != public
    assert len({*PUBLIC.values(), public}) == len(KeyType)
    assert copy.deepcopy(public) == pickle.loads(pickle.dumps(public)) == public


@every_vector
def test_text_of_a_private_key_shows_no_secret(vector: Vector) -> None:
    private = unmarshal_private_key(vector.private)
    assert repr(private) == str(private) == f"<PrivateKey of {private.public_key!r}>"
    assert repr(private.public_key).startswith(f"<PublicKey {vector.key_type.name} ")
    with pytest.raises(TypeError):
        pickle.dumps(private)


def test_the_base_classes_are_abstract() -> None:
    for cls in (PublicKey, PrivateKey):
        with pytest.raises(TypeError):
            cls()  # type: ignore[abstract, call-arg]


def test_key_types_that_are_not_used_are_not_loaded() -> None:
    code = (
        "import sys, libp2p; early = {'nacl', 'coincurve'} & sys.modules.keys(); libp2p.crypto.keys.generate(); "
        "unused = {'libp2p.crypto.rsa', 'libp2p.crypto.secp256k1', 'coincurve'} & sys.modules.keys(); "
        "sys.exit(bool(early or unused) or 'libp2p.crypto.ed25519' not in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


# --- fuzz -------------------------------------------------------------------------------------------------------------


@settings(max_examples=300)
@given(st.binary(max_size=200))
def test_k13_any_bytes_are_no_key_or_one_in_its_one_form(data: bytes) -> None:
    for decode in (unmarshal_public_key, unmarshal_private_key):
        try:
            key = decode(data)
        except DecodeError:
            continue
        assert key.marshal() == data


@settings(max_examples=300)
@given(st.sampled_from(KeyType), st.binary(max_size=130))
def test_k13_any_data_of_a_known_type(key_type: KeyType, raw: bytes) -> None:
    data = _codec.encode(key_type, raw)
    for decode in (unmarshal_public_key, unmarshal_private_key):
        try:
            key = decode(data)
        except DecodeError:
            continue
        assert key.marshal() == data


@settings(max_examples=200)
@given(st.sampled_from(list(VECTORS.values())), st.integers(0, 600), st.integers(1, 255))
def test_k13_one_changed_byte(vector: Vector, position: int, change: int) -> None:
    data = bytearray(vector.public)
    data[position % len(data)] ^= change
    try:
        key = unmarshal_public_key(bytes(data))
    except DecodeError:
        return
    assert key.marshal() == data
    assert key != PUBLIC[vector.key_type]
    assert not key.verify(b"data", PRIVATE[vector.key_type].sign(b"data"))
