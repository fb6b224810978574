"""The processes that are measured: one per implementation and role, started when first wanted."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import trio

from interop.peer import BUILD, Peer, PeerFailed, run_peer
from libp2p.testing.certificates import issue

ROOT = Path(__file__).parent.parent
LOGS = Path(__file__).parent / ".cache"
US = "us"
PEERS = ("go", "js", "rust", "py")
YARDSTICKS = ("trio", "kernel")
_SCHEDULER_CLOCK = 2
_PAGE = os.sysconf("SC_PAGE_SIZE")


STACKS = {
    "tcp": ("tcp", "noise", "/ip4/127.0.0.1/tcp/0"),
    "tls": ("tcp", "tls", "/ip4/127.0.0.1/tcp/0"),
    "ws": ("ws", "noise", "/ip4/127.0.0.1/tcp/0/ws"),
    "wss": ("wss", "noise", "/ip4/127.0.0.1/tcp/0/tls/ws"),
    "quic-v1": ("quic-v1", "noise", "/ip4/127.0.0.1/udp/0/quic-v1"),
}
"""What peers talk over: transport and security, and where the server listens. QUIC does not look at the security."""


def command(name: str, stack: str = "tcp", pubsub: str = "none") -> list[str]:
    """How the peer called ``name`` is started."""
    if name in YARDSTICKS:
        return [sys.executable, "-m", "bench.plain_peer", "--sockets", name, "--quiet", "--pubsub", "none"]
    program = [sys.executable, "-m", "bench.ours_peer"] if name == US else [str(BUILD / f"{name}-peer")]
    transport, security, listen = STACKS[stack]
    return [
        *program,
        *("--quiet", "--pubsub", pubsub),
        *("--transport", transport, "--security", security, "--listen", listen),
        *(_certificates() if transport == "wss" else ()),
    ]


@cache
def _certificates() -> tuple[str, ...]:
    """What a peer needs for TLS of the web: one certificate, which all have and trust."""
    LOGS.mkdir(exist_ok=True)
    found, server, authority = issue("127.0.0.1"), LOGS / "server.pem", LOGS / "authority.pem"
    server.write_bytes(found.server)
    authority.write_bytes(found.authority)
    return "--certificate", str(server), "--authority", str(authority)


def built(name: str) -> bool:
    """Whether it can be started."""
    return name not in PEERS or (BUILD / f"{name}-peer").exists()


def cpu_seconds(peer: Peer) -> float:
    """CPU time its process has used, in all threads, those of the kernel's part included. Raises PeerFailed."""
    # What clock_getcpuclockid(3) makes of a process id: exact, where /proc counts in hundredths of a second.
    try:
        return time.clock_gettime(~peer.process.pid << 3 | _SCHEDULER_CLOCK)
    except OSError as exc:
        raise PeerFailed(f"{peer.name} died") from exc


def resident_bytes(peer: Peer) -> int:
    """Memory of its process that is in use."""
    return int(Path(f"/proc/{peer.process.pid}/statm").read_text().split()[1]) * _PAGE


@dataclass(frozen=True)
class Pair:
    """Who talks to whom, over what; the client dials, opens and measures."""

    client: str
    server: str
    stack: str = "tcp"

    def __str__(self) -> str:
        over = "" if self.stack == "tcp" else f" {self.stack}"
        return f"{self.client}-{self.server}{over}"


class Fleet:
    """Running peers by name, role and stack.

    Args:
        processor: the one they all share; by default they have all.

    Attributes:
        pubsub: what processes that are started from now on use for publishing.
    """

    def __init__(self, nursery: trio.Nursery, processor: int | None = None) -> None:
        self._nursery = nursery
        self._processor = processor
        self._running: dict[tuple[str, str, str], tuple[Peer, trio.CancelScope]] = {}
        self.versions: dict[str, str] = {}
        self.pubsub = "none"

    async def pair(self, pair: Pair) -> tuple[Peer, Peer]:
        """The two processes of ``pair``."""
        return await self._get(pair.client, "client", pair.stack), await self._get(pair.server, "server", pair.stack)

    async def fresh(self, name: str, role: str) -> Peer:
        """A process over TCP and Noise that has done nothing yet."""
        await self.end(name, role)
        return await self._get(name, role, "tcp")

    async def _get(self, name: str, role: str, stack: str) -> Peer:
        if (name, role, stack) not in self._running:
            self._running[name, role, stack] = await self._nursery.start(self._run, name, role, stack)
        peer, _ = self._running[name, role, stack]
        self.versions[name] = peer.version
        return peer

    async def _run(
        self, name: str, role: str, stack: str, *, task_status: trio.TaskStatus[tuple[Peer, trio.CancelScope]]
    ) -> None:
        LOGS.mkdir(exist_ok=True)
        with (LOGS / f"{name}-{role}-{stack}.log").open("wb") as log, trio.CancelScope() as scope:
            program = command(name, stack, self.pubsub)
            async with run_peer(f"{name} ({role})", program, cwd=ROOT, log=log) as peer:
                if self._processor is not None:
                    os.sched_setaffinity(peer.process.pid, {self._processor})
                task_status.started((peer, scope))
                await trio.sleep_forever()

    async def end(self, *names: str) -> None:
        """End the processes of one name and role, or all of them."""
        for key in [key for key in self._running if not names or key[:2] == names]:
            peer, scope = self._running.pop(key)
            scope.cancel()
            while peer.process.poll() is None:
                await trio.sleep(0.01)


@asynccontextmanager
async def open_fleet(processor: int | None = None) -> AsyncIterator[Fleet]:
    """Processes that end with the block."""
    async with trio.open_nursery() as nursery:
        fleet = Fleet(nursery, processor)
        yield fleet
        await fleet.end()
