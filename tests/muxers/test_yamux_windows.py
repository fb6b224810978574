"""yamux, the receive window: exact accounting, growth, and the memory of a connection.

Numbers as in the checklists: Y1 to Y16 of the specification, M3 to M11 of the reliability bar.
"""

from __future__ import annotations

import pytest

from libp2p.errors import LocalProtocolError
from libp2p.muxers._machine import (
    CreditReceived,
    DataReceived,
    EofReceived,
    PongReceived,
    ResetReceived,
    StreamOpened,
)
from libp2p.muxers.yamux._machine import YamuxConfig, YamuxMachine
from libp2p.muxers.yamux._window import WindowTuner
from tests.muxers import raw
from tests.muxers.raw import ACK, DATA, FIN, PING, RST, SYN, WINDOW, WINDOW_SIZE, Frame
from tests.muxers.sides import Side

MIB = 1024 * 1024


@pytest.fixture
def server() -> Side:
    return Side()


@pytest.fixture
def client() -> Side:
    return Side(client=True)


# --- Y3, Y10, M3: our receive window ----------------------------------------------------------------------------------


def test_y3_only_256_kib_fit_without_an_update(client: Side) -> None:
    machine = client.machine
    stream = machine.open_stream()
    assert machine.send_credit(stream) == WINDOW_SIZE
    machine.send_data(stream, bytes(WINDOW_SIZE))
    assert machine.send_credit(stream) == 0
    with pytest.raises(LocalProtocolError, match="credit 0"):
        machine.send_data(stream, b"x")
    assert sum(f.length for f in client.sent()) == WINDOW_SIZE
    assert client.feed(raw.window(stream, 10, ACK)) == [CreditReceived(stream)]
    assert machine.send_credit(stream) == 10
    assert client.feed(raw.window(stream, 10)) == []
    assert machine.send_credit(stream) == 20


def test_y3_only_data_bytes_count(server: Side) -> None:
    server.inbound(1)
    server.feed(*(raw.window(1, 5000) for _ in range(100)), raw.data(1, b"xyz"))
    assert server.state(1).recv_window == WINDOW_SIZE - 3
    assert server.machine.send_credit(1) == WINDOW_SIZE + 500_000


@pytest.mark.parametrize("sizes", [[WINDOW_SIZE], [1, WINDOW_SIZE - 1], [65536] * 4])
def test_y10_the_window_is_exact(server: Side, sizes: list[int]) -> None:
    server.inbound(1)
    for size in sizes:
        server.feed(raw.data(1, bytes(size)))
    assert server.machine.buffered == WINDOW_SIZE
    server.violate(raw.data(1, b"x"), match="window 0")


@pytest.mark.parametrize("more", [1, 2**32 - 1 - WINDOW_SIZE])
def test_y10_m3_beyond_the_window_at_the_header(server: Side, more: int) -> None:
    """Nothing of the payload is needed to see it, and nothing is buffered."""
    server.inbound(1)
    server.violate(raw.frame(DATA, 0, 1, WINDOW_SIZE + more), match="window 262144")


def test_m3_syn_with_more_than_the_initial_window(server: Side) -> None:
    """CVE-2026-32314: no stream may be registered before this is checked."""
    server.violate(raw.frame(DATA, SYN, 1, WINDOW_SIZE + 1), match="window 262144")
    other = Side()
    events = other.feed(raw.data(1, bytes(WINDOW_SIZE), SYN))
    assert events == [StreamOpened(1), DataReceived(1, bytes(WINDOW_SIZE))]


def test_m3_a_wider_window_of_ours_does_not_count_for_syn() -> None:
    side = Side(initial_window=MIB)
    side.violate(raw.frame(DATA, SYN, 1, WINDOW_SIZE + 1))


def test_m3_data_of_an_unknown_stream_has_a_limit_too(server: Side) -> None:
    server.feed(raw.frame(DATA, 0, 9, 16 * MIB))
    assert server.feed(bytes(16 * MIB)) == []
    server.violate(raw.frame(DATA, 0, 9, 2**32 - 1))


def test_m3_a_body_cut_short_is_delivered_so_far(server: Side) -> None:
    server.inbound(1)
    events = server.feed(raw.frame(DATA, FIN, 1, 100), b"abc")
    assert events == [DataReceived(1, b"abc")]
    assert server.machine.buffered == 3
    assert server.state(1).recv_window == WINDOW_SIZE - 100
    assert server.feed(bytes(97)) == [DataReceived(1, bytes(97)), EofReceived(1)]


def test_the_window_is_returned_when_half_of_it_was_consumed(server: Side) -> None:
    machine = server.machine
    server.inbound(1)
    server.feed(raw.data(1, bytes(200_000)))
    assert machine.consumed(1, 131_071, 0.0) is False
    assert not machine.has_output
    assert machine.consumed(1, 1, 1000.0) is True
    assert Frame(WINDOW, 0, 1, 131_072) in server.sent()
    assert server.state(1).recv_window == WINDOW_SIZE - 200_000 + 131_072
    assert machine.buffered == 200_000 - 131_072


