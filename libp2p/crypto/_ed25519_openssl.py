"""Ed25519 by ``cryptography``. See :mod:`libp2p.crypto._engine`."""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ._engine import Sign, Verify


def load_public(raw: bytes) -> Verify:
    """Prepare the 32 bytes of a public key."""
    key = Ed25519PublicKey.from_public_bytes(raw)

    def verify(data: bytes, signature: bytes) -> bool:
        try:
            key.verify(signature, data)
        except InvalidSignature:
            return False
        return True

    return verify


def load_private(raw: bytes) -> tuple[Sign, bytes]:
    """Prepare the 32 bytes of a seed."""
    key = Ed25519PrivateKey.from_private_bytes(raw)
    return key.sign, key.public_key().public_bytes_raw()
