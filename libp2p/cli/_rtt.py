"""Round trips, counted and summed up. Pure."""

from __future__ import annotations

import math


class Rtts:
    """The round trips of one ping command.

    Attributes:
        sent: how many pings ended, one way or the other.
    """

    def __init__(self) -> None:
        self.sent = 0
        self._ms: list[float] = []

    @property
    def received(self) -> int:
        """How many were answered."""
        return len(self._ms)

    def add(self, seconds: float) -> None:
        """A ping was answered after ``seconds``."""
        self.sent += 1
        self._ms.append(seconds * 1000)

    def lost(self) -> None:
        """A ping was not answered."""
        self.sent += 1

    def summary(self) -> dict[str, float]:
        """The counts, and times in milliseconds when there are any."""
        counts: dict[str, float] = {"sent": self.sent, "received": self.received}
        if not self._ms:
            return counts
        ordered = sorted(self._ms)
        times = {
            "min": ordered[0],
            "avg": math.fsum(ordered) / len(ordered),
            "max": ordered[-1],
            "p50": percentile(ordered, 50),
            "p99": percentile(ordered, 99),
        }
        return counts | {f"{name}_ms": round(value, 3) for name, value in times.items()}

    def text(self) -> str:
        """The same for people."""
        counts = f"{self.sent} sent, {self.received} answered"
        times = [f"{name.removesuffix('_ms')} {value:.3f}" for name, value in self.summary().items() if "_ms" in name]
        return f"{counts}: {', '.join(times)} ms" if times else counts


def percentile(ordered: list[float], percent: float) -> float:
    """The smallest of ``ordered``, which is sorted and not empty, that ``percent`` of it do not exceed."""
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]
