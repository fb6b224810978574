"""yamux, rule by rule: frames, ids, opening, ending, pings, farewells. Windows and limits have their own files.

Numbers as in the checklists: Y1 to Y16 of the specification, M3 to M11 of the reliability bar. The other side is
written by hand (``raw``): what the machine sends and takes is compared byte by byte.
"""

from __future__ import annotations

import pytest

from libp2p.errors import LocalProtocolError, RemoteProtocolError
from libp2p.muxers._machine import (
    REFUSED_EXHAUSTED,
    REFUSED_GOING_AWAY,
    DataReceived,
    EofReceived,
    GoAwayReceived,
    MuxEvent,
    MuxMachine,
    PongReceived,
    ResetReceived,
    StreamOpened,
)
from libp2p.muxers.yamux._codec import pack_header, unpack_header
from libp2p.muxers.yamux._ids import MAX_RANGES, Claim, PeerIds
from libp2p.muxers.yamux._machine import YamuxConfig, YamuxMachine
from tests.muxers import raw
from tests.muxers.raw import ACK, DATA, FIN, GOAWAY, PING, RST, SYN, WINDOW, WINDOW_SIZE, Frame
from tests.muxers.sides import Side

MIB = 1024 * 1024


@pytest.fixture
def server() -> Side:
    return Side()


@pytest.fixture
def client() -> Side:
    return Side(client=True)


# --- Y1: bytes --------------------------------------------------------------------------------------------------------


def test_y1_header_bytes() -> None:
    assert pack_header(1, 0x0008, 0x01020304, 0x1002) == bytes.fromhex("000100080102030400001002")
    assert unpack_header(bytes.fromhex("000300000000000000000001")) == (3, 0, 0, 1)


def test_y1_every_frame_we_send_byte_by_byte(client: Side) -> None:
    machine = client.machine
    stream = machine.open_stream()
    machine.send_data(stream, b"hello")
    machine.send_data(stream, b"again")
    machine.send_eof(stream)
    machine.ping(0.0)
    other = machine.open_stream()
    machine.announce(other)
    machine.reset(other, 0x1004)
    machine.go_away(0x1005)
    assert machine.data_to_send() == [
        bytes.fromhex(
            "000000010000000100000005" + b"hello".hex()
            + "000000000000000100000005" + b"again".hex()
            + "000000040000000100000000"
            + "000200010000000000000001"
            + "000100010000000300000000"
            + "000100080000000300001004"
            + "000300000000000000001005"
        )
    ]  # fmt: skip
    assert not machine.has_output
    assert machine.data_to_send() == []


def test_the_machine_has_the_agreed_shape() -> None:
    machine: MuxMachine = YamuxMachine(YamuxConfig(), client=True)
    assert machine.stream_count == 0


@pytest.mark.parametrize("kind", [4, 5, 255])
def test_y1_m3_unknown_type(server: Side, kind: int) -> None:
    server.violate(raw.frame(kind, 0, 1, 0), match="type")


@pytest.mark.parametrize("version", [1, 255])
def test_y1_m3_unknown_version(server: Side, version: int) -> None:
    server.violate(raw.frame(DATA, SYN, 1, 0, version=version), match="version")


@pytest.mark.parametrize("kind", [DATA, WINDOW, PING, GOAWAY])
@pytest.mark.parametrize("flag", [0x10, 0x8000])
def test_y1_m3_unknown_flags(server: Side, kind: int, flag: int) -> None:
    server.violate(raw.frame(kind, flag | (SYN if kind < PING else 0), int(kind < PING), 0), match="flags")


# --- Y2, M7: ids ------------------------------------------------------------------------------------------------------


def test_y2_client_ids_are_odd_and_server_ids_even(client: Side, server: Side) -> None:
    assert [client.machine.open_stream() for _ in range(3)] == [1, 3, 5]
    assert [server.machine.open_stream() for _ in range(3)] == [2, 4, 6]


@pytest.mark.parametrize("kind", [DATA, WINDOW])
def test_y2_m7_wrong_parity(server: Side, client: Side, kind: int) -> None:
    server.violate(raw.frame(kind, SYN, 2, 0), match="this side")
    client.violate(raw.frame(kind, SYN, 1, 0), match="this side")


@pytest.mark.parametrize("flags", [0, SYN, ACK, FIN, RST])
@pytest.mark.parametrize("kind", [DATA, WINDOW])
def test_y2_m7_stream_frame_with_id_0(server: Side, kind: int, flags: int) -> None:
    server.violate(raw.frame(kind, flags, 0, 0), match="id 0")


