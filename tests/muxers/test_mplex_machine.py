"""mplex, rule by rule. Numbers as in the checklists: MX1 to MX7 of the specification, M3 to M11 of the reliability bar.

The other side is written by hand (``raw``): what the machine sends and takes is compared byte by byte.
"""

from __future__ import annotations

from typing import Any

import pytest

from libp2p.errors import LocalProtocolError, RemoteProtocolError
from libp2p.muxers._machine import (
    REFUSED_DEAD,
    REFUSED_EXHAUSTED,
    REFUSED_GOING_AWAY,
    REFUSED_STREAMS,
    DataReceived,
    EofReceived,
    MuxEvent,
    MuxMachine,
    OpenCredit,
    ResetReceived,
    StreamOpened,
)
from libp2p.muxers.mplex._codec import MAX_ID, decode_header, encode_head
from libp2p.muxers.mplex._machine import MplexConfig, MplexMachine
from tests.muxers import raw
from tests.muxers.raw import CLOSE_I, CLOSE_R, MESSAGE_I, MESSAGE_R, NEW, RESET_I, RESET_R, Message, message

MIB = 1024 * 1024


class Side:
    """A machine and its peer. ``theirs(n)`` and ``ours(n)`` are the machine's names of stream n of either side."""

    def __init__(self, **limits: Any) -> None:
        self.machine = MplexMachine(MplexConfig(**limits))
        self.now = 1000.0

    def feed(self, *wire: bytes) -> list[MuxEvent]:
        """Give the peer's bytes to the machine."""
        return self.machine.receive_data(b"".join(wire), self.now)

    def sent(self) -> list[Message]:
        """What the machine has sent since the last time."""
        return raw.messages(raw.join(self.machine.data_to_send()))

    def inbound(self, number: int = 0) -> int:
        """Let the peer open a stream."""
        assert self.feed(message(number, NEW, b"name")) == [StreamOpened(theirs(number))]
        return theirs(number)

    def outbound(self) -> int:
        """Open a stream."""
        stream = self.machine.open_stream()
        self.sent()
        return stream

    def violate(self, *wire: bytes, match: str | None = None) -> None:
        """The peer's bytes must cost it the connection, and nothing is left."""
        with pytest.raises(RemoteProtocolError, match=match):
            self.feed(*wire)
        machine = self.machine
        assert machine.stream_count == machine.inbound_count == machine.outbound_count == machine.buffered == 0
        assert machine.refusal == REFUSED_DEAD
        with pytest.raises(RemoteProtocolError, match="dead"):
            self.feed()


def theirs(number: int) -> int:
    return number * 2


def ours(number: int) -> int:
    return number * 2 + 1


@pytest.fixture
def side() -> Side:
    return Side()


def test_the_machine_has_the_agreed_shape(side: Side) -> None:
    machine: MuxMachine = side.machine
    machine.ping(0.0)
    machine.announce(5)
    machine.acknowledge(5)
    assert machine.next_timeout() is None
    assert machine.handle_timeout(1e9) == []
    assert not machine.has_output


# --- MX1: bytes -------------------------------------------------------------------------------------------------------


def test_mx1_every_frame_we_send_byte_by_byte(side: Side) -> None:
    machine = side.machine
    one, two = machine.open_stream(), machine.open_stream()
    machine.send_data(one, b"hello")
    machine.send_eof(one)
    machine.reset(two, 0x1003)
    side.feed(message(17, NEW), message(300, NEW))
    machine.send_data(theirs(17), bytes(200))
    machine.send_eof(theirs(17))
    machine.reset(theirs(300))
    assert machine.data_to_send() == [
        bytes.fromhex("000130" + "080131" + "0205" + b"hello".hex() + "0400" + "0e00")
        + bytes.fromhex("8901c801" + "00" * 200 + "8b0100" + "e51200")
    ]
    assert machine.data_to_send() == []


@pytest.mark.parametrize(
    ("wire", "header"),
    [
        ("0000", (0, 0, 2)),
        ("0100", (1, 0, 2)),
        ("8a01c801", (138, 200, 4)),
        ("ffffffffffffffff7f808040", (2**63 - 1, MIB, 12)),
        ("", None),
        ("80", None),
        ("00", None),
        ("0080", None),
    ],
)
def test_mx1_headers_are_read(wire: str, header: tuple[int, int, int] | None) -> None:
    assert decode_header(bytes.fromhex(wire), 0) == header


