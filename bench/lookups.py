"""Lookups in simulated networks of DHT nodes: a table, a picture, and whether the bars are met.

python -m bench.lookups [--lookups 1000] [--seed 1] [--sizes 125,250,500,1000,2000,4000]

Some five minutes of one processor.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from libp2p.testing.lookups import LookupSimulation, Role

RESULTS = Path(__file__).parent / "results"
NODES = 1000
"""Honest nodes of the network that is attacked."""
FIT = 0.95
"""How much of the growth of hops and messages the logarithm of the network's size must explain."""

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Case:
    """A network.

    Attributes:
        groups: IP groups of the sybils; None: each has one of its own.
        least: share of lookups that must find whom they look for.
    """

    name: str
    least: float
    honest: int = NODES
    sybils: int = 0
    groups: int | None = None
    dead: int = 0


CASES = (
    Case("quiet", 0.999),
    Case("30 % never answer", 0.999, dead=300),
    Case("10 % sybils, all in IP groups of their own", 0.95, sybils=111),
    Case("30 % sybils, all in IP groups of their own", 0.85, sybils=429),
    Case("50 % sybils in 20 IP groups", 0.99, sybils=1000, groups=20),
    Case("80 % sybils in 20 IP groups", 0.99, sybils=4000, groups=20),
)


SEARCHES = 4
"""For each key that is hidden."""
CENSORS = ((Role.HIDER, "answer truly", 0.95), (Role.SYBIL, "name each other only", 0.80))
MINED = (20, 60)
"""Identities mined around a key; a value is stored with 20 peers, and more where more are near it."""


def hide(role: Role, mined: int, keys: int, seed: int) -> float:
    """Share of searches that find what somebody hides."""
    simulation = LookupSimulation(seed=seed)
    simulation.add(NODES)
    simulation.fill_tables()
    return simulation.retrievals(keys, mined=mined, role=role, seekers=SEARCHES)


def run(case: Case, lookups: int, seed: int) -> Row:
    """Simulate one network."""
    simulation = LookupSimulation(seed=seed)
    simulation.add(case.honest)
    simulation.add(case.sybils, role=Role.SYBIL, groups=case.groups)
    simulation.fill_tables()
    simulation.kill(case.dead)
    report = simulation.lookups(lookups)
    return {
        "case": case.name,
        "honest": case.honest,
        "sybils": case.sybils,
        "least": case.least,
        "found": report.found,
        "exact": round(report.exact, 4),
        "hops": round(report.hops, 3),
        "messages": round(report.messages, 2),
        "p50": round(report.p50, 3),
        "p95": round(report.p95, 3),
        "most_asked": report.most_asked,
        "digest": report.digest[:16],
    }


def line(row: Row) -> str:
    """A line of the table."""
    bar = "ok" if row["found"] >= row["least"] else "misses " + format(row["least"], ".1%")
    return (
        f"| {row['case']} | {row['honest']:,} | {row['found']:.2%} | {row['exact']:.1%} | {row['hops']:.2f}"
        f" | {row['messages']:.1f} | {row['most_asked']} | {row['p50']:.2f} s | {row['p95']:.2f} s"
        f" | {bar} |"
    )


HEAD = (
    "| network | honest | found | of the nearest | hops | messages | most | p50 | p95 | bar |\n"
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)


def fit(rows: Sequence[Row], what: str) -> tuple[float, float, float]:
    """The line through ``what`` by the logarithm of the size: at size 1, per doubling, and the share it explains."""
    xs = [math.log2(row["honest"]) for row in rows]
    ys = [float(row[what]) for row in rows]
    x, y = sum(xs) / len(xs), sum(ys) / len(ys)
    slope = sum([(a - x) * (b - y) for a, b in zip(xs, ys, strict=True)]) / sum([(a - x) ** 2 for a in xs])
    start = y - slope * x
    left = sum([(b - start - slope * a) ** 2 for a, b in zip(xs, ys, strict=True)])
    return start, slope, 1 - left / sum([(b - y) ** 2 for b in ys])


_WIDTH, _HEIGHT = 380, 160


