"""The counters that enforce the limits of ``_limit_table``. Pure.

Theory of operation. :class:`Scopes` holds one counter table per row of the table of limits. Whoever starts something
reserves first and gets a :class:`Token`; releasing the token gives back exactly what was taken, once, however often it
is released. A reservation that spans several counters takes all of them or none.

An inbound connection is charged before anything about it is believed: :meth:`Scopes.reserve_pending` when it is
accepted (totals, address, rate), and :meth:`Scopes.reserve_connection` once the peer is known, which takes over what
the pending token held.

Rows whose policy is ``WAIT`` are waited for by the driver (a semaphore of the row's value); the counter here shows the
use, and refuses if the driver forgot to wait.
"""

from __future__ import annotations

import functools
from collections.abc import Hashable, Mapping
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TypeVar, cast

from multiaddr import Multiaddr

from .._util.bounded import LruMap
from ..addressing import host_port, is_relay
from ..errors import LimitExceeded
from ._limit_table import IpNetworkLimit, LimitRow, LimitsConfig, OnFull, limit_table

__all__ = [
    "IpNetworkLimit",
    "LimitRow",
    "LimitsConfig",
    "OnFull",
    "PendingToken",
    "Scopes",
    "StreamToken",
    "Token",
    "limit_table",
    "source_ip",
]

IpAddress = IPv4Address | IPv6Address

_parsed = functools.lru_cache(1024)(ip_address)


def source_ip(remote_addr: Multiaddr) -> str | None:
    """The address that a connection's limits count for; None where there is none, as on memory or relayed ones.

    A relay is no reason to refuse those behind it: it limits them itself.
    """
    target = None if is_relay(remote_addr) else host_port(remote_addr)
    return None if target is None else target[0]


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
        self.since: float = since
        self.stage: int = 0


class StreamToken(Token):
    """A stream. Its protocol is charged when it is known, by :meth:`Scopes.assign_protocol`."""

    __slots__ = ("_inbound", "_peer", "_protocol")

    def __init__(self, peer: Hashable, inbound: bool) -> None:
        super().__init__()
        self._peer = peer
        self._inbound = inbound
        self._protocol: str | None = None


TokenT = TypeVar("TokenT", bound=Token)
_Charge = tuple[str, Hashable, float]
"""A limit's name, whose counter, and the limit."""


class Scopes:
    """Counts what is in use and refuses what is too much.

    Args:
        config: the limits.
    """

    def __init__(self, config: LimitsConfig | None = None) -> None:
        self.config: LimitsConfig = config or LimitsConfig()
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
        self._charge_all(token, charges)
        try:
            # Last, because a connection that is refused for another reason should not use it up.
            self._take_rate(address, now)
        except LimitExceeded:
            token.release()
            raise
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
            address = _parsed(ip)
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
        try:
            if inbound:
                self._charge(token, "streams_inbound", None, config.streams_inbound)
                self._charge(token, "streams_inbound_per_connection", conn, config.streams_inbound_per_connection)
            else:
                self._charge(token, "streams_outbound_per_connection", conn, config.streams_outbound_per_connection)
            if protocol is not None:
                self._charge_protocol(token, protocol)
        except LimitExceeded:
            token.release()
            raise
        return token

    def assign_protocol(self, token: StreamToken, protocol: str) -> None:
        """Charge the protocol that was agreed on for a stream. Once per stream; later calls do nothing.

        Raises:
            LimitExceeded: the stream must be reset; its token still holds the rest.
        """
        if token._held and token._protocol is None:
            self._charge_protocol(token, protocol)

    def _charge_protocol(self, token: StreamToken, protocol: str) -> None:
        key = (token._peer, protocol)
        if token._inbound:
            limit = self._protocol_limits.get(protocol, self.config.streams_inbound_per_protocol)
            self._charge(token, "streams_inbound_per_protocol", key, limit)
        else:
            self._charge(token, "streams_outbound_per_protocol", key, self.config.streams_outbound_per_protocol)
        token._protocol = protocol

    def streams(self) -> Mapping[tuple[str, str], int]:
        """How many streams there are, by direction and protocol."""
        found: dict[tuple[str, str], int] = {}
        for direction in ("inbound", "outbound"):
            for key, count in self._tables[f"streams_{direction}_per_protocol"].items():
                _, protocol = cast("tuple[Hashable, str]", key)
                found[direction, protocol] = found.get((direction, protocol), 0) + count
        return found

    # --- counting -----------------------------------------------------------------------------------------------------

    def _reserve(self, charges: list[_Charge]) -> Token:
        return self._charge_all(Token(), charges)

    def _charge_all(self, token: TokenT, charges: list[_Charge]) -> TokenT:
        """Charge all of it, or none."""
        try:
            for scope, key, limit in charges:
                self._charge(token, scope, key, limit)
        except LimitExceeded:
            token.release()
            raise
        return token

    def _charge(self, token: Token, scope: str, key: Hashable, limit: float) -> None:
        table = self._tables[scope]
        used = table.get(key, 0)
        if used >= limit:
            self._refuse(scope, limit)
        table[key] = used + 1
        token._held.append((table, key))

    def _refuse(self, scope: str, limit: float) -> None:
        self._refused[scope] += 1
        raise LimitExceeded(scope, limit)
