"""The driver of muxer machines: wake-ups, what streams promise, and the end."""

from __future__ import annotations

from typing import Any

import pytest
import trio
from trio.testing import assert_no_checkpoints, wait_all_tasks_blocked

from libp2p._util.stream import MachineStream
from libp2p.abc import Direction, MuxedStream
from libp2p.errors import ConnectionClosed, LimitExceeded, RemoteProtocolError, StreamReset
from libp2p.multistream import Dialer
from libp2p.multistream._machine import encode
from libp2p.muxers._connection import TURN
from libp2p.muxers.yamux import Yamux
from libp2p.security.plaintext import PlaintextStream
from tests.muxers import raw
from tests.muxers.raw import ACK, FIN, GOAWAY, RST, SYN
from tests.muxers.wire import Rig, Wire, congest, outcome_of, running

ticks = pytest.mark.real_clock("writes wait for the end of a tick only under a clock that does not jump")
PROTOCOL = "/test/1"
AGREED = encode("/multistream/1.0.0") + encode(PROTOCOL)


# --- turns


async def test_others_get_their_turn_while_much_is_worked_on() -> None:
    """A read may bring as many records as it likes, and each as many frames."""
    rig = Rig()
    records = [raw.data(2, b"x") * 300] * 100
    rig.conn._secure._chunks.extend([raw.window(2, 0, SYN), *records])  # type: ignore[attr-defined]
    async with running(rig):
        found: list[int] = []
        while sum(found) < 30_000:
            await trio.lowlevel.checkpoint()
            if rig.accepted:
                found.append(len(take_all(rig.accepted[0])))
    assert len(found) >= 30_000 // (2 * (TURN + 300)) - 3  # whose turn is first, is chance; it began before we looked


def take_all(stream: MuxedStream) -> bytes:
    """What has arrived."""
    found = b""
    try:
        while True:
            found += stream.receive_nowait()
    except trio.WouldBlock:
        return found


# --- wake-ups


async def test_who_waits_for_an_answer_learns_that_the_question_could_not_be_sent() -> None:
    """The write that a read causes may find the connection broken: the read must not wait then."""
    async with running() as rig:
        rig.wire.feed(raw.window(2, 0, SYN))
        await wait_all_tasks_blocked()
        rig.wire.broken = trio.BrokenResourceError("broken on purpose")
        with pytest.raises(ConnectionClosed):
            await rig.accepted[0].receive_some()


@ticks
async def test_a_deferred_request_on_a_broken_connection_fails_its_reader() -> None:
    """The same for a request that leaves when its sender starts to wait."""
    async with running() as rig:
        stream = await rig.conn.open_stream()
        rig.wire.broken = trio.BrokenResourceError("broken on purpose")
        await stream.send_all(b"request")
        with pytest.raises(ConnectionClosed):
            await stream.receive_some()


async def test_a_sender_in_the_queue_is_woken_by_a_reset() -> None:
    """Of its stream, by either side, while the wire stays full."""
    async with running(Rig(Wire(50_000))) as rig, trio.open_nursery() as nursery:
        await congest(rig, nursery)
        mine, theirs = await rig.conn.open_stream(), await rig.conn.open_stream()
        first = await outcome_of(nursery, mine.send_all, b"x")
        second = await outcome_of(nursery, theirs.send_all, b"x")
        assert first == second == []
        mine.reset()
        rig.wire.feed(raw.window(theirs.id, 0, ACK), raw.window(theirs.id, 7, RST))
        await wait_all_tasks_blocked()
        assert [type(result[0]) for result in (first,)] == [trio.ClosedResourceError]
        assert second == [], "the peer cannot reset what it does not know"
        theirs.reset()
        await wait_all_tasks_blocked()
        assert [type(exc) for exc in second] == [trio.ClosedResourceError]
        rig.wire.make_room()


