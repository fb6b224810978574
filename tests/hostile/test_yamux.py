"""Cases M3 to M8 for yamux: frames that lie, floods, and streams without end, by a peer that writes by hand."""

from __future__ import annotations

import itertools
import time

import pytest
import trio
import trio.lowlevel

from libp2p.abc import Stream
from libp2p.errors import ConnectionClosed, LimitExceeded, NegotiationError
from libp2p.host import HostConfig
from libp2p.muxers._connection import MachineConnection
from libp2p.protocols.ping import ping
from libp2p.swarm import LimitsConfig, SwarmConfig
from libp2p.testing import memory_network
from libp2p.testing.raw import (
    ACK,
    DATA,
    FIN,
    GO_AWAY,
    HEADER,
    PING,
    RST,
    SYN,
    WINDOW_UPDATE,
    RawPeer,
    YamuxFrame,
    line,
    yamux,
)
from libp2p.testing.rig import Budget
from tests.hostile.cases import Attack, ends, open_raw_stream, under_attack

pytestmark = pytest.mark.bar_c

ECHO = HEADER + line("/libp2p-testing/echo/1.0.0")
WINDOW = 262_144
MANY_STREAMS = HostConfig(
    swarm=SwarmConfig(limits=LimitsConfig(streams_inbound_per_protocol=512, streams_outbound_per_protocol=512))
)


def _muxed(attack: Attack) -> MachineConnection:
    """The victim's muxer towards the last attacker that came through."""
    connection = attack.opened[-1].connection
    muxed = connection.muxed  # type: ignore[attr-defined]
    assert isinstance(muxed, MachineConnection)
    return muxed


async def _send(peer: RawPeer, data: bytes) -> None:
    """Send as far as the victim lets us."""
    try:
        await peer.send(data)
    except trio.BrokenResourceError:
        pass


async def _frames_of(peer: RawPeer, stream: int) -> YamuxFrame:
    while True:
        frame = await peer.next_frame()
        if frame.stream == stream:
            return frame


async def _still_works(peer: RawPeer, stream: int) -> None:
    """An echo on a new stream of this very connection."""
    await open_raw_stream(peer, stream, ECHO + b"still here")
    got = b""
    with trio.fail_after(1):
        while not got.endswith(b"still here"):
            got = got + (await _frames_of(peer, stream)).payload


# --- M3 ---------------------------------------------------------------------------------------------------------------

