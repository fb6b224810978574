"""``/x/NAME``: a TCP port of one machine, used from another one, over libp2p.

The serving side (:class:`ForwardServer`) says which TCP port a name stands for, and which peers may use it. The other
side (:func:`open_forward`) listens on a TCP port of its own; whoever connects there talks to the port at the peer's
side. A stream is one TCP connection and carries its bytes and nothing else, as kubo's ``ipfs p2p`` does, so either side
may be a kubo node.

What TCP can say arrives at the other end as it was said: an end of one direction stays the end of that direction, and
an abort is an abort, so that half an answer does not look whole. A program that stops reading stops the program at the
other end from writing: at most one chunk of each direction is held here, besides what the stream's window and the
kernel hold.

Nothing is served by default, and to nobody: a TCP port that listens on loopback trusts this machine's users, and
forwarding extends that trust to peers.
"""

from __future__ import annotations

import logging
import socket
import struct
import sys
from collections import Counter
from collections.abc import AsyncIterator, Container, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TypeAlias

import trio

from .._util.contain import leaves
from .._util.nursery import Block, open_unwrapping_nursery
from ..abc import Direction, Host, ProtocolId, Service, Stream, StreamHandler, Target
from ..errors import Libp2pError, LimitExceeded, ServiceError
from ..events import Event
from ..metrics import Kind, LabelValues, Metric, Value, gauge
from ..peer_id import PeerId

PREFIX = "/x/"
"""Where kubo has the protocols of users."""
CHUNK = 64 * 1024
"""Bytes of one direction held between reading and writing."""
MAX_NAME = 128
"""Characters of a name (ours)."""
GATED = 0x1008
"""Stream error code for a peer that may not (go ``StreamGated``)."""
LOOPBACK = "127.0.0.1"
"""Where :func:`open_forward` listens by default: for programs of this machine only."""

_log = logging.getLogger("libp2p.forward")
_LOST = (Libp2pError, trio.BrokenResourceError, trio.ClosedResourceError)
_ABORT = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
"""``struct linger``: to close is to abort."""

Address: TypeAlias = tuple[str, int]
"""A host, as a name or an IP address, and a TCP port."""


class _Anyone(Container[PeerId]):
    def __contains__(self, peer: object) -> bool:
        return True

    def __repr__(self) -> str:
        return "ANYONE"


ANYONE: Container[PeerId] = _Anyone()
"""Every peer, known or not: ports for the public."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardLimits:
    """How much is carried at a time. Beyond it, a TCP connection is aborted, and a peer's stream reset."""

    connections: int = 256
    """TCP connections (scope ``forward_connections``)."""
    per_peer: int = 64
    """Of them, for one peer (scope ``forward_connections_per_peer``)."""
    connect_timeout: float = 10.0
    """Seconds to reach the TCP port that is served."""

    def __post_init__(self) -> None:
        if min(self.connections, self.per_peer) < 1 or self.connect_timeout <= 0:
            raise ValueError("limits must be positive")


class _PortError(ServiceError):
    def __init__(self, address: Address, reason: str) -> None:
        super().__init__(address, reason)
        self.address = address
        self.reason = reason


class PortUnavailable(_PortError):
    """A TCP port cannot be listened on.

    Attributes:
        address: host and port.
        reason: what the operating system said.
    """

    def __str__(self) -> str:
        return f"cannot listen on {_text(self.address)}: {self.reason}"


class TargetUnreachable(_PortError):
    """The TCP port that is served does not answer.

    Attributes:
        address: host and port.
        reason: what the operating system said.
    """

    def __str__(self) -> str:
        return f"{_text(self.address)} does not answer: {self.reason}"


class NotAllowed(ServiceError):
    """A peer asked for a port that it may not use.

    Attributes:
        peer: who.
        name: for what.
    """

    def __init__(self, peer: PeerId, name: str) -> None:
        super().__init__(peer, name)
        self.peer = peer
        self.name = name

    def __str__(self) -> str:
        return f"{self.peer} may not use {self.name}"


@dataclass(slots=True)
class Forwarded(Event):
    """A forwarded connection has ended, or did not come about.

    Attributes:
        peer: who is at the other end; None when it was never reached.
        name: what is forwarded.
        direction: INBOUND at the side that serves the port.
        sent: bytes that went from the TCP connection here to the peer.
        received: bytes that went the other way.
        error: why it was aborted; None when both ends were done. A ``StreamReset`` with the code :data:`GATED` says
            that the peer does not allow it.
    """

    peer: PeerId | None
    name: str
    direction: Direction
    sent: int
    received: int
    error: Exception | None


