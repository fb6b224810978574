"""This library as a peer that is measured: ``python -m bench.ours_peer``.

Speaks as much of interop/CONTRACT.md as the benchmark needs (the commands of pubsub are in ``bench.gossip``), and two
commands more: ``hold`` keeps idle connections and streams open, so that the other side's memory can be measured, and
``profile`` tells where the time went.
"""

from __future__ import annotations

import argparse
import importlib
import ssl
import time
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from typing import Any

import trio

import libp2p
from libp2p.abc import Service, Transport
from libp2p.events import PeerIdentified
from libp2p.protocols.perf import PERF, Perf, perf
from libp2p.protocols.ping import ping
from libp2p.swarm import LimitsConfig, SwarmConfig, TrimConfig

from .lines import Command, Results, emit, serve

MANY = 100_000
CONFIG = libp2p.HostConfig(
    swarm=SwarmConfig(
        limits=LimitsConfig(connections=MANY, connections_inbound=MANY), trim=TrimConfig(low=MANY, high=MANY)
    )
)
"""Nothing is cut off that a workload needs; all else as users have it."""
DIALS_AT_ONCE = 20
CHUNK = 64 * 1024
"""Bytes of a write, as with all peers; larger ones would be faster."""


@dataclass(frozen=True)
class Stack:
    """What is measured: a transport, and what secures it where it does not do so itself."""

    transport: str
    security: str
    certificate: str
    authority: str

    def open_host(self, listen: Sequence[str] = (), *services: Service) -> AbstractAsyncContextManager[libp2p.Host]:
        """A host with this and nothing else."""
        return libp2p.open_host(
            listen=listen,
            services=[Perf(chunk=CHUNK), *services],
            transports=[self._secure_websocket() if self.transport == "wss" else _load(TRANSPORTS[self.transport])],
            security=[_load(SECURITIES[self.security])],
            config=CONFIG,
        )

    def _secure_websocket(self) -> Transport:
        server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server.load_cert_chain(self.certificate)
        client = ssl.create_default_context(cafile=self.authority)
        found: Transport = _load(TRANSPORTS["ws"], server_tls=server, client_tls=client)
        return found


TRANSPORTS = {
    "tcp": "libp2p.transports.tcp:Tcp",
    "ws": "libp2p.transports.websocket:WebSocket",
    "quic-v1": "libp2p.transports.quic:Quic",
}
SECURITIES = {"noise": "libp2p.security.noise:Noise", "tls": "libp2p.security.tls:Tls"}


def _load(name: str, **arguments: Any) -> Any:
    # Only what is wanted: what is not measured must take no memory and no time to import.
    module, _, attribute = name.partition(":")
    found = getattr(importlib.import_module(module), attribute)
    # Those that need the host's key are given as their class.
    return found(**arguments) if issubclass(found, Transport) and not found.brings_security else found


