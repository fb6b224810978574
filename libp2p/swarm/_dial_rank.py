"""In which order, and how far apart, to try the addresses of a peer. Pure.

Theory of operation. This is happy eyeballs (RFC 8305) with go-libp2p's figures (``dial_ranker.go``). Private and public
addresses form two groups that start together. Within a group QUIC comes before TCP, because it needs fewer round trips,
and IPv6 before IPv4; each starts one step after the one before:

    group    QUIC v6   QUIC v4   more QUIC        TCP v6    TCP v4    more TCP
    public   0         +250 ms   +50 ms each      +250 ms   +250 ms   +50 ms each
    private  0         +30 ms    +10 ms each      +30 ms    +30 ms    +10 ms each

What is absent takes no time. Relayed addresses are ordered likewise and begin 500 ms late when there is a direct one;
addresses of no known kind come a second after everything else. The first address of all always has delay 0: the delays
space attempts out, they are not a price for success, and a failed attempt does not wait for them (``DialPlan.failed``).

Beyond the first two addresses of a kind (IPv6 and IPv4, where there are both) more of the same are unlikely to fare
better, so they follow in small steps: with large ones, a peer with many interfaces would keep us waiting for its TCP
where UDP is blocked. (go starts them all at once; we spread them a little to not burst.)
"""

from __future__ import annotations

import enum
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from multiaddr import Multiaddr

from ..addressing import Part, Scope, is_relay, parts, scope


@dataclass(frozen=True, slots=True, kw_only=True)
class RankConfig:
    """The delays, in seconds. Source: go ``dial_ranker.go``, where not said otherwise."""

    public_step: float = 0.25
    """Between IPv6 and IPv4, and between QUIC and TCP (go ``PublicQUICDelay``, ``PublicTCPDelay``)."""
    private_step: float = 0.03
    """The same on private networks and loopback (go ``PrivateQUICDelay``, ``PrivateTCPDelay``)."""
    public_further: float = 0.05
    """Between further public addresses of one kind (ours)."""
    private_further: float = 0.01
    """The same on private networks and loopback (ours)."""
    relay: float = 0.5
    """How much later relayed addresses begin when there is a direct one (go ``RelayDelay``)."""
    unknown: float = 1.0
    """How long after the last other address those of no known kind begin (go ``PublicOtherDelay``)."""

    def __post_init__(self) -> None:
        steps = (self.public_step, self.private_step, self.public_further, self.private_further)
        if min(*steps, self.relay, self.unknown) < 0:
            raise ValueError("delays must not be negative")


class _Kind(enum.IntEnum):
    """What an address is reached by, the best first."""

    QUIC = 0
    WEBTRANSPORT = 1
    TCP = 2
    UNKNOWN = 3


@dataclass(slots=True)
class _Candidate:
    addr: Multiaddr
    kind: _Kind
    ip6: bool
    host: tuple[Part, ...]
    port: int


_PRIVATE = frozenset({Scope.PRIVATE, Scope.LOOPBACK, Scope.LINK_LOCAL})
_NAMES = frozenset({"dns", "dns4", "dns6", "dnsaddr"})


def rank(addrs: Sequence[Multiaddr], config: RankConfig | None = None) -> list[tuple[Multiaddr, float]]:
    """Give each of ``addrs`` the delay after which to try it, sorted by delay.

    The result depends on nothing but the arguments. Addresses that are alike keep their order, so a peerstore that
    lists its best first is heard; duplicates are dropped.

    Returns:
        Pairs of address and delay in seconds; the first delay is 0.
    """
    if len(addrs) == 1:
        return [(addrs[0], 0.0)]
    config = config or RankConfig()
    private: list[_Candidate] = []
    public: list[_Candidate] = []
    relayed: list[_Candidate] = []
    unknown: list[Multiaddr] = []
    for addr in dict.fromkeys(addrs):
        candidate = _classify(addr)
        if candidate.kind is _Kind.UNKNOWN:
            unknown.append(addr)
        elif is_relay(addr):
            relayed.append(candidate)
        elif scope(addr) in _PRIVATE:
            private.append(candidate)
        else:
            public.append(candidate)
    relay_delay = config.relay if private or public else 0.0
    ranked = [
        *_spread(private, 0.0, config.private_step, config.private_further),
        *_spread(public, 0.0, config.public_step, config.public_further),
        *_spread(relayed, relay_delay, config.public_step, config.public_further),
    ]
    last = max((delay for _, delay in ranked), default=-config.unknown)
    ranked += [(addr, last + config.unknown + index * config.public_further) for index, addr in enumerate(unknown)]
    ranked.sort(key=lambda item: item[1])  # stable: private before public before relayed
    return ranked


def _classify(addr: Multiaddr) -> _Candidate:
    """Read the transport part of ``addr``: of a relayed address, the way to the relay."""
    way = tuple(itertools.takewhile(lambda part: part.name not in ("p2p", "p2p-circuit"), parts(addr)))
    host = tuple(itertools.takewhile(lambda part: part.name not in ("tcp", "udp"), way))
    port = int.from_bytes(way[len(host)].value, "big") if len(way) > len(host) else 0
    names = {part.name for part in way}
    kind = _Kind.UNKNOWN
    if "webtransport" in names:
        kind = _Kind.WEBTRANSPORT
    elif "quic-v1" in names:
        kind = _Kind.QUIC
    elif "tcp" in names or ("udp" not in names and (names & _NAMES or is_relay(addr))):
        kind = _Kind.TCP  # also a /dnsaddr nobody resolved and a bare /p2p-circuit: worth a try like any other
    return _Candidate(addr, kind, bool(names & {"ip6", "dns6"}), host, port)


def _spread(candidates: list[_Candidate], start: float, step: float, further: float) -> list[tuple[Multiaddr, float]]:
    """Space the addresses of one group, kind after kind."""
    spread: list[tuple[Multiaddr, float]] = []
    for kind in _Kind:
        alike = [candidate for candidate in candidates if candidate.kind is kind]
        ip6 = _lowest_ports_first(candidate for candidate in alike if candidate.ip6)
        ip4 = _lowest_ports_first(candidate for candidate in alike if not candidate.ip6)
        ordered = [candidate for pair in zip(ip6, ip4, strict=False) for candidate in pair]
        ordered += ip6[len(ip4) :] + ip4[len(ip6) :]
        for index, candidate in enumerate(ordered):
            if spread:
                start += step if index < 2 else further
            spread.append((candidate.addr, start))
    return spread


def _lowest_ports_first(candidates: Iterable[_Candidate]) -> list[_Candidate]:
    """All hosts with their lowest port, then all with their next: one more port of a dead host helps nobody (go)."""
    hosts: dict[tuple[Part, ...], list[_Candidate]] = {}
    for candidate in candidates:
        hosts.setdefault(candidate.host, []).append(candidate)
    turns = [
        (turn, candidate)
        for ports in hosts.values()
        for turn, candidate in enumerate(sorted(ports, key=lambda item: item.port))
    ]
    return [candidate for _, candidate in sorted(turns, key=lambda item: item[0])]