def test_y10_consuming_without_an_update_grants_nothing(server: Side) -> None:
    server.inbound(1)
    server.feed(raw.data(1, bytes(100_000)))
    server.machine.consumed(1, 100_000, 0.0)
    server.violate(raw.frame(DATA, 0, 1, WINDOW_SIZE - 100_000 + 1))


@pytest.mark.parametrize("n", [-1, 4])
def test_consuming_what_was_not_delivered(server: Side, n: int) -> None:
    server.inbound(1)
    server.feed(raw.data(1, b"abc"))
    with pytest.raises(LocalProtocolError, match="of 3"):
        server.machine.consumed(1, n, 0.0)
    assert server.machine.buffered == 3


def test_no_update_after_the_peers_end(server: Side) -> None:
    server.inbound(1)
    server.feed(raw.data(1, bytes(200_000), FIN))
    assert server.machine.consumed(1, 200_000, 0.0) is False
    assert server.sent() == []


# --- Y14, M9: growing windows -----------------------------------------------------------------------------------------


def _rtt(side: Side, rtt: float) -> None:
    side.machine.ping(side.now)
    value = next(f.length for f in side.sent() if f.kind == PING)
    before = side.now
    side.now += rtt
    assert side.feed(raw.ping(value, ACK)) == [PongReceived(side.now - before)]


def _consume_half(side: Side, stream: int) -> int:
    """Let the peer send half the window and the application read it; the credit that comes back."""
    half = side.state(stream).window // 2
    side.feed(raw.data(stream, bytes(half)))
    assert side.machine.consumed(stream, half, side.now)
    return next(f.length for f in side.sent() if f.kind == WINDOW)


def test_y14_windows_double_up_to_the_ceiling() -> None:
    side = Side()
    side.inbound(1)
    _rtt(side, 0.1)
    sizes = []
    for _ in range(8):
        before = side.state(1).window
        assert _consume_half(side, 1) == before // 2 + side.state(1).window - before
        sizes.append(side.state(1).window)
        side.now += 0.39  # less than four round trips
    assert sizes == [WINDOW_SIZE << min(i, 6) for i in range(1, 9)]
    assert side.machine._tuner.extra == 16 * MIB - WINDOW_SIZE
    side.machine.reset(1)
    assert side.machine._tuner.extra == 0


def test_y14_a_slow_reader_keeps_its_window() -> None:
    side = Side()
    side.inbound(1)
    _rtt(side, 0.1)
    _consume_half(side, 1)
    for _ in range(5):
        side.now += 0.41
        assert _consume_half(side, 1) == WINDOW_SIZE
    assert side.state(1).window == 2 * WINDOW_SIZE


def test_y14_before_the_round_trip_is_known_quick_reading_counts() -> None:
    side = Side()
    side.inbound(1)
    assert _consume_half(side, 1) == WINDOW_SIZE // 2 + WINDOW_SIZE
    side.now += 0.0019
    assert _consume_half(side, 1) == WINDOW_SIZE + 2 * WINDOW_SIZE
    side.now += 0.0021
    assert _consume_half(side, 1) == 2 * WINDOW_SIZE


def test_y14_the_clock_of_a_window_starts_with_the_first_byte_consumed() -> None:
    side = Side()
    side.inbound(1)
    side.feed(raw.data(1, b"x"))
    side.machine.consumed(1, 1, side.now)
    side.now += 5
    half = WINDOW_SIZE // 2
    side.feed(raw.data(1, bytes(half)))
    side.machine.consumed(1, half, side.now)
    assert side.state(1).window == WINDOW_SIZE


