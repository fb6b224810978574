"""A minute of measuring, for CI: fails when something became slower in proportion to a yardstick of the same minute.

All ratios but those of memory are of CPU time, which a busy machine disturbs less than wall time, and both sides share
one processor, because what it costs to wake somebody on another one depends on what that is doing. Everything is
measured in five rounds that last seconds each. Others on the machine can only add to CPU time (by emptying the caches),
so the least that was found of either side of a ratio is what counts; and while something seems to have become slower,
all is measured once more, :data:`ATTEMPTS` times at most.

What others do changes the ratios, too: beside them a bare round trip becomes dearer by more than ours. The baseline is
therefore the highest that was seen on an idle and on a busy machine (``--update-baseline`` only ever raises it, unless
the file was removed before).
"""

from __future__ import annotations

import json
import math
import os
import statistics
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from . import alone
from .fleet import US, Fleet, Pair, open_fleet
from .runner import CPU, sample
from .workloads import GIB, MIB, WORKLOADS, Workload

BASELINE = Path(__file__).parent / "baseline.json"
WORSE = 1.25
"""How much larger than in the baseline a ratio may be."""
REPEATS = 5
ATTEMPTS = 3
"""How often that many rounds are tried while a ratio is too high."""
ENOUGH, LATE = 3, 35.0
"""After this many rounds, a machine on which they took longer than so many seconds does no more."""
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
        yardstick: what it is compared with.
    """

    title: str
    workload: str
    n: int
    yardstick: str


CHECKS = {
    "bulk": Check("1 GiB: to bare sockets and the cipher", "bulk_up_1", 128 * MIB, "bulk_up_1"),
    "bulk_8": Check("1 GiB back, 8 streams: likewise", "bulk_down_8", 128 * MIB, "bulk_down_8"),
    "stream": Check("stream: to a bare round trip", "streams_1", 400, "ping"),
    "stream_100": Check("stream, 100 at once: to a bare round trip", "streams_100", 1500, "ping"),
    "ping": Check("ping: to a bare round trip", "ping", 1000, "ping"),
    "message": Check("message of 100 B: to a bare round trip", "messages_100", 20_000, "ping"),
    "connection": Check("connection: to its curves", "connect_1", 80, "curves"),
}
BARE = {"bulk_up_1": 256 * MIB, "bulk_down_8": 256 * MIB, "ping": 1500}
"""What bare TCP does, and how much of it."""
MORE = {
    "idle_memory": "memory of an idle host: to that of a bare Trio program",
    "connection_memory": "memory of an idle connection: to that of a bare Trio one",
    "import": "import libp2p: to import trio",
}


@dataclass(slots=True)
class _Found:
    """The least that was found so far."""

    pairs: dict[str, list[tuple[float, float]]] = field(default_factory=lambda: {name: [] for name in CHECKS})
    more: dict[str, float] = field(default_factory=lambda: dict.fromkeys(MORE, math.inf))

    def ratios(self) -> dict[str, float]:
        """Ours to the yardstick's."""
        costs = {
            name: min(ours for ours, _ in pairs) / min(bare for _, bare in pairs) for name, pairs in self.pairs.items()
        }
        return costs | self.more

    def spreads(self) -> dict[str, float]:
        """How far the median round is from that, as a share."""
        ratios = self.ratios()
        return {
            name: statistics.median(ours / bare for ours, bare in pairs) / ratios[name] - 1
            for name, pairs in self.pairs.items()
        }


async def run(update: bool) -> int:
    """Measure, print and compare. Returns the exit code."""
    started = time.monotonic()
    baseline: dict[str, float] = json.loads(BASELINE.read_text(encoding="utf-8"))["ratios"] if BASELINE.exists() else {}
    found = _Found()
    async with open_fleet(processor=max(os.sched_getaffinity(0))) as fleet:
        for _ in range(ATTEMPTS):
            await _measure(fleet, found)
            if update or not _worse(found.ratios(), baseline):
                break
    print(f"{time.monotonic() - started:.0f} s")
    if update:
        text = {name: max(float(f"{ratio:.3g}"), baseline.get(name, 0.0)) for name, ratio in found.ratios().items()}
        BASELINE.write_text(json.dumps({"ratios": text}, indent=1) + "\n", encoding="utf-8")
    return _report(found, baseline)


