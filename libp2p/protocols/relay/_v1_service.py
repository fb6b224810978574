"""Circuit relay version 1, all its sides.

Theory of operation. One protocol carries all requests, so one service answers them all: HOP and CAN_HOP as a relay,
when that is wanted, and STOP for the listeners of a :class:`~libp2p.protocols.relay.RelayClient`. There are no
reservations: a circuit leads to any peer that is connected and speaks the protocol. What bounds circuits is what bounds
those of version 2, except that nobody can be told.

Source: libp2p/specs relay/circuit-v1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

import trio

from ...abc import Connection, Host, ProtocolId, Service, Stream, StreamHandler
from ...addressing import is_relay
from ...errors import DecodeError, Libp2pError, NegotiationError, RemoteProtocolError
from ...metrics import Metric
from ._client import RelayClient
from ._codec import CircuitLimit
from ._exchange import ask, receive_message, send_message
from ._hop import REQUEST_TIMEOUT, STOP_TIMEOUT, direct_connections, measure_circuits
from ._reservations import Circuits, RelayLimits
from ._splice import splice
from ._v1 import RELAY_V1, BadPeer, Kind, MessageV1, StatusV1, decode, decode_answer, encode

_LOST = (Libp2pError, trio.BrokenResourceError, trio.ClosedResourceError)


class _Refused(Exception):
    """A request is answered with this status and nothing else."""

    def __init__(self, status: StatusV1) -> None:
        self.status = status


class RelayV1(Service):
    """Circuit relay version 1, for peers that speak no other.

    Args:
        client: dials and listens through relays of version 1, too, as long as this service runs; a service of the
            same host. None for neither.
        limits: what to give away as a relay: of these, the circuits. None to be no relay.
    """

    def __init__(self, client: RelayClient | None = None, *, limits: RelayLimits | None = None) -> None:
        self._client = client
        self._limits = limits
        self._circuits = Circuits(limits or RelayLimits())
        self._counts: Counter[str] = Counter()
        self._host: Host | None = None

    @property
    def handlers(self) -> Mapping[ProtocolId, StreamHandler]:
        """The one protocol."""
        return {RELAY_V1: self._handle}

    @property
    def circuits(self) -> int:
        """Circuits carried now."""
        return len(self._circuits)

    def counts(self) -> Mapping[str, int]:
        """What happened so far: each status answered, under its name, and each way a circuit ended."""
        return dict(self._counts)

    def measure(self) -> Iterator[Metric]:
        """Circuits now, and what :meth:`counts` has, beside those of a :class:`RelayServer`."""
        if self._limits is not None:
            yield from measure_circuits(self.circuits, self._counts)

    async def run(self, host: Host, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve, and let the client use relays of version 1, until cancelled."""
        self._host = host
        if self._client is not None:
            self._client.speak(RELAY_V1)
        task_status.started()
        try:
            await trio.sleep_forever()
        finally:
            self._host = None
            if self._client is not None:
                self._client.speak()

    async def _handle(self, stream: Stream) -> None:
        host = self._host
        if host is None:
            return stream.reset()  # the host is closing
        try:
            request = await _request(stream)
            if request.kind is Kind.STOP:
                await self._stop(host, stream, request)
            elif self._limits is None or is_relay(stream.connection.remote_addr):
                raise _Refused(StatusV1.HOP_CANT_SPEAK_RELAY)
            elif request.kind is Kind.HOP:
                await self._hop(host, stream, request, self._limits)
            else:
                await self._answer(stream, StatusV1.SUCCESS)
        except (_Refused, BadPeer) as refused:
            await self._answer(stream, refused.status)

    async def _answer(self, stream: Stream, status: StatusV1) -> None:
        self._counts[status.name] += 1
        with trio.fail_after(REQUEST_TIMEOUT):
            await send_message(stream, encode(MessageV1(kind=Kind.STATUS, status=status)))

    # --- as a relay

    async def _hop(self, host: Host, stream: Stream, request: MessageV1, limits: RelayLimits) -> None:
        source = request.source.read(
            too_long=StatusV1.HOP_SRC_ADDR_TOO_LONG, invalid=StatusV1.HOP_SRC_MULTIADDR_INVALID
        )
        destination = request.destination.read(
            too_long=StatusV1.HOP_DST_ADDR_TOO_LONG, invalid=StatusV1.HOP_DST_MULTIADDR_INVALID
        )
        if source != stream.connection.peer:
            raise _Refused(StatusV1.HOP_SRC_MULTIADDR_INVALID)
        if destination in (source, host.local_peer):
            raise _Refused(StatusV1.HOP_CANT_RELAY_TO_SELF)
        connections = direct_connections(host, destination)
        if not connections:
            raise _Refused(StatusV1.HOP_NO_CONN_TO_DST)
        token = self._circuits.reserve(source, destination)
        if token is None:
            raise _Refused(StatusV1.HOP_BACKOFF)
        with token:
            other = await _open(connections[0], request)
            try:
                await self._answer(stream, StatusV1.SUCCESS)
            except BaseException:
                other.reset()
                raise
            limit = CircuitLimit(duration=limits.circuit_duration, data=limits.circuit_data)
            end = await splice(stream, other, limit)
        self._counts[end.value] += 1

    # --- behind a relay

    async def _stop(self, host: Host, stream: Stream, request: MessageV1) -> None:
        request.source.read(too_long=StatusV1.STOP_SRC_ADDR_TOO_LONG, invalid=StatusV1.STOP_SRC_MULTIADDR_INVALID)
        destination = request.destination.read(
            too_long=StatusV1.STOP_DST_ADDR_TOO_LONG, invalid=StatusV1.STOP_DST_MULTIADDR_INVALID
        )
        client = self._client
        listener = None if client is None else client.listener_behind(stream.connection)
        if client is None or listener is None or destination != host.local_peer:
            raise _Refused(StatusV1.STOP_RELAY_REFUSED)
        await self._answer(stream, StatusV1.SUCCESS)
        await client.accept(listener, stream, None)


async def _request(stream: Stream) -> MessageV1:
    try:
        with trio.fail_after(REQUEST_TIMEOUT):
            request = decode(await receive_message(stream))
    except (DecodeError, RemoteProtocolError) as exc:
        raise _Refused(StatusV1.MALFORMED_MESSAGE) from exc
    if request.kind is Kind.STATUS:
        raise _Refused(StatusV1.MALFORMED_MESSAGE)
    return request


async def _open(connection: Connection, request: MessageV1) -> Stream:
    """Ask the destination to accept a circuit; the stream to it."""
    stop = MessageV1(kind=Kind.STOP, source=request.source, destination=request.destination)
    try:
        with trio.fail_after(STOP_TIMEOUT):
            stream = await connection.open_stream(RELAY_V1)
            status = await ask(stream, encode(stop), decode_answer)
    except NegotiationError as exc:
        raise _Refused(StatusV1.HOP_CANT_SPEAK_RELAY) from exc
    except (*_LOST, trio.TooSlowError) as exc:
        raise _Refused(StatusV1.HOP_CANT_OPEN_DST_STREAM) from exc
    if status == StatusV1.SUCCESS:
        return stream
    stream.reset()
    raise _Refused(next((known for known in StatusV1 if known == status), StatusV1.HOP_CANT_OPEN_DST_STREAM))
