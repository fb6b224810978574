"""What every peerstore promises, for the memory and the SQLite one alike: SPEC E5-E9, A10; cases S8, I1, I2, I4."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
from multiaddr import Multiaddr

from libp2p.addressing import parse, with_peer
from libp2p.crypto.keys import KeyType, PrivateKey, generate
from libp2p.errors import DecodeError, LimitExceeded
from libp2p.peer_id import PeerId
from libp2p.peerstore import MemoryPeerstore, PeerstoreConfig
from libp2p.peerstore.sqlite import SqlitePeerstore
from libp2p.records.envelope import Envelope
from libp2p.records.peer_record import DOMAIN, PAYLOAD_TYPE, PeerRecord

KEY = generate()
PEER = PeerId.from_key(KEY.public_key)
OTHER_KEY = generate()
OTHER = PeerId.from_key(OTHER_KEY.public_key)
HASHED_KEY = generate(KeyType.ECDSA)
HASHED = PeerId.from_key(HASHED_KEY.public_key)
A, B, C = (parse(f"/ip4/1.2.3.4/tcp/{port}") for port in (1, 2, 3))


def addrs(count: int, host: str = "5.6.7.8") -> list[Multiaddr]:
    return [parse(f"/ip4/{host}/tcp/{port}") for port in range(1, count + 1)]


def envelope(seq: int, *listed: Multiaddr, key: PrivateKey = KEY) -> bytes:
    return PeerRecord(peer=PeerId.from_key(key.public_key), seq=seq, addrs=listed).seal(key)


class Clock:
    """Monotonic seconds that move when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, clock: Clock, tmp_path: Path) -> Iterator[MemoryPeerstore]:
    store: MemoryPeerstore
    if request.param == "memory":
        store = MemoryPeerstore(clock=clock)
    else:
        store = SqlitePeerstore(tmp_path / "peers.db", clock=clock)
    yield store
    store.close()
    store.close()


# --- addresses --------------------------------------------------------------------------------------------------------


def test_nothing_is_known_of_a_stranger(store: MemoryPeerstore) -> None:
    assert store.addrs(PEER) == ()
    assert store.certified_addrs(PEER) == ()
    assert store.protocols(PEER) == frozenset()
    assert store.metadata(PEER) == {}
    assert store.envelope(PEER) is None
    assert store.key(PEER) == KEY.public_key, "the id holds it"
    assert store.key(HASHED) is None
    assert store.peers() == []
    store.forget(PEER)


def test_addresses_live_as_long_as_they_were_given(store: MemoryPeerstore, clock: Clock) -> None:
    store.add_addrs(PEER, [A], ttl=10)
    store.add_addrs(PEER, [B], ttl=20)
    assert store.addrs(PEER) == [B, A], "the one that lives longest first"
    clock.now += 10
    assert store.addrs(PEER) == [B]
    clock.now += 10
    assert store.addrs(PEER) == []


def test_a_longer_remaining_life_is_kept(store: MemoryPeerstore, clock: Clock) -> None:
    store.add_addrs(PEER, [A], ttl=100)
    store.add_addrs(PEER, [A], ttl=10)
    clock.now += 50
    assert store.addrs(PEER) == [A]
    store.add_addrs(PEER, [A], ttl=100)
    clock.now += 99
    assert store.addrs(PEER) == [A]


def test_a_life_of_nothing_is_nothing(store: MemoryPeerstore) -> None:
    store.add_addrs(PEER, [A], ttl=0)
    store.add_addrs(PEER, [A], ttl=-5)
    assert store.peers() == []
    store.add_addrs(PEER, [A], ttl=5)
    store.set_addrs(PEER, [B], ttl=0)
    assert store.peers() == []


def test_endless_life(store: MemoryPeerstore, clock: Clock) -> None:
    store.add_addrs(PEER, [A], ttl=math.inf)
    clock.now = 1e12
    assert store.addrs(PEER) == [A]


def test_set_replaces_all(store: MemoryPeerstore) -> None:
    """I4: replace, not append."""
    store.add_addrs(PEER, [A, B], ttl=100)
    store.set_addrs(PEER, [C, B], ttl=50)
    assert store.addrs(PEER) == [C, B]


