"""The host, and the network below it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol, TypeAlias, TypeVar

import trio

from ._bytes import Direction

if TYPE_CHECKING:
    from multiaddr import Multiaddr

    from ..crypto.keys import PrivateKey
    from ..events import Event, Reachability
    from ..metrics import Metric
    from ..peer_id import PeerId
    from ._bytes import ProtocolId
    from ._connections import Connection
    from ._peerstore import Peerstore
    from ._streams import Stream, StreamHandler

EventT = TypeVar("EventT", bound="Event")
Target: TypeAlias = "PeerId | Multiaddr | str"
"""Who to reach: a peer id or an address, as a value or as text."""


class Network(Protocol):
    """Connections by peer, and how to get more: what the swarm is to everybody else."""

    @property
    def local_peer(self) -> PeerId:
        """This host's own peer id."""
        ...

    @property
    def peerstore(self) -> Peerstore:
        """What is known about peers."""
        ...

    def connections(self, peer: PeerId | None = None) -> Sequence[Connection]:
        """Open connections, of all peers or of one, best first."""
        ...

    def listen_addrs(self) -> Sequence[Multiaddr]:
        """Concrete listen addresses, unspecified hosts expanded to interfaces, without ``/p2p``."""
        ...

    def can_dial(self, addr: Multiaddr) -> bool:
        """Whether a transport of this host understands ``addr``, which names no host and no peer."""
        ...

    async def connect(self, peer: PeerId, /, addrs: Iterable[Multiaddr] = ()) -> Connection:
        """Return a connection to ``peer``, dialling when there is none.

        Args:
            addrs: addresses to try besides those the peerstore knows.

        Raises:
            DialError: every address failed; each failure is in ``attempts``.
            LimitExceeded: too many dials or connections.
        """
        ...

    async def connect_directly(
        self, peer: PeerId, /, addrs: Iterable[Multiaddr], *, direction: Direction = Direction.OUTBOUND
    ) -> Connection:
        """Return a connection to ``peer`` that goes through no relay, whatever connections through relays there are.

        When there is none, all of ``addrs`` are tried at once and once, from listening ports where transports can do
        that; a connection that the peer makes meanwhile will do as well.

        Args:
            addrs: what the peer said: those that lead inside are left out, as the configuration has it.
            direction: INBOUND to meet a peer that dials this host at the same moment: this end then takes the part of
                the listener, see :meth:`Transport.punch`. That goes on until the caller cancels it.

        Raises:
            DialError: OUTBOUND only: every address failed; each failure is in ``attempts``.
        """
        ...

    async def open_stream(self, peer: PeerId, /, *protocols: ProtocolId, allow_limited: bool = False) -> Stream:
        """Connect if needed and open a stream for the first of ``protocols`` the peer speaks.

        The best connection carries it: a direct one before one through a relay, which, if it has limits, does so only
        when ``allow_limited``; see :meth:`Connection.open_stream`.
        """
        ...

    async def disconnect(self, peer: PeerId) -> None:
        """Close all connections to ``peer``."""
        ...

    def subscribe(self, *kinds: type[EventT]) -> AbstractContextManager[trio.abc.ReceiveChannel[EventT]]:
        """Receive events of ``kinds`` while the context is open.

        The channel is bounded; a slow subscriber loses the oldest events and never slows the network.
        """
        ...


