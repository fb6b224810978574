"""Single protobuf fields."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libp2p.errors import DecodeError
from libp2p.pb import peer_record_pb2
from libp2p.wire import proto
from libp2p.wire.proto import Field


def read(data: bytes, max_fields: int = 100) -> list[Field]:
    return list(proto.read(data, max_fields))


def test_all_wire_types() -> None:
    data = bytes.fromhex("08 96 01 12 03 616263 19 0100000000000000 25 02000000")
    assert read(data) == [Field(1, 0, 150), Field(2, 2, b"abc"), Field(3, 1, 1), Field(4, 5, 2)]


@pytest.mark.parametrize(
    "text",
    [
        "08",  # no value
        "80",  # half a tag
        "12",  # no length
        "1205616263",  # truncated bytes
        "12ffffffffffffffff7f",  # giant length
        "19010000",  # truncated fixed64
        "25010000",  # truncated fixed32
        "0b",  # start of a group
        "0c",  # end of a group
        "0e01",
        "0f01",
        "0001",  # field number 0
        "888080801000",  # field number 2^29
        "08ffffffffffffffffff02",  # 65 bits
        "08ffffffffffffffffffff01",  # 11 bytes
    ],
)
def test_malformed(text: str) -> None:
    with pytest.raises(DecodeError):
        read(bytes.fromhex(text))


def test_numbers_reach_64_bits_and_need_not_be_short() -> None:
    assert read(b"\x08" + b"\xff" * 9 + b"\x01") == [Field(1, 0, 2**64 - 1)]
    assert read(b"\x08\x80\x00") == [Field(1, 0, 0)]


def test_the_number_of_fields_is_limited() -> None:
    assert len(read(b"\x08\x00" * 5, 5)) == 5
    with pytest.raises(DecodeError, match="too many fields"):
        read(b"\x08\x00" * 6, 5)


def test_a_field_of_the_wrong_type() -> None:
    assert Field(1, proto.BYTES, b"x").as_bytes() == b"x"
    assert Field(1, proto.VARINT, 7).as_uint() == 7
    with pytest.raises(DecodeError):
        Field(1, proto.VARINT, 7).as_bytes()
    with pytest.raises(DecodeError):
        Field(1, proto.FIXED64, 7).as_uint()
    with pytest.raises(DecodeError):
        Field(1, proto.BYTES, b"x").as_uint()


@pytest.mark.parametrize("value", [-1, 2**64])
def test_numbers_out_of_range_are_a_callers_mistake(value: int) -> None:
    with pytest.raises(ValueError, match="64 bits"):
        proto.write_uint(1, value)


@given(st.binary(max_size=300), st.integers(1, 2**64 - 1))
def test_protobuf_reads_what_is_written(data: bytes, number: int) -> None:
    message = peer_record_pb2.PeerRecord.FromString(proto.write_bytes(1, data) + proto.write_uint(2, number))
    assert (message.peer_id, message.seq) == (data, number)
    assert read(message.SerializeToString())[-1] == Field(2, 0, number)


@given(st.binary(max_size=60))
def test_any_bytes_give_fields_or_the_typed_error(data: bytes) -> None:
    try:
        fields = read(data)
    except DecodeError:
        return
    assert all(isinstance(field, Field) and field.number > 0 for field in fields)