def test_peer_suffix_is_taken_off_and_must_be_right(store: MemoryPeerstore) -> None:
    circuit = parse(f"/ip4/9.9.9.9/tcp/1/p2p/{OTHER}/p2p-circuit")
    given = [with_peer(A, PEER), with_peer(B, OTHER), with_peer(circuit, PEER), parse(f"/p2p/{PEER}")]
    store.add_addrs(PEER, given, ttl=10)
    assert store.addrs(PEER) == [A, circuit]


def test_a_broken_address_costs_only_itself(store: MemoryPeerstore) -> None:
    """A10."""
    store.add_addrs(PEER, [Multiaddr(b"\xff\xff\x01"), A], ttl=10)
    assert store.addrs(PEER) == [A]
    store.add_addrs(OTHER, [Multiaddr(b"\xff\xff\x01")], ttl=10)
    assert OTHER not in store.peers()


def test_sixty_four_addresses_of_a_stranger(store: MemoryPeerstore) -> None:
    """I4: at most 64 per stranger; what ends first makes room for what ends later."""
    first, second = addrs(64), addrs(64, "9.9.9.9")
    store.add_addrs(PEER, first, ttl=10)
    store.add_addrs(PEER, second[:10], ttl=5)
    assert set(store.addrs(PEER)) == set(first)
    store.add_addrs(PEER, second[:10], ttl=20)
    assert set(second[:10]) < set(store.addrs(PEER))
    assert len(store.addrs(PEER)) == 64
    store.add_addrs(OTHER, (addr for addr in addrs(10_000)), ttl=10)
    assert len(store.addrs(OTHER)) == 64


# --- connected peers --------------------------------------------------------------------------------------------------


def test_connected_peers_may_have_more_and_keep_the_best(store: MemoryPeerstore, clock: Clock) -> None:
    """I1: at most 500 addresses."""
    store.set_connected(PEER, True)
    store.add_addrs(PEER, addrs(400), ttl=2000)
    store.add_addrs(PEER, addrs(400, "9.9.9.9"), ttl=3000)
    assert len(store.addrs(PEER)) == 500
    store.add_envelope(envelope(1, A), ttl=2500)
    assert len(store.addrs(PEER)) == 500
    store.set_connected(PEER, False)
    kept = store.addrs(PEER)
    assert len(kept) == 64
    assert kept[0] == A, "certified"
    assert set(kept[1:]) <= set(addrs(400, "9.9.9.9"))


def test_nothing_of_a_connected_peer_ends_and_it_can_be_dialled_again(store: MemoryPeerstore, clock: Clock) -> None:
    store.set_connected(PEER, True)
    store.set_connected(PEER, True)
    store.add_addrs(PEER, [A], ttl=10)
    store.add_envelope(envelope(1, B), ttl=10)
    clock.now += 10_000
    assert store.addrs(PEER) == [B, A]
    assert store.certified_addrs(PEER) == [B]
    assert store.envelope(PEER) is not None
    store.set_connected(PEER, False)
    store.set_connected(PEER, False)
    assert store.envelope(PEER) is None
    clock.now += 899
    assert set(store.addrs(PEER)) == {A, B}
    clock.now += 1
    assert store.addrs(PEER) == []


def test_connected_peer_is_listed_even_when_nothing_else_is_known(store: MemoryPeerstore) -> None:
    store.set_connected(PEER, True)
    assert store.peers() == [PEER]
    store.forget(PEER)
    assert store.peers() == [PEER]
    store.set_connected(PEER, False)
    assert store.peers() == []
    store.set_connected(OTHER, False)
    assert store.peers() == []


# --- signed records ---------------------------------------------------------------------------------------------------


def test_record_is_taken_and_its_addresses_come_first(store: MemoryPeerstore) -> None:
    """E9: certified addresses are kept apart from uncertified and preferred."""
    store.add_addrs(PEER, [A, C], ttl=1000)
    sealed = envelope(5, B, C)
    assert store.add_envelope(sealed, ttl=100)
    assert store.addrs(PEER) == [C, B, A]
    assert store.certified_addrs(PEER) == [C, B]
    assert store.envelope(PEER) == sealed


