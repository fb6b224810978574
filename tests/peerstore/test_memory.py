"""Bounds and accounts of the memory peerstore: case I4."""

from __future__ import annotations

import pytest
import trio
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from multiaddr import Multiaddr

from libp2p.addressing import parse
from libp2p.crypto.keys import generate
from libp2p.peer_id import PeerId
from libp2p.peerstore import MemoryPeerstore, PeerstoreConfig
from libp2p.records.peer_record import PeerRecord


def peer(number: int) -> PeerId:
    return PeerId.from_bytes(b"\x12\x20" + number.to_bytes(32, "big"))


def addr(number: int) -> Multiaddr:
    return parse(f"/ip4/1.2.{number // 250 % 250}.{number % 250}/tcp/1")


KEYS = [generate() for _ in range(4)]
IDS = [PeerId.from_key(key.public_key) for key in KEYS]


def envelope(which: int, seq: int, *addrs: Multiaddr) -> bytes:
    return PeerRecord(peer=IDS[which], seq=seq, addrs=addrs).seal(KEYS[which])


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


# --- bounds -----------------------------------------------------------------------------------------------------------


@pytest.mark.bar_c
def test_flood_of_strangers_is_bounded_and_the_oldest_go() -> None:
    """I4: 100k stranger addresses in all; connected peers are never evicted."""
    store = MemoryPeerstore(PeerstoreConfig(unconnected_addrs=1000, unconnected_peers=300), clock=Clock())
    friend = peer(10**6)
    store.set_connected(friend, True)
    store.add_addrs(friend, [addr(number) for number in range(100)], ttl=1)
    for number in range(2000):
        store.add_addrs(peer(number), [addr(number), addr(number + 1)], ttl=100)
    assert len(store.peers()) == 301
    assert store.peers()[-1] == peer(1999)
    assert len(store.addrs(friend)) == 100
    assert store.evicted == 1700
    for number in range(2000, 2100):
        store.add_addrs(peer(number), [addr(each) for each in range(64)], ttl=100)
    assert sum(len(store.addrs(each)) for each in store.peers() if each != friend) <= 1000


def test_strangers_make_room_before_peers_that_were_connected() -> None:
    store = MemoryPeerstore(PeerstoreConfig(unconnected_peers=10), clock=Clock())
    for number in range(5):
        store.set_connected(peer(number), True)
        store.add_addrs(peer(number), [addr(number)], ttl=100)
        store.set_connected(peer(number), False)
    for number in range(100, 200):
        store.add_addrs(peer(number), [addr(number)], ttl=100)
    assert set(store.peers()) == {peer(number) for number in (*range(5), *range(195, 200))}


def test_churn_of_connections_leaves_room_for_strangers() -> None:
    """I4: 100k connect-disconnect churn."""
    store = MemoryPeerstore(PeerstoreConfig(unconnected_peers=20), clock=Clock())
    for number in range(500):
        store.set_connected(peer(number), True)
        store.set_protocols(peer(number), ["/a"])
        store.set_connected(peer(number), False)
        store.add_addrs(peer(10_000 + number), [addr(number)], ttl=100)
    found = store.peers()
    assert len(found) == 20
    strangers = [each for each in found if each >= peer(10_000)]
    assert len(strangers) >= 5
    assert peer(10_499) in found


def test_hearing_of_a_stranger_again_keeps_it() -> None:
    store = MemoryPeerstore(PeerstoreConfig(unconnected_peers=3), clock=Clock())
    for number in range(6):
        store.add_addrs(peer(0), [addr(0)], ttl=100)
        store.add_addrs(peer(number), [addr(number)], ttl=100)
    assert peer(0) in store.peers()


def test_records_of_strangers_have_bounds_of_their_own_and_lose_only_the_record() -> None:
    """I4: 10k records in all."""
    for config in (
        PeerstoreConfig(unconnected_records=2),
        PeerstoreConfig(unconnected_record_bytes=2 * len(envelope(0, 1, addr(1)))),
    ):
        store = MemoryPeerstore(config, clock=Clock())
        for which in range(4):
            assert store.add_envelope(envelope(which, 1, addr(which)), ttl=100)
        assert [store.envelope(each) is not None for each in IDS] == [False, False, True, True]
        assert [list(store.addrs(each)) for each in IDS] == [[addr(which)] for which in range(4)]
        assert store.certified_addrs(IDS[0]) == []
        assert store.certified_addrs(IDS[3]) == [addr(3)]
        assert store.evicted == 0


def test_record_of_a_connected_peer_does_not_count() -> None:
    store = MemoryPeerstore(PeerstoreConfig(unconnected_records=1), clock=Clock())
    for which in range(4):
        store.set_connected(IDS[which], True)
        store.add_envelope(envelope(which, 1, addr(which)), ttl=100)
    assert all(store.envelope(each) for each in IDS)
    for each in IDS:
        store.set_connected(each, False)
    assert [store.envelope(each) is not None for each in IDS] == [False, False, False, True]


def test_lowering_the_bounds_by_a_lot_at_once_does_not_recurse() -> None:
    store = MemoryPeerstore(PeerstoreConfig(unconnected_peers=5000), clock=Clock())
    for number in range(5000):
        store.add_addrs(peer(number), [addr(number)], ttl=100)
    store.config = PeerstoreConfig(unconnected_peers=1, unconnected_records=0)
    store.add_addrs(peer(0), [addr(0)], ttl=100)
    assert len(store.peers()) == 1


