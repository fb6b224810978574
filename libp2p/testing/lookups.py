"""Networks of DHT nodes without hosts: tables and lookups of thousands of peers, in virtual time, from a seed.

::

    simulation = LookupSimulation(seed=1)
    simulation.add(1000)
    simulation.fill_tables()
    print(simulation.lookups(200))

Theory of operation. Tables and queries are the very objects that run in production: pure, told the time. A question is
an event in a heap: its answer comes after a latency, or a failure after the time that a host would wait. What an honest
peer answers comes from its table; dead peers and tarpits answer nothing; sybils answer nothing but other sybils, nearer
than anybody, and keep nothing that is stored with them. The same seed gives the same run: :attr:`LookupReport.digest`
tells two runs apart.
"""

from __future__ import annotations

import enum
import hashlib
import heapq
import random
from collections.abc import Container, Sequence
from dataclasses import dataclass

from ..peer_id import PeerId
from ..protocols.kad import QueryConfig, RoutingTable, TableConfig
from ..protocols.kad.lookup import Query, point_of
from ..wire import multihash

__all__ = ["LookupReport", "LookupSimulation", "Role", "SimulatedPeer"]

_MINED_OF = 100
"""Identities that are made for each honest peer there is, for some to be near a key."""


class Role(enum.Enum):
    """How a peer behaves."""

    HONEST = "honest"
    DEAD = "dead"
    """Is in tables and answers nobody: a question to it costs the time that a host waits."""
    SYBIL = "sybil"
    """Answers with the sybils that are nearest to what is looked up, and hides everybody else."""
    HIDER = "hider"
    """A sybil that answers truly."""


@dataclass(eq=False, slots=True)
class SimulatedPeer:
    """One peer of the simulated network.

    Attributes:
        point: where it lies.
        group: its IP group.
        table: whom it knows.
    """

    peer: PeerId
    point: int
    group: bytes
    role: Role
    table: RoutingTable


@dataclass(frozen=True, slots=True, kw_only=True)
class LookupReport:
    """What became of some lookups.

    Attributes:
        lookups: how many there were.
        found: share of them that found the peer they were looking for.
        exact: share of the honest peers nearest to the target that were found, of all lookups.
        hops: of the answers that led to the farthest, on average.
        messages: questions of a lookup, on average.
        p50: seconds of a lookup, the median.
        p95: of 20 lookups the slowest but one.
        most_asked: questions of the longest lookup.
        digest: of all results; the same for the same seed.
    """

    lookups: int
    found: float
    exact: float
    hops: float
    messages: float
    p50: float
    p95: float
    most_asked: int
    digest: str

    def __str__(self) -> str:
        return (
            f"{self.lookups} lookups, {self.found:.2%} found, {self.exact:.2%} of the nearest, {self.hops:.2f} hops,"
            f" {self.messages:.1f} messages, p50 {self.p50:.2f} s, p95 {self.p95:.2f} s, digest {self.digest[:16]}"
        )


@dataclass(slots=True)
class _Run:
    query: Query
    seconds: float = 0.0
    found: bool = False


