"""Queries: the lookup of the specification, its bounds, and disjoint paths; case K8."""

from __future__ import annotations

import hashlib
import heapq
import random
from collections.abc import Sequence
from typing import Any

import pytest

from libp2p.peer_id import PeerId
from libp2p.protocols.kad import QueryConfig
from libp2p.protocols.kad._keyspace import point_of
from libp2p.protocols.kad._query import Query
from libp2p.protocols.kad._sweep import Sweep


def peer(number: int) -> PeerId:
    return PeerId.from_bytes(b"\x12\x20" + hashlib.sha256(number.to_bytes(8, "big")).digest())


LOCAL, TARGET = peer(0), point_of(b"target")
BY_DISTANCE = sorted([peer(number) for number in range(1, 201)], key=lambda each: point_of(bytes(each)) ^ TARGET)


def plain(*peers: PeerId) -> list[tuple[PeerId, Sequence[bytes]]]:
    return [(each, ()) for each in peers]


def make(*seeds: PeerId, **changes: Any) -> Query:
    return Query(TARGET, LOCAL, plain(*seeds), QueryConfig(**changes))


def test_nobody_to_ask() -> None:
    query = make()
    assert query.finished
    assert query.next(0.0) == []
    assert query.closest() == []


def test_seeds_are_asked_once_and_never_this_host() -> None:
    query = make(BY_DISTANCE[0], LOCAL, BY_DISTANCE[0], paths=1)
    assert query.next(0.0) == [BY_DISTANCE[0]]


def test_it_asks_the_nearest_and_no_more_than_alpha() -> None:
    query = make(*BY_DISTANCE[:15], alpha=3, paths=1)
    assert query.next(0.0) == BY_DISTANCE[:3]
    assert query.next(0.0) == []
    query.answered(BY_DISTANCE[1])
    assert query.next(0.0) == [BY_DISTANCE[3]]
    assert not query.finished


def test_k6_those_of_one_ip_group_count_once() -> None:
    """K6: who is surrounded by identities behind one address looks farther, and finds the others."""
    query = make(BY_DISTANCE[10], k=3, paths=1, beta=1)
    assert query.next(0.0) == [BY_DISTANCE[10]]
    crowd = [(each, (b"a",)) for each in BY_DISTANCE[:4]]
    query.answered(BY_DISTANCE[10], [*crowd, *plain(*BY_DISTANCE[5:10])])
    assert query.next(0.0) == BY_DISTANCE[:3]
    for each in BY_DISTANCE[:3]:
        query.answered(each)
    assert not query.finished
    assert query.next(0.0) == BY_DISTANCE[5:7]  # the fourth of the crowd would count no more than the second
    query.answered(BY_DISTANCE[5])
    query.answered(BY_DISTANCE[6])
    assert query.finished
    assert query.closest() == BY_DISTANCE[:3]


def test_a_failed_one_is_asked_again_when_there_is_another_way_to_it() -> None:
    query = make(BY_DISTANCE[0], BY_DISTANCE[1])
    assert query.next(0.0) == BY_DISTANCE[:2]
    query.revive(BY_DISTANCE[0])  # nobody knows yet whether this way leads to it
    query.revive(BY_DISTANCE[5])
    query.failed(BY_DISTANCE[0])
    assert query.next(0.0) == []
    query.revive(BY_DISTANCE[0])
    assert query.next(0.0) == BY_DISTANCE[:1]
    query.answered(BY_DISTANCE[0])
    query.revive(BY_DISTANCE[0])
    query.answered(BY_DISTANCE[1])
    assert query.finished
    assert query.closest() == BY_DISTANCE[:2]
    assert query.asked == 3


def test_it_follows_nearer_peers_and_ends_when_the_nearest_have_answered() -> None:
    query = make(BY_DISTANCE[100], k=3, alpha=2, paths=1, beta=1)
    asked: list[PeerId] = []
    while not query.finished:
        for each in query.next(0.0):
            asked.append(each)
            rank = BY_DISTANCE.index(each)
            query.answered(each, plain(*BY_DISTANCE[max(0, rank - 40) : rank]))
    assert query.closest() == BY_DISTANCE[:3]
    assert query.hops == 4  # 100 to 60 to 20 to 0
    assert query.asked == len(asked) < 20


def test_failures_are_replaced() -> None:
    query = make(*BY_DISTANCE[:4], k=2, paths=1, beta=1)
    query.next(0.0)
    query.failed(BY_DISTANCE[0])
    query.failed(BY_DISTANCE[0])
    query.failed(LOCAL)
    query.answered(BY_DISTANCE[0])
    query.answered(BY_DISTANCE[1])
    assert not query.finished
    assert query.next(0.0) == [BY_DISTANCE[2]]
    query.answered(BY_DISTANCE[2])
    assert query.finished
    assert query.closest() == BY_DISTANCE[1:3]
    assert query.closest(1) == [BY_DISTANCE[1]]


