"""Results as text."""

from __future__ import annotations

from collections.abc import Sequence

from .fleet import US, YARDSTICKS
from .rows import Row, find
from .workloads import WORKLOADS, Workload

_ALONE = {
    ("memory", "idle"): "memory of an idle host",
    ("memory", "per_connection"): "memory per idle connection",
    ("memory", "per_stream"): "memory per idle stream",
    ("import", "wall"): "import, wall time",
    ("import", "cpu"): "import, CPU time",
    ("cipher", "encrypt"): "ChaCha20-Poly1305, encrypt",
    ("cipher", "decrypt"): "ChaCha20-Poly1305, decrypt",
    ("handshake_curves", "cpu"): "curves of one handshake",
}


def show(rows: Sequence[Row]) -> str:
    """All results, for a terminal of 120 columns."""
    names = {row.workload for row in rows}
    parts = [_workload(rows, workload) for workload in WORKLOADS if workload.name in names]
    parts.append("\n".join(_line(rows, workload, metric, title) for (workload, metric), title in _ALONE.items()))
    failed = sorted({f"{row.workload} {row.pair}: {row.error}" for row in rows if row.error})
    if failed:
        parts.append("not measured:\n" + "\n".join(f"  {text}" for text in failed))
    return "\n\n".join(part for part in parts if part.strip())


def _workload(rows: Sequence[Row], workload: Workload) -> str:
    unit = workload.units[workload.main]
    head = f"{workload.title} ({unit}, {'less' if workload.lower_is_better else 'more'} is better)"
    lines = [
        head,
        f"  {'':14} {'median':>10} {'min':>10} {'max':>10}   {'to us-us':>9}   "
        f"{'CPU client':>10} {'CPU server':>10} {workload.cpu_unit[0]}",
    ]
    ours = find(rows, workload.name, f"{US}-{US}", workload.main)
    pairs = list(dict.fromkeys(row.pair for row in rows if row.workload == workload.name))
    for pair in sorted(pairs, key=lambda pair: pair.split("-")[0] in YARDSTICKS):
        row = find(rows, workload.name, pair, workload.main)
        if row is None or row.median is None or row.min is None or row.max is None:
            lines.append(f"  {pair:14} {'-':>10}")
            continue
        ratio = f"{row.median / ours.median:8.2f}x" if ours and ours.median else ""
        lost = find(rows, workload.name, pair, "lost")
        cpu = [find(rows, workload.name, pair, f"cpu_{side}") for side in ("client", "server")]
        lines.append(
            f"  {pair:14} {_number(row.median):>10} {_number(row.min):>10} {_number(row.max):>10}   {ratio:>9}   "
            + " ".join(f"{_number(side.median) if side and side.median is not None else '-':>10}" for side in cpu)
            + (f"  {lost.median:.0f} % lost" if lost and lost.median else "")
        )
    return "\n".join(lines)


def _line(rows: Sequence[Row], workload: str, metric: str, title: str) -> str:
    found = [row for row in rows if (row.workload, row.metric) == (workload, metric) and row.median is not None]
    if not found:
        return ""
    values = "  ".join(f"{row.pair} {_number(row.median)} ±{row.spread:.0%}" for row in found)
    return f"{title} ({found[0].unit}): {values}"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
