"""What is known about peers, in memory.

Theory of operation. One ``Entry`` per peer, in one of three classes: *connected*, *known* (it was connected once) and
*strangers* (somebody told us about it). Only strangers can be invented by others in any number, so everything that is
not connected is bounded in all, and where room is needed strangers go first, the one heard of longest ago first.
Connected peers never go (go CVE-2023-40583, case I4). Signed records have bounds of their own; beyond them the record
goes and the peer stays.

Time. Addresses and records end after the ttl they came with. While a peer is connected nothing of it ends, because the
connection is better proof than a clock; when it disconnects, its addresses have at least ``recently_connected`` seconds
left, so that it can be dialled again. A record that has outlived its ttl no longer binds its successors by its
sequence number: a peer that once signed 2**64 - 1 is not stuck with it for ever (case S8).

Changes. Most of what a peer says when it connects has been known for long. What changes nothing is not done, as long as
the peer is connected: then it has no age either that would have to be renewed.

Trust. An address is *certified* while the newest signed record of the peer lists it. Certified addresses come first,
and others never push them out (E9).
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType

import trio
from multiaddr import Multiaddr

from .._util.bounded import LruMap
from ..abc import Peerstore, ProtocolId
from ..crypto.keys import PublicKey
from ..errors import DecodeError, LimitExceeded
from ..peer_id import PeerId
from ..records.envelope import Envelope
from ..records.peer_record import DOMAIN, PAYLOAD_TYPE, PeerRecord
from ..wire import multihash
from ._entry import Ages, Entry, Held, PeerstoreConfig, Record, make_room, own_addr, shrink, uncertify

_PROTOCOL_SETS = 64
"""Different sets of protocols that are looked for among the next ones."""
_SLICE = 500
"""Entries looked at between two checkpoints of a sweep: about 1 ms."""


class MemoryPeerstore(Peerstore):
    """The default peerstore: everything is gone when the process ends.

    Addresses are kept without their ``/p2p`` suffix; an address that ends with another peer's id is dropped.

    Args:
        config: the bounds.
        clock: monotonic seconds. Trio's clock by default, so the store is used inside ``trio.run``.

    Attributes:
        evicted: how many peers had to make room.
    """

    def __init__(
        self, config: PeerstoreConfig | None = None, *, clock: Callable[[], float] = trio.current_time
    ) -> None:
        self.config: PeerstoreConfig = config or PeerstoreConfig()
        self.evicted: int = 0
        self._clock = clock
        self._entries: dict[PeerId, Entry] = {}
        self._ages = Ages()
        self._record_ages = Ages()
        # Sums over the entries that are not connected.
        self._unconnected_addrs = 0
        self._record_bytes = 0
        # Most peers serve what many others serve: they share one set.
        self._protocol_sets: LruMap[frozenset[ProtocolId], frozenset[ProtocolId]] = LruMap(_PROTOCOL_SETS)

    # --- addresses ----------------------------------------------------------------------------------------------------

    def addrs(self, peer: PeerId) -> Sequence[Multiaddr]:
        """Unexpired addresses: certified ones first, then those that live longest."""
        entry = self._entries.get(peer)
        if entry is None:
            return ()
        now = self._clock()
        live = [held for held in entry.addrs.values() if entry.connected or held.expires > now]
        live.sort(key=lambda held: (not held.certified, -held.expires))
        return [held.addr for held in live]

    def certified_addrs(self, peer: PeerId) -> Sequence[Multiaddr]:
        """The unexpired addresses that the newest signed record of ``peer`` lists."""
        entry = self._entries.get(peer)
        if entry is None:
            return ()
        now = self._clock()
        return [
            held.addr for held in entry.addrs.values() if held.certified and (entry.connected or held.expires > now)
        ]

    def add_addrs(self, peer: PeerId, addrs: Iterable[Multiaddr], *, ttl: float) -> None:
        """Remember ``addrs`` for ``ttl`` seconds; a longer remaining life is kept.

        In a full entry a newcomer replaces the address that ends first, if that is before its own end.
        """
        if ttl > 0:
            with self._changing(peer) as entry:
                self._merge(peer, entry, addrs, self._clock() + ttl)

    def set_addrs(self, peer: PeerId, addrs: Iterable[Multiaddr], *, ttl: float) -> None:
        """Replace all addresses of ``peer``. Those that stay keep being certified."""
        with self._changing(peer) as entry:
            certified = [data for data, held in entry.addrs.items() if held.certified]
            entry.addrs = {}
            if ttl > 0:
                self._merge(peer, entry, addrs, self._clock() + ttl)
            for data in certified:
                if data in entry.addrs:
                    entry.addrs[data].certified = True

    def _merge(
        self, peer: PeerId, entry: Entry, addrs: Iterable[Multiaddr], expires: float, *, certified: bool = False
    ) -> None:
        limit = self.config.addrs_per_connected_peer if entry.connected else self.config.addrs_per_peer
        # No more are looked at than could be held, or ten thousand hostile ones would each search a full entry.
        for given in itertools.islice(addrs, limit):
            addr = own_addr(peer, given)
            if addr is None:
                continue
            data = addr.to_bytes()
            held = entry.addrs.get(data)
            if held is not None:
                held.expires = max(held.expires, expires)
                held.certified = held.certified or certified
            elif len(entry.addrs) < limit or make_room(entry, expires, certified):
                entry.addrs[data] = Held(addr, expires, certified)

    # --- signed records -----------------------------------------------------------------------------------------------

    def add_envelope(self, envelope: bytes, *, ttl: float) -> bool:
        """Take a signed peer record: its addresses become the certified ones, those of the last record no longer are.

        Args:
            envelope: the serialized envelope.
            ttl: seconds that the record and its addresses live; at most ``record_ttl`` for the record.

        Returns:
            False when its sequence number is not above that of the record held, or ``ttl`` is not positive.

        Raises:
            DecodeError: it is too long, does not parse, its signature is wrong, or its signer is not its subject.
        """
        opened = Envelope.open(envelope, DOMAIN, payload_type=PAYLOAD_TYPE, max_length=self.config.envelope_size)
        record = PeerRecord.from_envelope(opened)
        now = self._clock()
        entry = self._entries.get(record.peer)
        held = None if entry is None else entry.record
        if ttl <= 0 or (held is not None and held.expires > now and record.seq <= held.seq):
            return False
        with self._changing(record.peer) as entry:
            # What the peer listed before and no longer lists has gone away.
            entry.addrs = {data: addr for data, addr in entry.addrs.items() if not addr.certified}
            entry.record = Record(bytes(envelope), record.seq, now + min(ttl, self.config.record_ttl))
            self._merge(record.peer, entry, record.addrs, now + ttl, certified=True)
            self._set_key(record.peer, entry, opened.public_key)
        return True

    def envelope(self, peer: PeerId) -> bytes | None:
        """The newest signed peer record of ``peer``, as it arrived."""
        entry = self._entries.get(peer)
        if entry is None or entry.record is None:
            return None
        return entry.record.envelope if entry.connected or entry.record.expires > self._clock() else None

    # --- facts --------------------------------------------------------------------------------------------------------

    def key(self, peer: PeerId) -> PublicKey | None:
        """The public key, from the id itself where it holds one."""
        entry = self._entries.get(peer)
        if entry is not None and entry.key is not None:
            return entry.key
        try:
            return peer.public_key()
        except DecodeError:
            return None  # anybody can make an id of a key that is none

    def add_key(self, peer: PeerId, key: PublicKey) -> None:
        """Remember a key; ValueError when it does not belong to ``peer``."""
        if not peer.matches(key):
            raise ValueError(f"{key!r} is not the key of {peer}")
        held = self._entries.get(peer)
        if held is not None and held.connected and (held.key == key or not _needs_key(peer)):
            return
        with self._changing(peer) as entry:
            self._set_key(peer, entry, key)

    def protocols(self, peer: PeerId) -> frozenset[ProtocolId]:
        """The protocol ids the peer said it serves."""
        entry = self._entries.get(peer)
        return frozenset() if entry is None else entry.protocols

    def set_protocols(self, peer: PeerId, protocols: Iterable[ProtocolId]) -> None:
        """Replace the protocol ids of ``peer``; what is beyond the bounds is left out."""
        kept: list[ProtocolId] = []
        room = self.config.protocol_characters
        for protocol in itertools.islice(protocols, self.config.protocols_per_peer):
            room -= len(protocol)
            if room < 0:
                break
            # Thousands of peers serve the same few protocols, and each message brings its own copies of the names.
            kept.append(sys.intern(protocol))
        protocols = frozenset(kept)
        if (shared := self._protocol_sets.get(protocols)) is not None:
            protocols = shared
        else:
            self._protocol_sets[protocols] = protocols
        if self._is_connected(peer) and protocols == self.protocols(peer):
            return
        with self._changing(peer) as entry:
            entry.protocols = protocols

    def metadata(self, peer: PeerId) -> Mapping[str, str]:
        """Small facts, for example ``agent_version``."""
        entry = self._entries.get(peer)
        return {} if entry is None else dict(entry.metadata)

    def set_metadata(self, peer: PeerId, key: str, value: str) -> None:
        """Remember a small fact. A value that is too long is cut off: it usually comes from the peer.

        Raises:
            LimitExceeded: too many facts about one peer. Keys are the program's own; a peer must not choose them.
        """
        held = self.metadata(peer)
        if key not in held and len(held) >= self.config.metadata_per_peer:
            raise LimitExceeded("metadata_per_peer", self.config.metadata_per_peer)
        value = value[: self.config.metadata_characters]
        if self._is_connected(peer) and held.get(key) == value:
            return
        with self._changing(peer) as entry:
            entry.metadata[key] = value

    @staticmethod
    def _set_key(peer: PeerId, entry: Entry, key: PublicKey) -> None:
        if _needs_key(peer):
            entry.key = key

    # --- peers --------------------------------------------------------------------------------------------------------

    def peers(self) -> Sequence[PeerId]:
        """All peers something is known about."""
        return list(self._entries)

    def set_connected(self, peer: PeerId, connected: bool) -> None:
        """Tell whether ``peer`` is connected; connected peers are never evicted, and nothing of them ends."""
        held = self._entries.get(peer)
        if connected == (held is not None and held.connected):
            return
        with self._changing(peer) as entry:
            entry.connected = connected
            entry.known = True
            if not connected:
                soonest = self._clock() + self.config.recently_connected
                for addr in entry.addrs.values():
                    addr.expires = max(addr.expires, soonest)
                shrink(entry, self.config.addrs_per_peer)

    def forget(self, peer: PeerId) -> None:
        """Drop all that is known about ``peer``. Whether it is connected is not forgotten."""
        entry = self._entries.get(peer)
        if entry is None:
            return
        if entry.connected:
            with self._changing(peer) as entry:
                entry.addrs, entry.metadata = {}, {}
                entry.key = entry.record = None
                entry.protocols = frozenset()
        else:
            self._remove(peer)

    # --- life ---------------------------------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Remove what has ended, until cancelled."""
        task_status.started()
        while True:
            await trio.sleep(self.config.sweep_interval)
            await self._sweep()

    def close(self) -> None:
        """Nothing to give back."""

    async def _sweep(self) -> None:
        for number, peer in enumerate(list(self._entries)):
            if number % _SLICE == 0:
                await trio.lowlevel.checkpoint()
            self._expire(peer)

    def _expire(self, peer: PeerId) -> None:
        entry = self._entries.get(peer)
        if entry is None or entry.connected:
            return
        now = self._clock()
        ended = [data for data, held in entry.addrs.items() if held.expires <= now]
        if ended or (entry.record is not None and entry.record.expires <= now):
            with self._changing(peer, renew=False):
                for data in ended:
                    del entry.addrs[data]
                if entry.record is not None and entry.record.expires <= now:
                    uncertify(entry)
                    entry.record = None
        idle = now - entry.touched > self.config.facts_ttl
        if idle and not entry.addrs and entry.record is None and peer in self._entries:
            self._remove(peer)

    # --- accounts -----------------------------------------------------------------------------------------------------

    def _is_connected(self, peer: PeerId) -> bool:
        entry = self._entries.get(peer)
        return entry is not None and entry.connected

    def _changing(self, peer: PeerId, *, renew: bool = True) -> AbstractContextManager[Entry]:
        """The one way to change an entry: keeps the sums right, and afterwards the bounds."""
        return _Change(self, peer, renew)

    def _begin(self, peer: PeerId) -> Entry:
        entry = self._entries.get(peer)
        if entry is None:
            return Entry(self._clock())
        self._account(entry, -1)
        return entry

    def _finish(self, peer: PeerId, entry: Entry, *, renew: bool) -> None:
        if renew:
            entry.touched = self._clock()
        self._put(peer, entry, renew=renew)
        self._changed(peer)
        self._make_room()

    def _put(self, peer: PeerId, entry: Entry, *, renew: bool = True) -> None:
        """Hold ``entry``, which is in no sum, unless nothing is in it."""
        empty = not (entry.addrs or entry.key or entry.protocols or entry.metadata or entry.record or entry.connected)
        if empty:
            self._entries.pop(peer, None)
            self._ages.discard(peer)
            self._record_ages.discard(peer)
            return
        self._entries[peer] = entry
        self._account(entry, 1)
        if entry.connected:
            self._ages.discard(peer)
        elif renew:
            self._ages.renew(peer, known=entry.known)
        if entry.connected or entry.record is None:
            self._record_ages.discard(peer)
        elif renew:
            self._record_ages.renew(peer, known=entry.known)

    def _account(self, entry: Entry, sign: int) -> None:
        if not entry.connected:
            self._unconnected_addrs += sign * len(entry.addrs)
            self._record_bytes += sign * (len(entry.record.envelope) if entry.record is not None else 0)

    def _make_room(self) -> None:
        config = self.config
        while (
            len(self._record_ages) > config.unconnected_records or self._record_bytes > config.unconnected_record_bytes
        ):
            peer = self._record_ages.oldest()
            entry = self._entries[peer]
            self._account(entry, -1)
            uncertify(entry)
            entry.record = None
            self._put(peer, entry, renew=False)
            self._changed(peer)
        while len(self._ages) > config.unconnected_peers or self._unconnected_addrs > config.unconnected_addrs:
            self._remove(self._ages.oldest())
            self.evicted += 1

    def _remove(self, peer: PeerId) -> None:
        self._account(self._entries.pop(peer), -1)
        self._ages.discard(peer)
        self._record_ages.discard(peer)
        self._changed(peer)

    def _changed(self, peer: PeerId) -> None:
        """For stores with a disk: ``peer`` is not as it was."""


class _Change(AbstractContextManager[Entry]):
    """One block of ``_changing``. A class, because there are several for every connection."""

    __slots__ = ("_entry", "_peer", "_renew", "_store")

    def __init__(self, store: MemoryPeerstore, peer: PeerId, renew: bool) -> None:
        self._store = store
        self._peer = peer
        self._renew = renew

    def __enter__(self) -> Entry:
        self._entry = self._store._begin(self._peer)
        return self._entry

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._store._finish(self._peer, self._entry, renew=self._renew)


def _needs_key(peer: PeerId) -> bool:
    """Whether the key of ``peer`` has to be kept: its id holds only a hash of it."""
    return bytes(peer)[0] != multihash.IDENTITY
