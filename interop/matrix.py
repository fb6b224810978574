"""The transport matrix as text: who reaches whom over which stack, and how long a ping takes there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

SUITE = "harness_transport"
ROLES = ("dial", "listen")


def matrix(rows: Iterable[Mapping[str, Any]], peers: Iterable[str]) -> list[str]:
    """Lines to print: a line for each stack, a column for each peer and role of ours, and what each gap is due to.

    A cell is the quickest ping in milliseconds, or what stands in its place.

    Args:
        rows: of the result file; those of other suites are left out.
        peers: the columns, in order.
    """
    found: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["suite"] == SUITE:
            found.setdefault((row["cell"], row["peer"], row["role"]), []).append(row)
    stacks = list(dict.fromkeys(stack for stack, _, _ in found))
    columns = [(peer, role) for peer in peers for role in ROLES if any(key[1:] == (peer, role) for key in found)]
    if not columns:
        return []
    notes: dict[str, str] = {}
    lines = [
        "ping in ms; the role is ours",
        f"{'':18}" + "".join(f"{'us' if peer == 'ours' else peer:>9}" for peer, _ in columns),
        f"{'':18}" + "".join(f"{role:>9}" for _, role in columns),
    ]
    for stack in stacks:
        cells = [_cell(found.get((stack, *column), []), notes) for column in columns]
        lines.append(f"{stack:18}" + "".join(f"{cell:>9}" for cell in cells))
    return lines + [f"({letter}) {reason}" for reason, letter in notes.items()]


def _cell(rows: list[Mapping[str, Any]], notes: dict[str, str]) -> str:
    if any(row["status"] == "fail" for row in rows):
        return "FAIL"
    pings = [row["ping_ms"] for row in rows if row["status"] == "pass"]
    if pings:
        return f"{min(pings):.2f}"
    if not rows:
        return "-"
    reason = f"{rows[0]['peer']}: {rows[0]['reason']}"
    return f"({notes.setdefault(reason, chr(ord('a') + len(notes)))})"