def test_k4_nobody_is_asked_twice_and_never_this_host() -> None:
    """K4."""
    query = make(BY_DISTANCE[5], paths=1)
    assert query.next(0.0) == [BY_DISTANCE[5]]
    query.answered(BY_DISTANCE[5], plain(LOCAL, BY_DISTANCE[5], BY_DISTANCE[7], BY_DISTANCE[7]))
    query.answered(BY_DISTANCE[5], plain(BY_DISTANCE[9]))  # it was not asked again
    assert query.next(0.0) == [BY_DISTANCE[7]]
    query.failed(BY_DISTANCE[7])
    assert query.next(0.0) == []
    assert query.finished


def test_k6_a_group_gets_few_candidates_in() -> None:
    """K6."""
    query = make(BY_DISTANCE[100], paths=1, per_group=2)
    query.next(0.0)
    query.answered(BY_DISTANCE[100], [(each, (b"g",)) for each in BY_DISTANCE[:20]])
    assert query.next(0.0) == BY_DISTANCE[:2]


def test_k7_a_liar_does_not_fill_the_groups_of_others() -> None:
    """K7: peers that it made up, said to be where the honest are, and nobody is there."""
    honest, near, far, liar = BY_DISTANCE[5:7], BY_DISTANCE[:4], BY_DISTANCE[150:160], BY_DISTANCE[100]
    query = make(liar, BY_DISTANCE[101], paths=1, per_group=2, alpha=2)
    assert query.next(0.0) == [liar, BY_DISTANCE[101]]
    query.answered(liar, [(each, (b"g",)) for each in (*far, *near)])
    assert query.next(0.0) == near[:1]
    query.answered(BY_DISTANCE[101], [(each, (b"g",)) for each in honest])
    for fake in near:
        query.failed(fake)
        assert query.next(0.0)
    for each in honest:
        query.answered(each)
    assert query.closest(2) == honest


def test_k7_who_is_passed_over_gives_its_place_back() -> None:
    """K7: others of its group are asked, and it counts again when it answers after all."""
    query = make(BY_DISTANCE[100], paths=1, per_group=1, patience=2.0)
    query.next(0.0)
    query.answered(BY_DISTANCE[100], [(each, (b"g",)) for each in BY_DISTANCE[:2]])
    assert query.next(0.0) == BY_DISTANCE[:1]
    assert query.next(1.0) == []
    assert query.next(2.0) == BY_DISTANCE[1:2]
    query.failed(BY_DISTANCE[1])
    query.answered(BY_DISTANCE[0])
    assert query.closest(1) == BY_DISTANCE[:1]


def test_k6_where_an_answer_comes_from_counts_and_not_what_was_said() -> None:
    """K6: identities behind one address, each said to be somewhere else."""
    query = make(BY_DISTANCE[100], paths=1, per_group=2, k=4)
    query.next(0.0)
    query.answered(BY_DISTANCE[100], [(each, (b"%d" % number,)) for number, each in enumerate(BY_DISTANCE[:4])])
    assert query.next(0.0) == BY_DISTANCE[:4]
    for each in BY_DISTANCE[:4]:
        query.answered(each, plain(BY_DISTANCE[50]), (b"g",))
    assert query.closest() == [*BY_DISTANCE[:2], BY_DISTANCE[100]]
    query.revive(BY_DISTANCE[3])
    assert query.next(0.0) == [BY_DISTANCE[50]]


def test_k7_whoever_names_a_peer_first_does_not_put_it_among_too_many() -> None:
    """K7: a liar says that an honest peer is where others have all the places."""
    query = make(BY_DISTANCE[100], BY_DISTANCE[101], paths=1, per_group=1)
    query.next(0.0)
    query.answered(BY_DISTANCE[100], [(BY_DISTANCE[0], (b"g",)), (BY_DISTANCE[1], (b"g",))])
    assert query.next(0.0) == BY_DISTANCE[:1]
    query.answered(BY_DISTANCE[0])
    assert query.next(0.0) == []
    query.answered(BY_DISTANCE[101], [(BY_DISTANCE[0], (b"h",)), (BY_DISTANCE[1], (b"h",))])
    assert query.next(0.0) == BY_DISTANCE[1:2]


def test_k7_everybody_within_the_radius_is_asked() -> None:
    """K7: who was mined around a key takes nobody's place."""
    radius = (point_of(bytes(BY_DISTANCE[8])) ^ TARGET) + 1
    query = Query(TARGET, LOCAL, plain(*BY_DISTANCE[:20]), QueryConfig(k=4, paths=1, beta=1), radius=radius)
    while not query.finished:
        for each in query.next(0.0):
            query.answered(each)
    assert query.closest() == BY_DISTANCE[:4]
    assert query.responsible() == BY_DISTANCE[:9]


def test_k8_endless_nearer_peers() -> None:
    """K8: a liar that always names nearer peers costs a bounded number of questions."""
    rng = random.Random(1)
    query = make(*BY_DISTANCE[:20])
    while not query.finished:
        for each in query.next(0.0):
            fresh = [PeerId.from_bytes(b"\x12\x20" + rng.randbytes(32)) for _ in range(20)]
            query.answered(each, plain(*fresh))
    assert query.asked <= 200