async def test_a_sender_in_the_queue_is_woken_by_a_reset_of_the_peer() -> None:
    """Of a stream the peer knows."""
    async with running(Rig(Wire(50_000))) as rig, trio.open_nursery() as nursery:
        rig.wire.feed(raw.window(2, 0, SYN))
        await congest(rig, nursery)
        outcome = await outcome_of(nursery, rig.accepted[0].send_all, b"x")
        rig.wire.feed(raw.window(2, 7, RST))
        await wait_all_tasks_blocked()
        assert [type(exc) for exc in outcome] == [StreamReset]
        rig.wire.make_room()


async def test_the_turn_survives_the_cancellation_of_its_holder() -> None:
    """Each of many queued senders is cancelled or sends, whenever the cancellation comes; nobody waits for ever."""
    async with running(Rig(Wire(50_000))) as rig, trio.open_nursery() as nursery:
        await congest(rig, nursery)
        scopes = [trio.CancelScope() for _ in range(30)]
        done = []

        async def send(scope: trio.CancelScope) -> None:
            stream = await rig.conn.open_stream()
            with scope:
                await stream.send_all(b"x" * 20_000)
                done.append(stream.id)

        for scope in scopes:
            nursery.start_soon(send, scope)
        await wait_all_tasks_blocked()
        for number, scope in enumerate(scopes):
            if number % 3 == 0:
                scope.cancel()
            if number % 5 == 0:
                rig.wire.make_room(25_000)
                await trio.lowlevel.checkpoint()
            if number % 7 == 0:
                await trio.lowlevel.checkpoint()
        rig.wire.make_room()
        await wait_all_tasks_blocked()
        assert len(done) >= 20
        assert not rig.conn.turns


async def test_openers_wait_for_the_backlog_and_may_be_cancelled() -> None:
    """A place that comes free goes to who still waits."""
    async with running(ack_backlog=2) as rig, trio.open_nursery() as nursery:
        first = await rig.conn.open_stream()
        await rig.conn.open_stream()
        await first.send_all(b"x")
        opened: list[MachineStream] = []

        async def open_one(scope: trio.CancelScope) -> None:
            with scope:
                opened.append(await rig.conn.open_stream())

        impatient, patient = trio.CancelScope(), trio.CancelScope()
        nursery.start_soon(open_one, impatient)
        nursery.start_soon(open_one, patient)
        await wait_all_tasks_blocked()
        impatient.cancel()
        rig.wire.feed(raw.window(first.id, 0, ACK))
        await wait_all_tasks_blocked()
        assert len(opened) == 1
        assert not rig.conn._openers
        waiting = await outcome_of(nursery, rig.conn.open_stream)
        opened[0].reset()
        await wait_all_tasks_blocked()
        assert len(waiting) == 1


async def test_too_many_streams_are_refused_at_once() -> None:
    """Nothing will make room for them by itself."""
    async with running(max_outbound=2) as rig:
        first = await rig.conn.open_stream()
        await rig.conn.open_stream()
        with pytest.raises(LimitExceeded):
            await rig.conn.open_stream()
        first.reset()
        await rig.conn.open_stream()


# --- streams


async def test_unread_in_the_middle_of_a_chunk() -> None:
    """What is put back is read before the rest of the chunk it came from, whole."""
    async with running() as rig:
        rig.wire.feed(raw.data(2, b"0123456789", SYN))
        await wait_all_tasks_blocked()
        stream = rig.accepted[0]
        assert await stream.receive_some(8) == b"01234567"
        stream.unread(b"4567")
        assert await stream.receive_some() == b"4567"
        assert await stream.receive_some() == b"89"
        assert rig.conn.machine.buffered == 0


async def test_receive_nowait_in_the_middle_of_a_chunk() -> None:
    """Gives the rest of it."""
    async with running() as rig:
        rig.wire.feed(raw.data(2, b"0123456789", SYN))
        await wait_all_tasks_blocked()
        stream = rig.accepted[0]
        assert await stream.receive_some(8) == b"01234567"
        assert stream.receive_nowait() == b"89"
        with pytest.raises(trio.WouldBlock):
            stream.receive_nowait()
        assert rig.conn.machine.buffered == 0