LIES = {
    "data of 2^32-1": yamux(DATA, 0, 1, b"x" * 100, length=2**32 - 1),
    "SYN with window and one": yamux(DATA, SYN, 3, b"x" * 100, length=WINDOW + 1),
    "window and one": yamux(DATA, 0, 1, length=WINDOW + 1) + b"x" * 1000,
    "unknown type": yamux(4, 0, 1),
    "type 255": yamux(255, 0, 0),
    "version 1": yamux(DATA, 0, 1, version=1),
    "unknown flag": yamux(DATA, 0x10, 1),
    "all flags": yamux(WINDOW_UPDATE, 0xFFFF, 1),
    "data on the session": yamux(DATA, 0, 0, b"x"),
    "SYN on the session": yamux(WINDOW_UPDATE, SYN, 0),
    "ping on a stream": yamux(PING, SYN, 1, length=7),
    "go away on a stream": yamux(GO_AWAY, 0, 1),
    "stream of ours": yamux(WINDOW_UPDATE, SYN, 2),
    "opened twice": yamux(WINDOW_UPDATE, SYN, 1),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
async def test_M3_M7_a_frame_that_lies_costs_the_connection(lie) -> None:
    """GoAway with a protocol error at once; nothing is kept, no stream is left."""
    async with under_attack() as attack:
        peer = await attack.connect()
        await open_raw_stream(peer, 1, ECHO)
        await _frames_of(peer, 1)
        muxed = _muxed(attack)
        await _send(peer, lie)
        said = await ends(peer, 0.05)
        assert [frame.length for frame in said if frame.kind == GO_AWAY] == [1]
        assert muxed.machine.stream_count == muxed.machine.buffered == 0
        assert not muxed.streams


async def test_M3_more_than_the_window_in_honest_frames_costs_the_connection() -> None:
    """A reader that does not read has room for one window, to the byte."""
    async with under_attack() as attack:
        attack.victim.handle("/lazy/1", _lazy)
        peer = await attack.connect()
        await open_raw_stream(peer, 1, HEADER + line("/lazy/1"))
        header = len(HEADER + line("/lazy/1"))
        await peer.send(yamux(DATA, 0, 1, bytes(WINDOW - header)))
        await trio.sleep(1)
        assert _muxed(attack).machine.buffered <= WINDOW
        await _send(peer, yamux(DATA, 0, 1, b"x"))
        assert any(frame.kind == GO_AWAY for frame in await ends(peer, 0.05))


async def _lazy(stream: Stream) -> None:
    await trio.sleep_forever()


async def test_M3_a_body_cut_short_is_no_end() -> None:
    """The connection ends inside a frame: the handler sees a loss, not an end."""
    outcomes: list[object] = []

    async def handler(stream: Stream) -> None:
        try:
            outcomes.append(b"".join([bytes(chunk) async for chunk in stream]))
        except ConnectionClosed as exc:
            outcomes.append(exc)
            raise

    async with under_attack() as attack:
        attack.victim.handle("/whole/1", handler)
        peer = await attack.connect()
        await open_raw_stream(peer, 1, HEADER + line("/whole/1"))
        await peer.send(yamux(DATA, FIN, 1, b"half", length=8))
        await peer.stream.aclose()
        await trio.sleep(1)
    assert len(outcomes) == 1
    assert isinstance(outcomes[0], ConnectionClosed)


# --- M4 ---------------------------------------------------------------------------------------------------------------


async def test_M4_credit_above_the_limit_costs_the_connection() -> None:
    async with under_attack() as attack:
        peer = await attack.connect()
        await open_raw_stream(peer, 1, ECHO)
        await _frames_of(peer, 1)
        await peer.send(yamux(WINDOW_UPDATE, 0, 1, length=2**32 - 1 - WINDOW))
        await trio.sleep(0.1)
        assert _muxed(attack).machine.send_credit(1) <= 2**32 - 1
        await _send(peer, yamux(WINDOW_UPDATE, 0, 1, length=2**32 - 1))
        assert any(frame.kind == GO_AWAY for frame in await ends(peer, 0.05))


async def test_M4_a_hundred_thousand_small_updates_are_a_flood() -> None:
    async with under_attack() as attack:
        peer = await attack.connect()
        await open_raw_stream(peer, 1, ECHO)
        await _frames_of(peer, 1)
        await _send(peer, yamux(WINDOW_UPDATE, 0, 1, length=1) * 100_000)
        assert any(frame.kind == GO_AWAY for frame in await ends(peer, 0.5))


async def test_M4_updates_for_streams_that_are_not_there_are_ignored() -> None:
    """Unknown, closed and reset ones, a few; many are a flood."""
    async with under_attack() as attack:
        peer = await attack.connect()
        await open_raw_stream(peer, 1, ECHO)
        await peer.send(yamux(WINDOW_UPDATE, RST, 1))
        for stream in (1, 99, 2, 1000):
            await peer.send(yamux(WINDOW_UPDATE, 0, stream, length=1000) + yamux(DATA, 0, stream, b"late"))
        await _still_works(peer, 3)
        await _send(peer, yamux(WINDOW_UPDATE, 0, 99, length=1) * 10_000)
        assert any(frame.kind == GO_AWAY for frame in await ends(peer, 0.5))


# --- M5 ---------------------------------------------------------------------------------------------------------------

IDLE = {
    "empty data": yamux(DATA, 0, 1),
    "updates of nothing": yamux(WINDOW_UPDATE, 0, 1),
    "pings": yamux(PING, SYN, 0, length=1),
    "pongs nobody asked for": yamux(PING, ACK, 0, length=99),
    "unknown streams": yamux(DATA, 0, 77, b"x"),
    "go aways": yamux(GO_AWAY),
}


@pytest.mark.parametrize("idle", IDLE.values(), ids=IDLE)
async def test_M5_frames_without_progress_are_counted(idle) -> None:
    """Some hundreds a second for a long time are borne, thousands at once are not; and they cost little time."""
    async with under_attack() as attack:
        peer = await attack.connect()
        await open_raw_stream(peer, 1, ECHO)
        await _frames_of(peer, 1)
        muxed = _muxed(attack)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.frames_until_end)
            for _ in range(50):
                await peer.send(idle * 15)
                await trio.sleep(0.05)
            assert muxed.end is None, "300 a second for 2.5 s"
            began = time.thread_time()
            for _ in range(100):
                await _send(peer, idle * 10_000)
                await trio.lowlevel.checkpoint()
            assert muxed.end is not None
            assert time.thread_time() - began < 5.0
        assert muxed.machine.stream_count == 0


