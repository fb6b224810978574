"""What every :class:`libp2p.abc.Peerstore` must do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio

from ...abc import Peerstore
from ...addressing import parse, with_peer
from ...crypto.keys import PrivateKey
from ...errors import DecodeError
from ...peer_id import PeerId
from ...records.envelope import Envelope
from ...records.peer_record import DOMAIN, PAYLOAD_TYPE, PeerRecord
from ..keys import seeded_key

__all__ = ["PeerstoreConformance"]

_ONE = parse("/ip4/192.0.2.1/tcp/4001")
_TWO = parse("/ip4/192.0.2.2/tcp/4001")
_THREE = parse("/ip4/192.0.2.3/udp/4001/quic-v1")
"""What nobody dials here."""


class PeerstoreConformance(ABC):
    """Tests of a peerstore. Its monotonic clock is :meth:`now`, which the tests move by :meth:`advance`."""

    _time = 1000.0

    @abstractmethod
    def make(self) -> Peerstore:
        """An empty store whose clock is ``self.now``."""

    def now(self) -> float:
        """Monotonic seconds."""
        return self._time

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self._time += seconds

    @contextmanager
    def store(self) -> Iterator[Peerstore]:
        """A store that is closed at the end; closing is idempotent."""
        store = self.make()
        try:
            yield store
        finally:
            store.close()
            store.close()

    key: PrivateKey = seeded_key("peerstore")
    peer: PeerId = PeerId.from_key(key.public_key)
    other_key: PrivateKey = seeded_key("peerstore-other")
    other: PeerId = PeerId.from_key(other_key.public_key)

    # --- addresses

    def test_knows_nothing_at_first(self) -> None:
        """And asking leaves no trace."""
        with self.store() as store:
            assert list(store.addrs(self.peer)) == []
            assert store.protocols(self.peer) == frozenset()
            assert dict(store.metadata(self.peer)) == {}
            assert store.envelope(self.peer) is None
            assert list(store.peers()) == []
            store.forget(self.peer)

    def test_addresses_expire(self) -> None:
        """Each at its own time."""
        with self.store() as store:
            store.add_addrs(self.peer, [_ONE], ttl=10)
            store.add_addrs(self.peer, [_TWO], ttl=20)
            assert set(store.addrs(self.peer)) == {_ONE, _TWO}
            self.advance(10)
            assert list(store.addrs(self.peer)) == [_TWO]
            self.advance(10)
            assert list(store.addrs(self.peer)) == []

    def test_the_longer_life_is_kept(self) -> None:
        """A shorter one does not shorten it."""
        with self.store() as store:
            store.add_addrs(self.peer, [_ONE], ttl=100)
            store.add_addrs(self.peer, [_ONE], ttl=1)
            self.advance(50)
            assert list(store.addrs(self.peer)) == [_ONE]
            store.add_addrs(self.peer, [_ONE], ttl=100)
            self.advance(99)
            assert list(store.addrs(self.peer)) == [_ONE]

    def test_set_replaces(self) -> None:
        """All of them, and by nothing when there is nothing."""
        with self.store() as store:
            store.add_addrs(self.peer, [_ONE, _TWO], ttl=100)
            store.set_addrs(self.peer, [_THREE], ttl=100)
            assert list(store.addrs(self.peer)) == [_THREE]
            store.set_addrs(self.peer, [], ttl=100)
            assert list(store.addrs(self.peer)) == []

    def test_peer_suffix_is_dropped(self) -> None:
        """An address may end with its peer, not with another one."""
        with self.store() as store:
            store.add_addrs(self.peer, [with_peer(_ONE, self.peer), with_peer(_TWO, self.other)], ttl=100)
            assert list(store.addrs(self.peer)) == [_ONE]

    def test_addresses_do_not_repeat(self) -> None:
        """However often they are added."""
        with self.store() as store:
            for _ in range(3):
                store.add_addrs(self.peer, [_ONE, _TWO, _ONE], ttl=100)
            assert sorted(map(str, store.addrs(self.peer))) == sorted(map(str, (_ONE, _TWO)))

    def test_addresses_of_a_stranger_are_bounded(self) -> None:
        """Whatever somebody says about a peer we never met."""
        with self.store() as store:
            store.add_addrs(self.peer, [parse(f"/ip4/192.0.2.1/tcp/{port}") for port in range(1, 5001)], ttl=100)
            assert 1 <= len(store.addrs(self.peer)) <= 1000

    def test_a_connected_peer_keeps_its_addresses(self) -> None:
        """The connection proves more than a clock."""
        with self.store() as store:
            store.add_addrs(self.peer, [_ONE], ttl=10)
            store.set_connected(self.peer, True)
            self.advance(1000)
            assert list(store.addrs(self.peer)) == [_ONE]
            store.set_connected(self.peer, False)
            assert list(store.addrs(self.peer)) == [_ONE]
            self.advance(100_000)
            assert list(store.addrs(self.peer)) == []

    # --- keys

    def test_key_inside_the_id(self) -> None:
        """Is known without being told."""
        with self.store() as store:
            assert store.key(self.peer) == self.key.public_key

    def test_key_of_another_peer_is_refused(self) -> None:
        """And nothing is changed by it."""
        with self.store() as store:
            with pytest.raises(ValueError, match="key"):
                store.add_key(self.peer, self.other_key.public_key)
            assert store.key(self.peer) == self.key.public_key
            store.add_key(self.peer, self.key.public_key)

    # --- facts

    def test_protocols_are_replaced(self) -> None:
        """By whatever the peer said last."""
        with self.store() as store:
            store.set_protocols(self.peer, ["/a/1", "/b/1"])
            assert store.protocols(self.peer) == {"/a/1", "/b/1"}
            store.set_protocols(self.peer, ["/c/1"])
            assert store.protocols(self.peer) == {"/c/1"}
            assert store.protocols(self.other) == frozenset()

    def test_metadata(self) -> None:
        """By name, the last one counts."""
        with self.store() as store:
            store.set_metadata(self.peer, "agent_version", "one")
            store.set_metadata(self.peer, "agent_version", "two")
            store.set_metadata(self.peer, "other", "")
            assert dict(store.metadata(self.peer)) == {"agent_version": "two", "other": ""}

    def test_forget(self) -> None:
        """Takes everything, of that peer only."""
        with self.store() as store:
            for peer in (self.peer, self.other):
                store.add_addrs(peer, [_ONE], ttl=100)
                store.set_protocols(peer, ["/a/1"])
                store.set_metadata(peer, "x", "y")
            store.add_envelope(self._record(1, self.key), ttl=100)
            store.forget(self.peer)
            assert list(store.addrs(self.peer)) == []
            assert store.protocols(self.peer) == frozenset()
            assert dict(store.metadata(self.peer)) == {}
            assert store.envelope(self.peer) is None
            assert list(store.peers()) == [self.other]
            assert list(store.addrs(self.other)) == [_ONE]

    # --- signed records

    @staticmethod
    def _record(seq: int, key: PrivateKey, *, subject: PeerId | None = None, domain: str = DOMAIN) -> bytes:
        """A signed record of ``key``'s owner, or of ``subject``."""
        record = PeerRecord(peer=subject or PeerId.from_key(key.public_key), seq=seq, addrs=(_THREE,))
        return Envelope.seal(key, domain=domain, payload_type=PAYLOAD_TYPE, payload=record.marshal()).marshal()

    def test_records_replace_by_sequence(self) -> None:
        """Strictly newer ones only; the bytes come back as they came."""
        with self.store() as store:
            first, second = self._record(5, self.key), self._record(6, self.key)
            assert store.add_envelope(first, ttl=100)
            assert store.envelope(self.peer) == first
            assert _THREE in store.addrs(self.peer)
            assert not store.add_envelope(self._record(4, self.key), ttl=100)
            assert not store.add_envelope(first, ttl=100)
            assert store.add_envelope(second, ttl=100)
            assert store.envelope(self.peer) == second

    def test_bad_records_change_nothing(self) -> None:
        """Whatever is wrong with them (case S8)."""
        good = self._record(7, self.key)
        with self.store() as store:
            assert store.add_envelope(good, ttl=100)
            for bad in (
                b"",
                b"\xff" * 100,
                good[:-1],
                good[:-1] + bytes((good[-1] ^ 1,)),
                good + bytes(20_000),
                self._record(8, self.key, subject=self.other),
                self._record(8, self.key, domain="libp2p-relay-rsvp"),
            ):
                with pytest.raises(DecodeError):
                    store.add_envelope(bad, ttl=100)
            assert store.envelope(self.peer) == good
            assert store.envelope(self.other) is None
            assert list(store.peers()) == [self.peer]

    # --- life

    async def test_run_can_be_cancelled(self) -> None:
        """It starts, and ends when it is told; the store answers before, during and after."""
        with self.store() as store:
            store.add_addrs(self.peer, [_ONE], ttl=100)
            async with trio.open_nursery() as nursery:
                await nursery.start(store.run)
                assert list(store.addrs(self.peer)) == [_ONE]
                store.set_metadata(self.peer, "while", "running")
                nursery.cancel_scope.cancel()
            assert dict(store.metadata(self.peer)) == {"while": "running"}
