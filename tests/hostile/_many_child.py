"""The children of case T5: a host with very many idle connections, and a crowd of peers. JSON lines, one each way.

Started by ``test_many.py``; not collected. A peer of the crowd is a connection with an identity of its own and a muxer
that runs, without a host around it; it answers keep-alives and refuses streams.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from contextlib import AsyncExitStack
from typing import Any

import trio

from libp2p.abc import Direction, MuxedStream
from libp2p.addressing import parse
from libp2p.crypto.keys import generate
from libp2p.host import HostConfig, RunningHost
from libp2p.muxers.yamux import Yamux
from libp2p.security.noise import Noise
from libp2p.swarm import LimitsConfig, SwarmConfig, TrimConfig
from libp2p.swarm._upgrade import Progress, Upgraded, Upgrader
from libp2p.testing.rig import StepWatch, rss
from libp2p.transports.tcp import Tcp
from tests.hostile.sockets import open_tcp_host

AT_ONCE = 16
"""Handshakes of a crowd at a time."""
QUIET = 10.0
"""Seconds over which idling is measured."""


def say(**what: Any) -> None:
    """Tell the parent."""
    print(json.dumps(what), flush=True)


async def hear() -> str:
    """Wait for a line of the parent."""
    text: str = await trio.to_thread.run_sync(sys.stdin.readline)
    return text.strip()


# --- the victim


async def _until(host: RunningHost, count: int) -> float:
    """Wait until there are ``count`` connections; how many seconds it took."""
    began = trio.current_time()
    while len(host.connections()) != count:
        await trio.sleep(0.05)
    return trio.current_time() - began


async def victim(count: int) -> None:
    """Its parent says when the crowd has come, which ``count`` is the size of, and how many of it will leave."""
    swarm = SwarmConfig(
        limits=LimitsConfig(connections=count + 10, connections_inbound=count + 10),
        trim=TrimConfig(low=count + 10, high=count + 10),
    )
    watch = StepWatch()
    async with AsyncExitStack() as stack:
        host = await stack.enter_async_context(open_tcp_host("victim", HostConfig(swarm=swarm)))
        gc.collect()
        before = rss()
        say(addr=str(host.listen_addrs()[0]))
        await hear()
        await _until(host, count)
        await trio.sleep(12)  # identify gives up asking those who refuse
        gc.collect()
        memory = (rss() - before) / count
        trio.lowlevel.add_instrument(watch)
        await trio.lowlevel.checkpoint()
        watch.forget()
        began, busy = time.monotonic(), time.process_time()
        await trio.sleep(QUIET)
        idle = (time.process_time() - busy) / (time.monotonic() - began)
        say(memory=memory, idle=idle, step=watch.longest, where=watch.where)
        leaving = int(await hear())
        watch.forget()
        took = await _until(host, count - leaving)
        say(took=took, step=watch.longest, where=watch.where)
        await hear()
        watch.forget()
        began = time.monotonic()
    say(took=time.monotonic() - began, step=watch.longest, where=watch.where)


# --- the crowd


def _refuse(stream: MuxedStream) -> None:
    stream.reset()


async def crowd(addr: str, count: int) -> None:
    """``count`` peers; when told how many, that many leave at once."""
    running: list[Upgraded] = []
    places = trio.Semaphore(AT_ONCE)
    tcp = Tcp()

    async def stay(muxed: Upgraded) -> None:
        try:
            await muxed.muxed.run(_refuse)
        except trio.BrokenResourceError:
            pass

    async with trio.open_nursery() as nursery:

        async def join() -> None:
            async with places:
                raw = await tcp.dial(parse(addr), peer=None)
                upgrader = Upgrader([Noise(generate(), ["/yamux/1.0.0"])], [Yamux()])
                upgraded = await upgrader.upgrade(raw, direction=Direction.OUTBOUND, peer=None, progress=Progress())
            running.append(upgraded)
            nursery.start_soon(stay, upgraded)

        async with trio.open_nursery() as dialling:
            for _ in range(count):
                dialling.start_soon(join)
        say(joined=len(running))
        while leaving := int(await hear()):
            for _ in range(leaving):
                running.pop().muxed.abort()
            say(left=len(running))
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    if sys.argv[1] == "victim":
        trio.run(victim, int(sys.argv[2]))
    else:
        trio.run(crowd, sys.argv[2], int(sys.argv[3]))
