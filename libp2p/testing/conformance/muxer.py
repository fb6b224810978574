"""What every muxed connection must do, whoever makes it, and what every :class:`libp2p.abc.Muxer` must do besides.

Begins with what every stream must do.
"""

from __future__ import annotations

import hashlib
import random
from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial

import pytest
import trio

from ...abc import Direction, MuxedConnection, MuxedStream, Muxer, SecureStream, Stream
from ...addressing import parse
from ...errors import ConnectionClosed, Libp2pError, LimitExceeded, RemoteProtocolError, StreamReset
from ...security.plaintext import PlaintextStream
from ...transports.memory import Memory, MemoryNetwork
from .stream import StreamConformance, StreamSource, receive_all, receive_exactly

__all__ = ["ConnectionConformance", "ConnectionPair", "MuxerConformance", "SecurePair", "memory_secure_pair"]

_MANY = 1000
"""Streams one connection carries in the test of many."""
_AT_ONCE = 60
"""Of those, how many at once; below what any peer allows."""


@dataclass(frozen=True, slots=True)
class SecurePair:
    """Two ends for a muxer to run on.

    Attributes:
        dialer: the end whose muxer is told ``OUTBOUND``.
        listener: the other end.
        lose: breaks the connection at once, without a word.
    """

    dialer: SecureStream
    listener: SecureStream
    lose: Callable[[], None]


@dataclass(frozen=True, slots=True)
class ConnectionPair:
    """Both ends of a connection, of which neither runs yet.

    Attributes:
        dialer: the end that dialled.
        listener: the other end.
        lose: loses the connection at once, without a word.
    """

    dialer: MuxedConnection
    listener: MuxedConnection
    lose: Callable[[], None]


@asynccontextmanager
async def memory_secure_pair(network: MemoryNetwork | None = None) -> AsyncIterator[SecurePair]:
    """A plaintext connection in memory."""
    network = network or MemoryNetwork()
    dialer = Memory(network)
    listener = await Memory(network).listen(parse("/memory/0"))
    ours = await dialer.dial(listener.addresses[0], peer=None)
    theirs = await listener.accept()
    await listener.aclose()
    connection = network.connections[-1]
    yield SecurePair(PlaintextStream(ours.stream), PlaintextStream(theirs.stream), connection.kill)
    await ours.stream.aclose()
    await theirs.stream.aclose()


class _Connected(StreamSource):
    """Two running muxers."""

    def __init__(self, dialer: MuxedConnection, listener: MuxedConnection, lose: Callable[[], None]) -> None:
        self.ends = (dialer, listener)
        self.lose_now = lose
        self.ended: list[Exception | None] = []
        self.accepted: list[list[MuxedStream]] = [[], []]
        self._arrived = trio.lowlevel.ParkingLot()
        self._turn = 0

    def lose(self) -> None:
        self.lose_now()

    async def run(self, end: int, *, task_status: trio.TaskStatus[None]) -> None:
        def accept(stream: MuxedStream) -> None:
            self.accepted[end].append(stream)
            self._arrived.unpark_all()

        try:
            await self.ends[end].run(accept, task_status=task_status)
        except (RemoteProtocolError, ConnectionClosed) as exc:
            self.ended.append(exc)
        else:
            self.ended.append(None)

    async def next_accepted(self, end: int) -> MuxedStream:
        while not self.accepted[end]:
            await self._arrived.park()
        return self.accepted[end].pop(0)

    async def pair_from(self, end: int) -> tuple[Stream, Stream]:
        """A stream that ``end`` (0 the dialer, 1 the listener) opened: its end first."""
        ours = await self.ends[end].open_stream()
        await ours.send_all(b"!")
        theirs = await self.next_accepted(1 - end)
        assert await theirs.receive_some() == b"!"
        # The answer counts as acceptance for muxers that limit how many streams may wait for one.
        await theirs.send_all(b"?")
        assert await ours.receive_some() == b"?"
        return ours, theirs

    async def pair(self) -> tuple[Stream, Stream]:
        self._turn = 1 - self._turn
        return await self.pair_from(self._turn)


