"""The parts of gossipsub: back-off, promises, the message cache, and choosing peers."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from libp2p.peer_id import PeerId
from libp2p.protocols.pubsub import Message
from libp2p.protocols.pubsub._backoff import Backoff
from libp2p.protocols.pubsub._cache import MessageCache
from libp2p.protocols.pubsub._mesh import better_than_median, gossip_targets, median, sample, surplus
from libp2p.protocols.pubsub._promises import Promises
from libp2p.testing.keys import seeded_key

PEERS = [PeerId.from_key(seeded_key(f"peer {number}").public_key) for number in range(20)]
A, B, C = PEERS[:3]


def message(number: int, topic: str = "t", size: int = 10) -> Message:
    return Message(id=b"%d" % number, topic=topic, data=b"", received_from=A, raw=bytes(size))


# --- back-off ---------------------------------------------------------------------------------------------------------


def test_backoff() -> None:
    backoff = Backoff(capacity=10)
    assert backoff.until(A, "t", 0.0) is None
    assert not backoff.is_active(A, "t", 0.0)
    backoff.add(A, "t", until=60.0)
    assert backoff.until(A, "t", 59.9) == 60.0
    assert backoff.until(A, "t", 60.0) is None
    assert backoff.is_active(A, "t", 59.9)
    assert not backoff.is_active(A, "t", 60.0)
    assert backoff.is_active(A, "t", 61.9, slack=2.0)
    assert not backoff.is_active(A, "t", 62.0, slack=2.0)
    assert not backoff.is_active(A, "u", 0.0)
    assert not backoff.is_active(B, "t", 0.0)


def test_backoff_is_not_shortened() -> None:
    backoff = Backoff(capacity=10)
    backoff.add(A, "t", until=60.0)
    backoff.add(A, "t", until=10.0)
    assert backoff.until(A, "t", 0.0) == 60.0
    backoff.add(A, "t", until=70.0)
    assert backoff.until(A, "t", 0.0) == 70.0


def test_backoff_is_bounded_and_forgotten() -> None:
    backoff = Backoff(capacity=2)
    for number, peer in enumerate((A, B, C)):
        backoff.add(peer, "t", until=10.0 + number)
    assert len(backoff) == 2
    assert backoff.until(A, "t", 0.0) is None
    backoff.expire(11.0)
    assert len(backoff) == 1
    backoff.expire(12.0)
    assert len(backoff) == 0


# --- promises ---------------------------------------------------------------------------------------------------------


def test_promises() -> None:
    promises = Promises()
    promises.add(A, b"1", until=3.0)
    promises.add(A, b"1", until=9.0)
    promises.add(B, b"1", until=5.0)
    promises.add(A, b"2", until=3.0)
    promises.add(A, b"3", until=3.0)
    promises.arrived(b"3")
    promises.arrived(b"never asked for")
    assert promises.broken(2.9) == {}
    assert promises.broken(3.0) == {A: 2}
    assert promises.broken(3.0) == {}
    assert len(promises) == 1
    promises.peer_left(A)
    assert len(promises) == 1
    promises.peer_left(B)
    assert len(promises) == 0


# --- cache ------------------------------------------------------------------------------------------------------------


def cache(windows: int = 5, gossip: int = 3, messages: int = 1000, size: int = 10**6) -> MessageCache:
    return MessageCache(windows=windows, gossip_windows=gossip, max_messages=messages, max_bytes=size)


def test_g2_history() -> None:
    held = cache()
    held.put(message(1))
    held.put(message(1))
    assert len(held) == 1
    for beat in range(5):
        assert b"1" in held
        assert held.gossip() == ({"t": [b"1"]} if beat < 3 else {})
        held.shift()
    assert b"1" not in held
    assert len(held) == 0


def test_gossip_by_topic_the_newest_first() -> None:
    held = cache()
    held.put(message(1))
    held.put(message(2, "u"))
    held.shift()
    held.put(message(3))
    assert held.gossip() == {"t": [b"3", b"1"], "u": [b"2"]}


def test_g11_14_requests_are_counted_by_peer() -> None:
    held = cache()
    one = message(1)
    held.put(one)
    assert held.take_for(A, b"1") == (one, 1)
    assert held.take_for(A, b"1") == (one, 2)
    assert held.take_for(B, b"1") == (one, 1)
    assert held.take_for(A, b"2") is None


def test_the_cache_is_bounded_in_messages() -> None:
    held = cache(messages=2)
    held.put(message(1))
    held.shift()
    for number in (2, 3, 4):
        held.put(message(number))
    assert (len(held), held.evicted) == (2, 2)
    assert held.gossip() == {"t": [b"3", b"4"]}
    for _ in range(5):
        held.shift()
    assert len(held) == 0


def test_the_cache_is_bounded_in_bytes() -> None:
    held = cache(size=100)
    held.put(message(1, size=60))
    held.put(message(2, size=60))
    assert held.gossip() == {"t": [b"2"]}
    held.put(message(3, size=500))
    assert held.gossip() == {"t": [b"3"]}  # the newest is always kept


class CacheModel(RuleBasedStateMachine):
    """Against a list of (beat, message)."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = cache(windows=3, gossip=2, messages=6, size=60)
        self.held: list[tuple[int, Message]] = []
        self.beat = 0

    @rule(number=st.integers(0, 15), topic=st.sampled_from("tu"), size=st.integers(1, 40))
    def put(self, number: int, topic: str, size: int) -> None:
        new = message(number, topic, size)
        self.cache.put(new)
        if new.id not in [old.id for _, old in self.held]:
            self.held.append((self.beat, new))
        while len(self.held) > 6 or (len(self.held) > 1 and sum(len(old.raw) for _, old in self.held) > 60):
            self.held.pop(0)

    @rule()
    def shift(self) -> None:
        self.beat += 1
        self.cache.shift()
        self.held = [(beat, old) for beat, old in self.held if beat > self.beat - 3]

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def take(self, data: st.DataObject) -> None:
        _, old = data.draw(st.sampled_from(self.held))
        found = self.cache.take_for(A, old.id)
        assert found is not None
        assert found[0] is old

    @invariant()
    def same(self) -> None:
        assert len(self.cache) == len(self.held)
        told = [old.id for beat, old in self.held if beat > self.beat - 2]
        assert sorted(message_id for ids in self.cache.gossip().values() for message_id in ids) == sorted(told)


