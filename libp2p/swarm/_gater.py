"""Who may connect: hooks that an application overrides, a block list, and the guard against dialling inwards."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TypeAlias

from multiaddr import Multiaddr

from .._util.contain import Containment
from ..abc import Direction
from ..addressing import Scope, from_parts, ip_group, names, parts, scope
from ..peer_id import PeerId

IpNetwork: TypeAlias = IPv4Network | IPv6Network


class Gater:
    """Decides about connections at the four points where something new is known. This one allows everything.

    Override what you need. The methods are synchronous and are called for every connection: they must be quick, and
    whoever needs a database asks it beforehand.
    """

    def dial_peer(self, peer: PeerId) -> bool:
        """Whether to dial ``peer`` at all; asked before its addresses are looked up."""
        return True

    def dial_addr(self, peer: PeerId | None, addr: Multiaddr) -> bool:
        """Whether to dial ``addr``; asked for every single address after names were resolved.

        Args:
            peer: who is expected there, None when anyone is.
            addr: the address, without names and without ``/p2p``.
        """
        return True

    def accept(self, remote_addr: Multiaddr) -> bool:
        """Whether to talk to whoever connected from ``remote_addr``; asked before the first byte is read."""
        return True

    def secured(self, direction: Direction, peer: PeerId, addr: Multiaddr) -> bool:
        """Whether to keep the connection, now that the handshake has proved who is there."""
        return True


class ContainedGater(Gater):
    """Asks another gater, and takes an exception for a no: the application's bug must not end the host.

    Args:
        gater: who decides.
        containment: where its exceptions go.
    """

    def __init__(self, gater: Gater, containment: Containment) -> None:
        self._gater = gater
        self._containment = containment

    def dial_peer(self, peer: PeerId) -> bool:
        """Whether to dial ``peer`` at all."""
        with self._containment.contain("gater about", peer):
            return self._gater.dial_peer(peer)
        return False

    def dial_addr(self, peer: PeerId | None, addr: Multiaddr) -> bool:
        """Whether to dial ``addr``."""
        with self._containment.contain("gater about", addr):
            return self._gater.dial_addr(peer, addr)
        return False

    def accept(self, remote_addr: Multiaddr) -> bool:
        """Whether to talk to whoever connected from ``remote_addr``."""
        with self._containment.contain("gater about", remote_addr):
            return self._gater.accept(remote_addr)
        return False

    def secured(self, direction: Direction, peer: PeerId, addr: Multiaddr) -> bool:
        """Whether to keep the connection."""
        with self._containment.contain("gater about", peer):
            return self._gater.secured(direction, peer, addr)
        return False


class BlockList(Gater):
    """Refuses some peers and some networks, in both directions. It may be changed at any time.

    Connections that are already open stay; close them with ``disconnect``.

    Args:
        peers: who is refused.
        networks: from and to where, as ``"203.0.113.0/24"`` or ``"2001:db8::1"``.

    Raises:
        ValueError: one of ``networks`` is none.
    """

    def __init__(self, peers: Iterable[PeerId] = (), networks: Iterable[str | IpNetwork] = ()) -> None:
        self._peers: dict[PeerId, None] = dict.fromkeys(peers)
        # (version, prefix length) -> the prefixes as numbers: a lookup costs one step per length in use, not per entry.
        self._networks: dict[tuple[int, int], set[int]] = {}
        for network in networks:
            self.block_network(network)

    def block_peer(self, peer: PeerId) -> None:
        """Refuse ``peer`` from now on."""
        self._peers[peer] = None

    def unblock_peer(self, peer: PeerId) -> None:
        """Allow ``peer`` again; nothing happens when it was not refused."""
        self._peers.pop(peer, None)

    def block_network(self, network: str | IpNetwork) -> None:
        """Refuse ``network`` from now on.

        Raises:
            ValueError: it is no network.
        """
        length, prefix = self._key(network)
        self._networks.setdefault(length, set()).add(prefix)

    def unblock_network(self, network: str | IpNetwork) -> None:
        """Allow ``network`` again, which was blocked in just this size; nothing happens when it was not."""
        length, prefix = self._key(network)
        prefixes = self._networks.get(length, set())
        prefixes.discard(prefix)
        if not prefixes:
            self._networks.pop(length, None)

    def blocks_peer(self, peer: PeerId) -> bool:
        """Whether ``peer`` is refused."""
        return peer in self._peers

    def blocks_addr(self, addr: Multiaddr) -> bool:
        """Whether the host of ``addr`` is in a refused network; for a relayed address, the relay's."""
        address = _ip(addr)
        if address is None or not self._networks:
            return False
        bits, number = address.max_prefixlen, int(address)
        return any(
            number >> (bits - length) in prefixes
            for (version, length), prefixes in self._networks.items()
            if version == address.version
        )

    def dial_peer(self, peer: PeerId) -> bool:
        """Whether to dial ``peer`` at all."""
        return peer not in self._peers

    def dial_addr(self, peer: PeerId | None, addr: Multiaddr) -> bool:
        """Whether to dial ``addr``."""
        return peer not in self._peers and not self.blocks_addr(addr)

    def accept(self, remote_addr: Multiaddr) -> bool:
        """Whether to talk to whoever connected from ``remote_addr``."""
        return not self.blocks_addr(remote_addr)

    def secured(self, direction: Direction, peer: PeerId, addr: Multiaddr) -> bool:
        """Whether to keep the connection."""
        return peer not in self._peers and not self.blocks_addr(addr)

    @staticmethod
    def _key(network: str | IpNetwork) -> tuple[tuple[int, int], int]:
        parsed = ip_network(network)
        spare = parsed.max_prefixlen - parsed.prefixlen
        return (parsed.version, parsed.prefixlen), int(parsed.network_address) >> spare