@pytest.mark.parametrize(
    ("key", "flag", "wire"),
    [(ours(0), 0, "00"), (ours(0), 1, "02"), (theirs(0), 1, "01"), (ours(2**60 - 1), 5, "feffffffffffffff7f")],
)
def test_mx1_heads_are_written(key: int, flag: int, wire: str) -> None:
    assert encode_head(key, flag) == bytes.fromhex(wire)


@pytest.mark.parametrize(
    "wire", ["80808080808080808080", "8000", "008000", "ffffffffffffffffff01", "00ffffffffffffffffff"]
)
def test_mx1_malformed_varints(side: Side, wire: str) -> None:
    side.violate(bytes.fromhex(wire), match="malformed")


def test_mx1_unknown_flag(side: Side) -> None:
    side.violate(message(0, 7), match="flag")


# --- MX2: sizes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flag", [NEW, MESSAGE_I, CLOSE_I, RESET_I])
def test_mx2_one_mib_is_fine_and_more_is_not(flag: int) -> None:
    side = Side()
    if flag != NEW:
        side.inbound(0)
    events = side.feed(message(0, flag, bytes(MIB)))
    expected = {
        NEW: StreamOpened(0),
        MESSAGE_I: DataReceived(0, bytes(MIB)),
        CLOSE_I: EofReceived(0),
        RESET_I: ResetReceived(0, 0),
    }
    assert events == [expected[flag]]
    side.violate(raw.uvarint(8 + flag) + raw.uvarint(MIB + 1), match="1048577 bytes")


def test_mx2_too_long_even_when_it_is_all_there(side: Side) -> None:
    side.inbound(0)
    side.violate(message(0, MESSAGE_I, bytes(MIB + 1)))


def test_mx2_we_send_at_most_one_mib_at_once(side: Side) -> None:
    stream = side.outbound()
    assert side.machine.send_credit(stream) == MIB
    with pytest.raises(LocalProtocolError, match="credit 1048576"):
        side.machine.send_data(stream, bytes(MIB + 1))
    assert side.sent() == []
    payload = bytes(range(256)) * 4096
    side.machine.send_data(stream, payload)
    sent = side.sent()
    assert b"".join(m.payload for m in sent) == payload
    assert max(len(m.payload) for m in sent) == 256 * 1024
    side.machine.send_data(stream, b"")
    assert side.sent() == []


def test_large_payloads_go_out_by_reference(side: Side) -> None:
    stream = side.outbound()
    large = bytes(16 * 1024)
    side.machine.send_data(stream, b"small")
    side.machine.send_data(stream, large)
    side.machine.send_data(stream, bytearray(b"tail"))
    head, body, tail = side.machine.data_to_send()
    assert body is large
    assert bytes(head) == bytes.fromhex("0205") + b"small" + bytes.fromhex("02808001")
    assert bytes(tail) == bytes.fromhex("0204") + b"tail"


def test_chunks_inside_a_payload_are_delivered_uncopied(side: Side) -> None:
    side.inbound(0)
    assert side.feed(raw.uvarint(MESSAGE_I) + raw.uvarint(3000)) == []
    chunk = bytes(1000)
    for _ in range(3):
        (event,) = side.machine.receive_data(chunk, 0.0)
        assert isinstance(event, DataReceived)
        assert event.data is chunk
    (event,) = side.machine.receive_data(memoryview(bytearray(message(0, MESSAGE_I, b"next"))), 0.0)
    assert event == DataReceived(0, b"next")


# --- MX3: who is who --------------------------------------------------------------------------------------------------


