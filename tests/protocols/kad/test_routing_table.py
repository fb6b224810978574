"""Key space and routing table: requirements KD1, KD18, cases K5 and K6."""

from __future__ import annotations

import hashlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libp2p.addressing import parse
from libp2p.peer_id import PeerId
from libp2p.protocols.kad import Reach, RoutingTable, TableConfig
from libp2p.protocols.kad._addrs import group_of, groups_of, readable
from libp2p.protocols.kad._keyspace import BITS, common_prefix, point_of, preimage


def peer(number: int) -> PeerId:
    return PeerId.from_bytes(b"\x12\x20" + hashlib.sha256(number.to_bytes(8, "big")).digest())


LOCAL = peer(0)
POINT = point_of(bytes(LOCAL))


def in_bucket(index: int, count: int, start: int = 1) -> list[PeerId]:
    """Peers that share exactly ``index`` bits with us."""
    found: list[PeerId] = []
    while len(found) < count:
        if common_prefix(point_of(bytes(peer(start))), POINT) == index:
            found.append(peer(start))
        start += 1
    return found


def filled(count: int, config: TableConfig | None = None) -> RoutingTable:
    table = RoutingTable(LOCAL, config)
    for number in range(1, count + 1):
        table.add(peer(number), (), 0.0)
    return table


# --- the key space ----------------------------------------------------------------------------------------------------


def test_kd1_points() -> None:
    """KD1."""
    assert point_of(b"key") == int(hashlib.sha256(b"key").hexdigest(), 16)
    assert common_prefix(0, 0) == BITS
    assert common_prefix(0, 1 << 255) == 0
    assert common_prefix(0, 1) == 255


@pytest.mark.parametrize("prefix", [0, 1, 7])
def test_preimages(prefix: int) -> None:
    found = preimage(POINT, prefix, random.Random(1))
    assert common_prefix(point_of(found), POINT) == prefix


def test_no_preimage_takes_for_ever() -> None:
    with pytest.raises(ValueError, match="16"):
        preimage(POINT, 16, random.Random(1))


# --- buckets ----------------------------------------------------------------------------------------------------------


def test_groups_are_those_it_was_reached_at() -> None:
    table = RoutingTable(LOCAL)
    table.add(peer(1), (b"a", b"b"), 0.0)
    assert table.groups(peer(1)) == (b"a", b"b")
    assert table.groups(peer(2)) == ()


def test_kd1_a_thousand_peers() -> None:
    """KD1: k of each bucket, and the nearest are those a full sort finds."""
    table = filled(1000)
    by_bucket: dict[int, int] = {}
    for entry in table:
        index = common_prefix(entry.point, POINT)
        by_bucket[index] = by_bucket.get(index, 0) + 1
    assert by_bucket[0] == by_bucket[1] == 20
    assert max(by_bucket.values()) == 20
    entries = list(table)
    for number in range(2000, 2100):
        target = point_of(bytes(peer(number)))
        expected = sorted(entries, key=lambda entry: entry.point ^ target)
        assert table.nearest(target, 20) == [entry.peer for entry in expected[:20]]
    assert table.nearest(POINT, 20) == [entry.peer for entry in sorted(entries, key=lambda e: e.point ^ POINT)[:20]]


def test_never_itself() -> None:
    table = filled(3)
    assert not table.add(LOCAL, (), 0.0)
    assert not table.wants(LOCAL)
    assert LOCAL not in table
    assert len(table) == 3


def test_k5_a_full_bucket_keeps_whom_it_has() -> None:
    """K5."""
    old = in_bucket(0, 25)
    table = RoutingTable(LOCAL)
    for each in old[:20]:
        assert table.add(each, (), 0.0)
    assert all(not table.add(each, (), 1.0) for each in old[20:])
    assert all(each in table for each in old[:20])
    assert table.remove(old[0]) == old[24]  # who asked last waits first: it was there a moment ago
    assert table.add(old[24], (), 2.0)


def test_k5_one_failure_costs_no_place_and_two_do() -> None:
    """K5."""
    table = filled(3)
    assert table.failed(peer(1)) is None
    assert peer(1) in table
    assert peer(1) not in table.nearest(POINT, 20, healthy=True)
    assert peer(1) in table.nearest(POINT, 20)
    table.add(peer(1), (), 1.0)  # it has answered
    table.failed(peer(1))
    assert peer(1) in table
    table.failed(peer(1))
    assert peer(1) not in table
    assert table.failed(peer(1)) is None
    assert table.remove(peer(1)) is None


def test_who_has_failed_gives_way() -> None:
    old = in_bucket(0, 21)
    table = RoutingTable(LOCAL)
    for each in old[:20]:
        table.add(each, (), 0.0)
    table.failed(old[7])
    assert table.add(old[20], (), 1.0)
    assert old[7] not in table


def test_those_who_wait_are_bounded() -> None:
    config = TableConfig(bucket_size=2)
    table = RoutingTable(LOCAL, config)
    for each in in_bucket(0, 10):
        table.add(each, (), 0.0)
    newcomer = in_bucket(0, 11)[-1]
    assert not table.wants(newcomer)
    held = next(iter(table)).peer
    assert not table.wants(held)
    table.remove(held)
    assert table.wants(newcomer)
    far = RoutingTable(LOCAL, config)
    for each in in_bucket(0, 3):
        far.add(each, (), 0.0)
    assert far.wants(newcomer)  # one may wait still


