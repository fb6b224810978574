"""Kinds of addresses that lead nowhere, found out over many dials."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libp2p.addressing import parse
from libp2p.swarm._black_hole import BlackHoleConfig, BlackHoles, Detector, Way

SMALL = BlackHoleConfig(window=4, min_successes=2)
UDP = parse("/ip4/1.2.3.4/udp/1/quic-v1")
TCP = parse("/ip4/1.2.3.4/tcp/1")
TCP6 = parse("/ip6/2001:4860::1/tcp/1")
UDP6 = parse("/ip6/2001:4860::1/udp/1/quic-v1")
PRIVATE = parse("/ip4/10.0.0.1/udp/1/quic-v1")
RELAYED = parse("/ip4/1.2.3.4/udp/1/quic-v1/p2p/12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp/p2p-circuit")


def after(*results: bool) -> Detector:
    detector = Detector(SMALL)
    for result in results:
        detector.record(result)
    return detector


@pytest.mark.parametrize(
    ("results", "state"),
    [
        ("", Way.PROBING),
        ("---", Way.PROBING),
        ("--+-", Way.BLOCKED),
        ("--++", Way.ALLOWED),
        ("++--", Way.ALLOWED),
        ("++---", Way.BLOCKED),
        ("-----", Way.BLOCKED),
        ("----+", Way.PROBING),
        ("----+---", Way.BLOCKED),
        ("----++--", Way.ALLOWED),
    ],
)
def test_states(results: str, state: Way) -> None:
    assert after(*(result == "+" for result in results)).state is state


def test_while_blocked_one_dial_in_a_window_probes() -> None:
    detector = after(*[False] * 4)
    asked = [detector.ask() for _ in range(8)]
    assert asked == [*[Way.BLOCKED] * 3, Way.PROBING, *[Way.BLOCKED] * 3, Way.PROBING]
    detector.record(True)
    assert [detector.ask() for _ in range(8)] == [Way.PROBING] * 8


@given(st.lists(st.booleans(), max_size=60))
def test_blocked_exactly_when_too_few_of_a_full_window_worked(results: list[bool]) -> None:
    detector = Detector(SMALL)
    window: list[bool] = []
    for result in results:
        if result and len(window) == 4 and sum(window) < 2:
            window.clear()
        window = [*window, result][-4:]
        detector.record(result)
        blocked = len(window) == 4 and sum(window) < 2
        assert (detector.state is Way.BLOCKED) == blocked
        assert detector.successes == sum(window)


def blocked(addr: str) -> BlackHoles:
    holes = BlackHoles(SMALL)
    for _ in range(4):
        holes.record(parse(addr), worked=False)
    return holes


def test_only_the_kind_that_does_not_work_is_left_out() -> None:
    holes = blocked(str(UDP))
    assert holes.states == {"udp": Way.BLOCKED, "ip6": Way.PROBING}
    assert holes.refusals([UDP, TCP, TCP6, UDP6]) == dict.fromkeys(
        [UDP, UDP6], "left out: UDP seems to be blocked here, 0 of the last 4 dials worked"
    )
    holes = blocked(str(TCP6))
    assert holes.refusals([UDP, TCP6, UDP6]) == dict.fromkeys(
        [TCP6, UDP6], "left out: IPv6 seems to be blocked here, 0 of the last 4 dials worked"
    )


def test_one_dial_asks_once_however_many_addresses_it_has() -> None:
    holes = blocked(str(UDP))
    many = [parse(f"/ip4/1.2.3.4/udp/{port}/quic-v1") for port in range(1, 9)]
    assert [len(holes.refusals([*many, TCP])) for _ in range(8)] == [8, 8, 8, 0, 8, 8, 8, 0]


def test_what_is_left_out_is_never_all_there_is() -> None:
    holes = blocked(str(UDP))
    assert holes.refusals([UDP, UDP6]) == {}
    assert holes.refusals([]) == {}


def test_private_and_relayed_addresses_do_not_count() -> None:
    for addr in (PRIVATE, RELAYED):
        holes = blocked(str(addr))
        assert holes.states == {"udp": Way.PROBING, "ip6": Way.PROBING}
        assert blocked(str(UDP)).refusals([addr, TCP]) == {}


@pytest.mark.parametrize(("window", "needed"), [(0, 0), (4, 0), (4, 5)])
def test_senseless_windows_are_refused(window: int, needed: int) -> None:
    with pytest.raises(ValueError, match="black hole"):
        BlackHoleConfig(window=window, min_successes=needed)
    assert BlackHoles().states == {"udp": Way.PROBING, "ip6": Way.PROBING}
