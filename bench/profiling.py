"""Where the time of this process goes, by function."""

from __future__ import annotations

import cProfile
import pstats
from collections.abc import Sequence
from pathlib import Path

_LIBRARY = Path(__file__).parent.parent


class Profiler:
    """A profile that is begun and ended by commands."""

    def __init__(self) -> None:
        self._profile: cProfile.Profile | None = None

    def start(self) -> None:
        """Begin."""
        self._profile = cProfile.Profile()
        self._profile.enable()

    def stop(self, top: int) -> list[str]:
        """End, and tell the ``top`` functions by their own time."""
        profile, self._profile = self._profile, None
        if profile is None:
            raise RuntimeError("no profile was begun")
        profile.disable()
        stats = pstats.Stats(profile)
        entries: dict[tuple[str, int, str], Sequence[float]] = stats.stats  # type: ignore[attr-defined]
        whole = sum(entry[2] for entry in entries.values())
        lines = [f"{'own %':>6} {'own s':>8} {'with callees':>12} {'calls':>9}  function"]
        for place, entry in sorted(entries.items(), key=lambda item: -item[1][2])[:top]:
            calls, own, cumulative = entry[1], entry[2], entry[3]
            lines.append(f"{own / whole:6.1%} {own:8.3f} {cumulative:12.3f} {int(calls):9}  {_name(place)}")
        return lines


def _name(place: tuple[str, int, str]) -> str:
    file, line, function = place
    if file == "~":
        return function
    path = Path(file)
    short = path.relative_to(_LIBRARY) if path.is_relative_to(_LIBRARY) else Path(path.parent.name) / path.name
    return f"{function} ({short}:{line})"
