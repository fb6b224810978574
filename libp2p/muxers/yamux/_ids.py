"""Which stream ids the peer has used, in bounded space. Pure.

Peers number their streams upwards but do not always announce them in that order: go takes the number before it queues
the frame, rust sends the first frame when the application first writes. So a smaller id than the largest is new if it
was skipped before, and used otherwise. The skipped ranges are remembered, up to a bound; of the oldest ones beyond it
nobody can say any more.
"""

from __future__ import annotations

import enum
from bisect import bisect_right

MAX_RANGES = 256
"""Skipped ranges that are remembered. go skips for microseconds; a rust application can leave one for each stream it
holds and never writes to."""


class Claim(enum.Enum):
    """What an id turned out to be."""

    NEW = enum.auto()
    USED = enum.auto()
    UNKNOWN = enum.auto()


class PeerIds:
    """The ids one side has used. All ids given to it must have that side's parity."""

    __slots__ = ("_ends", "_floor", "_highest", "_starts")

    def __init__(self, first: int) -> None:
        self._highest = first - 2
        self._floor = first - 2  # up to here nothing is known; all ids up to it count as perhaps used
        self._starts: list[int] = []  # skipped ranges, both ends included, ascending
        self._ends: list[int] = []

    def claim(self, stream_id: int) -> Claim:
        """Mark ``stream_id`` as used and say what it was before."""
        highest = self._highest
        if stream_id == highest + 2:
            self._highest = stream_id
            return Claim.NEW
        if stream_id > highest:
            self._remember(len(self._starts), highest + 2, stream_id - 2)
            self._highest = stream_id
            return Claim.NEW
        index = bisect_right(self._starts, stream_id) - 1
        if index < 0 or stream_id > self._ends[index]:
            return Claim.UNKNOWN if stream_id <= self._floor else Claim.USED
        start, end = self._starts.pop(index), self._ends.pop(index)
        if stream_id < end:
            self._remember(index, stream_id + 2, end)
        if start < stream_id:
            self._remember(index, start, stream_id - 2)
        return Claim.NEW

    def _remember(self, index: int, start: int, end: int) -> None:
        self._starts.insert(index, start)
        self._ends.insert(index, end)
        if len(self._starts) > MAX_RANGES:
            del self._starts[0]
            self._floor = self._ends.pop(0)
