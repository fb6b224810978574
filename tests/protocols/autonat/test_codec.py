"""AutoNAT's messages: requirements AN1, AN2, AV1 to AV3, AV10; the fuzz invariant of both versions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libp2p.addressing import parse
from libp2p.errors import DecodeError
from libp2p.peer_id import PeerId
from libp2p.protocols.autonat._codec import (
    DATA_CHUNK,
    DIAL_BACK_OK,
    MAX_ADDRS,
    Dial,
    DialData,
    DialDataRequest,
    DialRequest,
    DialResponse,
    DialResult,
    DialStatus,
    Message,
    ResponseStatus,
    Status1,
    decode,
    decode_dial,
    decode_dial_back,
    decode_result,
    encode,
    encode_dial,
    encode_dial_back,
    encode_result,
)
from libp2p.testing.keys import seeded_key

PEER = PeerId.from_key(seeded_key("peer").public_key)
ADDR = parse("/ip4/1.2.3.4/tcp/5")
RAW = bytes.fromhex("0401020304060005")

MESSAGES: list[Message] = [
    DialRequest(addrs=(ADDR, parse("/ip6/::1/udp/1/quic-v1")), nonce=2**64 - 1),
    DialRequest(addrs=(), nonce=0),
    DialDataRequest(index=0, size=30_000),
    DialDataRequest(index=3, size=100_000),
    DialData(size=0),
    DialData(size=4096),
    DialResponse(status=ResponseStatus.E_INTERNAL_ERROR),
    DialResponse(status=ResponseStatus.OK, index=2, dial=DialStatus.E_DIAL_BACK_ERROR),
    DialResponse(status=999, index=1, dial=77),
]
RESULTS = [
    DialResult(status=Status1.OK, addr=ADDR),
    DialResult(status=Status1.E_DIAL_ERROR, text="no"),
    DialResult(status=12345),
]


def test_an1_bytes() -> None:
    """Zeroes are written: readers elsewhere require them."""
    peer = bytes(PEER)
    info = b"\x0a" + bytes([len(peer)]) + peer + b"\x12\x08" + RAW
    dial = b"\x0a" + bytes([len(info)]) + info
    assert encode_dial(Dial(peer=PEER, addrs=(ADDR,))) == b"\x08\x00\x12" + bytes([len(dial)]) + dial
    assert encode_result(DialResult(status=Status1.OK, addr=ADDR)) == b"\x08\x01\x1a\x0c\x08\x00\x1a\x08" + RAW
    assert encode_result(DialResult(status=Status1.E_BAD_REQUEST, text="x")) == b"\x08\x01\x1a\x06\x08\xc8\x01\x12\x01x"


def test_av1_av2_bytes() -> None:
    nonce = bytes(range(1, 9))
    number = int.from_bytes(nonce, "little")
    assert encode(DialRequest(addrs=(ADDR,), nonce=number)) == b"\x0a\x13\x0a\x08" + RAW + b"\x11" + nonce
    assert encode(DialResponse(status=ResponseStatus.OK, index=1, dial=DialStatus.OK)) == bytes.fromhex(
        "120808c801100118c801"
    )
    assert encode(DialResponse(status=ResponseStatus.E_INTERNAL_ERROR)) == b"\x12\x00"
    assert encode(DialDataRequest(index=0, size=30_000)) == b"\x1a\x04\x10\xb0\xea\x01"
    assert encode(DialData(size=2)) == b"\x22\x04\x0a\x02\x00\x00"
    assert encode_dial_back(number) == b"\x09" + nonce
    assert DIAL_BACK_OK == b""


def test_an2_av3_numbers() -> None:
    assert [status.value for status in Status1] == [0, 100, 101, 200, 300]
    assert [status.value for status in ResponseStatus] == [0, 100, 101, 200]
    assert [status.value for status in DialStatus] == [0, 100, 101, 200]


@pytest.mark.parametrize("message", MESSAGES)
def test_there_and_back(message: Message) -> None:
    assert decode(encode(message)) == message


@pytest.mark.parametrize("result", RESULTS)
def test_there_and_back_1(result: DialResult) -> None:
    assert decode_result(encode_result(result)) == result


def test_there_and_back_of_the_rest() -> None:
    assert decode_dial(encode_dial(Dial(addrs=(ADDR,)))) == Dial(addrs=(ADDR,))
    assert decode_dial_back(encode_dial_back(7)) == 7


def test_av10_dial_data_stays_below_the_limit_of_rust() -> None:
    assert len(encode(DialData(size=DATA_CHUNK))) < 4096


def test_av4_addresses_keep_their_place() -> None:
    """Answers name them by it, so one that cannot be read counts."""
    data = encode(DialRequest(addrs=(ADDR,), nonce=1)).replace(RAW, b"\xff" * 8)
    assert decode(data) == DialRequest(addrs=(None,), nonce=1)
    many = encode(DialRequest(addrs=(ADDR,) * (MAX_ADDRS + 1), nonce=1))
    assert decode(many) == DialRequest(addrs=(ADDR,) * MAX_ADDRS, nonce=1)


def test_an1_addresses_that_cannot_be_read_are_left_out() -> None:
    assert decode_dial(encode_dial(Dial(addrs=(ADDR,))).replace(RAW, b"\xff" * 8)) == Dial()


@pytest.mark.parametrize("data", ["ff", "", "0801", "0800", "08001200", "12040a020a00"])
def test_what_is_no_request_of_version_1(data: str) -> None:
    with pytest.raises(DecodeError):
        decode_dial(bytes.fromhex(data))


@pytest.mark.parametrize("data", [b"\xff", b"", b"\x08\x00", b"\x08\x01"])
def test_what_is_no_answer_of_version_1(data: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_result(data)


def test_text_that_is_none() -> None:
    """It is for people only."""
    data = encode_result(DialResult(status=Status1.E_DIAL_ERROR, text="no")).replace(b"no", b"\xff\xfe")
    try:
        assert decode_result(data).status == Status1.E_DIAL_ERROR
    except DecodeError:
        pass


@pytest.mark.parametrize("data", [b"\xff", b"", b"\x2a\x00"])
def test_what_is_no_message_of_version_2(data: bytes) -> None:
    with pytest.raises(DecodeError):
        decode(data)


@given(st.binary(max_size=200))
def test_garbage(data: bytes) -> None:
    for read in (decode, decode_dial, decode_result, decode_dial_back):
        try:
            read(data)
        except DecodeError:
            pass
