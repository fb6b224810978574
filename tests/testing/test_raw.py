"""The second implementation's own arithmetic."""

from __future__ import annotations

import pytest
import trio
from cryptography.exceptions import InvalidTag

from libp2p.testing.raw import (
    DATA,
    HEADER,
    PING,
    Identity,
    MplexMessage,
    NoiseXX,
    YamuxFrame,
    line,
    mplex,
    mplex_messages,
    pb,
    read_line,
    read_lines,
    read_uvarint,
    uvarint,
    yamux,
    yamux_frames,
)


@pytest.mark.parametrize(
    ("value", "encoded"), [(0, "00"), (1, "01"), (127, "7f"), (128, "8001"), (300, "ac02"), (2**63, "80" * 9 + "01")]
)
def test_uvarints(value, encoded) -> None:
    assert uvarint(value).hex() == encoded
    assert read_uvarint(bytes.fromhex(encoded) + b"rest") == (value, b"rest")


def test_protobuf_fields() -> None:
    assert pb(1, 150).hex() == "089601"
    assert pb(2, "testing").hex() == "120774657374696e67"
    assert pb(1025, b"x").hex() == "8a400178"


async def test_lines() -> None:
    ours, theirs = trio.testing.memory_stream_pair()
    await ours.send_all(HEADER + line("/a/1") + b"rest")
    assert [await read_line(theirs), await read_line(theirs)] == ["/multistream/1.0.0", "/a/1"]
    assert await theirs.receive_some() == b"rest"
    await ours.aclose()
    with pytest.raises(EOFError):
        await read_line(theirs)
    assert read_lines(HEADER + line("x" * 500)) == ["/multistream/1.0.0", "x" * 500]


def test_frames() -> None:
    wire = yamux(DATA, 1, 3, b"abc") + yamux(PING, 2, 0, length=7) + yamux(DATA, 0, 3, b"cut")[:-1]
    assert list(yamux_frames(wire)) == [YamuxFrame(DATA, 1, 3, 3, b"abc"), YamuxFrame(PING, 2, 0, 7, b"")]
    assert wire[:12].hex() == "000000010000000300000003"
    wire = mplex(5, 2, b"abc") + mplex(300, 0, b"") + mplex(1, 1, b"cut")[:-1]
    assert list(mplex_messages(wire)) == [MplexMessage(5, 2, b"abc"), MplexMessage(300, 0, b"")]


def test_noise_with_itself() -> None:
    one, other = NoiseXX(initiator=True), NoiseXX(initiator=False)
    assert other.read(one.write(b"1")) == b"1"
    assert one.read(other.write(b"2")) == b"2"
    assert other.read(one.write(b"3")) == b"3"
    assert one.keys == other.keys
    assert other.open(one.seal(b"x")[2:]) == b"x"
    assert one.open(other.seal(b"y")[2:]) == b"y"
    with pytest.raises(InvalidTag):
        other.open(one.seal(b"x", nonce=7)[2:])


def test_identities_are_those_of_the_library() -> None:
    assert Identity("a").peer == Identity("a").peer != Identity("b").peer
    assert Identity("a").peer[:6].hex() == "002408011220"
