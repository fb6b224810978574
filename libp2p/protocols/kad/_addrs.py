"""Addresses as the DHT sees them: which belong into a network, and which are neighbours. Pure."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Sequence

from multiaddr import Multiaddr

from ...addressing import Part, Scope, from_parts, ip_group, parse, parts, scope, split_peer
from ...errors import DecodeError
from ...peer_id import PeerId


class Reach(enum.Enum):
    """Which addresses belong into a network."""

    PUBLIC = "public"
    """Those of the internet: the public network, to which an address of somebody's home is of no use."""
    PRIVATE = "private"
    """Those of a site: the network beside the public one that finds neighbours."""
    ANY = "any"
    """All of them: networks of one's own."""

    def admits(self, addr: Multiaddr) -> bool:
        """Whether ``addr`` belongs into the network. Relayed ones never do: servers are dialled directly."""
        where = scope(addr)
        if where in (Scope.RELAY, Scope.UNSPECIFIED):
            return False
        if self is Reach.ANY:
            return True
        return where in (_PUBLIC if self is Reach.PUBLIC else _PRIVATE)

    def tells(self, addr: Multiaddr) -> bool:
        """Whether to tell others of ``addr``: who cannot be dialled may still be reached through a relay that can."""
        found = parts(addr)
        before = found[: found.index(_CIRCUIT)] if _CIRCUIT in found else found
        return bool(before) and self.admits(from_parts(before))

    def told(self, addrs: Iterable[Multiaddr]) -> tuple[bytes, ...]:
        """Those of ``addrs``, a peer's, to tell others of: binary, and without ``/p2p``."""
        return tuple([split_peer(addr)[0].to_bytes() for addr in addrs if self.tells(addr)])


_CIRCUIT = Part("p2p-circuit")
_PUBLIC = (Scope.PUBLIC, Scope.NAME)
_PRIVATE = (Scope.PRIVATE, Scope.LINK_LOCAL, Scope.LOOPBACK)

# IPv4 blocks given to one holder each in the early days (go): one group each.
_LEGACY = frozenset((12, 17, 19, 38, 48, 53, 56, 73))


def group_of(addr: Multiaddr) -> bytes | None:
    """The IP group of a public address: its /16 in IPv4 (/8 in a few old blocks), its /32 in IPv6.

    None for addresses that are not public: in a network of one's own many peers share a machine or a site.
    """
    if scope(addr) is not Scope.PUBLIC:
        return None
    group = ip_group(addr, ip4_bits=16, ip6_bits=32)
    return group[:2] if group[:1] == b"4" and group[1] in _LEGACY else group


def groups_of(addrs: Iterable[Multiaddr]) -> tuple[bytes, ...]:
    """The IP groups of ``addrs``, each once."""
    return tuple(dict.fromkeys([group for addr in addrs if (group := group_of(addr)) is not None]))


def readable(addrs: Sequence[bytes], peer: PeerId) -> list[Multiaddr]:
    """Those of ``addrs``, said to be ``peer``'s, that are addresses and name nobody else; without /p2p."""
    found: list[Multiaddr] = []
    for data in addrs:
        try:
            addr, named = split_peer(parse(data))
        except DecodeError:
            continue
        if named in (None, peer) and addr.to_bytes():
            found.append(addr)
    return found