class ConnectionConformance(StreamConformance):
    """Tests of muxed connections, whether a muxer or a transport makes them."""

    @abstractmethod
    def open_ends(self) -> AbstractAsyncContextManager[ConnectionPair]:
        """Both ends of a new connection."""

    def in_use(self, connection: MuxedConnection) -> Mapping[str, int]:
        """What ``connection`` still keeps, by name; all of it must be 0 when every stream has ended."""
        return {}

    @asynccontextmanager
    async def open_streams(self) -> AsyncIterator[StreamSource]:
        """As :meth:`connected`."""
        async with self.connected() as connected:
            yield connected

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[_Connected]:
        """Both ends of a connection, running."""
        async with self.open_ends() as pair, trio.open_nursery() as nursery:
            connected = _Connected(pair.dialer, pair.listener, pair.lose)
            for end in (0, 1):
                await nursery.start(connected.run, end)
            yield connected
            nursery.cancel_scope.cancel()

    # --- streams

    async def test_both_sides_open_streams(self) -> None:
        """At the same time, and each stream stays itself."""
        with trio.fail_after(self.seconds):
            async with self.connected() as connected, trio.open_nursery() as nursery:

                async def talk(end: int, number: int) -> None:
                    ours, theirs = await connected.pair_from(end)
                    await ours.send_all(f"{end}/{number}".encode())
                    await ours.send_eof()
                    assert await receive_all(theirs) == f"{end}/{number}".encode()
                    await theirs.aclose()
                    await ours.aclose()

                async def talk_often(end: int) -> None:
                    for number in range(20):
                        await talk(end, number)

                nursery.start_soon(talk_often, 0)
                nursery.start_soon(talk_often, 1)

    async def test_directions(self) -> None:
        """A stream knows who opened it."""
        async with self.connected() as connected:
            ours, theirs = await connected.pair_from(0)
            assert isinstance(ours, MuxedStream)
            assert isinstance(theirs, MuxedStream)
            assert (ours.direction, theirs.direction) == (Direction.OUTBOUND, Direction.INBOUND)

    async def test_a_thousand_streams(self) -> None:
        """One after the other and many at once, on one connection; nothing is kept."""
        with trio.fail_after(2 * self.seconds):
            async with self.connected() as connected, trio.open_nursery() as nursery:
                nursery.start_soon(_echo_accepted, connected, _MANY)
                limit = trio.CapacityLimiter(_AT_ONCE)

                async def ask(number: int) -> None:
                    async with limit, await connected.ends[0].open_stream() as stream:
                        await stream.send_all(b"%d" % number)
                        await stream.send_eof()
                        assert await receive_all(stream) == b"%d" % number

                async with trio.open_nursery() as asking:
                    for number in range(_MANY):
                        asking.start_soon(ask, number)
                await self._assert_nothing_in_use(connected)

    async def _assert_nothing_in_use(self, connected: _Connected) -> None:
        await connected.settle()
        await connected.settle()  # the first one's own end has arrived when the second one's bytes have
        for end in connected.ends:
            kept = {what: count for what, count in self.in_use(end).items() if count > 2}
            assert not kept, f"{end!r} keeps {kept}"
        await self.quiet()
        for end in connected.ends:
            assert not any(self.in_use(end).values()), f"{end!r} keeps {self.in_use(end)}"

    async def test_big_transfers_are_whole(self) -> None:
        """Several streams, both ways at once, checked by hash, and afterwards nothing is kept."""
        with trio.fail_after(2 * self.seconds):
            async with self.connected() as connected:
                pairs = [await connected.pair() for _ in range(4)]
                async with trio.open_nursery() as nursery:
                    for number, (one, other) in enumerate(pairs):
                        nursery.start_soon(_transfer, one, other, number)
                        nursery.start_soon(_transfer, other, one, number + 100)
                for one, other in pairs:
                    await one.aclose()
                    await other.aclose()
                await self._assert_nothing_in_use(connected)

    async def test_a_slow_stream_blocks_nobody(self) -> None:
        """A stream that is not read takes nothing from the others."""
        with trio.fail_after(self.seconds):
            async with self.connected() as connected:
                slow, unread = await connected.pair()
                one, other = await connected.pair()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_flood, slow)
                    await _transfer(one, other, 1)
                    await _transfer(other, one, 2)
                    nursery.cancel_scope.cancel()
                slow.reset()
                unread.reset()

    async def test_a_writer_is_held_back(self) -> None:
        """What one stream may have under way is bounded, and a read makes room."""
        if not self.flow_control:
            return
        with trio.fail_after(self.seconds):
            async with self.connected() as connected:
                one, other = await connected.pair()
                await self._clog(one)
                sent = trio.Event()

                async def send() -> None:
                    await one.send_all(bytes(1000))
                    sent.set()

                async with trio.open_nursery() as nursery:
                    nursery.start_soon(send)
                    await self.quiet()
                    assert not sent.is_set()
                    nursery.start_soon(_drain, other)
                    await sent.wait()
                    nursery.cancel_scope.cancel()
                one.reset()

    async def test_on_end_is_called_once(self) -> None:
        """For each way a stream can end, on both ends."""
        ways: list[Callable[[_Connected, Stream, Stream], Awaitable[None]]] = [
            _close_both,
            _reset_first,
            _lose_connection,
        ]
        for way in ways:
            with trio.fail_after(self.seconds):
                async with self.connected() as connected:
                    pair = await connected.pair()
                    ended: list[int] = []
                    for number, stream in enumerate(pair):
                        assert isinstance(stream, MuxedStream)
                        stream.on_end = partial(ended.append, number)
                    await way(connected, *pair)
                    await self.quiet()
                    assert sorted(ended) == [0, 1]
                    for stream in pair:
                        stream.reset()
                        await stream.aclose()
                    assert sorted(ended) == [0, 1]

    # --- the end

    async def test_close_ends_everything(self) -> None:
        """Whoever waits on either side is woken, new streams are refused, and ``run`` returns."""
        await self._check_end(lambda end: end.aclose())

    async def test_abort_ends_everything(self) -> None:
        """The same for an abort."""

        async def abort(end: MuxedConnection) -> None:
            end.abort(7)
            end.abort(8)

        await self._check_end(abort)

    async def _check_end(self, finish: Callable[[MuxedConnection], Awaitable[None]]) -> None:
        for who in (0, 1):
            with trio.fail_after(self.seconds):
                async with self.connected() as connected:
                    pairs = [await connected.pair() for _ in range(3)]
                    if self.flow_control:
                        await self._clog(pairs[0][0])
                    async with trio.open_nursery() as nursery:
                        for number, (one, other) in enumerate(pairs):
                            nursery.start_soon(_expect_lost, one.receive_some)
                            if number:  # reading the first would make room for its writer
                                nursery.start_soon(_expect_lost, partial(receive_all, other))
                        if self.flow_control:
                            nursery.start_soon(_expect_lost, partial(pairs[0][0].send_all, b"x"))
                        await self.quiet()
                        await finish(connected.ends[who])
                    await self._assert_over(connected)

    @staticmethod
    async def _assert_over(connected: _Connected) -> None:
        for end in connected.ends:
            with pytest.raises(ConnectionClosed):
                await end.open_stream()
            assert not end.can_open
            await end.aclose()
            end.abort()
        while len(connected.ended) < 2:
            await trio.lowlevel.checkpoint()
        assert not any(isinstance(ended, RemoteProtocolError) for ended in connected.ended)

    async def test_close_does_not_wait_for_a_peer_that_reads_nothing(self) -> None:
        """A second or so, whatever the other side does."""
        with trio.fail_after(self.seconds):
            async with self.open_ends() as pair, trio.open_nursery() as nursery:
                end = pair.dialer

                async def write() -> None:
                    try:
                        async with trio.open_nursery() as writers:
                            for _ in range(20):
                                writers.start_soon(_flood, await end.open_stream())
                    except* (ConnectionClosed, LimitExceeded):
                        pass

                nursery.start_soon(end.run, _refuse)
                nursery.start_soon(write)
                await self.quiet()
                with trio.fail_after(1.5):
                    await end.aclose()

    async def test_cancelling_run_loses_the_connection(self) -> None:
        """For everybody, on both sides."""
        with trio.fail_after(self.seconds):
            async with self.open_ends() as pair, trio.open_nursery() as nursery:
                connected = _Connected(pair.dialer, pair.listener, pair.lose)
                await nursery.start(connected.run, 1)
                async with trio.open_nursery() as inner:
                    await inner.start(connected.run, 0)
                    one, other = await connected.pair_from(0)
                    inner.cancel_scope.cancel()
                for stream in (one, other):
                    with pytest.raises(ConnectionClosed):
                        await stream.receive_some()

    async def test_runs_once(self) -> None:
        """A second ``run`` is refused."""
        async with self.connected() as connected:
            with pytest.raises(RuntimeError):
                await connected.ends[0].run(_refuse)

    async def test_cancellation_everywhere_harms_no_other_stream(self) -> None:
        """Writers, readers and openers are cancelled at many moments while one transfer goes on, which stays whole."""
        with trio.fail_after(2 * self.seconds):
            async with self.connected() as connected:
                one, other = await connected.pair()
                async with trio.open_nursery() as nursery:
                    for steps in range(30):
                        nursery.start_soon(_use_and_cancel, connected, steps)
                    await _transfer(one, other, 5)
                await one.aclose()
                await other.aclose()


