"""Keys from the files of other tools."""

from __future__ import annotations

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

KEYS = {
    KeyType.ED25519: ed25519.Ed25519PrivateKey.from_private_bytes(VECTORS[KeyType.ED25519].private[4:36]),
    KeyType.SECP256K1: ec.derive_private_key(
        int.from_bytes(VECTORS[KeyType.SECP256K1].private[4:], "big"), ec.SECP256K1()
    ),
    KeyType.ECDSA: serialization.load_der_private_key(VECTORS[KeyType.ECDSA].private[4:], None),
    KeyType.RSA: serialization.load_der_private_key(VECTORS[KeyType.RSA].private[5:], None),
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
    data = KEYS[key_type].private_bytes(PEM, form, PLAIN)  # type: ignore[union-attr]
    assert load_pem(data) == unmarshal_private_key(VECTORS[key_type].private)


def test_password() -> None:
    data = KEYS[KeyType.ED25519].private_bytes(PEM, PKCS8, SECRET)  # type: ignore[union-attr]
    assert load_pem(data, b"secret").key_type is KeyType.ED25519
    for wrong in (None, b"other"):
        with pytest.raises(DecodeError):
            load_pem(data, wrong)
    with pytest.raises(DecodeError):
        load_pem(KEYS[KeyType.ED25519].private_bytes(PEM, PKCS8, PLAIN), b"secret")  # type: ignore[union-attr]


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
