"""Takes samples: of every pair in turn, again and again, so that whatever the machine does besides meets all alike."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import trio

from interop.peer import PeerFailed, features

from .fleet import STACKS, US, YARDSTICKS, Fleet, Pair, cpu_seconds
from .rows import Row, make_row
from .workloads import Outcome, Workload

SETTLE = 0.02
"""Seconds of silence before a sample."""
CPU = ("cpu_client", "cpu_server")


@dataclass
class Track:
    """One pair in one workload.

    Attributes:
        n: the size of its samples.
        samples: metric to values.
    """

    pair: Pair
    n: int
    samples: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    error: str = ""


async def sample(fleet: Fleet, workload: Workload, pair: Pair, n: int) -> Outcome:
    """One sample, with the CPU time of both sides among its metrics."""
    client, server = await fleet.pair(pair)
    if workload.connected:
        await client("dial", addr=server.addr)
        # Who asks before identify is done measures that, too.
        await client("identify", peer=server.peer_id)
    await trio.sleep(SETTLE)
    before = cpu_seconds(client), cpu_seconds(server)
    outcome = await workload.run(client, server, n)
    after = cpu_seconds(client), cpu_seconds(server)
    if workload.connected:
        await client("disconnect", peer=server.peer_id)
    for name, begun, ended in zip(CPU, before, after, strict=True):
        outcome.metrics[name] = (ended - begun) / n * workload.cpu_unit[1]
    return outcome


def next_size(n: int, outcome: Outcome, seconds: float, most: int) -> int:
    """How many make a sample of ``seconds``, going by one of ``n``."""
    wanted = n * seconds / max(outcome.seconds, 1e-4)
    # Not more than 30 times what was tried: short samples mislead.
    return max(1, int(min(wanted, 30 * n, most)))


async def measure(
    fleet: Fleet, workload: Workload, pairs: Sequence[Pair], *, repeats: int, seconds: float
) -> list[Row]:
    """All samples of one workload."""
    tracks = [Track(pair, workload.first) for pair in pairs]
    for track in tracks:
        # Two samples that do not count warm caches and compilers up, and show how many make a good sample.
        for part in (0.25, 1.0):
            if outcome := await _try(fleet, workload, track):
                track.n = next_size(track.n, outcome, seconds * part, workload.most)
    for repeat in range(repeats):
        start = repeat % len(tracks)
        for track in tracks[start:] + tracks[:start]:
            if outcome := await _try(fleet, workload, track):
                for metric, value in outcome.metrics.items():
                    track.samples[metric].append(value)
    units = dict(workload.units) | dict.fromkeys(CPU, workload.cpu_unit[0])
    return [row for track in tracks for row in _rows(fleet, workload, track, units)]


async def _try(fleet: Fleet, workload: Workload, track: Track) -> Outcome | None:
    if track.error:
        return None
    try:
        with trio.fail_after(150):
            return await sample(fleet, workload, track.pair, track.n)
    except* (PeerFailed, trio.TooSlowError, AssertionError) as group:
        track.error = str(_first(group)) or type(_first(group)).__name__
    # Whatever state they are in, the next workload begins with new ones.
    await fleet.end(track.pair.client, "client")
    await fleet.end(track.pair.server, "server")
    return None


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _rows(fleet: Fleet, workload: Workload, track: Track, units: dict[str, str]) -> list[Row]:
    names = {track.pair.client, track.pair.server}
    return [
        make_row(
            workload.name,
            str(track.pair),
            metric,
            unit,
            track.samples[metric],
            size=track.n,
            versions={name: fleet.versions.get(name, "") for name in sorted(names)},
            load_average=os.getloadavg(),
            error=track.error,
        )
        for metric, unit in units.items()
        if metric in track.samples or track.error
    ]


def pairs_for(workload: Workload, names: Sequence[str], *, cross: bool, stacks: Sequence[str] = ("tcp",)) -> list[Pair]:
    """Us alone, each peer alone, then us with each peer in both roles, over each stack; then the yardsticks."""
    pairs: list[Pair] = []
    for stack in stacks:
        able = [name for name in names if speaks(name, stack)]
        pairs += [Pair(name, name, stack) for name in able]
        if cross and not workload.alone and names[0] in able:
            us = names[0]
            pairs += [pair for peer in able[1:] for pair in (Pair(us, peer, stack), Pair(peer, us, stack))]
    return pairs + [Pair(name, name) for name in YARDSTICKS if name in workload.yardsticks]


def speaks(name: str, stack: str) -> bool:
    """Whether the peer called ``name`` has all that ``stack`` needs."""
    if name == US:
        return True
    transport, security, _ = STACKS[stack]
    found = features(name)
    return found is not None and transport in found["transports"] and security in found["securities"]