@pytest.mark.parametrize("kind", [PING, GOAWAY])
def test_y2_m7_session_frame_with_an_id(server: Side, kind: int) -> None:
    server.violate(raw.frame(kind, SYN if kind == PING else 0, 7, 0), match="session")


@pytest.mark.parametrize("kind", [DATA, WINDOW])
def test_m7_second_syn_of_a_live_stream(server: Side, kind: int) -> None:
    server.inbound(1)
    server.violate(raw.frame(kind, SYN, 1, 0), match="twice")


def test_m7_an_id_used_again(server: Side) -> None:
    server.feed(raw.window(1, 0, SYN), raw.window(1, 0, RST))
    server.violate(raw.window(1, 0, SYN), match="again")


def test_m7_a_decreasing_id_used_before(server: Side) -> None:
    server.feed(*(raw.window(i, 0, SYN) + raw.window(i, 0, RST) for i in (1, 3, 5)))
    server.violate(raw.window(3, 0, SYN), match="again")


def test_m7_ids_may_be_announced_out_of_order_once(server: Side) -> None:
    """go takes the number before it queues the frame, rust announces on the first write."""
    events = server.feed(*(raw.window(i, 0, SYN) for i in (9, 3, 1, 7, 5, 11)))
    assert events == [StreamOpened(i) for i in (9, 3, 1, 7, 5, 11)]
    server.feed(raw.window(7, 0, RST))
    server.violate(raw.window(7, 0, SYN), match="again")


def test_m7_frame_after_rst_is_ignored(server: Side) -> None:
    server.inbound(1)
    assert server.feed(raw.window(1, 0, RST)) == [ResetReceived(1, 0)]
    assert server.feed(raw.data(1, b"late"), raw.window(1, 5), raw.window(1, 0, RST), raw.data(1, b"", FIN)) == []
    assert server.sent() == []


def test_m7_exhaustion_of_our_ids(client: Side) -> None:
    machine = client.machine
    machine._next_id = 2**32 - 1
    assert machine.can_open
    assert machine.open_stream() == 2**32 - 1
    assert not machine.can_open
    assert machine.refusal == REFUSED_EXHAUSTED
    with pytest.raises(LocalProtocolError, match="used up"):
        machine.open_stream()
    machine.send_data(2**32 - 1, b"x")
    assert client.sent() == [Frame(DATA, SYN, 2**32 - 1, 1, b"x")]


def test_m7_the_peers_largest_id(server: Side) -> None:
    assert server.feed(raw.window(2**32 - 1, 0, SYN)) == [StreamOpened(2**32 - 1)]
    assert server.feed(raw.window(5, 0, SYN)) == [StreamOpened(5)]


def test_m7_skipped_ids_are_remembered_up_to_a_bound(server: Side) -> None:
    """Beyond it nobody knows whether an id was used: the stream is refused, the connection lives."""
    for i in range(MAX_RANGES + 10):
        server.feed(raw.window(1 + 4 * i, 0, SYN), raw.window(1 + 4 * i, 0, RST))
    assert server.feed(raw.window(3, 0, SYN)) == []
    assert server.sent() == [Frame(WINDOW, RST, 3, 0x1002)]
    assert server.feed(raw.window(4 * MAX_RANGES - 1, 0, SYN)) == [StreamOpened(4 * MAX_RANGES - 1)]


def test_m7_ranges_split() -> None:
    ids = PeerIds(2)
    assert ids.claim(100) is Claim.NEW
    for new in (50, 52, 2, 98, 48, 4, 96):
        assert ids.claim(new) is Claim.NEW
    for used in (50, 52, 2, 98, 48, 4, 96, 100):
        assert ids.claim(used) is Claim.USED
    assert all(ids.claim(i) is Claim.NEW for i in range(6, 48, 2))
    assert all(ids.claim(i) is Claim.NEW for i in range(54, 96, 2))
    assert all(ids.claim(i) is Claim.USED for i in range(2, 102, 2))
    assert ids.claim(102) is Claim.NEW


