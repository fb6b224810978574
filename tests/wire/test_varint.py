"""Unsigned varints: one form for each value, 63 bits at most (checklist, "uvarint")."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from libp2p.errors import DecodeError
from libp2p.wire import varint

KNOWN = {
    0: "00",
    1: "01",
    127: "7f",
    128: "8001",
    255: "ff01",
    300: "ac02",
    16384: "808001",
    2**63 - 1: "ffffffffffffffff7f",
}


@pytest.mark.parametrize(("value", "text"), KNOWN.items())
def test_known_values(value: int, text: str) -> None:
    assert varint.encode(value) == bytes.fromhex(text)
    assert varint.decode(bytes.fromhex(text)) == (value, len(text) // 2)


@pytest.mark.parametrize("value", [-1, 2**63, 2**64])
def test_values_out_of_range_are_a_callers_mistake(value: int) -> None:
    with pytest.raises(ValueError, match="outside of the range"):
        varint.encode(value)


@pytest.mark.parametrize("text", ["8000", "ff00", "818000", "80808080808080808000"])
def test_only_the_shortest_form_is_accepted(text: str) -> None:
    with pytest.raises(DecodeError):
        varint.decode(bytes.fromhex(text))


def test_more_than_nine_bytes_are_refused_as_soon_as_they_are_seen() -> None:
    assert varint.try_decode(b"\x80" * 8) is None
    for text in (b"\x80" * 9, b"\xff" * 9 + b"\x01", b"\xff" * 1000):
        with pytest.raises(DecodeError, match="longer than 9"):
            varint.try_decode(text)


@pytest.mark.parametrize("data", [b"", b"\x80", b"\xff\xff"])
def test_incomplete_is_told_from_wrong(data: bytes) -> None:
    assert varint.try_decode(data) is None
    with pytest.raises(DecodeError, match="truncated"):
        varint.decode(data)


def test_offset_and_buffer_types() -> None:
    for data in (b"xx\xac\x02rest", bytearray(b"xx\xac\x02rest"), memoryview(b"xx\xac\x02rest")):
        assert varint.decode(data, 2) == (300, 4)
        assert varint.try_decode(data, len(data)) is None


@given(st.integers(0, varint.MAX_VALUE), st.binary(max_size=3))
def test_round_trip(value: int, rest: bytes) -> None:
    encoded = varint.encode(value)
    assert varint.decode(encoded + rest) == (value, len(encoded))
    assert all(varint.try_decode(encoded[:size]) is None for size in range(len(encoded)))


@given(st.binary(max_size=12))
@example(b"\x80" * 12)
def test_any_bytes_give_a_value_or_the_typed_error(data: bytes) -> None:
    try:
        value, offset = varint.decode(data)
    except DecodeError:
        return
    assert varint.encode(value) == data[:offset]