def remote_addr_allowed(addr: Multiaddr, *, allow_private: bool) -> bool:
    """Whether to dial an address that some peer told us, judged by the IP address that is really dialled.

    Nodes that dial whatever they hear of scan their own provider's network on behalf of strangers, and are cut off for
    it; worse, they reach services that trust their own machine or network (case T9). Call this after names were
    resolved, on each result, and dial that very result: a name that answers differently the second time is the attack.

    Never allowed: names, unspecified, multicast, reserved and link-local addresses. Of the last, 169.254.169.254 hands
    out a cloud machine's credentials, and no libp2p node is to be found on the others.

    Args:
        addr: a resolved address; of a relayed one, the way to the relay counts.
        allow_private: whether private, loopback and documentation ranges are fine: in a lab, on a LAN, or when whoever
            told the address is on a private network as well.
    """
    found = scope(addr)
    if found is Scope.PUBLIC:
        return True
    if found is Scope.RELAY:
        way = _before_relay(addr)
        # A bare /p2p-circuit leads to a relay that we are connected to already.
        return way is None or remote_addr_allowed(way, allow_private=allow_private)
    if found is Scope.OTHER:
        address = _ip(addr)
        if address is None:
            return names(addr)[:1] == ("memory",)  # leaves no process; /unix would reach local services
        return allow_private and not (address.is_multicast or address.is_reserved or address.is_unspecified)
    return allow_private and found in (Scope.PRIVATE, Scope.LOOPBACK)


def _ip(addr: Multiaddr) -> IPv4Address | IPv6Address | None:
    """The host of ``addr`` as an IP address; IPv4 inside IPv6 comes out as IPv4."""
    host = ip_group(addr, ip4_bits=32, ip6_bits=128)
    return ip_address(host[1:]) if host[:1] in (b"4", b"6") else None


def _before_relay(addr: Multiaddr) -> Multiaddr | None:
    """The address of the relay; None when only its id is given, or nothing."""
    way = tuple(itertools.takewhile(lambda part: part.name != "p2p-circuit", parts(addr)))
    return from_parts(way) if way and way[0].name != "p2p" else None
