"""Bare TCP as a peer that is measured, with neither security nor muxer: ``python -m bench.plain_peer --sockets KIND``.

It gives the yardsticks: ``kernel`` blocks in the system's own calls, which is as fast as the machine gets; ``trio``
tries the socket first and waits in Trio when it must, which is what a library on Trio can hope for. A stream is a
connection here. The client's first byte says what it wants: a measurement, or echoes.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
import socket
import struct
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import trio

from .lines import Command, Results, emit, serve

PERF, ECHO = b"p", b"e"
PING_SIZE = 32
CHUNK = 256 * 1024
_header = struct.Struct(">cQ")


class Wire(ABC):
    """A connected socket."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock

    @abstractmethod
    async def send(self, data: memoryview) -> None:
        """Send all of it."""

    @abstractmethod
    async def receive_into(self, buffer: memoryview) -> int:
        """Fill the front of ``buffer``; 0 at the end."""

    async def receive_exactly(self, size: int) -> bytes:
        """``size`` bytes, or nothing at the end."""
        buffer, have = memoryview(bytearray(size)), 0
        while have < size:
            count = await self.receive_into(buffer[have:])
            if not count:
                return b""
            have += count
        return bytes(buffer)

    async def receive_away(self) -> int:
        """Read to the end; how much there was."""
        buffer, total = memoryview(bytearray(CHUNK)), 0
        while count := await self.receive_into(buffer):
            total += count
        return total

    async def send_blank(self, first: bytes, size: int, chunk: int) -> None:
        """Send ``first``, then ``size`` bytes in pieces."""
        left = len(first) + size
        blank = bytearray(min(left, chunk))
        blank[: len(first)] = first
        view = memoryview(blank)
        while left > 0:
            await self.send(view[:left])
            left -= min(left, chunk)


class BlockingWire(Wire):
    """Waits in the system's calls; its methods never await."""

    async def send(self, data: memoryview) -> None:
        self.sock.sendall(data)

    async def receive_into(self, buffer: memoryview) -> int:
        return self.sock.recv_into(buffer)


class TrioWire(Wire):
    """Waits in Trio, only when it must."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        sock.setblocking(False)

    async def send(self, data: memoryview) -> None:
        while data:
            try:
                data = data[self.sock.send(data) :]
            except BlockingIOError:
                await trio.lowlevel.wait_writable(self.sock)

    async def receive_into(self, buffer: memoryview) -> int:
        while True:
            try:
                return self.sock.recv_into(buffer)
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self.sock)


async def answer(wire: Wire) -> None:
    """The server's side of one connection."""
    with wire.sock:
        if not (header := await wire.receive_exactly(_header.size)):
            return
        kind, download = _header.unpack(header)
        if kind == PERF:
            await wire.receive_away()
            await wire.send_blank(b"", download, CHUNK)
            return
        while data := await wire.receive_exactly(PING_SIZE):
            await wire.send(memoryview(data))


async def measure(wire: Wire, upload: int, download: int, chunk: int) -> None:
    """The client's side of a measurement."""
    with wire.sock:
        await wire.send_blank(_header.pack(PERF, download), upload, max(chunk, _header.size))
        wire.sock.shutdown(socket.SHUT_WR)
        if await wire.receive_away() != download:
            raise EOFError


async def round_trips(wire: Wire, count: int) -> list[float]:
    """Milliseconds of ``count`` echoes."""
    rtts = []
    with wire.sock:
        await wire.send(memoryview(_header.pack(ECHO, 0)))
        for _ in range(count):
            started = time.perf_counter()
            await wire.send(memoryview(bytes(PING_SIZE)))
            await wire.receive_exactly(PING_SIZE)
            rtts.append((time.perf_counter() - started) * 1000)
    return rtts


def at_once(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that never awaits anything."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it did await")


