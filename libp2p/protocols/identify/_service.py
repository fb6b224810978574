"""The identify service: asks every new connection's peer who it is, answers the same question, and keeps both sides
up to date with pushes.

Theory of operation. Each connection has a ``_Session``: what its peer said, and what it was last told. A session asks
once, in a task that ends with the connection's stream at the latest. Pushes are by peer: one at a time, and whatever
changes meanwhile marks the peer, so that a burst of changes costs one or two pushes instead of one each. Nothing is
pushed to a peer that was last told the very same.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import trio
from multiaddr import Multiaddr

from ..._util.once import Once
from ..._util.rate import RateLimit
from ..._version import __version__
from ...abc import Connection, Direction, Host, Peerstore, ProtocolId, Service, Stream, StreamHandler
from ...addressing import Scope, ip_group, scope
from ...errors import ConnectionClosed, DecodeError, Libp2pError
from ...events import ConnectionEnded, ConnectionOpened, Event, ListenAddrsChanged, PeerIdentified, ProtocolsChanged
from ...metrics import Metric, Tally
from ...peer_id import PeerId
from ...records.peer_record import open_peer_record
from ._addresses import believable
from ._codec import IdentifyInfo, merge
from ._exchange import (
    IDENTIFY,
    IDENTIFY_PUSH,
    TIMEOUT,
    IdentifyFailed,
    WrongKey,
    check_key,
    receive,
    request,
    send,
)
from ._self import SelfDescription

RATE_LIMITED = 0x1003
RESOURCE_LIMIT = 0x1002
"""Stream error codes of libp2p (specs error-codes)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IdentifyConfig:
    """How the identify service behaves."""

    timeout: float = TIMEOUT
    """Seconds for one conversation (go)."""
    addr_ttl: float = 3600.0
    """Seconds a peer's addresses are remembered; while it is connected they do not end at all."""
    push_rate: float = 0.2
    """Inbound pushes per second from one neighbourhood of addresses, IPv4 /24 or IPv6 /56 (go)."""
    push_burst: int = 10
    """Inbound pushes at once from a neighbourhood that was quiet (go)."""
    push_sources: int = 4096
    """Neighbourhoods whose rate is remembered (ours)."""
    pushes_at_once: int = 32
    """Pushes handled at a time, and as many sent (go)."""
    exempt_loopback: bool = True
    """Whether pushes from this machine are free of the rate limit (go: yes). Tests that flood switch it off."""

    def __post_init__(self) -> None:
        if min(self.timeout, self.addr_ttl) <= 0:
            raise ValueError("timeout and addr_ttl must be positive")
        if self.push_rate < 0 or min(self.push_burst, self.push_sources, self.pushes_at_once) < 1:
            raise ValueError("push limits must be positive")


@dataclass(eq=False, slots=True)
class _Session:
    """What is known about one connection.

    Attributes:
        info: what the peer said; None until it did.
        failure: why it never will.
        told: what the peer was last told, but for the address it is seen at; empty when nothing.
    """

    connection: Connection
    done: Once = field(default_factory=Once)
    info: IdentifyInfo | None = None
    failure: Exception | None = None
    told: bytes = b""


