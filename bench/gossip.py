"""Gossipsub of the peer that is measured: publishing and counting many messages, and whole meshes in one process."""

from __future__ import annotations

import math
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

import trio

import libp2p
from libp2p.protocols.pubsub import Message, Messages, Pubsub

from .lines import Command, Results

NUMBER = 8
"""Bytes of the number that a message of a mesh begins with."""
DELIVERY_PATIENCE = 10.0
"""Seconds after which a message of a mesh that has not reached all is given up."""

OpenHost: TypeAlias = Callable[[Pubsub], AbstractAsyncContextManager[libp2p.Host]]


@dataclass
class _Count:
    """Messages of a topic since somebody asked."""

    received: int = 0
    last: float = 0.0
    more: trio.Event = field(default_factory=trio.Event)


class Gossip:
    """The commands. Messages of subscribed topics are counted from the subscription on."""

    def __init__(self, pubsub: Pubsub, nursery: trio.Nursery, open_host: OpenHost) -> None:
        self._pubsub = pubsub
        self._nursery = nursery
        self._open_host = open_host
        self._counts: dict[str, _Count] = {}
        self._meshes: dict[tuple[int, int], Mesh] = {}

    def commands(self) -> dict[str, Command]:
        """Command name to what runs it."""
        return {
            "subscribe": self.subscribe,
            "topic_peers": self.topic_peers,
            "publish_many": self.publish_many,
            "collect": self.collect,
            "mesh": self.mesh,
        }

    async def subscribe(self, topic: str) -> Results:
        if topic not in self._counts:
            self._counts[topic] = _Count()
            await self._nursery.start(self._read, topic)
        return None

    async def _read(self, topic: str, *, task_status: trio.TaskStatus[None]) -> None:
        count = self._counts[topic]
        async with self._pubsub.subscribe(topic) as messages:
            task_status.started()
            async for _ in messages:
                count.received += 1
                count.last = time.time()
                count.more.set()

    async def topic_peers(self, topic: str) -> Results:
        return {"peers": [str(peer) for peer in self._pubsub.peers(topic)]}

    async def publish_many(self, topic: str, total: int, size: int) -> Results:
        data, started = bytes(size), time.time()
        for _ in range(total):
            await self._pubsub.publish(topic, data)
        return {"started": started}

    async def collect(self, topic: str, total: int, patience: float) -> Results:
        count = self._counts[topic]
        while count.received < total:
            count.more = trio.Event()
            with trio.move_on_after(patience) as waiting:
                await count.more.wait()
            if waiting.cancelled_caught:
                break
        received, count.received = count.received, 0
        return {"received": received, "ended": count.last}

    async def mesh(
        self, nodes: int, dials: int, total: int, size: int, parallel: int, rate: float = math.inf
    ) -> Results:
        mesh = self._meshes.get((nodes, dials))
        if mesh is None:
            mesh = self._meshes[nodes, dials] = await self._nursery.start(run_mesh, self._open_host, nodes, dials)
        return await mesh.publish_many(total, size, parallel, rate)


class Mesh:
    """Hosts of one process that all publish and subscribe to one topic."""

    topic = "mesh"

    def __init__(self) -> None:
        self.pubsubs: list[Pubsub] = []
        self._first = 0
        self._published: list[float] = []
        self._missing: list[int] = []
        self._everywhere: list[trio.Event] = []
        self._latencies: list[float] = []

    def take(self, message: Message) -> None:
        """Somebody got ``message``."""
        number = int.from_bytes(message.data[:NUMBER], "big") - self._first
        if number < 0:
            return  # given up
        self._latencies.append((time.perf_counter() - self._published[number]) * 1000)
        self._missing[number] -= 1
        if not self._missing[number]:
            self._everywhere[number].set()

    async def publish_many(self, total: int, size: int, parallel: int, rate: float) -> Results:
        """Publish, each time from another host, with at most ``parallel`` messages that have not reached everybody."""
        self._first += len(self._published)
        self._published, self._latencies = [0.0] * total, []
        self._missing = [len(self.pubsubs) - 1] * total
        self._everywhere = [trio.Event() for _ in range(total)]
        numbers = iter(range(total))
        begun, started = trio.current_time(), time.perf_counter()
        ended = 0.0

        async def worker() -> None:
            nonlocal ended
            for number in numbers:
                if rate < math.inf:
                    await trio.sleep_until(begun + number / rate)
                data = (self._first + number).to_bytes(NUMBER, "big").ljust(size, b"\0")
                self._published[number] = time.perf_counter()
                await self.pubsubs[number % len(self.pubsubs)].publish(self.topic, data)
                with trio.move_on_after(DELIVERY_PATIENCE):
                    await self._everywhere[number].wait()
                    ended = time.perf_counter()

        async with trio.open_nursery() as nursery:
            for _ in range(parallel):
                nursery.start_soon(worker)
        return {"seconds": ended - started, "latencies_ms": self._latencies}


async def run_mesh(open_host: OpenHost, nodes: int, dials: int, *, task_status: trio.TaskStatus[Mesh]) -> None:
    """Run ``nodes`` hosts, each of which dials the ``dials`` next ones."""
    mesh = Mesh()
    async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
        hosts = []
        for _ in range(nodes):
            mesh.pubsubs.append(Pubsub())
            hosts.append(await stack.enter_async_context(open_host(mesh.pubsubs[-1])))
        for number, host in enumerate(hosts):
            for step in range(1, dials + 1):
                await host.connect(str(hosts[(number + step) % nodes].addrs[0]))
        for pubsub in mesh.pubsubs:
            messages = await stack.enter_async_context(pubsub.subscribe(Mesh.topic))
            nursery.start_soon(_take_all, messages, mesh)
        for pubsub in mesh.pubsubs:
            await pubsub.wait_for_peers(Mesh.topic, 2 * dials)
        await trio.sleep(2)  # two heartbeats: the meshes are what they will be
        task_status.started(mesh)
        await trio.sleep_forever()


async def _take_all(messages: Messages, mesh: Mesh) -> None:
    async for message in messages:
        mesh.take(message)


@asynccontextmanager
async def open_gossip(pubsub: Pubsub, open_host: OpenHost) -> AsyncIterator[Gossip]:
    """The commands, as long as the block is open."""
    async with trio.open_nursery() as nursery:
        yield Gossip(pubsub, nursery, open_host)
        nursery.cancel_scope.cancel()
