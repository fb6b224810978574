"""``make bench``: measure us and the others in one run, print a table, write results.

python -m bench [--peers go,js,rust,py] [--over tcp,tls,ws,wss,quic-v1] [--only bulk_up_1,...] [--repeats N]
    [--seconds S] [--same]
python -m bench --smoke [--update-baseline]
python -m bench --profile WORKLOAD
"""

from __future__ import annotations

import argparse
import os
import resource
import sys
import time
from pathlib import Path

import trio

from . import alone, chart, smoke, table
from .fleet import LOGS, PEERS, STACKS, US, Fleet, Pair, built, open_fleet
from .profiling import KINDS
from .rows import Row, save
from .runner import measure, next_size, pairs_for, sample
from .workloads import WORKLOADS, Workload

RESULTS = Path(__file__).parent / "results"
"""Of whole runs; those of parts go to the logs."""
ALONE = ("memory", "import", "cryptography")
EACH_STACK = ("bulk_up_1", "bulk_down_1", "connect_1", "streams_1", "streams_100")
"""What is measured over other stacks than TCP and Noise, unless it is said."""


def say(text: str) -> None:
    """Show progress on standard error; standard output is for results."""
    print(text, file=sys.stderr, flush=True)


async def full(options: argparse.Namespace) -> int:
    """Everything that is asked for."""
    peers = [name for name in options.peers.split(",") if name]
    for name in peers:
        if not built(name):
            say(f"{name}: left out, not built; `make interop` builds it")
    names = [US, *(name for name in peers if built(name))]
    stacks = options.over.split(",")
    plain = stacks == ["tcp"]
    wanted = [*(workload.name for workload in WORKLOADS), *ALONE] if plain else list(EACH_STACK)
    file = (LOGS if options.only else RESULTS) / ("latest.json" if plain else "stacks.json")
    if options.only:
        wanted = options.only.split(",")
    rows: list[Row] = []
    async with open_fleet() as fleet:
        for workload in WORKLOADS:
            if workload.name in wanted:
                rows += await _measure(fleet, workload, names, options)
                save(rows, file)  # whatever comes next
        if "memory" in wanted:
            say("memory")
            fleet.pubsub = "none"
            rows += await alone.memory(
                fleet, [*names, "trio"], repeats=min(options.repeats, 3), connections=options.idle, streams=1000
            )
    if "import" in wanted:
        rows += alone.imports(repeats=options.repeats, peers=names)
    if "cryptography" in wanted:
        rows += alone.cryptography_rows(repeats=options.repeats)
    load = ", ".join(f"{load:.2f}" for load in os.getloadavg())
    print(table.show(rows) + f"\n\n{os.cpu_count()} processors, load average {load}")
    save(rows, file)
    versions = sorted({version for row in rows for version in row.versions.values() if version})
    subtitle = f"{time.strftime('%Y-%m-%d')}; {os.cpu_count()} processors, load average {load}; {', '.join(versions)}"
    if plain:
        file.with_suffix(".svg").write_text(chart.draw(rows, subtitle), encoding="utf-8")
    return 0


async def _measure(fleet: Fleet, workload: Workload, names: list[str], options: argparse.Namespace) -> list[Row]:
    started = time.monotonic()
    fleet.pubsub = workload.pubsub
    pairs = pairs_for(workload, names, cross=not options.same, stacks=options.over.split(","))
    rows = await measure(fleet, workload, pairs, repeats=options.repeats, seconds=options.seconds)
    await fleet.end()
    say(f"{workload.title}: {time.monotonic() - started:.0f} s")
    return rows


async def profile(options: argparse.Namespace) -> int:
    """Show where our time goes on both sides of a workload."""
    workload = next((workload for workload in WORKLOADS if workload.name == options.profile), None)
    if workload is None:
        say(f"{options.profile} is none of {', '.join(workload.name for workload in WORKLOADS)}")
        return 2
    pair = Pair(US, US, options.over.split(",")[0])
    async with open_fleet() as fleet:
        fleet.pubsub = workload.pubsub
        n = workload.first
        for _ in range(2):
            n = next_size(n, await sample(fleet, workload, pair, n), options.seconds, workload.most)
        sides = await fleet.pair(pair)
        for side in sides:
            await side("profile", kind=options.how)
        outcome = await sample(fleet, workload, pair, n)
        found = ", ".join(f"{metric} {value:.4g}" for metric, value in outcome.metrics.items())
        print(f"{workload.title}: {n} of it; {found}")
        for side in sides:
            answer = await side("profile", top=options.top)
            print(f"\n{side.name}", *answer["lines"], sep="\n")
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure us and the others.")
    parser.add_argument("--peers", default=",".join(PEERS), help="which other implementations")
    parser.add_argument("--only", default="", help=f"workloads by name, and {', '.join(ALONE)}")
    parser.add_argument("--over", default="tcp", help=f"what the peers talk over, of {', '.join(STACKS)}")
    parser.add_argument("--repeats", type=int, default=5, help="samples of each pair")
    parser.add_argument("--seconds", type=float, default=2.0, help="how long one sample shall take")
    parser.add_argument("--idle", type=int, default=1000, help="connections of the memory workload")
    parser.add_argument("--same", action="store_true", help="leave out pairs of us and another one")
    parser.add_argument("--smoke", action="store_true", help="a minute: ratios against the committed baseline")
    parser.add_argument(
        "--update-baseline", action="store_true", help="with --smoke: what is found is the new baseline"
    )
    parser.add_argument("--profile", metavar="WORKLOAD", help="instead: where our time goes")
    parser.add_argument("--top", type=int, default=15, help="functions that a profile names")
    parser.add_argument("--how", choices=list(KINDS), default="samples", help="samples of the stack, or all calls")
    options = parser.parse_args()
    if unknown := set(options.over.split(",")) - set(STACKS):
        parser.error(f"unknown: {', '.join(unknown)}")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 8192)), hard))
    if options.smoke:
        return trio.run(smoke.run, options.update_baseline)
    if options.profile:
        return trio.run(profile, options)
    return trio.run(full, options)


sys.exit(main())
