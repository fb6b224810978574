"""What the swarm counts, under the names of go-libp2p's dashboards. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

from multiaddr import Multiaddr

from ..abc import Direction, ProtocolId
from ..addressing import names
from ..errors import DialTimeout, Libp2pError, TransportError
from ..metrics import MAX_SERIES, OTHER, Histogram, Kind, LabelValues, Metric, Tally, Value, bounded

_TRANSPORTS = ("p2p-circuit", "webrtc-direct", "webtransport", "quic-v1", "wss", "ws", "tcp", "memory")
"""What an address is called by, the first that is in it."""
_CONNECTION = ("dir", "transport", "security", "muxer", "ip_version")
_DURATIONS = tuple([2.0**power for power in range(-4, 21)])
"""Seconds, up to 12 days (go)."""
_MANY_DIALS = 6
"""Attempts from which on they are no longer told apart (go)."""


class Measured(Protocol):
    """What is counted of a connection."""

    security: ProtocolId
    muxer: ProtocolId
    opened_at: float

    @property
    def direction(self) -> Direction: ...

    @property
    def remote_addr(self) -> Multiaddr: ...


class SwarmCounters:
    """Connections that came and went, and dials that failed."""

    def __init__(self) -> None:
        self._opened = Tally()
        self._closed = Tally()
        self._dial_errors = Tally()
        self._dials = Tally()
        self._durations: dict[LabelValues, Value] = {}

    def opened(self, conn: Measured) -> None:
        """A connection came up."""
        self._opened.add(*_labels(conn))

    def closed(self, conn: Measured, now: float) -> None:
        """A connection is gone."""
        labels = _labels(conn)
        self._closed.add(*labels)
        if labels not in self._durations and len(self._durations) >= MAX_SERIES:
            labels = (OTHER,) * len(labels)
        durations = self._durations.setdefault(labels, Histogram(_DURATIONS))
        assert isinstance(durations, Histogram)
        durations.observe(now - conn.opened_at)

    def dial_failed(self, addr: Multiaddr, exc: Exception) -> None:
        """An attempt on one address failed."""
        self._dial_errors.add(_transport(addr), _kind(exc), _ip_version(addr))

    def dialled(self, attempts: int, *, success: bool) -> None:
        """All attempts to reach one peer have ended."""
        count = str(attempts) if attempts < _MANY_DIALS else f">={_MANY_DIALS}"
        self._dials.add("success" if success else "failed", count)

    def measure(self) -> Iterator[Metric]:
        """The counts so far."""
        yield self._opened.metric("libp2p_swarm_connections_opened_total", "Connections opened", *_CONNECTION)
        yield self._closed.metric("libp2p_swarm_connections_closed_total", "Connections closed", *_CONNECTION)
        yield Metric(
            "libp2p_swarm_connection_duration_seconds",
            "How long connections lived that are closed",
            Kind.HISTOGRAM,
            self._durations,
            _CONNECTION,
        )
        yield self._dial_errors.metric(
            "libp2p_swarm_dial_errors_total", "Attempts that failed, by address", "transport", "error", "ip_version"
        )
        yield self._dials.metric(
            "libp2p_swarm_dials_per_peer_total", "Addresses tried for a peer", "outcome", "num_dials"
        )


def measure_use(
    conns: Sequence[Measured], streams: Iterable[tuple[LabelValues, int]], refusals: Iterable[tuple[str, int]]
) -> Iterator[Metric]:
    """What is in use now, and how often a limit was in the way.

    Args:
        streams: how many, by direction and protocol.
        refusals: how often, by limit.
    """
    directions = [conn.direction for conn in conns]
    by_direction: dict[LabelValues, Value] = {(one.value, "system"): directions.count(one) for one in Direction}
    yield Metric("libp2p_rcmgr_connections", "Connections now", Kind.GAUGE, by_direction, ("dir", "scope"))
    found = [((direction, "protocol", protocol), float(count)) for (direction, protocol), count in streams]
    labels = ("dir", "scope", "protocol")
    yield Metric("libp2p_rcmgr_streams", "Streams now, by protocol", Kind.GAUGE, bounded(found), labels)
    blocked: dict[LabelValues, Value] = {("system", limit): count for limit, count in refusals if count}
    yield Metric(
        "libp2p_rcmgr_blocked_resources",
        "How often a limit was in the way",
        Kind.COUNTER,
        blocked,
        ("scope", "resource"),
    )


def _labels(conn: Measured) -> LabelValues:
    addr = conn.remote_addr
    return (conn.direction.value, _transport(addr), conn.security, conn.muxer, _ip_version(addr))


def _transport(addr: Multiaddr) -> str:
    found = names(addr)
    return next((name for name in _TRANSPORTS if name in found), OTHER)


def _ip_version(addr: Multiaddr) -> str:
    return next((name for name in names(addr) if name in ("ip4", "ip6")), "unknown")


def _kind(exc: Exception) -> str:
    """Why a dial failed, in go's words where it has some."""
    if isinstance(exc, DialTimeout):
        return "deadline"
    if isinstance(exc, TransportError) and "refused" in exc.reason.lower():
        return "connection refused"
    return type(exc).__name__ if isinstance(exc, Libp2pError) else OTHER