# --- Y4, Y5: opening --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wire", "events"),
    [
        (raw.window(1, 0, SYN), [StreamOpened(1)]),
        (raw.window(1, 1000, SYN), [StreamOpened(1)]),
        (raw.data(1, b"", SYN), [StreamOpened(1)]),
        (raw.data(1, b"hi", SYN), [StreamOpened(1), DataReceived(1, b"hi")]),
        (raw.data(1, b"hi", SYN | FIN), [StreamOpened(1), DataReceived(1, b"hi"), EofReceived(1)]),
        (raw.window(1, 0, SYN | FIN), [StreamOpened(1), EofReceived(1)]),
        (raw.window(1, 0, SYN | RST), []),
        (raw.data(1, b"hi", SYN | RST), []),
    ],
)
def test_y4_forms_of_opening(server: Side, wire: bytes, events: list[MuxEvent]) -> None:
    assert server.feed(wire) == events
    assert server.machine.stream_count == (1 if events else 0)


def test_y4_open_queues_nothing_and_syn_rides_on_the_first_frame(client: Side) -> None:
    machine = client.machine
    streams = [machine.open_stream() for _ in range(4)]
    assert not machine.has_output
    machine.send_data(streams[0], b"")
    assert not machine.has_output
    machine.send_data(streams[0], b"a")
    machine.send_data(streams[0], b"b")
    machine.send_eof(streams[1])
    machine.announce(streams[2])
    machine.announce(streams[2])
    machine.announce(streams[0])
    machine.announce(99)
    assert client.sent() == [
        Frame(DATA, SYN, 1, 1, b"a"),
        Frame(DATA, 0, 1, 1, b"b"),
        Frame(DATA, SYN | FIN, 3, 0),
        Frame(WINDOW, SYN, 5, 0),
    ]
    machine.reset(streams[3])
    assert client.sent() == []
    assert machine.stream_count == 3


@pytest.mark.parametrize("first", ["data", "eof", "acknowledge", "update"])
def test_y4_ack_rides_on_the_first_frame(server: Side, first: str) -> None:
    machine = server.machine
    server.feed(raw.data(1, bytes(131_072), SYN))
    assert not machine.has_output
    if first == "data":
        machine.send_data(1, b"x")
        expected = Frame(DATA, ACK, 1, 1, b"x")
    elif first == "eof":
        machine.send_eof(1)
        expected = Frame(DATA, ACK | FIN, 1, 0)
    elif first == "acknowledge":
        machine.acknowledge(1)
        expected = Frame(WINDOW, ACK, 1, 0)
    else:
        machine.consumed(1, 131_072, 0.0)
        assert server.sent()[-1] == Frame(WINDOW, ACK, 1, 131_072 + WINDOW_SIZE)
        machine.acknowledge(1)
        assert server.sent() == []
        return
    machine.acknowledge(1)
    assert server.sent() == [expected]
    machine.acknowledge(2)
    assert server.sent() == []


def test_y4_data_may_go_before_the_ack(client: Side) -> None:
    machine = client.machine
    stream = machine.open_stream()
    machine.send_data(stream, b"one")
    client.sent()
    machine.send_data(stream, b"two")
    assert client.sent() == [Frame(DATA, 0, 1, 3, b"two")]
    assert client.feed(raw.data(stream, b"answer", ACK)) == [DataReceived(stream, b"answer")]


def test_y4_any_frame_acknowledges(client: Side) -> None:
    """A peer that forgets ACK still shows with any frame that it knows the stream."""
    machine = client.machine
    for wire in (raw.data(1, b"x"), raw.window(3, 8), raw.data(5, b"", FIN), raw.window(7, 0), raw.window(9, 0, FIN)):
        machine.announce(machine.open_stream())
        assert machine._unacked == 1
        client.feed(wire)
        assert machine._unacked == 0


def test_y5_a_wider_initial_window_is_announced() -> None:
    side = Side(client=True, initial_window=MIB)
    stream = side.machine.open_stream()
    assert side.sent() == [Frame(WINDOW, SYN, stream, MIB - WINDOW_SIZE)]
    side.feed(raw.window(2, 0, SYN))
    side.machine.acknowledge(2)
    assert side.sent() == [Frame(WINDOW, ACK, 2, MIB - WINDOW_SIZE)]
    side.feed(raw.window(4, 0, SYN))
    side.machine.send_data(4, b"x")
    assert side.sent() == [Frame(WINDOW, ACK, 4, MIB - WINDOW_SIZE), Frame(DATA, 0, 4, 1, b"x")]
    side.feed(raw.data(2, bytes(MIB)))
    side.violate(raw.data(2, b"x"))


