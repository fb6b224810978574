"""``libp2p.protocols.ping``: requirements PG1 to PG4, case I5."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from libp2p.abc import Host, Stream
from libp2p.errors import ConnectionClosed, NegotiationError, RemoteProtocolError, StreamReset
from libp2p.protocols.identify import Identify
from libp2p.protocols.ping import PING, SIZE, STREAM_LIFE, PingTimeout, open_ping, ping
from libp2p.testing import memory_network
from libp2p.transports.memory import Link
from tests.protocols.waiting import settled

Script = Callable[[Stream], Coroutine[Any, Any, None]]


@asynccontextmanager
async def scripted(script: Script):
    """A host that pings, and one whose handler is ``script``."""
    async with memory_network(2, defaults=(Identify,), connect="full") as (a, b):
        with b.handle(PING, script):
            yield a, b


async def test_pg1_rounds_on_one_stream() -> None:
    streams = []
    async with memory_network(2, connect="full") as (a, b):
        a.peerstore.set_protocols(b.local_peer, [PING])
        async with open_ping(a, b.local_peer) as session:
            for _ in range(3):
                assert await session.once() >= 0
                streams.append(session._stream)
        assert len(set(streams)) == 1
        assert len(await ping(b, a.local_peer, count=5)) == 5


async def test_the_round_trip_is_measured() -> None:
    async with memory_network(2, link=Link(latency=0.05), connect="full") as (a, b):
        for seconds in await ping(a, b.local_peer, count=3):
            assert seconds == pytest.approx(0.1, abs=0.01)


async def test_a_target_may_be_an_address() -> None:
    async with memory_network(2) as (a, b):
        assert len(await ping(a, b.addrs[0])) == 1
        assert len(await ping(a, str(b.local_peer))) == 1


async def test_pg4_payloads_in_pieces() -> None:
    async with memory_network(2, connect="full") as (a, b), await a.open_stream(b.local_peer, PING) as stream:
        payload = bytes(range(SIZE))
        for byte in payload:
            await stream.send_all(bytes((byte,)))
        assert await receive_exactly(stream, SIZE) == payload

    async def in_pieces(stream: Stream) -> None:
        data = await receive_exactly(stream, SIZE)
        for byte in data:
            await stream.send_all(bytes((byte,)))
        await trio.sleep_forever()

    async with scripted(in_pieces) as (a, b):
        assert await ping(a, b.local_peer)


@pytest.mark.parametrize("size", [0, 31, 33, 64, 1024 * 1024])
async def test_i5_only_whole_pings_are_answered(size: int) -> None:
    async with memory_network(2, connect="full") as (a, b):
        async with await a.open_stream(b.local_peer, PING) as stream, trio.open_nursery() as nursery:

            async def send() -> None:
                await stream.send_all(bytes(size))
                await stream.send_eof()

            nursery.start_soon(send)
            answer = b"".join([chunk async for chunk in stream])
        assert len(answer) == size // SIZE * SIZE


async def wrong(stream: Stream) -> None:
    data = await receive_exactly(stream, SIZE)
    await stream.send_all(data[:-1] + bytes((data[-1] ^ 1,)))
    await trio.sleep_forever()


async def closes(stream: Stream) -> None:
    await receive_exactly(stream, SIZE)
    await stream.send_all(b"half")


async def resets(stream: Stream) -> None:
    await receive_exactly(stream, SIZE)
    stream.reset(7)


async def silent(stream: Stream) -> None:
    await trio.sleep_forever()


@pytest.mark.parametrize(
    ("script", "error"),
    [
        (wrong, RemoteProtocolError),
        (closes, RemoteProtocolError),
        (resets, (StreamReset, NegotiationError)),
        (silent, PingTimeout),
    ],
)
async def test_pg3_wrong_answers(script: Script, error: type[Exception] | tuple[type[Exception], ...]) -> None:
    async with scripted(script) as (a, b), open_ping(a, b.local_peer) as session:
        for _ in range(2):  # a failure does not spoil what follows
            started = trio.current_time()
            with pytest.raises(error):
                await session.once()
            assert trio.current_time() - started == pytest.approx(10.0 if script is silent else 0.0, abs=0.5)


async def test_the_timeout_is_both_ours_and_trios() -> None:
    async with scripted(silent) as (a, b):
        with pytest.raises(trio.TooSlowError) as caught:
            await ping(a, b.local_peer, timeout=3)
    assert str(caught.value) == f"no answer to a ping from {b.local_peer} within 3 s"
    assert isinstance(caught.value, PingTimeout)
    assert caught.value.seconds == 3


async def test_connecting_counts() -> None:
    async with memory_network(2) as hosts:
        a, b = hosts
        hosts.network.cut(hosts.node(a), hosts.node(b))
        with pytest.raises(PingTimeout):
            await ping(a, b.addrs[0], timeout=2)


async def test_who_does_not_speak_ping() -> None:
    async with memory_network(2, defaults=(Identify,), connect="full") as (a, b):
        with pytest.raises(NegotiationError):
            await ping(a, b.local_peer)


async def test_i5_streams_live_30_seconds_and_sessions_do_not_notice() -> None:
    async with memory_network(2, connect="full") as (a, b):
        async with await a.open_stream(b.local_peer, PING) as hog:
            started = trio.current_time()
            assert [chunk async for chunk in hog] == []
            assert trio.current_time() - started == pytest.approx(STREAM_LIFE, abs=0.5)
        async with open_ping(a, b.local_peer) as session:
            streams = set()
            for _ in range(10):
                await session.once()
                streams.add(session._stream)
                await trio.sleep(10)
            assert len(streams) >= 3


async def test_pg2_a_third_stream_is_reset() -> None:
    async with memory_network(2, connect="full") as (a, b):
        streams = [await open_and_ping(a, b) for _ in range(2)]
        with pytest.raises((StreamReset, NegotiationError)):
            await open_and_ping(a, b)
        await streams.pop().aclose()
        await settled()
        streams.append(await open_and_ping(a, b))
        for stream in streams:
            await stream.aclose()


async def test_a_session_is_for_one_task() -> None:
    async with scripted(silent) as (a, b), open_ping(a, b.local_peer) as session, trio.open_nursery() as nursery:
        nursery.start_soon(session.once)
        await settled()
        with pytest.raises(trio.BusyResourceError):
            await session.once()
        nursery.cancel_scope.cancel()


async def test_a_cancelled_ping_does_not_spoil_the_next() -> None:
    answer = trio.Event()

    async def late(stream: Stream) -> None:
        while data := await receive_exactly(stream, SIZE):
            await answer.wait()
            await stream.send_all(data)

    async with scripted(late) as (a, b), open_ping(a, b.local_peer) as session:
        with trio.move_on_after(1) as scope:
            await session.once()
        assert scope.cancelled_caught
        answer.set()
        assert await session.once() >= 0


async def test_a_lost_connection() -> None:
    async with scripted(silent) as (a, b), trio.open_nursery() as nursery:

        async def fails() -> None:
            with pytest.raises(ConnectionClosed):
                await ping(a, b.local_peer)

        nursery.start_soon(fails)
        await settled()
        await b.disconnect(a.local_peer)


async def test_nothing_to_count() -> None:
    async with memory_network(2) as (a, b):
        with pytest.raises(ValueError, match="0 times"):
            await ping(a, b.local_peer, count=0)


async def open_and_ping(a: Host, b: Host) -> Stream:
    stream = await a.open_stream(b.local_peer, PING)
    await stream.send_all(bytes(SIZE))
    assert await receive_exactly(stream, SIZE) == bytes(SIZE)
    return stream


async def receive_exactly(stream: Stream, size: int) -> bytes:
    data = bytearray()
    while len(data) < size and (chunk := await stream.receive_some(size - len(data))):
        data += chunk
    return bytes(data)
