"""The interfaces between the layers. No implementation.

Bytes flow: transport → security → muxer → stream. A transport returns bytes (:class:`RawConnection`) or a finished
connection (:class:`SecureMuxedConnection`); a security protocol turns bytes into a :class:`SecureStream`; a muxer turns
that into a :class:`MuxedConnection`; everybody above sees :class:`Stream`, :class:`Connection` and :class:`Host`.

Rules that hold for all of them: only what may block is ``async``, and it is a checkpoint; ``aclose`` always closes, and
when cancelled it closes without manners; whatever has a life has ``run``, which only its owner calls.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeAlias, TypeVar

import trio
from trio.abc import AsyncResource, HalfCloseableStream
from trio.abc import Stream as ByteStream

from .errors import TransportError

if TYPE_CHECKING:
    from multiaddr import Multiaddr

    from .crypto.keys import PrivateKey, PublicKey
    from .events import Event, Reachability
    from .metrics import Metric
    from .peer_id import PeerId

Buffer: TypeAlias = bytes | bytearray | memoryview
ProtocolId: TypeAlias = str
EventT = TypeVar("EventT", bound="Event")


class Direction(enum.Enum):
    """Which side started a connection or a stream."""

    OUTBOUND = "outbound"
    INBOUND = "inbound"


# --- bytes ------------------------------------------------------------------------------------------------------------


class DirectStream(ByteStream, ABC):
    """A byte stream that can also be used without a task switch, for the layers that batch.

    The non-blocking methods never wait and are not checkpoints. One task reads, one task writes.

    Attributes:
        kernel: whether :meth:`send_nowait` hands bytes to the kernel and touches nothing else, so that it may be called
            outside of any task. False where the other end lives in this process and is woken by it.
    """

    kernel: bool = True

    __slots__ = ()

    @abstractmethod
    def receive_into_nowait(self, buffer: memoryview) -> int:
        """Fill ``buffer`` from its start with what is there. Returns the number of bytes, 0 at the end of the stream.

        Raises:
            trio.WouldBlock: nothing is there; wait with :meth:`wait_readable`.
            trio.BrokenResourceError: the connection is lost.
            trio.ClosedResourceError: the stream was closed here.
        """

    @abstractmethod
    def send_nowait(self, data: Buffer) -> int:
        """Hand the front of ``data`` to the kernel. Returns how many bytes it took.

        The others must come first in the next call: they may be encrypted already.

        Raises:
            trio.WouldBlock: it takes nothing now; wait with :meth:`wait_writable`.
            trio.BrokenResourceError: the connection is lost.
            trio.ClosedResourceError: the stream was closed here.
        """

    @abstractmethod
    async def wait_readable(self) -> None:
        """Wait until :meth:`receive_into_nowait` may succeed."""

    @abstractmethod
    async def wait_writable(self) -> None:
        """Wait until :meth:`send_nowait` may succeed."""


class SecureStream(ByteStream, ABC):
    """The byte stream between a security protocol and a muxer.

    Besides the plain stream methods, which the muxer negotiation uses, it takes and gives bytes in batches. A muxer's
    reader calls only :meth:`receive_chunks`; its writers call :meth:`write` and, when that returns False,
    :meth:`flush` before the next ``write``.
    """

    __slots__ = ()

    @property
    @abstractmethod
    def kernel(self) -> bool:
        """Whether :meth:`write` hands bytes straight to the kernel; see :class:`DirectStream`."""

    @abstractmethod
    async def receive_chunks(self) -> Sequence[bytes]:
        """Wait for at least one chunk and return all that are there, in order. Empty at the end of the stream.

        Not always a checkpoint: it returns at once while bytes are there, and checkpoints every few calls.

        Raises:
            SecurityError: a record does not authenticate; the stream is dead.
            trio.BrokenResourceError: the connection is lost.
        """

    @abstractmethod
    def write(self, buffers: Sequence[Buffer]) -> bool:
        """Take all of ``buffers`` as one write; the memory may be reused when this returns.

        Returns:
            True when everything is on its way; False when some waits here for :meth:`flush`.

        Raises:
            trio.BusyResourceError: the last write was not flushed yet.
            trio.BrokenResourceError: the connection is lost.
        """

    @abstractmethod
    async def flush(self) -> None:
        """Wait until what :meth:`write` left behind is on its way.

        Cancelling may leave part of a record on the wire: only who ends the connection anyway cancels it.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class RawConnection:
    """What TCP, WebSocket, memory and relay transports produce: bytes and two addresses.

    Attributes:
        prepare: what the transport has to say on an accepted connection before ``stream`` can be used; None when there
            is nothing. An accept loop must wait for nobody, so whoever accepted awaits this once, within limits of his
            own. It raises TransportError, and leaves closing to its caller.
        limited: whether a relay bounds its bytes or duration.
    """

    stream: ByteStream
    local_addr: Multiaddr
    remote_addr: Multiaddr
    prepare: Callable[[], Awaitable[None]] | None = None
    limited: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SecureChannel:
    """A stream whose other end has proved who it is."""

    stream: SecureStream
    remote_peer: PeerId
    remote_key: PublicKey
    muxer: ProtocolId | None = None
    """The muxer agreed on inside the handshake, or None when it is still to be negotiated."""