def test_mx3_both_sides_may_use_id_0(side: Side) -> None:
    machine = side.machine
    mine = machine.open_stream()
    assert side.feed(message(0, NEW, b"theirs")) == [StreamOpened(theirs(0))]
    assert mine == ours(0)
    assert side.feed(message(0, MESSAGE_I, b"on theirs"), message(0, MESSAGE_R, b"on ours")) == [
        DataReceived(theirs(0), b"on theirs"),
        DataReceived(ours(0), b"on ours"),
    ]
    machine.send_data(mine, b"a")
    machine.send_data(theirs(0), b"b")
    assert side.sent() == [Message(0, NEW, b"0"), Message(0, MESSAGE_I, b"a"), Message(0, MESSAGE_R, b"b")]
    assert side.feed(message(0, RESET_R)) == [ResetReceived(mine, 0)]
    assert side.feed(message(0, CLOSE_I)) == [EofReceived(theirs(0))]
    assert machine.stream_count == 1


def test_mx3_ids_count_up(side: Side) -> None:
    for _ in range(3):
        side.machine.open_stream()
    assert side.sent() == [Message(0, NEW, b"0"), Message(1, NEW, b"1"), Message(2, NEW, b"2")]


# --- MX4: ends --------------------------------------------------------------------------------------------------------


def test_mx4_close_is_half_a_close(side: Side) -> None:
    stream = side.inbound(0)
    assert side.feed(message(0, MESSAGE_I, b"last"), message(0, CLOSE_I)) == [
        DataReceived(stream, b"last"),
        EofReceived(stream),
    ]
    side.machine.send_data(stream, b"still here")
    side.machine.send_eof(stream)
    assert side.sent() == [Message(0, MESSAGE_R, b"still here"), Message(0, CLOSE_R)]
    assert side.machine.send_credit(stream) == 0
    for command in (lambda: side.machine.send_data(stream, b"x"), lambda: side.machine.send_eof(stream)):
        with pytest.raises(LocalProtocolError, match="finished"):
            command()
    assert side.machine.stream_count == 1
    side.machine.forget(stream, 0.0)
    assert side.machine.stream_count == side.machine.buffered == 0


@pytest.mark.parametrize(("flag", "stream"), [(RESET_I, theirs(0)), (RESET_R, ours(0))])
def test_mx4_reset_ends_both_directions(side: Side, flag: int, stream: int) -> None:
    side.inbound(0)
    side.outbound()
    side.feed(message(0, flag - 4, b"unread"))
    assert side.feed(message(0, flag, b"a body it should not have")) == [ResetReceived(stream, 0)]
    assert side.machine.stream_count == 1
    assert side.machine.buffered == 0
    assert side.machine.send_credit(stream) == 0
    assert side.machine.consumed(stream, 6, 0.0) is False
    with pytest.raises(LocalProtocolError, match="no stream"):
        side.machine.send_data(stream, b"x")
    side.machine.reset(stream)
    side.machine.forget(stream, 0.0)
    assert side.sent() == []


@pytest.mark.parametrize("flag", [MESSAGE_R, MESSAGE_I, CLOSE_R, CLOSE_I, RESET_R, RESET_I])
def test_mx4_m4_frames_of_unknown_streams_are_ignored_within_the_budget(side: Side, flag: int) -> None:
    assert side.feed(message(5, flag, b"body"), message(0, NEW)) == [StreamOpened(0)]
    assert side.sent() == []
    side.violate(message(5, flag) * 2001, match="unknown stream")


def test_mx4_messages_behind_the_end_are_ignored(side: Side) -> None:
    stream = side.inbound(0)
    assert side.feed(message(0, CLOSE_I), message(0, MESSAGE_I, b"late"), message(0, CLOSE_I)) == [EofReceived(stream)]
    assert side.machine.buffered == 0


def test_mx4_after_our_reset_what_is_under_way_is_drained(side: Side) -> None:
    stream = side.inbound(0)
    side.machine.reset(stream)
    assert side.sent() == [Message(0, RESET_R)]
    assert side.feed(message(0, MESSAGE_I, bytes(100)) * 20_000, message(0, CLOSE_I)) == []
    assert side.machine._idle._level == 0


# --- MX5: ids ---------------------------------------------------------------------------------------------------------


def test_mx5_new_stream_of_a_live_id(side: Side) -> None:
    side.inbound(3)
    side.violate(message(3, NEW), match="stream 3 is opened twice")


def test_mx5_an_id_may_be_used_again_after_its_end(side: Side) -> None:
    stream = side.inbound(3)
    side.feed(message(3, RESET_I))
    assert side.inbound(3) == stream