def draw(rows: Sequence[Row], subtitle: str) -> str:
    """Hops and messages by the size of the network, in SVG."""
    width, height = 2 * (_WIDTH + 60) + 20, _HEIGHT + 130
    panels = [_panel(50 + index * (_WIDTH + 60), 70, rows, what) for index, what in enumerate(("hops", "messages"))]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="11">\n'
        f'<rect width="{width}" height="{height}" fill="white"/>\n'
        f'<text x="10" y="22" font-size="16" font-weight="bold">A lookup, by the size of the network</text>\n'
        f'<text x="10" y="40" fill="#555">{escape(subtitle)}</text>\n' + "\n".join(panels) + "\n</svg>\n"
    )


def _panel(left: int, top: int, rows: Sequence[Row], what: str) -> str:
    start, slope, share = fit(rows, what)
    base, most = top + 10 + _HEIGHT, 1.2 * max([row[what] for row in rows])
    low, high = (math.log2(row["honest"]) for row in (rows[0], rows[-1]))

    def at(size: int, value: float) -> tuple[float, float]:
        return left + (math.log2(size) - low) / (high - low) * _WIDTH, base - value / most * _HEIGHT

    ends = [at(row["honest"], start + slope * math.log2(row["honest"])) for row in (rows[0], rows[-1])]
    parts = [
        f'<text x="{left}" y="{top}" font-weight="bold">{what}</text>'
        f'<text x="{left + _WIDTH}" y="{top}" text-anchor="end" fill="#555">'
        f"{slope:+.2f} per doubling, which explains {share:.1%}</text>"
        f'<rect x="{left}" y="{base - _HEIGHT}" width="{_WIDTH}" height="{_HEIGHT}" fill="#f3f4f6"/>'
        f'<path d="M{ends[0][0]:.1f} {ends[0][1]:.1f} L{ends[1][0]:.1f} {ends[1][1]:.1f}" stroke="#9ca3af" '
        'stroke-dasharray="3 3"/>'
    ]
    for row in rows:
        x, y = at(row["honest"], row[what])
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="#2563eb"/>'
            f'<text x="{x:.1f}" y="{y - 8:.1f}" text-anchor="middle">{row[what]:.1f}</text>'
            f'<text x="{x:.1f}" y="{base + 14}" text-anchor="middle" fill="#777">{row["honest"]:,}</text>'
        )
    return "\n".join(parts)


def main(arguments: Sequence[str] | None = None) -> int:
    """The program. Returns 1 when a bar is missed."""
    parser = argparse.ArgumentParser(prog="python -m bench.lookups", description="Lookups in simulated DHTs.")
    parser.add_argument("--lookups", type=int, default=1000, help="in each network")
    parser.add_argument("--sizes", default="125,250,500,1000,2000,4000", help="of quiet networks, for the shape")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for lookups.json and lookups.svg")
    options = parser.parse_args(arguments)
    print(HEAD, flush=True)
    rows: list[Row] = []
    sizes = [Case("quiet", 0.999, honest=int(size)) for size in options.sizes.split(",")]
    for case in (*CASES, *sizes):
        rows.append(run(case, options.lookups, options.seed))
        print(line(rows[-1]), flush=True)
    keys = math.ceil(options.lookups / (5 * SEARCHES))
    print(f"\n| identities mined around a key | they | found of {keys * SEARCHES} | bar |\n| --- | --- | --- | --- |")
    hidden: list[Row] = []
    for role, words, least in CENSORS:
        for mined in MINED:
            found = hide(role, mined, keys, options.seed)
            hidden.append({"mined": mined, "role": role.value, "least": least, "found": found})
            print(
                f"| {mined} | {words} | {found:.1%} | {'ok' if found >= least else f'misses {least:.0%}'} |", flush=True
            )
    attacked, quiet = rows[: len(CASES)], rows[len(CASES) :]
    shares = {what: fit(quiet, what)[2] for what in ("hops", "messages")}
    for what, share in shares.items():
        print(f"{what}: {fit(quiet, what)[1]:+.2f} per doubling explains {share:.1%}")
    options.out.mkdir(parents=True, exist_ok=True)
    results = {"seed": options.seed, "lookups": options.lookups, "rows": attacked, "sizes": quiet, "hidden": hidden}
    (options.out / "lookups.json").write_text(json.dumps(results, indent=1) + "\n")
    subtitle = f"{options.lookups:,} lookups in quiet networks of simulated nodes, seed {options.seed}"
    (options.out / "lookups.svg").write_text(draw(quiet, subtitle))
    return 1 if any(row["found"] < row["least"] for row in (*rows, *hidden)) or min(shares.values()) < FIT else 0


if __name__ == "__main__":
    sys.exit(main())