TestCacheModel = CacheModel.TestCase
TestCacheModel.settings = settings(max_examples=50, stateful_step_count=40)


# --- choosing peers ---------------------------------------------------------------------------------------------------


def test_sampling() -> None:
    assert sample(PEERS, 0, random.Random(1)) == sample(PEERS, -1, random.Random(1)) == []
    assert sorted(sample(PEERS, 99, random.Random(1))) == sorted(PEERS)
    assert sample(PEERS, 5, random.Random(1)) == sample(PEERS, 5, random.Random(1))
    assert sample(PEERS, 5, random.Random(1)) != sample(PEERS, 5, random.Random(2))


@given(
    st.lists(st.tuples(st.sampled_from(PEERS), st.integers(-3, 3), st.booleans()), unique_by=lambda item: item[0]),
    st.integers(0, 2**32),
)
@settings(max_examples=200)
def test_g11_6_who_stays(members: list[tuple[PeerId, int, bool]], seed: int) -> None:
    mesh = [peer for peer, _, _ in members]
    scores = {peer: float(score) for peer, score, _ in members}
    outbound = {peer: dialled for peer, _, dialled in members}
    pruned = surplus(
        mesh,
        keep=6,
        keep_best=4,
        keep_outbound=2,
        score=scores.__getitem__,
        is_outbound=outbound.__getitem__,
        rng=random.Random(seed),
    )
    kept = [peer for peer in mesh if peer not in pruned]
    assert len(kept) == min(6, len(mesh))
    assert len(set(pruned)) == len(pruned)
    assert sum(outbound[peer] for peer in kept) >= min(2, sum(outbound.values()))
    best = sorted(scores.values(), reverse=True)[:4]
    assert sorted([scores[peer] for peer in kept], reverse=True)[:4] == best


def test_g11_12_better_peers_when_the_mesh_is_bad() -> None:
    scores = {peer: float(number) for number, peer in enumerate(PEERS)}

    def choose(mesh: list[PeerId], threshold: float) -> list[PeerId]:
        rest = [peer for peer in PEERS if peer not in mesh]
        return better_than_median(
            mesh, rest, threshold=threshold, count=2, score=scores.__getitem__, rng=random.Random(1)
        )

    assert choose(PEERS[:1], 100.0) == []
    assert choose(PEERS[:6], 3.0) == []  # the median is 3
    better = choose(PEERS[:6], 3.5)
    assert len(better) == 2
    assert all(scores[peer] > 3 for peer in better)
    assert choose(PEERS[14:], 100.0) == []


def test_median() -> None:
    assert median([3.0]) == 3.0
    assert median([1.0, 2.0]) == 2.0
    assert median([3.0, 1.0, 2.0]) == 2.0


@pytest.mark.parametrize(("candidates", "told"), [(0, 0), (4, 4), (6, 6), (20, 6), (24, 6), (28, 7), (100, 25)])
def test_g11_5_adaptive_gossip(candidates: int, told: int) -> None:
    peers = [PeerId.from_key(seeded_key(f"peer {number}").public_key) for number in range(candidates)]
    chosen = gossip_targets(peers, at_least=6, share=0.25, rng=random.Random(1))
    assert len(chosen) == told
    assert not [peer for peer, count in Counter(chosen).items() if count > 1]
