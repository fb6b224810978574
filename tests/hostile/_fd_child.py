"""The child of case T4: a host whose file descriptors run out. Talks to its parent in lines of JSON.

Started by ``test_sockets.py``; not collected.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import trio

from libp2p.errors import DialError, Libp2pError
from libp2p.host import HostConfig
from libp2p.protocols.ping import ping
from tests.hostile.sockets import open_tcp_host

ROOM = 20


def say(**what: Any) -> None:
    """Tell the parent."""
    print(json.dumps(what), flush=True)


async def hear() -> str:
    """Wait for a line of the parent."""
    text: str = await trio.to_thread.run_sync(sys.stdin.readline)
    return text.strip()


def used() -> int:
    """Open descriptors."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


async def dial_often(host: Any, target: str) -> dict[str, int]:
    """Sixty dials at once to somebody who takes them all; the names of what came back."""
    outcomes: dict[str, int] = {}

    async def dial() -> None:
        try:
            await host.connect(target)
            name = "connected"
        except DialError as exc:
            name = type(exc.attempts[0][1]).__name__ if exc.attempts else "nothing"
        except Libp2pError as exc:
            name = type(exc).__name__
        outcomes[name] = outcomes.get(name, 0) + 1

    async with trio.open_nursery() as nursery:
        for _ in range(60):
            nursery.start_soon(dial)
    return outcomes


async def main() -> None:
    """The child's life."""
    async with open_tcp_host("child", HostConfig()) as host, open_tcp_host("friend") as friend:
        say(addr=str(host.listen_addrs()[0]))
        silent = await hear()  # where the parent listens and says nothing
        await trio.to_thread.run_sync(lambda: None)  # the thread's own descriptors are there before the count
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (used() + ROOM, hard))
        say(ready=True)
        await hear()  # the parent has connected sixty times
        began, cpu = time.monotonic(), time.process_time()
        with trio.move_on_after(2):
            await trio.sleep_forever()
        busy = (time.process_time() - cpu) / (time.monotonic() - began)
        say(busy=busy, listening=[str(addr) for addr in host.listen_addrs()])
        with trio.move_on_after(20):
            say(outbound=await dial_often(host, silent))
        await hear()  # the parent has closed all of its connections
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        say(again=len(await ping(friend, host.addrs[0])))
        await hear()
    say(used=used())


if __name__ == "__main__":
    trio.run(main, clock=None)
