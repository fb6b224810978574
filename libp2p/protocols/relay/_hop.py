"""The relay: grants reservations, and carries circuits to those who hold one.

Theory of operation. Consent is the protocol: a circuit leads only to a peer that asked for it by a reservation and is
still connected. Every hop stream is one request. A RESERVE is answered and the stream ends; a CONNECT becomes a
circuit, whose handler carries its bytes until it ends, so that the circuit's place is given back in the frame that took
it. What a relay grants is decided by the tables of ``_reservations``; nothing is granted over a connection that is
relayed itself.

Source: libp2p/specs relay/circuit-v2.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import accumulate

import trio
from multiaddr import Multiaddr

from ...abc import Connection, Discovery, Host, ProtocolId, Service, Stream, StreamHandler
from ...addressing import Scope, is_relay, scope, with_peer
from ...errors import DecodeError, Libp2pError, RemoteProtocolError
from ...events import ConnectionEnded
from ...peer_id import PeerId
from ._codec import (
    CircuitLimit,
    HopMessage,
    HopType,
    ReservationMessage,
    Status,
    StopMessage,
    StopType,
    Voucher,
    decode_hop,
    decode_stop,
    encode_hop,
    encode_stop,
)
from ._exchange import ask, receive_message, send_message
from ._reservations import Circuits, RelayLimits, Reservations
from ._splice import splice

HOP: ProtocolId = "/libp2p/circuit/relay/0.2.0/hop"
"""The protocol id of circuit relay 2 between a peer and a relay."""
STOP: ProtocolId = "/libp2p/circuit/relay/0.2.0/stop"
"""The protocol id of circuit relay 2 between a relay and the peer to reach."""
REQUEST_TIMEOUT = 15.0
"""Seconds that a peer has for its request (case R1; go gives it 60)."""
STOP_TIMEOUT = 30.0
"""Seconds that a destination has to accept a circuit (go)."""
MAX_OWN_ADDRS = 2048
"""Bytes of all the addresses in a grant, so that it is read together with the voucher (ours)."""
RELAYS = "/libp2p/relay"
"""The name under which relays are found (js)."""
ADVERTISE_RETRY = 60.0
"""Seconds after which a relay whose discovery failed turns to it again (ours)."""
PROTECTION = "relay-reservation"
"""The tag under which peers with a reservation are protected from trimming."""

_LOST = (Libp2pError, trio.BrokenResourceError, trio.ClosedResourceError)


class _Refused(Exception):
    """A request is answered with a status and nothing else."""

    def __init__(self, status: Status) -> None:
        self.status = status


class RelayServer(Service):
    """Serves as a relay for others.

    Args:
        limits: what it gives away; the defaults are go's.
        discovery: where others find it under :data:`RELAYS`; a service of the same host that comes before this one.
        clock: wall clock in seconds since 1970, for the end of reservations as peers see it.
    """

    def __init__(
        self,
        limits: RelayLimits | None = None,
        *,
        discovery: Discovery | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._discovery = discovery
        self.limits: RelayLimits = limits or RelayLimits()
        self._clock = clock
        self._reservations = Reservations(self.limits)
        self._circuits = Circuits(self.limits)
        self._answers: dict[PeerId, tuple[float, bytes]] = {}
        self._counts: Counter[str] = Counter()
        self._host: Host | None = None
        self._news = trio.Event()

    @property
    def handlers(self) -> Mapping[ProtocolId, StreamHandler]:
        """Hop."""
        return {HOP: self._hop}

    @property
    def limited_protocols(self) -> frozenset[ProtocolId]:
        """Hop, so that whoever asks through another relay is told that this is not permitted."""
        return frozenset((HOP,))

    @property
    def reservations(self) -> int:
        """Reservations held now."""
        return len(self._reservations)

    @property
    def circuits(self) -> int:
        """Circuits carried now."""
        return len(self._circuits)

    def counts(self) -> Mapping[str, int]:
        """What happened so far: each status answered, under its name, and each way a circuit ended."""
        return dict(self._counts)

    async def run(self, host: Host, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """End reservations when their time has come or their peers have gone, until cancelled."""
        self._host = host
        try:
            with host.subscribe(ConnectionEnded) as events:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._expire, host)
                    if self._discovery is not None:
                        nursery.start_soon(self._advertise, host, self._discovery)
                    task_status.started()
                    async for event in events:
                        if not direct_connections(host, event.peer):
                            self._forget(host, event.peer)
        finally:
            self._host = None

    async def _advertise(self, host: Host, discovery: Discovery) -> None:
        while True:
            with host.contain("advertising", "this relay"):
                async with discovery.advertise(RELAYS):
                    await trio.sleep_forever()
            await trio.sleep(ADVERTISE_RETRY)

    async def _expire(self, host: Host) -> None:
        while True:
            self._sweep(host)
            timeout = self._reservations.next_timeout()
            self._news = trio.Event()
            with trio.CancelScope(deadline=float("inf") if timeout is None else timeout):
                await self._news.wait()

    def _sweep(self, host: Host) -> None:
        for peer in self._reservations.expire(trio.current_time()):
            self._drop(host, peer)

    def _forget(self, host: Host, peer: PeerId) -> None:
        if self._reservations.remove(peer):
            self._drop(host, peer)

    def _drop(self, host: Host, peer: PeerId) -> None:
        del self._answers[peer]
        host.unprotect(peer, PROTECTION)

    # --- requests

    async def _hop(self, stream: Stream) -> None:
        host = self._host
        if host is None:
            return stream.reset()  # the host is closing
        try:
            request = await self._request(stream)
            if request.type is HopType.RESERVE:
                await self._send(stream, Status.OK, self._reserve(host, stream.connection))
            else:
                await self._connect(host, stream, request.peer)
        except _Refused as refused:
            answer = encode_hop(HopMessage(type=HopType.STATUS, status=refused.status))
            await self._send(stream, refused.status, answer)

    async def _request(self, stream: Stream) -> HopMessage:
        try:
            with trio.fail_after(REQUEST_TIMEOUT):
                request = decode_hop(await receive_message(stream))
        except (DecodeError, RemoteProtocolError) as exc:
            raise _Refused(Status.MALFORMED_MESSAGE) from exc
        if request.type is HopType.STATUS:
            raise _Refused(Status.UNEXPECTED_MESSAGE)
        if is_relay(stream.connection.remote_addr):
            raise _Refused(Status.PERMISSION_DENIED)
        return request

    async def _send(self, stream: Stream, status: Status, answer: bytes) -> None:
        self._counts[status.name] += 1
        with trio.fail_after(REQUEST_TIMEOUT):
            await send_message(stream, answer)

    # --- reservations

    def _reserve(self, host: Host, connection: Connection) -> bytes:
        """Grant or renew a reservation; the answer."""
        peer, now = connection.peer, trio.current_time()
        if connection not in host.connections(peer):
            raise _Refused(Status.RESERVATION_REFUSED)  # it has gone already: nothing would end this reservation
        self._sweep(host)
        granted = self._reservations.reserve(peer, connection.remote_addr, now)
        if granted is None:
            raise _Refused(Status.RESERVATION_REFUSED)
        since, answer = self._answers.get(peer, (None, b""))
        if since != granted.since:
            expire = int(self._clock() + granted.expires - now)
            voucher = Voucher(relay=host.local_peer, peer=peer, expiration=expire).seal(host.private_key)
            reservation = ReservationMessage(expire=expire, addrs=_own_addrs(host, connection), voucher=voucher)
            answer = encode_hop(
                HopMessage(type=HopType.STATUS, status=Status.OK, reservation=reservation, limit=self._limit())
            )
            self._answers[peer] = (granted.since, answer)
            host.protect(peer, PROTECTION)
            self._news.set()
        return answer

    def _limit(self) -> CircuitLimit | None:
        limits = self.limits
        if limits.circuit_duration is None and limits.circuit_data is None:
            return None
        return CircuitLimit(duration=limits.circuit_duration, data=limits.circuit_data)

    # --- circuits

    async def _connect(self, host: Host, stream: Stream, destination: PeerId | None) -> None:
        source = stream.connection.peer
        if destination is None:
            raise _Refused(Status.MALFORMED_MESSAGE)
        if destination == source:
            raise _Refused(Status.PERMISSION_DENIED)
        direct = direct_connections(host, destination)
        if not direct or not self._reservations.holds(destination, trio.current_time()):
            raise _Refused(Status.NO_RESERVATION)
        token = self._circuits.reserve(source, destination)
        if token is None:
            raise _Refused(Status.RESOURCE_LIMIT_EXCEEDED)
        with token:
            other = await self._stop(direct[0], source)
            answer = encode_hop(HopMessage(type=HopType.STATUS, status=Status.OK, limit=self._limit()))
            try:
                await self._send(stream, Status.OK, answer)
            except BaseException:
                other.reset()
                raise
            end = await splice(stream, other, self._limit() or CircuitLimit())
        self._counts[end.value] += 1

    async def _stop(self, connection: Connection, source: PeerId) -> Stream:
        """Ask the destination to accept a circuit from ``source``; the stream to it."""
        request = StopMessage(type=StopType.CONNECT, peer=source, limit=self._limit())
        try:
            with trio.fail_after(STOP_TIMEOUT):
                stream = await connection.open_stream(STOP)
                answer = await ask(stream, encode_stop(request), decode_stop)
        except (*_LOST, trio.TooSlowError) as exc:
            raise _Refused(Status.CONNECTION_FAILED) from exc
        if answer.type is StopType.STATUS and answer.status == Status.OK:
            return stream
        stream.reset()
        raise _Refused(Status.CONNECTION_FAILED)


def direct_connections(host: Host, peer: PeerId) -> list[Connection]:
    """The connections to ``peer`` that go through no relay, best first."""
    return [conn for conn in host.connections(peer) if not is_relay(conn.remote_addr)]


def _own_addrs(host: Host, connection: Connection) -> tuple[Multiaddr, ...]:
    """What to tell ``connection``'s peer about where this relay is: never nothing, which some (rust) refuse.

    Public addresses when there are any; otherwise all, as on a private network, or else the one it has come by.
    """
    direct = [addr for addr in host.addrs if not is_relay(addr)]
    public = [addr for addr in direct if scope(addr) in (Scope.PUBLIC, Scope.NAME)]
    found = public or direct or [with_peer(connection.local_addr, host.local_peer)]
    lengths = accumulate(len(addr.to_bytes()) for addr in found)
    return tuple(addr for addr, length in zip(found, lengths, strict=True) if length <= MAX_OWN_ADDRS)
