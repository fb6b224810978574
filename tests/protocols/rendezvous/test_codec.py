"""Rendezvous messages (checklist RV1 to RV3; fuzz target 15)."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libp2p.errors import DecodeError
from libp2p.pb import rendezvous_pb2
from libp2p.protocols.rendezvous._codec import (
    MAX_COOKIE,
    MAX_REGISTRATIONS,
    MAX_TEXT,
    Discover,
    DiscoverResponse,
    Message,
    Register,
    RegisterResponse,
    Status,
    Unregister,
    decode,
    encode,
    fitting,
)
from libp2p.wire import proto

Pb: Any = rendezvous_pb2.Message

names = st.text(st.characters(codec="utf-8"), max_size=20)
uints = st.integers(0, 2**64 - 1)
printable = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)
registers = st.builds(Register, namespace=names, record=st.binary(max_size=40), ttl=st.none() | uints)
messages = st.one_of(
    registers,
    st.builds(RegisterResponse, status=st.just(Status.OK), text=printable, ttl=uints),
    st.builds(RegisterResponse, status=st.integers(1, 500), text=printable),
    st.builds(Unregister, namespace=names),
    st.builds(Discover, namespace=names, limit=st.none() | uints, cookie=st.binary(max_size=40)),
    st.builds(
        DiscoverResponse,
        status=st.just(Status.OK),
        registrations=st.lists(registers, max_size=4).map(tuple),
        cookie=st.binary(max_size=40),
        text=printable,
    ),
    st.builds(DiscoverResponse, status=st.integers(1, 500), text=printable),
)


@given(messages)
def test_round_trip(message) -> None:
    assert decode(encode(message)) == message


def test_rv1_rv2_the_numbers() -> None:
    """What generated code makes of the schema of the specification is what we make, byte for byte."""
    ours: list[Message] = [
        Register(namespace="a", record=b"r", ttl=7200),
        RegisterResponse(status=Status.OK, ttl=7200),
        RegisterResponse(status=Status.INVALID_TTL, text="no"),
        Unregister(namespace="a"),
        Discover(namespace="a", limit=3, cookie=b"c"),
        Discover(),
        DiscoverResponse(status=Status.OK, registrations=(Register(namespace="a", record=b"r", ttl=9),), cookie=b"c"),
        DiscoverResponse(status=Status.INVALID_COOKIE, text="no"),
    ]
    theirs = [
        Pb(type=0, register={"ns": "a", "signedPeerRecord": b"r", "ttl": 7200}),
        Pb(type=1, registerResponse={"status": 0, "ttl": 7200}),
        Pb(type=1, registerResponse={"status": 102, "statusText": "no"}),
        Pb(type=2, unregister={"ns": "a"}),
        Pb(type=3, discover={"ns": "a", "limit": 3, "cookie": b"c"}),
        Pb(type=3, discover={}),
        Pb(
            type=4,
            discoverResponse={
                "registrations": [{"ns": "a", "signedPeerRecord": b"r", "ttl": 9}],
                "cookie": b"c",
                "status": 0,
            },
        ),
        Pb(type=4, discoverResponse={"status": 103, "statusText": "no"}),
    ]
    assert [encode(message) for message in ours] == [message.SerializeToString() for message in theirs]
    assert [decode(message.SerializeToString()) for message in theirs] == ours


def test_rv3_the_statuses() -> None:
    assert {f"E_{status.name}": status.value for status in Status if status} == {
        name: number for name, number in Pb.ResponseStatus.items() if number
    }


def test_what_is_missing_is_empty() -> None:
    assert decode(Pb(type=0, register={}).SerializeToString()) == Register(namespace="", record=b"")
    assert decode(Pb(register={"ns": "a"}).SerializeToString()) == Register(namespace="a", record=b"")
    assert decode(Pb(type=1, registerResponse={}).SerializeToString()) == RegisterResponse(status=Status.OK)
    assert decode(Pb(type=2, unregister={}).SerializeToString()) == Unregister(namespace="")
    assert decode(Pb(type=4, discoverResponse={}).SerializeToString()) == DiscoverResponse(status=Status.OK)


def test_fields_of_the_future_are_skipped() -> None:
    data = encode(Unregister(namespace="a")) + proto.write_bytes(9, b"new") + proto.write_uint(10, 1)
    assert decode(data) == Unregister(namespace="a")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        Pb(type=0).SerializeToString(),  # no body
        Pb(discover={"ns": "a"}).SerializeToString(),  # no type, and not what has none
        Pb(type=0, discover={}).SerializeToString(),  # another one's body
        proto.write_uint(1, 77) + proto.write_bytes(2, b""),  # an unknown type
        proto.write_uint(1, 2**64 - 1) + proto.write_bytes(2, b""),
        proto.write_uint(1, 2) + proto.write_bytes(4, proto.write_bytes(1, b"\xff\xfe")),  # no text
        proto.write_uint(1, 2) + proto.write_bytes(4, proto.write_uint(1, 1)),  # a number for a name
        proto.write_bytes(1, b"") + proto.write_bytes(2, b""),
        Pb(type=4, discoverResponse={"cookie": bytes(MAX_COOKIE + 1)}).SerializeToString(),
        b"\x08\x00" * 17,  # too many fields
    ],
)
def test_nonsense_is_a_decode_error(data: bytes) -> None:
    with pytest.raises(DecodeError):
        decode(data)


@given(st.binary(max_size=200))
def test_garbage_is_a_message_or_a_decode_error(data: bytes) -> None:
    try:
        decode(data)
    except DecodeError:
        pass


@pytest.mark.parametrize("more", [1, 17, 500_000])
def test_r7_registrations_are_counted_before_they_are_decoded(more: int) -> None:
    body = proto.write_bytes(1, b"") * (MAX_REGISTRATIONS + more)
    with pytest.raises(DecodeError):
        decode(proto.write_uint(1, 4) + proto.write_bytes(6, body))


def test_a_full_answer() -> None:
    full = DiscoverResponse(
        status=Status.OK, registrations=(Register(namespace="a", record=b"r"),) * MAX_REGISTRATIONS, cookie=b"c"
    )
    assert decode(encode(full)) == full


def test_explanations_are_fit_to_print() -> None:
    answer = decode(encode(RegisterResponse(status=300, text="\x1b[2J" + "x" * 1000)))
    assert isinstance(answer, RegisterResponse)
    assert answer.text == ("?[2J" + "x" * 1000)[:MAX_TEXT]


@given(st.lists(registers, max_size=8), st.integers(0, 300))
def test_what_fits_fits(found: list[Register], room: int) -> None:
    page = fitting(found, room)
    assert list(page) == found[: len(page)]
    empty = len(encode(DiscoverResponse(status=Status.OK)))
    if page:
        assert len(encode(DiscoverResponse(status=Status.OK, registrations=page))) - empty <= room + 8
    assert len(fitting(found, 100_000)) == len(found)