class SecurityProtocol(Protocol):
    """Proves identities over a raw stream."""

    protocol: ProtocolId

    async def secure(
        self, stream: ByteStream, *, direction: Direction, peer: PeerId | None, initial: bytes = b""
    ) -> SecureChannel:
        """Run the handshake.

        Args:
            stream: the raw stream; owned by the result on success, closed by the caller on failure.
            direction: OUTBOUND for the initiator.
            peer: the peer that must answer, None when anyone may.
            initial: bytes of the peer that were already read from ``stream``.

        Raises:
            PeerIdMismatch: somebody else answered; nothing was sent beyond the handshake.
            SecurityError: the handshake failed.
            trio.BrokenResourceError: the connection was lost.
        """
        ...


class EagerSecurityProtocol(SecurityProtocol):
    """A security protocol that can begin before the peer has agreed to it, which saves a round trip.

    Only for protocols in which the dialer speaks first, and says nothing secret by that.
    """

    @abstractmethod
    async def secure(
        self,
        stream: ByteStream,
        *,
        direction: Direction,
        peer: PeerId | None,
        initial: bytes = b"",
        preface: bytes = b"",
        opening: Opening | None = None,
    ) -> SecureChannel:
        """As :meth:`SecurityProtocol.secure`.

        Args:
            preface: what the negotiation has still to say: it leaves in one packet with the handshake's first bytes,
                or before the handshake waits for the peer's, whichever comes first.
            opening: takes what the peer sends until it has agreed; what follows belongs to the handshake.

        Raises:
            NegotiationError, RemoteProtocolError: by ``opening``: the peer does not agree.
        """


class Protector(Protocol):
    """The encryption of a private network, between a transport and the security protocol."""

    async def protect(self, stream: ByteStream) -> ByteStream:
        """Wrap ``stream`` before anything is said on it; the result owns it, and is direct where it is.

        Raises:
            trio.BrokenResourceError: the connection was lost.
        """
        ...


SecurityFactory: TypeAlias = "Callable[[PrivateKey, Sequence[ProtocolId]], SecurityProtocol]"
"""Makes a host's security protocol from its key and the muxers to agree on early; the class ``Noise`` is one."""


# --- streams and connections ------------------------------------------------------------------------------------------