class Host(Network, Protocol):
    """A node: a network, the protocols it serves, and its services."""

    @property
    def private_key(self) -> PrivateKey:
        """The identity key, for services that sign."""
        ...

    @property
    def addrs(self) -> Sequence[Multiaddr]:
        """The addresses to announce, each ending in ``/p2p/<local peer>``: where it listens, and where others agree
        to see it. First those that were found reachable; without those that were found not to be; see
        :meth:`judge`."""
        ...

    @property
    def candidate_addrs(self) -> Sequence[Multiaddr]:
        """Where this host may be reachable, announced or not, without ``/p2p`` and without relays."""
        ...

    def judge(self, verdicts: Mapping[Multiaddr, Reachability]) -> None:
        """Say what is known of the addresses in :attr:`candidate_addrs`. It replaces what was said before.

        One that is private is not announced. One that others see and that is not bound here is announced when it is
        public; without a verdict, because nobody tries addresses, it is announced, too.
        """
        ...

    @property
    def observed_addrs(self) -> Sequence[Multiaddr]:
        """Where anybody at all sees this host's listeners, best attested first, without ``/p2p``.

        Nobody has confirmed them: they are for hole punching, and not to be announced.
        """
        ...

    async def listen(self, addr: Multiaddr | str) -> Sequence[Multiaddr]:
        """Listen on one more address; returns the concrete ones.

        Raises:
            TransportError: it cannot be bound, or no transport understands it.
            DecodeError: ``addr`` does not parse.
        """
        ...

    def observe(self, addr: Multiaddr, connection: Connection) -> None:
        """Take note that the peer of ``connection`` sees us as ``addr``; announced once enough others agree."""
        ...

    def set_mapped_addrs(self, addrs: Iterable[Multiaddr]) -> None:
        """Say where a router passes connections on to this host, without ``/p2p``: announced beside what it listens on.

        It replaces what was said before; :class:`~libp2p.events.ListenAddrsChanged` is published when that is new.
        """
        ...

    def publish(self, event: Event) -> None:
        """Tell subscribers; for services that have events of their own."""
        ...

    def protect(self, peer: PeerId, tag: str) -> None:
        """Keep connections to ``peer`` when too many are open, until :meth:`unprotect` is called with the same tag."""
        ...

    def unprotect(self, peer: PeerId, tag: str) -> None:
        """Withdraw a protection; harmless when there is none."""
        ...

    def contain(self, what: str, peer: object = None) -> AbstractContextManager[None]:
        """Guard a call into the user's code: what it raises is logged and counted and goes no further.

        Args:
            what: what is being called, for the log.
            peer: with or for whom.
        """
        ...

    async def connect(self, target: Target, /, addrs: Iterable[Multiaddr | str] = ()) -> Connection:
        """Return a connection to ``target``, dialling when there is none.

        Args:
            target: a peer id (as value or text), or an address (as value or text), which should end in ``/p2p/<id>``:
                without it, whoever answers is taken.
            addrs: addresses to try besides those the peerstore knows.

        Raises:
            DialError: every address failed; each failure is in ``attempts``.
            ConnectionDenied: the gater refuses the peer.
            LimitExceeded: too many dials or connections.
            DecodeError: ``target`` or an address does not parse.
            RuntimeError: the host's block has ended.
        """
        ...

    async def open_stream(self, target: Target, /, *protocols: ProtocolId, allow_limited: bool = False) -> Stream:
        """Connect if needed and open a stream for the first of ``protocols`` the peer speaks.

        Args:
            target: as for :meth:`connect`.
            protocols: at least one, best first.
            allow_limited: whether a connection through a relay with limits will do, when there is no other.

        Raises:
            NegotiationError: the peer speaks none of them.
            LimitedConnection: there is only a connection with limits, and that is not allowed.
            DialError, ConnectionDenied, LimitExceeded, DecodeError, RuntimeError: as :meth:`connect`.
        """
        ...

    @property
    def protocols(self) -> Sequence[ProtocolId]:
        """The protocol ids this host serves, sorted."""
        ...

    def measure(self) -> Sequence[Metric]:
        """What the host, its transports and services have counted; :func:`libp2p.metrics.render` makes text of it."""
        ...

    def handle(
        self, protocol: ProtocolId, handler: StreamHandler, *, allow_limited: bool = False
    ) -> AbstractContextManager[object]:
        """Serve ``protocol`` with ``handler``, until the returned context is left (entering it is optional).

        Raises:
            ValueError: the protocol is served already.
        """
        ...
