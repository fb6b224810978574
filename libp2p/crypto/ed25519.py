"""Ed25519 keys: the default.

Public: the 32 bytes of RFC 8032. Private: 64 bytes, seed then public key; an older form of 96 bytes repeats the public
key and is read but never written. Signature: 64 bytes.

Implementations differ in which odd encodings they take. Refused here, so that the accepted set does not depend on the
library underneath: public keys that are not in their shortest form, and the points of small order, under which a
signature proves nothing. A point that is not on the curve is found out in :meth:`Ed25519PublicKey.verify`, which
returns False for all signatures.

Source: libp2p/specs peer-ids; RFC 8032.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ed25519

from ..errors import DecodeError
from .keys import KeyType, PrivateKey, PublicKey

_P = 2**255 - 19
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


class Ed25519PublicKey(PublicKey):
    """An Ed25519 public key."""

    __slots__ = ("_key",)

    key_type = KeyType.ED25519

    def __init__(self, raw: bytes, key: ed25519.Ed25519PublicKey) -> None:
        super().__init__(raw)
        self._key = key

    def verify(self, data: bytes, signature: bytes) -> bool:
        """Whether ``signature`` over ``data`` is by this key."""
        try:
            self._key.verify(signature, data)
        except InvalidSignature:
            return False
        return True


class Ed25519PrivateKey(PrivateKey):
    """An Ed25519 private key."""

    __slots__ = ("_key",)

    key_type = KeyType.ED25519

    def __init__(self, key: ed25519.Ed25519PrivateKey) -> None:
        public = key.public_key()
        point = public.public_bytes_raw()
        super().__init__(key.private_bytes_raw() + point, Ed25519PublicKey(point, public))
        self._key = key

    def sign(self, data: bytes) -> bytes:
        """Return the 64 bytes of signature over ``data``; the same every time."""
        return self._key.sign(data)


def decode_public(raw: bytes) -> Ed25519PublicKey:
    """Return the key with these 32 bytes.

    Raises:
        DecodeError: another length, a number that is not reduced, or a point of small order.
    """
    if len(raw) != 32:
        raise DecodeError(f"an Ed25519 public key has 32 bytes, not {len(raw)}")
    y = int.from_bytes(raw, "little") & ~_SIGN_BIT
    if y >= _P or y in _SMALL_ORDER:
        raise DecodeError("an Ed25519 public key that proves nothing")
    return Ed25519PublicKey(raw, ed25519.Ed25519PublicKey.from_public_bytes(raw))


def decode_private(raw: bytes) -> Ed25519PrivateKey:
    """Return the key with these 64 bytes, or 96 of the older form.

    Raises:
        DecodeError: another length, or a public half that does not belong to the seed.
    """
    if len(raw) not in (64, 96):
        raise DecodeError(f"an Ed25519 private key has 64 bytes, not {len(raw)}")
    key = Ed25519PrivateKey(ed25519.Ed25519PrivateKey.from_private_bytes(raw[:32]))
    # Signing with a public half of somebody else's choice would give away the secret.
    if any(raw[start : start + 32] != key.public_key.raw for start in range(32, len(raw), 32)):
        raise DecodeError("the halves of an Ed25519 private key do not belong together")
    return key


def generate(bits: int = 0) -> Ed25519PrivateKey:
    """Return a new key. ``bits`` is ignored: all keys have one size."""
    return Ed25519PrivateKey(ed25519.Ed25519PrivateKey.generate())
