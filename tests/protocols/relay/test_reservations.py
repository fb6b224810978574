"""Who gets reservations and circuits: requirements R5, R10, R13, case R1."""

from __future__ import annotations

import random

import pytest

from libp2p.addressing import parse
from libp2p.peer_id import PeerId
from libp2p.protocols.relay import RelayLimits
from libp2p.protocols.relay._reservations import Circuits, Reservations
from libp2p.testing.keys import seeded_key

NOWHERE = parse("/memory/1")


def peer(name: object) -> PeerId:
    return PeerId.from_key(seeded_key(name).public_key)


def at(ip: str) -> str:
    return f"/ip{6 if ':' in ip else 4}/{ip}/tcp/1"


def test_r13_defaults() -> None:
    limits = RelayLimits()
    assert (limits.reservations, limits.reservations_per_ip, limits.reservations_per_network) == (128, 8, 32)
    assert limits.circuits_per_pair == 4
    assert (limits.circuits_per_peer, limits.circuit_duration, limits.circuit_data) == (16, 120, 128 * 1024)
    assert limits.reservation_ttl == 3600


@pytest.mark.parametrize(
    "wrong", [{"reservations": -1}, {"reservation_ttl": 0}, {"circuit_data": 0}, {"circuit_duration": -1}]
)
def test_limits_that_make_no_sense(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"must not be negative|a circuit needs"):
        RelayLimits(**wrong)


def test_r5_renewal_and_end() -> None:
    table = Reservations(RelayLimits(reservation_ttl=100))
    one = peer(1)
    granted = table.reserve(one, NOWHERE, 0.0)
    assert granted is not None and granted.expires == 100.0 == table.next_timeout()
    assert table.holds(one, 99.9) and not table.holds(one, 100.0)
    renewed = table.reserve(one, NOWHERE, 60.0)
    assert renewed is not None and renewed.expires == 160.0
    assert table.expire(159.0) == [] and len(table) == 1
    assert table.expire(160.0) == [one] and len(table) == 0
    assert table.next_timeout() is None
    assert not table.remove(one)


def test_r1_a_storm_of_renewals_changes_nothing() -> None:
    table = Reservations(RelayLimits(renewal_pause=30))
    first = table.reserve(peer(1), NOWHERE, 0.0)
    assert all(table.reserve(peer(1), NOWHERE, now / 100) is first for now in range(2999))
    assert table.reserve(peer(1), NOWHERE, 30.0) is not first


def test_r1_a_thousand_peers() -> None:
    table = Reservations(RelayLimits())
    rng = random.Random(1)
    addrs = [parse(at(".".join(str(rng.randrange(1, 255)) for _ in range(4)))) for _ in range(1000)]
    granted = [number for number, addr in enumerate(addrs) if table.reserve(peer(number), addr, 0.0)]
    assert granted == list(range(128)) and len(table) == 128
    # Holders can always renew, and a place that is given back is taken by the next.
    assert all(table.reserve(peer(number), addrs[number], 60.0) for number in granted)
    assert table.remove(peer(5))
    assert table.reserve(peer(500), addrs[500], 60.0) is not None


@pytest.mark.parametrize(
    ("ips", "room"),
    [
        (["1.2.3.4"] * 100, 8),
        ([f"1.2.3.{number}" for number in range(100)], 32),
        (["2001:db8::1:2:3:4"] * 100, 8),
        ([f"2001:db8::{number:x}" for number in range(100)], 8),
        ([f"2001:db8:{number:x}::1" for number in range(100)], 32),
    ],
)
def test_r1_one_address_or_neighbourhood(ips: list[str], room: int) -> None:
    table = Reservations(RelayLimits())
    granted = [table.reserve(peer(number), parse(at(ip)), 0.0) for number, ip in enumerate(ips)]
    assert sum(found is not None for found in granted) == room
    assert table.reserve(peer("elsewhere"), parse(at("9.9.9.9")), 0.0) is not None


def test_a_renewal_from_elsewhere_moves_when_there_is_room() -> None:
    table = Reservations(RelayLimits(reservations_per_ip=1, renewal_pause=0))
    here, there = parse(at("1.2.3.4")), parse(at("5.6.7.8"))
    assert table.reserve(peer(1), here, 0.0) and table.reserve(peer(2), there, 0.0)
    # The other address is full: he keeps his place where he was.
    assert table.reserve(peer(1), there, 1.0) and table.reserve(peer(3), here, 1.0) is None
    assert table.remove(peer(2)) and table.reserve(peer(1), there, 2.0)
    assert table.reserve(peer(3), here, 2.0)


def test_each_holder_of_an_address_counts() -> None:
    table = Reservations(RelayLimits(reservations_per_ip=2))
    here = parse(at("1.2.3.4"))
    assert table.reserve(peer(1), here, 0.0) and table.reserve(peer(2), here, 0.0)
    assert table.remove(peer(1)) and table.reserve(peer(3), here, 0.0)
    assert table.reserve(peer(4), here, 0.0) is None


def test_ended_ones_give_their_address_back() -> None:
    table = Reservations(RelayLimits(reservations_per_ip=1, reservation_ttl=10))
    here = parse(at("1.2.3.4"))
    assert table.reserve(peer(1), here, 0.0) and table.reserve(peer(2), here, 5.0) is None
    assert table.expire(10.0) == [peer(1)]
    assert table.reserve(peer(2), here, 10.0)


def test_r3_circuits() -> None:
    circuits = Circuits(RelayLimits(circuits=3, circuits_per_peer=2))
    one, two, three, four, five = (peer(number) for number in range(5))
    first, second = circuits.reserve(one, two), circuits.reserve(three, one)
    assert first is not None and second is not None
    assert circuits.of(one) == 2 and circuits.of(two) == 1
    assert circuits.reserve(one, four) is None and circuits.reserve(four, one) is None
    with second:
        assert circuits.reserve(four, five) is not None
        assert circuits.reserve(four, two) is None  # three in all
    assert len(circuits) == 2 and circuits.of(one) == 1 and circuits.of(three) == 0
    assert circuits.reserve(four, one) is not None


def test_r3_one_peer_does_not_take_all_the_circuits_of_another() -> None:
    circuits = Circuits(RelayLimits())
    tokens = [circuits.reserve(peer("greedy"), peer("wanted")) for _ in range(5)]
    assert [token is not None for token in tokens] == [True] * 4 + [False]
    assert circuits.reserve(peer("other"), peer("wanted")) is not None
    assert circuits.reserve(peer("wanted"), peer("greedy")) is not None
    for token in tokens[:4]:
        assert token is not None
        with token:
            pass
    assert circuits.reserve(peer("greedy"), peer("wanted")) is not None
