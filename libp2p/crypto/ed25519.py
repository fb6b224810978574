"""Ed25519 keys: the default.

Public: the 32 bytes of RFC 8032. Private: 64 bytes, seed then public key; an older form of 96 bytes repeats the public
key and is read but never written. Signature: 64 bytes, a point R and a number S.

Implementations differ in which odd encodings they take. What counts here does not depend on the library underneath:

* Keys and Rs that are not in their shortest form are refused, as are points of small order: under such a key a
  signature proves nothing, and such an R is never made by honest signing.
* S must be in its shortest form, which leaves one signature where there would be two.
* S·B = R + h·A must hold exactly, not only up to a point of small order (the equation of RFC 8032 without cofactor).

So what is accepted here is accepted by Go and Rust, which are as strict about all of this but the points of small
order. A point that is not on the curve is found out in :meth:`Ed25519PublicKey.verify`, which returns False for all
signatures.

Source: libp2p/specs peer-ids; RFC 8032, section 5.1.7.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric import ed25519

from ..errors import DecodeError
from . import _engine
from .keys import KeyType, PrivateKey, PublicKey

_ENGINE = _engine.choose("_ed25519_sodium", "_ed25519_openssl")

_P = 2**255 - 19
_L = 2**252 + 27742317777372353535851937790883648493
_SIGN_BIT = 1 << 255
# The y coordinates of the eight points whose order divides the cofactor 8; the two long ones are of order 8 itself.
_SMALL_ORDER = frozenset(
    (
        0,
        1,
        _P - 1,
        0x05FC536D_880238B1_3933C6D3_05ACDFD5_F098EFF2_89F4C345_B027B2C2_8F95E826,
        0x7A03AC92_77FDC74E_C6CC392C_FA53202A_0F67100D_760B3CBA_4FD84D3D_706A17C7,
    )
)


def _is_odd(point: bytes) -> bool:
    """Whether these 32 bytes are a number that is not reduced, or a point of small order."""
    y = int.from_bytes(point, "little") & ~_SIGN_BIT
    return y >= _P or y in _SMALL_ORDER


class Ed25519PublicKey(PublicKey):
    """An Ed25519 public key."""

    __slots__ = ("_verify",)

    key_type = KeyType.ED25519

    def __init__(self, raw: bytes) -> None:
        super().__init__(raw)
        self._verify = _ENGINE.load_public(raw)

    def verify(self, data: bytes, signature: bytes) -> bool:
        """Whether ``signature`` over ``data`` is by this key."""
        if len(signature) != 64 or _is_odd(signature[:32]) or int.from_bytes(signature[32:], "little") >= _L:
            return False
        return self._verify(data, signature)


class Ed25519PrivateKey(PrivateKey):
    """The Ed25519 private key with a seed of 32 bytes."""

    __slots__ = ("_sign",)

    key_type = KeyType.ED25519

    def __init__(self, seed: bytes) -> None:
        self._sign, point = _ENGINE.load_private(seed)
        super().__init__(seed + point, Ed25519PublicKey(point))

    def sign(self, data: bytes) -> bytes:
        """Return the 64 bytes of signature over ``data``; the same every time."""
        return self._sign(data)


def decode_public(raw: bytes) -> Ed25519PublicKey:
    """Return the key with these 32 bytes.

    Raises:
        DecodeError: another length, a number that is not reduced, or a point of small order.
    """
    if len(raw) != 32:
        raise DecodeError(f"an Ed25519 public key has 32 bytes, not {len(raw)}")
    if _is_odd(raw):
        raise DecodeError("an Ed25519 public key that proves nothing")
    return Ed25519PublicKey(raw)


def decode_private(raw: bytes) -> Ed25519PrivateKey:
    """Return the key with these 64 bytes, or 96 of the older form.

    Raises:
        DecodeError: another length, or a public half that does not belong to the seed.
    """
    if len(raw) not in (64, 96):
        raise DecodeError(f"an Ed25519 private key has 64 bytes, not {len(raw)}")
    key = Ed25519PrivateKey(raw[:32])
    # Signing with a public half of somebody else's choice would give away the secret.
    if any(raw[start : start + 32] != key.public_key.raw for start in range(32, len(raw), 32)):
        raise DecodeError("the halves of an Ed25519 private key do not belong together")
    return key


def generate(bits: int = 0) -> Ed25519PrivateKey:
    """Return a new key. ``bits`` is ignored: all keys have one size."""
    return Ed25519PrivateKey(ed25519.Ed25519PrivateKey.generate().private_bytes_raw())