def test_y5_a_wider_window_of_the_peer_counts(server: Side, client: Side) -> None:
    server.feed(raw.window(1, 700_000, SYN))
    assert server.machine.send_credit(1) == WINDOW_SIZE + 700_000
    stream = client.machine.open_stream()
    client.machine.announce(stream)
    client.feed(raw.window(stream, 700_000, ACK))
    assert client.machine.send_credit(stream) == WINDOW_SIZE + 700_000


# --- Y6: ends ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wire", "events"),
    [
        (raw.data(1, b"", FIN), [EofReceived(1)]),
        (raw.data(1, b"end", FIN), [DataReceived(1, b"end"), EofReceived(1)]),
        (raw.window(1, 0, FIN), [EofReceived(1)]),
        (raw.window(1, 10, FIN), [EofReceived(1)]),
    ],
)
def test_y6_forms_of_fin(server: Side, wire: bytes, events: list[MuxEvent]) -> None:
    server.inbound(1)
    credit = server.machine.send_credit(1)
    assert server.feed(wire) == events
    assert server.machine.send_credit(1) == credit + (10 if wire[1] == WINDOW and wire[-1] else 0)
    server.machine.send_data(1, b"still open here")
    assert server.sent() == [Frame(DATA, 0, 1, 15, b"still open here")]


@pytest.mark.parametrize(
    ("wire", "code"),
    [
        (raw.data(1, b"", RST), 0),
        (raw.data(1, b"dropped", RST), 0),
        (raw.data(1, b"dropped", RST | FIN), 0),
        (raw.window(1, 0, RST), 0),
        (raw.window(1, 0x1003, RST), 0x1003),
        (raw.window(1, 2**32 - 1, RST | ACK), 2**32 - 1),
    ],
)
def test_y6_y13_forms_of_rst(server: Side, wire: bytes, code: int) -> None:
    server.inbound(1)
    server.feed(raw.data(1, b"unread"))
    assert server.feed(wire, raw.ping(7)) == [ResetReceived(1, code)]
    assert server.machine.stream_count == server.machine.buffered == 0
    assert server.machine.send_credit(1) == 0
    assert server.machine.consumed(1, 6, 0.0) is False
    assert server.sent() == [Frame(PING, ACK, 0, 7)]


def test_y6_rst_data_beyond_the_window(server: Side) -> None:
    server.inbound(1)
    server.violate(raw.frame(DATA, RST, 1, WINDOW_SIZE + 1))


def test_y13_the_length_of_a_reset_is_no_credit(server: Side) -> None:
    server.inbound(1)
    server.feed(raw.window(1, 2**32 - 1 - WINDOW_SIZE))
    assert server.feed(raw.window(1, 0x1002, RST)) == [ResetReceived(1, 0x1002)]


def test_y13_our_resets_carry_the_code_as_length(server: Side) -> None:
    server.inbound(1)
    server.machine.send_data(1, b"before")
    server.machine.reset(1, 0x1001)
    assert server.sent() == [Frame(DATA, 0, 1, 6, b"before"), Frame(WINDOW, RST, 1, 0x1001)]
    server.machine.reset(1)
    server.machine.forget(1, 0.0)
    assert server.sent() == []
    for code in (-1, 2**32):
        with pytest.raises(LocalProtocolError, match="32-bit"):
            server.machine.reset(1, code)


def test_y6_nothing_is_sent_after_our_end(server: Side) -> None:
    server.inbound(1)
    server.machine.send_eof(1)
    assert server.sent() == [Frame(DATA, FIN, 1, 0)]
    assert server.machine.send_credit(1) == 0
    for command in (lambda: server.machine.send_data(1, b"x"), lambda: server.machine.send_eof(1)):
        with pytest.raises(LocalProtocolError, match="finished"):
            command()
    for command in (lambda: server.machine.send_data(9, b"x"), lambda: server.machine.send_eof(9)):
        with pytest.raises(LocalProtocolError, match="no stream"):
            command()
    assert server.sent() == []
    assert server.feed(raw.data(1, b"we still read")) == [DataReceived(1, b"we still read")]
    server.machine.send_credit(1)
    assert server.feed(raw.window(1, 5000)) == []


def test_y6_data_behind_the_end_is_dropped(server: Side) -> None:
    server.inbound(1)
    assert server.feed(raw.data(1, b"", FIN), raw.data(1, b"late"), raw.data(1, b"", FIN)) == [EofReceived(1)]
    assert server.machine.buffered == 0
    assert server.machine.stream_count == 1
    server.violate(raw.frame(DATA, 0, 1, WINDOW_SIZE - 3))