async def test_receive_nowait_tells_the_end_and_the_failure() -> None:
    """What ``receive_some`` would tell without waiting, and ``WouldBlock`` where it would wait."""
    async with running() as rig:
        rig.wire.feed(raw.data(2, b"all", SYN | FIN))
        await wait_all_tasks_blocked()
        stream = rig.accepted[0]
        assert stream.receive_nowait() == b"all"
        assert stream.receive_nowait() == b""
        rig.wire.feed(raw.data(4, b"lost", SYN), raw.window(4, 7, RST))
        await wait_all_tasks_blocked()
        with pytest.raises(StreamReset) as caught:
            rig.accepted[1].receive_nowait()
        assert caught.value.code == 7
        stream.close()
        with pytest.raises(trio.ClosedResourceError):
            stream.receive_nowait()


async def test_receive_nowait_while_another_task_reads() -> None:
    async with running() as rig, trio.open_nursery() as nursery:
        stream = await rig.conn.open_stream()
        nursery.start_soon(stream.receive_some)
        await wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            stream.receive_nowait()
        nursery.cancel_scope.cancel()


async def test_receive_nowait_leaves_the_negotiation_to_receive_some() -> None:
    """The answer is not the application's, even when it has arrived."""
    async with running() as rig:
        stream = await rig.conn.open_stream()
        stream.begin_optimistic(Dialer((PROTOCOL,)), PROTOCOL)
        stream.send_nowait(b"hello?")
        await trio.sleep(0.01)
        rig.wire.feed(raw.data(stream.id, AGREED + b"hello", ACK))
        await wait_all_tasks_blocked()
        with pytest.raises(trio.WouldBlock):
            stream.receive_nowait()
        assert await stream.receive_some() == b"hello"


async def test_small_chunks_that_wait_together_are_read_together() -> None:
    """Large ones stay as they are, and neither order nor credit is lost."""
    async with running() as rig:
        large = bytes(4096)
        rig.wire.feed(*[raw.data(2, part, flags) for part, flags in ((b"a", SYN), (b"bc", 0), (large, 0), (b"d", 0))])
        await wait_all_tasks_blocked()
        stream = rig.accepted[0]
        assert await stream.receive_some() == b"abc"
        assert await stream.receive_some() == large
        assert await stream.receive_some() == b"d"
        rig.wire.feed(*[raw.data(2, b"xy"), raw.data(2, b"z")])
        await wait_all_tasks_blocked()
        assert await stream.receive_some(1) == b"x"
        assert await stream.receive_some() == b"yz"
        assert rig.conn.machine.buffered == 0


async def test_many_tiny_chunks_take_hardly_more_memory_than_their_bytes() -> None:
    """Two bytes at a time, each in an object of its own, a peer could take twenty times what it sends."""
    async with running() as rig:
        count = raw.WINDOW_SIZE // 2
        rig.wire.feed(raw.data(2, b"ab", SYN), raw.data(2, b"ab") * (count - 1))
        await wait_all_tasks_blocked()
        (stream,) = rig.conn.streams
        assert rig.conn.machine.buffered == raw.WINDOW_SIZE
        assert len(stream._chunks) == raw.WINDOW_SIZE // 4096
        assert await stream.receive_some() == b"ab" * 2048


# --- sending without waiting


