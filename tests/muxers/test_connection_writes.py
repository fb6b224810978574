"""The driver of muxer machines: how little it writes, who waits for whom, and real sockets."""

from __future__ import annotations

import statistics
import time

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from libp2p._util.stream import MachineStream
from libp2p.abc import Direction, MuxedStream, SecureStream
from libp2p.addressing import parse
from libp2p.errors import ConnectionClosed, RemoteProtocolError, StreamReset
from libp2p.multistream import Dialer
from libp2p.multistream._machine import encode
from libp2p.muxers._connection import CATCH_UP
from libp2p.muxers.mplex._machine import MplexConfig, MplexMachine
from libp2p.muxers.yamux import Yamux
from libp2p.security.noise import Noise
from libp2p.security.plaintext import PlaintextStream
from libp2p.testing import seeded_key
from libp2p.transports.tcp import Tcp
from tests.muxers import raw
from tests.muxers.raw import ACK, DATA, FIN, GOAWAY, RST, SYN
from tests.muxers.wire import Rig, Wire, outcome_of, running

ticks = pytest.mark.real_clock("writes wait for the end of a tick only under a clock that does not jump")


# --- writes


@ticks
async def test_a_request_and_its_half_close_are_one_write() -> None:
    """Also an answer and its close."""
    async with running() as rig:
        stream = await rig.conn.open_stream()
        await stream.send_all(b"request")
        await stream.send_eof()
        nothing = trio.move_on_after(0.01)
        with nothing:
            await stream.receive_some()
        assert len(rig.wire.writes) == 1
        assert [(frame.kind, frame.flags) for frame in rig.wire.frames] == [(DATA, SYN), (DATA, FIN)]
        rig.wire.feed(raw.data(2, b"request", SYN | FIN))
        await wait_all_tasks_blocked(0.01)
        rig.wire.writes.clear()
        async with rig.accepted[0] as answering:
            assert await answering.receive_some() == b"request"
            await answering.send_all(b"answer")
        await trio.sleep(0.01)
        assert len(rig.wire.writes) == 1


@ticks
async def test_a_hundred_small_messages_are_few_writes() -> None:
    """Of a hundred tasks."""
    async with running() as rig:
        streams = [await rig.conn.open_stream() for _ in range(100)]
        async with trio.open_nursery() as nursery:
            for stream in streams:
                nursery.start_soon(stream.send_all, b"m" * 50)
        await trio.sleep(0.01)
        assert len(rig.wire.frames) == 100
        assert len(rig.wire.writes) <= 8


@ticks
async def test_small_messages_do_not_wait_for_an_idle_moment() -> None:
    """Others may keep the scheduler busy for ever."""
    async with running() as rig, trio.open_nursery() as nursery:

        async def spin() -> None:
            while True:
                await trio.lowlevel.checkpoint()

        nursery.start_soon(spin)
        stream = await rig.conn.open_stream()
        await stream.send_all(b"small")
        for _ in range(5):
            await trio.lowlevel.checkpoint()
        assert len(rig.wire.writes) == 1
        nursery.cancel_scope.cancel()


@ticks
async def test_small_and_large_keep_their_order() -> None:
    """Though the small ones wait and the large ones do not."""
    async with running() as rig:
        stream = await rig.conn.open_stream()
        expected = b""
        for number in range(20):
            piece = b"%02d" % number * (20_000 if number % 3 == 0 else 5)
            if len(expected) + len(piece) > raw.WINDOW_SIZE:
                break
            expected += piece
            await stream.send_all(piece)
        await stream.aclose()
        await trio.sleep(0.01)
        assert b"".join(frame.payload for frame in rig.wire.frames) == expected
        assert rig.wire.frames[-1].flags == FIN


@ticks
async def test_a_write_that_fails_at_the_end_of_a_tick_ends_the_connection() -> None:
    """And only that one, whatever the failure is: the others' writes go on."""
    for error in (trio.BrokenResourceError("gone"), RuntimeError("a bug"), MemoryError()):
        for sound_first in (False, True):
            async with running() as broken, running() as sound:
                broken.wire.broken = error
                for rig in (sound, broken) if sound_first else (broken, sound):
                    stream = await rig.conn.open_stream()
                    rig.conn.machine.send_data(stream.id, b"x")
                    rig.conn.flush_later()
                await broken.ended.wait()
                assert broken.conn.end is not None
                assert broken.wire.closed
                stream = await sound.conn.open_stream()
                await stream.send_all(b"alive")
                await trio.sleep(0.01)
                assert sound.wire.frames[-1].payload == b"alive"


@ticks
async def test_congestion_at_the_end_of_a_tick() -> None:
    """The tail is finished by the writer, and who queued behind it goes on."""
    async with running(Rig(Wire(5))) as rig:
        stream = await rig.conn.open_stream()
        await stream.send_all(b"small")
        await trio.sleep(0.01)
        assert rig.conn.congested
        async with trio.open_nursery() as nursery:
            outcome = await outcome_of(nursery, stream.send_all, b"more")
            assert outcome == []
            rig.wire.make_room()
        await trio.sleep(0.01)
        assert b"".join(frame.payload for frame in rig.wire.frames) == b"smallmore"