def test_a_reset_in_the_middle_of_a_payload(server: Side) -> None:
    """Ours: the rest of the payload and its FIN go nowhere, and the next frame is found."""
    server.inbound(1)
    server.feed(raw.frame(DATA, FIN, 1, 10), b"abc")
    server.machine.reset(1)
    assert server.feed(b"defghij", raw.window(3, 0, SYN)) == [StreamOpened(3)]


# --- Y7, Y15: ping ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [0, 1, 0xDEADBEEF, 2**32 - 1])
def test_y7_a_ping_is_answered_once(server: Side, value: int) -> None:
    assert server.feed(raw.ping(value)) == []
    assert server.sent() == [Frame(PING, ACK, 0, value)]
    assert server.sent() == []


def test_y7_a_pong_is_never_answered_and_unasked_ones_are_ignored(server: Side) -> None:
    assert server.feed(raw.ping(5, ACK), raw.ping(5, 0)) == []
    assert server.sent() == []


def test_y7_our_ping(server: Side) -> None:
    machine = server.machine
    machine.ping(1000.0)
    machine.ping(1000.1)
    (ping,) = server.sent()
    assert ping[:3] == (PING, SYN, 0)
    server.now = 1000.25
    assert server.feed(raw.ping(ping.length + 1, ACK)) == []
    assert server.feed(raw.ping(ping.length, ACK), raw.ping(ping.length, ACK)) == [PongReceived(0.25)]
    machine.ping(1001.0)
    (second,) = server.sent()
    assert second.length != ping.length
    server.now = 999.0  # a clock that jumps must not give a negative time
    assert server.feed(raw.ping(second.length, ACK)) == [PongReceived(0.0)]


def test_y15_a_silent_peer_is_pinged_and_then_given_up(server: Side) -> None:
    machine = server.machine
    assert machine.next_timeout() == 0.0
    assert machine.handle_timeout(100.0) == []
    assert machine.next_timeout() == 130.0
    assert machine.handle_timeout(129.9) == []
    assert not machine.has_output
    assert machine.handle_timeout(130.0) == []
    assert [f[:3] for f in server.sent()] == [(PING, SYN, 0)]
    assert machine.next_timeout() == 150.0
    assert machine.handle_timeout(149.9) == []
    with pytest.raises(RemoteProtocolError, match="does not answer"):
        machine.handle_timeout(150.0)
    assert server.sent() == [Frame(GOAWAY, 0, 0, 2)]
    assert machine.next_timeout() is None
    with pytest.raises(RemoteProtocolError, match="dead"):
        machine.handle_timeout(151.0)


def test_y15_data_is_a_sign_of_life(server: Side) -> None:
    machine = server.machine
    machine.handle_timeout(1000.0)
    server.now = 1020.0
    server.feed(raw.window(1, 0, SYN))
    assert machine.next_timeout() == 1050.0
    machine.handle_timeout(1050.0)
    (ping,) = server.sent()
    server.now = 1060.0
    server.feed(raw.data(1, b"alive, but no pong"))
    assert machine.next_timeout() == 1070.0
    assert machine.handle_timeout(1070.0) == []
    assert machine.next_timeout() == 1090.0
    assert server.feed(raw.ping(ping.length, ACK)) == []  # too late to count as an answer


def test_y15_keepalive_can_be_off() -> None:
    side = Side(keepalive=None)
    assert side.machine.next_timeout() is None
    assert side.machine.handle_timeout(1e9) == []
    side.machine.ping(1e9)
    assert side.machine.next_timeout() == 1e9 + side.config.ping_timeout


# --- Y8: go away ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 1, 2, 0x1005, 2**32 - 1])
def test_y8_any_code_of_go_away(server: Side, code: int) -> None:
    server.inbound(1)
    assert server.feed(raw.goaway(code)) == [GoAwayReceived(code)]
    assert server.machine.going_away
    assert server.machine.refusal == REFUSED_GOING_AWAY
    with pytest.raises(LocalProtocolError, match="going away"):
        server.machine.open_stream()
    assert server.feed(raw.data(1, b"goes on")) == [DataReceived(1, b"goes on")]
    server.machine.send_data(1, b"yes")
    assert server.sent() == [Frame(DATA, 0, 1, 3, b"yes")]
    assert server.feed(raw.goaway(code)) == []


