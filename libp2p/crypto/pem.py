"""Keys in the files other tools make: PEM as OpenSSL writes it, and the format of OpenSSH.

libp2p itself stores keys in its own serialized form, see :mod:`libp2p.crypto.key_file`.
"""

from __future__ import annotations

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey as _Ed25519
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey as _Rsa

from ..errors import DecodeError
from . import ecdsa, ed25519, rsa, secp256k1
from .keys import PrivateKey


def load_pem(data: bytes, password: bytes | None = None) -> PrivateKey:
    """Return the private key in PEM text: PKCS #8, the older OpenSSL forms, or OpenSSH.

    Args:
        data: the content of the file.
        password: what it is encrypted with, None for none.

    Raises:
        DecodeError: it is not a private key, the password is wrong, missing or superfluous, or the key is of a type,
            curve or size that libp2p does not use.
    """
    load = serialization.load_pem_private_key
    if b"BEGIN OPENSSH PRIVATE KEY" in data:
        load = serialization.load_ssh_private_key
    try:
        key = load(data, password)
    except (ValueError, TypeError, UnsupportedAlgorithm) as exc:
        raise DecodeError(f"not a usable PEM private key: {exc}") from exc
    if isinstance(key, _Ed25519):
        return ed25519.Ed25519PrivateKey(key.private_bytes_raw())
    if isinstance(key, _Rsa):
        found = rsa.RsaPrivateKey(key)
        # For the checks of its size. The private half was checked when it was loaded.
        rsa.decode_public(found.public_key.raw)
        return found
    if isinstance(key, ec.EllipticCurvePrivateKey):
        if isinstance(key.curve, ec.SECP256K1):
            return secp256k1.Secp256k1PrivateKey(key.private_numbers().private_value.to_bytes(32, "big"))
        if isinstance(key.curve, ec.SECP256R1):
            return ecdsa.EcdsaPrivateKey(key)
    raise DecodeError("a private key of a type or curve that libp2p does not use")