def test_mx5_ids_have_60_bits(side: Side) -> None:
    assert side.feed(message(MAX_ID, NEW)) == [StreamOpened(theirs(MAX_ID))]
    side.machine.send_data(theirs(MAX_ID), b"x")
    assert side.sent() == [Message(MAX_ID, MESSAGE_R, b"x")]
    side.violate(message(MAX_ID + 1, NEW), match="malformed")


def test_m7_our_ids_end(side: Side) -> None:
    side.machine._next_id = ours(MAX_ID)
    assert side.machine.open_stream() == ours(MAX_ID)
    assert side.machine.refusal == REFUSED_EXHAUSTED


# --- MX6, M9: no flow control -----------------------------------------------------------------------------------------


def test_mx6_a_stream_nobody_reads_is_reset(side: Side) -> None:
    slow, read = side.inbound(0), side.inbound(1)
    for _ in range(4):
        side.feed(message(0, MESSAGE_I, bytes(MIB)))
    assert side.machine.buffered == 4 * MIB
    assert side.feed(message(0, MESSAGE_I, b"x")) == [
        DataReceived(slow, b"x"),
        ResetReceived(slow, 0x1002, remote=False),
    ]
    assert side.sent() == [Message(0, RESET_R)]
    assert side.machine.buffered == 0
    for _ in range(100):
        assert side.feed(message(1, MESSAGE_I, bytes(MIB))) == [DataReceived(read, bytes(MIB))]
        assert side.machine.consumed(read, MIB, 0.0) is False
    assert not side.machine.has_output


def test_m9_a_connection_buffers_at_most_32_mib(side: Side) -> None:
    for number in range(12):
        side.inbound(number)
    lost = []
    for number in list(range(11)) * 3 + [11]:
        if theirs(number) not in lost:
            events = side.feed(message(number, MESSAGE_I, bytes(MIB)))
            lost += [event.stream_id for event in events if isinstance(event, ResetReceived)]
        assert side.machine.buffered <= 32 * MIB
    assert lost == [theirs(0)]


def test_mx6_overflow_in_the_middle_of_a_message() -> None:
    side = Side(max_stream_buffered=1000)
    side.inbound(0)
    events = side.feed(raw.uvarint(MESSAGE_I) + raw.uvarint(2000) + bytes(1500))
    assert events == [DataReceived(0, bytes(1500)), ResetReceived(0, 0x1002, remote=False)]
    assert side.feed(bytes(500), message(1, NEW)) == [StreamOpened(theirs(1))]


@pytest.mark.parametrize("n", [-1, 4])
def test_consuming_what_was_not_delivered(side: Side, n: int) -> None:
    side.inbound(0)
    side.feed(message(0, MESSAGE_I, b"abc"))
    with pytest.raises(LocalProtocolError, match="of 3"):
        side.machine.consumed(0, n, 0.0)


def test_after_a_local_close_some_is_drained_and_more_is_reset(side: Side) -> None:
    stream = side.inbound(0)
    side.feed(message(0, MESSAGE_I, b"unread"))
    side.machine.send_eof(stream)
    side.machine.forget(stream, 0.0)
    side.machine.forget(stream, 0.0)
    assert side.sent() == [Message(0, CLOSE_R)]
    assert side.machine.inbound_count == side.machine.buffered == 0
    assert side.machine.stream_count == 1
    assert side.feed(message(0, MESSAGE_I, bytes(65536)) * 4) == []
    assert side.sent() == []
    assert side.feed(message(0, MESSAGE_I, b"x")) == []
    assert side.sent() == [Message(0, RESET_R)]
    assert side.machine.stream_count == 0


def test_closed_for_reading_only(side: Side) -> None:
    stream = side.inbound(0)
    side.machine.forget(stream, 0.0)
    assert side.machine.consumed(stream, 1, 0.0) is False
    side.machine.send_data(stream, b"x")
    assert side.feed(message(0, MESSAGE_I, bytes(MIB))) == [ResetReceived(stream, 0, remote=False)]
    stream = side.inbound(0)
    side.machine.forget(stream, 0.0)
    assert side.feed(message(0, CLOSE_I)) == []
    side.machine.send_eof(stream)
    assert side.machine.stream_count == 0
    stream = side.inbound(0)
    side.machine.forget(stream, 0.0)
    side.machine.send_eof(stream)
    assert side.feed(message(0, CLOSE_I)) == []
    assert side.machine.stream_count == 0


