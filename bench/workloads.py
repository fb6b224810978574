"""What is measured. A workload does ``n`` of something between two peers and says how long that took."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeAlias

import trio

from interop.peer import Peer, PeerFailed

MIB = 1 << 20
GIB = 1 << 30
COMMAND_LIMIT = 90.0
"""Seconds for one sample; whoever takes longer does not do the workload."""
REQUEST = 100
"""Bytes each way of a small request."""
TOPIC = "bench"
GRAFTING = 1.2
"""Seconds that the peers have to get into each other's mesh: one heartbeat, and some."""
PATIENCE = 3.0
"""Seconds without a message after which no more are expected."""
NODES, DIALS = 20, 5
"""Hosts of a mesh, and how many others each of them dials."""
PACE = 10
"""Messages a second in a mesh: what all can carry."""
BIG = MIB - 1024
"""Bytes of a large message: everybody takes RPCs of 1 MiB, with all that is around the data."""


@dataclass(frozen=True)
class Outcome:
    """One sample.

    Attributes:
        seconds: how long ``n`` took; the size of the next sample is chosen by it.
        metrics: what was found, by name.
    """

    seconds: float
    metrics: dict[str, float]


Run: TypeAlias = Callable[[Peer, Peer, int], Awaitable[Outcome]]


@dataclass(frozen=True, kw_only=True)
class Workload:
    """Something to measure.

    Attributes:
        name: in results.
        title: for people.
        run: does ``n`` of it.
        first: ``n`` of the first, short sample.
        most: the largest ``n``.
        main: the metric that tables and charts show.
        units: metric to unit; the CPU time of both sides comes in addition.
        cpu_unit: what CPU time for one of ``n`` is told in, and how many times a second that is.
        connected: whether the peers are connected before.
        pubsub: the router that the peers publish with.
        alone: whether it takes one process only, so that there are no pairs of us and another one.
        yardsticks: which of bare TCP's peers can do it, too.
    """

    name: str
    title: str
    run: Run
    first: int
    most: int
    main: str
    units: dict[str, str]
    cpu_unit: tuple[str, float]
    connected: bool = True
    pubsub: str = "none"
    alone: bool = False
    yardsticks: Sequence[str] = ()
    lower_is_better: bool = field(default=False)


def percentile(values: Sequence[float], percent: float) -> float:
    """The value that ``percent`` of ``values`` do not exceed."""
    ordered = sorted(values)
    return ordered[min(int(len(ordered) * percent / 100), len(ordered) - 1)]


