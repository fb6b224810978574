"""What is held about one peer, within what bounds, and who must make room first. Pure."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from multiaddr import Multiaddr

from ..abc import ProtocolId
from ..addressing import split_peer
from ..crypto.keys import PublicKey
from ..errors import DecodeError
from ..peer_id import PeerId


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerstoreConfig:
    """The bounds of a peerstore. Sources: go ``pstoremem`` and our own measurements, where not said otherwise."""

    addrs_per_peer: int = 64
    """Addresses of a peer that is not connected (go, litep2p)."""
    addrs_per_connected_peer: int = 500
    """Addresses of a connected peer (go identify)."""
    unconnected_addrs: int = 100_000
    """Addresses of all peers that are not connected (case I4; go: 1,000,000)."""
    unconnected_peers: int = 32_768
    """Peers that are not connected (ours: with the addresses, 64 MB at worst, case I4)."""
    unconnected_records: int = 10_000
    """Signed records of peers that are not connected (case I4; go: 100,000)."""
    envelope_size: int = 8192
    """Bytes of one signed record (case S8; what fits into an identify message)."""
    unconnected_record_bytes: int = 16 * 1024 * 1024
    """Bytes of all signed records of peers that are not connected (ours: the usual record has 300)."""
    record_ttl: float = 48 * 3600.0
    """The longest a record binds its successors, whatever ttl it came with (as long as a DHT record lives)."""
    recently_connected: float = 900.0
    """Seconds the addresses of a peer live at least after it disconnects (go ``RecentlyConnectedAddrTTL``)."""
    facts_ttl: float = 3600.0
    """Seconds that key, protocols and metadata of a peer without addresses are kept after their last change (ours)."""
    protocols_per_peer: int = 1024
    """Protocol ids of a peer (go ``pstoremem``)."""
    protocol_characters: int = 65_536
    """Characters of all protocol ids of a peer (ours)."""
    metadata_per_peer: int = 32
    """Facts about a peer (ours)."""
    metadata_characters: int = 1024
    """Characters of one fact; the rest is cut off (ours)."""
    sweep_interval: float = 60.0
    """Seconds between two searches for what has ended (go)."""

    def __post_init__(self) -> None:
        if self.addrs_per_peer < 1 or self.addrs_per_connected_peer < self.addrs_per_peer:
            raise ValueError("a peer needs room for an address, and no less of it when it is connected")
        if min(self.unconnected_addrs, self.unconnected_peers, self.unconnected_records) < 0:
            raise ValueError("bounds must not be negative")
        if self.sweep_interval <= 0:
            raise ValueError("the sweep interval must be positive")


@dataclass(slots=True)
class Held:
    """One address, as it is held."""

    addr: Multiaddr
    expires: float
    certified: bool


@dataclass(slots=True)
class Record:
    """A signed peer record, as it is held."""

    envelope: bytes
    seq: int
    expires: float


@dataclass(slots=True)
class Entry:
    """All that is known about one peer."""

    touched: float
    addrs: dict[bytes, Held] = field(default_factory=dict[bytes, Held])
    key: PublicKey | None = None
    protocols: frozenset[ProtocolId] = frozenset()
    metadata: dict[str, str] = field(default_factory=dict[str, str])
    record: Record | None = None
    connected: bool = False
    known: bool = False
    """Whether it was ever connected."""


class Ages:
    """Peers in the order in which they must make room: strangers before known peers, the oldest first.

    Known peers hold at most three quarters of the room, though: otherwise a churn of connections could fill it with
    peers that nobody will see again, and nothing new could be learned.
    """

    __slots__ = ("_known", "_strangers")

    def __init__(self) -> None:
        # Not plain dicts: finding the first key after many deletions at the front takes linear time.
        self._strangers: OrderedDict[PeerId, None] = OrderedDict()
        self._known: OrderedDict[PeerId, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._strangers) + len(self._known)

    def renew(self, peer: PeerId, *, known: bool) -> None:
        """Make ``peer`` the youngest of its class."""
        self.discard(peer)
        (self._known if known else self._strangers)[peer] = None

    def discard(self, peer: PeerId) -> None:
        self._strangers.pop(peer, None)
        self._known.pop(peer, None)

    def oldest(self) -> PeerId:
        known_first = len(self._known) > 3 * len(self._strangers)
        return next(iter(self._known if known_first else self._strangers))


def own_addr(peer: PeerId, addr: Multiaddr) -> Multiaddr | None:
    """``addr`` without ``/p2p``; None when it is of another peer, or nothing."""
    try:
        bare, named = split_peer(addr)
    except DecodeError:
        return None  # one bad address must not cost the others (A10)
    return bare if named in (None, peer) and bare.to_bytes() else None


def make_room(entry: Entry, expires: float, certified: bool) -> bool:
    """Drop the address of a full entry that ends first, unless it deserves its place more than the newcomer."""
    others = [(held.expires, data) for data, held in entry.addrs.items() if not held.certified]
    if not others:
        return False
    soonest, data = min(others)
    if certified or soonest < expires:
        del entry.addrs[data]
        return True
    return False


def uncertify(entry: Entry) -> None:
    for held in entry.addrs.values():
        held.certified = False


def shrink(entry: Entry, limit: int) -> None:
    """Keep the best addresses only."""
    if len(entry.addrs) > limit:
        best = sorted(entry.addrs.items(), key=lambda item: (not item[1].certified, -item[1].expires))
        entry.addrs = dict(best[:limit])
