"""The DHT: its operations among 40 nodes of one process next to other implementations, requests a server answers, and a
hundred thousand provider records on disk. Each with what it ought to be, and whether it is.

python -m bench.kad [--peers js,py] [--nodes 40] [--rounds 20] [--repeats 3] [--only operations,server,store]

Prints tables, and puts what was measured into `results/kad.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import trio

import libp2p
from libp2p.addressing import parse
from libp2p.peer_id import PeerId
from libp2p.protocols.kad import KAD, KadConfig, Kademlia, Mode, StoreBusy, StoreConfig
from libp2p.protocols.kad.sqlite import SqliteStore
from libp2p.wire import multihash, proto
from libp2p.wire.framing import FrameBuffer, frame

from .fleet import US, built, open_fleet

RESULTS = Path(__file__).parent / "results"
OPERATIONS = ("put", "get", "find_peer", "provide", "find_providers")
PARTS = ("operations", "server", "store")
KNOWN = 10_000
"""Peers that the server which is asked has met: what a network of that size leaves in its table."""
STREAMS = 4
REQUESTS = 500
"""Of a stream, then comes another."""
FULL = 1000
"""Bytes of an answer with twenty peers, at least."""
RECORDS = 100_000
TIMES_FASTER = {"py": 20.0, "js": 1.0}
"""What each operation's median ought to be, at least, next to these."""
REQUESTS_A_SECOND = 2000
"""That a server ought to answer for each second of its processor."""
GROWTH = 16.0
"""MiB by which memory may grow from the first tenth of the records to the last."""
_PAGE = os.sysconf("SC_PAGE_SIZE")
_MIB = 2**20

Row = dict[str, Any]


# --- operations


