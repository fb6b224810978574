"""One UDP socket and all QUIC connections over it, dialled and accepted.

Three tasks, however many connections: a reader, which sorts datagrams by the connection id they are for; a timer, which
sleeps until the first of a heap of times; and a writer, which sleeps unless the kernel takes no more.

A datagram that belongs to no connection costs the parsing of one header: see ``_admission.py`` for what may come of it.
What goes wrong inside one connection ends that connection only.
"""

from __future__ import annotations

import heapq
import logging
import math
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Protocol

import trio
from multiaddr import Multiaddr

from ..._util.contain import capture
from ...abc import Direction
from ...addressing import ip_addr
from ...errors import ConnectionClosed, PeerIdMismatch, SecurityError, TransportError
from ...peer_id import PeerId
from ._admission import Admission, Answer, Begin, Ticket
from ._connection import QuicConnection
from ._engine import BURST, Address, Engine, EngineConfig, Start
from ._machine import QuicMachine
from ._packets import CID_SIZE, destination, read_header
from ._socket import DatagramSocket
from ._tls import Outside, TlsIdentity

_log = logging.getLogger("libp2p.quic")

TURN_RECEIVES = 8
"""Receives between two looks at what else there is to do. Then credit is given, too: they hold half a stream's window,
so that the peer goes on sending meanwhile."""
TURN_EVENTS = 2048
"""Events of one connection that end a turn as well: a receive may bring ten times as many. So does a new handshake."""
NOISE_SIZE = 64
"""Bytes of a datagram that only opens a way (go, rust)."""
REFUSED = 0x2
"""Transport error code CONNECTION_REFUSED (RFC 9000, section 20.1)."""


_CID = range(1, 1 + CID_SIZE)
"""Where the connection id stands in a packet of an established connection."""


class Acceptor(Protocol):
    """Takes what others dial."""

    def offer(self, connection: QuicConnection) -> bool:
        """A connection whose handshake is complete; False to refuse it."""
        ...

    def socket_closed(self) -> None:
        """There will be no more."""
        ...


