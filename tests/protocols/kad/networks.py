"""Networks of DHT nodes in memory."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import trio

from libp2p.host import RunningHost
from libp2p.protocols.kad import AnyValue, KadConfig, Kademlia, Mode, Validator, public_validators
from libp2p.testing.network import open_memory_host
from libp2p.transports.memory import MemoryNetwork


class Longest(AnyValue):
    """Prefers the longest value."""

    def select(self, key: bytes, values: Sequence[bytes], now: float) -> int:
        return max(range(len(values)), key=lambda index: len(values[index]))


VALIDATORS: dict[str, Validator] = {**public_validators(), "v": Longest()}


@dataclass
class Node:
    """A host and its part in the DHT."""

    host: RunningHost
    kad: Kademlia

    @property
    def peer(self) -> Any:
        return self.host.local_peer


def config(**changes: Any) -> KadConfig:
    return KadConfig(**{"validators": VALIDATORS, **changes})


@asynccontextmanager
async def open_node(network: MemoryNetwork, name: str, *, ip: str | None = None, **given: Any) -> AsyncIterator[Node]:
    """One node. ``given``: the ``bootstrap`` addresses, a ``store``, what to change in the configuration."""
    known = {key: given.pop(key) for key in ("bootstrap", "store") if key in given}
    strict = given.pop("strict", True)
    kad = Kademlia(config(**given), rng=random.Random(name), clock=trio.current_time, **known)
    async with open_memory_host(network, name=name, ip=ip, services=[lambda: kad], strict=strict, routing=kad) as host:
        yield Node(host, kad)


@asynccontextmanager
async def dht(n: int, *, clients: int = 0, **given: Any) -> AsyncIterator[list[Node]]:
    """``n`` nodes that know the first one, and have found each other; the last ``clients`` of them only ask."""
    network = MemoryNetwork(0)
    async with trio.open_nursery() as nursery:
        nodes: list[Node] = []
        finished = trio.Event()

        async def keep(number: int, *, task_status: trio.TaskStatus[Node]) -> None:
            bootstrap = [nodes[0].host.addrs[0]] if nodes else []
            mode = Mode.CLIENT if number >= n - clients else Mode.SERVER
            async with open_node(network, f"n{number}", bootstrap=bootstrap, mode=mode, **given) as node:
                task_status.started(node)
                await finished.wait()

        while len(nodes) < n:
            nodes.append(await nursery.start(keep, len(nodes)))
        await trio.sleep(5)
        for node in nodes:
            await node.kad.refresh()
        try:
            yield nodes
        finally:
            finished.set()