def test_k8_the_last_questions_are_waited_for() -> None:
    query = make(*BY_DISTANCE[:4], max_asked=2, paths=1)
    assert query.next(0.0) == BY_DISTANCE[:2]
    query.answered(BY_DISTANCE[0])
    assert not query.finished
    query.failed(BY_DISTANCE[1])
    assert query.finished
    assert query.next(0.0) == []


def test_paths_are_asked_in_turn_and_stay_apart() -> None:
    query = make(*BY_DISTANCE[100:104], paths=2, alpha=2, beta=1, k=2)
    first, second = query.next(0.0)
    assert (first, second) == (BY_DISTANCE[100], BY_DISTANCE[101])
    query.answered(first, plain(*BY_DISTANCE[:10]))  # a liar, perhaps
    query.answered(second, plain(*BY_DISTANCE[50:60], *BY_DISTANCE[:2]))
    assert query.next(0.0) == [BY_DISTANCE[0], BY_DISTANCE[50]]
    query.failed(BY_DISTANCE[0])
    query.answered(BY_DISTANCE[50])
    # The second path has arrived; the first goes on alone.
    assert query.next(0.0) == BY_DISTANCE[1:3]
    query.answered(BY_DISTANCE[1])
    query.answered(BY_DISTANCE[2])
    assert query.finished
    assert query.closest() == BY_DISTANCE[1:3]


def test_when_all_paths_have_arrived_the_nearest_are_asked() -> None:
    query = make(*BY_DISTANCE[:10], paths=1, alpha=4, beta=1, k=6)
    assert query.next(0.0) == BY_DISTANCE[:4]
    query.answered(BY_DISTANCE[0])
    assert query.next(0.0) == [BY_DISTANCE[4]]
    for each in BY_DISTANCE[1:5]:
        query.answered(each)
    assert query.next(0.0) == [BY_DISTANCE[5]]
    query.answered(BY_DISTANCE[5])
    assert query.finished
    assert query.closest() == BY_DISTANCE[:6]


def test_k8_who_is_slow_is_passed_over_and_still_heard() -> None:
    """K8: the lookup ends without it; its question still counts as one under way."""
    query = make(*BY_DISTANCE[:4], k=2, alpha=3, paths=1, beta=1, patience=2.0)
    assert query.next_timeout() is None
    assert query.next(0.0) == BY_DISTANCE[:2]
    assert query.next_timeout() == 2.0
    query.answered(BY_DISTANCE[1])
    assert query.next(1.9) == []
    assert query.next(2.0) == [BY_DISTANCE[2]]
    assert not query.finished
    query.answered(BY_DISTANCE[2])
    assert query.finished
    assert query.closest() == BY_DISTANCE[1:3]
    query.answered(BY_DISTANCE[0])
    assert query.closest() == BY_DISTANCE[:2]


def test_k8_when_all_are_slow_they_are_waited_for() -> None:
    query = make(*BY_DISTANCE[:2], paths=1)
    query.next(0.0)
    assert query.next(2.0) == []
    assert not query.finished
    query.failed(BY_DISTANCE[0])
    assert not query.finished
    query.failed(BY_DISTANCE[1])
    assert query.finished


def test_bounds_are_positive() -> None:
    with pytest.raises(ValueError, match="positive"):
        QueryConfig(alpha=0)


# --- sweeps -----------------------------------------------------------------------------------------------------------


def test_a_sweep_needs_few_lookups_and_puts_keys_where_they_belong() -> None:
    peers = {point_of(bytes(peer(number))): peer(number) for number in range(500)}
    keys, k = [b"key %d" % number for number in range(2000)], 20

    def nearest(key: bytes) -> list[PeerId]:
        point = point_of(key)
        return [peers[point ^ distance] for distance in heapq.nsmallest(k, [each ^ point for each in peers])]

    sweep, placed, lookups = Sweep(keys), 0, 0
    announced: list[bytes] = []
    while (key := sweep.next()) is not None:
        lookups += 1
        found = nearest(key)
        region = sweep.found(found, k)
        assert key in region
        announced += region
        placed += sum(len(set(nearest(each)) & set(found)) for each in region)
    assert sorted(announced) == sorted(keys)
    assert len(sweep) == 0
    assert lookups < 250
    assert placed > 0.9 * k * len(keys)


def test_in_a_small_network_one_lookup_is_enough() -> None:
    sweep = Sweep([b"key %d" % number for number in range(100)])
    assert sweep.next() is not None
    assert len(sweep.found([peer(1)], 20)) == 100
    assert sweep.next() is None


def test_peers_at_the_same_distance_make_the_narrowest_region() -> None:
    sweep = Sweep([b"a", b"b"])
    assert sweep.next() is not None
    assert len(sweep.found([peer(1)] * 20, 20)) == 1
