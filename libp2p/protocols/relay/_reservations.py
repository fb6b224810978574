"""Who has a reservation with a relay, who has circuits through it, and who gets more. Pure.

Theory of operation. Two tables, told the time by their caller. A reservation belongs to a peer and is counted for the
address it comes from and for that address's neighbourhood; a holder always gets it renewed, also while the tables are
full, because refusing him would cut him off and help nobody. A renewal from another address moves it there, when there
is room.

A circuit is counted for both its ends for as long as its :class:`CircuitToken` is held.

Source: libp2p/specs relay/circuit-v2; the numbers are go's (``relay/resources.go``) where they do not say otherwise.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from types import TracebackType

from multiaddr import Multiaddr

from ..._util.bounded import ExpiringMap
from ...addressing import ip_group
from ...peer_id import PeerId


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayLimits:
    """What a relay gives away."""

    reservations: int = 128
    """Reservations at a time (go)."""
    reservations_per_ip: int = 8
    """From one IPv4 address, or one IPv6 /64 (go counts addresses)."""
    reservations_per_network: int = 32
    """From one neighbourhood, IPv4 /16 or IPv6 /32 (go: from one autonomous system, of which these stand in)."""
    reservation_ttl: int = 3600
    """Seconds a reservation lives unless it is renewed (go)."""
    renewal_pause: int = 30
    """Seconds in which another renewal gets the same answer again: a storm of them costs no signatures (ours)."""
    circuits: int = 256
    """Circuits at a time (ours)."""
    circuits_per_peer: int = 16
    """Of one peer, whichever end it is (go)."""
    circuits_per_pair: int = 4
    """From one peer to another, so that nobody takes all the places of somebody else (ours)."""
    circuit_duration: int | None = 120
    """Seconds a circuit lives (go); None for as long as it likes."""
    circuit_data: int | None = 128 * 1024
    """Bytes a circuit carries each way (go); None for as many as it likes."""

    def __post_init__(self) -> None:
        counts = (
            self.reservations,
            self.reservations_per_ip,
            self.reservations_per_network,
            self.circuits,
            self.circuits_per_peer,
            self.circuits_per_pair,
            self.renewal_pause,
        )
        if min(counts) < 0 or self.reservation_ttl < 1:
            raise ValueError("limits must not be negative, and a reservation must live for a second")
        if any(limit is not None and limit < 1 for limit in (self.circuit_duration, self.circuit_data)):
            raise ValueError("a circuit needs a second and a byte; None is for no limit")


@dataclass(frozen=True, slots=True)
class Granted:
    """One reservation.

    Attributes:
        expires: when it ends, on the caller's clock.
        since: when it was granted or renewed.
        sources: what it is counted for.
    """

    expires: float
    since: float
    sources: tuple[bytes, ...]


class Reservations:
    """The reservations of one relay."""

    def __init__(self, limits: RelayLimits) -> None:
        self._limits = limits
        self._held: ExpiringMap[PeerId, Granted] = ExpiringMap(max(1, limits.reservations))
        self._counts: Counter[bytes] = Counter()

    def __len__(self) -> int:
        """Reservations, those included that have ended since the last :meth:`expire`."""
        return len(self._held)

    def reserve(self, peer: PeerId, addr: Multiaddr, now: float) -> Granted | None:
        """Grant or renew the reservation of ``peer``; None when there is no room for it.

        What has ended takes room until :meth:`expire` was called.

        Args:
            addr: where the peer is connected from.
            now: monotonic seconds.
        """
        held = self._held.get(peer, now)
        if held is not None and now < held.since + self._limits.renewal_pause:
            return held
        sources = _sources(addr)
        if held is not None:
            self.remove(peer)
            if not self._has_room(sources):
                sources = held.sources
        elif len(self._held) >= self._limits.reservations or not self._has_room(sources):
            return None
        granted = Granted(now + self._limits.reservation_ttl, now, sources)
        self._held.put(peer, granted, expires=granted.expires)
        self._counts.update(sources)
        return granted

    def holds(self, peer: PeerId, now: float) -> bool:
        """Whether ``peer`` has a reservation."""
        return self._held.get(peer, now) is not None

    def remove(self, peer: PeerId) -> bool:
        """Forget the reservation of ``peer``; whether there was one."""
        held = self._held.pop(peer)
        if held is not None:
            self._uncount(held)
        return held is not None

    def expire(self, now: float) -> list[PeerId]:
        """Remove what has ended; whose it was."""
        ended = self._held.expire(now)
        for _, held in ended:
            self._uncount(held)
        return [peer for peer, _ in ended]

    def next_timeout(self) -> float | None:
        """When the next one ends; None when there is none."""
        return self._held.next_timeout()

    def _has_room(self, sources: tuple[bytes, ...]) -> bool:
        limits = (self._limits.reservations_per_ip, self._limits.reservations_per_network)
        return all(self._counts[source] < limit for source, limit in zip(sources, limits, strict=False))

    def _uncount(self, held: Granted) -> None:
        self._counts.subtract(held.sources)
        for source in held.sources:
            if not self._counts[source]:
                del self._counts[source]


def _sources(addr: Multiaddr) -> tuple[bytes, ...]:
    """The address and the neighbourhood of ``addr``; nothing where there is no address, as in memory."""
    address = ip_group(addr, ip4_bits=32, ip6_bits=64)
    return (b"a" + address, b"n" + ip_group(addr, ip4_bits=16, ip6_bits=32)) if address else ()


class CircuitToken:
    """A place for one circuit, given back when the block is left."""

    __slots__ = ("_circuits", "_ends")

    def __init__(self, circuits: Circuits, ends: tuple[PeerId, PeerId]) -> None:
        self._circuits = circuits
        self._ends = ends

    def __enter__(self) -> CircuitToken:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._circuits._release(self._ends)


class Circuits:
    """The circuits of one relay."""

    def __init__(self, limits: RelayLimits) -> None:
        self._limits = limits
        self._by_peer: Counter[PeerId] = Counter()
        self._by_pair: Counter[tuple[PeerId, PeerId]] = Counter()
        self._total = 0

    def __len__(self) -> int:
        """Circuits at the moment."""
        return self._total

    def of(self, peer: PeerId) -> int:
        """Circuits of ``peer``, whichever end it is."""
        return self._by_peer[peer]

    def reserve(self, source: PeerId, destination: PeerId) -> CircuitToken | None:
        """A place for a circuit, which has to be entered; None when there is none."""
        ends = (source, destination)
        most = max(self._by_peer[peer] for peer in ends)
        if self._total >= self._limits.circuits or most >= self._limits.circuits_per_peer:
            return None
        if self._by_pair[ends] >= self._limits.circuits_per_pair:
            return None
        self._total += 1
        self._by_peer.update(ends)
        self._by_pair[ends] += 1
        return CircuitToken(self, ends)

    def _release(self, ends: tuple[PeerId, PeerId]) -> None:
        self._total -= 1
        self._by_peer.subtract(ends)
        self._by_pair[ends] -= 1
        if not self._by_pair[ends]:
            del self._by_pair[ends]
        for peer in ends:
            if not self._by_peer[peer]:
                del self._by_peer[peer]
