"""Multihashes, multibase text and CIDs, as far as peer ids and certificate hashes need them.

A multihash is ``uvarint code ‖ uvarint length ‖ digest``. A peer id is a multihash of one of two kinds: *identity*,
where the digest is the data itself, and *sha2-256*. A CID of version 1 puts ``uvarint 1 ‖ uvarint codec`` before a
multihash; multibase puts one character, which names the base, before text.

Sources: multiformats/multihash, multiformats/multibase, multiformats/cid, libp2p/specs peer-ids.

Every decoder here accepts exactly one text or byte form of a value. Lengths are checked first, because base 58 and
base 36 take quadratic time.
"""

from __future__ import annotations

import base64
import hashlib
import re

import base58

from ..errors import DecodeError
from . import varint

IDENTITY = 0x00
"""Multicodec of a multihash that holds the data itself."""
SHA2_256 = 0x12
"""Multicodec of a multihash by SHA-256."""
LIBP2P_KEY = 0x72
"""Multicodec of a CID that names a public key."""

MAX_IDENTITY_LENGTH = 42
"""Longest public key, in bytes, that a peer id holds as it is (libp2p/specs peer-ids)."""
MAX_TEXT_LENGTH = 256
"""Longest text accepted, in characters. The longest peer id takes 90, in base 16 as CID."""

_CID_PREFIX = bytes((1, LIBP2P_KEY))
_SHA2_256_PREFIX = bytes((SHA2_256, 32))
_BASE36 = "0123456789abcdefghijklmnopqrstuvwxyz"
_MULTIBASE_PREFIX = {
    "base16": "f",
    "base32": "b",
    "base36": "k",
    "base58btc": "z",
    "base64url": "u",
}


# --- multihash --------------------------------------------------------------------------------------------------------


def identity(data: bytes) -> bytes:
    """Return the identity multihash of ``data``: the data itself behind code and length."""
    return b"\x00" + varint.encode(len(data)) + data


def sha2_256(data: bytes) -> bytes:
    """Return the sha2-256 multihash of ``data``, 34 bytes."""
    return _SHA2_256_PREFIX + hashlib.sha256(data).digest()


def decode(data: bytes) -> tuple[int, bytes]:
    """Split a multihash into its code and its digest. Any code is accepted.

    Raises:
        DecodeError: it is truncated, or has bytes behind the digest.
    """
    code, offset = varint.decode(data)
    length, offset = varint.decode(data, offset)
    digest = data[offset:]
    if len(digest) != length:
        raise DecodeError(f"multihash announces {length} bytes of digest and has {len(digest)}")
    return code, digest


def check_peer_multihash(data: bytes) -> None:
    """Check that ``data`` is a multihash that can be a peer id: identity of 1 to 42 bytes, or sha2-256.

    Raises:
        DecodeError: it is not.
    """
    if data[:2] == _SHA2_256_PREFIX and len(data) == 34:
        return
    if data[:1] == b"\x00" and 2 < len(data) <= 2 + MAX_IDENTITY_LENGTH and data[1] == len(data) - 2:
        return
    raise DecodeError(f"not the multihash of a public key: {data[:48].hex() or 'no bytes'}")


# --- CID --------------------------------------------------------------------------------------------------------------


def to_cid(multihash: bytes) -> bytes:
    """Return the CIDv1 with codec libp2p-key that names the key with this multihash."""
    return _CID_PREFIX + multihash


def from_cid(cid: bytes) -> bytes:
    """Return the multihash in a CIDv1 with codec libp2p-key.

    Raises:
        DecodeError: another version or another codec.
    """
    if cid[:2] != _CID_PREFIX:
        raise DecodeError("not a CID of version 1 with the codec libp2p-key")
    return cid[2:]


# --- text -------------------------------------------------------------------------------------------------------------


def encode_base58(data: bytes) -> str:
    """Return ``data`` in base 58 with Bitcoin's alphabet, without a multibase prefix."""
    text: bytes = base58.b58encode(data)
    return text.decode("ascii")


