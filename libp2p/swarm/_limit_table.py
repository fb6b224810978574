"""Every limit of the swarm in one table, with what happens when it is full and where the number comes from. Pure.

A limit is a field of :class:`LimitsConfig` with its policy and source as metadata. :func:`limit_table` turns the fields
into rows, and documentation, metrics and tests read those rows, so that no limit can exist without a policy and a test.
``_limits`` enforces them.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, fields, replace
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TypeVar

NumberT = TypeVar("NumberT", int, float)

_CONNECTION_MEMORY = 64 * 1024
"""What one idle connection is taken to cost when limits are fitted to memory: the 40 KB bar of case T5, with slack."""


class OnFull(enum.Enum):
    """What happens to the work that finds a limit full."""

    REFUSE = "refuse"
    """The newcomer is refused with ``LimitExceeded``; what is there stays."""
    WAIT = "wait"
    """The newcomer waits its turn, within its deadline."""
    EVICT = "evict"
    """The oldest entry that made no progress makes room; when there is none, the newcomer is refused."""
    FORGET = "forget"
    """The entry used longest ago is dropped; it is bookkeeping, nothing breaks."""


def _limit(default: NumberT, on_full: OnFull, source: str, *, counted: bool = True) -> NumberT:
    # Typed as its value so that the fields below read as plain defaults.
    value: NumberT = field(default=default, metadata={"on_full": on_full, "source": source, "counted": counted})
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class IpNetworkLimit:
    """Other limits for one network, whose addresses are then counted together: 50 nodes behind one NAT, or a cluster.

    Attributes:
        network: in CIDR notation; the longest matching one counts.
        connections: open inbound connections from the whole network.
        rate: new ones per second.
        burst: new ones at once.
    """

    network: str
    connections: int
    rate: float
    burst: int

    def __post_init__(self) -> None:
        ip_network(self.network)  # ValueError for nonsense
        if self.connections < 0 or self.rate < 0 or self.burst < 0:
            raise ValueError(f"limits of {self.network} must not be negative")

    @property
    def parsed(self) -> IPv4Network | IPv6Network:
        """The network as a value."""
        return ip_network(self.network)


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsConfig:
    """The limits of a host, all on by default. The connection manager trims at 192; these are the walls behind it.

    ``connections`` and ``connections_inbound`` are not go's base of 128 and 64, because every new connection has a
    minute of grace in which it is not trimmed: a bootstrap node that a thousand newcomers join within that minute
    (case X10, no refusal allowed) needs room for all of them, and go reaches the same room by scaling with
    memory. At 40 KB each (T5) 1,280 connections cost 50 MB. The 256 that inbound cannot take stay free for our own
    dials, so that a flood never cuts us off from peers that we choose. :meth:`fitted` lowers both on small machines.
    """

    connections: int = _limit(1280, OnFull.REFUSE, "ours: inbound + 256 for our own dials; cases X10, T5")
    connections_inbound: int = _limit(1024, OnFull.REFUSE, "ours: a join of 1,000 nodes within the grace, X10")
    connections_per_peer: int = _limit(8, OnFull.REFUSE, "go resource manager, peer scope")
    connections_per_ip: int = _limit(8, OnFull.REFUSE, "go conn_limiter.go: per IPv4 /32, inbound here")
    connections_per_ip6_56: int = _limit(8, OnFull.REFUSE, "go conn_limiter.go: per IPv6 /56, inbound here")
    connections_per_ip6_48: int = _limit(64, OnFull.REFUSE, "go conn_limiter.go: per IPv6 /48, inbound here")
    connection_rate_per_ip: float = _limit(0.2, OnFull.REFUSE, "go conn_rate_limiter.go: new per second", counted=False)
    connection_burst_per_ip: int = _limit(16, OnFull.REFUSE, "go conn_rate_limiter.go: new at once", counted=False)
    connection_rate_per_ip6_48: float = _limit(0.5, OnFull.REFUSE, "go conn_rate_limiter.go, as above", counted=False)
    connection_burst_per_ip6_48: int = _limit(80, OnFull.REFUSE, "go conn_rate_limiter.go, as above", counted=False)
    rate_entries: int = _limit(16384, OnFull.FORGET, "ours: addresses whose rate is remembered, 3 MB", counted=False)
    pending_inbound: int = _limit(64, OnFull.EVICT, "ours; case T1")
    dials: int = _limit(160, OnFull.WAIT, "go limiter.go: concurrent dials")
    dials_per_peer: int = _limit(8, OnFull.WAIT, "go limiter.go, rust; the dial plan waits by itself")
    dial_queue: int = _limit(500, OnFull.REFUSE, "js connection manager; T10: callers waiting for a dial")
    dial_addresses_per_peer: int = _limit(25, OnFull.FORGET, "js and T9: no more are tried in one dial", counted=False)
    streams_inbound: int = _limit(16384, OnFull.REFUSE, "ours: of all connections; four times X10's 200 x 20")
    streams_inbound_per_connection: int = _limit(256, OnFull.REFUSE, "go resource manager, peer scope")
    streams_outbound_per_connection: int = _limit(512, OnFull.REFUSE, "go resource manager, peer scope")
    streams_inbound_per_protocol: int = _limit(128, OnFull.REFUSE, "ours: as many as our own side opens")
    streams_outbound_per_protocol: int = _limit(128, OnFull.REFUSE, "ours: per protocol and peer")
    protocols: tuple[tuple[str, int], ...] = (
        ("/ipfs/ping/1.0.0", 2),
        ("/libp2p/autonat/1.0.0", 2),
        ("/libp2p/autonat/2/dial-request", 2),
        ("/libp2p/autonat/2/dial-back", 2),
    )
    """Protocols with their own ``streams_inbound_per_protocol`` (go: ping 2 and autonat 2 per peer)."""
    networks: tuple[IpNetworkLimit, ...] = ()
    """Networks with their own limits per address and rate."""
    exempt_loopback: bool = True
    """Whether 127/8 and ::1 are free of the limits per address and rate (go: yes). Tests that flood switch it off."""

    def __post_init__(self) -> None:
        for row in limit_table(self):
            if row.value < 0:
                raise ValueError(f"limit {row.name} must not be negative")
        if self.connections_inbound > self.connections:
            raise ValueError("connections_inbound must not exceed connections")
        if self.rate_entries < 1:
            raise ValueError("rate_entries must be at least one")

    def fitted(self, *, memory: int | None = None, file_descriptors: int | None = None) -> LimitsConfig:
        """Lower the limits to what a machine can carry; never raise them.

        Half of the file descriptors and an eighth of the memory go to connections, as in go's auto-scaling.

        Args:
            memory: bytes of memory of the machine or its control group.
            file_descriptors: the soft limit of the process.
        """
        room = [self.connections]
        dials = [self.dials]
        if memory is not None:
            room.append(memory // 8 // _CONNECTION_MEMORY)
        if file_descriptors is not None:
            room.append(file_descriptors // 2)
            dials.append(max(8, file_descriptors // 4))
        connections = max(8, min(room))
        if connections >= self.connections:
            return replace(self, dials=min(dials))
        inbound = min(self.connections_inbound, connections * 4 // 5)
        return replace(self, connections=connections, connections_inbound=inbound, dials=min(dials))


@dataclass(frozen=True, slots=True)
class LimitRow:
    """One line of the table of limits.

    Attributes:
        name: the field of :class:`LimitsConfig`, and the scope that ``LimitExceeded`` names.
        value: the most that is allowed.
        on_full: what happens beyond it.
        source: where the number comes from.
        counted: whether :meth:`Scopes.usage` shows it; rates and sizes of tables have no use to show.
    """

    name: str
    value: float
    on_full: OnFull
    source: str
    counted: bool


def limit_table(config: LimitsConfig) -> list[LimitRow]:
    """All limits with their values in ``config``: what documentation, metrics and tests read."""
    return [
        LimitRow(name=item.name, value=getattr(config, item.name), **item.metadata)
        for item in fields(config)
        if "on_full" in item.metadata
    ]
