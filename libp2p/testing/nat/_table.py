"""What a NAT remembers, and what it lets through. Pure.

A *mapping* gives an inside endpoint a port on the outside: one for all it talks to, or one for each address or endpoint
it talks to. A *filter* decides who outside may send to that port: anybody, or those the inside endpoint has sent to.
These two, and whether a host inside can reach another by its outside address (*hairpinning*), are all that hole
punching meets of a NAT. Unsolicited packets are dropped without a word, as RFC 5382 wants it for six seconds at least.

Sources: RFC 4787 (UDP), RFC 5382 (TCP), RFC 5508 (ICMP).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from ipaddress import IPv4Address

from ._packets import Endpoint, Flow, Protocol, read, rewrite

FIRST_PORT = 1024
"""Lower ports are not given out."""
_PORTS = 0x10000 - FIRST_PORT

_Remote = tuple[object, ...]


class Dependence(enum.Enum):
    """On what of the other end a mapping or a filter depends."""

    NOTHING = "endpoint-independent"
    ADDRESS = "address-dependent"
    ADDRESS_AND_PORT = "address-and-port-dependent"

    def of(self, remote: Endpoint) -> _Remote:
        """What of ``remote`` makes a difference."""
        if self is Dependence.NOTHING:
            return ()
        return (remote.ip,) if self is Dependence.ADDRESS else tuple(remote)


@dataclass(frozen=True, slots=True, kw_only=True)
class NatConfig:
    """What kind of NAT it is."""

    mapping: Dependence = Dependence.NOTHING
    filtering: Dependence = Dependence.ADDRESS_AND_PORT
    hairpin: bool = False
    """Whether hosts inside reach each other by their outside addresses."""
    udp: bool = True
    """Whether UDP gets through at all."""
    udp_timeout: float = 120.0
    """Seconds a mapping lasts after the last packet from inside (RFC 4787, REQ-5)."""
    tcp_timeout: float = 7440.0
    """The same for TCP, once somebody has answered (RFC 5382, REQ-5)."""
    tcp_transitory: float = 240.0
    """And before that, and once the connection is being closed (RFC 5382, REQ-5)."""
    icmp_timeout: float = 60.0
    """The same for ICMP (RFC 5508, REQ-2)."""
    mappings: int = 4096
    """Most at a time; what would need another one is dropped (ours)."""
    remotes: int = 256
    """Most endpoints that a mapping lets in; the one that was sent to least recently gives way (ours)."""

    def __post_init__(self) -> None:
        times = (self.udp_timeout, self.tcp_timeout, self.tcp_transitory, self.icmp_timeout)
        if min(times) <= 0 or not 0 < self.mappings <= _PORTS or self.remotes < 1:
            raise ValueError("times and bounds must be positive, and there are only so many ports")


KINDS: dict[str, NatConfig] = {
    "full-cone": NatConfig(filtering=Dependence.NOTHING),
    "restricted": NatConfig(filtering=Dependence.ADDRESS),
    "port-restricted": NatConfig(),
    "hairpin": NatConfig(hairpin=True),
    "address-symmetric": NatConfig(mapping=Dependence.ADDRESS),
    "symmetric": NatConfig(mapping=Dependence.ADDRESS_AND_PORT),
    "udp-blocked": NatConfig(udp=False),
}
"""NATs by the names people call them."""


@dataclass(slots=True)
class _Mapping:
    key: _Remote
    protocol: Protocol
    inside: Endpoint
    port: int
    sent: float = 0.0
    """When the host inside last sent something."""
    answered: bool = False
    ending: bool = False
    remotes: dict[_Remote, None] = field(default_factory=dict[_Remote, None])


class Nat:
    """One NAT.

    Args:
        outside: its address on the outside.
        config: of what kind it is.
    """

    def __init__(self, outside: IPv4Address, config: NatConfig) -> None:
        self.outside = outside
        self.config = config
        self._by_key: dict[_Remote, _Mapping] = {}
        self._by_port: dict[tuple[Protocol, int], _Mapping] = {}
        self._next_port = 0

    @property
    def mappings(self) -> int:
        """How many it remembers; those that have ended go when room is needed."""
        return len(self._by_key)

    def leave(self, packet: bytes, now: float) -> bytes | None:
        """Take a packet from inside: what goes out, or None when it is dropped."""
        flow = read(packet)
        if flow is None or (flow.protocol is Protocol.UDP and not self.config.udp):
            return None
        if flow.protocol is Protocol.ICMP and not flow.source.port:
            return None  # an answer to a question that never came in
        mapping = self._mapping(flow, now)
        if mapping is None:
            return None
        remote = self.config.filtering.of(flow.target)
        mapping.remotes.pop(remote, None)
        mapping.remotes[remote] = None
        if len(mapping.remotes) > self.config.remotes:
            del mapping.remotes[next(iter(mapping.remotes))]
        mapping.ending |= flow.ends
        mapping.sent = now
        return rewrite(packet, flow, source=Endpoint(self.outside, mapping.port))

    def enter(self, packet: bytes, now: float) -> bytes | None:
        """Take a packet from outside for this NAT: what goes in, or None when it is dropped."""
        flow = read(packet)
        if flow is None or flow.target.ip != self.outside:
            return None
        mapping = self._by_port.get((flow.protocol, flow.target.port))
        if mapping is None or self._has_ended(mapping, now):
            return None
        if self.config.filtering.of(flow.source) not in mapping.remotes:
            return None
        mapping.answered = True
        mapping.ending |= flow.ends
        return rewrite(packet, flow, target=mapping.inside)

    def _mapping(self, flow: Flow, now: float) -> _Mapping | None:
        key = (flow.protocol, flow.source, self.config.mapping.of(flow.target))
        mapping = self._by_key.get(key)
        if mapping is not None and self._has_ended(mapping, now):
            self._forget(mapping)
            mapping = None
        if mapping is None:
            if len(self._by_key) >= self.config.mappings:
                for old in [old for old in self._by_key.values() if self._has_ended(old, now)]:
                    self._forget(old)
            if len(self._by_key) >= self.config.mappings:
                return None
            port = self._free_port(flow)
            mapping = _Mapping(key=key, protocol=flow.protocol, inside=flow.source, port=port)
            self._by_key[key] = self._by_port[flow.protocol, port] = mapping
        return mapping

    def _forget(self, mapping: _Mapping) -> None:
        del self._by_key[mapping.key]
        del self._by_port[mapping.protocol, mapping.port]

    def _free_port(self, flow: Flow) -> int:
        """The inside port where that is free and says nothing wrong about the next one; else any."""
        port = flow.source.port
        if self.config.mapping is not Dependence.NOTHING or port < FIRST_PORT:
            port = self._another_port()
        while (flow.protocol, port) in self._by_port:
            port = self._another_port()
        return port

    def _another_port(self) -> int:
        # A step that is prime to the number of ports meets all of them, and no two neighbours in a row.
        self._next_port = (self._next_port + 7919) % _PORTS
        return FIRST_PORT + self._next_port

    def _has_ended(self, mapping: _Mapping, now: float) -> bool:
        return mapping.sent + self._timeout(mapping) <= now

    def _timeout(self, mapping: _Mapping) -> float:
        if mapping.protocol is Protocol.UDP:
            return self.config.udp_timeout
        if mapping.protocol is Protocol.ICMP:
            return self.config.icmp_timeout
        lasting = mapping.answered and not mapping.ending
        return self.config.tcp_timeout if lasting else self.config.tcp_transitory