def test_forgetting_in_the_middle_of_a_message(side: Side) -> None:
    stream = side.inbound(0)
    side.feed(raw.uvarint(MESSAGE_I) + raw.uvarint(1000) + b"abc")
    side.machine.forget(stream, 0.0)
    assert side.feed(bytes(997), message(1, NEW)) == [StreamOpened(theirs(1))]
    assert side.machine.buffered == 0


# --- M5, M6, M8: floods -----------------------------------------------------------------------------------------------


def test_m5_frames_without_progress(side: Side) -> None:
    for wire, name in (
        (message(0, MESSAGE_I), "empty message"),
        (message(1, MESSAGE_I, b"x"), "behind the end"),
        (message(1, CLOSE_I), "second end"),
    ):
        other = Side()
        other.inbound(0)
        other.inbound(1)
        other.feed(message(1, CLOSE_I))
        for _ in range(5):
            other.now += 1
            other.feed(wire * 1000)
        other.violate(wire * 2001, match=name)


def test_m6_rapid_reset(side: Side) -> None:
    for number in range(1000):
        side.feed(message(number, NEW), message(number, RESET_I))
    side.violate(message(5000, NEW), message(5000, RESET_I), match="reset")


def test_m8_streams_beyond_256_are_refused(side: Side) -> None:
    events = side.feed(*(message(number, NEW, b"name") for number in range(300)))
    assert events == [StreamOpened(theirs(number)) for number in range(256)]
    assert side.sent() == [Message(number, RESET_R) for number in range(256, 300)]
    assert side.feed(message(299, MESSAGE_I, b"under way")) == []
    assert side.machine._idle._level == 0
    with pytest.raises(RemoteProtocolError, match="beyond the limit"):
        side.feed(*(message(number, NEW) for number in range(300, 20_000)))


def test_own_streams_have_a_limit() -> None:
    side = Side(max_outbound=2)
    side.outbound()
    side.outbound()
    assert side.machine.refusal == REFUSED_STREAMS
    with pytest.raises(LocalProtocolError, match="too many"):
        side.machine.open_stream()
    assert side.feed(message(0, RESET_R)) == [ResetReceived(ours(0), 0), OpenCredit()]


def test_lingering_streams_are_bounded() -> None:
    side = Side(max_lingering=2)
    for _ in range(3):
        stream = side.outbound()
        side.machine.send_eof(stream)
        side.machine.forget(stream, 0.0)
    assert [m for m in side.sent() if m.flag == RESET_I] == [Message(0, RESET_I)]
    assert side.machine.stream_count == 2


# --- what is left -----------------------------------------------------------------------------------------------------


def test_y8_going_away_is_silent(side: Side) -> None:
    side.inbound(0)
    side.machine.go_away(5)
    assert not side.machine.has_output
    assert side.machine.going_away
    assert side.machine.refusal == REFUSED_GOING_AWAY
    assert side.feed(message(1, NEW), message(0, MESSAGE_I, b"goes on")) == [DataReceived(0, b"goes on")]
    assert side.sent() == [Message(1, RESET_R)]


def test_the_dead_say_so(side: Side) -> None:
    stream = side.outbound()
    side.violate(message(0, 7))
    machine = side.machine
    for command in (lambda: machine.send_data(stream, b"x"), lambda: machine.send_eof(stream), machine.open_stream):
        with pytest.raises(LocalProtocolError, match="dead"):
            command()
    with pytest.raises(RemoteProtocolError, match="dead"):
        machine.handle_timeout(0.0)
    machine.reset(stream)
    machine.forget(stream, 0.0)
    assert machine.consumed(stream, 1, 0.0) is False


@pytest.mark.parametrize(
    "wrong", [{"max_frame": MIB + 1}, {"max_stream_buffered": 0}, {"max_drain": -1}, {"max_buffered": 0}]
)
def test_config_is_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        MplexConfig(**wrong)