class MuxerConformance(ConnectionConformance):
    """Tests of a muxer, over memory unless :meth:`open_secure_pair` says otherwise."""

    @abstractmethod
    def make(self) -> Muxer:
        """The muxer, with its default configuration."""

    def open_secure_pair(self) -> AbstractAsyncContextManager[SecurePair]:
        """A secure connection."""
        return memory_secure_pair()

    @asynccontextmanager
    async def open_ends(self) -> AsyncIterator[ConnectionPair]:
        """Two muxers over a secure connection."""
        async with self.open_secure_pair() as pair:
            dialer = self.make().mux(pair.dialer, direction=Direction.OUTBOUND)
            listener = self.make().mux(pair.listener, direction=Direction.INBOUND)
            yield ConnectionPair(dialer, listener, pair.lose)

    async def test_initial_bytes_come_first(self) -> None:
        """What was read from the stream before belongs to the muxer."""
        async with self.open_secure_pair() as pair, trio.open_nursery() as nursery:
            ours = self.make().mux(pair.dialer, direction=Direction.OUTBOUND)
            await nursery.start(ours.run, _refuse)
            stream = await ours.open_stream()
            await stream.send_all(b"early")
            first = bytes(await pair.listener.receive_some(10))
            theirs = self.make().mux(pair.listener, direction=Direction.INBOUND, initial=first)
            connected = _Connected(ours, theirs, pair.lose)
            await nursery.start(connected.run, 1)
            assert await receive_exactly(await connected.next_accepted(1), 5) == b"early"
            nursery.cancel_scope.cancel()

    async def test_garbage_costs_the_connection(self) -> None:
        """Bytes that are no frames end it with a typed error; nothing else comes out."""
        for seed in range(40):
            garbage = random.Random(seed).randbytes(300)
            with trio.fail_after(self.seconds):
                async with self.open_secure_pair() as pair, trio.open_nursery() as nursery:
                    end = self.make().mux(pair.dialer, direction=Direction.OUTBOUND)

                    async def run(end: MuxedConnection = end) -> None:
                        try:
                            await end.run(_refuse)
                        except Libp2pError:
                            pass

                    nursery.start_soon(run)
                    try:
                        await pair.listener.send_all(garbage)
                        await pair.listener.aclose()
                    except trio.BrokenResourceError:
                        pass


