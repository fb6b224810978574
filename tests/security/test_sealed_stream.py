"""How much a secure stream takes in at a time."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import trio

from libp2p.abc import Buffer, DirectStream
from libp2p.security._sealed_stream import FIRST_RECEIVE_SIZE, RECEIVE_SIZE, SealedStream
from libp2p.security.noise._machine import CipherState
from libp2p.security.noise._stream import NoiseStream
from libp2p.security.noise._stream import Scratch as NoiseScratch
from libp2p.security.tls._records import SUITES, Incoming, TrafficKey
from libp2p.security.tls._stream import Scratch as TlsScratch
from libp2p.security.tls._stream import TlsStream


class Wire(DirectStream):
    """Both ends of a wire without bounds: what is sent can be received. Notes how much was asked for."""

    def __init__(self) -> None:
        self.held = bytearray()
        self.asked: list[int] = []
        self.received = 0

    def send_nowait(self, data: Buffer) -> int:
        self.held += data
        return len(data)

    def receive_into_nowait(self, buffer: memoryview) -> int:
        if not self.held:
            raise trio.WouldBlock
        self.asked.append(len(buffer))
        size = min(len(buffer), len(self.held))
        buffer[:size] = self.held[:size]
        del self.held[:size]
        self.received += size
        return size

    async def wait_readable(self) -> None:
        await trio.lowlevel.checkpoint()
        if not self.held:
            raise trio.BrokenResourceError

    async def wait_writable(self) -> None:
        raise AssertionError

    async def send_all(self, data: Buffer) -> None:
        raise AssertionError

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        raise AssertionError

    async def wait_send_all_might_not_block(self) -> None:
        raise AssertionError

    async def aclose(self) -> None:
        raise AssertionError


def noise(wire: Wire) -> SealedStream:
    return NoiseStream(wire, send=CipherState(bytes(32)), receive=CipherState(bytes(32)), scratch=NoiseScratch())


def tls(wire: Wire) -> SealedStream:
    suite = SUITES["TLS_AES_128_GCM_SHA256"]
    incoming = Incoming(TrafficKey(suite, bytes(32)), from_server=True)
    return TlsStream(wire, send=TrafficKey(suite, bytes(32)), receive=incoming, scratch=TlsScratch())


async def drain(stream: SealedStream, wire: Wire) -> None:
    while wire.held:
        await stream.receive_chunks()


@pytest.mark.parametrize("make", [noise, tls])
async def test_M5_tiny_records_are_taken_in_by_little(make: Callable[[Wire], SealedStream]) -> None:
    """Large ones by much, and tiny ones behind them by little again; between two of those, others get a turn."""
    wire = Wire()
    stream = make(wire)
    stream.write([bytes(6 * RECEIVE_SIZE)])
    await drain(stream, wire)
    assert wire.asked[0] == FIRST_RECEIVE_SIZE
    assert wire.asked[-1] >= RECEIVE_SIZE // 2
    while len(wire.held) < RECEIVE_SIZE:
        stream.write([b"x"])
    await drain(stream, wire)
    while len(wire.held) < RECEIVE_SIZE:
        stream.write([b"x"])
    wire.asked.clear()
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        await drain(stream, wire)
        nursery.cancel_scope.cancel()
    assert set(wire.asked) == {FIRST_RECEIVE_SIZE}
    assert turns >= len(wire.asked) - 1
