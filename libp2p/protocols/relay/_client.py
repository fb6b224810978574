"""The other side of a relay: reservations that are kept, circuits dialled, circuits accepted.

Theory of operation. A listener on ``/…/p2p/RELAY/p2p-circuit`` keeps one relay, for as long as it is open; a listener
on a bare ``/p2p-circuit`` keeps as many as are wanted, of those it was given and of connected peers that serve as
relays, and replaces those it loses; an automatic client has one that does so only while AutoNAT finds that nobody can
dial the host. Either way a *held* reservation has one task, which renews it in time and ends when the relay is gone or
says no; the listener's addresses, and with them what the host announces, are those that are held at the moment. A
circuit is accepted from a relay that is held, and from no other: nobody else was asked to send any.

Source: libp2p/specs relay/circuit-v2; the times are go's (``p2p/host/autorelay``) where they do not say otherwise.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import trio
from multiaddr import Multiaddr
from trio.lowlevel import ParkingLot

from ..._util.bounded import LruMap
from ...abc import (
    Connection,
    Discovery,
    Host,
    ProtocolId,
    RawConnection,
    Service,
    Stream,
    StreamHandler,
    Target,
    Transport,
)
from ...addressing import is_relay, parse, split_peer
from ...errors import ConnectionClosed, DecodeError, DialError, Libp2pError, RemoteProtocolError, TransportError
from ...events import ConnectionEnded, ListenAddrsChanged, PeerIdentified, Reachability, ReachabilityChanged
from ...peer_id import PeerId
from ._codec import (
    CircuitLimit,
    HopMessage,
    HopType,
    Status,
    StopMessage,
    StopType,
    Voucher,
    decode_hop_answer,
    decode_stop,
    encode_hop,
    encode_stop,
    status_name,
)
from ._errors import CircuitRefused, ReservationRefused
from ._exchange import ask, receive_message, send_message
from ._hop import HOP, RELAYS, REQUEST_TIMEOUT, STOP
from ._transport import LOCAL_ADDR, Circuit, CircuitListener, CircuitStream, circuit_addr, seen_through
from ._v1 import RELAY_V1, Kind, MessageV1, StatusV1
from ._v1 import decode_answer as decode_answer_v1
from ._v1 import encode as encode_v1
from ._v1 import hop as hop_v1

RESERVE_TIMEOUT = 30.0
"""Seconds for a reservation, once the relay is connected (ours; go: 60)."""
RENEWAL_MARGIN = 120.0
"""Seconds before its end that a long reservation is renewed (go ``rsvpExpirationSlack``); a short one at half time."""
MAX_RESERVATION = 7 * 24 * 3600.0
"""Seconds; a relay that promises more than a week is not believed (case R2)."""
MIN_RESERVATION = 60.0
"""Seconds (ours): a relay that promises less would have us renew, and tell all peers what changed, all the time."""
MAX_ANNOUNCED = 8
"""Addresses of a relay under which this host announces itself (ours): more would leave no room for its other ones."""
MAX_ANNOUNCED_LENGTH = 512
"""Bytes of each, before our own id is put behind it (ours): above 1 KiB nobody could read it, this host included."""
MAX_FOUND = 64
"""Relays remembered of those that were found by looking for them (ours); the oldest make room."""
LOOK_DELAY = 1.0
"""Seconds before the first look, for those that are known already (ours)."""
LOOK = 20.0
"""Seconds that one look for relays takes at most (ours)."""
LIFE_V1 = 3600.0
"""Seconds after which a relay of version 1, which grants nothing, is asked again whether it is one."""
PROTECTION = "relay-in-use"
"""The tag under which relays in use are protected from trimming."""
_LAST_MOMENT = 1.0
_REMEMBERED_FAILURES = 256

_Way = tuple[PeerId, Multiaddr | None]
_LOST = (Libp2pError, trio.BrokenResourceError, trio.ClosedResourceError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reservation:
    """What a relay promised.

    Attributes:
        relay: the relay.
        addrs: where this host is reached through it: ``/…/p2p/RELAY/p2p-circuit``.
        expires: when it ends, on Trio's clock.
        limit: what circuits may carry, as the relay says; None when they have no limits.
        voucher: the relay's signed word, in its envelope; None when it gave none.
    """

    relay: PeerId
    addrs: tuple[Multiaddr, ...]
    expires: float
    limit: CircuitLimit | None
    voucher: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayClientConfig:
    """How a host uses relays."""

    wanted: int = 2
    """Relays to hold reservations with, when listening on a bare ``/p2p-circuit`` (go)."""
    retry: float = 30.0
    """Seconds after which a relay that failed is tried again; doubled with each failure in a row (ours)."""
    max_retry: float = 3600.0
    """The longest of these pauses, in seconds (go ``backoff``)."""

    def __post_init__(self) -> None:
        if self.wanted < 1 or not 0 < self.retry <= self.max_retry:
            raise ValueError("one relay must be wanted, and the pauses be positive")


async def reserve(host: Host, relay: Target, *, clock: Callable[[], float] = time.time) -> Reservation:
    """Ask ``relay`` for a reservation, or to renew the one it granted.

    By itself this opens no door: circuits are accepted by a :class:`RelayClient` that listens.

    Args:
        host: the host to ask from.
        relay: who to ask; dialled when there is no connection.
        clock: wall clock in seconds since 1970, to read the end of the reservation by.

    Raises:
        ReservationRefused: it said no, or its terms are of no use.
        RemoteProtocolError: its answer broke the rules, or its voucher is not genuine.
        DialError, NegotiationError, LimitExceeded: no stream could be opened.
        StreamReset, ConnectionClosed: the stream ended before the answer was complete.
    """
    return await _reserve(host, (await host.connect(relay)).peer, (HOP,), clock)


async def _reserve(
    host: Host, relay: PeerId, protocols: Sequence[ProtocolId], clock: Callable[[], float]
) -> Reservation:
    connection = _direct(host, relay)
    if connection is None:
        raise ReservationRefused(relay, "it is connected through another relay")
    try:
        with trio.fail_after(RESERVE_TIMEOUT):
            async with await connection.open_stream(*protocols) as stream:
                if stream.protocol == RELAY_V1:
                    request = encode_v1(MessageV1(kind=Kind.CAN_HOP))
                    return _willing(connection, await ask(stream, request, decode_answer_v1))
                request = encode_hop(HopMessage(type=HopType.RESERVE))
                return _checked(host, connection, await ask(stream, request, decode_hop_answer), clock())
    except trio.TooSlowError as exc:
        raise ReservationRefused(relay, f"no answer within {RESERVE_TIMEOUT:g} s") from exc


def _willing(connection: Connection, status: int | None) -> Reservation:
    """What it is worth that a relay of version 1 carries circuits."""
    if status != StatusV1.SUCCESS:
        raise ReservationRefused(connection.peer, f"it answered {status_name(status)}", status=status)
    expires = trio.current_time() + LIFE_V1
    return Reservation(
        relay=connection.peer, addrs=(seen_through(connection),), expires=expires, limit=None, voucher=None
    )


def _checked(host: Host, connection: Connection, answer: HopMessage, wall: float) -> Reservation:
    """What the relay's answer is worth."""
    relay, granted = connection.peer, answer.reservation
    if answer.status != Status.OK:
        raise ReservationRefused(relay, f"it answered {status_name(answer.status)}", status=answer.status)
    if granted is None:
        raise RemoteProtocolError("a relay granted a reservation and did not say which")
    if not wall + MIN_RESERVATION <= granted.expire <= wall + MAX_RESERVATION:
        raise ReservationRefused(relay, f"it would end {granted.expire - wall:.0f} s from now")
    if granted.voucher is not None:
        try:
            voucher = Voucher.open(granted.voucher)
        except DecodeError as exc:
            raise RemoteProtocolError(f"the voucher of a relay: {exc}") from exc
        if (voucher.relay, voucher.peer) != (relay, host.local_peer):
            raise RemoteProtocolError("a relay gave the voucher of somebody else's reservation")
        if voucher.expiration <= wall:
            raise RemoteProtocolError("a relay gave the voucher of a reservation that has ended")
    ways = [addr for addr in granted.addrs if not is_relay(addr) and split_peer(addr)[1] in (None, relay)]
    # A relay that knows no public address of its own (go) is at least where we have found it.
    addrs = [circuit_addr(relay, way) for way in ways] or [seen_through(connection)]
    addrs = [addr for addr in addrs if len(addr.to_bytes()) <= MAX_ANNOUNCED_LENGTH][:MAX_ANNOUNCED]
    if not addrs:
        raise ReservationRefused(relay, "its addresses are too long to be announced")
    return Reservation(
        relay=relay,
        addrs=tuple(addrs),
        expires=trio.current_time() + granted.expire - wall,
        limit=answer.limit,
        voucher=granted.voucher,
    )


