"""What one connection decides: streams and their ends, credit and memory, time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from libp2p.transports.quic import _machine
from libp2p.transports.quic._engine import EXCESSIVE_WORK, EngineConfig, _Bridge
from libp2p.transports.quic._machine import (
    CONNECTION_SEND_BUFFER,
    HANDSHAKE_TIMEOUT,
    KEEP_ALIVE_SHARE,
    LINGER,
    LINGER_BYTES,
    MAX_HOLD,
    MAX_KEEP_ALIVE,
    MIN_HOLD,
    RECEIVE_BUFFER,
    RECEIVE_LIMIT,
    RESOURCE_LIMIT,
    STREAM_SEND_BUFFER,
    CanOpen,
    CidRetired,
    Data,
    Ended,
    Eof,
    MachineEvent,
    Opened,
    QuicMachine,
    Reset,
    Stopped,
)
from tests.transports.quic.pairs import Machines, make_machines, make_pair


def opened(machines: Machines, data: bytes = b"hello") -> int:
    """A stream that the client has opened and the server knows."""
    stream_id = machines.client.open_stream()
    machines.client.send_data(stream_id, data)
    _, there = machines.exchange()
    assert there == [Opened(stream_id), Data(stream_id, data)]
    machines.server.consumed(stream_id, len(data))
    return stream_id


def test_roles_follow_the_dial() -> None:
    """Q4: streams of the dialler are even, those of the listener odd."""
    machines = make_machines()
    assert machines.client.open_stream() == 0
    assert machines.server.open_stream() == 1


def test_half_close() -> None:
    """Q7: one side finishes, the other goes on, and when both have, nothing is kept."""
    machines = make_machines()
    stream_id = opened(machines)
    machines.client.send_eof(stream_id)
    machines.client.send_eof(stream_id)
    assert machines.exchange()[1] == [Eof(stream_id)]
    machines.server.send_data(stream_id, b"answer")
    machines.server.send_eof(stream_id)
    here, _ = machines.exchange()
    assert here == [Data(stream_id, b"answer"), Eof(stream_id)]
    machines.client.consumed(stream_id, 6)
    machines.client.forget(stream_id, machines.now)
    machines.server.forget(stream_id, machines.now)
    machines.exchange()
    assert set(machines.client.in_use.values()) == set(machines.server.in_use.values()) == {0}
    for machine in (machines.client, machines.server):  # a stream that is gone takes commands without a word
        machine.send_data(stream_id, b"x")
        machine.send_eof(stream_id)
        machine.reset(stream_id, 1)
        machine.forget(stream_id, machines.now)
        machine.consumed(stream_id, 0)


def test_unread_bytes_are_counted_until_they_are_read() -> None:
    """Also when the engine has long forgotten the stream."""
    machines = make_machines()
    stream_id = opened(machines)
    machines.client.send_data(stream_id, b"last words")
    machines.client.send_eof(stream_id)
    machines.server.send_eof(stream_id)
    machines.exchange()
    machines.exchange()
    assert machines.server.in_use == {"streams": 1, "unread": 10, "queued": 0}
    machines.server.reset(stream_id, 7)  # nobody is left to be told
    assert not any(machines.server.in_use.values())

    stream_id = opened(machines)
    machines.client.send_data(stream_id, b"last words")
    machines.client.send_eof(stream_id)
    machines.server.send_eof(stream_id)
    machines.exchange()
    machines.server.consumed(stream_id, 10)
    machines.exchange()
    assert not any(machines.server.in_use.values())


def test_reset_ends_both_directions() -> None:
    """Q7: RESET_STREAM and STOP_SENDING, with the code; what was not read is gone."""
    machines = make_machines()
    stream_id = opened(machines)
    machines.client.send_data(stream_id, b"unread")
    machines.exchange()
    machines.client.reset(stream_id, 0x1234)
    _, there = machines.exchange()
    assert there == [Reset(stream_id, 0x1234, remote=True)] or Stopped(stream_id, 0x1234) in there
    assert not any(machines.client.in_use.values()) and not any(machines.server.in_use.values())


def test_reset_by_one_direction_alone() -> None:
    """A RESET_STREAM without STOP_SENDING ends both directions all the same, and is answered."""
    machines = make_machines()
    stream_id = opened(machines)
    machines.client.engine.reset(stream_id, 5)
    here, there = machines.exchange()
    assert there == [Reset(stream_id, 5, remote=True)]
    assert here == [Reset(stream_id, 5, remote=True)]


def test_reset_after_this_end_has_finished() -> None:
    machines = make_machines()
    stream_id = opened(machines)
    machines.server.send_eof(stream_id)
    machines.exchange()
    machines.client.engine.reset(stream_id, 5)
    assert machines.exchange()[1] == [Reset(stream_id, 5, remote=True)]
    assert not any(machines.server.in_use.values())


def test_stop_sending_ends_writing_only() -> None:
    """go sends it with every close: the answer must still be readable."""
    machines = make_machines()
    stream_id = opened(machines)
    machines.server.engine.stop(stream_id, 3)
    machines.server.send_data(stream_id, b"answer")
    machines.server.send_eof(stream_id)
    here, _ = machines.exchange()
    assert Stopped(stream_id, 3) in here
    assert [event for event in here if not isinstance(event, Stopped)] == [Data(stream_id, b"answer"), Eof(stream_id)]
    machines.client.send_data(stream_id, b"more")
    machines.client.send_eof(stream_id)
    assert machines.client.in_use["queued"] == 0


def test_after_the_end_nothing_is_stopped_or_reset() -> None:
    """What has arrived whole stays whole."""
    machines = make_machines()
    stream_id = opened(machines)
    machines.client.send_eof(stream_id)
    machines.server.engine.stop(stream_id, 3)
    assert machines.exchange() == ([], [Eof(stream_id)])


def test_a_closed_stream_discards_for_a_while() -> None:
    """Then the peer is asked to stop: at once when it goes on and on, else after some seconds."""
    machines = make_machines()
    stream_id = opened(machines)
    machines.server.send_eof(stream_id)
    machines.server.forget(stream_id, machines.now)
    machines.server.forget(stream_id, machines.now)
    machines.client.send_data(stream_id, bytes(100))
    here, there = machines.exchange()
    assert here == [Eof(stream_id)] and there == []
    machines.client.send_data(stream_id, bytes(LINGER_BYTES))
    here, there = machines.exchange()
    assert here == [Stopped(stream_id, 0)] and there == []

    stream_id = opened(machines)
    machines.server.forget(stream_id, machines.now)
    due = machines.server.next_timeout()
    assert due is not None and due <= machines.now + LINGER
    machines.pair.now += LINGER
    machines.server.handle_timeout(machines.now)
    assert machines.exchange()[0] == [Stopped(stream_id, 0)]


@pytest.mark.parametrize("end", ["close", "reset"])
def test_streams_that_the_peer_does_not_end(end: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Case M9: what the peer is asked to end costs memory until it does; when it does not, it is given up."""
    monkeypatch.setattr(_machine, "MAX_OWED", 5)
    machines = make_machines()
    server = machines.server

    def give_up_some() -> None:
        stream_ids = [server.open_stream() for _ in range(5)]
        for stream_id in stream_ids:
            server.send_data(stream_id, b"hello")
        machines.exchange()
        for stream_id in stream_ids:
            if end == "close":
                server.send_eof(stream_id)
                server.forget(stream_id, machines.now)
            else:
                server.reset(stream_id, 1)
        machines.pair.now += LINGER
        server.handle_timeout(machines.now)
        assert len(server._owed) >= 5

    for _ in range(3):
        give_up_some()
        machines.exchange(20)
        assert not server._owed and not server.ended, "it has"
    give_up_some()
    machines.pair.change = lambda data, from_client: None if from_client else data
    give_up_some()
    assert server.events(machines.now) == [Ended("the peer does not end its streams", EXCESSIVE_WORK, broken=True)]


