"""Unsigned varints (LEB128) as the multiformats project defines them.

Seven bits a byte, least significant first. Two rules go beyond plain LEB128, and both are enforced here: the shortest
form is the only form, so that equal values have equal bytes, and nine bytes (63 bits) are the longest form.

Source: multiformats/unsigned-varint. Protobuf varints, which reach 64 bits, are in :mod:`libp2p.wire.proto`.
"""

from __future__ import annotations

from ..errors import DecodeError

MAX_LENGTH = 9
"""Longest encoding in bytes (unsigned-varint, "practical maximum")."""
MAX_VALUE = (1 << 63) - 1
"""Largest value that fits in :data:`MAX_LENGTH` bytes."""

# Most varints on the wire are lengths and codes below 128: one shared object each.
_SMALL = tuple(bytes((value,)) for value in range(0x80))


def encode(value: int) -> bytes:
    """Return the shortest encoding of ``value``.

    Raises:
        ValueError: ``value`` is negative or above :data:`MAX_VALUE`.
    """
    if 0 <= value < 0x80:
        return _SMALL[value]
    if not 0 <= value <= MAX_VALUE:
        raise ValueError(f"{value} is outside of the range of an unsigned varint")
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def try_decode(data: bytes | bytearray | memoryview, offset: int = 0) -> tuple[int, int] | None:
    """Read one varint of ``data`` at ``offset``, when all of it is there.

    Returns:
        The value and the offset behind it; None when ``data`` ends inside the varint and more bytes may complete it.

    Raises:
        DecodeError: no bytes that follow can make it valid: it is too long, or longer than its value needs.
    """
    # One byte, or two: nearly all lengths, and half the time of the loop.
    if offset < len(data) and data[offset] < 0x80:
        return data[offset], offset + 1
    if offset + 1 < len(data) and 0 < data[offset + 1] < 0x80:
        return data[offset] & 0x7F | data[offset + 1] << 7, offset + 2
    value = shift = 0
    for position in range(offset, min(len(data), offset + MAX_LENGTH)):
        byte = data[position]
        if byte < 0x80:
            if not byte and shift:
                raise DecodeError("varint is not in its shortest form")
            return value | byte << shift, position + 1
        value |= (byte & 0x7F) << shift
        shift += 7
    if shift == 7 * MAX_LENGTH:
        raise DecodeError(f"varint is longer than {MAX_LENGTH} bytes")
    return None


def decode(data: bytes | bytearray | memoryview, offset: int = 0) -> tuple[int, int]:
    """Read one varint of ``data`` at ``offset``; return its value and the offset behind it.

    Raises:
        DecodeError: it is truncated, too long, or longer than its value needs.
    """
    result = try_decode(data, offset)
    if result is None:
        raise DecodeError("varint is truncated")
    return result