def decode_base58(text: str) -> bytes:
    """Return the bytes of base 58 text, Bitcoin's alphabet, without a multibase prefix.

    Raises:
        DecodeError: it is too long, or has a character outside of the alphabet.
    """
    _check_length(text)
    # The package would ignore white space at the end: two texts for one value.
    if not (text.isascii() and text.isalnum()) and text:
        raise DecodeError("not base 58 text")
    try:
        data: bytes = base58.b58decode(text)
    except ValueError as exc:
        raise DecodeError(f"not base 58 text: {exc}") from exc
    return data


def encode_multibase(base: str, data: bytes) -> str:
    """Return ``data`` as multibase text, its first character naming the base.

    Args:
        base: ``"base16"``, ``"base32"``, ``"base36"``, ``"base58btc"`` or ``"base64url"``; lower case, no padding.

    Raises:
        ValueError: ``base`` is none of these.
    """
    if base == "base32":
        text = base64.b32encode(data).decode("ascii").rstrip("=").lower()
    elif base == "base36":
        text = _encode_base36(data)
    elif base == "base58btc":
        text = encode_base58(data)
    elif base == "base64url":
        text = base64.urlsafe_b64encode(data).decode("ascii").rstrip("=")
    elif base == "base16":
        text = data.hex()
    else:
        raise ValueError(f"unknown base {base!r}; known are {', '.join(_MULTIBASE_PREFIX)}")
    return _MULTIBASE_PREFIX[base] + text


def decode_multibase(text: str) -> bytes:
    """Return the bytes of multibase text in one of the bases of :func:`encode_multibase`.

    The upper-case twins of base 16, 32 and 36 are accepted too: DNS, where they travel, does not keep case.

    Raises:
        DecodeError: an unknown base, a character outside of it, or a form that :func:`encode_multibase` never emits.
    """
    _check_length(text)
    prefix, body = text[:1], text[1:]
    if prefix in ("B", "F", "K") and body == body.upper():
        prefix, body = prefix.lower(), body.lower()
    try:
        if prefix == "b":
            return _canonical("base32", base64.b32decode(_pad(body.upper(), 8)), body)
        if prefix == "k":
            return _decode_base36(body)
        if prefix == "z":
            return decode_base58(body)
        if prefix == "u":
            return _canonical("base64url", base64.b64decode(_pad(body, 4), b"-_", validate=True), body)
        if prefix == "f":
            return _canonical("base16", bytes.fromhex(body), body)
    except ValueError as exc:
        raise DecodeError(f"not multibase text: {exc}") from exc
    raise DecodeError(f"unknown multibase prefix {prefix!r}")


def _check_length(text: str) -> None:
    if len(text) > MAX_TEXT_LENGTH:
        raise DecodeError(f"text of {len(text)} characters is above the limit of {MAX_TEXT_LENGTH}")


def _pad(text: str, group: int) -> str:
    return text + "=" * (-len(text) % group)


def _canonical(base: str, data: bytes, body: str) -> bytes:
    # The standard decoders ignore left-over bits, padding inside and (base 16) spaces.
    if encode_multibase(base, data)[1:] != body:
        raise ValueError(f"not the {base} form of {data.hex()}")
    return data


def _encode_base36(data: bytes) -> str:
    # As in base 58, zero bytes at the front become zero digits at the front.
    number = int.from_bytes(data, "big")
    digits: list[str] = []
    while number:
        number, digit = divmod(number, 36)
        digits.append(_BASE36[digit])
    zeros = len(data) - len(data.lstrip(b"\x00"))
    return "0" * zeros + "".join(reversed(digits))


def _decode_base36(body: str) -> bytes:
    # int() alone would take signs, spaces, underscores and the digits of other scripts.
    if not re.fullmatch("[0-9a-z]*", body):
        raise ValueError("a character is outside of base 36")
    number = int(body or "0", 36)
    zeros = len(body) - len(body.lstrip("0"))
    return bytes(zeros) + number.to_bytes((number.bit_length() + 7) // 8, "big")
