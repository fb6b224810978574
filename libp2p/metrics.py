"""What a host has counted, and the text that Prometheus reads. Pure.

Theory of operation. Whoever does the work counts, always, in plain integers: nothing is looked up, formatted or added
up while it works. What was counted becomes a :class:`Metric` only when somebody asks: ``host.measure()`` collects from
the swarm, the transports and every service, and :func:`render` makes the exposition text of it::

    text = render(host.measure())

Names and labels are those of go-libp2p and js-libp2p where they have such a thing, so that their dashboards work.
Labels that others could choose, or that there may be many of, as topics, are bounded: see :data:`MAX_SERIES`.

Source: Prometheus text-based format, version 0.0.4.
"""

from __future__ import annotations

import enum
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""What the text of :func:`render` is, for whoever serves it."""
MAX_SERIES = 64
"""Combinations of labels that are kept apart in one metric; what comes on top is added up under :data:`OTHER`."""
OTHER = "other"
"""The label of what is not kept apart."""

LabelValues: TypeAlias = tuple[str, ...]
"""The values of a metric's labels, in the order of its ``labels``."""


class Kind(enum.Enum):
    """What may happen to a value."""

    COUNTER = "counter"
    """It only grows."""
    GAUGE = "gauge"
    """It is what it is now."""
    HISTOGRAM = "histogram"
    """It is a :class:`Histogram`."""


class Histogram:
    """How many values were how large.

    Args:
        bounds: upper bounds of the buckets, ascending; what is larger than all of them is counted as well.
    """

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count ``value``."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    @property
    def count(self) -> int:
        """How many values there were."""
        return sum(self._counts)

    @property
    def sum(self) -> float:
        """All values, added up."""
        return self._sum

    def buckets(self) -> Iterator[tuple[float, int]]:
        """Each bound, and how many values were not above it."""
        so_far = 0
        for bound, count in zip(self._bounds, self._counts, strict=False):
            so_far += count
            yield bound, so_far


Value: TypeAlias = float | Histogram
"""What a metric says for one combination of labels."""


@dataclass(frozen=True, slots=True)
class Metric:
    """Values of one name.

    Attributes:
        name: for a counter it ends in ``_total``.
        help: what it is, for people.
        values: by the values of ``labels``, in their order.
        labels: the names of the labels.
    """

    name: str
    help: str
    kind: Kind
    values: Mapping[LabelValues, Value] = field(default_factory=dict[LabelValues, Value])
    labels: tuple[str, ...] = ()


def counter(name: str, help_text: str, value: int) -> Metric:
    """A count without labels."""
    return Metric(name, help_text, Kind.COUNTER, {(): value})


def gauge(name: str, help_text: str, value: float) -> Metric:
    """A value of now, without labels."""
    return Metric(name, help_text, Kind.GAUGE, {(): value})


class Tally:
    """Counts by labels. Of more than :data:`MAX_SERIES` combinations, those that come last are counted together."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts: dict[LabelValues, int] = {}

    def add(self, *values: str) -> None:
        """Count one more of these labels."""
        counts = self._counts
        if values not in counts and len(counts) >= MAX_SERIES:
            values = (OTHER,) * len(values)
        counts[values] = counts.get(values, 0) + 1

    def metric(self, name: str, help_text: str, *labels: str) -> Metric:
        """The counts so far."""
        return Metric(name, help_text, Kind.COUNTER, dict(self._counts), labels)


def bounded(values: Iterable[tuple[LabelValues, float]]) -> dict[LabelValues, Value]:
    """At most :data:`MAX_SERIES` of ``values``, the largest, and the sum of the rest under :data:`OTHER`."""
    ordered = sorted(values, key=lambda item: (-item[1], item[0]))
    kept: dict[LabelValues, Value] = dict(ordered[:MAX_SERIES])
    if rest := ordered[MAX_SERIES:]:
        kept[(OTHER,) * len(rest[0][0])] = sum([value for _, value in rest])
    return kept


def render(metrics: Iterable[Metric]) -> str:
    """The exposition text. Values of one name and the same labels, from several owners, are added up.

    What has no values yet is left out.
    """
    found: dict[str, Metric] = {}
    values: dict[str, dict[LabelValues, Value]] = {}
    for metric in metrics:
        found.setdefault(metric.name, metric)
        merged = values.setdefault(metric.name, {})
        for labels, value in metric.values.items():
            before = merged.get(labels)
            if isinstance(before, float | int) and isinstance(value, float | int):
                value = before + value
            merged[labels] = value
    lines: list[str] = []
    for name, metric in found.items():
        if not values[name]:
            continue
        lines.append(f"# HELP {name} {_escape(metric.help)}")
        lines.append(f"# TYPE {name} {metric.kind.value}")
        for label_values, value in values[name].items():
            lines += _lines(name, list(zip(metric.labels, label_values, strict=True)), value)
    return "".join([f"{line}\n" for line in lines])


def _lines(name: str, labels: list[tuple[str, str]], value: Value) -> Iterator[str]:
    if not isinstance(value, Histogram):
        yield f"{name}{_braced(labels)} {value!r}"
        return
    for bound, count in value.buckets():
        yield f"{name}_bucket{_braced([*labels, ('le', repr(bound))])} {count}"
    yield f"{name}_bucket{_braced([*labels, ('le', '+Inf')])} {value.count}"
    yield f"{name}_sum{_braced(labels)} {value.sum!r}"
    yield f"{name}_count{_braced(labels)} {value.count}"


def _braced(labels: list[tuple[str, str]]) -> str:
    if not labels:
        return ""
    quoted = [f'{name}="{_escape(value, quotes=True)}"' for name, value in labels]
    return "{" + ",".join(quoted) + "}"


def _escape(text: str, *, quotes: bool = False) -> str:
    escaped = text.replace("\\", "\\\\").replace("\n", "\\n")
    return escaped.replace('"', '\\"') if quotes else escaped
