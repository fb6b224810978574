"""Unsigned varints and protobuf fields, as their specifications describe them."""

from __future__ import annotations


def uvarint(value: int) -> bytes:
    """The shortest unsigned LEB128 form."""
    digits = [value % 128]
    while value := value // 128:
        digits[-1] += 128
        digits.append(value % 128)
    return bytes(digits)


def read_uvarint(data: bytes) -> tuple[int, bytes]:
    """A number from the front of ``data``, and the rest. Raises IndexError when it is cut short."""
    value = shift = index = 0
    while True:
        byte = data[index]
        value += byte % 128 * 2**shift
        shift, index = shift + 7, index + 1
        if byte < 128:
            return value, data[index:]


def pb(number: int, value: bytes | str | int) -> bytes:
    """One protobuf field: a varint for a number, length-delimited otherwise."""
    if isinstance(value, int):
        return uvarint(number * 8) + uvarint(value)
    data = value.encode() if isinstance(value, str) else value
    return uvarint(number * 8 + 2) + uvarint(len(data)) + data