class Peer:
    """The commands."""

    def __init__(self, host: libp2p.Host, nursery: trio.Nursery, stack: Stack) -> None:
        self._host = host
        self._stack = stack
        self._nursery = nursery
        self._profile: Any = None

    def commands(self) -> dict[str, Command]:
        """Command name to what runs it."""
        return {
            "dial": self.dial,
            "identify": self.identify,
            "ping": self.ping,
            "perf": self.perf,
            "connect_many": self.connect_many,
            "disconnect": self.disconnect,
            "hold": self.hold,
            "profile": self.profile,
            "dht_many": self.dht_many,
        }

    async def dial(self, addr: str) -> Results:
        connection = await self._host.connect(addr)
        return {"peer_id": str(connection.peer)}

    async def identify(self, peer: str) -> Results:
        with trio.fail_after(10):
            while not self._host.peerstore.protocols(libp2p.PeerId.parse(peer)):
                await trio.sleep(0.005)
        return None

    async def disconnect(self, peer: str) -> Results:
        await self._host.disconnect(libp2p.PeerId.parse(peer))
        return None

    async def ping(self, peer: str, count: int) -> Results:
        return {"rtts_ms": [seconds * 1000 for seconds in await ping(self._host, peer, count=count)]}

    async def perf(
        self, peer: str, upload: int, download: int, total: int = 1, parallel: int = 1, chunk: int = CHUNK
    ) -> Results:
        target, numbers = libp2p.PeerId.parse(peer), iter(range(total))
        latencies: list[float] = []

        async def worker() -> None:
            for _ in numbers:
                opened = time.perf_counter()
                await perf(self._host, target, upload=upload, download=download, chunk=chunk)
                latencies.append((time.perf_counter() - opened) * 1000)

        started = time.perf_counter()
        async with trio.open_nursery() as nursery:
            for _ in range(parallel):
                nursery.start_soon(worker)
        return {"seconds": time.perf_counter() - started, "latencies_ms": latencies}

    async def connect_many(self, addr: str, total: int, parallel: int, identify: bool) -> Results:
        numbers = iter(range(total))
        latencies: list[float] = []
        begin, ready = trio.Event(), trio.Event()
        hosts = 0

        async def worker() -> None:
            nonlocal hosts
            async with self._stack.open_host() as host:
                hosts += 1
                if hosts == parallel:
                    ready.set()
                await begin.wait()
                for _ in numbers:
                    dialled = time.perf_counter()
                    peer = await _connect_and_use(host, addr, identify)
                    latencies.append((time.perf_counter() - dialled) * 1000)
                    await host.disconnect(peer)
                finished.append(time.perf_counter())

        finished: list[float] = []
        async with trio.open_nursery() as nursery:
            for _ in range(parallel):
                nursery.start_soon(worker)
            await ready.wait()
            started = time.perf_counter()
            begin.set()
        return {"seconds": max(finished) - started, "latencies_ms": latencies}

    async def hold(self, addr: str, connections: int, streams: int) -> Results:
        """Keep idle connections, each from a host of its own, with idle streams on each. They stay until the end."""
        limiter = trio.CapacityLimiter(DIALS_AT_ONCE)
        async with trio.open_nursery() as nursery:
            for _ in range(connections):
                nursery.start_soon(self._nursery.start, self._hold_one, addr, streams, limiter)
        return None

    async def _hold_one(
        self, addr: str, streams: int, limiter: trio.CapacityLimiter, *, task_status: trio.TaskStatus[None]
    ) -> None:
        async with self._stack.open_host() as host:
            async with limiter:
                with host.subscribe(PeerIdentified) as identified:
                    connection = await host.connect(addr)
                    await identified.receive()
                for _ in range(streams):
                    stream = await connection.open_stream(PERF)
                    await stream.send_all(bytes(8))  # the header: the handler over there now waits for an upload
            task_status.started()
            await trio.sleep_forever()

    async def dht_many(self, nodes: int, rounds: int) -> Results:
        # As with pubsub: no memory for what is not measured.
        bench = importlib.import_module("bench.dht").DhtBench(self._open_node)
        found: Results = await bench.dht_many(nodes, rounds)
        return found

    def _open_node(self, service: Service) -> AbstractAsyncContextManager[libp2p.Host]:
        return self._stack.open_host(["/ip4/127.0.0.1/tcp/0"], service)

    async def profile(self, kind: str = "", top: int = 15) -> Results:
        """Begin a profile of ``kind``; without one, end it and tell what took the time."""
        if kind:
            # As above: no memory for a profiler that is not asked for.
            self._profile = importlib.import_module("bench.profiling").KINDS[kind]()
            return None
        profile, self._profile = self._profile, None
        assert profile is not None
        lines: list[str] = profile.stop(top)
        return {"lines": lines}


async def _connect_and_use(host: libp2p.Host, addr: str, identify: bool) -> libp2p.PeerId:
    with host.subscribe(PeerIdentified) as identified:
        connection = await host.connect(addr)
        await perf(host, connection.peer, upload=0, download=1)
        if identify:
            await identified.receive()
    return connection.peer


async def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.ours_peer")
    parser.add_argument("--listen", default="/ip4/127.0.0.1/tcp/0")
    parser.add_argument("--pubsub", choices=["gossipsub", "none"], default="none")
    parser.add_argument("--quiet", action="store_true", help="it always is")
    parser.add_argument("--transport", choices=[*TRANSPORTS, "wss"], default="tcp")
    parser.add_argument("--security", choices=list(SECURITIES), default="noise")
    parser.add_argument("--certificate", default="", help="of the web, with its key, for wss")
    parser.add_argument("--authority", default="", help="who signed it")
    options = parser.parse_args()
    stack = Stack(options.transport, options.security, options.certificate, options.authority)

    def open_node(pubsub: Service) -> AbstractAsyncContextManager[libp2p.Host]:
        return stack.open_host([options.listen], pubsub)

    async with AsyncExitStack() as parts:
        services: list[Service] = []
        commands: dict[str, Command] = {}
        if options.pubsub == "gossipsub":
            # As above: no memory for what is not measured.
            services.append(importlib.import_module("libp2p.protocols.pubsub").Pubsub())
        host = await parts.enter_async_context(stack.open_host([options.listen], *services))
        if services:
            open_gossip = importlib.import_module("bench.gossip").open_gossip
            commands = (await parts.enter_async_context(open_gossip(services[0], open_node))).commands()
        nursery = await parts.enter_async_context(trio.open_nursery())
        version = f"libp2p-trio {libp2p.__version__}"
        addrs = [str(addr) for addr in host.addrs]
        emit({"event": "ready", "peer_id": str(host.local_peer), "addrs": addrs, "version": version})
        await serve(Peer(host, nursery, stack).commands() | commands)
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
