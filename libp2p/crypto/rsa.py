"""RSA keys, the oldest type: kept for the peers that still have one.

Public: SubjectPublicKeyInfo in DER. Private: RSAPrivateKey of PKCS #1 in DER. Signature: RSASSA-PKCS1-v1_5 over
SHA-256.

A modulus of a stranger's choice is a way to burn our time, so its size and the exponent are checked on the bytes,
before any cryptography sees them. The little DER that takes is read here, in its one valid form only.

Source: libp2p/specs peer-ids; RFC 8017, appendix A. Sizes: as in the Go implementation.
"""

from __future__ import annotations

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from ..errors import DecodeError
from ._der import BIT_STRING, INTEGER, SEQUENCE, read, write
from .keys import KeyType, PrivateKey, PublicKey

MIN_BITS = 2048
"""Shortest modulus accepted (specs peer-ids; go)."""
MAX_BITS = 8192
"""Longest modulus accepted: verifying takes time that grows with its square (go)."""
MAX_EXPONENT = 2**31 - 1
"""Largest public exponent accepted, which is the largest the Go implementation accepts."""

_PADDING = padding.PKCS1v15()
_HASH = hashes.SHA256()
# SEQUENCE { OID rsaEncryption, NULL }
_ALGORITHM = bytes.fromhex("300d06092a864886f70d0101010500")


class RsaPublicKey(PublicKey):
    """An RSA public key."""

    __slots__ = ("_key",)

    key_type = KeyType.RSA

    def __init__(self, raw: bytes, key: rsa.RSAPublicKey) -> None:
        super().__init__(raw)
        self._key = key

    def verify(self, data: bytes, signature: bytes) -> bool:
        """Whether ``signature`` over ``data`` is by this key."""
        try:
            self._key.verify(signature, data, _PADDING, _HASH)
        except InvalidSignature:
            return False
        return True


class RsaPrivateKey(PrivateKey):
    """An RSA private key."""

    __slots__ = ("_key",)

    key_type = KeyType.RSA

    def __init__(self, key: rsa.RSAPrivateKey) -> None:
        own = key.private_numbers()
        public = own.public_numbers
        raw = _sequence((0, public.n, public.e, own.d, own.p, own.q, own.dmp1, own.dmq1, own.iqmp))
        super().__init__(raw, RsaPublicKey(_public_der(public.n, public.e), key.public_key()))
        self._key = key

    def sign(self, data: bytes) -> bytes:
        """Return the signature over ``data``, as long as the modulus; the same every time."""
        return self._key.sign(data, _PADDING, _HASH)


def decode_public(raw: bytes) -> RsaPublicKey:
    """Return the key in this DER.

    Raises:
        DecodeError: not the DER of an RSA key, a modulus outside of 2048 to 8192 bits or even, or an exponent that is
            even, below 3 or above :data:`MAX_EXPONENT`.
    """
    body, rest = read(raw, SEQUENCE)
    if rest or not body.startswith(_ALGORITHM):
        raise DecodeError("not an RSA public key")
    bits, rest = read(body[len(_ALGORITHM) :], BIT_STRING)
    if rest or bits[:1] != b"\x00":
        raise DecodeError("not an RSA public key")
    n, e = _integers(bits[1:], 2)
    _check(n, e)
    if _public_der(n, e) != raw:
        raise DecodeError("an RSA public key is not in its shortest form")
    return RsaPublicKey(raw, rsa.RSAPublicNumbers(e, n).public_key())


def decode_private(raw: bytes) -> RsaPrivateKey:
    """Return the key in this DER. That it is a consistent key is checked, which takes some time.

    Raises:
        DecodeError: not the DER of an RSA private key, sizes as for :func:`decode_public`, or numbers that do not
            belong together.
    """
    version, n, e, d, p, q, dmp1, dmq1, iqmp = _integers(raw, 9)
    if version != 0:
        raise DecodeError("an RSA private key with more than two primes")
    _check(n, e)
    try:
        key = rsa.RSAPrivateNumbers(p, q, d, dmp1, dmq1, iqmp, rsa.RSAPublicNumbers(e, n)).private_key()
    except ValueError as exc:
        raise DecodeError("the numbers of an RSA private key do not belong together") from exc
    decoded = RsaPrivateKey(key)
    if decoded.raw != raw:
        raise DecodeError("an RSA private key is not in its shortest form")
    return decoded


def generate(bits: int = 2048) -> RsaPrivateKey:
    """Return a new key with a modulus of ``bits`` bits and the exponent 65537.

    Raises:
        ValueError: ``bits`` outside of 2048 to 8192.
    """
    if not MIN_BITS <= bits <= MAX_BITS:
        raise ValueError(f"an RSA key has {MIN_BITS} to {MAX_BITS} bits, not {bits}")
    return RsaPrivateKey(rsa.generate_private_key(65537, bits))


def _check(n: int, e: int) -> None:
    if not MIN_BITS <= n.bit_length() <= MAX_BITS:
        raise DecodeError(f"an RSA key of {n.bit_length()} bits; accepted are {MIN_BITS} to {MAX_BITS}")
    if not n & 1:
        raise DecodeError("an even RSA modulus")
    if not 3 <= e <= MAX_EXPONENT or not e & 1:
        raise DecodeError("an RSA exponent that is even, or outside of 3 to 2^31 - 1")


# --- DER --------------------------------------------------------------------------------------------------------------


def _public_der(n: int, e: int) -> bytes:
    return write(SEQUENCE, _ALGORITHM + write(BIT_STRING, b"\x00" + _sequence((n, e))))


def _sequence(numbers: tuple[int, ...]) -> bytes:
    # One byte more than the bits need where the top bit is set: DER integers have a sign.
    return write(
        SEQUENCE,
        b"".join(write(INTEGER, number.to_bytes(number.bit_length() // 8 + 1, "big")) for number in numbers),
    )


def _integers(data: bytes, count: int) -> list[int]:
    rest, trailing = read(data, SEQUENCE)
    if trailing:
        raise DecodeError("bytes behind the DER of an RSA key")
    numbers: list[int] = []
    while rest:
        body, rest = read(rest, INTEGER)
        numbers.append(int.from_bytes(body, "big"))
    if len(numbers) != count:
        raise DecodeError(f"{len(numbers)} numbers in the DER of an RSA key, not {count}")
    return numbers
