"""Addresses → (address, delay), to the millisecond."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multiaddr import Multiaddr

from libp2p.addressing import parse
from libp2p.peer_id import PeerId
from libp2p.swarm._dial_rank import RankConfig, rank

RELAY = PeerId.parse("QmNnooDu7bfjPFoTZYxMNLWUQJyrVwtbZg5gBMjTezGAJN")

QUIC6 = "/ip6/2600::1/udp/4001/quic-v1"
QUIC4 = "/ip4/1.2.3.4/udp/4001/quic-v1"
TCP6 = "/ip6/2600::1/tcp/4001"
TCP4 = "/ip4/1.2.3.4/tcp/4001"
LAN_QUIC6 = "/ip6/fd00::1/udp/4001/quic-v1"
LAN_QUIC4 = "/ip4/192.168.0.1/udp/4001/quic-v1"
LAN_TCP4 = "/ip4/192.168.0.1/tcp/4001"
HERE_TCP4 = "/ip4/127.0.0.1/tcp/4001"
CIRCUIT = f"/ip4/5.6.7.8/tcp/4001/p2p/{RELAY}/p2p-circuit"
WEBRTC = "/ip4/1.2.3.4/udp/4001/webrtc-direct"
TRANSPORT = "/ip4/1.2.3.4/udp/4001/quic-v1/webtransport"


def ranked(addrs: Sequence[str], config: RankConfig | None = None) -> list[tuple[str, float]]:
    return [(str(addr), round(delay, 6)) for addr, delay in rank([parse(addr) for addr in addrs], config)]


@pytest.mark.parametrize(
    ("given_addrs", "expected"),
    [
        pytest.param([], [], id="nothing"),
        pytest.param([TCP4], [(TCP4, 0)], id="one address never waits"),
        pytest.param([CIRCUIT], [(CIRCUIT, 0)], id="one relay never waits"),
        pytest.param([WEBRTC], [(WEBRTC, 0)], id="one unknown never waits"),
        pytest.param(
            [TCP4, TCP6, QUIC4, QUIC6],
            [(QUIC6, 0), (QUIC4, 0.25), (TCP6, 0.5), (TCP4, 0.75)],
            id="public: QUIC before TCP, IPv6 before IPv4, 250 ms",
        ),
        pytest.param([TCP4, QUIC4], [(QUIC4, 0), (TCP4, 0.25)], id="TCP 250 ms after the last QUIC"),
        pytest.param([TCP4, TCP6], [(TCP6, 0), (TCP4, 0.25)], id="IPv4 250 ms after IPv6"),
        pytest.param(
            [LAN_TCP4, LAN_QUIC4, LAN_QUIC6],
            [(LAN_QUIC6, 0), (LAN_QUIC4, 0.03), (LAN_TCP4, 0.06)],
            id="private: 30 ms",
        ),
        pytest.param([HERE_TCP4, LAN_TCP4], [(HERE_TCP4, 0), (LAN_TCP4, 0.03)], id="loopback is private"),
        pytest.param(
            [TCP4, QUIC4, LAN_TCP4, LAN_QUIC4],
            [(LAN_QUIC4, 0), (QUIC4, 0), (LAN_TCP4, 0.03), (TCP4, 0.25)],
            id="both groups start together",
        ),
        pytest.param(
            [CIRCUIT, TCP4, QUIC4],
            [(QUIC4, 0), (TCP4, 0.25), (CIRCUIT, 0.5)],
            id="relay 500 ms late when there is a direct address",
        ),
        pytest.param([CIRCUIT, LAN_TCP4], [(LAN_TCP4, 0), (CIRCUIT, 0.5)], id="also when that is private"),
        pytest.param([CIRCUIT, WEBRTC], [(CIRCUIT, 0), (WEBRTC, 1.0)], id="unknown one second after all"),
        pytest.param([WEBRTC, TCP4, QUIC4], [(QUIC4, 0), (TCP4, 0.25), (WEBRTC, 1.25)], id="unknown last"),
        pytest.param([TCP4, TCP4], [(TCP4, 0)], id="duplicates are dropped"),
        pytest.param(
            [TRANSPORT, QUIC4, TCP4],
            [(QUIC4, 0), (TRANSPORT, 0.25), (TCP4, 0.5)],
            id="WebTransport after QUIC",
        ),
        pytest.param(
            ["/dns4/example.com/tcp/1", "/dns6/example.com/tcp/1"],
            [("/dns6/example.com/tcp/1", 0), ("/dns4/example.com/tcp/1", 0.25)],
            id="names that were not resolved",
        ),
        pytest.param(["/p2p-circuit", TCP4], [(TCP4, 0), ("/p2p-circuit", 0.5)], id="any relay"),
        pytest.param(["/memory/1", "/memory/2"], [("/memory/1", 0), ("/memory/2", 0.05)], id="memory"),
    ],
)
def test_ranking(given_addrs: list[str], expected: list[tuple[str, float]]) -> None:
    assert ranked(given_addrs) == expected


def test_further_addresses_of_a_kind_follow_in_small_steps_and_do_not_hold_up_tcp() -> None:
    many = [f"/ip4/1.2.3.{host}/udp/1/quic-v1" for host in range(10)]
    delays = [delay for _, delay in ranked([*many, TCP4])]
    assert delays == [0, 0.25, *[round(0.25 + 0.05 * step, 6) for step in range(1, 9)], 0.9]


def test_lowest_port_of_every_host_first() -> None:
    """go: only the lowest port per IP and transport first."""
    given_addrs = ["/ip4/1.1.1.1/tcp/9", "/ip4/1.1.1.1/tcp/5", "/ip4/2.2.2.2/tcp/7"]
    order = [addr for addr, _ in ranked(given_addrs)]
    assert order == ["/ip4/1.1.1.1/tcp/5", "/ip4/2.2.2.2/tcp/7", "/ip4/1.1.1.1/tcp/9"]


def test_families_alternate() -> None:
    six = [f"/ip6/2600::{host}/tcp/1" for host in (1, 2, 3)]
    four = ["/ip4/1.1.1.1/tcp/1"]
    assert [addr for addr, _ in ranked([*four, *six])] == [six[0], four[0], six[1], six[2]]


def test_alike_addresses_keep_their_order() -> None:
    """The peerstore lists the best first."""
    hosts = ["/ip4/9.9.9.9/tcp/1", "/ip4/1.1.1.1/tcp/1", "/ip4/5.5.5.5/tcp/1"]
    assert [addr for addr, _ in ranked(hosts)] == hosts


def test_delays_are_configurable_and_checked() -> None:
    config = RankConfig(public_step=1, relay=3, unknown=5)
    assert ranked([TCP4, TCP6, CIRCUIT, WEBRTC], config) == [(TCP6, 0), (TCP4, 1), (CIRCUIT, 3), (WEBRTC, 8)]
    with pytest.raises(ValueError, match="negative"):
        RankConfig(private_step=-1)


ADDRS = st.lists(
    st.sampled_from(
        [QUIC6, QUIC4, TCP6, TCP4, LAN_QUIC6, LAN_QUIC4, LAN_TCP4, HERE_TCP4, CIRCUIT, WEBRTC, TRANSPORT, "/memory/1"]
    ).map(parse)
)


@given(ADDRS)
def test_every_address_once_sorted_and_the_first_at_once(addrs: list[Multiaddr]) -> None:
    result = rank(addrs)
    assert {addr for addr, _ in result} == set(addrs)
    assert len(result) == len(set(addrs))
    delays = [delay for _, delay in result]
    assert delays == sorted(delays)
    assert delays[:1] in ([], [0.0])
    assert rank(addrs) == result
