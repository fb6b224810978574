"""``libp2p.protocols.perf``: requirements PF1 to PF3."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

import libp2p
from libp2p.abc import Stream
from libp2p.errors import DialError, NegotiationError, RemoteProtocolError, StreamReset
from libp2p.protocols.perf import CHUNK, PERF, Perf, PerfResult, perf
from libp2p.testing import memory_network
from libp2p.transports.memory import Link

Script = Callable[[Stream], Coroutine[Any, Any, None]]
MIB = 1024 * 1024


@asynccontextmanager
async def scripted(script: Script):
    """A host that measures, and one whose handler is ``script``."""
    async with memory_network(2, connect="full") as (a, b):
        with b.handle(PERF, script):
            yield a, b


@pytest.mark.parametrize(
    ("upload", "download"),
    [(0, 0), (1, 0), (0, 1), (100, 100), (CHUNK - 8, 3), (CHUNK - 7, CHUNK), (CHUNK, CHUNK + 1), (3 * CHUNK + 5, 10)],
)
async def test_pf1_sizes(upload: int, download: int) -> None:
    async with memory_network(2, services=[Perf], connect="full") as (a, b):
        result = await perf(a, b.local_peer, upload=upload, download=download)
        assert (result.upload_bytes, result.download_bytes) == (upload, download)
        assert result.upload_seconds >= 0 and result.download_seconds >= 0


async def test_pf1_ten_mebibytes_each_way() -> None:
    async with memory_network(2, services=[Perf], connect="full") as (a, b):
        result = await perf(a, b.local_peer, upload=10 * MIB, download=10 * MIB)
        assert (result.upload_bytes, result.download_bytes) == (10 * MIB, 10 * MIB)


async def test_pf1_pf3_on_the_wire() -> None:
    """Eight bytes, big-endian; then anything to the end; then exactly what was asked for."""
    async with memory_network(2, services=[Perf], connect="full") as (a, b):  # noqa: SIM117 - the second needs the first
        async with await a.open_stream(b.local_peer, PERF) as stream:
            for byte in (1000).to_bytes(8, "big"):
                await stream.send_all(bytes((byte,)))
            await stream.send_all(b"not zeros at all")
            with trio.move_on_after(60) as scope:
                await stream.receive_some()
            assert scope.cancelled_caught, "it answered before the end of the upload"
            await stream.send_eof()
            assert len(b"".join([chunk async for chunk in stream])) == 1000


@pytest.mark.parametrize("chunk", [1, 7, 8, 9, 100])
async def test_what_the_client_sends(chunk: int) -> None:
    seen = bytearray()

    async def listen(stream: Stream) -> None:
        async for data in stream:
            seen.extend(data)
        await stream.send_all(bytes(5))

    async with scripted(listen) as (a, b):
        await perf(a, b.local_peer, upload=50, download=5, chunk=chunk)
    assert seen == (5).to_bytes(8, "big") + bytes(50)


@pytest.mark.parametrize("header", [b"", bytes(7)])
async def test_a_header_cut_short_resets_the_stream(header: bytes) -> None:
    async with memory_network(2, services=[Perf], connect="full") as (a, b):
        async with await a.open_stream(b.local_peer, PERF) as stream:
            if header:
                await stream.send_all(header)
            await stream.send_eof()
            with pytest.raises(StreamReset):
                await stream.receive_some()
        assert (await perf(a, b.local_peer, upload=1, download=1)).download_bytes == 1


async def test_each_way_has_its_time() -> None:
    async def slow(stream: Stream) -> None:
        while await stream.receive_some():
            pass
        await trio.sleep(2)
        await stream.send_all(b"x")
        await trio.sleep(3)
        await stream.send_all(b"y")

    async with scripted(slow) as (a, b):
        result = await perf(a, b.local_peer, upload=10, download=2)
        assert result.upload_seconds == pytest.approx(2, abs=0.1)
        assert result.download_seconds == pytest.approx(3, abs=0.1)
        result = await perf(a, b.local_peer, upload=0, download=2)
        assert result.upload_seconds == 0
        assert result.download_seconds == pytest.approx(5, abs=0.1)


async def test_the_rate_of_the_link_is_found() -> None:
    async with memory_network(2, services=[Perf], link=Link(latency=0.01, rate=1e6), connect="full") as (a, b):
        result = await perf(a, b.local_peer, upload=2_000_000, download=3_000_000)
        assert result.upload_bytes / result.upload_seconds == pytest.approx(1e6, rel=0.1)
        assert result.download_bytes / result.download_seconds == pytest.approx(1e6, rel=0.1)


@pytest.mark.parametrize("answer", [b"", bytes(7), bytes(9), bytes(MIB)])
async def test_an_answer_of_another_size(answer: bytes) -> None:
    async def wrong(stream: Stream) -> None:
        while await stream.receive_some():
            pass
        await stream.send_all(answer)

    async with scripted(wrong) as (a, b):
        with pytest.raises(RemoteProtocolError):
            await perf(a, b.local_peer, upload=10, download=8)


async def test_a_reset() -> None:
    async def resets(stream: Stream) -> None:
        await stream.receive_some()
        stream.reset(7)

    async with scripted(resets) as (a, b):
        with pytest.raises(StreamReset):
            await perf(a, b.local_peer, upload=100 * MIB, download=0)


async def test_cancelled() -> None:
    """In mid-upload and in mid-download: the stream is reset and the connection goes on."""

    async def takes_nothing(stream: Stream) -> None:
        await trio.sleep_forever()

    async with scripted(takes_nothing) as (a, b):
        with trio.move_on_after(5) as scope:
            await perf(a, b.local_peer, upload=100 * MIB, download=0)
        assert scope.cancelled_caught
        assert len(a.connections(b.local_peer)) == 1
    async with memory_network(2, services=[Perf], link=Link(rate=1e6), connect="full") as (a, b):
        with trio.move_on_after(5) as scope:
            await perf(a, b.local_peer, upload=0, download=1 << 63)
        assert scope.cancelled_caught
        assert (await perf(a, b.local_peer, upload=1, download=1)).download_bytes == 1


@pytest.mark.parametrize(
    "arguments",
    [
        {"upload": -1, "download": 0},
        {"upload": 0, "download": -1},
        {"upload": 0, "download": 1 << 64},
        {"upload": 1, "download": 1, "chunk": 0},
    ],
)
async def test_sizes_that_make_no_sense(arguments: dict[str, int]) -> None:
    async with memory_network(2, services=[Perf]) as (a, b):
        with pytest.raises(ValueError, match="cannot upload"):
            await perf(a, b.addrs[0], **arguments)
        assert not a.connections()


async def test_pf2_nobody_serves_it_unasked() -> None:
    assert not any(isinstance(service, Perf) for service in libp2p.default_services())
    async with memory_network(2, connect="full") as (a, b):
        assert PERF not in b.protocols
        with pytest.raises(NegotiationError):
            await perf(a, b.local_peer, upload=1, download=1)


@pytest.mark.parametrize("chunk", [1, 100])
async def test_chunks_of_the_server(chunk: int) -> None:
    async with memory_network(2, services=[lambda: Perf(chunk=chunk)], connect="full") as (a, b):
        assert (await perf(a, b.local_peer, upload=5, download=150)).download_bytes == 150
    with pytest.raises(ValueError, match="chunks of 0"):
        Perf(chunk=0)


async def test_a_target_may_be_an_address() -> None:
    async with memory_network(2, services=[Perf]) as (a, b):
        assert isinstance(await perf(a, b.addrs[0], upload=1, download=1), PerfResult)
    async with memory_network(1) as (a,):
        with pytest.raises(DialError):
            await perf(a, str(libp2p.PeerId.from_key(libp2p.generate_key().public_key)), upload=1, download=1)
