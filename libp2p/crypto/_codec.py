"""The serialized form of keys: ``message PublicKey { required KeyType Type = 1; required bytes Data = 2; }``.

Peer ids are hashes of these bytes, so the specification asks for one deterministic form: both fields, in order,
shortest varints, nothing else. Written by hand because a protobuf library promises none of that. The bytes are
``08 type 12 length data``; anything else is refused.

Source: libp2p/specs peer-ids; the schema is in ``proto/keys.proto``.
"""

from __future__ import annotations

from ..errors import DecodeError
from ..wire import varint

MAX_LENGTH = 16 * 1024
"""Longest serialized key read, in bytes. An RSA private key of 8192 bits takes less than 5 KiB."""


def encode(key_type: int, data: bytes) -> bytes:
    """Return the serialized key. Private and public keys differ only in what ``data`` is."""
    return b"\x08%b\x12%b%b" % (varint.encode(key_type), varint.encode(len(data)), data)


def decode(message: bytes) -> tuple[int, bytes]:
    """Split a serialized key into the number of its type and its data. No cryptography is done.

    Raises:
        DecodeError: it is too long, truncated, has bytes left over, or is not in the deterministic form.
    """
    if len(message) > MAX_LENGTH:
        raise DecodeError(f"a key of {len(message)} bytes is above the limit of {MAX_LENGTH}")
    if message[:1] != b"\x08":
        raise DecodeError("serialized key does not start with its type")
    key_type, offset = varint.decode(message, 1)
    if message[offset : offset + 1] != b"\x12":
        raise DecodeError("serialized key has no data behind its type")
    length, offset = varint.decode(message, offset + 1)
    if len(message) - offset != length:
        raise DecodeError(f"serialized key announces {length} bytes of data and has {len(message) - offset}")
    return key_type, message[offset:]