def _refuse(stream: MuxedStream) -> None:
    stream.reset()


async def _echo_accepted(connected: _Connected, count: int) -> None:
    async def echo(stream: Stream) -> None:
        async with stream:
            await stream.send_all(await receive_all(stream))

    async with trio.open_nursery() as nursery:
        for _ in range(count):
            nursery.start_soon(echo, await connected.next_accepted(1))


async def _transfer(sender: Stream, receiver: Stream, seed: int, size: int = 1_500_000) -> None:
    """Send ``size`` bytes in pieces of all sizes and compare their hash."""
    rng = random.Random(seed)
    sent, received = hashlib.sha256(), hashlib.sha256()

    async def send() -> None:
        left = size
        while left:
            piece = rng.randbytes(min(left, rng.choice((1, 100, 5_000, 70_000, 300_000))))
            sent.update(piece)
            await sender.send_all(piece)
            left -= len(piece)

    async def receive() -> None:
        left = size
        while left:
            chunk = await receiver.receive_some(left)
            assert chunk, "the stream ended early"
            received.update(chunk)
            left -= len(chunk)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        nursery.start_soon(receive)
    assert sent.digest() == received.digest()


async def _flood(stream: Stream) -> None:
    """Write until the stream ends."""
    try:
        while True:
            await stream.send_all(bytes(65536))
    except (StreamReset, ConnectionClosed):
        pass


async def _drain(stream: Stream) -> None:
    while await stream.receive_some():
        pass


async def _use_and_cancel(connected: _Connected, steps: int) -> None:
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:

            async def stop() -> None:
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
                scope.cancel()

            nursery.start_soon(stop)
            stream = await connected.ends[steps % 2].open_stream()
            async with stream:
                await stream.send_all(bytes(1000 * steps + 1))
                await stream.receive_some()


async def _expect_lost(use: Callable[[], Awaitable[object]]) -> None:
    with pytest.raises(ConnectionClosed):
        await use()


async def _close_both(connected: _Connected, one: Stream, other: Stream) -> None:
    await one.aclose()
    await other.aclose()


async def _reset_first(connected: _Connected, one: Stream, other: Stream) -> None:
    one.reset()


async def _lose_connection(connected: _Connected, one: Stream, other: Stream) -> None:
    connected.lose()
