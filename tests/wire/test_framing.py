"""Length-delimited framing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libp2p.errors import DecodeError
from libp2p.wire import varint
from libp2p.wire.framing import FrameBuffer, frame


def test_one_message_in_one_piece() -> None:
    buffer = FrameBuffer(10)
    assert buffer.receive_data(b"\x05hello") == [b"hello"]
    assert buffer.buffered == 0


def test_empty_message() -> None:
    assert frame(b"") == b"\x00"
    assert FrameBuffer(0).receive_data(b"\x00\x00") == [b"", b""]


def test_the_limit_holds_for_the_body_without_its_prefix() -> None:
    assert FrameBuffer(300).receive_data(frame(bytes(300))) == [bytes(300)]
    with pytest.raises(DecodeError, match="301 bytes is above the limit of 300"):
        FrameBuffer(300).receive_data(frame(bytes(301)))


def test_a_length_above_the_limit_is_refused_before_its_body_arrives() -> None:
    buffer = FrameBuffer(100)
    with pytest.raises(DecodeError):
        buffer.receive_data(varint.encode(2**62))


def test_a_length_that_is_no_varint_is_refused() -> None:
    buffer = FrameBuffer(100)
    assert buffer.receive_data(b"\x80") == []
    with pytest.raises(DecodeError):
        buffer.receive_data(b"\x00")


def test_limited_reading_leaves_the_rest() -> None:
    buffer = FrameBuffer(100)
    assert buffer.receive_data(frame(b"a") + frame(b"b") + frame(b"c") + b"\x05he", limit=1) == [b"a"]
    assert buffer.buffered == 7
    assert buffer.receive_data(b"", limit=1) == [b"b"]
    assert buffer.receive_data(b"llo") == [b"c", b"hello"]


def test_leftover_goes_to_the_next_protocol() -> None:
    buffer = FrameBuffer(100)
    assert buffer.receive_data(frame(b"last") + b"raw bytes", limit=1) == [b"last"]
    assert buffer.take_leftover() == b"raw bytes"
    assert buffer.buffered == 0
    assert buffer.take_leftover() == b""


def test_messages_are_independent_of_the_received_memory() -> None:
    data = bytearray(frame(b"hello"))
    [message] = FrameBuffer(100).receive_data(memoryview(data))
    data[:] = bytes(len(data))
    assert message == b"hello"


@given(st.lists(st.binary(max_size=200), max_size=8), st.lists(st.integers(1, 40), min_size=1))
def test_any_cutting_gives_the_same_messages(messages: list[bytes], sizes: list[int]) -> None:
    data = b"".join(map(frame, messages))
    buffer = FrameBuffer(200)
    found: list[bytes] = []
    position = index = 0
    while position < len(data):
        size = sizes[index % len(sizes)]
        found += buffer.receive_data(data[position : position + size])
        position, index = position + size, index + 1
    assert found == messages
    assert buffer.buffered == 0


@given(st.binary(max_size=100))
def test_any_bytes_give_messages_or_the_typed_error(data: bytes) -> None:
    buffer = FrameBuffer(50)
    try:
        found = buffer.receive_data(data)
    except DecodeError:
        return
    assert b"".join(map(frame, found)) + buffer.take_leftover() == data
    assert all(len(message) <= 50 for message in found)
