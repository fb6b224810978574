"""What must hold for every muxer machine, whatever happens: garbage, chunking, pairs, accounting, round trips.

The five properties every machine has, for yamux and mplex, each with their defaults and with tiny limits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libp2p.errors import LocalProtocolError, RemoteProtocolError
from libp2p.muxers._machine import (
    CreditReceived,
    DataReceived,
    EofReceived,
    MuxEvent,
    OpenCredit,
    Outbox,
    PongReceived,
    ResetReceived,
    StreamOpened,
)
from libp2p.muxers.mplex._codec import MAX_ID, decode_header, encode_head
from libp2p.muxers.mplex._machine import MplexConfig, MplexMachine
from libp2p.muxers.yamux._codec import MAX_U32, pack_header, unpack_header
from libp2p.muxers.yamux._ids import Claim, PeerIds
from libp2p.muxers.yamux._machine import YamuxConfig, YamuxMachine
from libp2p.wire import varint
from tests.muxers import raw

Machine: TypeAlias = YamuxMachine | MplexMachine
Maker: TypeAlias = Callable[[bool], Machine]

TINY: dict[str, Any] = {"max_frame": 100, "max_inbound": 3, "max_outbound": 4, "max_streams": 5, "max_lingering": 1}

MAKERS: dict[str, Maker] = {
    "yamux": lambda client: YamuxMachine(YamuxConfig(), client=client),
    "yamux-tiny": lambda client: YamuxMachine(YamuxConfig(ack_backlog=2, **TINY), client=client),
    "yamux-wide": lambda client: YamuxMachine(YamuxConfig(initial_window=400_000), client=client),
    "mplex": lambda client: MplexMachine(MplexConfig()),
    "mplex-tiny": lambda client: MplexMachine(MplexConfig(max_drain=100, **TINY)),
}

every_machine = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS.keys())


# --- what peers might say ---------------------------------------------------------------------------------------------

_ids = st.sampled_from([0, 1, 2, 3, 4, 5, 6, 7, 9, 2**32 - 1])
_yamux_frames = st.one_of(
    st.builds(
        lambda stream, payload, flags: raw.data(stream, payload, flags),
        _ids, st.binary(max_size=30), st.sampled_from([0, 0, 0, 1, 1, 2, 4, 5, 8, 9, 16]),
    ),
    st.builds(raw.window, _ids, st.sampled_from([0, 1, 5000, 2**31, 2**32 - 1]), st.sampled_from([0, 1, 1, 2, 4, 8])),
    st.builds(raw.ping, st.integers(0, MAX_U32), st.sampled_from([1, 2, 0])),
    st.builds(raw.goaway, st.integers(0, 3)),
    st.builds(raw.frame, st.integers(0, 4), st.integers(0, 16), _ids, st.integers(0, MAX_U32)),
    st.builds(raw.window, st.sampled_from(range(1, 12, 2)), st.just(0), st.just(1)),
)  # fmt: skip
_mplex_frames = st.one_of(
    st.builds(raw.message, st.sampled_from([0, 1, 2, 300]), st.integers(0, 6), st.binary(max_size=30)),
    st.builds(raw.message, st.sampled_from([0, 1, 2, 300]), st.sampled_from([0, 2, 2]), st.binary(max_size=200)),
    st.builds(raw.message, st.integers(0, MAX_ID), st.integers(0, 7), st.binary(max_size=3)),
)


def _frames(machine: Machine) -> st.SearchStrategy[bytes]:
    return _yamux_frames if isinstance(machine, YamuxMachine) else _mplex_frames


def _open_two(machine: Machine) -> None:
    """So that frames may hit streams of ours."""
    for _ in range(2):
        machine.announce(machine.open_stream())


# --- 1. garbage -------------------------------------------------------------------------------------------------------


def _feed(machine: Machine, wire: bytes) -> bool:
    """Whether the machine lived on. Anything else than RemoteProtocolError is a bug."""
    try:
        for event in machine.receive_data(wire, 1.0):
            assert not isinstance(event, DataReceived) or event.data
    except RemoteProtocolError:
        assert machine.stream_count == machine.buffered == 0
        with pytest.raises(RemoteProtocolError):
            machine.receive_data(b"", 1.0)
        with pytest.raises(LocalProtocolError):
            machine.open_stream()
        return False
    check_accounts(machine)
    return True


@every_machine
@settings(max_examples=60)
@given(wire=st.binary(max_size=300))
def test_garbage(make: Maker, wire: bytes) -> None:
    machine = make(False)
    _open_two(machine)
    _feed(machine, wire)


@every_machine
@settings(max_examples=60)
@given(data=st.data())
def test_plausible_frames_in_any_order(make: Maker, data: st.DataObject) -> None:
    machine = make(False)
    _open_two(machine)
    for wire in data.draw(st.lists(_frames(machine), max_size=25)):
        if not _feed(machine, wire):
            break
        for command in (machine.send_data, machine.send_eof, machine.consumed, machine.forget, machine.reset):
            stream = data.draw(st.integers(0, 9))
            arguments: list[Any] = [stream]
            if command == machine.send_data:
                arguments.append(b"x")
            elif command == machine.consumed:
                arguments += [1, 1.0]
            elif command == machine.forget:
                arguments.append(1.0)
            if data.draw(st.booleans()):
                try:
                    command(*arguments)
                except LocalProtocolError:
                    pass
            check_accounts(machine)


# --- 2. chunking ------------------------------------------------------------------------------------------------------


def normal(events: Iterable[MuxEvent]) -> list[MuxEvent]:
    """Chunks of one stream that follow each other become one; credit to open is told once per call, so not at all."""
    result: list[MuxEvent] = []
    for event in events:
        last = result[-1] if result else None
        if isinstance(event, DataReceived) and isinstance(last, DataReceived) and last.stream_id == event.stream_id:
            result[-1] = DataReceived(event.stream_id, last.data + event.data)
        elif not isinstance(event, OpenCredit):
            result.append(event)
    return result


def _run(machine: Machine, chunks: Iterable[bytes]) -> tuple[list[MuxEvent] | None, bytes]:
    _open_two(machine)
    events: list[MuxEvent] = []
    try:
        for chunk in chunks:
            events += machine.receive_data(chunk, 1.0)
    except RemoteProtocolError:
        return None, raw.join(machine.data_to_send())
    return normal(events), raw.join(machine.data_to_send())


@every_machine
@settings(max_examples=60)
@given(data=st.data())
def test_chunking_does_not_matter(make: Maker, data: st.DataObject) -> None:
    wire = b"".join(data.draw(st.lists(_frames(make(False)), max_size=12)))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=10)))
    whole = _run(make(False), [wire])
    assert _run(make(False), (wire[i : i + 1] for i in range(len(wire)))) == whole
    assert _run(make(False), (wire[a:b] for a, b in zip([0, *cuts], [*cuts, len(wire)], strict=True))) == whole


# --- 3 and 4. pairs and accounting ------------------------------------------------------------------------------------


def check_accounts(machine: Machine) -> None:
    """The books agree with the streams, and no bound is exceeded."""
    streams = machine._streams.values()
    limits = machine._limits
    lingering = [s for s in streams if s.fin_sent and s.forgotten]
    assert list(machine._lingering) == sorted((s.id for s in lingering), key=list(machine._lingering).index)
    assert machine.stream_count == machine.inbound_count + machine.outbound_count + len(lingering)
    assert machine.inbound_count == sum(s.inbound for s in streams if s not in lingering) <= limits.max_inbound
    assert machine.outbound_count == sum(not s.inbound for s in streams if s not in lingering) <= limits.max_outbound
    assert len(lingering) <= limits.max_lingering
    assert machine.buffered == sum(s.buffered for s in streams) <= limits.max_buffered
    assert 0 < machine.pause_above == limits.pause_above <= limits.max_buffered
    assert not any(s.fin_sent and s.fin_received and s.forgotten for s in streams)
    assert not any(s.plain and (s.fin_received or s.forgotten) for s in streams)
    assert machine._body is None or machine._body.id in machine._streams
    assert machine._fin is None or machine._fin.id in machine._streams
    if isinstance(machine, YamuxMachine):
        _check_windows(machine)
    else:
        assert len(machine._partial) < 18
        assert all(s.buffered <= machine._config.max_stream_buffered for s in machine._streams.values())


def _check_windows(machine: YamuxMachine) -> None:
    streams, config = machine._streams.values(), machine._config
    assert len(machine._partial) < 12
    assert machine._unacked == sum(s.unacked for s in streams) <= config.ack_backlog
    assert machine._tuner.extra == sum(s.window - config.initial_window for s in streams) <= config.max_extra_window
    for s in streams:
        assert 0 <= s.send_window <= s.send_peak <= MAX_U32
        assert s.recv_window >= 0
        assert config.initial_window <= s.window <= config.max_window
        under_way = machine._left if machine._body is s else 0
        known = s.recv_window + under_way + s.buffered + s.returned
        assert known <= s.window
        assert known == s.window or s.fin_received or s.unacked is False


class Conversation:
    """One end of a stream, as its application sees it."""

    def __init__(self) -> None:
        self.sent = bytearray()
        self.received = bytearray()
        self.unread = 0
        self.ended = False  # the other side finished
        self.finished = self.forgotten = self.broken = False

    @property
    def writable(self) -> bool:
        return not (self.finished or self.broken)


class Side:
    """A machine, its application, and the bytes on their way to it."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.wire = bytearray()
        self.other: Side = self
        self.streams: dict[int, Conversation] = {}
        self.opened: list[int] = []

    @property
    def pings(self) -> int:
        """How many pings the machine has sent, of its own or ours."""
        return self.machine._ping_value if isinstance(self.machine, YamuxMachine) else 0

    def flush(self) -> None:
        self.other.wire += raw.join(self.machine.data_to_send())

    def take(self, size: int, now: float) -> None:
        """Receive at most ``size`` bytes."""
        chunk = bytes(self.wire[:size])
        del self.wire[:size]
        for event in self.machine.receive_data(chunk, now):
            self.see(event)

    def see(self, event: MuxEvent) -> None:
        if isinstance(event, StreamOpened):
            self.streams[event.stream_id] = Conversation()
            self.opened.append(event.stream_id)
            return
        if isinstance(event, OpenCredit | PongReceived):
            return
        assert not isinstance(event, type(None))
        stream = self.streams[event.stream_id]  # type: ignore[union-attr]
        assert not stream.broken
        if isinstance(event, DataReceived):
            assert event.data
            assert not (stream.forgotten or stream.ended)
            stream.received += event.data
            stream.unread += len(event.data)
        elif isinstance(event, EofReceived):
            assert not (stream.forgotten or stream.ended)
            stream.ended = True
        elif isinstance(event, CreditReceived):
            assert stream.writable  # the credit itself may be gone again: a reset can follow in the same list
        else:
            assert isinstance(event, ResetReceived)
            stream.broken = True

    # --- the application's deeds; each does nothing when it would be misuse ---

    def open(self) -> None:
        if self.machine.can_open:
            stream = self.machine.open_stream()
            self.streams[stream] = Conversation()
            self.opened.append(stream)
        else:
            with pytest.raises(LocalProtocolError):
                self.machine.open_stream()

    def send(self, stream: int, size: int) -> None:
        conversation = self.streams[stream]
        if conversation.writable:
            size = min(size, self.machine.send_credit(stream))
            start = len(conversation.sent)
            payload = bytes((start + i) * 7 + stream & 255 for i in range(min(size, 256))) * (size // 256 + 1)
            payload = payload[:size]
            conversation.sent += payload
            self.machine.send_data(stream, payload)
        else:
            assert self.machine.send_credit(stream) == 0
            with pytest.raises(LocalProtocolError):
                self.machine.send_data(stream, b"")

    def finish(self, stream: int) -> None:
        if self.streams[stream].writable:
            self.streams[stream].finished = True
            self.machine.send_eof(stream)

    def read(self, stream: int, size: int, now: float) -> None:
        conversation = self.streams[stream]
        size = min(size, conversation.unread)
        conversation.unread -= size
        self.machine.consumed(stream, size, now)

    def forget(self, stream: int, now: float) -> None:
        conversation = self.streams[stream]
        conversation.forgotten = True
        conversation.unread = 0
        self.machine.forget(stream, now)

    def reset(self, stream: int) -> None:
        self.streams[stream].broken = True
        self.machine.reset(stream, 7)


class Pair:
    """Two sides and a clock."""

    def __init__(self, make: Maker) -> None:
        self.sides = a, b = Side(make(True)), Side(make(False))
        a.other, b.other = b, a
        self.now = 10.0

    def act(self, verb: int, who: int, which: int, amount: int) -> None:
        side = self.sides[who]
        stream = side.opened[which % len(side.opened)] if side.opened else None
        if verb in (0, 1):
            side.flush()
            side.take(amount, self.now)
        elif verb == 2:
            side.open()
        elif verb == 3:
            self.now += amount / 100_000
            side.machine.handle_timeout(self.now)
        elif verb == 4:
            side.machine.ping(self.now)
        elif stream is None:
            return
        elif verb in (5, 6):
            side.send(stream, amount)
        elif verb in (7, 8):
            side.read(stream, amount, self.now)
        elif verb == 9:
            side.finish(stream)
        elif verb == 10:
            side.machine.acknowledge(stream)
        elif verb == 11 and which % 3 == 0:
            side.forget(stream, self.now)
        elif verb == 12 and which % 5 == 0:
            side.reset(stream)

    def check(self) -> None:
        for side in self.sides:
            check_accounts(side.machine)
            # Two honest machines never hold anything but pings against each other.
            assert side.machine._idle._level <= side.other.pings
            for stream, conversation in side.streams.items():
                twin = side.other.streams.get(stream ^ 1 if isinstance(side.machine, MplexMachine) else stream)
                assert not conversation.received or twin is not None
                assert twin is None or twin.sent.startswith(conversation.received)

    def settle(self) -> None:
        """Deliver, and read, until nothing moves."""
        while any(side.wire or side.machine.has_output for side in self.sides):
            for side in self.sides:
                side.flush()
                side.other.take(1 << 30, self.now)
                for stream, conversation in side.other.streams.items():
                    if conversation.unread:
                        side.other.read(stream, conversation.unread, self.now)
        self.check()

    def exchange(self, size: int) -> None:
        """Every stream that is open moves ``size`` bytes more, whatever happened before."""
        left = {(side, stream): size for side in self.sides for stream in side.streams}
        for _ in range(40):
            self.settle()
            for (side, stream), rest in list(left.items()):
                if rest and side.streams[stream].writable:
                    before = len(side.streams[stream].sent)
                    side.send(stream, rest)
                    left[side, stream] -= len(side.streams[stream].sent) - before
                else:
                    del left[side, stream]
        assert not left

    def finish(self) -> None:
        """Everybody finishes and closes: all arrived that was not cut off, and nothing is left anywhere."""
        for side in self.sides:
            for stream in side.opened:
                side.finish(stream)
        self.settle()
        for side in self.sides:
            for stream, conversation in side.streams.items():
                twin = side.other.streams.get(stream ^ 1 if isinstance(side.machine, MplexMachine) else stream)
                if not (conversation.broken or conversation.forgotten or twin is None or twin.broken):
                    assert conversation.received == twin.sent
                    assert conversation.ended
                side.forget(stream, self.now)
        self.settle()
        for side in self.sides:
            machine = side.machine
            assert machine.stream_count == machine.inbound_count == machine.outbound_count == machine.buffered == 0
            assert not machine._lingering
            assert isinstance(machine, MplexMachine) or machine._unacked == machine._tuner.extra == 0
            assert machine.can_open


_deeds = st.tuples(
    st.integers(0, 12),
    st.integers(0, 1),
    st.integers(0, 30),
    st.one_of(st.integers(0, 300), st.integers(0, 200_000)),
)


@every_machine
@settings(max_examples=40)
@given(deeds=st.lists(_deeds, min_size=20, max_size=120))
def test_m10_pairs_keep_order_lose_nothing_and_leave_nothing(
    make: Maker, deeds: list[tuple[int, int, int, int]]
) -> None:
    pair = Pair(make)
    for deed in deeds:
        pair.act(*deed)
        pair.check()
    pair.exchange(300_000 if len(deeds) % 4 == 0 else 1000)
    pair.finish()


@every_machine
def test_m11_both_write_on_all_streams_through_a_narrow_pipe(make: Maker) -> None:
    """1 KiB at a time, nobody reads first; then all is read. Nothing waits for ever."""
    pair = Pair(make)
    for side in pair.sides:
        side.open()
        side.open()
    for turn in range(40):
        for side in pair.sides:
            for stream in side.opened:
                side.send(stream, 20_000)
            side.machine.ping(pair.now)
            side.flush()
            side.other.take(1024, pair.now)
        pair.now += 1 + turn
    pair.check()
    pair.exchange(300_000)
    pair.finish()


# --- 5. round trips ---------------------------------------------------------------------------------------------------


@given(kind=st.integers(0, 3), flags=st.integers(0, 15), stream=st.integers(0, MAX_U32), length=st.integers(0, MAX_U32))
def test_yamux_headers_round_trip(kind: int, flags: int, stream: int, length: int) -> None:
    header = pack_header(kind, flags, stream, length)
    assert header == raw.frame(kind, flags, stream, length)
    assert unpack_header(header) == (kind, flags, stream, length)


@given(
    stream=st.integers(0, MAX_ID), ours=st.booleans(), flag=st.sampled_from([0, 1, 3, 5]), length=st.integers(0, 2**20)
)
def test_mplex_headers_round_trip(stream: int, ours: bool, flag: int, length: int) -> None:
    wire = encode_head(stream * 2 + ours, flag) + varint.encode(length)
    if flag and ours:
        flag += 1
    assert wire == raw.uvarint(stream * 8 + flag) + raw.uvarint(length)
    assert decode_header(b"?" + wire, 1) == (stream * 8 + flag, length, len(wire) + 1)


@given(order=st.permutations(range(1, 60, 2)), again=st.lists(st.sampled_from(range(1, 60, 2)), max_size=5))
def test_m7_ids_are_new_once_in_any_order(order: list[int], again: list[int]) -> None:
    ids = PeerIds(1)
    used: set[int] = set()
    for i, stream in enumerate(order):
        for other in (*again[i : i + 1], stream):
            assert ids.claim(other) is (Claim.USED if other in used else Claim.NEW)
            used.add(other)


# --- the small parts they share ---------------------------------------------------------------------------------------


def test_an_outbox_keeps_order_and_joins() -> None:
    out = Outbox()
    assert not out
    out.small += [b"a", b"b"]
    assert out
    out.append_large(b"LARGE")
    assert out
    out.append_large(b"MORE")
    out.small.append(memoryview(b"c"))
    assert out.drain() == [b"ab", b"LARGE", b"MORE", b"c"]
    assert not out
    assert out.drain() == []