async def _measure(fleet: Fleet, found: _Found) -> None:
    started = time.monotonic()
    for repeat in range(-1, REPEATS):
        if repeat >= ENOUGH and time.monotonic() - started > LATE:
            break
        # The round before the first warms up.
        costs = await _round(fleet, 1.0 if repeat >= 0 else 0.1)
        for name, pair in costs.items() if repeat >= 0 else ():
            found.pairs[name].append(pair)
    for name, ratio in (await _memory(fleet) | {"import": _imports()}).items():
        found.more[name] = min(found.more[name], ratio)


async def _round(fleet: Fleet, part: float) -> dict[str, tuple[float, float]]:
    """Our CPU seconds and the yardstick's of each check, the yardstick's right before ours."""
    costs = {}
    for name, check in CHECKS.items():
        if check.yardstick == "curves":
            bare = alone.handshake_seconds(int(80 * part))
        else:
            bare = await _cpu(fleet, _workloads[check.yardstick], _trio, int(BARE[check.yardstick] * part))
        if check.yardstick.startswith("bulk"):
            bare += sum(alone.cipher_seconds(int(400 * part))) * GIB
        costs[name] = await _cpu(fleet, _workloads[check.workload], _us, int(check.n * part)), bare
    return costs


async def _cpu(fleet: Fleet, workload: Workload, pair: Pair, n: int) -> float:
    """CPU seconds of both sides for one (or one GiB) of a workload."""
    outcome = await sample(fleet, workload, pair, n)
    seconds = sum(outcome.metrics[side] for side in CPU)
    return seconds if workload.cpu_unit[0] == "s/GiB" else seconds / workload.cpu_unit[1]


async def _memory(fleet: Fleet) -> dict[str, float]:
    await fleet.end()
    rows = await alone.memory(fleet, [US, "trio"], repeats=1, connections=IDLE, streams=0)
    values = {(row.pair, row.metric): row.median for row in rows if row.median is not None}
    return {
        "idle_memory": values[US, "idle"] / values["trio", "idle"],
        "connection_memory": values[US, "per_connection"] / values["trio", "per_connection"],
    }


def _imports() -> float:
    rows = {(row.pair, row.metric): row for row in alone.imports(repeats=REPEATS, peers=())}
    ours, bare = rows[US, "cpu"].min, rows["trio", "cpu"].min
    assert ours and bare
    return ours / bare


def _worse(ratios: Mapping[str, float], baseline: Mapping[str, float]) -> list[str]:
    return [name for name, ratio in ratios.items() if ratio > baseline.get(name, math.inf) * WORSE]


def _report(found: _Found, baseline: Mapping[str, float]) -> int:
    titles = {name: check.title for name, check in CHECKS.items()} | MORE
    ratios, spreads = found.ratios(), found.spreads()
    worse = _worse(ratios, baseline)
    print(f"{'':60} {'now':>7} {'median':>7} {'baseline':>9}")
    for name, ratio in ratios.items():
        before = baseline.get(name)
        verdict = f"  WORSE by {ratio / before - 1:.0%}" if before and name in worse else ""
        text = f"{before:9.2f}" if before is not None else f"{'-':>9}"
        spread = f"{spreads[name]:+7.0%}" if name in spreads else f"{'-':>7}"
        print(f"{titles[name]:60} {ratio:7.2f} {spread} {text}{verdict}")
    if worse:
        limit = f"{WORSE - 1:.0%}"
        print(f"{', '.join(worse)}: more than {limit} worse than bench/baseline.json", file=sys.stderr)
    return 1 if worse else 0