async def test_send_nowait_queues_all_or_nothing() -> None:
    async with running() as rig:
        stream = await rig.conn.open_stream()
        stream.send_nowait(b"")
        assert rig.wire.frames == []
        stream.send_nowait(b"first")
        rig.wire.feed(raw.window(stream.id, 0, ACK))
        with pytest.raises(trio.WouldBlock):
            stream.send_nowait(bytes(raw.WINDOW_SIZE))
        stream.send_nowait(bytes(raw.WINDOW_SIZE - 5))
        with pytest.raises(trio.WouldBlock):
            stream.send_nowait(b"x")
        await trio.sleep(0.01)
        assert b"".join(frame.payload for frame in rig.wire.frames) == b"first" + bytes(raw.WINDOW_SIZE - 5)


async def test_send_eof_sends_the_last_bytes_with_the_end() -> None:
    """In one write, and waiting for the window where it must; once."""
    async with running() as rig, trio.open_nursery() as nursery:
        stream = await rig.conn.open_stream()
        await stream.send_eof(b"last")
        await trio.sleep(0.01)
        assert [(frame.payload, bool(frame.flags & FIN)) for frame in rig.wire.frames] == [
            (b"last", False),
            (b"", True),
        ]
        with pytest.raises(trio.ClosedResourceError):
            await stream.send_eof(b"more")
        await stream.send_eof()
        large = await rig.conn.open_stream()
        nursery.start_soon(large.send_eof, bytes(raw.WINDOW_SIZE + 1))
        await wait_all_tasks_blocked()
        assert not any(frame.flags & FIN for frame in rig.wire.frames[2:])
        rig.wire.feed(raw.window(large.id, 1, ACK))
        await trio.sleep(0.01)
        assert sum(len(frame.payload) for frame in rig.wire.frames[2:]) == raw.WINDOW_SIZE + 1
        assert rig.wire.frames[-1].flags & FIN


async def test_leaving_the_block_closes_without_a_checkpoint() -> None:
    """And resets when it is left by an exception."""
    async with running() as rig:
        stream = await rig.conn.open_stream()
        with assert_no_checkpoints():
            async with stream:
                stream.send_nowait(b"x")
        other = await rig.conn.open_stream()
        with pytest.raises(ValueError):
            async with other:
                other.send_nowait(b"half")
                raise ValueError
        await trio.sleep(0.01)
        assert [frame.flags & (FIN | RST) for frame in rig.wire.frames if frame.stream == stream.id][-1] == FIN
        assert [frame.flags & (FIN | RST) for frame in rig.wire.frames if frame.stream == other.id][-1] == RST


async def test_send_nowait_where_the_kernel_is_full() -> None:
    async with running(Rig(Wire(50_000))) as rig, trio.open_nursery() as nursery:
        await congest(rig, nursery)
        stream = await rig.conn.open_stream()
        with pytest.raises(trio.WouldBlock):
            stream.send_nowait(b"x")
        nursery.cancel_scope.cancel()


async def test_send_nowait_carries_the_proposal() -> None:
    async with running() as rig:
        stream = await rig.conn.open_stream()
        stream.begin_optimistic(Dialer([PROTOCOL]), PROTOCOL)
        with pytest.raises(trio.WouldBlock):
            stream.send_nowait(bytes(raw.WINDOW_SIZE))
        stream.send_nowait(b"first")
        stream.send_nowait(b"second")
        await trio.sleep(0.01)
        sent = b"".join(frame.payload for frame in rig.wire.frames)
        assert sent == Dialer([PROTOCOL]).data_to_send() + b"firstsecond"


async def test_send_nowait_when_it_is_misused() -> None:
    async with running() as rig, trio.open_nursery() as nursery:
        stream = await rig.conn.open_stream()
        await stream.send_all(bytes(raw.WINDOW_SIZE))
        nursery.start_soon(stream.send_all, b"waits for credit")
        await wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            stream.send_nowait(b"x")
        nursery.cancel_scope.cancel()
    stream = await rig_stream_closed()
    with pytest.raises(trio.ClosedResourceError):
        stream.send_nowait(b"x")


async def rig_stream_closed() -> MachineStream:
    async with running() as rig:
        stream = await rig.conn.open_stream()
        await stream.aclose()
        return stream


