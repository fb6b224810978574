"""yamux, limit by limit: streams, credit, floods, late frames, what is left after a long life.

Numbers as in the checklists: Y1 to Y16 of the specification, M3 to M11 of the reliability bar.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from libp2p.errors import LocalProtocolError, RemoteProtocolError
from libp2p.muxers._machine import (
    REFUSED_BACKLOG,
    REFUSED_STREAMS,
    CreditReceived,
    DataReceived,
    OpenCredit,
    ResetReceived,
    StreamOpened,
)
from libp2p.muxers.yamux._machine import YamuxConfig
from tests.muxers import raw
from tests.muxers.raw import ACK, DATA, FIN, RST, SYN, WINDOW, WINDOW_SIZE, Frame
from tests.muxers.sides import Side

MIB = 1024 * 1024


@pytest.fixture
def server() -> Side:
    return Side()


@pytest.fixture
def client() -> Side:
    return Side(client=True)


# --- Y9, M8: how many streams -----------------------------------------------------------------------------------------


def test_y9_m8_our_opens_stop_at_256_unacknowledged(client: Side) -> None:
    machine = client.machine
    streams = [machine.open_stream() for _ in range(256)]
    assert not machine.can_open
    assert machine.refusal == REFUSED_BACKLOG
    with pytest.raises(LocalProtocolError, match="accept"):
        machine.open_stream()
    for stream in streams:
        machine.announce(stream)
    assert len(client.sent()) == 256
    assert client.feed(raw.window(streams[10], 0, ACK)) == [OpenCredit()]
    assert machine.open_stream() == 513
    assert client.feed(raw.ping(1)) == []
    with pytest.raises(LocalProtocolError, match="accept"):
        machine.open_stream()
    assert client.feed(raw.window(streams[11], 0, RST)) == [ResetReceived(streams[11], 0), OpenCredit()]
    machine.open_stream()
    with pytest.raises(LocalProtocolError, match="accept"):
        machine.open_stream()
    machine.reset(streams[12])
    assert machine.can_open
    assert client.feed(raw.ping(1)) == [OpenCredit()]
    assert client.feed(raw.ping(1)) == []


def test_y9_m8_streams_of_the_peer_beyond_256_are_refused(server: Side) -> None:
    syns = [raw.window(i, 0, SYN) for i in range(1, 601, 2)]
    assert server.feed(*syns) == [StreamOpened(i) for i in range(1, 513, 2)]
    assert server.sent() == [Frame(WINDOW, RST, i, 0x1002) for i in range(513, 601, 2)]
    assert server.machine.inbound_count == server.machine.stream_count == 256
    server.feed(raw.window(1, 0, RST))
    assert server.feed(raw.data(601, b"x", SYN)) == [StreamOpened(601), DataReceived(601, b"x")]


def test_m8_syn_flood_of_10000(server: Side) -> None:
    wire = b"".join(raw.data(i, b"payload", SYN) for i in range(1, 20_001, 2))
    events = server.feed(wire)
    assert len(events) == 512
    assert len(server.sent()) == 10_000 - 256
    assert server.machine.stream_count == 256


def test_m8_an_endless_syn_flood_ends_the_connection(server: Side) -> None:
    with pytest.raises(RemoteProtocolError, match="beyond the limit"):
        for i in range(1, 60_001, 2):
            server.feed(raw.window(i, 0, SYN))
            server.sent()
    other = Side(max_refusals=100)  # nobody takes the replies: slowly is too fast as well
    with pytest.raises(RemoteProtocolError, match="beyond the limit"):
        for i in range(1, 1001, 2):
            other.now += 1
            other.feed(raw.window(i, 0, SYN))


def test_own_streams_have_a_limit() -> None:
    side = Side(client=True, max_outbound=3)
    streams = [side.outbound() for _ in range(3)]
    assert side.machine.refusal == REFUSED_STREAMS
    with pytest.raises(LocalProtocolError, match="too many streams are open"):
        side.machine.open_stream()
    assert side.feed(raw.window(streams[0], 0, RST)) == [ResetReceived(streams[0], 0), OpenCredit()]
    assert side.machine.outbound_count == 2


def test_all_streams_together_have_a_limit_for_ours() -> None:
    """A rust peer ends the connection at its 513th stream, whoever opened them."""
    side = Side(client=True, max_streams=4)
    for i in range(2, 10, 2):
        side.inbound(i)
    assert side.machine.refusal == REFUSED_STREAMS
    with pytest.raises(LocalProtocolError, match="too many streams"):
        side.machine.open_stream()
    assert side.feed(raw.window(2, 0, RST)) == [ResetReceived(2, 0), OpenCredit()]
    assert side.machine.can_open


# --- M4: credit -------------------------------------------------------------------------------------------------------


def test_m4_credit_up_to_the_maximum_and_not_beyond(server: Side) -> None:
    server.inbound(1)
    server.feed(raw.window(1, 2**32 - 1 - WINDOW_SIZE))
    assert server.machine.send_credit(1) == 2**32 - 1
    server.violate(raw.window(1, 1), match="2\\^32")


@pytest.mark.parametrize("flags", [0, ACK, FIN])
def test_m4_two_updates_of_the_maximum(server: Side, flags: int) -> None:
    server.inbound(1)
    server.violate(raw.window(1, 2**32 - 1, flags), raw.window(1, 2**32 - 1))


def test_m4_overflow_in_the_syn(server: Side) -> None:
    server.violate(raw.window(1, 2**32 - 1, SYN))


def test_m4_100000_small_updates(server: Side) -> None:
    server.inbound(1)
    server.violate(raw.window(1, 1) * 100_000, match="grows by little")


def test_m4_a_window_that_doubles_while_much_is_under_way(server: Side) -> None:
    """js gives back every message on its own, also those that were under way when its window grew."""
    server.inbound(1)
    for _ in range(2500):
        server.machine.send_data(1, bytes(100))
    server.feed(raw.window(1, 100 + WINDOW_SIZE))
    server.feed(raw.window(1, 100) * 2499)
    assert server.machine.send_credit(1) == 2 * WINDOW_SIZE
    server.violate(raw.window(1, 1) * 10_000, match="grows by little")


def test_m4_small_updates_that_return_what_was_sent_are_fine(server: Side) -> None:
    """js answers every data frame with an update."""
    server.inbound(1)
    server.feed(raw.window(1, MIB))
    for _ in range(10_000):
        server.machine.send_data(1, b"x")
        server.machine.data_to_send()
        server.feed(raw.window(1, 1))
    assert server.machine.send_credit(1) == WINDOW_SIZE + MIB


@pytest.mark.parametrize("stream", [1, 2, 7, 8])
@pytest.mark.parametrize("flags", [0, ACK, FIN, RST])
def test_m4_updates_for_unknown_streams_are_ignored_within_the_budget(stream: int, flags: int) -> None:
    """Never opened by either side: 7 and 8; opened and reset: 1 and 2."""
    side = Side()
    side.inbound(1)
    side.feed(raw.window(1, 0, RST))
    side.machine.reset(side.outbound())
    side.sent()
    assert side.feed(raw.window(stream, 5, flags), raw.data(stream, b"x", flags)) == []
    assert side.sent() == []
    side.violate(raw.window(stream, 5) * 12_000, match="unknown stream")


@pytest.mark.parametrize("wire", [raw.window(2, 100), raw.data(2, b"x"), raw.window(2, 0, RST), raw.data(2, b"", FIN)])
def test_m4_frames_for_a_stream_we_have_not_announced(server: Side, wire: bytes) -> None:
    stream = server.machine.open_stream()
    assert server.feed(wire) == []
    assert server.machine.send_credit(stream) == WINDOW_SIZE
    assert server.machine._unacked == 1


# --- M5: frames without progress --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "wire"),
    [
        ("empty data", raw.data(1)),
        ("empty data", raw.data(1, b"", ACK)),
        ("update of 0", raw.window(1, 0)),
        ("update of 0", raw.window(1, 0, ACK)),
        ("pong", raw.ping(3, ACK)),
        ("unknown", raw.data(99, b"x")),
    ],
)
def test_m5_a_flood_of_frames_without_progress(server: Side, name: str, wire: bytes) -> None:
    server.inbound(1)
    for _ in range(10):  # 1,000 a second are borne
        server.now += 1.0
        server.feed(wire * 1000)
    server.violate(wire * 2001, match=name)


def test_m5_ends_data_behind_them_and_farewells_are_charged_too(server: Side) -> None:
    for wire, name in (
        (raw.data(1, b"", FIN), "second end"),
        (raw.data(1, b"x"), "behind the end"),
        (raw.goaway(0), "second go away"),
    ):
        side = Side()
        side.inbound(1)
        side.feed(raw.data(1, b"", FIN), raw.goaway(0))
        side.violate(wire * 2001, match=name)


def test_m5_pings_with_answers_read_are_charged(server: Side) -> None:
    def flood() -> None:
        for i in range(2001):
            server.feed(raw.ping(i))
            server.sent()

    with pytest.raises(RemoteProtocolError, match="a ping"):
        flood()


def test_m5_at_most_16_answers_wait(server: Side) -> None:
    server.feed(*(raw.ping(i) for i in range(16)))
    assert len(server.sent()) == 16
    server.feed(*(raw.ping(i) for i in range(16)))
    server.violate(raw.ping(16), match="pings")


def test_m5_frames_with_progress_are_free(server: Side) -> None:
    server.inbound(1)
    for _ in range(10):
        for event in server.feed(raw.data(1, b"x") * 1000):
            assert isinstance(event, DataReceived)
            server.machine.consumed(1, 1, server.now)


# --- M6: rapid reset --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wires",
    [
        lambda i: raw.window(i, 0, SYN) + raw.window(i, 0, RST),
        lambda i: raw.data(i, b"x", SYN | FIN) + raw.data(i, b"", RST),
        lambda i: raw.window(i, 0, SYN | RST),
    ],
)
def test_m6_rapid_reset(server: Side, wires: Any) -> None:
    for i in range(1, 2001, 2):
        server.feed(wires(i))
    assert server.machine.stream_count == 0
    server.violate(wires(2001), match="reset")


def test_m6_resets_at_a_slow_rate_are_fine(server: Side) -> None:
    for i in range(1, 8001, 2):
        server.now += 0.0101
        server.feed(raw.window(i, 0, SYN), raw.window(i, 0, RST))


def test_m6_resets_of_our_own_streams_are_not_counted(client: Side) -> None:
    for _ in range(3000):
        assert client.feed(raw.window(client.outbound(), 0, RST))


# --- Y11, 2.4: after the end ------------------------------------------------------------------------------------------


def test_y11_everything_under_way_after_our_reset_is_drained(server: Side) -> None:
    """A whole window of small frames, and the frames that end the stream, do not count against an honest peer."""
    for i in range(1, 41, 2):
        server.inbound(i)
        server.machine.reset(i)
    for i in range(1, 41, 2):
        late = raw.data(i, b"x" * 128) * (WINDOW_SIZE // 128) + raw.window(i, 10) + raw.data(i, b"", FIN)
        assert server.feed(late) == []
    assert server.machine._idle._level == 0


def test_y11_what_was_refused_is_drained_too() -> None:
    side = Side(max_inbound=1)
    side.inbound(1)
    side.feed(raw.data(3, b"x" * 1000, SYN), raw.data(3, b"x" * 100_000), raw.data(3, b"", FIN))
    assert side.machine._idle._level == 0


def test_streams_free_everything_after_both_ends(server: Side) -> None:
    server.inbound(1)
    server.feed(raw.data(1, b"request", FIN))
    server.machine.send_data(1, b"answer")
    server.machine.send_eof(1)
    assert server.machine.stream_count == 1
    assert server.machine.buffered == 7
    server.machine.forget(1, 0.0)
    assert server.machine.stream_count == server.machine.buffered == server.machine.inbound_count == 0
    assert server.feed(raw.window(1, 6)) == []
    assert server.machine._idle._level == 0


def test_a_stream_closed_here_lingers_until_the_peer_ends(server: Side) -> None:
    server.inbound(1)
    machine = server.machine
    machine.forget(1, 0.0)
    machine.forget(1, 0.0)
    assert machine.inbound_count == 1
    machine.send_eof(1)
    assert machine.inbound_count == 0
    assert machine.stream_count == 1
    assert server.feed(raw.data(1, b"late answer", FIN)) == []
    assert machine.stream_count == 0
    assert server.sent() == [Frame(DATA, FIN, 1, 0)]


def test_a_lingering_stream_that_is_reset_says_nothing(server: Side) -> None:
    server.inbound(1)
    server.machine.send_eof(1)
    server.machine.forget(1, 0.0)
    assert server.feed(raw.window(1, 3, RST)) == []
    assert server.machine.stream_count == 0


def test_a_stream_closed_for_reading_only(server: Side) -> None:
    server.inbound(1)
    machine = server.machine
    server.feed(raw.data(1, b"unread"))
    machine.forget(1, 0.0)
    assert machine.buffered == 0
    assert machine.consumed(1, 6, 0.0) is False
    machine.send_data(1, bytes(WINDOW_SIZE))
    assert server.feed(raw.data(1, b"more"), raw.window(1, 9), raw.data(1, b"", FIN)) == [CreditReceived(1)]
    assert machine.stream_count == 1
    assert server.feed(raw.window(1, 77, RST)) == [ResetReceived(1, 77)]


def test_closing_returns_the_window_of_what_was_not_read(server: Side) -> None:
    """Else a blocked sender never learns."""
    server.inbound(1)
    server.feed(raw.data(1, bytes(WINDOW_SIZE)))
    server.machine.send_eof(1)
    server.machine.forget(1, 0.0)
    assert server.sent() == [Frame(DATA, FIN, 1, 0), Frame(WINDOW, 0, 1, WINDOW_SIZE)]
    assert server.machine.buffered == 0
    assert server.feed(raw.data(1, b"I am still writing")) == []
    assert server.sent() == [Frame(WINDOW, RST, 1, 0)]
    assert server.machine.stream_count == 0


def test_closing_in_the_middle_of_a_payload_returns_its_window(server: Side) -> None:
    server.inbound(1)
    server.feed(raw.frame(DATA, 0, 1, WINDOW_SIZE))
    server.machine.forget(1, 0.0)
    assert server.sent() == [Frame(WINDOW, 0, 1, WINDOW_SIZE)]
    assert server.feed(bytes(WINDOW_SIZE), raw.window(3, 0, SYN)) == [StreamOpened(3)]


def test_closing_drains_what_was_under_way_and_resets_on_more(server: Side) -> None:
    """FIN and a reset right behind it could destroy what the peer has not read yet."""
    server.inbound(1)
    machine = server.machine
    server.feed(raw.data(1, bytes(62_144)))
    machine.send_data(1, b"answer")
    machine.send_eof(1)
    machine.forget(1, 0.0)
    assert server.feed(raw.data(1, bytes(50_000)) * 4) == []
    assert [f for f in server.sent() if f.kind == WINDOW] == [Frame(WINDOW, 0, 1, 162_144)]
    assert server.feed(raw.data(1, b"x")) == []
    assert server.sent() == [Frame(WINDOW, RST, 1, 0)]


def test_the_writer_learns_when_draining_ends_in_a_reset(server: Side) -> None:
    server.inbound(1)
    server.feed(raw.data(1, bytes(WINDOW_SIZE)))
    server.machine.forget(1, 0.0)
    assert server.feed(raw.data(1, b"x", FIN)) == [ResetReceived(1, 0, remote=False)]
    assert server.sent()[-1] == Frame(WINDOW, RST, 1, 0)


def test_lingering_streams_are_bounded() -> None:
    side = Side(client=True, max_lingering=3)
    streams = [side.outbound() for _ in range(5)]
    for stream in streams:
        side.machine.send_eof(stream)
        side.machine.forget(stream, 0.0)
    assert side.machine.stream_count == 3
    assert side.machine.outbound_count == 0
    assert [f for f in side.sent() if f.kind == WINDOW] == [Frame(WINDOW, RST, s, 0) for s in streams[:2]]


def test_lingering_streams_make_room_for_new_ones() -> None:
    side = Side(client=True, max_streams=2)
    for _ in range(2):
        stream = side.outbound()
        side.machine.send_eof(stream)
        side.machine.forget(stream, 0.0)
    side.sent()
    assert side.machine.can_open
    assert side.machine.open_stream() == 5
    assert side.sent() == [Frame(WINDOW, RST, 1, 0)]


def test_x3_a_long_life_leaves_nothing(server: Side) -> None:
    """Fifty thousand streams, opened from both sides, ended in four ways."""
    machine = server.machine
    for i in range(1, 50_001, 2):
        server.now += 0.01
        server.feed(raw.data(i, b"request", SYN | FIN))
        machine.forget(i, server.now)
        machine.send_eof(i)
        mine = machine.open_stream()
        machine.send_data(mine, b"?")
        if i % 3:
            server.feed(raw.data(mine, b"!", ACK | FIN))
            machine.send_eof(mine)
            machine.forget(mine, server.now)
        elif i % 2:
            server.feed(raw.window(mine, 0, RST))
        machine.data_to_send()
    assert machine.stream_count == machine.buffered == machine.inbound_count == machine.outbound_count == 0
    assert machine._unacked == machine._tuner.extra == 0
    assert not machine._lingering
    assert len(machine._peer_ids._starts) == 0


# --- what is left -----------------------------------------------------------------------------------------------------


def test_the_dead_take_commands_calmly_or_say_so(client: Side) -> None:
    stream = client.outbound()
    client.violate(raw.frame(9, 0, 0, 0))
    machine = client.machine
    for command in (lambda: machine.send_data(stream, b"x"), lambda: machine.send_eof(stream), machine.open_stream):
        with pytest.raises(LocalProtocolError, match="dead"):
            command()
    machine.reset(stream)
    machine.forget(stream, 0.0)
    machine.acknowledge(stream)
    machine.ping(0.0)
    machine.go_away()
    assert machine.consumed(stream, 1, 0.0) is False
    assert machine.send_credit(stream) == 0
    assert not machine.has_output


def test_local_mistakes_change_nothing(client: Side) -> None:
    stream = client.outbound()
    with pytest.raises(LocalProtocolError, match="credit 262144"):
        client.machine.send_data(stream, bytes(WINDOW_SIZE + 1))
    client.machine.send_data(stream, bytes(WINDOW_SIZE))
    assert sum(f.length for f in client.sent()) == WINDOW_SIZE


@pytest.mark.parametrize(
    "wrong",
    [
        {"initial_window": WINDOW_SIZE - 1},
        {"initial_window": 32 * MIB},
        {"max_window": 2**32},
        {"max_frame": 0},
        {"max_inbound": 0},
        {"max_resets": -1},
        {"reset_period": 0.0},
        {"ping_timeout": 0.0},
        {"ack_backlog": 0},
        {"max_extra_window": -1},
        {"grow_within": float("nan")},
        {"keepalive": 0.0},
    ],
)
def test_config_is_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        YamuxConfig(**wrong)
    assert replace(YamuxConfig(), max_inbound=5).max_inbound == 5
