"""What the swarm counts."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import pytest
from multiaddr import Multiaddr

from libp2p.abc import Direction
from libp2p.errors import DialTimeout, NoAddresses, TransportError
from libp2p.metrics import MAX_SERIES, OTHER, Histogram, LabelValues, Metric, Value
from libp2p.swarm._limits import Scopes
from libp2p.swarm._measured import SwarmCounters, measure_use

ADDR = Multiaddr("/ip6/::1/udp/1/quic-v1")


@dataclass
class Conn:
    security: str = "/noise"
    muxer: str = "/yamux/1.0.0"
    opened_at: float = 100.0
    direction: Direction = Direction.INBOUND
    remote_addr: Multiaddr = ADDR


def values(metrics: Iterable[Metric], name: str) -> dict[LabelValues, Value]:
    (found,) = [metric for metric in metrics if metric.name == name]
    return dict(found.values)


def test_connections() -> None:
    counters = SwarmCounters()
    counters.opened(Conn())
    counters.closed(Conn(), now=103.0)
    labels = ("inbound", "quic-v1", "/noise", "/yamux/1.0.0", "ip6")
    assert values(counters.measure(), "libp2p_swarm_connections_opened_total") == {labels: 1}
    assert values(counters.measure(), "libp2p_swarm_connections_closed_total") == {labels: 1}
    duration = values(counters.measure(), "libp2p_swarm_connection_duration_seconds")[labels]
    assert isinstance(duration, Histogram)
    assert (duration.count, duration.sum) == (1, 3.0)


def test_durations_are_bounded() -> None:
    counters = SwarmCounters()
    for number in range(MAX_SERIES + 5):
        counters.closed(Conn(security=str(number)), now=101.0)
    found = values(counters.measure(), "libp2p_swarm_connection_duration_seconds")
    rest = found[(OTHER,) * 5]
    assert len(found) == MAX_SERIES + 1
    assert isinstance(rest, Histogram)
    assert rest.count == 5


@pytest.mark.parametrize(
    ("addr", "exc", "labels"),
    [
        (
            "/ip4/1.2.3.4/tcp/1",
            TransportError(Multiaddr("/ip4/1.2.3.4/tcp/1"), "Connection refused"),
            ("tcp", "connection refused", "ip4"),
        ),
        (
            "/ip4/1.2.3.4/tcp/1",
            TransportError(Multiaddr("/ip4/1.2.3.4/tcp/1"), "no route"),
            ("tcp", "TransportError", "ip4"),
        ),
        ("/ip6/::1/tcp/1/ws", DialTimeout("transport", 1.0), ("ws", "deadline", "ip6")),
        ("/dns4/example.com/udp/1", NoAddresses(None, []), ("other", "NoAddresses", "unknown")),
        ("/memory/1", OSError("!"), ("memory", "other", "unknown")),
    ],
)
def test_failed_dials(addr: str, exc: Exception, labels: LabelValues) -> None:
    counters = SwarmCounters()
    counters.dial_failed(Multiaddr(addr), exc)
    assert values(counters.measure(), "libp2p_swarm_dial_errors_total") == {labels: 1}


def test_dials() -> None:
    counters = SwarmCounters()
    counters.dialled(1, success=True)
    counters.dialled(7, success=False)
    counters.dialled(6, success=False)
    assert values(counters.measure(), "libp2p_swarm_dials_per_peer_total") == {
        ("success", "1"): 1,
        ("failed", ">=6"): 2,
    }


def test_use() -> None:
    metrics = [*measure_use([Conn(), Conn()], [(("inbound", "/x"), 3)], [("dials", 0), ("streams_inbound", 2)])]
    assert values(metrics, "libp2p_rcmgr_connections") == {("outbound", "system"): 0, ("inbound", "system"): 2}
    assert values(metrics, "libp2p_rcmgr_streams") == {("inbound", "protocol", "/x"): 3.0}
    assert values(metrics, "libp2p_rcmgr_blocked_resources") == {("system", "streams_inbound"): 2}


def test_streams_by_protocol() -> None:
    scopes = Scopes()
    with (
        scopes.reserve_stream("conn", "a", inbound=True, protocol="/x"),
        scopes.reserve_stream("conn", "b", inbound=True, protocol="/x"),
        scopes.reserve_stream("conn", "b", inbound=False, protocol="/y"),
    ):
        assert scopes.streams() == {("inbound", "/x"): 2, ("outbound", "/y"): 1}
    assert scopes.streams() == {}
