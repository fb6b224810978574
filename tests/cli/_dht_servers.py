"""Three servers of a DHT. Prints their addresses once they know each other, and runs until it is ended."""

from __future__ import annotations

import sys
from contextlib import AsyncExitStack
from pathlib import Path

import trio

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import libp2p
from libp2p.protocols.kad import AnyValue, KadConfig, Kademlia, Mode, public_validators

CONFIG = KadConfig(mode=Mode.SERVER, validators={**public_validators(), "test": AnyValue()})


async def main() -> None:
    async with AsyncExitStack() as stack:
        nodes: list[tuple[libp2p.Host, Kademlia]] = []
        for _ in range(3):
            kad = Kademlia(CONFIG, bootstrap=[host.addrs[0] for host, _ in nodes[:1]])
            host = await stack.enter_async_context(libp2p.open_host(listen=["/ip4/127.0.0.1/tcp/0"], services=[kad]))
            nodes.append((host, kad))
        while any(len(kad.table) < 2 for _, kad in nodes):
            for _, kad in nodes:
                await kad.refresh()
            await trio.sleep(0.05)
        for host, _ in nodes:
            print(host.addrs[0], flush=True)
        await trio.sleep_forever()


trio.run(main)