class Identify(Service):
    """Tells peers who this host is, and learns who they are.

    What a peer says goes into the peerstore and out as :class:`~libp2p.events.PeerIdentified`. Its addresses are taken
    from its signed record when there is one; those that cannot lead to it from here are left out. A peer that names
    another key than its connection's is disconnected.

    Args:
        agent_version: what this software calls itself.
        protocol_version: the family of protocols, by convention; peers with another one are as welcome.
        config: timeouts and limits.
        clock: wall clock in seconds since 1970, for the sequence numbers of signed records.
    """

    def __init__(
        self,
        *,
        agent_version: str = f"libp2p-trio/{__version__}",
        protocol_version: str = "ipfs/0.1.0",
        config: IdentifyConfig | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._config = config or IdentifyConfig()
        self._self = SelfDescription(agent_version=agent_version, protocol_version=protocol_version, clock=clock)
        self._host: Host | None = None
        self._nursery: trio.Nursery | None = None
        self._sessions: dict[Connection, _Session] = {}
        self._receiving = 0
        self._identified = Tally()
        self._pushed = Tally()
        self._sending = trio.CapacityLimiter(self._config.pushes_at_once)
        self._rate = RateLimit(
            rate=self._config.push_rate, burst=self._config.push_burst, sources=self._config.push_sources
        )
        # Peers a push is on its way to; True when something has changed since it was put together.
        self._pushing: dict[PeerId, bool] = {}

    @property
    def handlers(self) -> Mapping[ProtocolId, StreamHandler]:
        """Identify and identify push."""
        return {IDENTIFY: self._answer, IDENTIFY_PUSH: self._take_push}

    @property
    def limited_protocols(self) -> frozenset[ProtocolId]:
        """Both: hole punching starts with identify over a relayed connection."""
        return frozenset((IDENTIFY, IDENTIFY_PUSH))

    # --- life

    async def run(self, host: Host, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Identify the peers of new connections, and push what changes here, until cancelled."""
        self._host = host
        try:
            async with trio.open_nursery() as nursery:
                with host.subscribe(ConnectionOpened, ConnectionEnded, ListenAddrsChanged, ProtocolsChanged) as events:
                    self._nursery = nursery
                    for connection in host.connections():
                        self._session(host, connection)
                    task_status.started()
                    async for event in events:
                        self._on_event(event)
        finally:
            self._host = self._nursery = None
            self._sessions.clear()

    def _on_event(self, event: Event) -> None:
        host, _ = self._running()
        if isinstance(event, ConnectionOpened):
            self._session(host, event.connection)
        elif isinstance(event, ConnectionEnded):
            session = self._sessions.pop(event.connection, None)
            if session is not None and not session.done.is_set():
                self._finish(session, failure=ConnectionClosed(event.reason))
        else:
            for peer in {session.connection.peer: None for session in self._sessions.values()}:
                self._push(peer)

    def _session(self, host: Host, connection: Connection) -> _Session | None:
        """The session of ``connection``, which starts to identify the peer when it is new; None when it has ended."""
        session = self._sessions.get(connection)
        if session is None and connection in host.connections(connection.peer):
            _, nursery = self._running()
            session = self._sessions[connection] = _Session(connection)
            nursery.start_soon(self._ask, session)
        return session

    def _running(self) -> tuple[Host, trio.Nursery]:
        if self._host is None or self._nursery is None:
            raise RuntimeError("the identify service is not running: give it to open_host(services=[...])")
        return self._host, self._nursery

    # --- asking

    async def identified(self, peer: PeerId) -> IdentifyInfo:
        """Wait until a connected peer is identified, and return what it said last.

        Raises:
            IdentifyFailed: it is not connected, or every connection to it failed to identify it.
            RuntimeError: the service is not running.
        """
        host, _ = self._running()
        await trio.lowlevel.checkpoint()
        # Connections whose opening has not been noticed yet get their session here.
        found = [self._session(host, connection) for connection in host.connections(peer)]
        sessions = [session for session in found if session is not None]
        for session in sorted(sessions, key=lambda session: session.info is None):
            await session.done.wait()
            if session.info is not None:
                return session.info
        reason = str(sessions[-1].failure) if sessions else "it is not connected"
        raise IdentifyFailed(peer, reason)

    async def _ask(self, session: _Session) -> None:
        connection = session.connection
        try:
            with trio.fail_after(self._config.timeout):
                info = await request(await connection.open_stream(IDENTIFY, allow_limited=True))
        except trio.TooSlowError:
            failure = IdentifyFailed(connection.peer, f"no answer within {self._config.timeout:g} s")
            self._finish(session, failure=failure)
        except WrongKey as exc:
            self._finish(session, failure=exc)
            await connection.aclose()
        except (Libp2pError, trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            self._finish(session, failure=exc)
        else:
            self._identified.add("inbound")
            self._learn(session, info)

    def _finish(self, session: _Session, *, failure: Exception) -> None:
        session.failure = failure
        session.done.set()

    def _learn(self, session: _Session, info: IdentifyInfo) -> None:
        """Take in what a peer said. The event comes last: who hears it finds everything in the peerstore."""
        if self._host is None or session.connection not in self._sessions:
            return  # it ended while the last bytes were read
        host, connection = self._host, session.connection
        session.info = info
        session.failure = None
        addrs = self._remember(host, connection, info)
        if info.observed_addr is not None:
            host.observe(info.observed_addr, connection)
        host.publish(
            PeerIdentified(
                peer=connection.peer,
                agent_version=info.agent_version or "",
                protocol_version=info.protocol_version or "",
                protocols=info.protocols,
                listen_addrs=addrs,
                observed_addr=info.observed_addr,
            )
        )
        session.done.set()
        if session.told:
            # Something may have changed between our answer and the moment we learnt that the peer takes pushes.
            self._push(connection.peer)

    def _remember(self, host: Host, connection: Connection, info: IdentifyInfo) -> tuple[Multiaddr, ...]:
        store, peer = host.peerstore, connection.peer
        ttl = self._config.addr_ttl
        certified = self._certified(store, peer, info)
        claimed = info.listen_addrs if certified is None else certified
        addrs = believable(claimed, connection.remote_addr)
        dialled = [
            other.remote_addr for other in host.connections(peer) if other.direction is Direction.OUTBOUND
        ]  # these are known to lead to it, whatever it says
        if addrs or dialled:
            store.set_addrs(peer, (*addrs, *dialled), ttl=ttl)
        store.set_protocols(peer, info.protocols)
        for name, value in (("agent_version", info.agent_version), ("protocol_version", info.protocol_version)):
            if value is not None:
                store.set_metadata(peer, name, value)
        return addrs

    def _certified(self, store: Peerstore, peer: PeerId, info: IdentifyInfo) -> tuple[Multiaddr, ...] | None:
        """The addresses in the newest signed record; None when there is none that counts."""
        sent = info.signed_peer_record
        if sent is None:
            return None
        try:
            record = open_peer_record(sent)
            if record.peer != peer:  # somebody else's record says nothing about this peer (case S8)
                return None
            held = store.envelope(peer)
            if sent != held and not store.add_envelope(sent, ttl=self._config.addr_ttl) and held is not None:
                record = open_peer_record(held)
        except DecodeError:
            return None  # then it has said what it says without a signature
        return record.addrs

    # --- answering

    async def _answer(self, stream: Stream) -> None:
        host = self._host
        if host is None:
            return stream.reset()  # the host is closing
        session = self._session(host, stream.connection)
        told = self._self.common(host, stream.connection)
        await send(stream, self._self.message_for(host, stream.connection), timeout=self._config.timeout)
        self._identified.add("outbound")
        if session is not None:
            session.told = told

    # --- pushes from others

    async def _take_push(self, stream: Stream) -> None:
        host, connection = self._host, stream.connection
        session = self._session(host, connection) if host is not None else None
        if session is None:
            return stream.reset()  # the host is closing, or the connection has ended
        if not self._admits(connection):
            return stream.reset(RATE_LIMITED)
        if self._receiving >= self._config.pushes_at_once:
            return stream.reset(RESOURCE_LIMIT)
        self._receiving += 1
        try:
            with trio.fail_after(self._config.timeout):
                info = await receive(stream)
                # A push is about changes: what it changes has to be there first.
                await session.done.wait()
        finally:
            self._receiving -= 1
        try:
            check_key(stream, info)
        except WrongKey:
            await connection.aclose()
            raise
        self._pushed.add("inbound")
        self._learn(session, merge(session.info or IdentifyInfo(), info))

    def _admits(self, connection: Connection) -> bool:
        addr = connection.remote_addr
        if self._config.exempt_loopback and scope(addr) is Scope.LOOPBACK:
            return True
        source = ip_group(addr, ip4_bits=24, ip6_bits=56) or connection.peer
        return self._rate.take(source, trio.current_time())

    # --- pushes to others

    def _push(self, peer: PeerId) -> None:
        """See to it that ``peer`` knows how things are now."""
        if peer in self._pushing:
            self._pushing[peer] = True
            return
        session = self._pushable(peer)
        host, nursery = self._running()
        if session is not None and self._self.common(host, session.connection) != session.told:
            self._pushing[peer] = False
            nursery.start_soon(self._push_until_known, peer)

    def _pushable(self, peer: PeerId) -> _Session | None:
        """A session with ``peer`` that has completed identify, if the peer takes pushes."""
        host, _ = self._running()
        for connection in host.connections(peer):
            session = self._sessions.get(connection)
            if session is not None and session.info is not None and IDENTIFY_PUSH in session.info.protocols:
                return session
        return None

    async def _push_until_known(self, peer: PeerId) -> None:
        try:
            dirty = True
            while dirty and (session := self._pushable(peer)) is not None:
                async with self._sending:
                    self._pushing[peer] = False
                    await self._push_once(session)
                dirty = self._pushing[peer]
        finally:
            del self._pushing[peer]

    async def _push_once(self, session: _Session) -> None:
        host, _ = self._running()
        told = self._self.common(host, session.connection)
        if told == session.told:
            return
        message = self._self.message_for(host, session.connection)
        try:
            with trio.fail_after(self._config.timeout):
                async with await session.connection.open_stream(IDENTIFY_PUSH, allow_limited=True) as stream:
                    await send(stream, message, timeout=self._config.timeout)
        except (Libp2pError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError):
            return  # the next change tries again; the connection's own trouble is handled where it is noticed
        self._pushed.add("outbound")
        session.told = told

    def measure(self) -> Iterable[Metric]:
        """Messages of identify, under the names of go-libp2p's dashboards."""
        yield self._identified.metric("libp2p_identify_identify_total", "Identify messages", "dir")
        yield self._pushed.metric("libp2p_identify_identify_push_total", "Identify pushes", "dir")