def test_k6_groups() -> None:
    """K6: two of one group in a bucket, three in the table."""
    table = RoutingTable(LOCAL)
    near, far = in_bucket(0, 4), in_bucket(1, 4)
    assert [table.add(each, (b"g",), 0.0) for each in near] == [True, True, False, False]
    assert [table.add(each, (b"g",), 0.0) for each in far] == [True, False, False, False]
    assert table.add(far[1], (b"other",), 0.0)
    table.remove(near[0])
    assert table.add(near[2], (b"g",), 0.0)
    table.remove(far[1])
    assert table.add(far[1], (b"other", b"third"), 0.0)


def test_a_refused_peer_does_not_wait() -> None:
    table = RoutingTable(LOCAL, TableConfig(bucket_size=2))
    a, b, c = in_bucket(0, 3)
    table.add(a, (b"1",), 0.0)
    table.add(b, (b"1",), 0.0)
    table.add(c, (), 0.0)
    assert not table.add(c, (b"1",), 0.0)
    assert table.remove(a) is None


def test_k7_the_radius_holds_half_a_bucket_wherever_one_looks() -> None:
    """K7: half of k, so that in peace nobody is asked for it."""
    assert filled(19).radius() == 0
    radius = filled(1000).radius()
    points = [point_of(bytes(peer(number))) for number in range(1, 1001)]
    inside = [sum([point ^ target < radius for point in points]) for target in points[:200]]
    assert 6 <= sum(inside) / len(inside) <= 14


# --- keeping it fresh -------------------------------------------------------------------------------------------------


def test_kd13_stale_buckets() -> None:
    """KD13: as far as there are peers."""
    table = RoutingTable(LOCAL)
    assert table.stale(0.0, 600) == [0]
    table.add(in_bucket(2, 1)[0], (), 0.0)
    assert table.stale(0.0, 600) == [0, 1, 2]
    table.looked_up(POINT ^ (1 << 254), 100.0)
    assert table.stale(100.0, 600) == [0, 2]
    assert table.stale(700.0, 600) == [0, 1, 2]


def test_the_silent_are_found() -> None:
    table = filled(3)
    table.add(peer(2), (), 50.0)
    assert table.silent(100.0, 60, 10) == [peer(1), peer(3)]
    assert len(table.silent(100.0, 60, 1)) == 1


def test_bounds_are_positive() -> None:
    with pytest.raises(ValueError, match="positive"):
        TableConfig(per_group=0)


@given(st.lists(st.tuples(st.integers(1, 60), st.sampled_from("arf")), max_size=80))
def test_counts_agree(steps: list[tuple[int, str]]) -> None:
    table = RoutingTable(LOCAL, TableConfig(bucket_size=3))
    for number, step in steps:
        group = (bytes((number % 5,)),)
        if step == "a":
            table.add(peer(number), group, 0.0)
        elif step == "r":
            table.remove(peer(number))
        else:
            table.failed(peer(number))
    counts: dict[bytes, int] = {}
    for entry in table:
        for each in entry.groups:
            counts[each] = counts.get(each, 0) + 1
    assert counts == table._groups
    assert all(count <= 3 for count in counts.values())
    assert sum(len(bucket.entries) for bucket in table._buckets) == len(table)


# --- addresses --------------------------------------------------------------------------------------------------------


def test_k6_what_a_group_is() -> None:
    """K6: IPv4 /16, IPv6 /32, and the old /8 blocks; nothing but public addresses."""
    assert group_of(parse("/ip4/8.8.1.1/tcp/1")) == group_of(parse("/ip4/8.8.200.1/tcp/2"))
    assert group_of(parse("/ip4/8.8.1.1/tcp/1")) != group_of(parse("/ip4/8.9.1.1/tcp/1"))
    assert group_of(parse("/ip4/17.1.1.1/tcp/1")) == group_of(parse("/ip4/17.200.1.1/tcp/1"))
    assert group_of(parse("/ip6/2a00:1450:4001::1/tcp/1")) == group_of(parse("/ip6/2a00:1450:ffff::1/tcp/1"))
    assert group_of(parse("/ip6/2a00:1450::1/tcp/1")) != group_of(parse("/ip6/2a00:1451::1/tcp/1"))
    assert group_of(parse("/ip4/10.1.1.1/tcp/1")) is None
    found = groups_of([parse("/ip4/8.8.1.1/tcp/1"), parse("/ip4/8.8.1.2/tcp/1"), parse("/ip4/127.0.0.1/tcp/1")])
    assert len(found) == 1


def test_reach() -> None:
    public, private, name = parse("/ip4/8.8.8.8/tcp/1"), parse("/ip4/10.0.0.1/tcp/1"), parse("/dns4/example.com/tcp/1")
    relayed = parse(f"/ip4/8.8.8.8/tcp/1/p2p/{peer(1)}/p2p-circuit")
    assert [Reach.PUBLIC.admits(addr) for addr in (public, private, name, relayed)] == [True, False, True, False]
    assert [Reach.PRIVATE.admits(addr) for addr in (public, private, name, relayed)] == [False, True, False, False]
    assert [Reach.ANY.admits(addr) for addr in (public, private, name, relayed)] == [True, True, True, False]
    # Others are told of relayed ones as well, when the relay belongs into the network, and is named.
    nowhere = parse("/p2p-circuit")
    assert [Reach.PUBLIC.tells(addr) for addr in (public, private, relayed, nowhere)] == [True, False, True, False]
    assert [Reach.PRIVATE.tells(addr) for addr in (public, private, relayed, nowhere)] == [False, True, False, False]


def test_k4_addresses_that_name_somebody_else_are_not_read() -> None:
    """K4."""
    base = "/ip4/8.8.8.8/tcp/1"
    given_ = [base, f"{base}/p2p/{peer(1)}", f"{base}/p2p/{peer(2)}", f"/p2p/{peer(1)}"]
    found = readable([*(parse(text).to_bytes() for text in given_), b"nonsense"], peer(1))
    assert found == [parse(base), parse(base)]
