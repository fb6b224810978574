"""The ends of streams, which the engine loses when it may."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
import trio

from libp2p._util.stream import MachineStream
from libp2p.abc import MuxedStream
from libp2p.errors import ConnectionClosed
from libp2p.multistream import Dialer
from libp2p.multistream._machine import encode
from libp2p.transports.quic._ends import PATIENCE, LateEnds
from libp2p.transports.quic._engine import Engine
from libp2p.transports.quic._machine import Ended, Eof
from tests.transports.quic.net import connect, open_net
from tests.transports.quic.pairs import Pair, events, make_machines, make_pair


@dataclass
class Core:
    """What is seen of the engine's insides."""

    loss_total: int = 0
    bytes_in_flight: int = 0
    congestion_window: int = 12_000
    smoothed_rtt: float = 0.1
    active_path: tuple[int, ...] = (0, 1200)
    outstanding_application_packets: list[tuple[int, int, int]] = field(default_factory=list)
    timer: tuple[str, float] = ("idle", 30.0)
    pings: int = 0

    def get_timer(self) -> tuple[str, float]:
        return self.timer

    def send_ping(self, uid: int) -> None:
        self.pings += 1

    def sent(self, *numbers: int) -> None:
        self.outstanding_application_packets = [(number, 1000, 1) for number in numbers]
        self.bytes_in_flight = 1000 * len(numbers)


def waiting(*stream_ids: int) -> tuple[Core, LateEnds]:
    core = Core()
    ends = LateEnds(core)
    for stream_id in stream_ids:
        ends.add(stream_id)
    return core, ends


def test_nothing_outstanding() -> None:
    _, ends = waiting(0, 4)
    assert len(ends) == 2
    assert ends.due(1.0) == [0, 4]
    assert not ends and ends.due(1.0) == []


def test_everything_before_is_acknowledged() -> None:
    """What is sent afterwards is not waited for, and the peer is asked once for all."""
    core, ends = waiting(0, 4)
    core.sent(7, 8)
    assert ends.due(1.0) == [] and core.pings == 1
    core.sent(8, 9)
    assert ends.due(1.1) == [] and core.pings == 1
    core.sent(9, 10)
    assert ends.due(1.2) == [0, 4]


def test_a_loss_begins_it_again() -> None:
    """What was lost must have left again: not while congestion, pacing or a timer before it may hold it back."""
    core, ends = waiting(0)
    core.sent(7, 8)
    ends.due(1.0)
    core.loss_total = 1
    core.sent(9, 10)
    core.congestion_window = 3000
    assert ends.due(1.1) == []
    core.congestion_window = 12_000
    for held in (("pacing", 1.11), ("ack_application", 1.11), ("loss_detection", 1.15)):
        core.timer = held
        assert ends.due(1.1) == []
    core.sent()
    assert ends.due(1.1) == []
    core.sent(11)
    core.timer = ("loss_detection", 1.4)
    assert ends.due(1.1) == []  # the mark
    core.sent(12)
    assert ends.due(1.2) == [0] and core.pings == 2


def test_other_streams_have_to_wait_in_the_end() -> None:
    core, ends = waiting(0, 4)
    core.loss_total = 1
    core.timer = ("pacing", 1.0)
    core.sent(7)
    ends.due(1.0)
    assert not ends.overdue
    ends.due(1.0 + PATIENCE)
    assert ends.overdue
    ends.discard(0)
    assert ends.overdue
    ends.discard(4)
    assert not ends.overdue and not ends
    ends.discard(4)


def late(pair: Pair, data: bytes) -> int:
    """Send a stream's data, and what is left of it in time; then nothing of it waits to be sent."""
    stream_id = pair.client.open_stream()
    pair.client.send(stream_id, data)
    return stream_id


def finished(engine: Engine, stream_id: int, size: int) -> bool:
    """Whether the whole stream has arrived, with its end."""
    chunks = [event for event in events(engine) if event[0] == "stream_data"]
    assert sum(len(str(chunk[2], "latin-1")) for chunk in chunks if isinstance(chunk[2], bytes)) <= size
    return any(chunk[1] == stream_id and chunk[3] for chunk in chunks)


def lose(pair: Pair, *numbers: int) -> None:
    """Lose these of the client's datagrams, counted from 1."""
    count = 0

    def change(data: bytes, from_client: bool) -> bytes | None:
        nonlocal count
        count += from_client
        return None if from_client and count in numbers else data

    pair.change = change


