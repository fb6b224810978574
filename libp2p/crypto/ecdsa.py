"""ECDSA keys on the curve P-256.

Public: SubjectPublicKeyInfo in DER, 91 bytes. Private: ECPrivateKey of SEC 1 in DER, with curve and public point, 121
bytes. Signature: ECDSA over SHA-256 in DER.

With the curve fixed, both DER structures are constants around the numbers. They are compared as such: one form for
each key, and no ASN.1 parser between a stranger and us. Other curves are refused, as in the Rust implementation.

Source: libp2p/specs peer-ids; RFC 5480 (public), RFC 5915 (private).
"""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from ..errors import DecodeError
from .keys import KeyType, PrivateKey, PublicKey

_CURVE = ec.SECP256R1()
_SCHEME = ec.ECDSA(hashes.SHA256())
# Order of the group (FIPS 186-4, D.1.2.3).
_N = 0xFFFFFFFF_00000000_FFFFFFFF_FFFFFFFF_BCE6FAAD_A7179E84_F3B9CAC2_FC632551

# SEQUENCE { SEQUENCE { id-ecPublicKey, prime256v1 }, BIT STRING: 65 bytes of uncompressed point follow }
_PUBLIC_HEAD = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200")
# SEQUENCE { INTEGER 1, OCTET STRING: 32 bytes follow, ...
_PRIVATE_HEAD = bytes.fromhex("30770201010420")
# ... [0] prime256v1, [1] BIT STRING: 65 bytes of uncompressed point follow }
_PRIVATE_MIDDLE = bytes.fromhex("a00a06082a8648ce3d030107a144034200")
_POINT_LENGTH = 65


class EcdsaPublicKey(PublicKey):
    """A P-256 public key."""

    __slots__ = ("_key",)

    key_type = KeyType.ECDSA

    def __init__(self, raw: bytes, key: ec.EllipticCurvePublicKey) -> None:
        super().__init__(raw)
        self._key = key

    def verify(self, data: bytes, signature: bytes) -> bool:
        """Whether ``signature`` over ``data`` is by this key."""
        try:
            self._key.verify(signature, data, _SCHEME)
        except InvalidSignature:
            return False
        return True


class EcdsaPrivateKey(PrivateKey):
    """A P-256 private key."""

    __slots__ = ("_key",)

    key_type = KeyType.ECDSA

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        public = key.public_key()
        numbers = public.public_numbers()
        point = b"\x04" + numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")
        number = key.private_numbers().private_value.to_bytes(32, "big")
        super().__init__(
            _PRIVATE_HEAD + number + _PRIVATE_MIDDLE + point,
            EcdsaPublicKey(_PUBLIC_HEAD + point, public),
        )
        self._key = key

    def sign(self, data: bytes) -> bytes:
        """Return a signature over ``data``, in DER."""
        return self._key.sign(data, _SCHEME)


def decode_public(raw: bytes) -> EcdsaPublicKey:
    """Return the key in this DER.

    Raises:
        DecodeError: not the DER of an uncompressed P-256 point, or not a point of the curve.
    """
    if len(raw) != len(_PUBLIC_HEAD) + _POINT_LENGTH or not raw.startswith(_PUBLIC_HEAD + b"\x04"):
        raise DecodeError("not an ECDSA public key on P-256")
    try:
        key = ec.EllipticCurvePublicKey.from_encoded_point(_CURVE, raw[len(_PUBLIC_HEAD) :])
    except ValueError as exc:
        raise DecodeError("not a point of the curve P-256") from exc
    return EcdsaPublicKey(raw, key)


def decode_private(raw: bytes) -> EcdsaPrivateKey:
    """Return the key in this DER.

    Raises:
        DecodeError: not the DER of a P-256 key, a number outside of the group, or a public point of another key.
    """
    start = len(_PRIVATE_HEAD)
    number = int.from_bytes(raw[start : start + 32], "big")
    if not raw.startswith(_PRIVATE_HEAD) or not 0 < number < _N:
        raise DecodeError("not an ECDSA private key on P-256")
    key = EcdsaPrivateKey(ec.derive_private_key(number, _CURVE))
    if key.raw != raw:
        raise DecodeError("not the one form of an ECDSA private key on P-256, or its halves do not belong together")
    return key


def generate(bits: int = 0) -> EcdsaPrivateKey:
    """Return a new key. ``bits`` is ignored: all keys have one size."""
    return EcdsaPrivateKey(ec.generate_private_key(_CURVE))
