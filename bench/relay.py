"""A relay under load: many reservations, some busy circuits, and somebody who only wants to ping.

python -m bench.relay [--reservations 1000] [--circuits 200] [--seconds 20]

The relay is a process of its own, and so is the canary, which pings it ten times a second, before and under the load;
everybody else shares a third one. Every busy circuit echoes 1 KiB four times a second. What the machine does besides is
not the relay's doing: a second canary pings a second relay that nobody uses, all the time.

Prints a table and writes `results/relay.json`. Exits with 1 when the relay does not hold everything, a circuit failed,
a ping was lost, or pings took more than 100 ms longer (p99) than those to the other relay meanwhile.
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
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import trio

import libp2p
from libp2p.protocols.ping import open_ping
from libp2p.protocols.relay import RelayClient, RelayLimits, RelayServer
from libp2p.swarm import LimitsConfig, StreamConfig, SwarmConfig, TrimConfig

RESULTS = Path(__file__).parent / "results"
ECHO = "/bench/echo/1.0.0"
SIZE = 1024
PAUSE = 0.25
AT_ONCE = 4
"""Hosts that connect at a time: enough to keep the relay busy."""

HARM = 0.1
"""Seconds that pings may take longer than those to a relay that nobody uses."""
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


class Child:
    """A process of this program that prints a line when it is ready, and one for each line it is sent."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "bench.relay", *arguments]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.ready = self._line()

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def ask(self) -> Any:
        """What it says now."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return json.loads(self._line())

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()


async def ping_on(addr: str) -> None:
    """The canary. Prints for each line of standard input the round trips since the last one, in seconds."""
    pings: list[float] = []
    async with (
        libp2p.open_host() as host,
        open_ping(host, addr, timeout=PATIENCE) as session,
        trio.open_nursery() as nursery,
    ):
        print("ready", flush=True)

        async def keep_pinging() -> None:
            while True:
                pings.append(await session.once())
                await trio.sleep(0.1)

        nursery.start_soon(keep_pinging)
        async for _ in trio.wrap_file(sys.stdin):
            print(json.dumps(pings), flush=True)
            pings.clear()
        nursery.cancel_scope.cancel()


async def echo(stream: libp2p.Stream) -> None:
    """Send back what comes."""
    async for chunk in stream:
        await stream.send_all(chunk)


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


class Table:
    """Rows, and what is wrong with them."""

    def __init__(self, relay: Child, canary: Child, control: Child) -> None:
        self._relay = relay
        self._canary = canary
        self._control = control
        self._cpu = 0.0
        self.wrong: list[str] = []
        self.rows: list[dict[str, Any]] = []

    def begin(self) -> None:
        """What follows counts."""
        self._cpu = self._relay.ask()["cpu"]
        self._canary.ask()
        self._control.ask()

    def row(self, what: str, seconds: float, reservations: int, circuits: int, rounds: Sequence[float] = ()) -> None:
        """Print what happened since the last row, and compare it with what should have."""
        state, pings, others = self._relay.ask(), self._canary.ask(), self._control.ask()
        row = {
            "what": what,
            "reservations": state["reservations"],
            "circuits": state["circuits"],
            "seconds": round(seconds, 1),
            "rss_mb": round(state["rss"] / 1e6),
            "cpu_percent": round(100 * (state["cpu"] - self._cpu) / seconds),
            "canary_ms": _percentiles(pings),
            "control_ms": _percentiles(others),
            "echo_ms": _percentiles(rounds),
        }
        self.rows.append(row)
        print("  ".join(f"{name} {value}" for name, value in row.items() if value is not None), flush=True)
        self._cpu = state["cpu"]
        if (state["reservations"], state["circuits"]) != (reservations, circuits):
            self.wrong.append(f"{what}: {reservations} reservations and {circuits} circuits were wanted")
        if not _p99(pings) <= _p99(others) + HARM:
            self.wrong.append(f"{what}: pings took more than {HARM * 1000:.0f} ms longer")


def _p99(seconds: Sequence[float]) -> float:
    return statistics.quantiles(seconds, n=100, method="inclusive")[98] if len(seconds) > 1 else math.inf


def _percentiles(seconds: Sequence[float]) -> dict[str, float] | None:
    """In milliseconds; None where there are too few."""
    if len(seconds) < 2:
        return None
    return {
        "p50": round(statistics.median(seconds) * 1000, 1),
        "p99": round(_p99(seconds) * 1000, 1),
        "runs": len(seconds),
    }


async def measure(options: argparse.Namespace) -> Table:
    """The others, and the table."""
    sizes = ["--reservations", str(options.reservations), "--circuits", str(options.circuits)]
    relay, unused = Child("--serve", *sizes), Child("--serve", *sizes)
    canary, control = Child("--canary", relay.ready), Child("--canary", unused.ready)
    table = Table(relay, canary, control)
    try:
        async with AsyncExitStack() as stack:
            table.begin()
            await trio.sleep(5)
            table.row("idle", 5, 0, 0)
            holders = await hosts(stack, options.reservations)
            dialers = await hosts(stack, options.circuits)

            async def listen(_: int, host: libp2p.Host) -> None:
                with suppress(ValueError):  # not the first try
                    host.handle(ECHO, echo, allow_limited=True)
                await host.listen(f"{relay.ready}/p2p-circuit")

            table.begin()
            seconds = await for_each(holders, listen)
            table.row("reserving", seconds, options.reservations, 0)
            streams: list[libp2p.Stream] = []

            async def dial(number: int, host: libp2p.Host) -> None:
                target = f"{relay.ready}/p2p-circuit/p2p/{holders[number % len(holders)].local_peer}"
                streams.append(await host.open_stream(target, ECHO, allow_limited=True))

            seconds = await for_each(dialers, dial)
            table.row("connecting", seconds, options.reservations, options.circuits)
            rounds: list[float] = []
            async with trio.open_nursery() as nursery:
                for stream in streams:
                    nursery.start_soon(talk, stream, rounds)
                await trio.sleep(options.seconds)
                table.row("busy", options.seconds, options.reservations, options.circuits, rounds)
                nursery.cancel_scope.cancel()
            print(json.dumps(relay.ask()["counts"]))
    finally:
        for child in (canary, control, relay, unused):
            child.close()
    return table


def main() -> int:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reservations", type=int, default=1000)
    parser.add_argument("--circuits", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for relay.json")
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--canary", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        trio.run(serve, options.reservations, options.circuits)
        return 0
    if options.canary:
        trio.run(ping_on, options.canary)
        return 0
    loads = [os.getloadavg()[0]]
    table = trio.run(measure, options)
    loads.append(os.getloadavg()[0])
    found = {"version": libp2p.__version__, "loads": loads, "wrong": table.wrong, "rows": table.rows}
    (options.out / "relay.json").write_text(json.dumps(found, indent=1) + "\n")
    print("\n".join(table.wrong) or "held, and the canary was not harmed")
    return 1 if table.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