def test_y8_after_our_go_away_streams_are_refused(server: Side) -> None:
    server.inbound(1)
    server.machine.go_away(0x1007)
    server.machine.go_away(1)
    assert server.sent() == [Frame(GOAWAY, 0, 0, 0x1007)]
    assert server.feed(raw.data(3, b"hello", SYN), raw.data(1, b"goes on")) == [DataReceived(1, b"goes on")]
    assert server.sent() == [Frame(WINDOW, RST, 3, 0x1007)]
    assert not server.machine.can_open
    with pytest.raises(LocalProtocolError, match="32-bit"):
        server.machine.go_away(-1)


def test_y8_no_open_credit_while_going_away() -> None:
    side = Side(client=True, ack_backlog=1)
    stream = side.machine.open_stream()
    side.machine.announce(stream)
    side.machine.go_away()
    assert side.feed(raw.window(stream, 0, ACK)) == []


# --- Y12: frame sizes, and how output is laid out ---------------------------------------------------------------------


def test_y12_frames_sent_are_within_what_all_peers_take(client: Side) -> None:
    """A rust peer ends the connection at a frame above 1 MiB."""
    machine = client.machine
    stream = machine.open_stream()
    machine.announce(stream)
    client.sent()
    client.feed(raw.window(stream, 2 * WINDOW_SIZE, ACK))
    payload = bytes(range(256)) * 2560
    machine.send_data(stream, payload)
    sent = client.sent()
    assert [(f.flags, f.length) for f in sent] == [(0, WINDOW_SIZE), (0, WINDOW_SIZE), (0, WINDOW_SIZE // 2)]
    assert b"".join(f.payload for f in sent) == payload


def test_y12_a_frame_as_large_as_the_window_is_received(server: Side) -> None:
    server.inbound(1)
    (event,) = server.feed(raw.data(1, bytes(WINDOW_SIZE)))
    assert event == DataReceived(1, bytes(WINDOW_SIZE))


def test_large_payloads_go_out_by_reference(client: Side) -> None:
    machine = client.machine
    stream = machine.open_stream()
    large, small = bytes(16 * 1024), b"s" * (16 * 1024 - 1)
    machine.send_data(stream, small)
    machine.send_data(stream, large)
    machine.send_data(stream, bytearray(b"tail"))
    machine.send_data(stream, memoryview(b"view"))
    head, body, tail = machine.data_to_send()
    assert body is large
    assert isinstance(head, bytes)
    assert len(head) == 12 + len(small) + 12
    assert raw.frames(bytes(tail)) == [Frame(DATA, 0, 1, 4, b"tail"), Frame(DATA, 0, 1, 4, b"view")]


def test_large_payloads_are_split_without_a_copy(client: Side) -> None:
    machine = client.machine
    stream = machine.open_stream()
    machine.announce(stream)
    client.sent()
    client.feed(raw.window(stream, WINDOW_SIZE, ACK))
    payload = bytearray(300_000)
    machine.send_data(stream, payload)
    out = machine.data_to_send()
    assert [len(piece) for piece in out] == [12, WINDOW_SIZE, 12, 300_000 - WINDOW_SIZE]
    assert isinstance(out[1], memoryview)
    assert out[1].obj is payload


def test_a_small_frame_size_splits_small_payloads() -> None:
    side = Side(client=True, max_frame=3)
    side.machine.send_data(side.machine.open_stream(), b"abcdefgh")
    assert [f.payload for f in side.sent()] == [b"abc", b"def", b"gh"]


def test_a_chunk_inside_a_payload_is_delivered_uncopied(server: Side) -> None:
    server.inbound(1)
    first, second = b"x" * 1000, b"y" * 1000
    server.feed(raw.frame(DATA, 0, 1, 2500))
    (event,) = server.machine.receive_data(first, 0.0)
    assert isinstance(event, DataReceived)
    assert event.data is first
    (event,) = server.machine.receive_data(second, 0.0)
    assert isinstance(event, DataReceived)
    assert event.data is second
    assert server.feed(b"z" * 500, raw.data(1, b"next")) == [DataReceived(1, b"z" * 500), DataReceived(1, b"next")]


def test_memoryviews_are_taken_and_bytes_are_given(server: Side) -> None:
    server.inbound(1)
    buffer = bytearray(raw.data(1, b"abc"))
    (event,) = server.machine.receive_data(memoryview(buffer), 0.0)
    buffer[:] = bytes(len(buffer))
    assert isinstance(event, DataReceived)
    assert event.data == b"abc"
    assert type(event.data) is bytes
