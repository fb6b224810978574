"""Where the time of this process goes, by function, told in two ways.

``samples`` looks at the stack after every few milliseconds of CPU time, which is as often as the kernel does it. It
costs next to nothing, so its shares are right; what a function in C takes counts as its caller's. ``calls`` counts
every call (cProfile), which makes small functions look dear, and its time is wall time.
"""

from __future__ import annotations

import cProfile
import pstats
import signal
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import TypeAlias

_LIBRARY = Path(__file__).parent.parent
_EVERY = 0.001
WAITING = "<method 'poll' of 'select.epoll' objects>"

Place: TypeAlias = tuple[str, int, str]
Entry: TypeAlias = tuple[int, int, float, float, object]


class Samples:
    """A profile by looking now and then."""

    def __init__(self) -> None:
        self._own: Counter[Place] = Counter()
        self._with_callees: Counter[Place] = Counter()
        signal.signal(signal.SIGPROF, self._look)
        signal.setitimer(signal.ITIMER_PROF, _EVERY, _EVERY)

    def _look(self, number: int, frame: FrameType | None) -> None:
        seen: set[Place] = set()
        while frame is not None:
            code = frame.f_code
            place = (code.co_filename, code.co_firstlineno, code.co_qualname)
            if not seen:
                self._own[place] += 1
            seen.add(place)
            frame = frame.f_back
        self._with_callees.update(seen)

    def stop(self, top: int) -> list[str]:
        """End, and tell ``top`` functions by their own time, and as many of ours by the time with all they call."""
        signal.setitimer(signal.ITIMER_PROF, 0)
        whole = self._own.total() or 1
        ours = [item for item in self._with_callees.most_common() if "/libp2p/" in item[0][0]]
        return [
            f"{whole} samples; own time:",
            *(f"  {count / whole:6.1%}  {_name(place)}" for place, count in self._own.most_common(top)),
            "our functions, with what they call:",
            *(f"  {count / whole:6.1%}  {_name(place)}" for place, count in ours[:top]),
        ]


class Calls:
    """A profile by counting."""

    def __init__(self) -> None:
        self._profile = cProfile.Profile()
        self._profile.enable()

    def stop(self, top: int) -> list[str]:
        """End, and tell the ``top`` functions by their own time."""
        self._profile.disable()
        stats = pstats.Stats(self._profile)
        found: dict[Place, Entry] = stats.stats  # type: ignore[attr-defined]
        entries = [(place, entry) for place, entry in found.items() if place[2] != WAITING]
        whole = sum(entry[2] for _, entry in entries) or 1
        return [
            f"{'own':>6} {'own s':>7} {'calls':>9}  function",
            *(
                f"{entry[2] / whole:6.1%} {entry[2]:7.3f} {entry[1]:9}  {_name(place)}"
                for place, entry in sorted(entries, key=lambda item: -item[1][2])[:top]
            ),
        ]


KINDS: dict[str, type[Samples] | type[Calls]] = {"samples": Samples, "calls": Calls}


def _name(place: Place) -> str:
    file, line, function = place
    if file == "~":
        return function
    path = Path(file)
    inside = path.is_relative_to(_LIBRARY) and ".venv" not in path.parts
    short = path.relative_to(_LIBRARY) if inside else Path(path.parent.name) / path.name
    return f"{function} ({short}:{line})"