# --- sweeping ---------------------------------------------------------------------------------------------------------


async def test_run_removes_what_has_ended() -> None:
    """I4: every per-peer map is empty at the end."""
    store = MemoryPeerstore()
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        for number in range(1200):  # more than one slice
            store.add_addrs(peer(number), [addr(number)], ttl=100)
        store.add_addrs(peer(1), [addr(2)], ttl=1000)
        store.set_protocols(peer(5), ["/a"])
        store.add_key(IDS[0], KEYS[0].public_key)
        store.add_envelope(envelope(1, 3, addr(9)), ttl=100)
        store.set_connected(peer(7), True)
        await trio.sleep(200)
        assert set(store.peers()) == {peer(1), peer(5), peer(7)}, "facts are kept for an hour"
        assert store.addrs(peer(1)) == [addr(2)]
        store.set_connected(peer(7), False)
        await trio.sleep(2 * 3600)
        assert store.peers() == []
        nursery.cancel_scope.cancel()
    assert not store._entries
    assert len(store._ages) == len(store._record_ages) == 0
    assert store._unconnected_addrs == store._record_bytes == 0


async def test_record_ends_without_the_addresses_that_others_told() -> None:
    store = MemoryPeerstore()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(store.run)
        store.add_envelope(envelope(0, 3, addr(1)), ttl=50)
        store.add_addrs(IDS[0], [addr(1)], ttl=500)
        await trio.sleep(100)
        assert store.addrs(IDS[0]) == [addr(1)]
        assert store.certified_addrs(IDS[0]) == []
        assert store._entries[IDS[0]].record is None
        nursery.cancel_scope.cancel()


async def test_sweep_gives_way_to_others() -> None:
    store = MemoryPeerstore()
    for number in range(4000):
        store.add_addrs(peer(number), [addr(number)], ttl=100)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        await store._sweep()
        nursery.cancel_scope.cancel()
    assert turns >= 3


# --- random sequences -------------------------------------------------------------------------------------------------

SMALL = PeerstoreConfig(
    addrs_per_peer=3,
    addrs_per_connected_peer=6,
    unconnected_addrs=8,
    unconnected_peers=5,
    unconnected_records=2,
    facts_ttl=30,
    recently_connected=10,
)
PEERS = [*IDS, *(peer(number) for number in range(4))]
SEALED = {(which, seq): envelope(which, seq, addr(seq), addr(seq + 1)) for which in range(4) for seq in range(4)}


class Accounts(RuleBasedStateMachine):
    """Whatever happens, the sums are those of the entries, and the bounds hold."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.store = MemoryPeerstore(SMALL, clock=self.clock)
        self.connected: set[PeerId] = set()

    @rule(who=st.sampled_from(PEERS), which=st.lists(st.integers(0, 9), max_size=8), ttl=st.integers(0, 40))
    def add(self, who: PeerId, which: list[int], ttl: int) -> None:
        self.store.add_addrs(who, map(addr, which), ttl=ttl)

    @rule(who=st.sampled_from(PEERS), which=st.lists(st.integers(0, 9), max_size=8), ttl=st.integers(0, 40))
    def put(self, who: PeerId, which: list[int], ttl: int) -> None:
        self.store.set_addrs(who, map(addr, which), ttl=ttl)

    @rule(which=st.integers(0, 3), seq=st.integers(0, 3), ttl=st.integers(1, 40))
    def certify(self, which: int, seq: int, ttl: int) -> None:
        self.store.add_envelope(SEALED[which, seq], ttl=ttl)

    @rule(who=st.sampled_from(PEERS), connected=st.booleans())
    def connect(self, who: PeerId, connected: bool) -> None:
        self.store.set_connected(who, connected)
        (self.connected.add if connected else self.connected.discard)(who)

    @rule(who=st.sampled_from(PEERS), names=st.lists(st.sampled_from(["/a", "/b"])))
    def serve(self, who: PeerId, names: list[str]) -> None:
        self.store.set_protocols(who, names)

    @rule(who=st.sampled_from(PEERS))
    def forget(self, who: PeerId) -> None:
        self.store.forget(who)
        assert not self.store.addrs(who)

    @rule(step=st.integers(1, 30), sweep=st.booleans())
    def wait(self, step: int, sweep: bool) -> None:
        self.clock.now += step
        if sweep:
            for who in PEERS:
                self.store._expire(who)

    @invariant()
    def sums_and_bounds(self) -> None:
        entries = self.store._entries
        apart = {who: entry for who, entry in entries.items() if not entry.connected}
        assert {who for who, entry in entries.items() if entry.connected} == self.connected
        assert self.store._unconnected_addrs == sum(len(entry.addrs) for entry in apart.values()) <= 8
        records = {who: entry.record for who, entry in apart.items() if entry.record is not None}
        assert self.store._record_bytes == sum(len(record.envelope) for record in records.values())
        assert len(self.store._record_ages) == len(records) <= 2
        assert len(self.store._ages) == len(apart) <= 5
        for entry in entries.values():
            assert len(entry.addrs) <= (6 if entry.connected else 3)
            assert entry.record is not None or not any(held.certified for held in entry.addrs.values())


Accounts.TestCase.settings = settings(max_examples=100, stateful_step_count=40)
TestAccounts = Accounts.TestCase
