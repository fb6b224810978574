"""The attacks on gossipsub at full size: a table, a picture, and whether the bars are met.

python -m bench.attacks [--honest 1000] [--sybils 1] [--rate 4] [--duration 60] [--seed 1] [--jobs 1] [attack ...]

A run of 1,000 honest nodes takes some minutes of one processor for each attack, and half a gigabyte.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from libp2p.testing.attacks import Attack, Scenario, run_attack

RESULTS = Path(__file__).parent / "results"
DELIVERY, P99, QUIET_P99, MESH, MESH_AFTER, MEMBERS = 0.99, 3.0, 1.0, 0.9, 60, 5
"""The bars: share of deliveries, seconds (under attack, and in peace), the share of honest peers in meshes so many
seconds after the beginning, and honest members of a mesh (gossipsub's D_low)."""
SETTLED = 15
"""Seconds until scores tell who is silent: before, sybils that were there first may fill meshes."""

Row = dict[str, Any]


def run(job: tuple[Scenario, int]) -> Row:
    """One attack."""
    scenario, seed = job
    started = time.process_time()
    done = run_attack(scenario, seed=seed)
    report = done.report
    row: Row = {
        "attack": scenario.attack.value,
        "honest": scenario.honest,
        "sybils": round(scenario.honest * scenario.sybils) if scenario.attack is not Attack.NONE else 0,
        "messages": report.published,
        "delivery": report.delivery,
        "p50": report.p50,
        "p99": report.p99,
        "copies": round(report.copies, 2),
        "mesh": [round(share, 4) for share in done.mesh],
        "mesh_least": round(min(done.mesh), 4),
        "mesh_after": round(done.mesh_at(MESH_AFTER), 4),
        "members": [round(members, 2) for members in done.members],
        "members_least": round(min(done.members[SETTLED:]), 2),
        "digest": report.digest[:16],
        "seconds": round(time.process_time() - started),
    }
    row["misses"] = [bar for bar, met in _bars(row).items() if not met]
    return row


def _bars(row: Row) -> dict[str, bool]:
    quiet = row["attack"] == Attack.NONE.value
    # Who censors delivers all other messages, and is a good member of meshes.
    censor = row["attack"] == Attack.CENSOR.value
    return {
        "delivery": row["delivery"] >= (1.0 if quiet else DELIVERY),
        "p99": row["p99"] <= (QUIET_P99 if quiet else P99),
        "mesh": censor or row["mesh_after"] >= MESH,
        "members": row["members_least"] >= MEMBERS,
    }


def line(row: Row) -> str:
    """A line of the table."""
    return (
        f"| {row['attack']} | {row['delivery']:.2%} | {row['p50'] * 1000:.0f} ms | {row['p99'] * 1000:.0f} ms"
        f" | {row['copies']:.1f} | {row['mesh_least']:.0%} | {row['mesh_after']:.0%} | {row['members_least']:.1f}"
        f" | {'misses ' + ', '.join(row['misses']) if row['misses'] else 'ok'} |"
    )


HEAD = (
    "| attack | delivered | p50 | p99 | copies | honest in meshes, least | after 60 s | members, least | bars |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)

_WIDTH, _HEIGHT, _COLUMNS = 300, 110, 3


def draw(rows: Sequence[Row], subtitle: str) -> str:
    """The share of honest peers in meshes over time, a panel for each attack, in SVG."""
    height = 60 + (len(rows) + _COLUMNS - 1) // _COLUMNS * (_HEIGHT + 50)
    width = 20 + _COLUMNS * (_WIDTH + 20)
    panels = [
        _panel(10 + index % _COLUMNS * (_WIDTH + 20), 60 + index // _COLUMNS * (_HEIGHT + 50), row)
        for index, row in enumerate(rows)
    ]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11">\n'
        f'<rect width="{width}" height="{height}" fill="white"/>\n'
        f'<text x="10" y="22" font-size="16" font-weight="bold">Honest peers in meshes, by seconds of attack</text>\n'
        f'<text x="10" y="40" fill="#555">{escape(subtitle)}</text>\n' + "\n".join(panels) + "\n</svg>\n"
    )


def _panel(left: int, top: int, row: Row) -> str:
    shares, base = row["mesh"], top + 20 + _HEIGHT
    step = _WIDTH / max(1, len(shares) - 1)
    points = " ".join(f"{left + index * step:.1f},{base - share * _HEIGHT:.1f}" for index, share in enumerate(shares))
    bar = base - MESH * _HEIGHT
    return (
        f'<text x="{left}" y="{top + 12}" font-weight="bold">{escape(row["attack"])}</text>'
        f'<text x="{left + _WIDTH}" y="{top + 12}" text-anchor="end" fill="#555">{row["delivery"]:.2%} delivered, '
        f"p99 {row['p99'] * 1000:.0f} ms</text>"
        f'<rect x="{left}" y="{base - _HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" fill="#f3f4f6"/>'
        f'<path d="M{left} {bar:.1f} h{_WIDTH}" stroke="#9ca3af" stroke-dasharray="3 3"/>'
        f'<polyline points="{points}" fill="none" stroke="#2563eb" stroke-width="1.5"/>'
        f'<text x="{left}" y="{base + 12}" fill="#777">0 s</text>'
        f'<text x="{left + _WIDTH}" y="{base + 12}" text-anchor="end" fill="#777">{len(shares) - 1} s</text>'
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """The program. Returns 1 when a bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.attacks", description="Attack simulated gossipsub networks.")
    parser.add_argument("attacks", nargs="*", metavar="attack", help=", ".join(attack.value for attack in Attack))
    parser.add_argument("--honest", type=int, default=1000, help="honest nodes")
    parser.add_argument("--sybils", type=float, default=1.0, help="sybils for each honest node")
    parser.add_argument("--rate", type=float, default=4.0, help="messages a second")
    parser.add_argument("--duration", type=float, default=60.0, help="seconds of the attack")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1, help="attacks at a time")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for attacks.json and attacks.svg")
    options = parser.parse_args(arguments)
    size = {"honest": options.honest, "sybils": options.sybils, "rate": options.rate, "duration": options.duration}
    attacks = map(Attack, options.attacks) if options.attacks else Attack
    jobs = [(Scenario(attack=attack, **size), options.seed) for attack in attacks]
    rows: list[Row] = []
    print(HEAD, flush=True)
    with multiprocessing.get_context("spawn").Pool(options.jobs, maxtasksperchild=1) as pool:
        for row in pool.imap(run, jobs):
            rows.append(row)
            print(line(row), flush=True)
            save(rows, options)
    return 1 if any(row["misses"] for row in rows) else 0


def save(rows: Sequence[Row], options: argparse.Namespace) -> None:
    """Write what there is so far."""
    subtitle = f"{options.honest} honest nodes, {options.sybils:g} sybils each, {options.rate:g} messages a second"
    options.out.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"seed": options.seed, "rate": options.rate, "rows": list(rows)}, indent=1)
    (options.out / "attacks.json").write_text(text + "\n")
    (options.out / "attacks.svg").write_text(draw(rows, f"{subtitle}, seed {options.seed}"))


if __name__ == "__main__":
    sys.exit(main())