def test_only_a_larger_sequence_number_replaces(store: MemoryPeerstore) -> None:
    """E6, S8: the same or lower is ignored, and leaves nothing changed."""
    newest = envelope(5, A)
    assert store.add_envelope(newest, ttl=100)
    assert not store.add_envelope(newest, ttl=100)
    assert not store.add_envelope(envelope(5, B), ttl=100)
    assert not store.add_envelope(envelope(4, B), ttl=100)
    assert store.envelope(PEER) == newest
    assert store.addrs(PEER) == [A]
    assert store.add_envelope(envelope(6, B), ttl=100)
    assert store.certified_addrs(PEER) == [B]
    assert store.addrs(PEER) == [B], "what the peer no longer lists has gone"


def test_sequence_number_zero_and_a_life_of_nothing(store: MemoryPeerstore) -> None:
    assert not store.add_envelope(envelope(0, A), ttl=0)
    assert store.peers() == []
    assert store.add_envelope(envelope(0, A), ttl=10)
    assert not store.add_envelope(envelope(0, B), ttl=10)


def _foreign() -> bytes:
    """A record about PEER, signed by somebody else."""
    record = PeerRecord(peer=PEER, seq=9, addrs=(B,))
    return Envelope.seal(OTHER_KEY, DOMAIN, PAYLOAD_TYPE, record.marshal()).marshal()


def _of(domain: str, payload_type: bytes) -> bytes:
    return Envelope.seal(KEY, domain, payload_type, PeerRecord(peer=PEER, seq=9, addrs=(B,)).marshal()).marshal()


@pytest.mark.bar_c
@pytest.mark.parametrize(
    "hostile",
    [
        pytest.param(_foreign(), id="signer is not subject (E5)"),
        pytest.param(_of("libp2p-relay-rsvp", PAYLOAD_TYPE), id="other domain (E3)"),
        pytest.param(_of(DOMAIN, b"\x03\x02"), id="other payload type"),
        pytest.param(envelope(9, B)[:-1], id="torn"),
        pytest.param(envelope(9, B)[:-1] + bytes([envelope(9, B)[-1] ^ 1]), id="wrong signature"),
        pytest.param(b"", id="empty"),
        pytest.param(b"\xff" * 100, id="garbage"),
        pytest.param(envelope(9, *addrs(250)) + bytes(8193), id="8 KiB + 1"),
        pytest.param(envelope(9, *addrs(10_000)), id="10,000 addresses"),
    ],
)
def test_hostile_envelopes_are_refused_at_the_store(store: MemoryPeerstore, hostile: bytes) -> None:
    """S8: refused at the store; what it holds is untouched."""
    held = envelope(5, A)
    store.add_envelope(held, ttl=100)
    with pytest.raises(DecodeError):
        store.add_envelope(hostile, ttl=100)
    assert store.envelope(PEER) == held
    assert store.addrs(PEER) == [A]
    assert store.peers() == [PEER]


@pytest.mark.bar_c
def test_the_largest_sequence_number_ages_out(store: MemoryPeerstore, clock: Clock) -> None:
    """S8: 2**64 - 1 is accepted only from the subject and aged out."""
    assert store.add_envelope(envelope(2**64 - 1, A), ttl=math.inf)
    assert not store.add_envelope(envelope(7, B), ttl=100)
    clock.now += store.config.record_ttl
    assert store.envelope(PEER) is None
    assert store.add_envelope(envelope(7, B), ttl=100)
    assert store.certified_addrs(PEER) == [B]


def test_an_outlived_record_of_a_connected_peer_is_shown_but_does_not_bind(
    store: MemoryPeerstore, clock: Clock
) -> None:
    store.set_connected(PEER, True)
    store.add_envelope(envelope(2**64 - 1, A), ttl=10)
    clock.now += 11
    assert store.envelope(PEER) is not None
    assert store.add_envelope(envelope(7, B), ttl=10)
    assert store.addrs(PEER) == [B]


def test_others_do_not_push_out_certified_addresses(store: MemoryPeerstore) -> None:
    store.add_envelope(envelope(1, *addrs(64)), ttl=10)
    store.add_addrs(PEER, addrs(64, "9.9.9.9"), ttl=1000)
    assert set(store.addrs(PEER)) == set(addrs(64))
    store.add_addrs(OTHER, addrs(64, "9.9.9.9"), ttl=1000)
    store.add_envelope(envelope(1, A, B, key=OTHER_KEY), ttl=10)
    assert store.certified_addrs(OTHER) == [A, B]
    assert len(store.addrs(OTHER)) == 64