def protocol_of(name: str) -> ProtocolId:
    """The protocol id of ``name``, which may be one already: ``"ssh"`` and ``"/x/ssh"`` are the same.

    Raises:
        ValueError: nobody can be called so.
    """
    bare = name.removeprefix(PREFIX)
    if not 0 < len(bare) <= MAX_NAME or not bare.isascii() or not bare.isprintable() or " " in bare:
        raise ValueError(f"{name!r} is no name: 1 to {MAX_NAME} printable ASCII characters without spaces")
    if bare.startswith("/"):
        raise ValueError(f"{name!r} is the protocol of somebody else; those of users begin with {PREFIX}")
    return PREFIX + bare


class _Slots:
    """The connections there are, by peer."""

    def __init__(self, limits: ForwardLimits) -> None:
        self._limits = limits
        self._held: Counter[PeerId] = Counter()

    def __len__(self) -> int:
        return self._held.total()

    @contextmanager
    def one(self, peer: PeerId) -> Iterator[None]:
        """Count one more while the block is open.

        Raises:
            LimitExceeded: there are too many.
        """
        if self._held.total() >= self._limits.connections:
            raise LimitExceeded("forward_connections", self._limits.connections)
        if self._held[peer] >= self._limits.per_peer:
            raise LimitExceeded("forward_connections_per_peer", self._limits.per_peer)
        self._held[peer] += 1
        try:
            yield
        finally:
            self._held[peer] -= 1
            if not self._held[peer]:
                del self._held[peer]


