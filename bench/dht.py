"""The DHT of the peer that is measured: networks of many nodes in one process."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from typing import TypeAlias

import trio

import libp2p
from libp2p.abc import Service
from libp2p.protocols.kad import AnyValue, KadConfig, Kademlia, Mode

from .lines import Results

DIALS = 5
SETTLE = 3.0
"""Seconds until those that were dialled have found the others."""

OpenHost: TypeAlias = Callable[[Service], AbstractAsyncContextManager[libp2p.Host]]


@dataclass(frozen=True)
class Node:
    host: libp2p.Host
    kad: Kademlia


class DhtBench:
    """The command ``dht_many`` of the contract."""

    def __init__(self, open_host: OpenHost) -> None:
        self._open_host = open_host

    async def dht_many(self, nodes: int, rounds: int) -> Results:
        async with AsyncExitStack() as stack:
            found: list[Node] = []
            for _ in range(nodes):
                config = KadConfig(
                    protocol="/interop/kad/1.0.0", mode=Mode.SERVER, validators={"test": AnyValue()}, quorum=1
                )
                kad = Kademlia(config)
                found.append(Node(await stack.enter_async_context(self._open_host(kad)), kad))
            for number, node in enumerate(found):
                for step in range(1, DIALS + 1):
                    await node.host.connect(found[(number + step) % nodes].host.addrs[0])
            await trio.sleep(SETTLE)
            for node in found:
                await node.kad.refresh()
            return await _Rounds(found).run(rounds)


class _Rounds:
    def __init__(self, nodes: Sequence[Node]) -> None:
        self._nodes = nodes
        self._failed = 0
        self._times: dict[str, list[float]] = {}

    async def run(self, rounds: int) -> Results:
        nodes, measure = self._nodes, self._measure
        for number in range(rounds):
            writer = nodes[number % len(nodes)]
            key = b"/test/%d" % number
            content = b"\x12\x20" + hashlib.sha256(key).digest()
            reader, seeker = self._farthest(key), self._farthest(content)
            await measure("put_ms", writer.kad.put_value, key, bytes(100))
            await measure("get_ms", reader.kad.get_value, key)
            await measure("provide_ms", writer.kad.provide, content)
            await measure("find_providers_ms", _first_provider, seeker, content)
            wanted = nodes[(number * 11 + 7) % len(nodes)].host.local_peer
            if wanted != writer.host.local_peer:
                await writer.host.disconnect(wanted)
                writer.host.peerstore.forget(wanted)
                await measure("find_peer_ms", _find, writer, wanted)
        return {**self._times, "failed": self._failed}

    def _farthest(self, key: bytes) -> Node:
        """The node that is least likely to have what is looked for itself."""
        point = _point(key)
        return max(self._nodes, key=lambda node: _point(bytes(node.host.local_peer)) ^ point)

    async def _measure(self, name: str, work: Callable[..., Awaitable[object]], *args: object) -> None:
        started = time.perf_counter()
        try:
            await work(*args)
        except (libp2p.Libp2pError, trio.EndOfChannel):
            self._failed += 1
        self._times.setdefault(name, []).append((time.perf_counter() - started) * 1000)


def _point(data: bytes) -> int:
    return int.from_bytes(hashlib.sha256(data).digest(), "big")


async def _first_provider(node: Node, content: bytes) -> None:
    async with node.kad.find_providers(content, count=1) as providers:
        await providers.receive()


async def _find(node: Node, peer: libp2p.PeerId) -> None:
    if not await node.kad.find_peer(peer):
        raise trio.EndOfChannel