def _direct(host: Host, peer: PeerId) -> Connection | None:
    """The best connection to ``peer`` that goes through no relay."""
    return next((conn for conn in host.connections(peer) if not is_relay(conn.remote_addr)), None)


class RelayClient(Service):
    """Reaches peers through relays, and is reached through them.

    It brings the transport with it: with this service, ``/…/p2p/RELAY/p2p-circuit/p2p/PEER`` can be dialled, and
    ``/…/p2p/RELAY/p2p-circuit`` or a bare ``/p2p-circuit`` be listened on.

    Args:
        relays: who to ask first for what listens on a bare ``/p2p-circuit``: addresses that end in ``/p2p/<relay>``,
            and peers whose addresses are known. After them come connected peers that serve as relays.
        discovery: where others are looked for, under :data:`RELAYS`, while these are too few; a service of the same
            host that comes before this one.
        automatic: listen on a bare ``/p2p-circuit`` by itself, and hold relays for such listeners only while
            :class:`~libp2p.protocols.autonat.AutoNat`, a service of the same host, finds that nobody can dial it.
        config: how many, and when to try again.
        clock: wall clock in seconds since 1970, to read the end of reservations by.

    Raises:
        ValueError: an address does not say whose it is.
        DecodeError: one of ``relays`` does not parse.
    """

    def __init__(
        self,
        relays: Iterable[Target] = (),
        *,
        discovery: Discovery | None = None,
        automatic: bool = False,
        config: RelayClientConfig | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._automatic = automatic
        # Whether listeners that find relays by themselves hold any.
        self._needed = not automatic
        self._given = [_parsed(relay) for relay in relays]
        self._discovery = discovery
        self._found: LruMap[PeerId, None] = LruMap(MAX_FOUND)
        self._config = config or RelayClientConfig()
        self._clock = clock
        self._protocols: tuple[ProtocolId, ...] = (HOP,)
        self._transport = Circuit(self)
        self._listeners: list[CircuitListener] = []
        self._lost: dict[trio.Event, PeerId] = {}
        self._failures: LruMap[PeerId, tuple[int, float]] = LruMap(_REMEMBERED_FAILURES)
        self._news = ParkingLot()
        self._host: Host | None = None
        self._nursery: trio.Nursery | None = None

    @property
    def transports(self) -> Sequence[Transport]:
        """Circuits."""
        return (self._transport,)

    @property
    def handlers(self) -> Mapping[ProtocolId, StreamHandler]:
        """Stop."""
        return {STOP: self._stop}

    def speak(self, *others: ProtocolId) -> None:
        """Also use relays that speak one of ``others`` and not version 2. See :class:`RelayV1`."""
        self._protocols = (HOP, *others)

    def _is_relay(self, protocols: Collection[ProtocolId]) -> bool:
        return any(protocol in protocols for protocol in self._protocols)

    @property
    def reservations(self) -> Mapping[PeerId, Reservation]:
        """The reservations that are held, by relay."""
        return {relay: held for listener in self._listeners for relay, held in listener.reservations.items()}

    async def run(self, host: Host, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep reservations, until cancelled."""
        self._host = host
        try:
            with host.subscribe(ConnectionEnded, PeerIdentified, ReachabilityChanged) as events:
                async with trio.open_nursery() as nursery:
                    self._nursery = nursery
                    if self._automatic:
                        await host.listen(LOCAL_ADDR)
                    task_status.started()
                    async for event in events:
                        if isinstance(event, ConnectionEnded):
                            self._ended(host, event.peer)
                        elif isinstance(event, PeerIdentified) and self._is_relay(event.protocols):
                            self._news.unpark_all()
                        elif isinstance(event, ReachabilityChanged) and self._automatic:
                            self._judged(event.reachability)
        finally:
            self._host = self._nursery = None

    def _judged(self, found: Reachability) -> None:
        """Hold relays, or let them go. While nothing is known, all stays as it is."""
        if found is not Reachability.UNKNOWN:
            self._needed = found is Reachability.PRIVATE
            self._news.unpark_all()

    def _ended(self, host: Host, peer: PeerId) -> None:
        if _direct(host, peer) is None:
            for lost, relay in self._lost.items():
                if relay == peer:
                    lost.set()

    # --- dialling

    async def dial_through(self, way: tuple[PeerId, Multiaddr | None], peer: PeerId, addr: Multiaddr) -> RawConnection:
        """See :meth:`Circuit.dial`."""
        host, _ = self._running(addr)
        relay, at = way
        if relay in (peer, host.local_peer):
            raise TransportError(addr, "nobody is reached through himself")
        try:
            connection = await self._reach(host, relay, at)
            stream = await connection.open_stream(*self._protocols)
            if stream.protocol == RELAY_V1:
                status = await ask(stream, encode_v1(hop_v1(host.local_peer, peer)), decode_answer_v1)
                limit = None
            else:
                request = encode_hop(HopMessage(type=HopType.CONNECT, peer=peer))
                answer = await ask(stream, request, decode_hop_answer)
                status, limit = answer.status, answer.limit
        except _LOST as exc:
            raise TransportError(addr, f"the relay: {exc}") from exc
        if status != Status.OK:  # the same number in both versions
            stream.reset()
            raise CircuitRefused(addr, status)
        return _circuit(stream, limit, connection)

    # --- being dialled

    async def _stop(self, stream: Stream) -> None:
        try:
            with trio.fail_after(REQUEST_TIMEOUT):
                request = decode_stop(await receive_message(stream))
        except (DecodeError, RemoteProtocolError):
            return await _answer_stop(stream, Status.MALFORMED_MESSAGE)
        if request.type is not StopType.CONNECT:
            return await _answer_stop(stream, Status.UNEXPECTED_MESSAGE)
        if request.peer is None:
            return await _answer_stop(stream, Status.MALFORMED_MESSAGE)
        listener = self.listener_behind(stream.connection)
        if listener is None:
            return await _answer_stop(stream, Status.PERMISSION_DENIED)
        await _answer_stop(stream, Status.OK)
        await self.accept(listener, stream, request.limit)

    def listener_behind(self, connection: Connection) -> CircuitListener | None:
        """Who accepts circuits from the relay at the other end of ``connection``; None when nobody asked it for any."""
        if is_relay(connection.remote_addr):
            return None
        return next((found for found in self._listeners if connection.peer in found.reservations), None)

    async def accept(self, listener: CircuitListener, stream: Stream, limit: CircuitLimit | None) -> None:
        """Hand a circuit to ``listener``, and wait for its end: the stream is that of the calling handler."""
        raw = _circuit(stream, limit, stream.connection)
        if not listener.offer(raw):
            return stream.reset()
        await raw.stream.ended.wait()

    # --- listening

    async def listen_through(self, way: tuple[PeerId, Multiaddr | None] | None, addr: Multiaddr) -> CircuitListener:
        """See :meth:`Circuit.listen`; ``way`` is None to find relays."""
        host, nursery = self._running(addr)
        scope = trio.CancelScope()

        def closed() -> None:
            scope.cancel()
            self._listeners.remove(listener)

        listener = CircuitListener(closed)
        if way is None:
            self._listeners.append(listener)
            nursery.start_soon(self._find, host, listener, scope)
            return listener
        relay, at = way
        try:
            first = await self._reserve(host, relay, at)
        except ReservationRefused as exc:
            raise (TransportError(addr, str(exc)) if exc.status is None else CircuitRefused(addr, exc.status)) from exc
        except _LOST as exc:
            raise TransportError(addr, f"the relay: {exc}") from exc
        self._running(addr)  # or the host has closed meanwhile, and nobody would keep the reservation
        self._listeners.append(listener)
        listener.add(first)
        nursery.start_soon(self._keep, host, listener, scope, way, first)
        return listener

    async def _keep(
        self, host: Host, listener: CircuitListener, scope: trio.CancelScope, way: _Way, held: Reservation | None
    ) -> None:
        """Listen through one relay while ``listener`` is open."""
        with scope:
            while True:
                await self._use(host, listener, way, held)
                held = None
                _, again = self._failures.get(way[0]) or (0, 0.0)
                await trio.sleep_until(again)

    async def _find(self, host: Host, listener: CircuitListener, scope: trio.CancelScope) -> None:
        """Listen through as many relays as are wanted, of those there are, while ``listener`` is open and needed."""
        used: dict[PeerId, trio.CancelScope] = {}

        async def use(way: _Way) -> None:
            try:
                with used[way[0]]:
                    await self._use(host, listener, way, None)
            finally:
                del used[way[0]]
                self._news.unpark_all()

        with scope:
            async with trio.open_nursery() as nursery:
                if self._discovery is not None:
                    nursery.start_soon(self._look, host, listener, self._discovery)
                while True:
                    again = float("inf")
                    if not self._needed:
                        for use_of_relay in used.values():
                            use_of_relay.cancel()
                    for way in self._candidates(host) if self._needed else ():
                        _, pause = self._failures.get(way[0]) or (0, 0.0)
                        if len(used) < self._config.wanted and way[0] not in used and pause <= trio.current_time():
                            used[way[0]] = trio.CancelScope()
                            nursery.start_soon(use, way)
                        elif way[0] not in used:
                            again = min(again, max(pause, trio.current_time() + self._config.retry))
                    with trio.CancelScope(deadline=again):
                        await self._news.park()

    async def _look(self, host: Host, listener: CircuitListener, discovery: Discovery) -> None:
        """Look for relays whenever too few are held, less and less often while that does not help."""
        pause = self._config.retry
        await trio.sleep(LOOK_DELAY)
        while True:
            if self._needed and len(listener.reservations) < self._config.wanted:
                with host.contain("looking for", "relays"), trio.move_on_after(LOOK):
                    async with discovery.find_peers(RELAYS) as found:
                        async for peer in found:
                            self._found[peer] = None
                            self._news.unpark_all()
                pause = min(pause * 2, self._config.max_retry)
            else:
                pause = self._config.retry
            await trio.sleep(pause)

    def _candidates(self, host: Host) -> list[_Way]:
        """Who may serve as a relay, best first."""
        found = {relay: at for relay, at in self._given if relay != host.local_peer}
        for conn in host.connections():
            if self._is_relay(host.peerstore.protocols(conn.peer)) and not is_relay(conn.remote_addr):
                found.setdefault(conn.peer, None)
        for peer in self._found:
            if peer != host.local_peer:
                found.setdefault(peer, None)
        # More could not be remembered when they fail, and would be asked again and again.
        return list(found.items())[:_REMEMBERED_FAILURES]

    async def _use(self, host: Host, listener: CircuitListener, way: _Way, held: Reservation | None) -> None:
        """Hold a reservation for ``listener`` until it is lost, or cannot be had. Remembers when to try again."""
        relay, at = way
        try:
            if held is None:
                held = await self._reserve(host, relay, at)
        except _LOST:
            failures, _ = self._failures.get(relay) or (0, 0.0)
        else:
            await self._hold(host, listener, held)
            failures = 0
        pause = min(self._config.max_retry, self._config.retry * 2.0 ** min(failures, 32))
        self._failures[relay] = (failures + 1, trio.current_time() + pause)

    async def _reserve(self, host: Host, relay: PeerId, at: Multiaddr | None) -> Reservation:
        await self._reach(host, relay, at)
        return await _reserve(host, relay, self._protocols, self._clock)

    @staticmethod
    async def _reach(host: Host, relay: PeerId, at: Multiaddr | None) -> Connection:
        """Connect to a relay, also when it has come to us through another one, which is of no use here."""
        given = () if at is None else (at,)
        await host.connect(relay, given)
        try:
            return _direct(host, relay) or await host.connect_directly(relay, (*given, *host.peerstore.addrs(relay)))
        except DialError as exc:
            raise ConnectionClosed("a relay cannot be reached through another relay") from exc

    async def _hold(self, host: Host, listener: CircuitListener, held: Reservation) -> None:
        """Announce a reservation, and renew it, until it is lost."""
        relay = held.relay
        lost = trio.Event()
        self._lost[lost] = relay
        host.protect(relay, PROTECTION)
        try:
            while _direct(host, relay) is not None:
                listener.add(held)
                self._announce(host)
                renewed = await self._renewed(host, held, lost)
                if renewed is None:
                    return
                held = renewed
        finally:
            listener.remove(relay)
            del self._lost[lost]
            if relay not in self._lost.values():  # another listener may use it, too
                host.unprotect(relay, PROTECTION)
            self._announce(host)

    async def _renewed(self, host: Host, held: Reservation, lost: trio.Event) -> Reservation | None:
        """Wait until it is time, and renew; None when the reservation is lost."""
        while (left := held.expires - trio.current_time()) > _LAST_MOMENT:
            with trio.move_on_after(max(left / 2, left - RENEWAL_MARGIN)):
                await lost.wait()
                return None
            try:
                with trio.CancelScope(deadline=held.expires):
                    return await self._reserve(host, held.relay, None)
            except _LOST:
                continue  # there is time to try again, in half of what is left
        return None

    def _announce(self, host: Host) -> None:
        host.publish(ListenAddrsChanged(tuple(host.addrs)))

    def _running(self, addr: Multiaddr) -> tuple[Host, trio.Nursery]:
        if self._host is None or self._nursery is None:
            raise TransportError(addr, "the relay client is not running")
        return self._host, self._nursery


async def _answer_stop(stream: Stream, status: Status) -> None:
    with trio.fail_after(REQUEST_TIMEOUT):
        await send_message(stream, encode_stop(StopMessage(type=StopType.STATUS, status=status)))


@dataclass(frozen=True, slots=True, kw_only=True)
class _CircuitConnection(RawConnection):
    """A raw connection whose stream says when it was closed."""

    stream: CircuitStream


def _circuit(stream: Stream, limit: CircuitLimit | None, connection: Connection) -> _CircuitConnection:
    limited = limit is not None
    return _CircuitConnection(
        stream=CircuitStream(stream, limited=limited),
        local_addr=LOCAL_ADDR,
        remote_addr=seen_through(connection),
        limited=limited,
    )


def _parsed(relay: Target) -> _Way:
    if isinstance(relay, PeerId):
        return relay, None
    if isinstance(relay, str) and not relay.startswith("/"):
        return PeerId.parse(relay), None
    addr, peer = split_peer(parse(relay))
    if peer is None:
        raise ValueError(f"{relay} does not say whose address it is: it must end in /p2p/<relay>")
    return peer, addr if addr.to_bytes() else None
