"""Every limit of the swarm, in one table, and the counters that enforce them. Pure.

Theory of operation. A limit is a field of :class:`LimitsConfig`; its metadata say what happens when it is full and
where the number comes from. :func:`limit_table` turns the fields into rows, and documentation, metrics and tests read
those rows, so that no limit can exist without a policy and a test. :class:`Scopes` holds one counter table per row.
Whoever starts something reserves first and gets a :class:`Token`; releasing the token gives back exactly what was
taken, once, however often it is released. A reservation that spans several counters takes all of them or none.

An inbound connection is charged before anything about it is believed: :meth:`Scopes.reserve_pending` when it is
accepted (totals, address, rate), :meth:`Scopes.reserve_handshake` around the cryptography, and
:meth:`Scopes.reserve_connection` once the peer is known, which takes over what the pending token held.

Rows whose policy is ``WAIT`` are waited for by the driver (a semaphore of the row's value); the counter here shows the
use, and refuses if the driver forgot to wait.
"""

from __future__ import annotations

import enum
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, fields, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TypeVar

from .._util.bounded import LruMap
from ..errors import LimitExceeded

NumberT = TypeVar("NumberT", int, float)
IpAddress = IPv4Address | IPv6Address

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
    (RELIABILITY case X10, no refusal allowed) needs room for all of them, and go reaches the same room by scaling with
    memory. At 40 KB each (T5) 1,280 connections cost 50 MB. The 256 that inbound cannot take stay free for our own
    dials, so that a flood never cuts us off from peers that we choose. :meth:`fitted` lowers both on small machines.
    """

    connections: int = _limit(1280, OnFull.REFUSE, "ours: inbound + 256 for our own dials; RELIABILITY X10, T5")
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
    pending_inbound: int = _limit(64, OnFull.EVICT, "RELIABILITY 4 and T1")
    handshakes_in_crypto: int = _limit(16, OnFull.WAIT, "RELIABILITY 4 and T2: 16 handshakes are 10 ms of CPU")
    dials: int = _limit(160, OnFull.WAIT, "go limiter.go: concurrent dials")
    dials_per_peer: int = _limit(8, OnFull.WAIT, "go limiter.go, rust; the dial plan waits by itself")
    dial_queue: int = _limit(500, OnFull.REFUSE, "js connection manager; T10: callers waiting for a dial")
    dial_addresses_per_peer: int = _limit(25, OnFull.FORGET, "js and T9: no more are tried in one dial", counted=False)
    streams_inbound: int = _limit(16384, OnFull.REFUSE, "ours: of all connections; four times X10's 200 x 20")
    streams_inbound_per_connection: int = _limit(256, OnFull.REFUSE, "go peer scope; RELIABILITY 4")
    streams_outbound_per_connection: int = _limit(512, OnFull.REFUSE, "go peer scope; RELIABILITY 4")
    streams_inbound_per_protocol: int = _limit(64, OnFull.REFUSE, "RELIABILITY 4: per protocol and peer")
    streams_outbound_per_protocol: int = _limit(128, OnFull.REFUSE, "RELIABILITY 4: per protocol and peer")
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


class Token:
    """Something that was reserved. Release it, or use it as a context manager; a second release does nothing."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held: list[tuple[dict[Hashable, int], Hashable]] = []

    @property
    def released(self) -> bool:
        """Whether it holds nothing any more."""
        return not self._held

    def release(self) -> None:
        """Give back what it holds. Idempotent."""
        held, self._held = self._held, []
        for table, key in held:
            if table[key] == 1:
                del table[key]  # entries at zero must not pile up, one per peer ever seen
            else:
                table[key] -= 1

    def __enter__(self) -> Token:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.release()


class PendingToken(Token):
    """An inbound connection between accept and a known peer.

    Attributes:
        since: when it was accepted.
        stage: how many steps of the upgrade are done. The driver counts finished steps, never bytes: a peer that sends
            one byte a second makes no progress.
    """

    __slots__ = ("since", "stage")

    def __init__(self, since: float) -> None:
        super().__init__()
        self.since = since
        self.stage = 0


class StreamToken(Token):
    """A stream. Its protocol is charged when it is known, by :meth:`Scopes.assign_protocol`."""

    __slots__ = ("_inbound", "_peer", "_protocol")

    def __init__(self, peer: Hashable, inbound: bool) -> None:
        super().__init__()
        self._peer = peer
        self._inbound = inbound
        self._protocol: str | None = None


_Charge = tuple[str, Hashable, float]
"""A limit's name, whose counter, and the limit."""


