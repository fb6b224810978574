"""What every :class:`libp2p.abc.Stream` must do: Trio's own contract, and the table in that class."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

import pytest
import trio
from trio.testing import check_half_closeable_stream, wait_all_tasks_blocked

from ...abc import Stream
from ...errors import ConnectionClosed, StreamReset

__all__ = ["StreamConformance", "StreamSource", "receive_all", "receive_exactly"]

_BIG = 3 * 1024 * 1024
"""Bytes of a transfer that no window or buffer holds at once."""


class StreamSource(ABC):
    """Where the tests get streams from: one connection, or what amounts to one."""

    @abstractmethod
    async def pair(self) -> tuple[Stream, Stream]:
        """Both ends of a new stream, of which each knows the other, with nothing sent or waiting."""

    @abstractmethod
    def lose(self) -> None:
        """Lose the connection, as if the network broke: at once and without a word."""

    async def settle(self) -> None:
        """Return when all that was sent has arrived. As it is, for connections that keep the order of all bytes."""
        one, other = await self.pair()
        async with one, other:
            for sender, receiver in ((one, other), (other, one)):
                await sender.send_all(b"settled?")
                assert await receive_exactly(receiver, 8) == b"settled?"
        await trio.lowlevel.checkpoint()


async def receive_exactly(stream: trio.abc.ReceiveStream, size: int) -> bytes:
    """The next ``size`` bytes; fewer only at the end of the stream."""
    data = bytearray()
    while len(data) < size and (chunk := await stream.receive_some(size - len(data))):
        data += chunk
    return bytes(data)


async def receive_all(stream: trio.abc.ReceiveStream) -> bytes:
    """Everything up to the end of the stream."""
    return b"".join([bytes(chunk) async for chunk in stream])


class StreamConformance(ABC):
    """Tests of a kind of stream.

    Attributes:
        seconds: how long each test may take, on whatever clock it runs.
        delay: seconds that bytes may be under way without anybody noticing, for connections on a virtual clock.
        flow_control: whether a reader who does not read holds the writer back.
        reset_codes: whether the code of a reset arrives.
    """

    seconds: float = 30.0
    delay: float = 0.0
    flow_control: bool = True
    reset_codes: bool = True

    @abstractmethod
    def open_streams(self) -> AbstractAsyncContextManager[StreamSource]:
        """A source of streams, which works while the context is open."""

    @asynccontextmanager
    async def _pair(self) -> AsyncIterator[tuple[StreamSource, Stream, Stream]]:
        with trio.fail_after(self.seconds):
            async with self.open_streams() as source:
                one, other = await source.pair()
                yield source, one, other
                one.reset()
                other.reset()

    async def quiet(self) -> None:
        """Return when nothing happens any more by itself."""
        await wait_all_tasks_blocked(0 if self.delay else 0.01)
        if self.delay:
            await trio.sleep(self.delay)

    async def _clog(self, stream: Stream) -> None:
        """Write until there is no room."""
        with trio.move_on_after(self.seconds / 2) as scope:
            while True:
                with trio.CancelScope() as step:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(self._cancel_when_quiet, step)
                        await stream.send_all(bytes(65536))
                        nursery.cancel_scope.cancel()
                if step.cancelled_caught:
                    return
        assert not scope.cancelled_caught, "the writer is never held back"

    async def _cancel_when_quiet(self, scope: trio.CancelScope) -> None:
        await self.quiet()
        scope.cancel()

    # --- Trio's contract

    async def test_trio_check_half_closeable_stream(self) -> None:
        """Trio's own check."""
        with trio.fail_after(4 * self.seconds):
            async with self.open_streams() as source:

                async def clogged() -> tuple[Stream, Stream]:
                    one, other = await source.pair()
                    await self._clog(one)
                    await self._clog(other)
                    return one, other

                await check_half_closeable_stream(source.pair, clogged if self.flow_control else None)

    # --- data

    async def test_bytes_arrive_in_order_both_ways(self) -> None:
        """More than any buffer holds, in writes of odd sizes, both ways at once."""
        data = bytes(range(251)) * (_BIG // 251)

        async def send(stream: Stream) -> None:
            start, size = 0, 1
            while start < len(data):
                await stream.send_all(data[start : start + size])
                start, size = start + size, size * 7 % 150_001
            await stream.send_eof()

        async def check(stream: Stream) -> None:
            assert await receive_all(stream) == data

        async with self._pair() as (_, one, other), trio.open_nursery() as nursery:
            for stream in (one, other):
                nursery.start_soon(send, stream)
                nursery.start_soon(check, stream)

    async def test_one_large_write(self) -> None:
        """A single write larger than everything below."""
        data = b"libp2p" * (_BIG // 6)
        async with self._pair() as (_, one, other), trio.open_nursery() as nursery:
            nursery.start_soon(one.send_all, data)
            assert await receive_exactly(other, len(data)) == data

    async def test_memory_may_be_reused_after_send_all(self) -> None:
        """What the caller does to its buffer afterwards does not change what arrives."""
        async with self._pair() as (_, one, other):
            for size in (10, 40_000):
                buffer = bytearray(b"a" * size)
                await one.send_all(buffer)
                buffer[:] = b"b" * size
                assert await receive_exactly(other, size) == b"a" * size

    async def test_receive_some_returns_what_is_there(self) -> None:
        """At most ``max_bytes``, never nothing, and the rest the next time."""
        async with self._pair() as (source, one, other):
            await one.send_all(b"0123456789")
            await source.settle()
            assert await other.receive_some(4) == b"0123"
            assert await other.receive_some(100) == b"456789"

    # --- the table

    async def test_remote_half_close(self) -> None:
        """The reader gets the rest, then the end, again and again; its own direction works."""
        async with self._pair() as (_, one, other):
            await one.send_all(b"the rest")
            await one.send_eof()
            assert await receive_all(other) == b"the rest"
            assert await other.receive_some() == b""
            await other.send_all(b"still here")
            await other.send_eof()
            assert await receive_all(one) == b"still here"

    async def test_after_send_eof(self) -> None:
        """Sending is over here, and only sending; a second ``send_eof`` does nothing."""
        async with self._pair() as (_, one, other):
            await one.send_eof()
            await one.send_eof()
            with pytest.raises(trio.ClosedResourceError):
                await one.send_all(b"x")
            await other.send_all(b"y")
            assert await one.receive_some() == b"y"

    async def test_after_aclose(self) -> None:
        """Nothing works here any more; closing again does."""
        async with self._pair() as (_, one, _other):
            await one.aclose()
            await self._assert_closed(one)
            await one.aclose()
            one.reset()

    async def test_after_reset_here(self) -> None:
        """The same after a reset, which may be repeated."""
        async with self._pair() as (_, one, _other):
            one.reset(1)
            one.reset(2)
            await self._assert_closed(one)
            await one.aclose()

    @staticmethod
    async def _assert_closed(stream: Stream) -> None:
        for use in (stream.receive_some, stream.send_eof, lambda: stream.send_all(b"x"), lambda: stream.send_all(b"")):
            with pytest.raises(trio.ClosedResourceError):
                await use()

    async def test_reset_by_remote(self) -> None:
        """Both directions fail with the code; what was not read is lost."""
        async with self._pair() as (source, one, other):
            await one.send_all(b"lost")
            await source.settle()
            one.reset(0x1234)
            await source.settle()
            for use in (other.receive_some, lambda: other.send_all(b"x"), other.receive_some):
                with pytest.raises(StreamReset) as caught:
                    await use()
                assert caught.value.remote
                assert caught.value.code == (0x1234 if self.reset_codes else 0)
                assert isinstance(caught.value, trio.BrokenResourceError)
            await other.aclose()

    async def test_connection_lost(self) -> None:
        """What has arrived can be read; then, and for sending at once, the loss shows."""
        async with self._pair() as (source, one, other):
            await one.send_all(b"in time")
            await source.settle()
            source.lose()
            await self.quiet()
            assert await receive_exactly(other, 7) == b"in time"
            for use in (other.receive_some, lambda: other.send_all(b"x"), one.receive_some):
                with pytest.raises(ConnectionClosed) as caught:
                    for _ in range(100):  # a real network takes a moment to tell
                        await use()
                assert isinstance(caught.value, trio.BrokenResourceError)

    async def test_two_readers(self) -> None:
        """The second gets ``BusyResourceError``, the first its data."""
        async with self._pair() as (_, one, other):
            got: list[bytes] = []

            async def read() -> None:
                got.append(bytes(await one.receive_some()))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(read)
                await wait_all_tasks_blocked()
                with pytest.raises(trio.BusyResourceError):
                    await one.receive_some()
                await other.send_all(b"for the first")
            assert got == [b"for the first"]

    async def test_two_writers(self) -> None:
        """The second gets ``BusyResourceError``; so does ``send_eof`` in the middle of a write."""
        if not self.flow_control:
            return
        async with self._pair() as (_, one, _other):
            await self._clog(one)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(one.send_all, b"x")
                await wait_all_tasks_blocked()
                for use in (partial(one.send_all, b"y"), one.send_eof, one.wait_send_all_might_not_block):
                    with pytest.raises(trio.BusyResourceError):
                        await use()
                nursery.cancel_scope.cancel()

    async def test_leaving_the_block_in_order_closes(self) -> None:
        """``async with`` ends what was sent."""
        async with self._pair() as (_, one, other):
            async with one:
                await one.send_all(b"all of it")
            assert await receive_all(other) == b"all of it"

    async def test_leaving_the_block_by_exception_resets(self) -> None:
        """Half a message must not look whole."""
        async with self._pair() as (_, one, other):
            with pytest.raises(ZeroDivisionError):
                async with one:
                    await one.send_all(b"half")
                    raise ZeroDivisionError
            with pytest.raises(StreamReset):
                await receive_all(other)

    async def test_leaving_the_block_by_cancellation_resets(self) -> None:
        """Being cancelled is no order either."""
        async with self._pair() as (_, one, other):
            with trio.CancelScope() as scope:
                async with one:
                    await one.send_all(b"half")
                    scope.cancel()
                    await trio.lowlevel.checkpoint()
            with pytest.raises(StreamReset):
                await receive_all(other)

    # --- who waits is woken

    async def test_a_waiting_reader_is_woken(self) -> None:
        """By each way a stream can end."""
        for end in _ENDS:
            async with self._pair() as (source, one, other), trio.open_nursery() as nursery:
                nursery.start_soon(_expect, end.failure, one.receive_some)
                await wait_all_tasks_blocked()
                await end.do(source, one, other)

    async def test_a_waiting_writer_is_woken(self) -> None:
        """By each way a stream can end, but for the other side's half-close."""
        if not self.flow_control:
            return
        for end in _ENDS:
            async with self._pair() as (source, one, other):
                await self._clog(one)
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_expect, end.failure, partial(one.send_all, b"x"))
                    await wait_all_tasks_blocked()
                    await end.do(source, one, other)

    # --- cancellation

    async def test_cancelled_receive_loses_nothing(self) -> None:
        """Whenever it is cancelled."""
        data = bytes(range(256)) * 40
        async with self._pair() as (_, one, other), trio.open_nursery() as nursery:
            nursery.start_soon(_send_in_pieces, one, data)
            got, steps = bytearray(), 0
            while len(got) < len(data):
                steps = (steps + 1) % 7
                with trio.CancelScope() as scope:
                    if steps:  # now and then it may wait: else no time passes on a virtual clock
                        nursery.start_soon(_cancel_soon, scope, steps)
                    got += await other.receive_some(97)
            assert got == data

    async def test_cancelled_send_harms_only_its_stream(self) -> None:
        """Other streams go on, whatever became of the write."""
        async with self._pair() as (source, one, other):
            for steps in range(12):
                with trio.CancelScope() as scope:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(_cancel_soon, scope, steps)
                        nursery.start_soon(one.send_all, bytes(100_000))
                if self.flow_control:
                    with trio.move_on_after(0):
                        await other.receive_some()
                await source.settle()

    async def test_aclose_waits_for_nobody(self) -> None:
        """Neither for a reader who does not read nor, when cancelled, for anything."""
        if not self.flow_control:
            return
        async with self._pair() as (source, one, _other):
            await self._clog(one)
            with trio.fail_after(2):
                await one.aclose()
            with trio.CancelScope() as scope:
                scope.cancel()
                await _other.aclose()
            with pytest.raises(trio.ClosedResourceError):
                await _other.receive_some()
            await source.settle()

    async def test_close_in_the_middle_of_a_write_is_no_end(self) -> None:
        """Closing while another task writes must not make half a message look whole."""
        if not self.flow_control:
            return
        async with self._pair() as (_, one, other):
            await self._clog(one)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_expect, trio.ClosedResourceError, lambda: one.send_all(bytes(100_000)))
                await wait_all_tasks_blocked()
                await one.aclose()
            with pytest.raises(StreamReset):
                await receive_all(other)


