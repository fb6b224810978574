"""A relay under load: many reservations, some busy circuits, and somebody who only wants to ping.

python -m bench.relay [--reservations 1000] [--circuits 200] [--seconds 20]

The relay is a process of its own; everybody else shares another one, so that two processors have something to do. Every
busy circuit echoes 1 KiB four times a second. The canary pings the relay ten times a second, before and under the load.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import trio

import libp2p
from libp2p.protocols.ping import open_ping
from libp2p.protocols.relay import RelayClient, RelayLimits, RelayServer
from libp2p.swarm import LimitsConfig, StreamConfig, SwarmConfig, TrimConfig

ECHO = "/bench/echo/1.0.0"
SIZE = 1024
PAUSE = 0.25
AT_ONCE = 4
"""Hosts that connect at a time: enough to keep the relay busy."""

PATIENCE = 120.0
TRIES = 5

ROOMY = libp2p.HostConfig(
    swarm=SwarmConfig(
        limits=LimitsConfig(connections=4096, connections_inbound=3072),
        trim=TrimConfig(low=4096, high=4096),
        # What is measured is the relay, not how long others keep the machine.
        dial_timeout=PATIENCE,
        accept_timeout=PATIENCE,
        streams=StreamConfig(open_timeout=PATIENCE, accept_timeout=PATIENCE),
    )
)


async def serve(reservations: int, circuits: int) -> None:
    """The relay. Prints its address, and what it holds for each line of standard input."""
    limits = RelayLimits(
        reservations=reservations,
        reservations_per_ip=reservations,
        reservations_per_network=reservations,
        circuits=circuits,
        circuit_data=None,
        circuit_duration=3600,
    )
    server = RelayServer(limits)
    async with libp2p.open_host(listen=["/ip4/127.0.0.1/tcp/0"], services=[server], config=ROOMY) as host:
        print(host.addrs[0], flush=True)
        async for _ in trio.wrap_file(sys.stdin):
            held = {"reservations": server.reservations, "circuits": server.circuits, "counts": server.counts()}
            print(json.dumps({**held, "rss": _rss(), "cpu": time.process_time()}), flush=True)


def _rss() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class Relay:
    """The relay's process."""

    def __init__(self, reservations: int, circuits: int) -> None:
        command = [sys.executable, "-m", "bench.relay", "--serve"]
        command += ["--reservations", str(reservations), "--circuits", str(circuits)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.addr = self._line()

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def state(self) -> dict[str, Any]:
        """What it holds, and what it has used."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        found: dict[str, Any] = json.loads(self._line())
        return found

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()


async def echo(stream: libp2p.Stream) -> None:
    """Send back what comes."""
    async for chunk in stream:
        await stream.send_all(chunk)


@asynccontextmanager
async def canary(relay: Relay) -> AsyncIterator[list[float]]:
    """Somebody who pings the relay; the round trips so far, in seconds."""
    pings: list[float] = []
    async with (
        libp2p.open_host() as host,
        trio.open_nursery() as nursery,
        open_ping(host, relay.addr, timeout=PATIENCE) as session,
    ):

        async def keep_pinging() -> None:
            while True:
                pings.append(await session.once())
                await trio.sleep(0.1)

        nursery.start_soon(keep_pinging)
        yield pings
        nursery.cancel_scope.cancel()


async def hosts(stack: AsyncExitStack, count: int) -> list[libp2p.Host]:
    """Hosts that can use relays and listen nowhere."""
    return [
        await stack.enter_async_context(libp2p.open_host(services=[RelayClient()], config=ROOMY)) for _ in range(count)
    ]


async def for_each(holders: list[libp2p.Host], what: Callable[[int, libp2p.Host], Awaitable[None]]) -> float:
    """Do something with every host, some at a time; the seconds it took."""
    limiter = trio.CapacityLimiter(AT_ONCE)

    async def one(number: int, host: libp2p.Host) -> None:
        async with limiter:
            for _ in range(TRIES - 1):
                try:
                    return await what(number, host)
                except libp2p.Libp2pError as exc:
                    print(f"once more, after {type(exc).__name__}: {exc}", file=sys.stderr, flush=True)
            await what(number, host)

    started = time.monotonic()
    async with trio.open_nursery() as nursery:
        for number, host in enumerate(holders):
            nursery.start_soon(one, number, host)
    return time.monotonic() - started


async def talk(stream: libp2p.Stream, rounds: list[float]) -> None:
    """Echo for ever; the round trips go to ``rounds``, in seconds."""
    payload = os.urandom(SIZE)
    while True:
        started = time.monotonic()
        await stream.send_all(payload)
        received = b""
        while len(received) < SIZE:
            chunk = await stream.receive_some(SIZE - len(received))
            if not chunk:
                raise EOFError("a circuit ended")
            received += chunk
        if received != payload:
            raise ValueError("a circuit changed what it carried")
        rounds.append(time.monotonic() - started)
        await trio.sleep(PAUSE)


def report(what: str, relay: Relay, seconds: float, cpu: float, pings: list[float], rounds: Sequence[float]) -> float:
    """Print one row; the relay's processor time so far."""
    state = relay.state()
    row = (
        f"{what:12} {state['reservations']:6} reservations {state['circuits']:4} circuits"
        f"  rss {state['rss'] / 1e6:4.0f} MB  cpu {100 * (state['cpu'] - cpu) / seconds:3.0f} %"
        f"  canary {_percentiles(pings)}"
    )
    print(row + (f"  echo {_percentiles(rounds)} x {len(rounds)}" if rounds else ""), flush=True)
    pings.clear()
    return float(state["cpu"])


def _percentiles(seconds: Sequence[float]) -> str:
    cuts = statistics.quantiles(seconds, n=100) if len(seconds) > 1 else [math.nan] * 99
    return f"p50 {cuts[49] * 1000:.1f} p99 {cuts[98] * 1000:.1f} ms"


async def measure(options: argparse.Namespace) -> None:
    """The others, and the table."""
    relay = Relay(options.reservations, options.circuits)
    try:
        async with canary(relay) as pings, AsyncExitStack() as stack:
            before = relay.state()["cpu"]
            await trio.sleep(5)
            report("idle", relay, 5, before, pings, ())
            holders = await hosts(stack, options.reservations)
            dialers = await hosts(stack, options.circuits)
            pings.clear()

            async def listen(_: int, host: libp2p.Host) -> None:
                with suppress(ValueError):  # not the first try
                    host.handle(ECHO, echo, allow_limited=True)
                await host.listen(f"{relay.addr}/p2p-circuit")

            before = relay.state()["cpu"]
            seconds = await for_each(holders, listen)
            before = report("reserving", relay, seconds, before, pings, ())
            streams: list[libp2p.Stream] = []

            async def dial(number: int, host: libp2p.Host) -> None:
                target = f"{relay.addr}/p2p-circuit/p2p/{holders[number % len(holders)].local_peer}"
                streams.append(await host.open_stream(target, ECHO, allow_limited=True))

            seconds = await for_each(dialers, dial)
            before = report("connecting", relay, seconds, before, pings, ())
            rounds: list[float] = []
            async with trio.open_nursery() as nursery:
                for stream in streams:
                    nursery.start_soon(talk, stream, rounds)
                await trio.sleep(options.seconds)
                report("busy", relay, options.seconds, before, pings, rounds)
                nursery.cancel_scope.cancel()
            print(json.dumps(relay.state()["counts"]))
    finally:
        relay.close()


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reservations", type=int, default=1000)
    parser.add_argument("--circuits", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        trio.run(serve, options.reservations, options.circuits)
    else:
        trio.run(measure, options)


if __name__ == "__main__":
    main()
