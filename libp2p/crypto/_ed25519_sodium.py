"""Ed25519 by libsodium: half the time of OpenSSL. See :mod:`libp2p.crypto._engine`.

Its binding knows only signatures joined with what they sign, and copies that around. Together with a slower SHA-512
that makes long messages slow, so those are left to OpenSSL.

The releases of libsodium check what OpenSSL, Go and Rust check: S·B - h·A is R. Its development branch (since 2022) is
content when the two differ by a point of small order, which the owner of a key can bring about: a signature that some
peers accept and others refuse. With such a libsodium this module does not load.
"""

from __future__ import annotations

from nacl.bindings import crypto_sign, crypto_sign_open, crypto_sign_seed_keypair
from nacl.exceptions import BadSignatureError

from . import _ed25519_openssl
from ._engine import Sign, Verify

LONG = 16 * 1024
"""Messages of more bytes go to OpenSSL: signing breaks even at 8 KiB, verifying at 64 KiB."""


def load_public(raw: bytes) -> Verify:
    """Prepare the 32 bytes of a public key."""

    def verify(data: bytes, signature: bytes) -> bool:
        if len(data) > LONG:
            return _ed25519_openssl.load_public(raw)(data, signature)
        try:
            crypto_sign_open(signature + data, raw)
        except BadSignatureError:
            return False
        return True

    return verify


def load_private(raw: bytes) -> tuple[Sign, bytes]:
    """Prepare the 32 bytes of a seed."""
    public, secret = crypto_sign_seed_keypair(raw)
    sign_long, _ = _ed25519_openssl.load_private(raw)

    def sign(data: bytes) -> bytes:
        return sign_long(data) if len(data) > LONG else crypto_sign(data, secret)[:64]

    return sign, public


# Key and signature over nothing; R is off by a point of order 8. The key is made for this and good for nothing else.
_DISPUTED_KEY = bytes.fromhex("ae174bf17257a5cc82c44ae4c49cfbf4b1d7dc82d416a7707025d1e84fde1270")
_DISPUTED = bytes.fromhex(
    "e2aedf506d9ec42fa2e40be41f806618b317c218e89b4e595cfab70677404161"
    "2957191135f7c7ae733d8cbb322918f472e07c79c37d98e97dd14119f4574306"
)
if load_public(_DISPUTED_KEY)(b"", _DISPUTED):
    raise ImportError("this libsodium accepts signatures that other implementations refuse")