async def operations(names: list[str], nodes: int, rounds: int, repeats: int) -> list[Row]:
    """Medians and slowest but one in twenty, in milliseconds, of each implementation in its own process, turn about."""
    rows: dict[str, Row] = {}
    times: dict[tuple[str, str], list[float]] = {}
    async with open_fleet() as fleet:
        for turn in range(repeats):
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                peer = await fleet.fresh(name, "client")
                answer = await peer("dht_many", limit=3600, nodes=nodes, rounds=rounds)
                await fleet.end(name, "client")
                row = rows.setdefault(name, {"name": name, "version": peer.version, "failed": 0, "loads": []})
                row["failed"] += answer["failed"]
                row["loads"].append(round(os.getloadavg()[0], 1))
                for operation in OPERATIONS:
                    times.setdefault((name, operation), []).extend(answer[f"{operation}_ms"])
    for (name, operation), found in times.items():
        found.sort()
        rows[name][operation] = {
            "p50": round(statistics.median(found), 2),
            "p95": round(found[len(found) * 19 // 20], 2),
            "runs": len(found),
        }
    return [rows[name] for name in names]


def _line(row: Row) -> str:
    times = " | ".join([f"{row[each]['p50']:.1f} ({row[each]['p95']:.0f})" for each in OPERATIONS])
    return f"| {row['version']} | {times} | {row['failed']} |"


def ratios(rows: Sequence[Row]) -> list[str]:
    """A line for each other implementation: how many times as fast ours is, and whether that is as it ought to be."""
    ours, *others = rows
    lines: list[str] = []
    for row in others:
        times = [row[each]["p50"] / ours[each]["p50"] for each in OPERATIONS]
        least = TIMES_FASTER[row["name"]]
        cells = " | ".join([f"{each:.1f} x" for each in times])
        lines.append(f"| {row['version']} to ours, at least {least:g} x | {cells} | {_verdict(min(times) >= least)} |")
    return lines


def _verdict(good: bool) -> str:
    return "ok" if good else "MISSED"


HEAD = f"| p50 (p95) in ms | {' | '.join(OPERATIONS)} | failed |\n|{' --- |' * (len(OPERATIONS) + 2)}"


# --- a server


async def server(requests: int) -> Row:
    """What a server with a full table answers while another process asks it as fast as it can.

    Its processor's time is taken from the first request to the last, so that neither its start nor who else wants the
    processors is in the figure.
    """
    # Nobody is where the peers of the table are said to be: the lookups that keep it fresh are not to find that out.
    config = KadConfig(mode=Mode.SERVER, refresh_timeout=1e-3)
    async with libp2p.open_host(listen=["/ip4/127.0.0.1/tcp/0"], services=[kad := Kademlia(config)]) as host:
        for number in range(KNOWN):
            peer = PeerId.from_bytes(multihash.sha2_256(b"%d" % number))
            if kad.table.add(peer, (), trio.current_time()):
                addrs = [
                    parse(f"/ip4/10.{number % 250}.{number // 250}.1/{way}") for way in ("tcp/4001", "udp/4001/quic-v1")
                ]
                host.peerstore.add_addrs(peer, addrs, ttl=3600)
        command = [sys.executable, "-m", "bench.kad", "--ask", str(host.addrs[0]), "--requests", str(requests)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(trio.run_process, command))
            while not _answered(kad):
                await trio.sleep(0.01)
            first, cpu, wall = _answered(kad), time.process_time(), time.perf_counter()
            while _answered(kad) < requests:
                await trio.sleep(0.01)
            answered = _answered(kad) - first
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        return {
            "requests": answered,
            "cpu_seconds": cpu,
            "wall_seconds": wall,
            "table": sum([not entry.failures for entry in kad.table]),
            "load": os.getloadavg()[0],
        }


def _answered(kad: Kademlia) -> int:
    return kad.metrics().get("find_node", 0)


async def ask(addr: str, requests: int) -> None:
    """Ask the server at ``addr`` for random keys, a few streams at a time, each a few questions ahead."""
    async with libp2p.open_host() as host:
        connection = await host.connect(addr)
        async with trio.open_nursery() as nursery:
            for number in range(STREAMS):
                nursery.start_soon(_ask, connection, number, requests // STREAMS)


async def _ask(connection: libp2p.Connection, number: int, requests: int) -> None:
    for start in range(0, requests, REQUESTS):
        async with await connection.open_stream(KAD) as stream:
            frames, answered = FrameBuffer(_MIB), 0
            questions = [_question(b"%d %d" % (number, each)) for each in range(start, start + REQUESTS)]
            await stream.send_all(b"".join(questions))
            while answered < REQUESTS:
                answers = frames.receive_data(await stream.receive_some())
                answered += len(answers)
                if min(map(len, answers), default=FULL) < FULL:
                    raise SystemExit("an answer without twenty peers")


def _question(key: bytes) -> bytes:
    return frame(b"\x08\x04" + proto.write_bytes(2, multihash.sha2_256(key)))


# --- a store


async def store(records: int) -> Row:
    """Provider records in a file: how long they take, and what they leave in memory."""
    local = PeerId.from_bytes(multihash.sha2_256(b"local"))
    config = StoreConfig(provider_keys=records, providers_per_key=20)
    memory: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "dht.db")
        async with trio.open_nursery() as nursery:
            kept = SqliteStore(path, local, config)
            await nursery.start(kept.run)
            started = time.perf_counter()
            for number in range(records):
                while not _keep(kept, number):
                    await trio.sleep(0.005)
                if number % (records // 10) == records // 10 - 1:
                    memory.append(_resident() / _MIB)
            nursery.cancel_scope.cancel()  # writes what is left
        took = time.perf_counter() - started
        kept.close()
        size = await trio.Path(path).stat()
        started = time.perf_counter()
        kept = SqliteStore(path, local, config)
        opened = time.perf_counter() - started
        started = time.perf_counter()
        there = sum([len(kept.providers(_content(number), time.time())) for number in range(records)])
        lookup = (time.perf_counter() - started) / records
        kept.close()
    return {
        "records": there,
        "per_second": records / took,
        "open_seconds": opened,
        "lookup_us": lookup * 1e6,
        "file_mib": size.st_size / _MIB,
        "memory_mib": [round(each, 1) for each in memory],
        "growth_mib": round(memory[-1] - memory[0], 1),
    }


def _keep(kept: SqliteStore, number: int) -> bool:
    now = time.time()
    peer = PeerId.from_bytes(multihash.sha2_256(b"provider %d" % (number % 500)))
    addrs = [parse(f"/ip4/1.2.{number % 250}.4/tcp/4001").to_bytes()]
    try:
        return kept.add_provider(_content(number), peer, addrs, addrs_expire=now + 3600, expires=now + 3600)
    except StoreBusy:
        return False


def _content(number: int) -> bytes:
    return multihash.sha2_256(b"content %d" % number)


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * _PAGE


# --- the program


async def run(options: argparse.Namespace) -> dict[str, Any]:
    """Everything that is asked for."""
    found: dict[str, Any] = {}
    if "operations" in options.only:
        names = [US, *(name for name in options.peers.split(",") if name and built(name))]
        found["operations"] = rows = await operations(names, options.nodes, options.rounds, options.repeats)
        print("\n".join([HEAD, *map(_line, rows), *ratios(rows)]), flush=True)
    if "server" in options.only:
        found["server"] = row = await server(options.requests)
        by_cpu, by_wall = (row["requests"] / row[each] for each in ("cpu_seconds", "wall_seconds"))
        print(
            f"{row['requests']:,} FIND_NODE requests to a server with {row['table']} peers, {by_cpu:,.0f} for each"
            f" second of its processor, at least {REQUESTS_A_SECOND:,}: {_verdict(by_cpu >= REQUESTS_A_SECOND)};"
            f" {by_wall:,.0f} a second",
            flush=True,
        )
    if "store" in options.only:
        found["store"] = row = await store(RECORDS)
        print(
            f"{row['records']:,} provider records in {row['file_mib']:.0f} MiB, {row['per_second']:,.0f} a second,"
            f" opened in {row['open_seconds']:.2f} s, looked up in {row['lookup_us']:.0f} us;"
            f" memory by tenths {row['memory_mib']} MiB, to grow by {GROWTH:g} at most:"
            f" {_verdict(row['growth_mib'] <= GROWTH)}"
        )
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """The program."""
    parser = argparse.ArgumentParser(prog="python -m bench.kad", description="Measure the DHT.")
    parser.add_argument("--peers", default="js,py", help="other implementations; those that are not built are left out")
    parser.add_argument("--nodes", type=int, default=40, help="in one process")
    parser.add_argument("--rounds", type=int, default=20, help="of each operation in a turn")
    parser.add_argument("--repeats", type=int, default=3, help="turns of each implementation")
    parser.add_argument("--requests", type=int, default=50_000, help="that a server is asked")
    parser.add_argument("--only", default=",".join(PARTS), help="parts: %(default)s")
    parser.add_argument("--ask", default="", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.ask:
        trio.run(ask, options.ask, options.requests)
        return 0
    found = trio.run(run, options)
    kept = RESULTS / "kad.json"
    kept.write_text(json.dumps({**json.loads(kept.read_text()), **found}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
