"""secp256k1 keys, as Bitcoin and Ethereum use them.

Public: 33 bytes, the compressed point. Private: 32 bytes, the number. Signature: ECDSA over SHA-256 in DER, with the
lower of the two possible values of s, which is what libsecp256k1 makes and what the Rust and JavaScript
implementations insist on. OpenSSL does not care: its s is replaced by n - s where needed, and an upper s is refused
when verifying. So one signature cannot be turned into another, and the accepted set is that of libsecp256k1.

Source: libp2p/specs peer-ids.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from ..errors import DecodeError
from .keys import KeyType, PrivateKey, PublicKey

_CURVE = ec.SECP256K1()
_SCHEME = ec.ECDSA(hashes.SHA256())
# Order of the group (SEC 2, section 2.4.1).
_N = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141


class Secp256k1PublicKey(PublicKey):
    """A secp256k1 public key."""

    __slots__ = ("_key",)

    key_type = KeyType.SECP256K1

    def __init__(self, raw: bytes, key: ec.EllipticCurvePublicKey) -> None:
        super().__init__(raw)
        self._key = key

    def verify(self, data: bytes, signature: bytes) -> bool:
        """Whether ``signature`` over ``data`` is by this key, in DER and with a low s."""
        try:
            if decode_dss_signature(signature)[1] > _N // 2:
                return False
            self._key.verify(signature, data, _SCHEME)
        except (InvalidSignature, ValueError):
            return False
        return True


class Secp256k1PrivateKey(PrivateKey):
    """A secp256k1 private key."""

    __slots__ = ("_key",)

    key_type = KeyType.SECP256K1

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        public = key.public_key()
        point = public.public_numbers()
        raw = bytes((2 + (point.y & 1),)) + point.x.to_bytes(32, "big")
        super().__init__(key.private_numbers().private_value.to_bytes(32, "big"), Secp256k1PublicKey(raw, public))
        self._key = key

    def sign(self, data: bytes) -> bytes:
        """Return a signature over ``data``, in DER and with a low s."""
        signature = self._key.sign(data, _SCHEME)
        r, s = decode_dss_signature(signature)
        return signature if s <= _N // 2 else encode_dss_signature(r, _N - s)


def decode_public(raw: bytes) -> Secp256k1PublicKey:
    """Return the key with these 33 bytes.

    Raises:
        DecodeError: another length, or not a point of the curve.
    """
    if len(raw) != 33:
        raise DecodeError(f"a secp256k1 public key has 33 bytes, not {len(raw)}")
    try:
        return Secp256k1PublicKey(raw, ec.EllipticCurvePublicKey.from_encoded_point(_CURVE, raw))
    except ValueError as exc:
        raise DecodeError("not a point of the curve secp256k1") from exc


def decode_private(raw: bytes) -> Secp256k1PrivateKey:
    """Return the key with these 32 bytes.

    Raises:
        DecodeError: another length, or a number outside of the group.
    """
    if len(raw) != 32:
        raise DecodeError(f"a secp256k1 private key has 32 bytes, not {len(raw)}")
    number = int.from_bytes(raw, "big")
    if not 0 < number < _N:
        raise DecodeError("a secp256k1 private key outside of the group")
    return Secp256k1PrivateKey(ec.derive_private_key(number, _CURVE))


def generate(bits: int = 0) -> Secp256k1PrivateKey:
    """Return a new key. ``bits`` is ignored: all keys have one size."""
    return Secp256k1PrivateKey(ec.generate_private_key(_CURVE))