def test_y14_the_round_trip_is_measured_when_data_flows() -> None:
    side = Side()
    side.inbound(1)
    side.feed(raw.data(1, bytes(WINDOW_SIZE // 2)))
    side.machine.consumed(1, WINDOW_SIZE // 2, side.now)
    ping, update = side.sent()
    assert (ping.kind, update.kind) == (PING, WINDOW)
    side.now += 0.2
    side.feed(raw.ping(ping.length, ACK))
    assert side.machine._tuner.rtt == pytest.approx(0.2)
    _consume_half(side, 1)
    side.now += 31
    side.feed(raw.data(1, bytes(side.state(1).window // 2)))
    side.machine.consumed(1, side.state(1).window // 2, side.now)
    ping, update = side.sent()
    assert (ping.kind, update.kind) == (PING, WINDOW)
    side.now += 0.1
    side.feed(raw.ping(ping.length, ACK))
    assert side.machine._tuner.rtt == pytest.approx(0.1)


def test_y14_queues_hardly_count_as_round_trip() -> None:
    """Or larger windows would make longer queues, and longer queues larger windows."""
    tuner = WindowTuner(YamuxConfig())
    for rtt in (0.1, 0.9, 0.02, 0.1):
        tuner.measured(rtt)
    assert tuner.rtt == pytest.approx(0.02 + 0.08 / 8)
    tuner.measured(10.0)
    assert tuner.rtt == pytest.approx(0.06)


def test_y14_a_fast_link_gets_no_more_window_than_its_reader_takes_in_some_milliseconds() -> None:
    """100 MB/s behind 0.2 ms: what others have to wait behind is bounded, and 16 MiB would not make it faster."""
    side = Side()
    side.inbound(1)
    window = side.state(1).window
    for _ in range(200):
        side.now += window / 2 / 100e6
        _consume_half(side, 1)
        window = side.state(1).window
    assert MIB // 4 <= window <= MIB // 2


def _transfer(rtt: float, size: int) -> float:
    """Virtual seconds to move ``size`` bytes to a reader without delay over a link that only has latency."""
    sender, receiver = YamuxMachine(YamuxConfig(), client=True), YamuxMachine(YamuxConfig(), client=False)
    stream = sender.open_stream()
    now, got, left = 0.0, 0, size
    while got < size:
        chunk = min(left, sender.send_credit(stream))
        sender.send_data(stream, bytes(chunk))
        left -= chunk
        there = raw.join(sender.data_to_send())
        now += rtt / 2
        for event in receiver.receive_data(there, now):
            if isinstance(event, DataReceived):
                got += len(event.data)
                receiver.consumed(stream, len(event.data), now)
        back = raw.join(receiver.data_to_send())
        now += rtt / 2
        sender.receive_data(back, now)
    return now


def test_y14_a_100_ms_link_gets_up_to_speed() -> None:
    """With the first window alone it would take 25.6 s."""
    assert _transfer(0.1, 64 * MIB) <= 1.3
    assert _transfer(0.3, 64 * MIB) <= 4.5


def test_m9_all_windows_together_grow_within_a_bound() -> None:
    side = Side(max_extra_window=5 * WINDOW_SIZE)
    for stream in (1, 3, 5):
        side.inbound(stream)
        for _ in range(3):
            _consume_half(side, stream)
    assert [side.state(s).window // WINDOW_SIZE for s in (1, 3, 5)] == [6, 1, 1]
    side.machine.reset(1)
    side.sent()
    _consume_half(side, 3)
    assert side.state(3).window == 2 * WINDOW_SIZE


def test_m9_windows_grow_only_while_memory_is_free() -> None:
    side = Side(max_buffered=2 * WINDOW_SIZE)
    for stream in range(1, 13, 2):
        side.inbound(stream)
    for stream in range(3, 13, 2):
        side.feed(raw.data(stream, bytes(WINDOW_SIZE // 4)))
    assert _consume_half(side, 1) == WINDOW_SIZE // 2


def test_m9_y16_a_connection_buffers_at_most_32_mib(server: Side) -> None:
    """The stream that holds most goes, so one that is read stays; the others are not disturbed."""
    for stream in range(1, 513, 2):
        server.inbound(stream)
    lost: list[int] = []
    read = 511
    for _ in range(8):
        for stream in range(1, 513, 2):
            if stream in lost:
                continue
            for event in server.feed(raw.data(stream, bytes(32 * 1024))):
                if isinstance(event, ResetReceived):
                    assert event == ResetReceived(event.stream_id, 0x1002, remote=False)
                    lost.append(event.stream_id)
                elif isinstance(event, DataReceived) and stream == read:
                    server.machine.consumed(stream, len(event.data), server.now)
            assert server.machine.buffered <= 32 * MIB
    resets = [f for f in server.sent() if f.flags & RST]
    assert resets == [Frame(WINDOW, RST, stream, 0x1002) for stream in lost]
    assert lost
    assert read not in lost
    assert server.machine.stream_count == 256 - len(lost)


def test_m9_the_overflowing_stream_in_the_middle_of_its_payload() -> None:
    side = Side(max_buffered=1000)
    side.inbound(1)
    side.inbound(3)
    side.feed(raw.data(3, bytes(10)))
    events = side.feed(raw.frame(DATA, FIN, 1, 2000), bytes(1500))
    assert events == [DataReceived(1, bytes(1500)), ResetReceived(1, 0x1002, remote=False)]
    assert side.feed(bytes(500), raw.data(3, b"fine")) == [DataReceived(3, b"fine")]
    assert side.machine.buffered == 14


def test_y16_one_slow_stream_does_not_block_another(server: Side) -> None:
    server.inbound(1)
    server.inbound(3)
    server.feed(raw.data(1, bytes(WINDOW_SIZE)))
    for _ in range(100):
        (event,) = server.feed(raw.data(3, bytes(100_000)))
        assert isinstance(event, DataReceived)
        server.machine.consumed(3, 100_000, server.now)
    assert server.state(1).recv_window == 0
