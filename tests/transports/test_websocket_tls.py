"""TLS below WebSockets: as a stream, against Python's own TLS, and against peers that break its rules."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from libp2p.abc import DirectStream
from libp2p.addressing import parse
from libp2p.testing import Link, Memory, MemoryNetwork
from libp2p.testing.certificates import tls_pair
from libp2p.testing.conformance.stream import receive_all, receive_exactly
from libp2p.transports.websocket import WebSocketStream
from libp2p.transports.websocket._layer import RECEIVE_SIZE
from libp2p.transports.websocket._tls import MAX_ANSWERS, MAX_SILENT, TlsStream
from tests.security.tls_raw import RawTls, Sealer, raw_context

NAME = "example.com"
ADDR = parse("/ip4/10.0.0.1/tcp/443")


@pytest.fixture(scope="module")
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """A server's and a client's."""
    return tls_pair(NAME)


Contexts = tuple[ssl.SSLContext, ssl.SSLContext]


async def _raw(network: MemoryNetwork | None = None) -> tuple[DirectStream, DirectStream]:
    """Both ends of a connection on which nothing was said: who dialled first."""
    network = network or MemoryNetwork(1)
    listener = await Memory(network, "server", ip="10.0.0.1").listen(ADDR)
    ours: Any = (await Memory(network, "client", ip="10.0.0.2").dial(ADDR, peer=None)).stream
    theirs: Any = (await listener.accept()).stream
    await listener.aclose()
    return ours, theirs


@asynccontextmanager
async def met(contexts: Contexts, **link: Any) -> AsyncIterator[tuple[TlsStream, TlsStream]]:
    """Both ends behind the handshake, who dialled first; ``link`` is how the connection is from then on."""
    ours, theirs = await _raw(network := MemoryNetwork(1))
    one, other = TlsStream(ours, contexts[1], server_name=NAME), TlsStream(theirs, contexts[0])
    with trio.fail_after(1000):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.shake_hands)
            nursery.start_soon(other.shake_hands)
        network.set_link("client", "server", Link(**link))
        yield one, other
    await one.aclose()
    await other.aclose()


@asynccontextmanager
async def met_by_stranger(contexts: Contexts) -> AsyncIterator[tuple[RawTls, TlsStream, bytes]]:
    """A client that may do anything, a server of ours, and the secret of what the client sends."""
    ours, theirs = await _raw()
    secrets: dict[str, bytes] = {}

    def log(_: object, line: bytes) -> None:
        label, _random, secret = line.decode().split()
        secrets[label] = bytes.fromhex(secret)

    context = raw_context(bare=True)
    context.set_keylog_callback(log)
    stranger, stream = RawTls(ours, context, dialer=True), TlsStream(theirs, contexts[0])
    with trio.fail_after(1000):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stranger.handshake)
            nursery.start_soon(stream.shake_hands)
        yield stranger, stream, secrets["CLIENT_TRAFFIC_SECRET_0"]
    await stream.aclose()
    await ours.aclose()


@pytest.mark.parametrize("link", [{}, {"buffer": 1000}, {"buffer": 100, "latency": 0.01}], ids=str)
async def test_bytes_both_ways_however_little_the_stream_below_takes(contexts, link) -> None:
    data = bytes(range(256)) * 600
    async with met(contexts, **link) as streams:
        for one, other in (streams, streams[::-1]):
            for size in (1, 2, 3, 70_000, len(data)):

                async def receive(other=other, size=size) -> None:
                    assert await receive_exactly(other, size) == data[:size]

                async with trio.open_nursery() as both:
                    both.start_soon(receive)
                    both.start_soon(one.send_all, data[:size])


async def test_a_buffer_of_any_size(contexts) -> None:
    """What does not fit stays, and there is no wait for it."""
    async with met(contexts) as (one, other):
        await one.send_all(bytes(range(200)))
        got = b""
        buffer = memoryview(bytearray(7))
        while len(got) < 200:
            await other.wait_readable()
            try:
                got += buffer[: other.receive_into_nowait(buffer)]
            except trio.WouldBlock:
                pass
        assert got == bytes(range(200))


async def test_what_was_kept_back_is_sent_with_the_next(contexts) -> None:
    """All but the last byte count as taken where the stream below is full; without the byte nothing happens."""
    async with met(contexts, buffer=100) as (one, other):
        assert one.send_nowait(b"a" * 500) == 499
        for _ in range(2):
            with pytest.raises(trio.WouldBlock):
                one.send_nowait(b"a")
        assert one.send_nowait(b"") == 0
        got = bytearray()

        async def receive() -> None:
            got.extend(await receive_exactly(other, 503))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await one.send_all(b"abcd")
        assert got == b"a" * 500 + b"bcd"


async def test_a_single_byte_may_have_to_wait(contexts) -> None:
    async with met(contexts, buffer=10) as (one, other):
        with pytest.raises(trio.WouldBlock):
            one.send_nowait(b"x")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.send_all, b"x")
            assert await receive_exactly(other, 1) == b"x"


async def test_frames_over_a_narrow_stream(contexts) -> None:
    """WebSocket above, pings among the data: both keep to what they have begun."""
    async with met(contexts, buffer=500) as (one, other):
        ours, theirs = WebSocketStream(one, client=True), WebSocketStream(other, client=False)
        ours.begin(b"")
        theirs.begin(b"")
        data = bytes(range(256)) * 400

        async def send(stream: WebSocketStream) -> None:
            for start in range(0, len(data), 5000):
                await stream.send_all(data[start : start + 5000])

        async def receive(stream: WebSocketStream) -> None:
            assert await receive_exactly(stream, len(data)) == data

        async with trio.open_nursery() as nursery:
            for stream in (ours, theirs):
                nursery.start_soon(send, stream)
                nursery.start_soon(receive, stream)
        await ours.aclose()
        assert await receive_all(theirs) == b""


# --- the end ----------------------------------------------------------------------------------------------------------


async def test_a_farewell_is_said_and_heard(contexts) -> None:
    async with met_by_stranger(contexts) as (stranger, stream, secret):
        await stranger.stream.send_all(Sealer(secret).seal(b"last words") + Sealer(secret, 1).seal(b"\x01\x00", 21))
        assert await receive_all(stream) == b"last words"
        assert await stream.receive_some() == b""
        await stream.aclose()
        assert await stranger.receive() == b"", "not an EOFError"
        for use in (stream.receive_some(), stream.send_all(b"x")):
            with pytest.raises(trio.ClosedResourceError):
                await use


async def test_an_end_without_a_farewell_is_an_end(contexts) -> None:
    """Most of the web says none."""
    async with met_by_stranger(contexts) as (stranger, stream, _):
        await stranger.send(b"last words")
        await stranger.stream.aclose()
        assert await receive_all(stream) == b"last words"
        assert await stream.receive_some() == b""


async def test_closing_waits_for_nobody(contexts) -> None:
    """Not for a peer that reads nothing, not in the middle of a record, and not before the handshake."""
    async with met(contexts, buffer=100) as (one, other):
        one.send_nowait(b"a" * 500)
        await one.aclose()
        await one.aclose()
        assert await receive_all(other) == b""
    ours, theirs = await _raw()
    stream = TlsStream(ours, contexts[1], server_name=NAME)
    await stream.aclose()
    assert await receive_all(theirs) == b""
    await theirs.aclose()


async def test_after_the_end_nothing_can_be_sent(contexts) -> None:
    async with met(contexts) as (one, _):
        with pytest.raises(ssl.SSLWantReadError):
            one._tls.unwrap()
        with pytest.raises(trio.BrokenResourceError, match="TLS failed"):
            await one.send_all(b"x")


# --- what breaks it ---------------------------------------------------------------------------------------------------


async def test_a_changed_record_ends_it(contexts) -> None:
    """What came before it is read; nothing after it."""
    async with met_by_stranger(contexts) as (stranger, stream, secret):
        sealer = Sealer(secret)
        good, bad = sealer.seal(b"good"), bytearray(sealer.seal(b"bad"))
        bad[-1] ^= 1
        await stranger.stream.send_all(good + bytes(bad) + sealer.seal(b"more"))
        assert await receive_exactly(stream, 4) == b"good"
        for _ in range(2):
            with pytest.raises(trio.BrokenResourceError, match="TLS failed"):
                await stream.receive_some()


@pytest.mark.parametrize("make", [lambda sealer: sealer.seal(b""), Sealer.rekey], ids=["empty records", "key updates"])
async def test_M5_records_without_content_and_without_end(contexts, make) -> None:
    """Bounded in bytes between two with content."""
    async with met_by_stranger(contexts) as (stranger, stream, secret), trio.open_nursery() as nursery:

        async def flood() -> None:
            sealer, sent = Sealer(secret), 0
            try:
                while sent < 4 * MAX_SILENT:
                    record = make(sealer)
                    await stranger.stream.send_all(record)
                    sent += len(record)
            except trio.BrokenResourceError:
                pass

        nursery.start_soon(flood)
        with pytest.raises(trio.BrokenResourceError, match="TLS failed"):
            await stream.receive_some()
        assert stream._outgoing.pending <= MAX_ANSWERS + 2 * RECEIVE_SIZE
        await stream.aclose()


async def test_M5_answers_do_not_pile_up(contexts) -> None:
    """A peer that asks for new keys between bytes that count, and to which nothing is ever sent."""
    async with met_by_stranger(contexts) as (stranger, stream, secret), trio.open_nursery() as nursery:

        async def ask() -> None:
            sealer = Sealer(secret)
            try:
                while True:
                    await stranger.stream.send_all(sealer.seal(b"x") + sealer.rekey())
            except trio.BrokenResourceError:
                pass

        nursery.start_soon(ask)
        with pytest.raises(trio.BrokenResourceError, match="without end"):
            while True:
                await stream.receive_some()
        await stream.aclose()


async def test_no_handshake(contexts) -> None:
    """The cause says why, and the other side is told."""
    for said in (b"GET / HTTP/1.1\r\n\r\n", b""):
        ours, theirs = await _raw()
        stream = TlsStream(theirs, contexts[0])
        await ours.send_all(said)
        async with trio.open_nursery() as nursery:
            if not said:
                nursery.start_soon(ours.aclose)
            with pytest.raises(trio.BrokenResourceError) as caught:
                await stream.shake_hands()
        assert isinstance(caught.value.__cause__, ssl.SSLError)
        await stream.aclose()
        await ours.aclose()