class LookupSimulation:
    """A network of tables.

    Args:
        seed: of everything that is random.
        query: how lookups go about it.
        table: the bounds of tables.
        timeout: seconds that a question to a dead peer costs.
        min_latency: seconds of the fastest answer.
        max_latency: of the slowest; most are near the fastest.

    Attributes:
        peers: all that were ever added.
    """

    def __init__(
        self,
        *,
        seed: int,
        query: QueryConfig | None = None,
        table: TableConfig | None = None,
        timeout: float = 5.0,
        min_latency: float = 0.02,
        max_latency: float = 0.4,
    ) -> None:
        self.peers: list[SimulatedPeer] = []
        self._seed = seed
        self._rng = random.Random(seed)
        self._query = query or QueryConfig()
        self._table = table or TableConfig()
        self._timeout = timeout
        self._latency = (min_latency, max_latency)
        self._by_peer: dict[PeerId, SimulatedPeer] = {}
        self._sybils: list[SimulatedPeer] = []
        self._serial = 0

    # --- the network

    def add(self, count: int, *, role: Role = Role.HONEST, groups: int | None = None) -> list[SimulatedPeer]:
        """Add ``count`` peers.

        Args:
            groups: IP groups they share; by default each has one of its own.
        """
        added: list[SimulatedPeer] = []
        for number in range(count):
            index = len(self.peers)
            group = b"own %d" % index if groups is None else b"%s %d" % (role.value.encode(), number % groups)
            made = self._make(_peer(b"%d/%d" % (self._seed, index)), group, role)
            self.peers.append(made)
            added.append(made)
            if role is Role.SYBIL:
                self._sybils.append(made)
        return added

    def _make(self, peer: PeerId, group: bytes, role: Role) -> SimulatedPeer:
        made = SimulatedPeer(peer, point_of(bytes(peer)), group, role, RoutingTable(peer, self._table))
        self._by_peer[peer] = made
        return made

    def fill_tables(self, peers: Sequence[SimulatedPeer] | None = None, *, met: int = 400) -> None:
        """Let honest peers have met others: at random, and those nearest to themselves, as refreshing does.

        Args:
            peers: whose tables; by default all honest ones.
            met: how many others a peer has met by chance.
        """
        alive = [peer for peer in self.peers if peer.role is not Role.DEAD]
        for each in self.peers if peers is None else peers:
            if each.role is not Role.HONEST:
                continue
            near = heapq.nsmallest(3 * self._table.bucket_size, alive, key=lambda other: other.point ^ each.point)
            for other in (*self._rng.sample(alive, min(met, len(alive))), *near):
                each.table.add(other.peer, (other.group,), 0.0)

    def kill(self, count: int) -> None:
        """Let ``count`` honest peers die; the tables of others do not know yet."""
        for each in self._rng.sample([peer for peer in self.peers if peer.role is Role.HONEST], count):
            each.role = Role.DEAD

    def honest(self) -> list[SimulatedPeer]:
        """Those that are honest and alive."""
        return [peer for peer in self.peers if peer.role is Role.HONEST]

    # --- lookups

    def lookups(self, count: int) -> LookupReport:
        """Let ``count`` honest peers each look up another one that is alive."""
        honest = self.honest()
        runs: list[_Run] = []
        exact = 0.0
        digest = hashlib.sha256()
        for _ in range(count):
            asking, target = self._rng.sample(honest, 2)
            run = self._look_up(asking, target.point, {target.peer})
            runs.append(run)
            near = heapq.nsmallest(self._query.k, honest, key=lambda peer: peer.point ^ target.point)
            wanted = {peer.peer for peer in near if peer is not asking}
            exact += len(wanted & set(run.query.closest(2 * self._query.k))) / len(wanted)
            digest.update(b"%d %d %d;" % (run.query.asked, run.found, run.seconds * 1e9))
        times = sorted([run.seconds for run in runs])
        return LookupReport(
            lookups=count,
            found=sum([run.found for run in runs]) / count,
            exact=exact / count,
            hops=sum([run.query.hops for run in runs]) / count,
            messages=sum([run.query.asked for run in runs]) / count,
            p50=times[count // 2],
            p95=times[count * 95 // 100],
            most_asked=max([run.query.asked for run in runs]),
            digest=digest.hexdigest(),
        )

    def retrievals(self, keys: int, *, mined: int, role: Role = Role.SYBIL, seekers: int = 4) -> float:
        """Let honest peers store something under ``keys`` keys and others look for each, while somebody hides it.

        Around each key there are identities that were mined for it: nearer than anybody, each of an IP group of its
        own, and everybody has met them.

        Args:
            mined: how many there are around a key.
            role: ``SYBIL`` or ``HIDER``.
            seekers: how many look for a key.

        Returns:
            Share of the searches that came to an honest peer with which it was stored.
        """
        honest, sybils = self.honest(), self._sybils
        pool = [_peer(b"%d/mined %d" % (self._seed, number)) for number in range(_MINED_OF * len(honest))]
        points = [point_of(bytes(peer)) for peer in pool]
        found = 0
        for number in range(keys):
            point = point_of(b"%d/key %d" % (self._seed, number))
            near = heapq.nsmallest(mined, range(len(pool)), key=lambda index: points[index] ^ point)
            self._sybils = [self._make(pool[index], b"mined %d" % index, role) for index in near]
            for each in honest:
                for sybil in self._sybils:
                    each.table.add(sybil.peer, (sybil.group,), 0.0)
            storing, *seeking = self._rng.sample(honest, 1 + seekers)
            servers = self._look_up(storing, point).query.responsible()
            holders = {peer for peer in servers if self._by_peer[peer].role is Role.HONEST}
            found += sum([self._look_up(each, point, holders, enough=True).found for each in seeking])
            for each in honest:
                for sybil in self._sybils:
                    each.table.remove(sybil.peer)
        self._sybils = sybils
        return found / (keys * seekers)

    def _look_up(
        self, asking: SimulatedPeer, point: int, wanted: Container[PeerId] = (), *, enough: bool = False
    ) -> _Run:
        """Let a peer look up a point. Somebody wanted is found when he answers: nobody's word leads to a connection.

        Args:
            enough: whether that is the end of it.
        """
        seeds = [(peer, asking.table.groups(peer)) for peer in asking.table.nearest(point, self._query.k)]
        run = _Run(Query(point, asking.peer, seeds, self._query, radius=asking.table.radius()))
        events: list[tuple[float, int, SimulatedPeer]] = []
        while not run.query.finished and not (enough and run.found):
            for peer in run.query.next(run.seconds):
                self._serial += 1
                heapq.heappush(events, (run.seconds + self._wait(peer), self._serial, self._by_peer[peer]))
            timeout = run.query.next_timeout()
            if timeout is not None and events and timeout < events[0][0]:
                run.seconds = timeout
                continue
            run.seconds, _, answering = heapq.heappop(events)
            if answering.role is Role.DEAD:
                run.query.failed(answering.peer)
                asking.table.failed(answering.peer)
                continue
            run.found = run.found or answering.peer in wanted
            closer = self._closer(answering, point)
            run.query.answered(answering.peer, [(each.peer, (each.group,)) for each in closer])
            asking.table.add(answering.peer, (answering.group,), run.seconds)
        return run

    def _wait(self, peer: PeerId) -> float:
        if self._by_peer[peer].role is Role.DEAD:
            return self._timeout
        low, high = self._latency
        return low + (high - low) * self._rng.random() ** 2

    def _closer(self, peer: SimulatedPeer, point: int) -> list[SimulatedPeer]:
        if peer.role is Role.HONEST:
            nearest = peer.table.nearest(point, self._table.bucket_size, healthy=True)
            return [self._by_peer[each] for each in nearest]
        told = self._sybils if peer.role is Role.SYBIL else [*self.honest(), *self._sybils]
        return heapq.nsmallest(self._table.bucket_size, told, key=lambda each: each.point ^ point)


def _peer(name: bytes) -> PeerId:
    return PeerId.from_bytes(multihash.sha2_256(name))
