"""What a host announces to whoever subscribed. Plain data; peers are peer ids, addresses are multiaddrs."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from multiaddr import Multiaddr

from .peer_id import PeerId

if TYPE_CHECKING:
    from .abc import Connection


@dataclass(slots=True)
class Event:
    """Base of all events."""


@dataclass(slots=True)
class PeerConnected(Event):
    """The first connection to a peer came up."""

    peer: PeerId


@dataclass(slots=True)
class PeerDisconnected(Event):
    """The last connection to a peer is gone."""

    peer: PeerId


@dataclass(slots=True)
class ConnectionOpened(Event):
    """A connection came up; a peer may have several."""

    peer: PeerId
    connection: Connection


@dataclass(slots=True)
class ConnectionEnded(Event):
    """A connection is gone.

    Attributes:
        reason: what ended it, for people.
    """

    peer: PeerId
    connection: Connection
    reason: str


@dataclass(slots=True)
class PeerIdentified(Event):
    """Identify finished on a connection, or a push arrived, and the peerstore is up to date.

    Attributes:
        agent_version: what the peer calls its software.
        protocols: the protocol ids it serves.
        observed_addr: our address as the peer sees it, if it said.
    """

    peer: PeerId
    agent_version: str
    protocol_version: str
    protocols: tuple[str, ...]
    listen_addrs: tuple[Multiaddr, ...]
    observed_addr: Multiaddr | None


@dataclass(slots=True)
class PeerDiscovered(Event):
    """A discovery service has heard of a peer. Its addresses are in the peerstore; nobody has tried them yet.

    Attributes:
        peer: who.
        addrs: where it says it can be reached, without ``/p2p``.
        source: what found it, as ``"mdns"`` or ``"rendezvous"``.
    """

    peer: PeerId
    addrs: tuple[Multiaddr, ...]
    source: str


@dataclass(slots=True)
class ListenAddrsChanged(Event):
    """The addresses this host announces changed.

    Attributes:
        addrs: all of them, new and old.
    """

    addrs: tuple[Multiaddr, ...]


class Reachability(enum.Enum):
    """Whether others can dial an address, or a host at any of its addresses."""

    UNKNOWN = "unknown"
    """Nobody has tried, or too few."""
    PUBLIC = "public"
    """They can."""
    PRIVATE = "private"
    """They cannot: there is a NAT or a firewall."""


@dataclass(slots=True)
class ReachabilityChanged(Event):
    """Others turned out to be able, or not to be able, to dial this host or one of its addresses.

    Attributes:
        reachability: of the host: of its best address.
        addrs: what is known of each address that was tried.
    """

    reachability: Reachability
    addrs: dict[Multiaddr, Reachability]


@dataclass(slots=True)
class ProtocolsChanged(Event):
    """The protocols this host serves changed.

    Attributes:
        protocols: all of them, sorted.
    """

    protocols: tuple[str, ...]


@dataclass(slots=True)
class HolePunchEnded(Event):
    """A connection through a relay was to be replaced by a direct one.

    Attributes:
        peer: whose connection.
        connection: the direct one; None when it did not come about, and the relayed one has to do.
        tries: how often the two tried to meet; none when a plain dial was enough. Who only answers, publishes one event
            for each try.
        reason: why it did not come about, for people; empty when it did.
    """

    peer: PeerId
    connection: Connection | None
    tries: int
    reason: str


@dataclass(slots=True)
class ListenerClosed(Event):
    """A listener ended by itself; the host lives on without it."""

    addr: Multiaddr
    reason: str
