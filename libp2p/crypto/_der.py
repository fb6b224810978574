"""The little DER that keys and certificates take: one element, read and written.

Reading takes long and short lengths alike; that a form was the shortest is proved by writing it again.
"""

from __future__ import annotations

from ..errors import DecodeError

INTEGER, BIT_STRING, OCTET_STRING, SEQUENCE = 0x02, 0x03, 0x04, 0x30


def read(data: bytes, tag: int) -> tuple[bytes, bytes]:
    """Split ``data`` into the body of its first element, which must have ``tag``, and what follows.

    Raises:
        DecodeError: the first element has another tag, or is not whole.
    """
    if len(data) < 2 or data[0] != tag:
        raise DecodeError(f"no DER element of type {tag:#04x}")
    length, start = data[1], 2
    if length >= 0x80:
        start += length & 0x7F
        # Two bytes of length are enough for the 16 KiB a serialized key may have.
        if not 2 < start <= 4:
            raise DecodeError("a length in DER is out of range")
        length = int.from_bytes(data[2:start], "big")
    if len(data) < start + length:
        raise DecodeError("a DER element is truncated")
    return data[start : start + length], data[start + length :]


def write(tag: int, body: bytes) -> bytes:
    """One element, with its length in the shortest form."""
    length = len(body)
    if length < 0x80:
        return bytes((tag, length)) + body
    size = (length.bit_length() + 7) // 8
    return bytes((tag, 0x80 | size)) + length.to_bytes(size, "big") + body
