"""An iterative lookup: whom to ask next, and when enough have answered. Pure.

Theory of operation. A query knows candidates, sorted by distance to its target, and asks the nearest ones, at most
``alpha`` at a time. Each answer brings nearer candidates. Candidates belong to *paths*: whom a peer names belongs to
the path that led to the peer, and nobody is asked on two paths, so that a liar on one path cannot lead all of them
astray (S/Kademlia). A path has arrived when the ``beta`` nearest of its candidates have answered; when all have, the
query asks whoever is among the ``k`` nearest of all paths and was not asked yet, and is finished when all of those
have answered. Those with neighbours in their IP group do not count among these ``k``: a query that is surrounded by
identities behind a few addresses looks farther. It also asks everybody within ``radius``, where in peace there are
fewer than ``k``: identities that somebody has mined around a key are only more peers to ask there, and do not take the
places of those who were there before (case K7).

Bounds. A peer that names nearer peers for ever wins at most ``max_asked`` questions (case K8). Of one IP group at most
``per_group`` are being asked or have answered (case K6). Where peers are said to be decides who is asked, the nearest
first, and whoever fails gives the place back: otherwise a liar could fill the groups of others with peers it made up.
Where answers come from decides which of them count. Who has not answered for ``patience`` seconds is passed over: the
query goes on, and ends, as if that peer were not there, and still takes its answer if it comes. The driver reports who
is too slow altogether as failed, and drops a query whose deadline has come.

Source: libp2p/specs kad-dht, "Peer routing".
"""

from __future__ import annotations

import bisect
import enum
import operator
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ...peer_id import PeerId
from ._keyspace import Point, point_of


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryConfig:
    """How a lookup goes about it."""

    k: int = 20
    """Nearest peers that are wanted (specification)."""
    alpha: int = 10
    """Questions under way at a time (specification)."""
    beta: int = 3
    """Nearest peers of a path that must have answered for it to have arrived (go)."""
    paths: int = 2
    """Disjoint paths (ours: one path led astray leaves another)."""
    max_asked: int = 200
    """Peers that are asked in all (case K8)."""
    per_group: int = 6
    """Peers of one IP group that are asked or have answered (ours; case K6)."""
    patience: float = 2.0
    """Seconds after which a peer that has not answered is passed over (ours; case K8)."""

    def __post_init__(self) -> None:
        if min(self.k, self.alpha, self.beta, self.paths, self.max_asked, self.per_group) < 1 or self.patience <= 0:
            raise ValueError("the bounds of a query must be positive")


class _State(enum.Enum):
    NEW = enum.auto()
    ASKED = enum.auto()
    SLOW = enum.auto()
    ANSWERED = enum.auto()
    FAILED = enum.auto()


@dataclass(eq=False, slots=True)
class _Candidate:
    peer: PeerId
    distance: int
    path: int
    groups: Sequence[bytes]
    state: _State = _State.NEW
    asked_at: float = 0.0


_distance = operator.attrgetter("distance")


