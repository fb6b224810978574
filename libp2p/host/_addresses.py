"""Which addresses this host has: those of its interfaces, and those that others see. Pure.

Theory of operation. Behind a NAT only others can tell our address, and any of them may lie. So an observation is a
vote, a neighbourhood of the network has one vote however many nodes it runs, and an address counts when enough
neighbourhoods agree (cases I3, SPEC I10):

* An observer votes for one address per listen address. A second vote takes the first away, unless that helped an
  address that counts already: liars must not be able to undo it.
* Addresses that count keep their place, in the order in which they came to count; later ones wait until one ends.
* A public address is witnessed by public observers only, a private one by observers on private networks, each of whom
  is a witness of his own there: a LAN is a single neighbourhood. Loopback, relays and names are no witnesses.
* A vote ends after 40 minutes. Whoever keeps connections open repeats what their peers said.

What counts here is still only a candidate: whether it can be *reached* is for AutoNAT to find out, and
:func:`announced` to act on.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address

from multiaddr import Multiaddr

from ..addressing import Part, Scope, from_parts, ip_group, parts, scope, split_peer
from ..errors import DecodeError
from ..events import Reachability

_IPS = ("ip4", "ip6")


@dataclass(frozen=True, slots=True, kw_only=True)
class ObservedConfig:
    """When an observed address counts."""

    groups: int = 4
    """Neighbourhoods that must agree: IPv4 /16, IPv6 /56 (go ``ActivationThresh``, which counts addresses)."""
    expiry: float = 2400.0
    """Seconds a vote lives (go ``OwnObservedAddrTTL`` x 4)."""
    per_listen_addr: int = 3
    """Addresses that count per listen address (go ``maxExternalThinWaistAddrsPerLocalAddr``)."""
    listen_addrs: int = 64
    """Listen addresses kept track of (ours)."""
    candidates: int = 32
    """Observed addresses kept track of per listen address (ours)."""
    witnesses: int = 16
    """Votes kept per observed address (ours); the oldest gives way."""

    def __post_init__(self) -> None:
        if min(self.groups, self.per_listen_addr, self.listen_addrs) < 1 or self.expiry <= 0:
            raise ValueError("bounds and expiry must be positive")
        if self.witnesses < self.groups or self.candidates <= self.per_listen_addr:
            raise ValueError("the tables are too small for any address to count")


@dataclass(slots=True)
class _Candidate:
    votes: dict[bytes, float] = field(default_factory=dict[bytes, float])
    """Neighbourhood to when it last said so, the oldest first."""
    counts: bool = False


class ObservedAddresses:
    """What others say our addresses are.

    Args:
        config: when an address counts.
    """

    def __init__(self, config: ObservedConfig | None = None) -> None:
        self._config = config or ObservedConfig()
        self._listens: dict[Multiaddr, dict[Multiaddr, _Candidate]] = {}
        # No vote ends before: a renewed one may leave it too early, never too late.
        self._none_ends_before = math.inf

    def add(
        self, addr: Multiaddr, *, local: Multiaddr, observer: Multiaddr, listening: Iterable[Multiaddr], now: float
    ) -> bool:
        """Take a vote.

        Args:
            addr: our address, as the peer saw it.
            local: our end of the connection. It counts for the listener it belongs to; an outbound connection from a
                port of its own belongs to none, and the port that the peer saw is of no use.
            observer: the remote address of the connection.
            listening: what our listeners are bound to; votes for others are dropped.
            now: monotonic seconds.

        Returns:
            Whether :meth:`confirmed` changed.
        """
        before = self.confirmed(now)  # removes ended votes too
        listening = tuple(listening)
        self._listens = {listen: found for listen, found in self._listens.items() if listen in listening}
        listen = next((bound for bound in listening if _belongs(local, bound)), None)
        try:
            group = _witness(addr, observer)
            shaped = None if listen is None else _in_shape_of(listen, addr)
        except DecodeError:
            return False
        if listen is not None and shaped is not None and group is not None:
            self._vote(listen, shaped, group, now)
        return self.confirmed(now) != before

    def _vote(self, listen: Multiaddr, addr: Multiaddr, group: bytes, now: float) -> None:
        if listen not in self._listens and len(self._listens) >= self._config.listen_addrs:
            return
        candidates = self._listens.setdefault(listen, {})
        self._withdraw(candidates, group, addr)
        candidate = self._candidate(candidates, addr)
        candidate.votes.pop(group, None)
        candidate.votes[group] = now
        self._none_ends_before = min(self._none_ends_before, now + self._config.expiry)
        if len(candidate.votes) > self._config.witnesses:
            del candidate.votes[next(iter(candidate.votes))]
        self._fill(candidates)

    def confirmed(self, now: float) -> list[Multiaddr]:
        """The addresses that count, of all listen addresses, without ``/p2p``."""
        self._expire(now)
        found: dict[Multiaddr, None] = {}
        for candidates in self._listens.values():
            found.update((addr, None) for addr, candidate in candidates.items() if candidate.counts)
        return list(found)

    def candidates(self, now: float) -> list[Multiaddr]:
        """All addresses with a vote, those with the most votes first, without ``/p2p``.

        They are worth a try where trying costs little, as in hole punching, and for nothing else.
        """
        self._expire(now)
        found: dict[Multiaddr, int] = {}
        for candidates in self._listens.values():
            found.update((addr, len(candidate.votes)) for addr, candidate in candidates.items())
        return sorted(found, key=lambda addr: -found[addr])

    def next_timeout(self) -> float | None:
        """When the next vote ends; None when there is none."""
        return min(
            (
                seen + self._config.expiry
                for candidates in self._listens.values()
                for candidate in candidates.values()
                for seen in candidate.votes.values()
            ),
            default=None,
        )

    def _expire(self, now: float) -> None:
        if now < self._none_ends_before:
            return
        for listen, candidates in list(self._listens.items()):
            for addr, candidate in list(candidates.items()):
                for group, seen in list(candidate.votes.items()):
                    if seen + self._config.expiry <= now:
                        del candidate.votes[group]
                if len(candidate.votes) < self._config.groups:
                    candidate.counts = False
                if not candidate.votes:
                    del candidates[addr]
            self._fill(candidates)
            if not candidates:
                del self._listens[listen]
        self._none_ends_before = self.next_timeout() or math.inf

    def _withdraw(self, candidates: dict[Multiaddr, _Candidate], group: bytes, new: Multiaddr) -> None:
        for addr, candidate in list(candidates.items()):
            if addr != new and not candidate.counts and candidate.votes.pop(group, None) is not None:
                if not candidate.votes:
                    del candidates[addr]

    def _candidate(self, candidates: dict[Multiaddr, _Candidate], addr: Multiaddr) -> _Candidate:
        if addr not in candidates and len(candidates) >= self._config.candidates:
            # The one with the fewest votes gives way, the oldest of those; what counts never does.
            weakest = min(
                (item for item in candidates.items() if not item[1].counts), key=lambda item: len(item[1].votes)
            )
            del candidates[weakest[0]]
        return candidates.setdefault(addr, _Candidate())

    def _fill(self, candidates: dict[Multiaddr, _Candidate]) -> None:
        """Let addresses with enough votes count, the oldest first, while there are places."""
        places = self._config.per_listen_addr - sum(candidate.counts for candidate in candidates.values())
        for candidate in candidates.values():
            if places > 0 and not candidate.counts and len(candidate.votes) >= self._config.groups:
                candidate.counts = True
                places -= 1


def _witness(observed: Multiaddr, observer: Multiaddr) -> bytes | None:
    """The neighbourhood that ``observer`` speaks for; None when its word is worth nothing for ``observed``."""
    found = scope(observed)
    if found is not scope(observer):
        return None
    if found is Scope.PUBLIC:
        return ip_group(observer)
    if found is Scope.PRIVATE:
        return ip_group(observer, ip4_bits=32, ip6_bits=128)
    return None


def _belongs(local: Multiaddr, listen: Multiaddr) -> bool:
    """Whether a connection with this local end came through, or left from, the socket bound to ``listen``."""
    ours, bound = parts(local), parts(listen)
    if len(ours) < 2 or len(bound) < 2 or ours[1] != bound[1]:
        return False  # another port
    if bound[0].name in _IPS and not any(bound[0].value):
        return ours[0].name in _IPS
    return ours[0] == bound[0]


def _in_shape_of(listen: Multiaddr, observed: Multiaddr) -> Multiaddr | None:
    """``observed`` with the protocols of ``listen``; None when it cannot be the outside of that listener.

    A peer that looks at the socket sees ``/ip4/…/tcp/…`` of what is a WebSocket listener; the rest is put back.
    """
    seen, ours = parts(split_peer(observed)[0]), parts(listen)
    shape = tuple(part.name for part in ours[1:])
    seen_shape = tuple(part.name for part in seen[1:])
    if len(seen) < 2 or seen[0].name not in _IPS or shape[: len(seen_shape)] != seen_shape:
        return None
    return from_parts(seen + ours[len(seen) :])


def announced(
    listening: Iterable[Multiaddr], observed: Iterable[Multiaddr], verdicts: Mapping[Multiaddr, Reachability]
) -> list[Multiaddr]:
    """Which addresses to announce, and in which order.

    Args:
        listening: of its own interfaces, and those that a router passes on. They are announced unless it was found that
            nobody gets there.
        observed: those that others see. Where somebody tries them (they have a verdict), they wait for its end.
        verdicts: what was found.
    """
    own = dict.fromkeys(listening)
    found = [
        addr
        for addr in dict.fromkeys((*own, *observed))
        if (verdict := verdicts.get(addr)) in (None, Reachability.PUBLIC)
        or (verdict is Reachability.UNKNOWN and addr in own)
    ]
    return sorted(found, key=lambda addr: verdicts.get(addr) is not Reachability.PUBLIC)


def expand(listen_addrs: Iterable[Multiaddr], interfaces: Sequence[str]) -> list[Multiaddr]:
    """Replace unspecified hosts by the addresses of interfaces; leave other addresses as they are.

    Link-local IPv6 addresses are left out: without the other side's zone nobody can dial them.

    Args:
        listen_addrs: what listeners are bound to, for example ``/ip4/0.0.0.0/tcp/4001``.
        interfaces: IP addresses of this machine, as text.
    """
    hosts: dict[str, list[Part]] = {"ip4": [], "ip6": []}
    for text in interfaces:
        ip = ip_address(text)
        if ip.version == 4:
            hosts["ip4"].append(Part("ip4", ip.packed))
        elif not ip.is_link_local:
            hosts["ip6"].append(Part("ip6", ip.packed))
    expanded: dict[Multiaddr, None] = {}
    for addr in listen_addrs:
        host, *rest = parts(addr)
        if host.name in _IPS and not any(host.value):
            expanded.update((from_parts((found, *rest)), None) for found in hosts[host.name])
        else:
            expanded[addr] = None
    return list(expanded)