async def test_M5_a_peer_that_does_not_read_our_pongs() -> None:
    """At most sixteen answers wait for it; then it goes."""
    async with under_attack() as attack:
        peer = await attack.connect()
        await trio.sleep(1)
        connection = attack.hosts.network.connections[-1]
        muxed = _muxed(attack)
        # Fill the way back, so that pongs wait in the victim.
        await open_raw_stream(peer, 1, ECHO + bytes(WINDOW - len(ECHO)))
        connection.stall(dialer=False)
        with trio.move_on_after(5):
            for _ in range(400):
                await _send(peer, yamux(PING, SYN, 0, length=1) * 4)
                await trio.sleep(0.01)
                if muxed.end is not None:
                    break
        assert muxed.end is not None
        assert "pings" in muxed.end.reason


# --- M6 ---------------------------------------------------------------------------------------------------------------


async def test_M6_rapid_reset_ends_the_connection() -> None:
    """At most 256 handlers live at once, each sees its end, and a thousand resets in ten seconds are enough."""
    live = most = began = cancelled = 0

    async def handler(stream: Stream) -> None:
        nonlocal live, most, began, cancelled
        live, began = live + 1, began + 1
        most = max(most, live)
        try:
            await stream.receive_some()
        except BaseException:
            cancelled += 1
            raise
        finally:
            live -= 1

    async with under_attack(config=MANY_STREAMS, budget=Budget(memory=40e6)) as attack:
        attack.victim.handle("/slow/1", handler)
        peer = await attack.connect()
        ids = itertools.count(1, 2)
        for _ in range(100):
            batch = [
                yamux(DATA, SYN, stream, HEADER + line("/slow/1")) + yamux(WINDOW_UPDATE, RST, stream)
                for stream in itertools.islice(ids, 100)
            ]
            await _send(peer, b"".join(batch))
            await trio.sleep(0.01)
        assert any(frame.kind == GO_AWAY for frame in await ends(peer, 1))
    assert most <= 256
    assert live == 0
    assert cancelled == began


async def test_M6_streams_that_are_reset_while_their_handler_starts() -> None:
    """The reset arrives in the same read as the stream, or just behind it: the handler sees it, the token is freed."""
    seen: list[str] = []

    async def handler(stream: Stream) -> None:
        try:
            await stream.receive_some()
            await stream.receive_some()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            seen.append(type(exc).__name__)
            raise

    async with under_attack(config=MANY_STREAMS) as attack:
        attack.victim.handle("/start/1", handler)
        peer = await attack.connect()
        for number in range(200):
            stream = 2 * number + 1
            await open_raw_stream(peer, stream, HEADER + line("/start/1") + b"x")
            for _ in range(number % 7):
                await trio.lowlevel.checkpoint()
            await peer.send(yamux(WINDOW_UPDATE, RST, stream, length=number))
        await trio.sleep(12)  # until the victim gives up asking who this is
        assert _muxed(attack).machine.stream_count == 0
        assert attack.victim.swarm.scopes.usage()["streams_inbound"] <= 12, "the canaries' own"
    assert set(seen) <= {"StreamReset"}


async def test_M6_open_end_and_reset() -> None:
    """SYN, FIN and RST in a row, many times, slowly enough to be borne: nothing is left."""
    async with under_attack() as attack:
        peer = await attack.connect()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(peer.frames_until_end)
            for number in range(600):
                stream = 2 * number + 1
                await _send(
                    peer,
                    yamux(DATA, SYN, stream, ECHO) + yamux(DATA, FIN, stream) + yamux(WINDOW_UPDATE, RST, stream),
                )
                await trio.sleep(0.02)
            assert _muxed(attack).end is None
            assert _muxed(attack).machine.stream_count == 0
            nursery.cancel_scope.cancel()


