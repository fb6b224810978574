"""Hosts, the NATs they are behind, and where packets go between them. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address

from ._packets import read
from ._table import Nat


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a host is.

    Attributes:
        ip: its own address.
        nat: what it is behind; None on the public side.
    """

    ip: IPv4Address
    nat: Nat | None = None


class Internet:
    """Everything between the hosts.

    Args:
        hosts: the hosts by name.

    Raises:
        ValueError: two have the same address where they can meet, or a host that of a NAT.
    """

    def __init__(self, hosts: dict[str, Place]) -> None:
        self.hosts = hosts
        self._nats = {place.nat.outside: place.nat for place in hosts.values() if place.nat is not None}
        self._names: dict[tuple[Nat | None, IPv4Address], str] = {
            (place.nat, place.ip): name for name, place in hosts.items()
        }
        if len(self._names) < len(hosts) or any((None, outside) in self._names for outside in self._nats):
            raise ValueError("an address is given out twice")

    def send(self, sender: str, packet: bytes, now: float) -> tuple[Nat | None, bytes] | None:
        """Let ``sender`` send ``packet``, through its NAT if it is for outside.

        Returns:
            The network that the packet is in now, None for the public one, and what it has become; None when it was
            dropped.
        """
        flow = read(packet)
        place = self.hosts[sender]
        if flow is None or flow.source.ip != place.ip:
            return None
        if place.nat is None or (place.nat, flow.target.ip) in self._names:
            return place.nat, packet
        if flow.target.ip == place.nat.outside and not place.nat.config.hairpin:
            return None
        outside = place.nat.leave(packet, now)
        return None if outside is None else (None, outside)

    def arrive(self, network: Nat | None, packet: bytes, now: float) -> tuple[str, bytes] | None:
        """Who gets a packet that has come through ``network``, and in what shape; None when nobody does."""
        flow = read(packet)
        if flow is None:
            return None
        host = self._names.get((network, flow.target.ip))
        if host is not None:
            return host, packet
        nat = self._nats.get(flow.target.ip)
        inside = None if nat is None else nat.enter(packet, now)
        return None if inside is None else self.arrive(nat, inside, now)
