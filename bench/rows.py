"""Results: one row for each workload, pair and metric."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Row:
    """What the samples of one metric say.

    Attributes:
        pair: client and server; one name alone where nobody talks.
        size: what one sample consisted of: bytes, connections, streams, messages.
        versions: name to version of who took part.
        load_average: of the machine, over 1, 5 and 15 minutes, when the workload was done.
        error: why there is no number.
    """

    workload: str
    pair: str
    metric: str
    unit: str
    median: float | None
    min: float | None
    max: float | None
    runs: int
    size: int
    versions: Mapping[str, str]
    load_average: Sequence[float]
    error: str = ""
    values: Sequence[float] = field(default=())

    @property
    def spread(self) -> float:
        """Half the distance between the extremes, as a part of the median."""
        if not self.median or self.max is None or self.min is None:
            return 0.0
        return (self.max - self.min) / 2 / self.median


def make_row(
    workload: str,
    pair: str,
    metric: str,
    unit: str,
    values: Sequence[float],
    *,
    size: int,
    versions: Mapping[str, str],
    load_average: Sequence[float],
    error: str = "",
) -> Row:
    """A row from samples."""
    return Row(
        workload=workload,
        pair=pair,
        metric=metric,
        unit=unit,
        median=statistics.median(values) if values else None,
        min=min(values, default=None),
        max=max(values, default=None),
        runs=len(values),
        size=size,
        versions=versions,
        load_average=[round(load, 2) for load in load_average],
        error=error,
        values=tuple(values),
    )


def save(rows: Sequence[Row], path: Path) -> None:
    """Write the rows as a JSON list, one row a line."""
    lines = []
    for row in rows:
        fields = asdict(row)
        for name in ("median", "min", "max"):
            fields[name] = None if fields[name] is None else float(f"{fields[name]:.5g}")
        fields["values"] = [float(f"{value:.5g}") for value in row.values]
        lines.append(json.dumps(fields, ensure_ascii=False))
    path.parent.mkdir(exist_ok=True)
    path.write_text("[\n" + ",\n".join(lines) + "\n]\n", encoding="utf-8")


def find(rows: Sequence[Row], workload: str, pair: str, metric: str) -> Row | None:
    """The row, if it was measured."""
    return next(
        (
            row
            for row in rows
            if (row.workload, row.pair, row.metric) == (workload, pair, metric) and row.median is not None
        ),
        None,
    )