@pytest.mark.parametrize("mended", [False, True])
def test_the_defect(mended: bool) -> None:
    """Data, its end, and the first attempt to repeat them are lost. Once qh3 repeats the end, this fails, and
    ``_ends.py`` can go."""
    pair = make_pair()
    pair.exchange(20)
    events(pair.server)
    stream_id = late(pair, bytes(100))
    lose(pair, 1, 2, 3)
    pair.exchange(1)
    if mended:
        pair.client.finish(stream_id)
    else:
        pair.client._core.send_stream(stream_id, b"", True)
    arrived = False
    for _ in range(300):
        pair.now += 0.01
        pair.exchange(1)
        arrived = arrived or finished(pair.server, stream_id, 100)
    assert arrived == mended


@pytest.mark.parametrize("seed", range(6))
def test_every_end_arrives(seed: int) -> None:
    """Under loss, and whenever it is asked for: with the last data, or any time after."""
    rng = random.Random(seed)
    machines = make_machines()
    machines.pair.change = lambda data, from_client: None if rng.random() < 0.02 else data
    unfinished: dict[int, int] = {}
    ended: list[int] = []
    for number in range(300):
        if number < 20:
            stream_id = machines.client.open_stream()
            machines.client.send_data(stream_id, bytes(rng.choice([1, 100, 3000, 30_000])))
            unfinished[stream_id] = number + rng.randrange(6)
        for stream_id in [found for found, due in unfinished.items() if due <= number]:
            del unfinished[stream_id]
            machines.client.send_eof(stream_id)
        machines.pair.exchange(1)  # what is to be repeated leaves before streams end
        machines.pair.now += 0.02
        ended += [event.stream_id for event in machines.exchange(1)[1] if isinstance(event, Eof)]
    assert sorted(ended) == list(range(0, 80, 4))


@pytest.mark.parametrize("news", [("stop_sending", 0, 7), ("stream_finished", 0)])
def test_a_stream_that_needs_no_end_any_more(news: tuple[object, ...]) -> None:
    machines = make_machines()
    assert machines.client.open_stream() == 0
    machines.pair.client._ends.add(0)
    machines.pair.client._pending.append(news)
    machines.client.events(machines.now)
    assert not machines.pair.client._ends


def test_an_engine_that_fails() -> None:
    """Ends its connection, and the peer hears of it."""
    machines = make_machines()
    client = machines.pair.client
    core, closed = client._core, []

    class Broken:
        def poll_transmit(self, now: float) -> None:
            raise ValueError("reserved stream is missing")

        def close(self, code: int, frame_type: int, reason: bytes) -> None:
            closed.append((code, frame_type, reason))
            client._core = core
            core.close(code, frame_type, reason)

    client._core = Broken()  # type: ignore[assignment]
    with pytest.raises(ConnectionClosed, match="reserved stream"):
        client.transmit(machines.now)
    assert closed == [(1, 0, b"")]
    assert isinstance(machines.exchange(1)[1][-1], Ended)


def test_other_streams_wait_for_an_overdue_end() -> None:
    """When nothing calm comes by itself, it is made."""
    machines = make_machines()
    assert not machines.client.congested
    machines.pair.client._ends.overdue = True
    assert machines.client.congested


def test_a_connection_that_is_closed_while_an_end_waits() -> None:
    """The engine then refuses the mark that is waited for."""
    pair = make_pair()
    pair.exchange(20)
    stream_id = late(pair, bytes(100))
    pair.client.transmit(pair.now)
    pair.client.finish(stream_id)
    pair.client.close(0, "")
    assert pair.client.transmit(pair.now)


async def test_the_end_of_an_optimistic_stream_waits_for_the_first_sign_of_life() -> None:
    """As in the other muxers, and for the same peers."""
    async with open_net() as net:
        listener = await net.listener(await net.node())
        ours, theirs = await connect(await net.node(), listener)
        accepted = list[MuxedStream]()
        net.nursery.start_soon(ours.run, lambda stream: None)
        net.nursery.start_soon(theirs.run, accepted.append)
        asked, told = await ours.open_stream(), await ours.open_stream()
        for stream in (asked, told):
            assert isinstance(stream, MachineStream)
            stream.begin_optimistic(Dialer(("/test/1",)), "/test/1")
            await stream.send_all(b"question")
        await asked.send_eof()
        await told.aclose()
        await trio.sleep(1)
        for answering in accepted:
            assert (await answering.receive_some()).endswith(b"question")
            with pytest.raises(trio.WouldBlock):
                answering.receive_nowait()
        await accepted[0].send_all(encode("/multistream/1.0.0") + encode("/test/1") + b"answer")
        for answering in accepted:
            assert await answering.receive_some() == b""
        assert await asked.receive_some() == b"answer"
