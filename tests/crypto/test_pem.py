"""Keys from the files of other tools."""

from __future__ import annotations

from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

from libp2p.crypto.keys import KeyType, unmarshal_private_key
from libp2p.crypto.pem import load_pem
from libp2p.errors import DecodeError
from tests.crypto.vectors import VECTORS

PEM = serialization.Encoding.PEM
PKCS8 = serialization.PrivateFormat.PKCS8
OPENSSL = serialization.PrivateFormat.TraditionalOpenSSL
OPENSSH = serialization.PrivateFormat.OpenSSH
PLAIN = serialization.NoEncryption()
SECRET = serialization.BestAvailableEncryption(b"secret")

KEYS: dict[KeyType, Any] = {
    KeyType.ED25519: ed25519.Ed25519PrivateKey.from_private_bytes(VECTORS[KeyType.ED25519].private[4:36]),
    KeyType.SECP256K1: ec.derive_private_key(
        int.from_bytes(VECTORS[KeyType.SECP256K1].private[4:], "big"), ec.SECP256K1()
    ),
    KeyType.ECDSA: serialization.load_der_private_key(VECTORS[KeyType.ECDSA].private[4:], None),
    KeyType.RSA: rsa.generate_private_key(65537, 2048),
}
FORMATS = [
    (KeyType.ED25519, PKCS8),
    (KeyType.ED25519, OPENSSH),
    (KeyType.SECP256K1, PKCS8),
    (KeyType.SECP256K1, OPENSSL),
    (KeyType.ECDSA, PKCS8),
    (KeyType.ECDSA, OPENSSL),
    (KeyType.ECDSA, OPENSSH),
    (KeyType.RSA, PKCS8),
    (KeyType.RSA, OPENSSL),
    (KeyType.RSA, OPENSSH),
]


@pytest.mark.parametrize(("key_type", "form"), FORMATS)
def test_forms(key_type: KeyType, form: serialization.PrivateFormat) -> None:
    data = KEYS[key_type].private_bytes(PEM, form, PLAIN)
    key = load_pem(data)
    assert key.key_type is key_type
    if key_type is not KeyType.RSA:  # made on the spot: loading the vector would take seconds here
        assert key.marshal() == VECTORS[key_type].private
    assert key.public_key.verify(b"data", key.sign(b"data"))
    assert unmarshal_private_key(key.marshal()) == key


def test_password() -> None:
    data = KEYS[KeyType.ED25519].private_bytes(PEM, PKCS8, SECRET)
    assert load_pem(data, b"secret").key_type is KeyType.ED25519
    for wrong in (None, b"other"):
        with pytest.raises(DecodeError):
            load_pem(data, wrong)
    with pytest.raises(DecodeError):
        load_pem(KEYS[KeyType.ED25519].private_bytes(PEM, PKCS8, PLAIN), b"secret")


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP384R1()),
        ed448.Ed448PrivateKey.generate(),
        rsa.generate_private_key(65537, 1024),
    ],
    ids=lambda key: type(key).__name__,
)
def test_k7_k12_kinds_that_libp2p_does_not_use(key: ec.EllipticCurvePrivateKey) -> None:
    with pytest.raises(DecodeError):
        load_pem(key.private_bytes(PEM, PKCS8, PLAIN))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"text",
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
        b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n",
        VECTORS[KeyType.RSA].private,
    ],
)
def test_files_that_hold_no_key(data: bytes) -> None:
    with pytest.raises(DecodeError):
        load_pem(data)
