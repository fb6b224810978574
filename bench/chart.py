"""Results as a picture: a panel of bars for each workload, in SVG."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from .fleet import US, YARDSTICKS
from .rows import Row
from .workloads import WORKLOADS

_COLUMNS = 3
_PANEL = 330
_BAR = 16
_LABEL = 74
_VALUE = 62
_COLOURS = {"us": "#2563eb", "go": "#0d9488", "js": "#ca8a04", "rust": "#b45309", "py": "#7c3aed"}
_YARDSTICK = "#9ca3af"
_EXTRA = (
    ("memory", "idle", "memory of an idle host", True),
    ("memory", "per_connection", "memory per idle connection", True),
    ("import", "cpu", "import, CPU time", True),
)


def draw(rows: Sequence[Row], subtitle: str) -> str:
    """The chart of all pairs in which both sides are the same implementation."""
    panels = [
        (f"{workload.title}", _bars(rows, workload.name, workload.main), workload.lower_is_better)
        for workload in WORKLOADS
    ]
    panels += [(title, _bars(rows, name, metric), less) for name, metric, title, less in _EXTRA]
    panels = [panel for panel in panels if panel[1]]
    parts: list[str] = []
    top = 54
    for start in range(0, len(panels), _COLUMNS):
        line = panels[start : start + _COLUMNS]
        for column, (title, bars, less) in enumerate(line):
            parts.append(_panel(10 + column * _PANEL, top, title, bars, less))
        top += max(len(bars) for _, bars, _ in line) * (_BAR + 4) + 48
    width = 20 + _COLUMNS * _PANEL
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{top}" '
        f'viewBox="0 0 {width} {top}" font-family="sans-serif" font-size="11">\n'
        f'<rect width="{width}" height="{top}" fill="white"/>\n'
        f'<text x="10" y="22" font-size="16" font-weight="bold">libp2p over TCP, Noise and yamux</text>\n'
        f'<text x="10" y="40" fill="#555">{escape(subtitle)}</text>\n' + "\n".join(parts) + "\n</svg>\n"
    )


def _bars(rows: Sequence[Row], workload: str, metric: str) -> list[Row]:
    """One row per implementation, ours first."""
    found = [
        row
        for row in rows
        if (row.workload, row.metric) == (workload, metric)
        and row.median is not None
        and len(set(row.pair.split("-"))) == 1
    ]
    return sorted(found, key=lambda row: (row.pair.split("-")[0] != US, row.pair.split("-")[0] in YARDSTICKS))


def _panel(left: int, top: int, title: str, bars: Sequence[Row], less: bool) -> str:
    # Yardsticks of bare TCP may be far out; they are cut at one and a half times the longest other bar.
    named = [row.max or 0.0 for row in bars if row.pair.split("-")[0] not in YARDSTICKS]
    longest = max((row.max or 0.0) for row in bars)
    scale = min(longest, 1.5 * max(named)) if named else longest
    room = _PANEL - _LABEL - _VALUE - 20
    hint = "less is better" if less else "more is better"
    lines = [
        f'<text x="{left}" y="{top + 12}" font-weight="bold">{escape(title)}</text>',
        f'<text x="{left}" y="{top + 26}" fill="#777">{escape(bars[0].unit)}, {hint}</text>',
    ]
    for index, row in enumerate(bars):
        lines.append(_bar(left, top + 32 + index * (_BAR + 4), row, scale or 1.0, room))
    return "\n".join(lines)


def _bar(left: int, y: int, row: Row, scale: float, room: int) -> str:
    name = row.pair.split("-")[0]
    label = f"{name} sockets" if name in YARDSTICKS else name
    middle, start = y + _BAR - 4, left + _LABEL
    ends = [min((value or 0.0) / scale, 1.0) * room for value in (row.median, row.min, row.max)]
    text = f"{row.median:,.0f}" if (row.median or 0.0) >= 100 else f"{row.median:.3g}"
    return (
        f'<text x="{left}" y="{middle}">{escape(label)}</text>'
        f'<rect x="{start}" y="{y}" width="{max(ends[0], 1):.1f}" height="{_BAR}" '
        f'fill="{_COLOURS.get(name, _YARDSTICK)}"/>'
        f'<path d="M{start + ends[1]:.1f} {y + _BAR / 2} H{start + ends[2]:.1f}" stroke="#111" stroke-width="1"/>'
        f'<text x="{start + max(ends[0], ends[2]) + 5:.1f}" y="{middle}">{text}</text>'
    )