# --- M7 ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wire", "survives"),
    [
        (yamux(WINDOW_UPDATE, SYN, 1), False),
        (yamux(WINDOW_UPDATE, SYN, 4), False),
        (yamux(DATA, SYN, 0, b"x"), False),
        (yamux(WINDOW_UPDATE, SYN, 101) + yamux(WINDOW_UPDATE, SYN, 51), True),
        (yamux(WINDOW_UPDATE, SYN, 101) + yamux(WINDOW_UPDATE, SYN, 101), False),
        (yamux(WINDOW_UPDATE, SYN | RST, 101) + yamux(WINDOW_UPDATE, SYN, 101), False),
        (yamux(WINDOW_UPDATE, RST, 1) + yamux(DATA, 0, 1, b"late"), True),
        (yamux(WINDOW_UPDATE, RST, 1) + yamux(WINDOW_UPDATE, SYN, 1), False),
        (yamux(WINDOW_UPDATE, SYN, 2**32 - 1), True),
        (yamux(DATA, FIN, 1) + yamux(DATA, 0, 1, b"behind the end"), True),
    ],
    ids=["reuse", "parity", "zero", "lower", "twice", "after SYN+RST", "late", "again", "highest", "behind FIN"],
)
async def test_M7_stream_ids(wire, survives) -> None:
    """Each is an error or is ignored, as the machine's table says."""
    async with under_attack() as attack:
        peer = await attack.connect()
        await open_raw_stream(peer, 1, ECHO)
        await _frames_of(peer, 1)
        await _send(peer, wire)
        if survives:
            await _still_works(peer, 2001)
        else:
            assert any(frame.kind == GO_AWAY for frame in await ends(peer, 0.05))


async def test_M7_when_all_ids_are_used_up_a_new_connection_takes_over() -> None:
    """Streams that are open go on, and no data is lost."""

    async def echo(stream: Stream) -> None:
        async for chunk in stream:
            await stream.send_all(chunk)

    async with memory_network(2, connect="full") as (a, b):
        await trio.sleep(1)
        b.handle("/echo/1", echo)
        old = await a.open_stream(b.local_peer, "/echo/1")
        (connection,) = a.connections(b.local_peer)
        machine = connection.muxed.machine  # type: ignore[attr-defined]
        machine._next_id = 2**32 - 5
        for _ in range(6):
            await ping(a, b.local_peer)
        assert connection not in a.connections(b.local_peer), "nothing new can be opened on it"
        await old.send_all(b"on the old one")
        assert await old.receive_some() == b"on the old one"
        await old.aclose()


# --- M8 ---------------------------------------------------------------------------------------------------------------


async def test_M8_a_flood_of_streams_is_refused_beyond_the_limit() -> None:
    """256 may be there; every other is reset by itself, and the connection lives."""
    async with under_attack(config=MANY_STREAMS) as attack:
        peer = await attack.connect()
        resets: list[int] = []

        async def listen() -> None:
            while True:
                frame = await peer.next_frame()
                if frame.flags & RST:
                    resets.append(frame.length)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            for start in range(1, 20_000, 200):
                await peer.send(b"".join(yamux(WINDOW_UPDATE, SYN, stream) for stream in range(start, start + 200, 2)))
                await trio.sleep(0.01)
            assert _muxed(attack).machine.inbound_count <= 256
            assert len(resets) >= 10_000 - 256
            nursery.cancel_scope.cancel()


async def test_M8_the_limit_of_a_protocol_is_kept() -> None:
    """Ping allows a peer two streams."""
    async with under_attack() as attack:
        peer = await attack.connect()
        for stream in (1, 3, 5, 7):
            await open_raw_stream(peer, stream, HEADER + line("/ipfs/ping/1.0.0") + bytes(32))
        codes = {}
        with trio.move_on_after(1):
            while True:
                frame = await peer.next_frame()
                if frame.flags & RST:
                    codes[frame.stream] = frame.length
        # Which two of the four are refused is up to the scheduler: their handlers start in the same tick.
        assert list(codes.values()) == [0x1002, 0x1002]


async def test_M8_our_own_streams_to_a_silent_peer() -> None:
    """They wait at 256 unacknowledged ones and fail typed, all of them in time."""
    errors: list[Exception] = []
    limits = LimitsConfig(streams_outbound_per_protocol=10_000, streams_outbound_per_connection=10_000)
    config = HostConfig(swarm=SwarmConfig(limits=limits))
    async with under_attack(config=config) as attack:
        peer = await attack.connect()
        connection = attack.opened[-1].connection
        opened: set[int] = set()

        async def open_one() -> None:
            try:
                await connection.open_stream("/silent/1")
            except (NegotiationError, LimitExceeded) as exc:
                errors.append(exc)

        async def listen() -> None:
            while True:
                frame = await peer.next_frame()
                if frame.flags & SYN and frame.stream:
                    opened.add(frame.stream)

        before = trio.current_time()
        async with trio.open_nursery() as listening:
            listening.start_soon(listen)
            async with trio.open_nursery() as nursery:
                for _ in range(1000):
                    nursery.start_soon(open_one)
                await trio.sleep(5)
                assert len(opened) <= 256 + 1
            listening.cancel_scope.cancel()
        assert trio.current_time() - before <= 25
    assert len(errors) == 1000
    assert {type(error) for error in errors} <= {NegotiationError, LimitExceeded}
