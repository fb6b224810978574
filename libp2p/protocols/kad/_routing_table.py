"""The routing table: which servers of the DHT this host knows, more of them the nearer they are. Pure.

Theory of operation. A peer belongs to the bucket of as many common leading bits as its place shares with ours; a
bucket has room for ``k`` peers. Who asks to enter has answered a request of ours before: the table itself contacts
nobody. A full bucket keeps whom it has, because those who have been there long stay longest, and because otherwise
whoever makes many identities could flush it; a newcomer waits, and takes the place of the next one that fails.

Diversity. Identities are free, addresses are not: no more than a few peers of one IP group may be in the table, and
even fewer in one bucket, so that a hundred thousand identities behind a few addresses are worth a few peers (case
K6).

Failures. One failure does not cost a peer its place, two in a row do; meanwhile it is not told to others. So a moment
in which this host itself is offline, and everybody fails, costs nobody his place; a longer one empties the table, and
the bootstrap list is asked again.

Source: libp2p/specs kad-dht, "Kademlia routing table"; the limits are go's.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ...peer_id import PeerId
from ._keyspace import BITS, MAX_PREIMAGE_PREFIX, Point, common_prefix, point_of


@dataclass(frozen=True, slots=True, kw_only=True)
class TableConfig:
    """The bounds of a routing table."""

    bucket_size: int = 20
    """Peers in a bucket, and as many that wait for it (k of the specification)."""
    per_group: int = 3
    """Peers of one IP group in the table (go)."""
    per_group_and_bucket: int = 2
    """Peers of one IP group in one bucket (go)."""
    failures: int = 2
    """Failures in a row that cost a peer its place (ours)."""

    def __post_init__(self) -> None:
        if min(self.bucket_size, self.per_group, self.per_group_and_bucket, self.failures) < 1:
            raise ValueError("the bounds of a routing table must be positive")


@dataclass(eq=False, slots=True)
class Entry:
    """A peer in the table.

    Attributes:
        groups: the IP groups of its addresses.
        since: when it entered.
        seen: when it last answered.
        failures: how often in a row it has not.
    """

    peer: PeerId
    point: Point
    groups: tuple[bytes, ...]
    since: float
    seen: float
    failures: int = 0


@dataclass(eq=False, slots=True)
class _Bucket:
    entries: dict[PeerId, Entry] = field(default_factory=dict[PeerId, Entry])
    waiting: dict[PeerId, None] = field(default_factory=dict[PeerId, None])
    refreshed: float = float("-inf")


class RoutingTable:
    """Servers of the DHT by distance.

    Args:
        local: this host, which never is in its table.
    """

    def __init__(self, local: PeerId, config: TableConfig | None = None) -> None:
        self.config: TableConfig = config or TableConfig()
        self.point: Point = point_of(bytes(local))
        self._local = local
        self._entries: dict[PeerId, Entry] = {}
        self._buckets: list[_Bucket] = [_Bucket() for _ in range(BITS + 1)]
        self._groups: dict[bytes, int] = {}
        self._deepest = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, peer: object) -> bool:
        return peer in self._entries

    def __iter__(self) -> Iterator[Entry]:
        """All entries, in the order in which they entered."""
        return iter(self._entries.values())

    # --- who is in it

    def add(self, peer: PeerId, groups: Sequence[bytes], now: float) -> bool:
        """Take in a peer that has just answered, or note that one in the table has.

        Args:
            groups: the IP groups of the addresses it was reached at.

        Returns:
            Whether it is in the table. If not, it waits for a place, or its groups have had theirs.
        """
        if (held := self._entries.get(peer)) is not None:
            held.seen, held.failures = now, 0
            return True
        if peer == self._local:
            return False
        point = point_of(bytes(peer))
        index = common_prefix(self.point, point)
        bucket = self._buckets[index]
        if not self._diverse(bucket, groups):
            bucket.waiting.pop(peer, None)
            return False
        if len(bucket.entries) >= self.config.bucket_size:
            failing = next((entry for entry in bucket.entries.values() if entry.failures), None)
            if failing is None:
                self._wait(bucket, peer)
                return False
            self.remove(failing.peer)
        bucket.waiting.pop(peer, None)
        entry = Entry(peer, point, tuple(groups), now, now)
        bucket.entries[peer] = self._entries[peer] = entry
        for group in entry.groups:
            self._groups[group] = self._groups.get(group, 0) + 1
        self._deepest = max(self._deepest, index)
        return True

    def remove(self, peer: PeerId) -> PeerId | None:
        """Take a peer out, which need not be in it.

        Returns:
            Who waits for the place, to be asked whether it is still there; None when nobody does.
        """
        entry = self._entries.pop(peer, None)
        if entry is None:
            return None
        bucket = self._buckets[common_prefix(self.point, entry.point)]
        del bucket.entries[peer]
        for group in entry.groups:
            self._groups[group] -= 1
            if not self._groups[group]:
                del self._groups[group]
        while self._deepest and not self._buckets[self._deepest].entries:
            self._deepest -= 1
        return bucket.waiting.popitem()[0] if bucket.waiting else None

    def failed(self, peer: PeerId) -> PeerId | None:
        """Note that a peer did not answer. Returns as :meth:`remove`."""
        entry = self._entries.get(peer)
        if entry is None:
            return None
        entry.failures += 1
        return self.remove(peer) if entry.failures >= self.config.failures else None

    def wants(self, peer: PeerId) -> bool:
        """Whether it is worth while to find out if ``peer`` answers: it is new, and there is room or it may wait."""
        if peer in self._entries or peer == self._local:
            return False
        bucket = self._buckets[common_prefix(self.point, point_of(bytes(peer)))]
        return len(bucket.entries) < self.config.bucket_size or len(bucket.waiting) < self.config.bucket_size

    def _wait(self, bucket: _Bucket, peer: PeerId) -> None:
        bucket.waiting.pop(peer, None)
        bucket.waiting[peer] = None
        if len(bucket.waiting) > self.config.bucket_size:
            del bucket.waiting[next(iter(bucket.waiting))]

    def _diverse(self, bucket: _Bucket, groups: Sequence[bytes]) -> bool:
        for group in groups:
            if self._groups.get(group, 0) >= self.config.per_group:
                return False
            near = sum([group in entry.groups for entry in bucket.entries.values()])
            if near >= self.config.per_group_and_bucket:
                return False
        return True

    def groups(self, peer: PeerId) -> tuple[bytes, ...]:
        """The IP groups of ``peer``; none when it is not in the table."""
        entry = self._entries.get(peer)
        return () if entry is None else entry.groups

    # --- who is near

    def nearest(
        self, point: Point, count: int, *, healthy: bool = False, without: PeerId | None = None
    ) -> list[PeerId]:
        """The ``count`` peers nearest to ``point``, nearest first.

        Args:
            healthy: only those that answered when last asked.
            without: somebody who is not meant.
        """
        # By what a bucket means: that of the point shares most bits with it, those beyond share as many as we do, and
        # those before ever fewer. So only a few buckets have to be sorted, and mostly small ones.
        index = common_prefix(self.point, point)
        found: list[PeerId] = []
        for buckets in (
            self._buckets[index : index + 1],
            self._buckets[index + 1 : self._deepest + 1],
            *([bucket] for bucket in reversed(self._buckets[:index])),
        ):
            if len(found) >= count:
                break
            entries = [entry for bucket in buckets for entry in bucket.entries.values()]
            entries.sort(key=lambda entry: entry.point ^ point)
            found += [each.peer for each in entries if each.peer != without and not (healthy and each.failures)]
        return found[:count]

    def radius(self) -> int:
        """The distance within which about half of ``bucket_size`` peers are, wherever one looks; 0 while that many are
        not known.

        Points are spread evenly, so what is around this host is what is to be expected elsewhere.
        """
        nearest = self.nearest(self.point, self.config.bucket_size)
        return 0 if len(nearest) < self.config.bucket_size else (self._entries[nearest[-1]].point ^ self.point) // 2

    # --- keeping it fresh

    def stale(self, now: float, age: float) -> list[int]:
        """Buckets in which nothing was looked up for ``age`` seconds, as far as there are peers, nearest last."""
        last = min(self._deepest, MAX_PREIMAGE_PREFIX)
        return [index for index in range(last + 1) if self._buckets[index].refreshed + age <= now]

    def looked_up(self, point: Point, now: float) -> None:
        """Note that a lookup went to ``point``: its bucket needs no refresh for a while."""
        self._buckets[common_prefix(self.point, point)].refreshed = now

    def silent(self, now: float, age: float, count: int) -> list[PeerId]:
        """Up to ``count`` peers that have not answered anything for ``age`` seconds, the longest first."""
        old = [entry for entry in self._entries.values() if entry.seen + age <= now]
        return [entry.peer for entry in heapq.nsmallest(count, old, key=lambda entry: entry.seen)]