# --- ends of streams whose peer is not awake yet


AGREED = encode("/multistream/1.0.0") + encode("/test/1")


async def _optimistic(rig: Rig) -> MachineStream:
    stream = await rig.conn.open_stream()
    stream.begin_optimistic(Dialer(["/test/1"]), "/test/1")
    return stream


def _ends(rig: Rig) -> list[int]:
    return sorted(frame.stream for frame in rig.wire.frames if frame.flags & FIN)


@pytest.mark.parametrize("life", [raw.data(1, AGREED, ACK), raw.data(2, b"", SYN)], ids=["answer", "stream"])
async def test_the_end_of_an_optimistic_stream_waits_for_the_first_sign_of_life(life: bytes) -> None:
    """js resets a stream that ends before its connection is set up, and loses what was said on it."""
    async with running() as rig:
        one, two, three = [await _optimistic(rig) for _ in range(3)]
        await one.send_eof(b"a request")
        two.send_nowait(b"a message")
        await two.aclose()
        await three.send_eof(b"a request")
        await three.aclose()
        rig.wire.feed(raw.ping(7))
        await wait_all_tasks_blocked()
        assert b"a message" in b"".join(frame.payload for frame in rig.wire.frames)
        assert not _ends(rig)
        rig.wire.feed(life)
        await wait_all_tasks_blocked()
        assert _ends(rig) == [one.id, two.id, three.id]
        await (await _optimistic(rig)).send_eof(b"another one")
        await trio.sleep(0.01)
        assert len(_ends(rig)) == 4


async def test_ends_that_wait_leave_with_the_connection() -> None:
    async with running() as rig:
        async with await _optimistic(rig) as stream:
            stream.send_nowait(b"a message")
        await rig.conn.aclose()
        assert _ends(rig) == [stream.id]


async def test_ends_that_wait_are_not_sent_for_streams_that_were_reset() -> None:
    async with running() as rig:
        ours, theirs = [await _optimistic(rig) for _ in range(2)]
        await ours.send_eof(b"a request")
        await theirs.send_eof(b"a request")
        ours.reset()
        rig.wire.feed(raw.data(theirs.id, b"", RST))
        rig.wire.feed(raw.data(2, b"", SYN))
        await wait_all_tasks_blocked()
        assert not _ends(rig)


# --- bulk


@ticks
async def test_large_writes_wait_for_their_neighbours() -> None:
    """A call of the kernel costs less per byte the more it takes; beyond 256 KiB nothing is gained."""
    async with running() as rig:
        stream = await rig.conn.open_stream()
        block = bytes(32 * 1024)
        for _ in range(8):
            await stream.send_all(block)
        await trio.sleep(0.01)
        assert len(rig.wire.frames) == 8
        assert len(rig.wire.writes) <= 4


@ticks
async def test_what_its_owner_may_change_is_not_kept() -> None:
    async with running() as rig:
        stream = await rig.conn.open_stream()
        for size in (100, 20 * 1024):
            data = bytearray(b"a" * size)
            for given in (data, memoryview(data)):
                stream.send_nowait(given)
                data[:] = b"b" * size
                data[:] = b"a" * size
        data[:] = b"b" * len(data)
        await trio.sleep(0.01)
        assert b"b" not in b"".join(frame.payload for frame in rig.wire.frames)


async def test_bulk_streams_share_and_a_small_request_is_not_starved() -> None:
    """Eight writers through a wire that takes 64 KiB now and then: equal shares, and a newcomer gets a turn soon."""
    rig = Rig(Wire(0), machine=MplexMachine(MplexConfig()))
    with trio.move_on_after(60), trio.fail_after(100):
        async with trio.open_nursery() as nursery:
            await nursery.start(rig.run)
            sent: dict[int, int] = {}

            async def bulk(stream: MachineStream) -> None:
                while True:
                    await stream.send_all(bytes(64 * 1024))
                    sent[stream.id] = sent.get(stream.id, 0) + 1

            for _ in range(8):
                nursery.start_soon(bulk, await rig.conn.open_stream())
            small = await rig.conn.open_stream()
            taken: list[int] = []

            async def ask() -> None:
                await small.send_all(b"request")
                taken.append(rounds)

            for rounds in range(400):
                if rounds == 100:
                    nursery.start_soon(ask)
                rig.wire.make_room(64 * 1024)
                await wait_all_tasks_blocked()
            assert max(sent.values()) - min(sent.values()) <= 2
            assert taken
            assert taken[0] <= 100 + 2 * 8 + 2
            nursery.cancel_scope.cancel()