def test_a_closed_stream_whose_peer_finishes_or_resets() -> None:
    machines = make_machines()
    for end in ("eof", "reset"):
        stream_id = opened(machines)
        machines.server.send_eof(stream_id)
        machines.server.forget(stream_id, machines.now)
        if end == "eof":
            machines.client.send_eof(stream_id)
        else:
            machines.client.engine.reset(stream_id, 1)
        here, there = machines.exchange()
        assert there == [] and Eof(stream_id) in here
        assert not any(machines.server.in_use.values())


def test_streams_that_arrive_out_of_order() -> None:
    """A later stream's packet may overtake an earlier one's; each is opened once, and never again when it is gone."""
    machines = make_machines()
    first, second = machines.client.open_stream(), machines.client.open_stream()
    machines.client.send_data(second, b"2")
    assert machines.exchange()[1] == [Opened(second), Data(second, b"2")]
    machines.client.send_data(first, b"1")
    assert machines.exchange()[1] == [Opened(first), Data(first, b"1")]
    found: list[MachineEvent] = []
    server = machines.server
    server.consumed(first, 1)
    server.consumed(second, 1)
    server._drop(first)
    server._drop(second)
    server._on_data(first, b"late", False, found)
    server._on_reset(second, 1, machines.now, found)
    server._on_stop(second, 1, found)
    server._drop(second)
    assert found == []


