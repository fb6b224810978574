"""Reading and writing single protobuf fields, for messages whose exact bytes matter and those that every host needs.

Signed envelopes and peer records are signed or hashed as bytes, so their encoding is written down here instead of left
to a protobuf library: fields in order, shortest varints, fields that are zero or empty left out as in proto3. What
a host without special services sends is written with it too, so that it does without the library, which takes more
memory than all its connections. Other messages use generated code (:mod:`libp2p.pb`).

Source: protobuf.dev, "Encoding". Groups, which proto2 deprecated, are refused.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from ..errors import DecodeError
from . import varint

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Wire types."""

_MAX_UINT64 = (1 << 64) - 1
_MAX_VARINT_LENGTH = 10
_FIXED_SIZE = {FIXED64: 8, FIXED32: 4}


class Field(NamedTuple):
    """One field as it is on the wire.

    ``value`` is a number for the wire types VARINT, FIXED64 and FIXED32, and bytes for BYTES.
    """

    number: int
    wire_type: int
    value: int | bytes

    def as_bytes(self) -> bytes:
        """Return the value of a field that must be bytes, a string or a message; DecodeError when it is not."""
        if not isinstance(self.value, bytes):
            raise DecodeError(f"field {self.number} has wire type {self.wire_type}, not {BYTES}")
        return self.value

    def as_uint(self) -> int:
        """Return the value of a field that must be a varint; DecodeError when it is not."""
        if not isinstance(self.value, int) or self.wire_type != VARINT:
            raise DecodeError(f"field {self.number} has wire type {self.wire_type}, not {VARINT}")
        return self.value


def write_bytes(number: int, value: bytes) -> bytes:
    """Return a field of bytes, a string or a message; ``number`` is at most 15."""
    return bytes((number << 3 | BYTES,)) + varint.encode(len(value)) + value


def write_uint(number: int, value: int) -> bytes:
    """Return a field of an unsigned number; ``number`` is at most 15.

    Raises:
        ValueError: ``value`` does not fit into 64 bits.
    """
    if not 0 <= value <= _MAX_UINT64:
        raise ValueError(f"{value} does not fit into 64 bits")
    out = bytearray((number << 3 | VARINT,))
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def read(message: bytes, max_fields: int) -> Iterator[Field]:
    """Yield the fields of ``message`` in order.

    Raises:
        DecodeError: the message is malformed, or has more than ``max_fields`` fields. Fields before the fault have
            been yielded: keep no state until the end.
    """
    offset = 0
    while offset < len(message):
        if not max_fields:
            raise DecodeError("a message has too many fields")
        max_fields -= 1
        tag, offset = _read_varint(message, offset)
        number, wire_type = tag >> 3, tag & 7
        # Field numbers have 29 bits.
        if not 0 < number < 1 << 29:
            raise DecodeError(f"field number {number} is out of range")
        value, offset = _read_value(message, offset, wire_type)
        yield Field(number, wire_type, value)


def _read_value(message: bytes, offset: int, wire_type: int) -> tuple[int | bytes, int]:
    if wire_type == VARINT:
        return _read_varint(message, offset)
    if wire_type == BYTES:
        size, offset = _read_varint(message, offset)
    elif wire_type in _FIXED_SIZE:
        size = _FIXED_SIZE[wire_type]
    else:
        raise DecodeError(f"wire type {wire_type} is not known")
    end = offset + size
    if end > len(message):
        raise DecodeError("a field is truncated")
    value = message[offset:end]
    return (value if wire_type == BYTES else int.from_bytes(value, "little")), end


def _read_varint(message: bytes, offset: int) -> tuple[int, int]:
    # Unlike those of libp2p.wire.varint, varints of protobuf have up to 64 bits and need not be in shortest form.
    value = 0
    for index, byte in enumerate(message[offset : offset + _MAX_VARINT_LENGTH]):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            if value > _MAX_UINT64:
                raise DecodeError("a number does not fit into 64 bits")
            return value, offset + index + 1
    raise DecodeError("a number is truncated or too long")