class ForwardServer(Service):
    """Lets peers use TCP ports that this machine can reach.

    Args:
        targets: name to the TCP port behind it.
        allow: the peers that may use them, asked for each connection; :data:`ANYONE` for all there are.
        limits: how much at a time.

    Raises:
        ValueError: a name cannot be one.
    """

    def __init__(
        self, targets: Mapping[str, Address], *, allow: Container[PeerId], limits: ForwardLimits | None = None
    ) -> None:
        self._targets = {protocol_of(name): address for name, address in targets.items()}
        self._allow = allow
        self._limits = limits or ForwardLimits()
        self._slots = _Slots(self._limits)
        self._counts: Counter[str] = Counter()
        self._host: Host | None = None

    @property
    def handlers(self) -> Mapping[ProtocolId, StreamHandler]:
        """One protocol for each name."""
        return dict.fromkeys(self._targets, self._serve)

    @property
    def connections(self) -> int:
        """TCP connections carried now."""
        return len(self._slots)

    async def run(self, host: Host, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until cancelled."""
        self._host = host
        try:
            task_status.started()
            await trio.sleep_forever()
        finally:
            self._host = None

    def measure(self) -> Iterator[Metric]:
        """Connections now, and how they ended."""
        yield gauge("libp2p_forward_connections", "Forwarded TCP connections", len(self._slots))
        ends: dict[LabelValues, Value] = {(name,): float(count) for name, count in self._counts.items()}
        yield Metric("libp2p_forward_ended_total", "How forwarded connections ended", Kind.COUNTER, ends, ("end",))

    async def _serve(self, stream: Stream) -> None:
        assert stream.protocol is not None  # or nobody would have called
        peer, protocol, carried = stream.connection.peer, stream.protocol, _Carried()
        error: Exception | None
        try:
            if peer not in self._allow:
                raise NotAllowed(peer, protocol)
            with self._slots.one(peer):
                tcp = await self._connect(self._targets[protocol])
                error = await _splice(tcp, stream, carried)
        except NotAllowed as exc:
            stream.reset(GATED)
            error = exc
        except LimitExceeded as exc:
            stream.reset(exc.wire_code)
            error = exc
        except TargetUnreachable as exc:
            stream.reset()
            error = exc
        self._counts["done" if error is None else type(error).__name__] += 1
        if self._host is not None:
            _publish(self._host, peer, protocol, Direction.INBOUND, carried, error)

    async def _connect(self, address: Address) -> trio.SocketStream:
        try:
            with trio.fail_after(self._limits.connect_timeout):
                return await trio.open_tcp_stream(*address)
        except trio.TooSlowError as exc:
            raise TargetUnreachable(address, f"nothing within {self._limits.connect_timeout:g} s") from exc
        except OSError as exc:
            raise TargetUnreachable(address, exc.strerror or str(exc)) from exc


class Forward:
    """A TCP port of this machine that leads to one at a peer's side. Made by :func:`open_forward`."""

    def __init__(self, host: Host, target: Target, protocol: ProtocolId, limits: ForwardLimits) -> None:
        self._host = host
        self._target = target
        self._protocol = protocol
        self._limits = limits
        self._count = 0
        self.addresses: Sequence[Address] = ()
        """Where it listens; several when the host is a name with several addresses."""

    @property
    def connections(self) -> int:
        """TCP connections carried now."""
        return self._count

    async def _serve(self, tcp: trio.SocketStream) -> None:
        error: Exception | None
        peer, carried = None, _Carried()
        self._count += 1
        try:
            if self._count > self._limits.connections:
                raise LimitExceeded("forward_connections", self._limits.connections)
            stream = await self._host.open_stream(self._target, self._protocol)
            peer = stream.connection.peer
            error = await _splice(tcp, stream, carried)
        except _LOST as exc:
            error = exc
        finally:
            self._count -= 1
            _abort(tcp)  # which does nothing to one that ended in order
        _publish(self._host, peer, self._protocol, Direction.OUTBOUND, carried, error)


@asynccontextmanager
async def open_forward(
    host: Host, target: Target, name: str, *, listen: Address = (LOOPBACK, 0), limits: ForwardLimits | None = None
) -> AsyncIterator[Forward]:
    """Listen on a TCP port that leads to the one that ``target`` serves as ``name``, while the block is open.

    The peer is dialled, again when it must be, for each TCP connection. One that cannot be carried is aborted, and
    :class:`Forwarded` says why.

    Args:
        host: the host to reach the peer from.
        target: the peer; an address should end in its peer id.
        name: as the peer calls it.
        listen: the host and the TCP port; port 0 for any. Whoever can reach it uses the peer's port in this host's
            name.
        limits: how much at a time.

    Raises:
        PortUnavailable: it cannot be listened on.
        ValueError: ``name`` cannot be one.
    """
    forward = Forward(host, target, protocol_of(name), limits or ForwardLimits())
    try:
        listeners = await trio.open_tcp_listeners(listen[1], host=listen[0])
    except OSError as exc:
        raise PortUnavailable(listen, exc.strerror or str(exc)) from exc
    forward.addresses = tuple(listener.socket.getsockname()[:2] for listener in listeners)
    block = Block()
    async with open_unwrapping_nursery(block) as nursery:
        nursery.start_soon(trio.serve_listeners, forward._serve, listeners)
        with block.watch():
            yield forward
        nursery.cancel_scope.cancel()


@dataclass(slots=True)
class _Carried:
    """Bytes between TCP and the stream."""

    sent: int = 0
    received: int = 0


async def _splice(tcp: trio.SocketStream, stream: Stream, carried: _Carried) -> Exception | None:
    """Carry bytes both ways, and the end of each way, until there is no more. Closes or aborts both.

    Returns:
        What broke it.
    """
    error: Exception | None = None
    done = False
    try:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_outward, tcp, stream, carried)
                nursery.start_soon(_inward, stream, tcp, carried)
            done = True
        except* _LOST as group:
            error = next(exc for exc in leaves(group) if isinstance(exc, Exception))
    finally:
        if not done:
            stream.reset()
            _abort(tcp)
    stream.close()
    tcp.socket.close()
    return error


async def _outward(tcp: trio.SocketStream, stream: Stream, carried: _Carried) -> None:
    while chunk := await tcp.receive_some(CHUNK):
        await stream.send_all(chunk)
        carried.sent += len(chunk)
    await stream.send_eof()


async def _inward(stream: Stream, tcp: trio.SocketStream, carried: _Carried) -> None:
    while chunk := await stream.receive_some(CHUNK):
        await tcp.send_all(chunk)
        carried.received += len(chunk)
    await tcp.send_eof()


def _abort(tcp: trio.SocketStream) -> None:
    """Close by a reset, which no program takes for an end in order."""
    if tcp.socket.fileno() >= 0:
        tcp.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
        tcp.socket.close()


def _publish(
    host: Host, peer: PeerId | None, name: str, direction: Direction, carried: _Carried, error: Exception | None
) -> None:
    if error is not None:
        _log.debug("%s with %s ended: %s", name, peer, error)
    host.publish(
        Forwarded(peer=peer, name=name, direction=direction, sent=carried.sent, received=carried.received, error=error)
    )


def _text(address: Address) -> str:
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