def test_stream_limit() -> None:
    """Q5: as many streams as the peer allows; more when one has ended."""
    machines = make_machines(config=EngineConfig(max_streams=2))
    one, two = opened(machines), opened(machines)
    assert not machines.client.can_open
    for stream_id in (one, two):
        machines.client.send_eof(stream_id)
        machines.server.send_eof(stream_id)
    found: list[MachineEvent] = []
    for _ in range(5):
        machines.pair.exchange()
        machines.server.events(machines.now)
        found += machines.client.events(machines.now)
    assert CanOpen() in found and machines.client.can_open
    assert EngineConfig().max_streams >= 256


def fill(machines: Machines, stream_id: int, size: int) -> None:
    """Send ``size`` bytes that nobody reads, as far as credit lets them go."""
    for _ in range(size // STREAM_SEND_BUFFER):
        machines.client.send_data(stream_id, bytes(STREAM_SEND_BUFFER))
    machines.exchange(300)
    machines.client.credited()


def test_a_slow_reader_holds_its_peer_back() -> None:
    """Nothing is taken above the buffer, except now and then, so that other streams get through."""
    config = EngineConfig(connection_window=RECEIVE_BUFFER, stream_window=RECEIVE_BUFFER)
    machines = make_machines(config=config)
    stream_id, other = opened(machines), opened(machines)
    fill(machines, stream_id, 6 * RECEIVE_BUFFER)
    server = machines.server
    assert server.paused
    held = server.in_use["unread"]
    assert RECEIVE_BUFFER < held < 2 * RECEIVE_BUFFER
    machines.client.send_data(other, b"me too")
    machines.exchange(20)
    assert server.in_use["unread"] == held
    due = server.next_timeout()
    assert due is not None and due <= machines.now + MIN_HOLD
    seen: list[MachineEvent] = []
    waits = []
    for _ in range(4):
        start = machines.now
        while not (found := server.events(machines.now)):
            machines.pair.now += 0.05
            assert machines.now < 60.0
        waits.append(machines.now - start)
        seen += found
        machines.exchange(40)
    assert Data(other, b"me too") in seen
    assert waits == sorted(waits) and waits[0] <= MIN_HOLD and waits[-1] <= MAX_HOLD + 0.1
    server.consumed(stream_id, server.in_use["unread"] - 6)
    assert not server.paused and server._hold == 0.0


def test_what_nobody_reads_is_given_up_in_the_end() -> None:
    """The connection's memory is bounded, and the stream with most of it pays."""
    machines = make_machines()
    small, large = opened(machines), opened(machines)
    server = machines.server
    machines.client.send_data(small, b"little")
    machines.exchange()
    found: list[MachineEvent] = []
    server._on_data(large, bytes(RECEIVE_LIMIT), False, found)
    server._hold_until = machines.now
    assert server.events(machines.now) == [Reset(large, RESOURCE_LIMIT, remote=False)]
    assert server.in_use["unread"] == 6
    here, _ = machines.exchange()
    assert Reset(large, RESOURCE_LIMIT, remote=True) in here or Stopped(large, RESOURCE_LIMIT) in here


def test_send_buffers() -> None:
    """A stream has credit until its buffer is full, and again when some of it has left; all streams share another."""
    machines = make_machines()
    client = machines.client
    stream_id = opened(machines)
    assert client.send_credit(stream_id) == STREAM_SEND_BUFFER and not client.congested
    client.send_data(stream_id, bytes(STREAM_SEND_BUFFER))
    assert client.send_credit(stream_id) == 0
    assert client.credited() == []
    machines.pair.exchange(100)
    assert client.credited() == [stream_id]
    assert client.credited() == []
    for _ in range(CONNECTION_SEND_BUFFER // STREAM_SEND_BUFFER + 1):
        client.send_data(stream_id, bytes(STREAM_SEND_BUFFER))
    assert client.congested
    client.reset(stream_id, 0)
    assert not client.congested


def test_credit_that_is_used_in_part() -> None:
    machines = make_machines()
    stream_id = opened(machines)
    machines.client.send_data(stream_id, bytes(STREAM_SEND_BUFFER // 2))
    machines.client.transmit(machines.now)
    assert machines.client.credited() == []
    assert 0 < machines.client.in_use["queued"] < STREAM_SEND_BUFFER // 2


@pytest.mark.parametrize("theirs", [10.0, 30.0, 120.0])
def test_keep_alive(theirs: float) -> None:
    """Q5: in time for the shorter idle timeout; rust's are 10 s."""
    pair = make_pair(config=EngineConfig(idle_timeout=theirs))
    machines = Machines(QuicMachine(pair.client, pair.now), QuicMachine(pair.server, pair.now), pair)
    machines.exchange(20)
    expected = min(MAX_KEEP_ALIVE, KEEP_ALIVE_SHARE * theirs)
    assert expected < 5.0 or theirs > 10.0
    machines.pair.now += 0.2
    for machine in (machines.client, machines.server):
        machine.handle_timeout(machines.now)
        machine.transmit(machines.now)
    for _ in range(3):
        due = machines.client.next_timeout()
        assert due is not None and due <= machines.now + expected
        machines.pair.now = max(due, machines.now)
        machines.client.handle_timeout(machines.now)
        machines.exchange(5)
    assert not machines.client.ended


def test_a_peer_that_gives_up_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Case T6: an idle timeout of a millisecond does not have us send two thousand pings a second."""
    whole = _Bridge.serialize_transport_parameters

    def said(bridge: _Bridge) -> bytes:
        if bridge.configuration.is_client:
            bridge._engine_config = replace(bridge._engine_config, idle_timeout=0.001)
        return whole(bridge)

    monkeypatch.setattr(_Bridge, "serialize_transport_parameters", said)
    machines = make_machines()
    server, now = machines.server, machines.now
    assert server.engine.idle_timeout == 0.001
    sent = 0
    while (due := server.next_timeout()) is not None:
        now = max(now, due)
        server.handle_timeout(now)
        server.events(now)
        sent += len(server.transmit(now))
    assert server.ended
    assert sent <= 2


def test_idle_timeout() -> None:
    """Whoever hears nothing gives up, with an error."""
    machines = make_machines(config=EngineConfig(idle_timeout=5.0))
    machines.pair.now += 6.0
    machines.client.handle_timeout(machines.now)
    [ended] = machines.client.events(machines.now)
    assert isinstance(ended, Ended) and "Idle" in ended.reason and ended.remote and not ended.broken
    assert machines.client.ended and not machines.client.can_open
    assert machines.client.next_timeout() is None
    assert machines.client.handle_timeout(machines.now) == []


def test_handshake_timeout() -> None:
    """A handshake has its time, whatever arrives meanwhile."""
    pair = make_pair()
    machine = QuicMachine(pair.client, pair.now)
    assert machine.next_timeout() == pair.now + HANDSHAKE_TIMEOUT
    machine.transmit(pair.now)
    assert machine.handle_timeout(pair.now) == []
    due = machine.next_timeout()
    assert due is not None and due < pair.now + HANDSHAKE_TIMEOUT
    [ended] = machine.handle_timeout(pair.now + HANDSHAKE_TIMEOUT)
    assert isinstance(ended, Ended) and "too long" in ended.reason


def test_close_tells_the_peer() -> None:
    """With the code; the first reason counts."""
    machines = make_machines()
    machines.client.close(0x1006, "trimmed")
    _, there = machines.exchange()
    assert there == [Ended("trimmed", 0x1006, remote=True)]
    assert machines.client.ended
    machines.pair.now += 10.0
    machines.server.handle_timeout(machines.now)
    assert machines.server.events(machines.now) == []


def test_close_without_a_reason() -> None:
    machines = make_machines()
    machines.client.close(0, "")
    _, there = machines.exchange()
    assert there == [Ended("the peer closed the connection", 0, remote=True)]


def test_connection_ids_come_and_go() -> None:
    """The endpoint hears of each."""
    machines = make_machines()
    machines.client.engine._core.change_connection_id()
    _, there = machines.exchange()
    assert any(isinstance(event, CidRetired) for event in there)


def test_a_handshake_that_fails() -> None:
    pair = make_pair()
    pair.client.receive_segments(b"x" * 50, 20, ("127.0.0.1", 1), pair.now)
    machine = QuicMachine(pair.client, pair.now)
    machine.receive([b"x"], ("127.0.0.1", 1), pair.now)
    machine.receive_segments(b"x" * 50, 20, ("127.0.0.1", 1), pair.now)
    found: list[MachineEvent] = []
    machine._on_connection("handshake_failed", ("handshake_failed", 0x12A, "no"), found)
    assert found == [Ended("the handshake failed: no", 0x12A)]


def test_a_stream_that_is_closed_and_then_reset() -> None:
    machines = make_machines()
    stream_id = opened(machines)
    machines.server.forget(stream_id, machines.now)
    machines.server.reset(stream_id, 9)
    here, _ = machines.exchange()
    assert here == [Reset(stream_id, 9, remote=True)]
    stream_id = opened(machines)
    machines.client.send_eof(stream_id)
    machines.exchange()
    machines.server.forget(stream_id, machines.now)
    machines.server.reset(stream_id, 9)


def test_a_breach_of_the_rules_is_the_peers() -> None:
    machines = make_machines()
    found: list[MachineEvent] = []
    machines.client._on_connection("protocol_error", ("protocol_error", 7, None, "frame"), found)
    machines.client._on_connection("connection_terminated", ("connection_terminated", 7, None, b"frame"), found)
    assert found == [Ended("the peer broke the rules of QUIC: frame", 7, broken=True)]
