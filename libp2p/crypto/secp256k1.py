"""secp256k1 keys, as Bitcoin and Ethereum use them.

Public: 33 bytes, the compressed point. Private: 32 bytes, the number. Signature: ECDSA over SHA-256 in strict DER, with
the lower of the two possible values of s, which is what libsecp256k1 makes, all implementations of libp2p make, and the
Rust and JavaScript ones insist on. So one signature cannot be turned into another, and the accepted set is that of
libsecp256k1, also where another library does the arithmetic.

Source: libp2p/specs peer-ids.
"""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric import ec

from ..errors import DecodeError
from . import _engine
from .keys import KeyType, PrivateKey, PublicKey

_ENGINE = _engine.choose("_secp256k1_coincurve", "_secp256k1_openssl")

# Order of the group (SEC 2, section 2.4.1).
_N = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141


class Secp256k1PublicKey(PublicKey):
    """A secp256k1 public key. Raises ValueError when ``raw`` is not a point."""

    __slots__ = ("_verify",)

    key_type = KeyType.SECP256K1

    def __init__(self, raw: bytes) -> None:
        super().__init__(raw)
        self._verify = _ENGINE.load_public(raw)

    def verify(self, data: bytes, signature: bytes) -> bool:
        """Whether ``signature`` over ``data`` is by this key, in DER and with a low s."""
        return self._verify(data, signature)


class Secp256k1PrivateKey(PrivateKey):
    """The secp256k1 private key of a number in the group, in 32 bytes."""

    __slots__ = ("_sign",)

    key_type = KeyType.SECP256K1

    def __init__(self, raw: bytes) -> None:
        self._sign, point = _ENGINE.load_private(raw)
        super().__init__(raw, Secp256k1PublicKey(point))

    def sign(self, data: bytes) -> bytes:
        """Return a signature over ``data``, in DER and with a low s."""
        return self._sign(data)


def decode_public(raw: bytes) -> Secp256k1PublicKey:
    """Return the key with these 33 bytes.

    Raises:
        DecodeError: another length, or not a point of the curve.
    """
    if len(raw) != 33:
        raise DecodeError(f"a secp256k1 public key has 33 bytes, not {len(raw)}")
    try:
        return Secp256k1PublicKey(raw)
    except ValueError as exc:
        raise DecodeError("not a point of the curve secp256k1") from exc


def decode_private(raw: bytes) -> Secp256k1PrivateKey:
    """Return the key with these 32 bytes.

    Raises:
        DecodeError: another length, or a number outside of the group.
    """
    if len(raw) != 32:
        raise DecodeError(f"a secp256k1 private key has 32 bytes, not {len(raw)}")
    if not 0 < int.from_bytes(raw, "big") < _N:
        raise DecodeError("a secp256k1 private key outside of the group")
    return Secp256k1PrivateKey(raw)


def generate(bits: int = 0) -> Secp256k1PrivateKey:
    """Return a new key. ``bits`` is ignored: all keys have one size."""
    number = ec.generate_private_key(ec.SECP256K1()).private_numbers().private_value
    return Secp256k1PrivateKey(number.to_bytes(32, "big"))
