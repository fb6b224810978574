"""The DHT of many hosts in one process: for measurements."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import trio
from libp2p.abc import IHost
from libp2p.kad_dht.kad_dht import DHTMode, KadDHT
from libp2p.records.validator import Validator
from libp2p.tools.anyio_service import background_trio_service
from multiaddr import Multiaddr

DIALS = 5
SETTLE = 3.0
"""Seconds until those that were dialled have found the others."""


class AnyValue(Validator):
    """Takes every value, and of several the first."""

    def validate(self, key: str, value: bytes) -> None:
        pass

    def select(self, key: str, values: list[bytes]) -> int:
        return 0


@dataclass
class Node:
    host: IHost
    dht: KadDHT


async def dht_many(hosts: list[IHost], rounds: int) -> dict[str, Any]:
    """Run `hosts`, each of which dials some others, and measure operations of their DHT."""
    async with AsyncExitStack() as stack:
        nodes = []
        for host in hosts:
            await stack.enter_async_context(host.run([Multiaddr("/ip4/127.0.0.1/tcp/0")]))
            await host.get_network().event_background_nursery_created.wait()
            await host.get_network().auto_connector.stop()
            dht = KadDHT(host, DHTMode.SERVER)
            dht.register_validator("test", AnyValue())
            await stack.enter_async_context(background_trio_service(dht))
            nodes.append(Node(host, dht))
        for number, node in enumerate(nodes):
            for step in range(1, DIALS + 1):
                other = nodes[(number + step) % len(nodes)].host
                await node.host.get_network().dial_addr(other.get_addrs()[0], other.get_id())
                await node.dht.add_peer(other.get_id())
        await trio.sleep(SETTLE)
        for node in nodes:
            for peer in await node.dht.peer_routing.find_closest_peers_network(node.host.get_id().to_bytes()):
                await node.dht.add_peer(peer)
        return await _Rounds(nodes).run(rounds)


class _Rounds:
    def __init__(self, nodes: list[Node]) -> None:
        self._nodes = nodes
        self._failed = 0
        self._times: dict[str, list[float]] = {}

    async def run(self, rounds: int) -> dict[str, Any]:
        nodes, measure = self._nodes, self._measure
        for number in range(rounds):
            writer = nodes[number % len(nodes)]
            key = f"/test/{number}"
            content = b"\x12\x20" + hashlib.sha256(key.encode()).digest()
            reader, seeker = self._farthest(key.encode()), self._farthest(content)
            await measure("put_ms", _put, writer.dht, key)
            await measure("get_ms", reader.dht.get_value, key)
            await measure("provide_ms", writer.dht.provide, content.hex())
            await measure("find_providers_ms", seeker.dht.find_providers, content.hex(), 1)
            wanted = nodes[(number * 11 + 7) % len(nodes)].host.get_id()
            if wanted != writer.host.get_id():
                await writer.host.disconnect(wanted)
                writer.host.get_peerstore().clear_addrs(wanted)
                writer.dht.routing_table.remove_peer(wanted)
                await measure("find_peer_ms", writer.dht.find_peer, wanted)
        return {**self._times, "failed": self._failed}

    def _farthest(self, key: bytes) -> Node:
        """The node that is least likely to have what is looked for itself."""
        point = _point(key)
        return max(self._nodes, key=lambda node: _point(node.host.get_id().to_bytes()) ^ point)

    async def _measure(self, name: str, work: Callable[..., Awaitable[object]], *args: object) -> None:
        started = time.perf_counter()
        try:
            self._failed += not await work(*args)
        except Exception:
            self._failed += 1
        self._times.setdefault(name, []).append((time.perf_counter() - started) * 1000)


async def _put(dht: KadDHT, key: str) -> bool:
    await dht.put_value(key, bytes(100))
    return True


def _point(data: bytes) -> int:
    return int.from_bytes(hashlib.sha256(data).digest(), "big")