async def test_the_proposal_survives_a_cancelled_first_write() -> None:
    """A stream whose first write came to nothing still begins with its negotiation."""
    async with running(Rig(Wire(50_000))) as rig, trio.open_nursery() as nursery:
        await congest(rig, nursery)
        stream = await rig.conn.open_stream()
        stream.begin_optimistic(Dialer([PROTOCOL]), PROTOCOL)
        with trio.move_on_after(0.1):
            await stream.send_all(b"never sent")
        rig.wire.make_room()
        await wait_all_tasks_blocked()
        await stream.send_all(b"hello")
        await wait_all_tasks_blocked()
        sent = b"".join(frame.payload for frame in rig.wire.frames if frame.stream == stream.id)
        assert sent == AGREED + b"hello"


async def test_the_proposal_alone_is_sent_before_waiting() -> None:
    """Once, also when reading begins while the first write waits for its turn."""
    async with running(Rig(Wire(50_000))) as rig, trio.open_nursery() as nursery:
        await congest(rig, nursery)
        stream = await rig.conn.open_stream()
        stream.begin_optimistic(Dialer([PROTOCOL]), PROTOCOL)
        nursery.start_soon(stream.send_all, b"hello")
        await wait_all_tasks_blocked()
        answer = await outcome_of(nursery, stream.receive_some)
        rig.wire.make_room()
        await wait_all_tasks_blocked()
        rig.wire.feed(raw.data(stream.id, AGREED + b"hi", ACK))
        await wait_all_tasks_blocked()
        assert answer == [b"hi"]
        sent = b"".join(frame.payload for frame in rig.wire.frames if frame.stream == stream.id)
        assert sent == AGREED + b"hello"


async def test_data_is_taken_when_send_all_returns() -> None:
    """Changing a buffer afterwards changes nothing, whatever its size."""
    async with running() as rig:
        stream = await rig.conn.open_stream()
        for size in (10, 16 * 1024 - 1, 16 * 1024, 100_000):
            rig.wire.writes.clear()
            data = bytearray(b"a" * size)
            await stream.send_all(data)
            data[:] = b"b" * size
            await wait_all_tasks_blocked()
            assert b"".join(frame.payload for frame in rig.wire.frames) == b"a" * size


# --- the end


async def test_a_stream_that_had_ended_before_its_connection_is_read_to_its_end() -> None:
    """A whole answer is one, also when whoever gave it has hung up before it is read."""
    async with running() as rig:
        rig.wire.feed(raw.data(2, b"answer", SYN | FIN) + raw.data(4, b"half an answer", SYN))
        await wait_all_tasks_blocked()
        rig.wire.hang_up()
        await wait_all_tasks_blocked()
        whole, half = rig.accepted
        assert await whole.receive_some() == b"answer"
        assert await whole.receive_some() == b""
        assert whole.receive_nowait() == b""
        assert await half.receive_some() == b"half an answer"
        with pytest.raises(ConnectionClosed):
            await half.receive_some()


async def test_streams_behind_the_loss_are_not_accepted() -> None:
    """What the peer opened in the same packet, after a refusal that could not be sent, would never end."""

    class Refusing(Rig):
        def accept(self, stream: Any) -> None:
            super().accept(stream)
            self.wire.broken = trio.BrokenResourceError("broken on purpose")
            stream.reset(1)

    async with running(Refusing()) as rig:
        rig.wire.feed(raw.window(2, 0, SYN), raw.window(4, 0, SYN), raw.data(4, b"x"))
        await rig.ended.wait()
        assert len(rig.accepted) == 1
        assert rig.conn.streams == ()


async def test_the_first_end_counts() -> None:
    """Garbage that is found after the connection was given up is no violation any more."""
    rig = Rig(initial=raw.frame(9, 0, 0, 0))
    rig.conn.abort(3)
    with trio.fail_after(1):
        await rig.run()
    assert rig.error is None
    assert rig.conn.end is not None
    assert rig.conn.end.code == 3