class _End:
    """A way for a stream to end, and what those who wait for it get."""

    def __init__(
        self, failure: type[Exception], do: Callable[[StreamSource, Stream, Stream], Awaitable[object]]
    ) -> None:
        self.failure = failure
        self.do = do


async def _close_here(source: StreamSource, one: Stream, other: Stream) -> None:
    await trio.aclose_forcefully(one)


async def _reset_here(source: StreamSource, one: Stream, other: Stream) -> None:
    one.reset()


async def _reset_there(source: StreamSource, one: Stream, other: Stream) -> None:
    other.reset()


async def _lose(source: StreamSource, one: Stream, other: Stream) -> None:
    source.lose()


_ENDS = (
    _End(trio.ClosedResourceError, _close_here),
    _End(trio.ClosedResourceError, _reset_here),
    _End(StreamReset, _reset_there),
    _End(ConnectionClosed, _lose),
)


async def _expect(failure: type[Exception], use: Callable[[], Awaitable[object]]) -> None:
    with pytest.raises(failure):
        await use()


async def _send_in_pieces(stream: Stream, data: bytes) -> None:
    for start in range(0, len(data), 61):
        await stream.send_all(data[start : start + 61])


async def _cancel_soon(scope: trio.CancelScope, steps: int) -> None:
    for _ in range(steps):
        await trio.lowlevel.checkpoint()
    scope.cancel()
