"""Publishing and counting many messages, and meshes of hosts in one process: for measurements."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import trio
from libp2p.abc import IHost
from libp2p.pubsub.floodsub import PROTOCOL_ID as FLOODSUB
from libp2p.pubsub.floodsub import FloodSub
from libp2p.pubsub.gossipsub import PROTOCOL_ID as MESHSUB_10
from libp2p.pubsub.gossipsub import PROTOCOL_ID_V11 as MESHSUB_11
from libp2p.pubsub.gossipsub import PROTOCOL_ID_V12 as MESHSUB_12
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.pb.rpc_pb2 import Message
from libp2p.pubsub.pubsub import Pubsub
from libp2p.tools.anyio_service import background_trio_service
from multiaddr import Multiaddr

TIMEOUT = 15
MESH_TOPIC = "mesh"
NUMBER_LENGTH = 8
DELIVERY_PATIENCE = 10
MESH_SETTLES = 2
"""Seconds: two heartbeats."""
QUEUED = 16
"""Messages that wait for a peer before the publisher does: the package drops the 33rd without a word."""


class Count:
    """Messages of a topic since somebody asked."""

    def __init__(self) -> None:
        self.received = 0
        self.last = 0.0
        self.more = trio.Event()

    def add(self) -> None:
        self.received += 1
        self.last = time.time()
        self.more.set()

    async def collect(self, total: int, patience: float) -> dict[str, float]:
        """Wait until `total` came, or none for `patience` seconds; begin from zero."""
        while self.received < total:
            self.more = trio.Event()
            with trio.move_on_after(patience) as waiting:
                await self.more.wait()
            if waiting.cancelled_caught:
                break
        received, self.received = self.received, 0
        return {"received": received, "ended": self.last}


@asynccontextmanager
async def running_gossipsub(host: IHost) -> AsyncIterator[Pubsub]:
    # Degrees and heartbeat as everywhere else. Its protection against spam is for ten messages a second.
    router = GossipSub(
        [MESHSUB_12, MESHSUB_11, MESHSUB_10], 6, 5, 12, heartbeat_interval=1, spam_protection_enabled=False
    )
    pubsub = Pubsub(host, router, strict_signing=True)
    async with background_trio_service(pubsub), background_trio_service(router):
        await pubsub.wait_until_ready()
        yield pubsub


@asynccontextmanager
async def running_pubsub(host: IHost, kind: str) -> AsyncIterator[Pubsub | None]:
    if kind == "none":
        yield None
        return
    if kind == "gossipsub":
        async with running_gossipsub(host) as pubsub:
            yield pubsub
        return
    pubsub = Pubsub(host, FloodSub([FLOODSUB]), strict_signing=True)
    async with background_trio_service(pubsub):
        await pubsub.wait_until_ready()
        yield pubsub


async def publish_many(pubsub: Pubsub, topic: str, total: int, size: int) -> dict[str, float]:
    data, started = bytes(size), time.time()
    for _ in range(total):
        await publish_with_care(pubsub, topic, data)
    return {"started": started}


async def publish_with_care(pubsub: Pubsub, topic: str, data: bytes) -> None:
    while any(len(queue) >= QUEUED for queue in pubsub.peer_queues.values()):
        await trio.lowlevel.checkpoint()
    await pubsub.publish(topic, data)


class Mesh:
    """Hosts of one process that all publish and subscribe to one topic."""

    def __init__(self, pubsubs: list[Pubsub]) -> None:
        self._pubsubs = pubsubs
        self._first = 0
        self._published: list[float] = []
        self._missing: list[int] = []
        self._everywhere: list[trio.Event] = []
        self._latencies: list[float] = []

    async def take_all(self, pubsub: Pubsub, messages: AsyncIterator[Message]) -> None:
        async for message in messages:
            number = int.from_bytes(message.data[:NUMBER_LENGTH], "big") - self._first
            if message.from_id == pubsub.my_id.to_bytes() or number < 0:
                continue  # its own, or given up
            self._latencies.append((time.perf_counter() - self._published[number]) * 1000)
            self._missing[number] -= 1
            if not self._missing[number]:
                self._everywhere[number].set()

    async def publish_many(
        self, total: int, size: int, parallel: int, rate: float = math.inf
    ) -> dict[str, object]:
        """Publish, each time from another host, with at most `parallel` messages that have not reached everybody."""
        self._first += len(self._published)
        self._published, self._latencies = [0.0] * total, []
        self._missing = [len(self._pubsubs) - 1] * total
        self._everywhere = [trio.Event() for _ in range(total)]
        numbers = iter(range(total))
        begun, started = trio.current_time(), time.perf_counter()
        ended = started

        async def worker() -> None:
            nonlocal ended
            for number in numbers:
                if rate < math.inf:
                    await trio.sleep_until(begun + number / rate)
                data = (self._first + number).to_bytes(NUMBER_LENGTH, "big").ljust(size, b"\0")
                self._published[number] = time.perf_counter()
                await publish_with_care(self._pubsubs[number % len(self._pubsubs)], MESH_TOPIC, data)
                with trio.move_on_after(DELIVERY_PATIENCE):
                    await self._everywhere[number].wait()
                    ended = time.perf_counter()

        async with trio.open_nursery() as nursery:
            for _ in range(parallel):
                nursery.start_soon(worker)
        return {"seconds": ended - started, "latencies_ms": self._latencies}


async def run_mesh(hosts: list[IHost], dials: int, *, task_status: trio.TaskStatus[Mesh]) -> None:
    """Run `hosts`, each of which dials the `dials` next ones and subscribes."""
    async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
        pubsubs = []
        for host in hosts:
            await stack.enter_async_context(host.run([Multiaddr("/ip4/127.0.0.1/tcp/0")]))
            await host.get_network().event_background_nursery_created.wait()
            await host.get_network().auto_connector.stop()
            pubsubs.append(await stack.enter_async_context(running_gossipsub(host)))
        for number, host in enumerate(hosts):
            for step in range(1, dials + 1):
                other = hosts[(number + step) % len(hosts)]
                await host.get_network().dial_addr(other.get_addrs()[0], other.get_id())
        for host, pubsub in zip(hosts, pubsubs, strict=True):
            for connection in host.get_network().get_connections():
                await pubsub.wait_for_peer(connection.muxed_conn.peer_id, TIMEOUT)
        mesh = Mesh(pubsubs)
        for pubsub in pubsubs:
            nursery.start_soon(mesh.take_all, pubsub, await pubsub.subscribe(MESH_TOPIC))
        for pubsub in pubsubs:
            while len(pubsub.peer_topics.get(MESH_TOPIC, ())) < 2 * dials:
                await trio.sleep(0.02)
        await trio.sleep(MESH_SETTLES)
        task_status.started(mesh)
        await trio.sleep_forever()