class Query:
    """One lookup.

    Args:
        target: where it leads to.
        local: this host, which is never asked.
        seeds: peers to begin with, each with its IP groups.
        radius: distance from the target within which everybody is asked; see
            :meth:`libp2p.protocols.kad.RoutingTable.radius`.

    Attributes:
        asked: how many were asked.
        hops: length of the longest chain of answers that led to somebody who answered.
    """

    def __init__(
        self,
        target: Point,
        local: PeerId,
        seeds: Iterable[tuple[PeerId, Sequence[bytes]]],
        config: QueryConfig | None = None,
        *,
        radius: int = 0,
    ) -> None:
        self.config: QueryConfig = config or QueryConfig()
        self.target: Point = target
        self.asked: int = 0
        self.hops: int = 0
        self._local = local
        self._radius = radius
        self._known: dict[PeerId, _Candidate | None] = {local: None}  # None: never to be asked
        self._depth: dict[PeerId, int] = {}
        self._order: list[_Candidate] = []  # by their distance
        # Those under way, in the order in which they were asked; the slow ones are not among them any more.
        self._asked: dict[PeerId, _Candidate] = {}
        self._in_flight = 0
        self._groups: dict[bytes, int] = {}
        nearest = sorted(seeds, key=lambda seed: point_of(bytes(seed[0])) ^ target)
        for number, (seed, groups) in enumerate(nearest):
            self._learn(seed, groups, number % self.config.paths, 0)

    # --- the world's input

    def answered(
        self,
        peer: PeerId,
        closer: Iterable[tuple[PeerId, Sequence[bytes]]] = (),
        groups: Sequence[bytes] | None = None,
    ) -> None:
        """A peer that was asked has answered.

        Args:
            closer: whom it named, each with the IP groups of where it is said to be.
            groups: the IP groups of where the answer came from; by default what was said of the peer.
        """
        candidate = self._take(peer)
        if candidate is None:
            return
        if groups is not None:
            candidate.groups = groups
        if self._is_full(candidate.groups):
            self._known[peer] = None
            return
        candidate.state = _State.ANSWERED
        bisect.insort(self._order, candidate, key=_distance)
        self._count(candidate, 1)
        depth = self._depth[peer]
        self.hops = max(self.hops, depth + 1)
        for found, said in closer:
            self._learn(found, said, candidate.path, depth + 1)

    def failed(self, peer: PeerId) -> None:
        """A peer that was asked did not answer, or answered nonsense: it is out."""
        candidate = self._take(peer)
        if candidate is not None:
            candidate.state = _State.FAILED

    def revive(self, peer: PeerId) -> None:
        """There is another way to reach a peer: if it has failed, it is a candidate again."""
        candidate = self._known.get(peer)
        if candidate is not None and candidate.state is _State.FAILED:
            candidate.state = _State.NEW
            bisect.insort(self._order, candidate, key=_distance)

    def _take(self, peer: PeerId) -> _Candidate | None:
        """The candidate that was asked and not heard of since, out of the order; None when it is no such."""
        candidate = self._known.get(peer)
        if candidate is None or candidate.state not in (_State.ASKED, _State.SLOW):
            return None
        self._in_flight -= 1
        self._pass_over(candidate)
        return candidate

    def _pass_over(self, candidate: _Candidate) -> None:
        if self._asked.pop(candidate.peer, None) is not None:
            del self._order[bisect.bisect_left(self._order, candidate.distance, key=_distance)]
            self._count(candidate, -1)

    def _count(self, candidate: _Candidate, change: int) -> None:
        for group in candidate.groups:
            self._groups[group] = self._groups.get(group, 0) + change

    def _is_full(self, groups: Sequence[bytes]) -> bool:
        return any(self._groups.get(group, 0) >= self.config.per_group for group in groups)

    def _learn(self, peer: PeerId, groups: Sequence[bytes], path: int, depth: int) -> None:
        if peer in self._known:
            known = self._known[peer]
            if known is not None and known.state is _State.NEW:
                # Whoever named it first may have lied, to put it where there is no place left.
                known.groups = [group for group in known.groups if group in groups]
            return
        candidate = _Candidate(peer, point_of(bytes(peer)) ^ self.target, path, groups)
        self._known[peer] = candidate
        self._depth[peer] = depth
        bisect.insort(self._order, candidate, key=_distance)

    # --- outputs

    def next(self, now: float) -> list[PeerId]:
        """Whom to ask now. Each is to be reported as answered or failed. To be called at :meth:`next_timeout`, too."""
        while (timeout := self.next_timeout()) is not None and timeout <= now:
            slow = next(iter(self._asked.values()))
            slow.state = _State.SLOW
            self._pass_over(slow)
        chosen: list[PeerId] = []
        room = min(self.config.alpha - self._in_flight, self.config.max_asked - self.asked)
        for candidate in self._wanted(room) if room > 0 else ():
            candidate.state, candidate.asked_at = _State.ASKED, now
            self._asked[candidate.peer] = candidate
            self._count(candidate, 1)
            chosen.append(candidate.peer)
        self._in_flight += len(chosen)
        self.asked += len(chosen)
        return chosen

    def next_timeout(self) -> float | None:
        """When the next peer is to be passed over; None when nobody is waited for."""
        oldest = next(iter(self._asked.values()), None)
        return None if oldest is None else oldest.asked_at + self.config.patience

    @property
    def finished(self) -> bool:
        """Whether there is nobody to ask and nobody to wait for."""
        if not self._in_flight and (self.asked >= self.config.max_asked or not self._wanted(1)):
            return True
        nearest = self._nearest(self.config.k)
        # With fewer than k, a slow one may still be somebody.
        complete = len(nearest) >= self.config.k or not self._in_flight
        return complete and not self._unfinished_paths() and all(each.state is _State.ANSWERED for each in nearest)

    def closest(self, count: int | None = None) -> list[PeerId]:
        """Those that have answered, the nearest first; by default at most ``k``."""
        limit = self.config.k if count is None else count
        return [each.peer for each in self._order if each.state is _State.ANSWERED][:limit]

    def responsible(self) -> list[PeerId]:
        """With whom to store what belongs to the target, nearest first: :meth:`closest`, and all within the radius."""
        answered = [each for each in self._order if each.state is _State.ANSWERED]
        return [
            each.peer for number, each in enumerate(answered) if number < self.config.k or each.distance < self._radius
        ]

    def _in_order(self) -> Iterator[_Candidate]:
        """All but those for whom there is no place in their IP groups, nearest first."""
        taken = dict(self._groups)
        full = {group for group, count in taken.items() if count >= self.config.per_group}
        for candidate in self._order:
            if candidate.state is _State.NEW and candidate.groups:
                if not full.isdisjoint(candidate.groups):
                    continue
                for group in candidate.groups:
                    taken[group] = taken.get(group, 0) + 1
                    if taken[group] >= self.config.per_group:
                        full.add(group)
            yield candidate

    def _nearest(self, count: int) -> list[_Candidate]:
        """The ``count`` nearest, the next of IP groups of their own, until ``count`` are, and all within the radius."""
        found: list[_Candidate] = []
        groups: set[bytes] = set()
        own = 0
        for candidate in self._in_order():
            inside = candidate.distance < self._radius
            if own >= count and not inside:
                break
            alone = groups.isdisjoint(candidate.groups)
            groups.update(candidate.groups)
            own += alone
            if alone or inside or len(found) < count:
                found.append(candidate)
        return found

    def _unfinished_paths(self) -> list[list[_Candidate]]:
        """The candidates of every path that has not arrived, nearest first."""
        paths: list[list[_Candidate]] = [[] for _ in range(self.config.paths)]
        room = self.config.k * len(paths)
        for candidate in self._in_order():
            if len(paths[candidate.path]) < self.config.k:
                paths[candidate.path].append(candidate)
                room -= 1
                if not room:
                    break
        return [
            path
            for path in paths
            if any(candidate.state is not _State.ANSWERED for candidate in path[: self.config.beta])
        ]

    def _wanted(self, room: int) -> list[_Candidate]:
        """Up to ``room`` candidates to ask: of the paths in turn, and when all have arrived of the nearest."""
        paths = self._unfinished_paths()
        if not paths:
            return [candidate for candidate in self._nearest(self.config.k) if candidate.state is _State.NEW][:room]
        fresh = [[candidate for candidate in path if candidate.state is _State.NEW] for path in paths]
        chosen: list[_Candidate] = []
        for rank in range(self.config.k):
            chosen += [path[rank] for path in fresh if rank < len(path)]
        return chosen[:room]
