"""ECDSA keys on P-256 (checklist K7)."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from libp2p.crypto import ecdsa
from libp2p.crypto.keys import KeyType, generate
from libp2p.errors import DecodeError
from tests.crypto.vectors import private_key

KEY = private_key(KeyType.ECDSA)
N = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def public_der(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def private_der(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )


def test_k7_the_der_is_what_openssl_writes_and_reads() -> None:
    for _ in range(8):
        key = generate(KeyType.ECDSA)
        public = serialization.load_der_public_key(key.public_key.raw)
        private = serialization.load_der_private_key(key.raw, None)
        assert isinstance(public, ec.EllipticCurvePublicKey)
        assert isinstance(private, ec.EllipticCurvePrivateKey)
        assert public_der(public) == key.public_key.raw
        assert private_der(private) == key.raw


@pytest.mark.parametrize("curve", [ec.SECP224R1(), ec.SECP384R1(), ec.SECP521R1(), ec.SECP256K1()])
def test_k7_other_curves_are_refused(curve: ec.EllipticCurve) -> None:
    key = ec.generate_private_key(curve)
    with pytest.raises(DecodeError):
        ecdsa.decode_public(public_der(key.public_key()))
    with pytest.raises(DecodeError):
        ecdsa.decode_private(private_der(key))


def changed(raw: bytes, position: int, value: int) -> bytes:
    data = bytearray(raw)
    data[position] = value
    return bytes(data)


@pytest.mark.parametrize(
    "raw",
    [
        changed(KEY.public_key.raw, -1, KEY.public_key.raw[-1] ^ 1),  # not on the curve
        changed(KEY.public_key.raw, 26, 6),  # hybrid point
        KEY.public_key.raw[:26] + b"\x04" + bytes(64),
        KEY.public_key.raw[:26] + b"\x04" + b"\xff" * 64,
        KEY.public_key.raw[:26] + b"\x02" + KEY.public_key.raw[27:59],  # compressed point
        KEY.public_key.raw[26:],  # point alone
        KEY.public_key.raw + b"\x00",
        KEY.public_key.raw[:-1],
        b"",
    ],
)
def test_s5_public_keys_that_are_none(raw: bytes) -> None:
    with pytest.raises(DecodeError):
        ecdsa.decode_public(raw)


@pytest.mark.parametrize(
    "raw",
    [
        KEY.raw[:7] + bytes(32) + KEY.raw[39:],
        KEY.raw[:7] + N.to_bytes(32, "big") + KEY.raw[39:],
        changed(KEY.raw, 38, KEY.raw[38] ^ 1),  # the public point is another key's
        changed(KEY.raw, -1, KEY.raw[-1] ^ 1),
        changed(KEY.raw, 45, 0),
        KEY.raw + b"\x00",
        KEY.raw[:-1],
        KEY.raw[:39],
        KEY.raw[:20],
        b"",
    ],
)
def test_k7_private_keys_that_are_none(raw: bytes) -> None:
    with pytest.raises(DecodeError):
        ecdsa.decode_private(raw)