async def test_an_ending_stream_may_end_another() -> None:
    """While the connection is lost and all of them end."""
    async with running() as rig:
        streams = [await rig.conn.open_stream() for _ in range(3)]
        streams[0].on_end = streams[1].reset
        rig.conn.abort()
        await rig.ended.wait()
        assert rig.error is None
        assert rig.conn.streams == ()
        with pytest.raises(ConnectionClosed):
            await streams[2].receive_some()


async def test_a_cancelled_close_closes() -> None:
    """Only without manners."""
    async with running(Rig(Wire(50_000))) as rig, trio.open_nursery() as nursery:
        stream = await congest(rig, nursery)
        waiting = await outcome_of(nursery, stream.receive_some)
        with trio.CancelScope() as scope:
            scope.cancel()
            await rig.conn.aclose()
        assert rig.conn.end is not None
        await rig.ended.wait()
        assert rig.wire.closed
        assert [type(exc) for exc in waiting] == [ConnectionClosed]


async def test_a_cancelled_close_of_a_connection_that_never_ran_closes() -> None:
    """The socket too."""
    rig = Rig(Wire(5))
    with trio.CancelScope() as scope:
        scope.cancel()
        await rig.conn.aclose()
    assert rig.wire.closed


async def test_close_takes_a_second_when_the_peer_reads_nothing() -> None:
    """And no longer, and everybody who waits is told."""
    async with running(Rig(Wire(50_000))) as rig, trio.open_nursery() as nursery:
        await congest(rig, nursery)
        queued = await outcome_of(nursery, (await rig.conn.open_stream()).send_all, b"x")
        started = trio.current_time()
        await rig.conn.aclose()
        await rig.ended.wait()
        assert trio.current_time() - started <= 1.01
        assert [type(exc) for exc in queued] == [ConnectionClosed]


@pytest.mark.parametrize("started", [False, True])
async def test_abort_and_close_before_and_after_run(started: bool) -> None:
    """End in the same state: the socket closed, the peer told once."""
    rig = Rig()
    with trio.fail_after(5):
        if started:
            async with trio.open_nursery() as nursery:
                await nursery.start(rig.run)
                rig.conn.abort(5)
        else:
            rig.conn.abort(5)
        await rig.conn.aclose()
        await rig.conn.aclose()
    assert rig.wire.closed
    assert [(frame.kind, frame.length) for frame in rig.wire.frames] == [(GOAWAY, 5)]
    with pytest.raises(ConnectionClosed):
        await rig.conn.open_stream()


async def test_run_after_abort_ends_at_once() -> None:
    """And closes the socket; nothing that had arrived is looked at."""
    rig = Rig()
    rig.wire.feed(raw.window(2, 0, SYN))
    rig.conn.abort()
    with trio.fail_after(1):
        await rig.run()
    assert rig.wire.closed
    assert rig.error is None
    assert rig.accepted == []


async def test_a_violation_is_answered_also_over_a_stream_that_only_tasks_can_write() -> None:
    """WebSockets and relayed connections: the farewell leaves before the stream is closed."""
    for end in ("violation", "abort"):
        ours, theirs = trio.testing.memory_stream_pair()
        conn = Yamux().mux(PlaintextStream(ours), direction=Direction.OUTBOUND)
        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:

                async def run(conn: Any = conn) -> None:
                    try:
                        await conn.run(lambda stream: None)
                    except RemoteProtocolError:
                        pass

                nursery.start_soon(run)
                await wait_all_tasks_blocked()
                if end == "violation":
                    await theirs.send_all(raw.frame(9, 0, 0, 0))
                else:
                    conn.abort(1)
                received = b""
                while data := await theirs.receive_some():
                    received += data
        assert raw.frames(received)[-1][:4] == (GOAWAY, 0, 0, 1), end