class Stream(HalfCloseableStream, ABC):
    """One bidirectional, flow-controlled stream of a connection.

    ``async with stream:`` closes on normal exit and *resets* on exit by exception: half an answer must not look whole.
    Leaving the block is no checkpoint.

    | situation | ``receive_some`` | ``send_all`` |
    | --- | --- | --- |
    | remote half-closed | the rest, then ``b""`` | works |
    | ``send_eof()`` called | works | ``ClosedResourceError`` |
    | closed or reset here | ``ClosedResourceError`` | ``ClosedResourceError`` |
    | reset by the remote | ``StreamReset`` | ``StreamReset`` |
    | connection lost | buffered data, then ``ConnectionClosed`` | ``ConnectionClosed`` |
    | two tasks on one side | ``BusyResourceError`` | ``BusyResourceError`` |
    """

    __slots__ = ("connection", "direction", "protocol")

    protocol: ProtocolId | None
    """What was negotiated on it; None before that."""
    connection: Connection
    """The connection that carries it."""
    direction: Direction

    @abstractmethod
    def send_nowait(self, data: Buffer) -> None:
        """Queue all of ``data`` if that is possible without waiting.

        What :meth:`send_all` does, without its checkpoint: for many small messages in a row. Whoever sends without end
        has to let others run now and then, and to fall back on ``send_all`` when it has to wait.

        Raises:
            trio.WouldBlock: the peer's window or the connection is full; nothing was queued.
            trio.BusyResourceError: another task is sending.
            trio.ClosedResourceError, StreamReset, ConnectionClosed: as ``send_all``.
        """

    @abstractmethod
    def receive_nowait(self) -> bytes:
        """The next chunk if it is there already; ``b""`` at the end of the stream.

        What :meth:`receive_some` does, without its checkpoint: for whoever takes all that is there at once. Nothing
        more arrives while no other task runs, so a loop of these ends.

        Raises:
            trio.WouldBlock: it is not there yet. Also when the peer's answer to what was negotiated is still to be
                checked: the first read of a stream opened here is ``receive_some``.
            trio.BusyResourceError: another task is receiving.
            trio.ClosedResourceError, StreamReset, ConnectionClosed: as ``receive_some``.
        """

    @abstractmethod
    async def send_eof(self, last: Buffer = b"") -> None:
        """Send ``last``, then half-close: the peer reads to the end, this side goes on reading. Idempotent.

        One step where ``send_all`` and ``send_eof`` are two.

        Raises:
            trio.BusyResourceError: another task is sending.
            trio.ClosedResourceError, StreamReset, ConnectionClosed: as ``send_all``.
        """

    @abstractmethod
    def close(self) -> None:
        """What ``aclose`` does, without its checkpoint. Synchronous, idempotent."""

    @abstractmethod
    def reset(self, code: int = 0) -> None:
        """End both directions at once and tell the peer. Synchronous, idempotent."""

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close, or reset when the block is left by an exception."""
        if exc_type is not None:
            self.reset()
        self.close()


class Agreement(Protocol):
    """The end of a negotiation: the protocol, and bytes of the peer that belong to it already."""

    protocol: ProtocolId
    leftover: bytes


class Opening(Protocol):
    """A negotiation that is finished on first use of its stream (multistream's dialer)."""

    def data_to_send(self) -> bytes:
        """What is to be sent; drains."""
        ...

    def receive_data(self, data: bytes | bytearray) -> Agreement | None:
        """Take the peer's bytes; the agreement when it is complete."""
        ...


class MuxedStream(Stream, ABC):
    """A stream as a muxer hands it to the swarm: with what it takes to negotiate on it without extra packets."""

    __slots__ = ("on_end",)

    on_end: Callable[[], None] | None
    """Called once, when the stream is closed or reset, by whichever side, or its connection is lost."""

    @abstractmethod
    def unread(self, data: bytes) -> None:
        """Put bytes that were received back in front of what is read next."""

    @abstractmethod
    def send_now(self, data: bytes) -> None:
        """Queue a few bytes and try to write them, without waiting. For negotiations only: nothing holds it back."""

    @abstractmethod
    def send_with_next(self, data: bytes) -> None:
        """Send ``data`` with the first bytes of the application, or before it waits for input, or when it closes."""

    @abstractmethod
    def begin_optimistic(self, opening: Opening, protocol: ProtocolId) -> None:
        """Use ``protocol`` as if it were agreed; the peer's answer is checked before the first read returns."""


Target: TypeAlias = "PeerId | Multiaddr | str"
"""Who to reach: a peer id or an address, as a value or as text."""
StreamHandler: TypeAlias = Callable[[Stream], Awaitable[None]]


class MuxedConnection(AsyncResource, ABC):
    """Many streams over one secure connection."""

    @abstractmethod
    async def run(
        self, accept: Callable[[MuxedStream], None], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Read and write until the connection ends. Returns when it ended in order.

        Args:
            accept: called, synchronously, for every stream the peer opens. It must not block; it starts a task that
                handles the stream, or resets it.

        Raises:
            RemoteProtocolError: the peer broke the muxer's rules.
            ConnectionClosed: the connection was lost.
        """

    @property
    @abstractmethod
    def can_open(self) -> bool:
        """Whether :meth:`open_stream` would succeed without waiting."""

    @abstractmethod
    async def open_stream(self) -> MuxedStream:
        """Open a stream. Waits while the peer has too many unacknowledged ones; otherwise not a checkpoint.

        Raises:
            ConnectionClosed: the connection is gone or going away.
            LimitExceeded: too many streams are open.
        """

    @abstractmethod
    def abort(self, code: int = 0) -> None:
        """End the connection at once. Synchronous, idempotent."""


class SecureMuxedConnection(MuxedConnection, ABC):
    """What transports with built-in security and muxing (QUIC) produce directly."""

    remote_peer: PeerId
    remote_key: PublicKey
    local_addr: Multiaddr
    remote_addr: Multiaddr


class Muxer(Protocol):
    """Makes muxed connections."""

    protocol: ProtocolId

    def mux(self, stream: SecureStream, *, direction: Direction, initial: bytes = b"") -> MuxedConnection:
        """Wrap ``stream``, which the result owns. ``initial`` are bytes of the peer already read from it."""
        ...


class Connection(Protocol):
    """What protocols see of a connection."""

    @property
    def peer(self) -> PeerId:
        """Who is at the other end, proved by the handshake."""
        ...

    @property
    def remote_key(self) -> PublicKey:
        """The other end's public key, proved by the handshake."""
        ...

    @property
    def direction(self) -> Direction:
        """Who dialled."""
        ...

    @property
    def local_addr(self) -> Multiaddr:
        """Our end."""
        ...

    @property
    def remote_addr(self) -> Multiaddr:
        """Their end, as seen here, without ``/p2p``."""
        ...

    @property
    def limited(self) -> bool:
        """Whether a relay bounds its bytes or duration."""
        ...

    @property
    def stream_count(self) -> int:
        """Streams it carries now."""
        ...

    async def open_stream(self, *protocols: ProtocolId, allow_limited: bool = False) -> Stream:
        """Open a stream for the first of ``protocols`` the peer speaks.

        Args:
            protocols: at least one, best first.
            allow_limited: whether a few bytes for a short time are enough, as a relay with limits gives.

        Raises:
            NegotiationError: the peer speaks none of them.
            LimitedConnection: the connection is :attr:`limited`, and that is not allowed.
            LimitExceeded: a stream limit of ours.
            ConnectionClosed: the connection is gone.
        """
        ...

    async def aclose(self) -> None:
        """Close it, telling the peer."""
        ...


# --- transports -------------------------------------------------------------------------------------------------------


class Listener(AsyncResource, ABC):
    """One listening address."""

    @property
    @abstractmethod
    def addresses(self) -> Sequence[Multiaddr]:
        """The concrete addresses, with the real port, unspecified hosts not expanded."""

    @abstractmethod
    async def accept(self) -> RawConnection | SecureMuxedConnection:
        """Wait for the next connection.

        Raises:
            OSError: the listener is broken; resource exhaustion is retried by the caller after a pause.
            trio.ClosedResourceError: it was closed here.
        """


class Transport(ABC):
    """A way to reach addresses of some shape."""

    brings_security: ClassVar[bool] = False
    """Whether its connections come secured and muxed, as QUIC's do: a private network cannot go below that."""

    @abstractmethod
    def can_dial(self, addr: Multiaddr) -> bool:
        """Whether :meth:`dial` understands ``addr`` (without its ``/p2p`` suffix)."""

    @abstractmethod
    def can_listen(self, addr: Multiaddr) -> bool:
        """Whether :meth:`listen` understands ``addr``."""

    @abstractmethod
    async def dial(self, addr: Multiaddr, *, peer: PeerId | None) -> RawConnection | SecureMuxedConnection:
        """Connect to ``addr``, which holds no unresolved name.

        Raises:
            TransportError: it did not work, and why.
        """

    @abstractmethod
    async def listen(self, addr: Multiaddr) -> Listener:
        """Listen on ``addr``.

        Raises:
            TransportError: the address cannot be bound.
        """

    async def punch(self, addr: Multiaddr, *, peer: PeerId) -> RawConnection | SecureMuxedConnection:
        """Meet ``peer``, which dials this host from ``addr`` at the same moment, so that the NATs between let both in.

        What comes of it is used as if it had been accepted: the peer dials, and this end listens. Where the peer's
        packets arrive at a listener of this transport (QUIC), the connection is accepted there; this then keeps the way
        open and does not return until it is cancelled.

        Raises:
            TransportError: it did not work, or this transport cannot do it.
        """
        await trio.lowlevel.checkpoint()
        raise TransportError(addr, "this transport punches no holes")

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Whatever the transport does in the background; most do nothing."""
        task_status.started()

    def measure(self) -> Iterable[Metric]:
        """What it has counted."""
        return ()


TransportFactory: TypeAlias = "Callable[[PrivateKey], Transport]"
"""Makes a host's transport from its key; for transports that prove identities themselves, as the class ``Quic``."""


class Resolver(Protocol):
    """Turns names in addresses into IP addresses."""

    async def resolve(self, addr: Multiaddr) -> Sequence[Multiaddr]:
        """Replace ``/dns``, ``/dns4``, ``/dns6`` and ``/dnsaddr`` in ``addr``; other addresses come back as they are.

        Raises:
            ResolveError: nothing was found, or the limits were reached.
        """
        ...


# --- the host ---------------------------------------------------------------------------------------------------------


class Peerstore(Protocol):
    """What is known about peers. Synchronous: its answers are needed inside decisions."""

    def addrs(self, peer: PeerId) -> Sequence[Multiaddr]:
        """Unexpired addresses, best first."""
        ...

    def add_addrs(self, peer: PeerId, addrs: Iterable[Multiaddr], *, ttl: float) -> None:
        """Remember ``addrs`` for ``ttl`` seconds; a longer remaining life is kept."""
        ...

    def set_addrs(self, peer: PeerId, addrs: Iterable[Multiaddr], *, ttl: float) -> None:
        """Replace all addresses of ``peer``."""
        ...

    def key(self, peer: PeerId) -> PublicKey | None:
        """The public key, from the id itself where it holds one."""
        ...

    def add_key(self, peer: PeerId, key: PublicKey) -> None:
        """Remember a key; ValueError when it does not belong to ``peer``."""
        ...

    def protocols(self, peer: PeerId) -> frozenset[ProtocolId]:
        """The protocol ids the peer said it serves."""
        ...

    def set_protocols(self, peer: PeerId, protocols: Iterable[ProtocolId]) -> None:
        """Replace the protocol ids of ``peer``."""
        ...

    def metadata(self, peer: PeerId) -> Mapping[str, str]:
        """Small facts, for example ``agent_version``."""
        ...

    def set_metadata(self, peer: PeerId, key: str, value: str) -> None:
        """Remember a small fact."""
        ...

    def add_envelope(self, envelope: bytes, *, ttl: float) -> bool:
        """Take a signed peer record. False when it is older than the one held.

        Raises:
            DecodeError: it does not parse, its signature is wrong, or its signer is not its subject.
        """
        ...

    def envelope(self, peer: PeerId) -> bytes | None:
        """The newest signed peer record of ``peer``, as it arrived."""
        ...

    def peers(self) -> Sequence[PeerId]:
        """All peers something is known about."""
        ...

    def set_connected(self, peer: PeerId, connected: bool) -> None:
        """Tell whether ``peer`` is connected; connected peers are never evicted."""
        ...

    def forget(self, peer: PeerId) -> None:
        """Drop all that is known about ``peer``."""
        ...

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Expire, and persist where there is a disk; writes what is left when cancelled."""
        ...

    def close(self) -> None:
        """Give back files; idempotent."""
        ...


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

        The best connection carries it: a direct one before one through a relay with limits, which does so only when
        ``allow_limited``; see :meth:`Connection.open_stream`.
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
            LimitExceeded: too many dials or connections.
            DecodeError: ``target`` or an address does not parse.
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
            DialError, LimitExceeded, DecodeError: as :meth:`connect`.
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


class Service(ABC):  # noqa: B024 - every method has a default; the class is what services share
    """A protocol with a life of its own: handlers for inbound streams and, if needed, background work.

    Attributes:
        reuses_ports: whether it needs TCP to dial from the ports it listens on, as hole punching does.
    """

    reuses_ports: ClassVar[bool] = False

    @property
    def handlers(self) -> Mapping[ProtocolId, StreamHandler]:
        """Handlers the host installs while the service runs."""
        return {}

    @property
    def limited_protocols(self) -> frozenset[ProtocolId]:
        """Those of :attr:`handlers` that may run over relayed connections with limits."""
        return frozenset()

    @property
    def transports(self) -> Sequence[Transport]:
        """Ways to reach peers that come with the service, added to those of the host."""
        return ()

    async def run(self, host: Host, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Set up, ``task_status.started()``, work, tear down. Returning is fine; raising ends the host."""
        task_status.started()

    def measure(self) -> Iterable[Metric]:
        """What it has counted, for operators. Called when somebody asks, never while it works."""
        return ()


class Discovery(Protocol):
    """Finding peers that are there for the same thing, by its name: rendezvous points, a DHT, a local network.

    Both methods raise ``ValueError`` for a name that cannot be one where it looks. What fails on the way is tried again
    inside, or raised as :class:`~libp2p.errors.Libp2pError`.
    """

    def advertise(self, name: str, /) -> AbstractAsyncContextManager[None]:
        """Be found under ``name`` while the block is open. Entering it need not wait until that is so."""
        ...

    def find_peers(self, name: str, /) -> AbstractAsyncContextManager[trio.abc.ReceiveChannel[PeerId]]:
        """Peers under ``name``, as they are found; their addresses are in the peerstore.

        The channel may end, or go on with who comes later. The same peer may come again; this host does not.
        """
        ...


class Routing(Protocol):
    """Finding peers, providers and values."""

    async def find_peer(self, peer: PeerId) -> Sequence[Multiaddr]:
        """Addresses of ``peer``; empty when nobody knows. It may be connected when this returns."""
        ...

    async def provide(self, key: bytes) -> None:
        """Announce that this host has ``key``, now and again as long as it runs.

        Raises:
            ServiceError: nobody took the announcement.
        """
        ...

    def find_providers(
        self, key: bytes, *, count: int | None = None
    ) -> AbstractAsyncContextManager[trio.abc.ReceiveChannel[PeerId]]:
        """Providers of ``key`` as they are found, each once; their addresses are in the peerstore.

        Leaving the block ends the search.

        Args:
            count: how many are enough.
        """
        ...

    async def get_value(self, key: bytes) -> bytes:
        """The best value under ``key``."""
        ...

    async def put_value(self, key: bytes, value: bytes) -> None:
        """Store ``value`` under ``key``."""
        ...