def bulk(direction: str, streams: int) -> Run:
    """``n`` bytes over several streams at once."""

    async def run(client: Peer, server: Peer, n: int) -> Outcome:
        sizes = {"up": [(n, 0)], "down": [(0, n)], "both": [(n // 2, 0), (0, n // 2)]}[direction]
        seconds: list[float] = []

        async def one(upload: int, download: int) -> None:
            answer = await client(
                "perf",
                peer=server.peer_id,
                upload=upload // streams,
                download=download // streams,
                total=streams,
                parallel=streams,
                limit=COMMAND_LIMIT,
            )
            seconds.append(answer["seconds"])

        async with trio.open_nursery() as nursery:
            for upload, download in sizes:
                nursery.start_soon(one, upload, download)
        return Outcome(max(seconds), {"rate": n / max(seconds) / 1e6})

    return run


def connections(parallel: int, identify: bool) -> Run:
    """``n`` connections."""

    async def run(client: Peer, server: Peer, n: int) -> Outcome:
        answer = await client(
            "connect_many", addr=server.addr, total=n, parallel=parallel, identify=identify, limit=COMMAND_LIMIT
        )
        latencies = answer["latencies_ms"]
        # One after the other, the time between two is not counted: one of the peers sleeps after each.
        seconds = sum(latencies) / 1000 if parallel == 1 else answer["seconds"]
        return Outcome(answer["seconds"], {"rate": n / seconds, "p50": percentile(latencies, 50)})

    return run


def requests(parallel: int) -> Run:
    """``n`` streams with a small request and a small answer each."""

    async def run(client: Peer, server: Peer, n: int) -> Outcome:
        answer = await client(
            "perf",
            peer=server.peer_id,
            upload=REQUEST,
            download=REQUEST,
            total=n,
            parallel=parallel,
            limit=COMMAND_LIMIT,
        )
        micro = [latency * 1000 for latency in answer["latencies_ms"]]
        seconds = answer["seconds"]
        return Outcome(seconds, {"rate": n / seconds, "p50": percentile(micro, 50), "p99": percentile(micro, 99)})

    return run


async def ping(client: Peer, server: Peer, n: int) -> Outcome:
    """``n`` pings on one stream."""
    answer = await client("ping", peer=server.peer_id, count=n, limit=COMMAND_LIMIT)
    micro = [rtt * 1000 for rtt in answer["rtts_ms"]]
    return Outcome(sum(micro) / 1e6, {"p50": percentile(micro, 50), "p99": percentile(micro, 99)})


def messages(size: int) -> Run:
    """``n`` messages on one stream, each written by itself."""

    async def run(client: Peer, server: Peer, n: int) -> Outcome:
        answer = await client("perf", peer=server.peer_id, upload=n * size, download=0, chunk=size, limit=COMMAND_LIMIT)
        return Outcome(answer["seconds"], {"rate": n / answer["seconds"]})

    return run


async def fairness(client: Peer, server: Peer, n: int) -> Outcome:
    """Small requests, one after the other, before and while ``n`` bytes are uploaded on the same connection."""

    async def batch(count: int) -> list[float]:
        answer = await client(
            "perf", peer=server.peer_id, upload=REQUEST, download=REQUEST, total=count, limit=COMMAND_LIMIT
        )
        return [latency * 1000 for latency in answer["latencies_ms"]]

    idle = await batch(300)
    loaded: list[float] = []
    done = trio.Event()
    seconds = 0.0

    async def load() -> None:
        nonlocal seconds
        answer = await client("perf", peer=server.peer_id, upload=n, download=0, limit=COMMAND_LIMIT)
        seconds = answer["seconds"]
        done.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(load)
        await trio.sleep(0.02)
        while True:
            found = await batch(10)
            if done.is_set():
                break
            loaded += found
    loaded = loaded or found
    before, during = percentile(idle, 99), percentile(loaded, 99)
    metrics = {
        "p50_idle": percentile(idle, 50),
        "p99_idle": before,
        "p50": percentile(loaded, 50),
        "p99": during,
        "times_idle": during / before,
    }
    return Outcome(seconds, metrics)


def published(size: int) -> Run:
    """``n`` messages from one publisher to one subscriber, in a tight loop."""

    async def run(client: Peer, server: Peer, n: int) -> Outcome:
        for peer in (client, server):
            await peer("subscribe", topic=TOPIC)
        for peer, other in ((client, server), (server, client)):
            with trio.fail_after(10):
                while other.peer_id not in (await peer("topic_peers", topic=TOPIC))["peers"]:
                    await trio.sleep(0.02)
        await trio.sleep(GRAFTING)
        answers: dict[str, dict[str, float]] = {}

        async def ask(peer: Peer, cmd: str, **arguments: float) -> None:
            answers[cmd] = await peer(cmd, topic=TOPIC, total=n, limit=COMMAND_LIMIT, **arguments)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(ask, server, "collect", patience=PATIENCE))
            nursery.start_soon(partial(ask, client, "publish_many", size=size))
        received = answers["collect"]["received"]
        if not received:
            raise PeerFailed("no message arrived")
        seconds = answers["collect"]["ended"] - answers["publish_many"]["started"]
        if seconds <= 0 or received > n:
            raise PeerFailed("messages of the sample before arrived")
        metrics = {"rate": received / seconds, "lost": 100 * (1 - received / n)}
        return Outcome(seconds, metrics)

    return run


def meshed(parallel: int, rate: float | None = None) -> Run:
    """``n`` messages in a mesh of hosts in one process, ``parallel`` at once or ``rate`` a second."""

    async def run(client: Peer, server: Peer, n: int) -> Outcome:
        paced = {} if rate is None else {"rate": rate}
        answer = await client(
            "mesh", nodes=NODES, dials=DIALS, total=n, size=REQUEST, parallel=parallel, limit=COMMAND_LIMIT, **paced
        )
        latencies, seconds = answer["latencies_ms"], answer["seconds"]
        if not latencies:
            raise PeerFailed("no message arrived")
        metrics = {
            "rate": len(latencies) / seconds,
            "lost": 100 * (1 - len(latencies) / (n * (NODES - 1))),
            "p50": percentile(latencies, 50),
            "p99": percentile(latencies, 99),
        }
        return Outcome(seconds, metrics)

    return run


_BULK = {"rate": "MB/s"}
_CONNECT = {"rate": "1/s", "p50": "ms"}
_REQUEST = {"rate": "1/s", "p50": "µs", "p99": "µs"}
_MESH = {"rate": "1/s", "lost": "%", "p50": "ms", "p99": "ms"}


def _bulk(direction: str, streams: int) -> Workload:
    return Workload(
        name=f"bulk_{direction}_{streams}",
        title=f"bulk {direction}, {streams} stream{'s' if streams > 1 else ''}",
        run=bulk(direction, streams),
        first=16 * MIB,
        most=GIB,
        main="rate",
        units=_BULK,
        cpu_unit=("s/GiB", GIB),
        yardsticks=("trio", "kernel"),
    )


def _connect(parallel: int, identify: bool) -> Workload:
    return Workload(
        name=f"connect_{parallel}{'_identify' if identify else ''}",
        title=f"connections, {f'{parallel} at once' if parallel > 1 else 'sequential'}"
        f"{', with identify' if identify else ''}",
        run=connections(parallel, identify),
        first=max(10, parallel),
        most=2000,
        main="rate",
        units=_CONNECT,
        cpu_unit=("ms", 1e3),
        connected=False,
        yardsticks=() if identify else ("trio",),
    )


def _requests(parallel: int) -> Workload:
    return Workload(
        name=f"streams_{parallel}",
        title=f"streams, {f'{parallel} at once' if parallel > 1 else 'sequential'}: 100 B up, 100 B down",
        run=requests(parallel),
        first=2 * max(parallel, 50),
        most=50_000,
        main="rate",
        units=_REQUEST,
        cpu_unit=("µs", 1e6),
    )


def _messages(size: int, text: str) -> Workload:
    return Workload(
        name=f"messages_{size}",
        title=f"messages of {text} on one stream",
        run=messages(size),
        first=2000,
        most=1_000_000,
        main="rate",
        units={"rate": "1/s"},
        cpu_unit=("µs", 1e6),
        yardsticks=("trio", "kernel"),
    )


def _published(size: int, text: str, first: int, most: int) -> Workload:
    return Workload(
        name=f"gossip_{text.replace(' ', '').lower()}",
        title=f"gossipsub, one to one: messages of {text}",
        run=published(size),
        first=first,
        most=most,
        main="rate",
        units={"rate": "1/s", "lost": "%"},
        cpu_unit=("µs", 1e6),
        pubsub="gossipsub",
    )


WORKLOADS = [
    *(_bulk(direction, streams) for direction in ("up", "down", "both") for streams in (1, 8)),
    *(_connect(parallel, identify) for parallel in (1, 50) for identify in (False, True)),
    _requests(1),
    _requests(100),
    Workload(
        name="ping",
        title="ping round trip",
        run=ping,
        first=100,
        most=20_000,
        main="p50",
        units={"p50": "µs", "p99": "µs"},
        cpu_unit=("µs", 1e6),
        yardsticks=("trio", "kernel"),
        lower_is_better=True,
    ),
    Workload(
        name="fairness",
        title="small request during bulk, p99",
        run=fairness,
        first=16 * MIB,
        most=GIB,
        main="p99",
        units={"p50_idle": "µs", "p99_idle": "µs", "p50": "µs", "p99": "µs", "times_idle": "x"},
        cpu_unit=("s/GiB", GIB),
        lower_is_better=True,
    ),
    _messages(100, "100 B"),
    _messages(1024, "1 KiB"),
    _published(100, "100 B", 1000, 100_000),
    _published(BIG, "1 MiB", 4, 1000),
    Workload(
        name="gossip_mesh",
        title=f"gossipsub, {NODES} nodes in one process: deliveries",
        run=meshed(parallel=64),
        first=20,
        most=20_000,
        main="rate",
        units=_MESH,
        cpu_unit=("µs", 1e6),
        connected=False,
        pubsub="gossipsub",
        alone=True,
    ),
    Workload(
        name="gossip_mesh_paced",
        title=f"gossipsub, {NODES} nodes in one process: p50 at {PACE} messages a second",
        run=meshed(parallel=100, rate=PACE),
        first=2 * PACE,
        most=10 * PACE,
        main="p50",
        units=_MESH,
        cpu_unit=("µs", 1e6),
        connected=False,
        pubsub="gossipsub",
        alone=True,
        lower_is_better=True,
    ),
]
