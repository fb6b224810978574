"""``python -m interop.harness.transport``: one side of a transport test."""

from __future__ import annotations

import os

import trio

from libp2p.addressing import parse, split_peer
from libp2p.protocols.ping import ping

from . import report, resp
from .contract import LISTENER, Contract, read
from .program import main
from .stacks import address_for_others, open_stack


async def run(contract: Contract) -> None:
    """Play one side. A listener waits until it is killed."""
    async with open_stack(contract) as host, resp.connect(*contract.redis) as redis:
        if not contract.dialer:
            await resp.publish(redis, contract.key(LISTENER), address_for_others(host), as_list=True)
            await trio.sleep_forever()
        fetch = resp.fetch_list if contract.legacy else resp.fetch
        addr = parse(await fetch(redis, contract.key(LISTENER)))
        peer = split_peer(addr)[1]
        started = trio.current_time()
        if peer is None:
            peer = (await host.connect(addr)).peer
        else:
            await host.connect(addr)
        await ping(host, peer)
        handshake = trio.current_time() - started
        (rtt,) = await ping(host, peer)
        print(report.latency(handshake, rtt, legacy=contract.legacy), flush=True)


if __name__ == "__main__":
    main(run, read, os.environ)
