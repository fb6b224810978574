"""How often somebody may do something. Pure."""

from __future__ import annotations

from collections.abc import Hashable

from .bounded import LruMap


class RateLimit:
    """A token bucket for each source.

    Sources are forgotten when there are too many of them, the one quiet for longest first: a bucket that was not used
    for a while is full anyway.

    Args:
        rate: tokens that come back each second.
        burst: tokens of a source that was quiet.
        sources: most sources remembered.
    """

    __slots__ = ("_buckets", "_burst", "_rate")

    def __init__(self, *, rate: float, burst: int, sources: int) -> None:
        self._rate = rate
        self._burst = burst
        self._buckets: LruMap[Hashable, tuple[float, float]] = LruMap(sources)

    def take(self, source: Hashable, now: float) -> bool:
        """Take a token of ``source``; False when there is none."""
        tokens, since = self._buckets.get(source) or (float(self._burst), now)
        tokens = min(self._burst, tokens + (now - since) * self._rate)
        allowed = tokens >= 1
        self._buckets[source] = (tokens - allowed, now)
        return allowed


class Budget:
    """How often something may happen: ``burst`` times at once, ``rate`` times a second in the long run.

    A leaky bucket in constant space: the level rises by one with each charge and sinks by ``rate`` a second.
    """

    __slots__ = ("_burst", "_level", "_rate", "_time")

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._level = 0.0
        self._time = 0.0

    def charge(self, now: float, count: float = 1.0) -> bool:
        """Count one, or as many. False when that is too many."""
        level = self._level - (now - self._time) * self._rate
        self._time = now
        self._level = level = level + count if level > 0.0 else count
        return level <= self._burst
