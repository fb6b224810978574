"""WebSocket frames: any bytes in any pieces, against another implementation, and sends that stop anywhere."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto.frame_protocol import FrameProtocol, Opcode

from libp2p.errors import LocalProtocolError, RemoteProtocolError
from libp2p.testing.strategies import pieces
from libp2p.transports.websocket._machine import (
    CLOSE_PROTOCOL_ERROR,
    MAX_EMPTY_FRAMES,
    MAX_FRAME_IN,
    MAX_FRAME_OUT,
    Frames,
    Mask,
    mask,
)

KEY = b"\x01\x7f\xf0\x3c"


def frames(client: bool) -> Frames:
    keys = itertools.count(1)
    return Frames(client=client, make_key=lambda: (next(keys) * 0x01020305).to_bytes(8, "big")[-4:])


def frame(first: int, payload: bytes, *, masked: bool, length: int | None = None) -> bytes:
    """A frame by hand; its length may lie."""
    size, bit = len(payload) if length is None else length, 0x80 if masked else 0
    head = bytes((first,))
    if size < 126:
        head += bytes((bit | size,))
    elif size < 1 << 16:
        head += bytes((bit | 126,)) + size.to_bytes(2, "big")
    else:
        head += bytes((bit | 127,)) + size.to_bytes(8, "big")
    return head + (KEY + mask(payload, KEY) if masked else payload)


def feed(machine: Frames, parts: Sequence[bytes]) -> bytes:
    """What the machine makes of ``parts``."""
    payload = b""
    for part in parts:
        buffer = bytearray(part)
        payload += buffer[: machine.unframe(memoryview(buffer), len(buffer))]
    return payload


def drain(machine: Frames) -> bytes:
    """The control frames that wait."""
    output = machine.encode(b"")
    machine.wrote(len(output))
    return output


def dead(machine: Frames, match: str, *parts: bytes) -> None:
    """The machine must refuse ``parts``, say so with a close frame, and refuse everything afterwards."""
    with pytest.raises(RemoteProtocolError, match=match):
        feed(machine, parts)
    goodbye = drain(machine)
    code = mask(goodbye[6:], goodbye[2:6]) if goodbye[1] & 0x80 else goodbye[2:]
    assert (goodbye[0], code) == (0x88, CLOSE_PROTOCOL_ERROR.to_bytes(2, "big"))
    with pytest.raises(RemoteProtocolError, match=match):
        feed(machine, [b""])
    assert machine.finished


# --- properties -------------------------------------------------------------------------------------------------------

messages = st.lists(
    st.one_of(
        st.tuples(st.just(0x82), st.binary(max_size=300)),
        st.tuples(st.just(0x82), st.integers(60_000, 70_000).map(bytes)),
        st.tuples(st.just(0x89), st.binary(max_size=125)),
        st.tuples(st.just(0x8A), st.binary(max_size=125)),
        st.tuples(st.just(-1), st.lists(st.binary(max_size=20), min_size=2, max_size=5)),
    ),
    max_size=8,
)


def wire(found: list[tuple[int, bytes | list[bytes]]], *, masked: bool) -> tuple[bytes, bytes]:
    """Messages as they travel, some of them in pieces; and their payload."""
    out, payload = b"", b""
    for first, content in found:
        if isinstance(content, list):
            for index, piece in enumerate(content):
                opcode = (0 if index else 2) | (0x80 if index == len(content) - 1 else 0)
                out += frame(opcode, piece, masked=masked)
                out += frame(0x89, b"between", masked=masked)
                payload += piece
        else:
            out += frame(first, content, masked=masked)
            payload += content if first == 0x82 else b""
    return out, payload


@given(st.data(), st.booleans(), messages)
def test_W2_how_bytes_are_split_does_not_matter(data, client, found) -> None:
    """W2: the payload is the same in any pieces, and so is the answer to the last ping."""
    out, payload = wire(found, masked=not client)
    whole, cut = frames(client), frames(client)
    assert feed(whole, [out]) == payload
    assert feed(cut, data.draw(pieces(out))) == payload
    assert whole.at_border
    assert cut.at_border
    assert whole.has_answer == cut.has_answer
    assert len(drain(whole)) == len(drain(cut))


@given(st.binary(max_size=2000), st.booleans(), st.data())
def test_garbage(garbage, client, data) -> None:
    """Gives payload or RemoteProtocolError, and never more payload than there were bytes."""
    machine = frames(client)
    given_so_far = 0
    for part in data.draw(pieces(garbage)):
        buffer = bytearray(part)
        try:
            size = machine.unframe(memoryview(buffer), len(part))
        except RemoteProtocolError:
            return
        assert 0 <= size <= len(part)
        given_so_far += size
        # Whatever came, one answer at most waits.
        assert len(machine.encode(b"")) <= 131
    assert given_so_far <= len(garbage)


@given(st.booleans(), st.lists(st.tuples(st.binary(max_size=400), st.integers(0, 500)), max_size=30), st.data())
def test_sends_that_stop_anywhere(client, steps, data) -> None:
    """However much of each frame gets out, whatever comes next: the peer reads what was counted as sent, in order."""
    sender, receiver = frames(client), frames(not client)
    sent, out = b"", b""
    for chunk, room in steps:
        if data.draw(st.booleans()):
            feed(sender, [frame(0x89, b"ping", masked=not client)])
        offered = sender.encode(chunk)
        out += offered[:room]
        sent += chunk[: sender.wrote(min(room, len(offered)))]
    got = feed(receiver, data.draw(pieces(out)))
    assert got == sent


def masker(fast: bool) -> Mask:
    if fast:
        pytest.importorskip("Crypto.Util.strxor", exc_type=ImportError)
        from libp2p.transports.websocket._fast_mask import mask as fast_mask

        return fast_mask
    return mask


FAST = pytest.mark.parametrize("fast", [False, True])


@FAST
@given(data=st.binary(max_size=100_000), key=st.binary(min_size=4, max_size=4))
def test_masking(fast, data, key) -> None:
    """Byte for byte what RFC 6455 says, section 5.3, and its own inverse."""
    found = masker(fast)
    masked = found(data, key)
    assert masked[:100] == bytes(byte ^ key[index % 4] for index, byte in enumerate(data[:100]))
    assert found(masked, key) == data


@FAST
@pytest.mark.parametrize("size", [1023, 1024, 1025, 102_403])
def test_masking_long_data(fast, size) -> None:
    """In pieces, where a single number would be slow; and where a part of a buffer is masked."""
    data = (bytes(range(256)) * 401)[:size]
    expected = bytes(byte ^ KEY[index % 4] for index, byte in enumerate(data))
    assert masker(fast)(data, KEY) == expected
    assert masker(fast)(memoryview(bytearray(b"x" + data))[1:], KEY) == expected


# --- against another implementation -----------------------------------------------------------------------------------


@pytest.mark.parametrize("client", [True, False])
@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 200_000])
def test_wsproto_reads_what_we_write(client, size) -> None:
    """Every length form, both sides."""
    machine, other, data = frames(client), FrameProtocol(not client, []), bytes(range(256)) * (size // 256 + 1)
    data, sent, got = data[:size], 0, b""
    while sent < size:
        output = machine.encode(data[sent:])
        sent += machine.wrote(len(output))
        other.receive_bytes(output)
        for received in other.received_frames():
            assert received.opcode is Opcode.BINARY
            assert isinstance(received.payload, bytes | bytearray)
            got += received.payload
    machine.close()
    other.receive_bytes(drain(machine))
    (goodbye,) = other.received_frames()
    assert goodbye.opcode is Opcode.CLOSE
    assert got == data


@pytest.mark.parametrize("client", [True, False])
@given(content=st.lists(st.tuples(st.binary(max_size=70_000), st.booleans(), st.booleans()), max_size=5))
def test_we_read_what_wsproto_writes(client, content) -> None:
    """Messages in pieces, with pings in between, answered as it wants them."""
    other, machine = FrameProtocol(not client, []), frames(client)
    for payload, final, ping in content:
        assert feed(machine, [bytes(other.send_data(payload, final))]) == payload
        if ping:
            assert feed(machine, [bytes(other.ping(b"are you there"))]) == b""
            other.receive_bytes(drain(machine))
            (pong,) = other.received_frames()
            assert (pong.opcode, pong.payload) == (Opcode.PONG, b"are you there")
    assert feed(machine, [bytes(other.close(1001, "going")), b"whatever"]) == b""
    assert machine.closed
    other.receive_bytes(drain(machine))
    (goodbye,) = other.received_frames()
    assert goodbye.payload[0] == 1001


# --- the rules --------------------------------------------------------------------------------------------------------


def test_W2_text_is_refused() -> None:
    """W2: libp2p uses binary messages only."""
    dead(frames(client=True), "text", frame(0x81, b"hello", masked=False))


@pytest.mark.parametrize("client", [True, False])
def test_masks(client) -> None:
    """Clients must mask, servers must not (RFC 6455, section 5.1)."""
    dead(frames(client), "mask", frame(0x82, b"x", masked=client))


@pytest.mark.parametrize(
    ("match", "parts"),
    [
        ("reserved", [frame(0xC2, b"x", masked=False)]),
        ("unknown kind", [frame(0x83, b"x", masked=False)]),
        ("unknown kind", [frame(0x8B, b"x", masked=False)]),
        ("control", [frame(0x09, b"in pieces", masked=False)]),
        ("control", [frame(0x89, bytes(126), masked=False)]),
        ("half a code", [frame(0x88, b"\x03", masked=False)]),
        ("piece of no message", [frame(0x80, b"x", masked=False)]),
        ("inside a message", [frame(0x02, b"x", masked=False), frame(0x82, b"y", masked=False)]),
        ("shortest", [b"\x82\x7e\x00\x7d" + bytes(125)]),
        ("shortest", [b"\x82\x7f" + (65535).to_bytes(8, "big")]),
    ],
)
def test_broken_rules(match, parts) -> None:
    dead(frames(client=True), match, *parts)
    dead(frames(client=True), match, *(bytes((byte,)) for part in parts for byte in part))


@pytest.mark.parametrize("size", [MAX_FRAME_IN + 1, 2**31, 2**63, 2**64 - 1])
def test_T7_frames_above_the_limit(size) -> None:
    """T7: refused by their head, before any payload."""
    dead(frames(client=True), "above the limit", frame(0x82, b"", masked=False, length=size))


def test_a_frame_of_the_limit_is_handed_on_as_it_comes() -> None:
    """Nothing waits for its end."""
    machine = frames(client=True)
    assert feed(machine, [frame(0x82, b"begin", masked=False, length=MAX_FRAME_IN)]) == b"begin"
    assert not machine.at_border


@pytest.mark.parametrize("first", [0x89, 0x8A, 0x82])
def test_T7_floods_of_frames_without_payload(first) -> None:
    """T7: a thousand in one read are too many; the same over many reads are keep-alives."""
    dead(frames(client=True), "flood", frame(first, b"", masked=False) * (MAX_EMPTY_FRAMES + 1))
    machine = frames(client=True)
    for _ in range(3 * MAX_EMPTY_FRAMES):
        feed(machine, [frame(first, b"", masked=False)])
        assert len(machine.encode(b"")) <= 131


def test_only_the_last_ping_is_answered() -> None:
    """RFC 6455, section 5.5.3."""
    machine = frames(client=False)
    feed(machine, [b"".join(frame(0x89, b"%d" % number, masked=True) for number in range(100))])
    assert drain(machine) == b"\x8a\x0299"
    assert not machine.has_answer


def test_a_newer_answer_is_not_lost_to_an_older_write() -> None:
    """A ping that comes while the answer to the one before is being written."""
    machine = frames(client=False)
    feed(machine, [frame(0x89, b"one", masked=True)])
    output = machine.encode(b"")
    feed(machine, [frame(0x89, b"two", masked=True)])
    machine.wrote(len(output))
    assert drain(machine) == b"\x8a\x03two"


def test_answers_keep_to_the_borders_of_frames() -> None:
    """A pong waits while a data frame is half sent."""
    machine = frames(client=False)
    output = machine.encode(b"half of this")
    assert machine.wrote(len(output) - 6) == 6
    feed(machine, [frame(0x89, b"hello?", masked=True)])
    assert not machine.has_answer
    assert machine.encode(b"") == b""
    assert machine.encode(b"of it and more") == b"of it "
    machine.wrote(6)
    assert machine.has_answer
    assert drain(machine) == b"\x8a\x06hello?"


def test_closing() -> None:
    """The peer's close is answered with its code; nothing is sent or read behind it."""
    machine = frames(client=False)
    assert (
        feed(machine, [frame(0x82, b"last", masked=True) + frame(0x88, b"\x03\xe9bye", masked=True) + b"junk"])
        == b"last"
    )
    assert machine.closed
    assert machine.at_border
    assert feed(machine, [frame(0x89, b"ping", masked=True)]) == b""
    assert drain(machine) == b"\x88\x02\x03\xe9"
    with pytest.raises(LocalProtocolError):
        machine.encode(b"data")
    silent = frames(client=False)
    feed(silent, [frame(0x88, b"", masked=True)])
    assert drain(silent) == b"\x88\x00"


def test_closing_first() -> None:
    """Pings are not answered any more, and the peer's close needs no second answer."""
    machine = frames(client=True)
    machine.close()
    machine.close()
    assert len(drain(machine)) == 8
    feed(machine, [frame(0x89, b"x", masked=False), frame(0x88, b"\x03\xe8", masked=False)])
    assert drain(machine) == b""
    assert machine.closed


def test_what_is_offered_may_be_withdrawn() -> None:
    """Only what was written counts."""
    machine = frames(client=False)
    assert machine.encode(b"never") == b"\x82\x05never"
    assert machine.wrote(0) == 0
    assert machine.encode(b"but this") == b"\x82\x08but this"
    assert len(machine.encode(bytes(100_000))) == 4 + MAX_FRAME_OUT