async def test_who_sends_much_lets_others_go_between_turns() -> None:
    """Also when the kernel takes everything: one long send_all does not hold those who queued before it ended."""
    rig = Rig(Wire(50_000), machine=MplexMachine(MplexConfig()))
    async with running(rig), trio.open_nursery() as nursery:
        finished: list[str] = []

        async def send(name: str, size: int) -> None:
            stream = await rig.conn.open_stream()
            await stream.send_all(bytes(size))
            finished.append(name)

        nursery.start_soon(send, "long", 20_000_000)
        await wait_all_tasks_blocked()
        for number in range(3):
            nursery.start_soon(send, f"short {number}", 10)
        await wait_all_tasks_blocked()
        rig.wire.make_room()
        await wait_all_tasks_blocked()
        assert len(finished) == 4
        assert finished[-1] == "long"


async def test_reading_pauses_while_readers_are_far_behind() -> None:
    """mplex has no flow control: the socket is left alone until they caught up, or for a while."""
    machine = MplexMachine(MplexConfig(pause_above=300_000))
    rig = Rig(machine=machine)
    frame = raw.message(1, raw.MESSAGE_I, bytes(100_000))
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            await nursery.start(rig.run)
            rig.wire.feed(raw.message(1, raw.NEW), *[frame] * 4)
            await wait_all_tasks_blocked()
            rig.wire.feed(*[frame] * 2)
            await wait_all_tasks_blocked()
            held = machine.buffered
            assert held < 600_000
            while machine.buffered > 150_000:
                await rig.accepted[0].receive_some()
            await wait_all_tasks_blocked()
            assert machine.buffered > 150_000, "reading goes on"
            rig.wire.feed(*[frame] * 4)
            await wait_all_tasks_blocked()
            paused = machine.buffered
            await trio.sleep(CATCH_UP + 0.1)
            assert machine.buffered > paused, "not for ever"
            nursery.cancel_scope.cancel()


# --- over sockets


@pytest.mark.sockets
async def test_the_peer_learns_what_it_did_wrong() -> None:
    """The farewell reaches it through a real connection, though more of its bytes are unread when that is closed."""
    listener = await Tcp().listen(parse("/ip4/127.0.0.1/tcp/0"))
    theirs = (await Tcp().dial(listener.addresses[0], peer=None)).stream
    ours = (await listener.accept()).stream
    await listener.aclose()
    conn = Yamux().mux(PlaintextStream(ours), direction=Direction.INBOUND)
    received = b""
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:

            async def flood() -> None:
                try:
                    await theirs.send_all(raw.frame(9, 0, 0, 0) + bytes(3_000_000))
                except trio.BrokenResourceError:
                    pass

            nursery.start_soon(flood)
            await wait_all_tasks_blocked(0.05)
            with pytest.raises(RemoteProtocolError):
                await conn.run(lambda stream: None)
            try:
                while data := await theirs.receive_some():
                    received += data
            except trio.BrokenResourceError:
                pass
    await theirs.aclose()
    assert raw.frames(received)[-1][:4] == (GOAWAY, 0, 0, 1)


@pytest.mark.sockets
async def test_small_requests_during_bulk() -> None:
    """Eight bulk streams through Noise over a socket: a request and its answer take a moment, not a queue of bulk."""
    listener = await Tcp().listen(parse("/ip4/127.0.0.1/tcp/0"))
    theirs = (await Tcp().dial(listener.addresses[0], peer=None)).stream
    ours = (await listener.accept()).stream
    await listener.aclose()
    secured: dict[Direction, SecureStream] = {}

    async def secure(stream: trio.abc.Stream, direction: Direction) -> None:
        channel = await Noise(seeded_key("a")).secure(stream, direction=direction, peer=None)
        secured[direction] = channel.stream

    async with trio.open_nursery() as nursery:
        nursery.start_soon(secure, ours, Direction.INBOUND)
        nursery.start_soon(secure, theirs, Direction.OUTBOUND)
    ends = {direction: Yamux().mux(stream, direction=direction) for direction, stream in secured.items()}

    async def serve(stream: MuxedStream) -> None:
        try:
            while data := await stream.receive_some():
                if len(data) < 100:
                    await stream.send_all(data)
        except (ConnectionClosed, StreamReset):
            pass

    async def bulk(stream: MuxedStream) -> None:
        while True:
            await stream.send_all(bytes(256 * 1024))

    times = []
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            for end in ends.values():
                nursery.start_soon(end.run, lambda stream: nursery.start_soon(serve, stream))
            dialer = ends[Direction.OUTBOUND]
            for _ in range(8):
                nursery.start_soon(bulk, await dialer.open_stream())
            small = await dialer.open_stream()
            for _ in range(30):
                started = time.perf_counter()
                await small.send_all(b"ping")
                assert await small.receive_some() == b"ping"
                times.append(time.perf_counter() - started)
            nursery.cancel_scope.cancel()
    assert statistics.median(times) < 0.25