class Endpoint:
    """A socket with its connections. Owns the socket.

    Args:
        kernel: whether the socket is the operating system's.

    Attributes:
        acceptor: who listens here, if anybody does.
        kernel: whether sending touches nothing but the kernel, so that it may be done outside of any task.
    """

    def __init__(
        self,
        sock: DatagramSocket,
        *,
        identity: TlsIdentity,
        config: EngineConfig,
        outside: Outside,
        kernel: bool,
    ) -> None:
        self.kernel = kernel
        self.acceptor: Acceptor | None = None
        self._socket = sock
        self._where = sock.address
        self._identity = identity
        self._config = config
        self._outside = outside
        self._admission = Admission(outside.entropy(32))
        self._by_cid: dict[bytes, QuicConnection] = {}
        self._cids: dict[QuicConnection, set[bytes]] = {}
        self._handshakes: dict[QuicConnection, Ticket] = {}
        self._dials: dict[QuicConnection, Address] = {}
        self._touched: dict[QuicConnection, None] = {}
        self._crowded = False
        self._timers: list[tuple[float, int, QuicConnection]] = []
        self._armed: dict[QuicConnection, float] = {}
        self._timer_scope = trio.CancelScope()
        self._timer_count = 0
        self._unsent: deque[tuple[bytes, Address]] = deque()
        self._waiting: dict[QuicConnection, None] = {}
        self._blocked = trio.lowlevel.ParkingLot()
        self._scope = trio.CancelScope()
        self.live: int = 0
        self.closed: bool = False

    @property
    def address(self) -> Address:
        """What the socket is bound to."""
        return self._where

    # --- life

    async def run(self) -> None:
        """Read, write and keep the time, until closed."""
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._keep_time)
                    nursery.start_soon(self._write)
                    await self._read()
        except* trio.ClosedResourceError:
            pass  # closed here
        except* OSError as group:
            # Nobody's connection but those of this socket ends with it.
            _log.error("the socket at %s failed: %s", self._where, group.exceptions[0])
        finally:
            self.close()

    def close(self) -> None:
        """Drop everything: the peers learn of it as far as the kernel takes it now."""
        if not self.closed:
            for connection in tuple(self._cids):
                connection.abort()  # with the last one, this may be called again
        if not self.closed:
            self.closed = True
            self._scope.cancel()
            self._socket.close()
            if self.acceptor is not None:
                self.acceptor.socket_closed()

    async def _read(self) -> None:
        while True:
            await self._socket.wait_readable()
            self._crowded = False
            for count in range(TURN_RECEIVES):
                try:
                    data, size, remote = self._socket.receive()
                except trio.WouldBlock:
                    if not count:
                        self._take_error(self._socket.receive_error())
                    break
                self._take(data, size, remote)
                if self.closed:
                    return
                if self._crowded:
                    break
            touched, self._touched = self._touched, {}
            for connection in touched:
                self._guarded(connection, connection.advance)

    def _take_error(self, target: Address | None) -> None:
        """Nobody is at ``target``, says whoever is. Believed only by dials that were not answered yet."""
        if target is not None:
            for connection, remote in tuple(self._dials.items()):
                if remote[:2] == target[:2]:
                    connection.fail(ConnectionRefusedError("nobody listens there, or it cannot be reached"))

    # --- datagrams in

    def _take(self, data: bytes, size: int, remote: Address) -> None:
        cid = destination(data)
        connection = None if cid is None else self._by_cid.get(cid)
        if len(data) > size:
            # Byte by byte of the id, that of all at once: a slice costs as much as ten looks at one.
            count = -(-len(data) // size)
            if connection is not None and all(data[at::size] == data[at : at + 1] * count for at in _CID):
                self._feed(connection, partial(connection.receive_segments, data, size, remote))
                return
            for start in range(0, len(data), size):
                self._take(data[start : start + size], size, remote)
        elif connection is not None:
            self._feed(connection, partial(connection.receive, [data], remote))
        elif cid is not None and data[0] & 0x80:
            self._take_stranger(data, remote)

    def _feed(self, connection: QuicConnection, call: Callable[[], None]) -> None:
        self._touched[connection] = None
        self._guarded(connection, call)
        self._crowded |= connection.machine.engine.waiting >= TURN_EVENTS

    @staticmethod
    def _guarded(connection: QuicConnection, call: Callable[[], None]) -> None:
        error = capture(call)
        if error is not None:
            connection.fail(error)

    def _take_stranger(self, data: bytes, remote: Address) -> None:
        if self.acceptor is None:
            return
        header = read_header(data)
        if header is None:
            return
        now = trio.current_time()
        verdict = self._admission.judge(header, len(data), remote, self._outside.entropy(CID_SIZE), now)
        if isinstance(verdict, Answer):
            if not self._unsent:  # strangers do not wait for room: what is lost they ask for again
                self._send([(verdict.packet, remote)])
        elif isinstance(verdict, Begin):
            if verdict.victim is not None:
                self._give_up(verdict.victim)
            connection = self._begin(remote, Direction.INBOUND, start=verdict.start)
            self._handshakes[connection] = verdict.ticket
            self.add_cid(verdict.start.cid, connection)
            self._feed(connection, partial(connection.receive, [data], remote))
            self._crowded = True  # that took a millisecond or two

    def _give_up(self, ticket: Ticket) -> None:
        """End a handshake, and forget it at once, which makes room: what still comes of it is a stranger's."""
        connection = next(found for found, held in self._handshakes.items() if held is ticket)
        connection.abort(REFUSED)
        self._remove(connection)

    # --- connections

    def _begin(
        self, remote: Address, direction: Direction, *, start: Start | None = None, peer: PeerId | None = None
    ) -> QuicConnection:
        now = trio.current_time()
        cid = self._outside.entropy(CID_SIZE)
        engine = Engine(
            self._identity, self._config, self._outside, remote=remote, cid=cid, start=start, expected=peer, now=now
        )
        connection = QuicConnection(
            self,
            QuicMachine(engine, now),
            direction=direction,
            local_addr=_addr(self._socket.address_towards(remote)),
            remote_addr=_addr(remote),
        )
        self._cids[connection] = set()
        self.live += 1
        self.add_cid(cid, connection)
        return connection

    async def dial(self, addr: Multiaddr, remote: Address, peer: PeerId | None) -> QuicConnection:
        """Connect to ``remote``.

        Raises:
            PeerIdMismatch: another peer than ``peer`` answered.
            SecurityError: the peer's identity does not hold.
            TransportError: it did not work, and why.
        """
        connection = self._begin(remote, Direction.OUTBOUND, peer=peer)
        connection.remote_addr = addr
        self._dials[connection] = remote
        try:
            connection.flush()
            await connection.wait_ready()
        except BaseException:
            connection.abort()
            raise
        finally:
            del self._dials[connection]
        failure = connection.machine.engine.identity_failure
        if isinstance(failure, PeerIdMismatch):
            raise PeerIdMismatch(failure.expected, failure.actual)
        if failure is not None:
            raise SecurityError(str(failure)) from failure
        if connection.end is not None:
            raise TransportError(addr, connection.end.reason)
        return connection

    def add_cid(self, cid: bytes, connection: QuicConnection) -> None:
        """Datagrams for ``cid`` are ``connection``'s."""
        if connection in self._cids:
            self._by_cid[cid] = connection
            self._cids[connection].add(cid)

    def remove_cid(self, cid: bytes) -> None:
        """The peer does not use ``cid`` any more."""
        connection = self._by_cid.pop(cid, None)
        if connection is not None:
            self._cids[connection].discard(cid)

    def on_ready(self, connection: QuicConnection) -> None:
        """The handshake of ``connection`` is complete."""
        if self._end_handshake(connection):
            if self.acceptor is None or not self.acceptor.offer(connection):
                connection.abort(REFUSED)

    def _end_handshake(self, connection: QuicConnection) -> bool:
        """Whether it was inbound and under way."""
        ticket = self._handshakes.pop(connection, None)
        if ticket is None:
            return False
        self._admission.finished(ticket)
        return True

    def on_ended(self, connection: QuicConnection) -> None:
        """Nobody uses ``connection`` any more. It stays reachable until its engine has said goodbye, and until then a
        handshake that has failed counts as one that is under way."""
        self.live -= 1
        self.check_idle()

    def check_idle(self) -> None:
        """Close the socket when there is neither a listener nor a connection any more."""
        if not self.live and self.acceptor is None:
            self.close()

    def _remove(self, connection: QuicConnection) -> None:
        self._end_handshake(connection)
        for cid in self._cids.pop(connection, ()):
            self._by_cid.pop(cid, None)
        self._armed.pop(connection, None)

    # --- time

    def schedule(self, connection: QuicConnection) -> None:
        """Wake ``connection`` when its machine wants to be woken; once it wants nothing more, it is gone."""
        due = connection.machine.next_timeout()
        if due is None:
            self._remove(connection)
        elif due < self._armed.get(connection, math.inf) and connection in self._cids:
            self._arm(connection, due)

    def _arm(self, connection: QuicConnection, due: float) -> None:
        self._armed[connection] = due
        self._timer_count += 1
        heapq.heappush(self._timers, (due, self._timer_count, connection))
        if due < self._timer_scope.deadline:
            self._timer_scope.deadline = due

    async def _keep_time(self) -> None:
        while True:
            with trio.CancelScope(deadline=self._timers[0][0] if self._timers else math.inf) as self._timer_scope:
                await trio.sleep_forever()
            now = trio.current_time()
            woken: list[tuple[float, int, QuicConnection]] = []
            while self._timers and self._timers[0][0] <= now:
                woken.append(heapq.heappop(self._timers))
            for due, _, connection in woken:  # one that is due again at once lets others have their turn first
                if self._armed.get(connection) == due:
                    del self._armed[connection]
                    self._guarded(connection, partial(self._wake, connection, now))

    def _wake(self, connection: QuicConnection, now: float) -> None:
        """Times move while they are waited for; most are not due any more when they come up."""
        due = connection.machine.next_timeout()
        if due is not None and due <= now:
            connection.handle_timeout(now)
        self.schedule(connection)

    # --- datagrams out

    def send_noise(self, remote: Address) -> None:
        """Send ``remote`` a datagram that no QUIC stack takes for one of its own, if there is room for it."""
        if not self.closed and not self._unsent:
            noise = self._outside.entropy(NOISE_SIZE)
            # Without the fixed bit it is no packet of QUIC (RFC 9000, section 17), and nobody has to answer it.
            self._send([(bytes((noise[0] & 0x3F,)) + noise[1:], remote)])

    def transmit(self, connection: QuicConnection) -> None:
        """Send what ``connection`` has to send, now or when there is room again."""
        if self.closed:
            return
        now = trio.current_time()
        more = True
        while more and not self._unsent:
            try:
                datagrams = connection.machine.transmit(now)
                problem = self._send(datagrams)
            except (OSError, ConnectionClosed) as exc:
                connection.fail(exc)
                return
            if problem is not None and not connection.is_ready:
                connection.fail(problem)
            more = len(datagrams) >= BURST
        if more:
            self._waiting[connection] = None

    def _send(self, datagrams: list[tuple[bytes, Address]]) -> OSError | None:
        done, problem = self._socket.send(datagrams)
        if done < len(datagrams):
            self._unsent.extend(datagrams[done:])
            self._blocked.unpark()
        return problem

    async def _write(self) -> None:
        while True:
            if not self._unsent:
                await self._blocked.park()
                continue
            await self._socket.wait_writable()
            done, _ = self._socket.send(list(self._unsent))
            for _ in range(done):
                self._unsent.popleft()
            if not self._unsent:
                waiting, self._waiting = self._waiting, {}
                for connection in waiting:
                    self._guarded(connection, connection.flush)


def _addr(address: Address) -> Multiaddr:
    return ip_addr(address[0], address[1], "quic-v1")
