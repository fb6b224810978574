"""Identity keys that are the same in every run."""

from __future__ import annotations

import hashlib

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey as _RawKey

from ..crypto.keys import PrivateKey, unmarshal_private_key

__all__ = ["seeded_key"]

_ED25519_PREFIX = bytes((0x08, 0x01, 0x12, 0x40))
"""The key message's type and length in front of 64 bytes, seed and public key (libp2p/specs peer-ids)."""


def seeded_key(seed: object) -> PrivateKey:
    """Return an Ed25519 key made from ``seed``, which may be anything that prints. Not a secret, of course."""
    secret = hashlib.sha256(f"libp2p.testing/{seed}".encode()).digest()
    public = _RawKey.from_private_bytes(secret).public_key().public_bytes_raw()
    return unmarshal_private_key(_ED25519_PREFIX + secret + public)