def test_set_keeps_certified_what_stays(store: MemoryPeerstore) -> None:
    store.add_envelope(envelope(1, A, B), ttl=100)
    store.set_addrs(PEER, [B, C], ttl=100)
    assert store.certified_addrs(PEER) == [B]
    assert store.addrs(PEER) == [B, C]


def test_record_brings_the_key_of_a_hashed_id(store: MemoryPeerstore) -> None:
    store.add_envelope(envelope(1, A, key=HASHED_KEY), ttl=100)
    assert store.key(HASHED) == HASHED_KEY.public_key


# --- facts ------------------------------------------------------------------------------------------------------------


def test_key_must_belong_to_the_peer(store: MemoryPeerstore) -> None:
    store.add_key(HASHED, HASHED_KEY.public_key)
    assert store.key(HASHED) == HASHED_KEY.public_key
    with pytest.raises(ValueError, match="not the key"):
        store.add_key(HASHED, KEY.public_key)
    assert store.key(HASHED) == HASHED_KEY.public_key
    store.add_key(PEER, KEY.public_key)
    assert PEER not in store.peers(), "the id holds it already"


def test_id_that_holds_no_key(store: MemoryPeerstore) -> None:
    odd = PeerId.from_bytes(b"\x00\x04oops")
    assert store.key(odd) is None
    store.add_addrs(odd, [A], ttl=1)
    assert store.addrs(odd) == [A]


def test_protocols_are_replaced_and_bounded(store: MemoryPeerstore) -> None:
    """I2: push alternating two protocol lists: replace, not append. I4: missing fields are the caller's business."""
    store.set_protocols(PEER, ["/a", "/b"])
    store.set_protocols(PEER, ["/b", "/c"])
    assert store.protocols(PEER) == {"/b", "/c"}
    store.set_protocols(PEER, (f"/{number}" for number in range(10_000)))
    assert len(store.protocols(PEER)) == 1024
    store.set_protocols(PEER, ["x" * 1000] * 5 + [f"/{number}" + "y" * 10_000 for number in range(100)])
    assert sum(map(len, store.protocols(PEER))) <= 65_536
    store.set_protocols(PEER, [])
    assert store.peers() == []


def test_metadata_is_bounded(store: MemoryPeerstore) -> None:
    store.set_metadata(PEER, "agent_version", "x" * 5000)
    assert store.metadata(PEER) == {"agent_version": "x" * 1024}
    for number in range(31):
        store.set_metadata(PEER, f"fact {number}", "true")
    store.set_metadata(PEER, "agent_version", "py")
    with pytest.raises(LimitExceeded, match="metadata_per_peer"):
        store.set_metadata(PEER, "one more", "")
    assert len(store.metadata(PEER)) == 32
    copy = store.metadata(PEER)
    assert isinstance(copy, dict)
    copy.clear()
    assert len(store.metadata(PEER)) == 32


def test_forget_drops_everything(store: MemoryPeerstore) -> None:
    for connected in (False, True):
        store.set_connected(HASHED, connected)
        store.add_envelope(envelope(5, A, key=HASHED_KEY), ttl=100)
        store.set_protocols(HASHED, ["/a"])
        store.set_metadata(HASHED, "agent_version", "x")
        store.forget(HASHED)
        assert store.addrs(HASHED) == [] if connected else store.addrs(HASHED) == ()
        assert store.key(HASHED) is None
        assert store.protocols(HASHED) == frozenset()
        assert store.metadata(HASHED) == {}
        assert store.envelope(HASHED) is None
        assert store.add_envelope(envelope(1, A, key=HASHED_KEY), ttl=100), "the sequence number is forgotten too"
        store.forget(HASHED)


def test_config_is_checked() -> None:
    for wrong in (
        {"addrs_per_peer": 0},
        {"addrs_per_connected_peer": 1},
        {"unconnected_peers": -1},
        {"sweep_interval": 0},
    ):
        with pytest.raises(ValueError, match=r"must|room"):
            PeerstoreConfig(**wrong)
