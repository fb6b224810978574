"""What ``libp2p doctor`` has found, and what follows from it. Pure."""

from __future__ import annotations

import enum
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from multiaddr import Multiaddr

from ..addressing import Scope, host_port, names, scope


class State(enum.StrEnum):
    """How a check came out."""

    GOOD = "ok"
    BAD = "problem"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one check has found.

    Attributes:
        state: how it came out.
        words: what that means, for people.
        advice: what to do about it; empty when there is nothing to do.
        details: for programs.
    """

    state: State
    words: str
    advice: str = ""
    details: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """How a peer sees this machine.

    Attributes:
        peer: the peer's address.
        local: this machine's end of the connection.
        seen: this machine's end, as the peer sees it.
    """

    peer: Multiaddr
    local: Multiaddr
    seen: Multiaddr


@dataclass(frozen=True, slots=True, kw_only=True)
class Try:
    """What came of it that a peer was asked to dial this machine.

    Attributes:
        server: the peer's address.
        addr: where it was to dial.
        reached: whether it got through; None when it did not try.
        reason: why it did not try, for people.
    """

    server: Multiaddr
    addr: Multiaddr
    reached: bool | None
    reason: str = ""


ASK_PEERS = "give peers on the internet: --peer ADDR, twice; or --public for those of IPFS"
_ELSEWHERE = (Scope.PUBLIC, Scope.OTHER)
"""Where a peer may be on the other side of a NAT. Those of the local network are on this one."""


def judge_nat(observations: Iterable[Observation]) -> Finding:
    """What lies between this machine and the internet, by what peers see of it.

    How a NAT maps shows when one UDP socket is seen by several: at one and the same port, so that a port that one peer
    was told of works for others (RFC 4787: endpoint-independent), or at another one for each of them.
    """
    usable = [each for each in observations if scope(each.peer) in _ELSEWHERE and _ip_version(each.local) == "ip4"]
    if not usable:
        return Finding(state=State.UNKNOWN, words="no peer on the internet says how it sees this machine",
                       advice=ASK_PEERS, details={"kind": "unknown"})  # fmt: skip
    addresses = sorted({_socket(each.seen)[0] for each in usable})
    details: dict[str, object] = {"addresses": addresses}
    if all(_socket(each.seen)[0] == _socket(each.local)[0] for each in usable):
        return Finding(state=State.GOOD, words=f"no NAT: peers see {addresses[0]}, which is this machine",
                       details={**details, "kind": "none"})  # fmt: skip
    sockets: dict[tuple[str, int], dict[str, tuple[str, int]]] = {}
    for each in usable:
        if "udp" in names(each.local):
            sockets.setdefault(_socket(each.local), {})[_socket(each.peer)[0]] = _socket(each.seen)
    several = [seen.values() for seen in sockets.values() if len(seen) > 1]
    seen_at = ", ".join(addresses)
    if not several:
        return Finding(state=State.UNKNOWN, words=f"behind a NAT: peers see {seen_at}; how it maps ports is not known",
                       advice="give two peers that serve QUIC, at different addresses",
                       details={**details, "kind": "unknown"})  # fmt: skip
    if all(len(set(seen)) == 1 for seen in several):
        return Finding(state=State.GOOD, words=f"behind a NAT that can be punched: all peers see one port of {seen_at}",
                       details={**details, "kind": "endpoint-independent"})  # fmt: skip
    return Finding(state=State.BAD,
                   words=f"behind a NAT that cannot be punched: each peer sees another port of {seen_at} (symmetric)",
                   advice="be reached through a relay: libp2p listen RELAY/p2p-circuit",
                   details={**details, "kind": "symmetric"})  # fmt: skip


def judge_reachability(tries: Iterable[Try]) -> Finding:
    """Whether others can dial this machine, as those found that were asked to (AutoNAT version 2)."""
    tries = list(tries)
    outside = [each for each in tries if scope(each.server) in _ELSEWHERE]
    told = [each for each in outside if each.reached is not None]
    through = [each for each in told if each.reached]
    outcomes: dict[bool | None, str] = {True: "reached", False: "not reached"}
    details = {
        "tries": [
            {"server": str(each.server), "addr": str(each.addr), "outcome": outcomes.get(each.reached, each.reason)}
            for each in tries
        ]
    }
    if through:
        words = f"{len(through)} of {len(told)} peers get through to {through[0].addr}"
        return Finding(state=State.GOOD, words=words, details=details)
    if told:
        wanted = " or ".join(dict.fromkeys(str(each.addr) for each in told))
        return Finding(state=State.BAD, words=f"none of {len(told)} peers gets through to {wanted}",
                       advice="let a TCP port through, in the router and the firewall, and look again with --port N",
                       details=details)  # fmt: skip
    if outside:
        return Finding(state=State.UNKNOWN, words=f"nobody tries: {outside[0].reason}", advice="ask again later",
                       details=details)  # fmt: skip
    if any(each.reached for each in tries):
        return Finding(state=State.UNKNOWN, words="peers of this network get through; from outside nobody tried",
                       advice=ASK_PEERS, details=details)  # fmt: skip
    return Finding(state=State.UNKNOWN, words="no peer on the internet was reached that tries (AutoNAT 2)",
                   advice=ASK_PEERS, details=details)  # fmt: skip


def judge_interfaces(addrs: Iterable[Multiaddr]) -> Finding:
    """Which addresses this machine has, by what a node listens on."""
    found: dict[str, Scope] = {_socket(addr)[0]: scope(addr) for addr in addrs}
    outside = [ip for ip, each in found.items() if each is not Scope.LOOPBACK]
    details = {"addresses": {ip: each.value for ip, each in found.items()}}
    if not outside:
        return Finding(state=State.BAD, words="this machine has no network: there is nothing but loopback",
                       advice="connect this machine to a network", details=details)  # fmt: skip
    words = ", ".join(f"{ip} ({found[ip].value})" for ip in outside)
    return Finding(state=State.GOOD, words=words, details=details)


def conclude(findings: Mapping[str, Finding], *, asked: Collection[str] = ()) -> tuple[str, str]:
    """The verdict: whether others can reach a node on this machine, and the next step.

    Args:
        findings: by check.
        asked: the peers and relays that were given.
    """

    def detail(check: str, name: str) -> object:
        return findings[check].details.get(name) if check in findings else None

    def is_good(check: str) -> bool:
        return check in findings and findings[check].state is State.GOOD

    def is_bad(check: str) -> bool:
        return check in findings and findings[check].state is State.BAD

    if is_bad("interfaces"):
        return findings["interfaces"].words, findings["interfaces"].advice
    if asked and is_bad("peers"):
        return "none of the given peers could be reached", "try from another network, or other peers: --peer ADDR"
    if is_good("reachability"):
        return "peers can reach a node here", "libp2p listen /ip4/0.0.0.0/tcp/4001"
    if detail("nat", "kind") == "none" and not is_bad("reachability"):
        return (
            "peers can reach a node here, unless a firewall keeps them out",
            "listen on a port that the firewall lets through: libp2p listen /ip4/0.0.0.0/tcp/4001",
        )
    if is_good("port mapping"):
        return "the router will let peers in", "libp2p listen /ip4/0.0.0.0/tcp/4001 --port-map"
    if is_good("relays"):
        return "peers can reach a node here through the relay", "libp2p listen RELAY/p2p-circuit"
    if detail("nat", "kind") == "none":
        return "a firewall keeps peers out", "have it let a port through, and look again: libp2p doctor --port 4001"
    if detail("nat", "kind") in ("endpoint-independent", "symmetric") or is_bad("reachability"):
        return "peers cannot reach a node here by themselves", "find a relay, and try it: libp2p doctor --relay ADDR"
    return "whether peers can reach a node here is not known", ASK_PEERS


def _socket(addr: Multiaddr) -> tuple[str, int]:
    found = host_port(addr)
    return ("", 0) if found is None else found


def _ip_version(addr: Multiaddr) -> str:
    return names(addr)[0]