class Peer:
    """The commands. Addresses are ``host:port``."""

    def __init__(self, kind: str, nursery: trio.Nursery) -> None:
        self._kind = kind
        self._nursery = nursery
        self._held: list[socket.socket] = []
        self._addr = ("", 0)

    def commands(self) -> dict[str, Command]:
        """Command name to what runs it."""
        return {
            "dial": self.dial,
            "identify": self.nothing,
            "disconnect": self.nothing,
            "ping": self.ping,
            "perf": self.perf,
            "connect_many": self.connect_many,
            "hold": self.hold,
        }

    async def dial(self, addr: str) -> Results:
        host, _, port = addr.partition(":")
        self._addr = (host, int(port))
        return {"peer_id": addr}

    async def nothing(self, peer: str) -> Results:
        return None

    async def _on_wire(self, use: Callable[[Wire], Coroutine[Any, Any, Any]]) -> Any:
        if self._kind == "trio":
            sock = await trio.to_thread.run_sync(socket.create_connection, self._addr)
            return await use(TrioWire(sock))
        return await trio.to_thread.run_sync(lambda: at_once(use(BlockingWire(socket.create_connection(self._addr)))))

    async def ping(self, peer: str, count: int) -> Results:
        return {"rtts_ms": await self._on_wire(lambda wire: round_trips(wire, count))}

    async def perf(
        self, peer: str, upload: int, download: int, total: int = 1, parallel: int = 1, chunk: int = CHUNK
    ) -> Results:
        return await self._repeat(
            total, parallel, lambda: self._on_wire(lambda wire: measure(wire, upload, download, chunk))
        )

    async def connect_many(self, addr: str, total: int, parallel: int, identify: bool) -> Results:
        await self.dial(addr)
        return await self._repeat(total, parallel, self._connect_once)

    async def _connect_once(self) -> None:
        sock = trio.socket.socket()
        await sock.connect(self._addr)
        await measure(TrioWire(socket.socket(fileno=sock.detach())), 0, 1, CHUNK)

    async def _repeat(self, total: int, parallel: int, once: Callable[[], Awaitable[Any]]) -> Results:
        numbers = iter(range(total))
        latencies: list[float] = []

        async def worker() -> None:
            for _ in numbers:
                opened = time.perf_counter()
                await once()
                latencies.append((time.perf_counter() - opened) * 1000)

        started = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for _ in range(parallel):
                nursery.start_soon(worker)
        return {"seconds": time.perf_counter() - started, "latencies_ms": latencies}

    async def hold(self, addr: str, connections: int, streams: int) -> Results:
        await self.dial(addr)
        for _ in range(connections):
            sock = socket.create_connection(self._addr)
            sock.sendall(_header.pack(ECHO, 0))
            self._held.append(sock)
        return None

    async def accept_trio(self, listener: socket.socket) -> None:
        """Serve every connection in a task."""
        listener.setblocking(False)
        while True:
            await trio.lowlevel.wait_readable(listener)
            try:
                while True:
                    self._nursery.start_soon(answer, TrioWire(listener.accept()[0]))
            except BlockingIOError:
                pass

    def accept_blocking(self, listener: socket.socket) -> None:
        """Serve every connection in a thread."""
        while True:
            wire = BlockingWire(listener.accept()[0])
            threading.Thread(target=lambda wire=wire: at_once(answer(wire)), daemon=True).start()


async def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.plain_peer")
    parser.add_argument("--sockets", choices=["trio", "kernel"], required=True)
    parser.add_argument("--pubsub")
    parser.add_argument("--quiet", action="store_true")
    options = parser.parse_args()
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    addr = f"127.0.0.1:{listener.getsockname()[1]}"
    async with trio.open_nursery() as nursery:
        peer = Peer(options.sockets, nursery)
        if options.sockets == "trio":
            nursery.start_soon(peer.accept_trio, listener)
        else:
            threading.Thread(target=peer.accept_blocking, args=(listener,), daemon=True).start()
        version = f"Python {platform.python_version()}, trio {importlib.metadata.version('trio')}"
        emit({"event": "ready", "peer_id": addr, "addrs": [addr], "version": version})
        await serve(peer.commands())
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
