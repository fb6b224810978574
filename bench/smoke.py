"""A minute of measuring, for CI: fails when something became slower in proportion to a yardstick of the same minute.

All ratios but those of memory are of CPU time, which a busy machine disturbs less than wall time. Each is taken five
times, the two measurements right after each other; what counts is the median.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from . import alone
from .fleet import US, Fleet, Pair, open_fleet
from .runner import CPU, sample
from .workloads import GIB, MIB, WORKLOADS, Workload

BASELINE = Path(__file__).parent / "baseline.json"
WORSE = 1.25
"""How much larger than in the baseline a ratio may be."""
REPEATS = 5
IDLE = 200
"""Connections that are held to measure what one takes."""

_us, _trio = Pair(US, US), Pair("trio", "trio")
_workloads = {workload.name: workload for workload in WORKLOADS}


@dataclass(frozen=True)
class Check:
    """One ratio.

    Attributes:
        title: what is divided by what.
        workload: what we do.
        n: how much of it.
        yardstick: what the same is compared with, and how much of that; None for cryptography alone.
        cryptography: seconds of bare cryptography that belong to one of the yardstick.
    """

    title: str
    workload: str
    n: int
    yardstick: tuple[str, int] | None
    cryptography: Callable[[], float]


def _cipher() -> float:
    return sum(alone.cipher_seconds(500)) * GIB


def _nothing() -> float:
    return 0.0


CHECKS = {
    "bulk": Check("1 GiB: to bare sockets and cipher", "bulk_up_1", 160 * MIB, ("bulk_up_1", 320 * MIB), _cipher),
    "bulk_8": Check("1 GiB, 8 streams: likewise", "bulk_down_8", 160 * MIB, ("bulk_down_8", 320 * MIB), _cipher),
    "stream": Check("stream: to a bare round trip", "streams_1", 500, ("ping", 2500), _nothing),
    "stream_100": Check("stream, 100 at once: to a bare round trip", "streams_100", 1500, ("ping", 2500), _nothing),
    "ping": Check("ping: to a bare round trip", "ping", 1500, ("ping", 2500), _nothing),
    "message": Check("message of 100 B: to a bare round trip", "messages_100", 15_000, ("ping", 2500), _nothing),
    "connection": Check("connection: to its curves", "connect_1", 100, None, alone.handshake_seconds),
}


async def run(update: bool) -> int:
    """Measure, print and compare. Returns the exit code."""
    started = time.monotonic()
    async with open_fleet() as fleet:
        found: dict[str, list[float]] = {name: [] for name in CHECKS}
        for repeat in range(-1, REPEATS):
            for name, check in CHECKS.items():
                ratio = await _ratio(fleet, check, 1.0 if repeat >= 0 else 0.1)
                if repeat >= 0:  # the one before warms up
                    found[name].append(ratio)
        found |= await _memory(fleet)
    found["import"] = _imports()
    titles = {name: check.title for name, check in CHECKS.items()} | _MORE
    ratios = {name: statistics.median(values) for name, values in found.items()}
    spreads = {name: (max(values) - min(values)) / 2 / ratios[name] for name, values in found.items()}
    print(f"{time.monotonic() - started:.0f} s")
    if update:
        text = {name: float(f"{ratio:.3g}") for name, ratio in ratios.items()}
        BASELINE.write_text(json.dumps({"ratios": text}, indent=1) + "\n", encoding="utf-8")
    return _compare(ratios, spreads, titles)


_MORE = {
    "idle_memory": "memory of an idle host: to that of a bare Trio program",
    "connection_memory": "memory of an idle connection: to that of a bare Trio one",
    "import": "import libp2p: to import trio",
}


async def _ratio(fleet: Fleet, check: Check, part: float) -> float:
    ours = await _cpu(fleet, _workloads[check.workload], _us, int(check.n * part))
    bare = check.cryptography()
    if check.yardstick is not None:
        name, n = check.yardstick
        bare += await _cpu(fleet, _workloads[name], _trio, int(n * part))
    return ours / bare


async def _cpu(fleet: Fleet, workload: Workload, pair: Pair, n: int) -> float:
    """CPU seconds of both sides for one (or one GiB) of a workload."""
    outcome = await sample(fleet, workload, pair, n)
    seconds = sum(outcome.metrics[side] for side in CPU)
    return seconds if workload.cpu_unit[0] == "s/GiB" else seconds / workload.cpu_unit[1]


async def _memory(fleet: Fleet) -> dict[str, list[float]]:
    await fleet.end()
    rows = await alone.memory(fleet, [US, "trio"], repeats=1, connections=IDLE, streams=0)
    values = {(row.pair, row.metric): row.median for row in rows if row.median is not None}
    return {
        "idle_memory": [values[US, "idle"] / values["trio", "idle"]],
        "connection_memory": [values[US, "per_connection"] / values["trio", "per_connection"]],
    }


def _imports() -> list[float]:
    rows = {(row.pair, row.metric): row.values for row in alone.imports(repeats=REPEATS, peers=())}
    return [ours / bare for ours, bare in zip(rows[US, "cpu"], rows["trio", "cpu"], strict=True)]


def _compare(ratios: dict[str, float], spreads: dict[str, float], titles: dict[str, str]) -> int:
    baseline = json.loads(BASELINE.read_text(encoding="utf-8"))["ratios"] if BASELINE.exists() else {}
    worse = []
    print(f"{'':60} {'now':>7} {'spread':>7} {'baseline':>9}")
    for name, ratio in ratios.items():
        before = baseline.get(name)
        verdict = ""
        if before is not None and ratio > before * WORSE:
            verdict = f"  WORSE by {ratio / before - 1:.0%}"
            worse.append(name)
        text = f"{before:9.2f}" if before is not None else f"{'-':>9}"
        print(f"{titles[name]:60} {ratio:7.2f} {spreads[name]:7.0%} {text}{verdict}")
    if worse:
        limit = f"{WORSE - 1:.0%}"
        print(f"{', '.join(worse)}: more than {limit} worse than bench/baseline.json", file=sys.stderr)
    return 1 if worse else 0