class Scopes:
    """Counts what is in use and refuses what is too much.

    Args:
        config: the limits.
    """

    def __init__(self, config: LimitsConfig | None = None) -> None:
        self.config = config or LimitsConfig()
        rows = limit_table(self.config)
        self._tables: dict[str, dict[Hashable, int]] = {row.name: {} for row in rows if row.counted}
        self._refused: dict[str, int] = {row.name: 0 for row in rows}
        self._rates: LruMap[Hashable, tuple[float, float]] = LruMap(self.config.rate_entries)
        # Insertion order is age; at most `pending_inbound` entries.
        self._pending: dict[PendingToken, None] = {}
        self._protocol_limits = dict(self.config.protocols)
        self._networks = sorted(
            ((limit.parsed, limit) for limit in self.config.networks), key=lambda item: -item[0].prefixlen
        )

    def usage(self) -> Mapping[str, int]:
        """How much of each limit is in use; for a limit per peer, address or protocol, of the fullest. Zero at idle."""
        return {name: max(table.values(), default=0) for name, table in self._tables.items()}

    def refusals(self) -> Mapping[str, int]:
        """How often each limit refused something, evictions included."""
        return dict(self._refused)

    # --- inbound connections ------------------------------------------------------------------------------------------

    def reserve_pending(self, ip: str | None, now: float) -> PendingToken:
        """Charge an accepted connection, before its first byte is read.

        Args:
            ip: the other end's address; None where there is none, as on memory or relayed connections.
            now: monotonic seconds.

        Raises:
            LimitExceeded: the connection must be closed. For ``pending_inbound``, :meth:`evict_pending` may help.
        """
        address = self._counted_ip(ip)
        token = PendingToken(now)
        charges = [*self._inbound_charges(address), ("pending_inbound", None, self.config.pending_inbound)]
        self._check(charges)
        # The rate last, because a connection that is refused for another reason should not use it up.
        self._take_rate(address, now)
        self._commit(token, charges)
        for stale in [held for held in self._pending if held.released]:
            del self._pending[stale]
        self._pending[token] = None
        return token

    def evict_pending(self, now: float, *, min_age: float = 0.1) -> PendingToken | None:
        """Release the pending connection that has done the fewest steps, the oldest among equals (case T1).

        Args:
            now: monotonic seconds.
            min_age: younger ones are spared, so that a flood cannot evict a peer within its first round trip.

        Returns:
            Its token, released: the caller ends that upgrade. None when nothing may be evicted.
        """
        candidates = [token for token in self._pending if not token.released and now - token.since >= min_age]
        if not candidates:
            return None
        victim = min(candidates, key=lambda token: token.stage)  # the first, that is the oldest, of the least
        victim.release()
        del self._pending[victim]
        self._refused["pending_inbound"] += 1
        return victim

    def reserve_handshake(self) -> Token:
        """Charge a handshake while it computes.

        Raises:
            LimitExceeded: the driver did not wait for its turn.
        """
        return self._reserve([("handshakes_in_crypto", None, self.config.handshakes_in_crypto)])

    def reserve_connection(
        self, peer: Hashable, ip: str | None, *, inbound: bool, pending: PendingToken | None = None
    ) -> Token:
        """Charge a connection to a known peer.

        Addresses are charged for inbound connections only: whom *we* dial is our choice, and peers that share an
        address are then not our problem.

        Args:
            peer: who it is.
            ip: the other end's address, None where there is none.
            inbound: whether the other side dialled.
            pending: the token from :meth:`reserve_pending`, whose charges move to the result. It is left untouched
                when this raises.

        Raises:
            LimitExceeded: the connection must be closed.
        """
        charges: list[_Charge] = [("connections_per_peer", peer, self.config.connections_per_peer)]
        if pending is None or pending.released:
            address = self._counted_ip(ip)
            charges += self._inbound_charges(address) if inbound else [("connections", None, self.config.connections)]
            return self._reserve(charges)
        token = self._reserve(charges)
        waiting = self._tables["pending_inbound"]
        token._held += [held for held in pending._held if held[0] is not waiting]
        pending._held = [held for held in pending._held if held[0] is waiting]
        pending.release()
        self._pending.pop(pending, None)
        return token

    def _inbound_charges(self, address: IpAddress | None) -> list[_Charge]:
        config = self.config
        charges: list[_Charge] = [
            ("connections", None, config.connections),
            ("connections_inbound", None, config.connections_inbound),
        ]
        if address is None:
            return charges
        network = self._network(address)
        if network is not None:
            charges.append(("connections_per_ip", network.network, network.connections))
        elif isinstance(address, IPv4Address):
            charges.append(("connections_per_ip", address, config.connections_per_ip))
        else:
            charges.append(("connections_per_ip6_56", int(address) >> 72, config.connections_per_ip6_56))
            charges.append(("connections_per_ip6_48", int(address) >> 80, config.connections_per_ip6_48))
        return charges

    def _counted_ip(self, ip: str | None) -> IpAddress | None:
        if ip is None:
            return None
        try:
            address = ip_address(ip)
        except ValueError:
            return None  # a transport whose peers have no IP addresses
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped  # a dual-stack socket must not give every IPv4 address the same /56
        return None if address.is_loopback and self.config.exempt_loopback else address

    def _network(self, address: IpAddress) -> IpNetworkLimit | None:
        for network, limit in self._networks:
            if address.version == network.version and address in network:
                return limit
        return None

    # --- rates --------------------------------------------------------------------------------------------------------

    def _take_rate(self, address: IpAddress | None, now: float) -> None:
        """Take one from each bucket of ``address``, or none."""
        levels: list[tuple[Hashable, float]] = []
        for scope, key, rate, burst in self._buckets(address):
            level, since = self._rates.get(key) or (float(burst), now)
            level = min(float(burst), level + max(0.0, now - since) * rate)
            if level < 1:
                self._refuse(scope, rate)
            levels.append((key, level - 1))
        for key, level in levels:
            self._rates[key] = (level, now)

    def _buckets(self, address: IpAddress | None) -> list[tuple[str, Hashable, float, int]]:
        config = self.config
        if address is None:
            return []
        network = self._network(address)
        if network is not None:
            return [("connection_rate_per_ip", network.network, network.rate, network.burst)]
        if isinstance(address, IPv4Address):
            key: Hashable = address
        else:
            key = (56, int(address) >> 72)
        buckets: list[tuple[str, Hashable, float, int]] = [
            ("connection_rate_per_ip", key, config.connection_rate_per_ip, config.connection_burst_per_ip)
        ]
        if isinstance(address, IPv6Address):
            rate, burst = config.connection_rate_per_ip6_48, config.connection_burst_per_ip6_48
            buckets.append(("connection_rate_per_ip6_48", (48, int(address) >> 80), rate, burst))
        return buckets

    # --- dials --------------------------------------------------------------------------------------------------------

    def reserve_queued_dial(self) -> Token:
        """Charge a caller that waits for a connection to be dialled.

        Raises:
            LimitExceeded: too many wait.
        """
        return self._reserve([("dial_queue", None, self.config.dial_queue)])

    def reserve_dial(self, peer: Hashable) -> Token:
        """Charge an attempt on one address of ``peer``; of nobody in particular when that is None.

        Raises:
            LimitExceeded: the driver did not wait for its turn.
        """
        charges: list[_Charge] = [("dials", None, self.config.dials)]
        if peer is not None:
            charges.append(("dials_per_peer", peer, self.config.dials_per_peer))
        return self._reserve(charges)

    # --- streams ------------------------------------------------------------------------------------------------------

    def reserve_stream(
        self, conn: Hashable, peer: Hashable, *, inbound: bool, protocol: str | None = None
    ) -> StreamToken:
        """Charge a stream.

        Args:
            conn: the connection that carries it.
            peer: who is at the other end.
            inbound: whether the other side opened it.
            protocol: its protocol, when that is known already.

        Raises:
            LimitExceeded: the stream must be reset.
        """
        config = self.config
        token = StreamToken(peer, inbound)
        charges: list[_Charge]
        if inbound:
            charges = [
                ("streams_inbound", None, config.streams_inbound),
                ("streams_inbound_per_connection", conn, config.streams_inbound_per_connection),
            ]
        else:
            charges = [("streams_outbound_per_connection", conn, config.streams_outbound_per_connection)]
        if protocol is not None:
            charges.append(self._protocol_charge(token, protocol))
        self._check(charges)
        token._protocol = protocol
        self._commit(token, charges)
        return token

    def assign_protocol(self, token: StreamToken, protocol: str) -> None:
        """Charge the protocol that was agreed on for a stream. Once per stream; later calls do nothing.

        Raises:
            LimitExceeded: the stream must be reset; its token still holds the rest.
        """
        if token.released or token._protocol is not None:
            return
        charges = [self._protocol_charge(token, protocol)]
        self._check(charges)
        token._protocol = protocol
        self._commit(token, charges)

    def _protocol_charge(self, token: StreamToken, protocol: str) -> _Charge:
        key = (token._peer, protocol)
        if token._inbound:
            limit = self._protocol_limits.get(protocol, self.config.streams_inbound_per_protocol)
            return ("streams_inbound_per_protocol", key, limit)
        return ("streams_outbound_per_protocol", key, self.config.streams_outbound_per_protocol)

    # --- counting -----------------------------------------------------------------------------------------------------

    def _reserve(self, charges: list[_Charge]) -> Token:
        self._check(charges)
        token = Token()
        self._commit(token, charges)
        return token

    def _check(self, charges: list[_Charge]) -> None:
        for scope, key, limit in charges:
            if self._tables[scope].get(key, 0) >= limit:
                self._refuse(scope, limit)

    def _commit(self, token: Token, charges: list[_Charge]) -> None:
        for scope, key, _ in charges:
            table = self._tables[scope]
            table[key] = table.get(key, 0) + 1
            token._held.append((table, key))

    def _refuse(self, scope: str, limit: float) -> None:
        self._refused[scope] += 1
        raise LimitExceeded(scope, limit)
