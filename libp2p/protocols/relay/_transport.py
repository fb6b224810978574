"""Circuits as a transport: what is dialled and listened on at ``/…/p2p/RELAY/p2p-circuit``.

The bytes of a circuit go through the same security protocols and muxers as those of a socket; the relay sees nothing
but ciphertext. The source is the dialer in all of that, the destination the listener.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import trio
from multiaddr import Multiaddr
from trio.abc import Stream as ByteStream
from trio.lowlevel import ParkingLot

from ..._util.once import Once
from ...abc import Buffer, Connection, Listener, RawConnection, Stream, Transport
from ...addressing import Part, from_parts, parts, split_peer
from ...errors import DecodeError, StreamReset, TransportError
from ...peer_id import PeerId

if TYPE_CHECKING:
    from ._client import RelayClient, Reservation

BACKLOG = 64
"""Circuits a listener holds between two accepts; more are refused."""
CIRCUIT = Part("p2p-circuit")
LOCAL_ADDR = from_parts((CIRCUIT,))
"""Our end of a circuit, which has no address of its own."""


class CircuitStream(ByteStream):
    """The bytes of a circuit. Owns the stream they travel on.

    Attributes:
        ended: set when it was closed here.
    """

    __slots__ = ("_limited", "_stream", "ended")

    def __init__(self, stream: Stream, *, limited: bool) -> None:
        self._stream = stream
        self._limited = limited
        self.ended = Once()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """As in Trio."""
        try:
            return await self._stream.receive_some(max_bytes)
        except StreamReset as exc:
            raise self._cut(exc) from exc

    async def send_all(self, data: Buffer) -> None:
        """As in Trio."""
        try:
            await self._stream.send_all(data)
        except StreamReset as exc:
            raise self._cut(exc) from exc

    async def wait_send_all_might_not_block(self) -> None:
        """As in Trio."""
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """As in Trio."""
        self.ended.set()
        await self._stream.aclose()

    def _cut(self, exc: StreamReset) -> trio.BrokenResourceError:
        # A reset is all a relay has to say, whatever it is about.
        limits = "; it may have reached a limit" if self._limited else ""
        return trio.BrokenResourceError(f"the relay ended the circuit{limits} ({exc})")


class CircuitListener(Listener):
    """Accepts circuits through some relays.

    Args:
        on_close: called once, when it is closed.
    """

    def __init__(self, on_close: Callable[[], None]) -> None:
        self._on_close = on_close
        self._held: dict[PeerId, Reservation] = {}
        self._waiting: deque[RawConnection] = deque()
        self._lot = ParkingLot()
        self._closed = False

    @property
    def addresses(self) -> Sequence[Multiaddr]:
        """Where it is reached now; none while no relay has a reservation for it."""
        return tuple(dict.fromkeys(addr for held in self._held.values() for addr in held.addrs))

    @property
    def reservations(self) -> Mapping[PeerId, Reservation]:
        """What it listens by, by relay."""
        return self._held

    def add(self, held: Reservation) -> None:
        """Listen by a reservation, which replaces an older one of its relay; nothing happens once it is closed."""
        if not self._closed:
            self._held[held.relay] = held

    def remove(self, relay: PeerId) -> None:
        """No longer listen through ``relay``."""
        self._held.pop(relay, None)

    def offer(self, circuit: RawConnection) -> bool:
        """Let a circuit wait to be accepted; False when there is no room for it."""
        if self._closed or len(self._waiting) >= BACKLOG:
            return False
        self._waiting.append(circuit)
        self._lot.unpark()
        return True

    async def accept(self) -> RawConnection:
        await trio.lowlevel.checkpoint()
        while not self._closed:
            if self._waiting:
                return self._waiting.popleft()
            await self._lot.park()
        raise trio.ClosedResourceError("this listener is closed")

    async def aclose(self) -> None:
        """Stop listening; circuits that were not accepted are reset."""
        if not self._closed:
            self._closed = True
            self._held.clear()
            self._on_close()
            self._lot.unpark_all()
            with trio.CancelScope(shield=True):
                while self._waiting:
                    await trio.aclose_forcefully(self._waiting.popleft().stream)
        await trio.lowlevel.checkpoint()


class Circuit(Transport):
    """Dials and listens through relays. Made by :class:`~libp2p.protocols.relay.RelayClient`, whose it is."""

    def __init__(self, client: RelayClient) -> None:
        self._client = client

    def can_dial(self, addr: Multiaddr) -> bool:
        return _way(addr) is not None

    def can_listen(self, addr: Multiaddr) -> bool:
        return addr == LOCAL_ADDR or _way(addr) is not None

    async def dial(self, addr: Multiaddr, *, peer: PeerId | None) -> RawConnection:
        """Connect to ``peer`` through the relay that ``addr`` names, connecting to that first where needed.

        Raises:
            CircuitRefused: the relay said no.
            TransportError: it did not work for another reason.
        """
        relay = _way(addr)
        if relay is None or peer is None:
            raise TransportError(addr, "a relay address must name the relay, and end in the peer to reach")
        return await self._client.dial_through(relay, peer, addr)

    async def listen(self, addr: Multiaddr) -> CircuitListener:
        """Listen at the relay that ``addr`` names, or for a bare ``/p2p-circuit`` at those that the client finds.

        Raises:
            CircuitRefused: the named relay said no.
            TransportError: it could not be reached.
        """
        return await self._client.listen_through(_way(addr), addr)


def _way(addr: Multiaddr) -> tuple[PeerId, Multiaddr | None] | None:
    """The relay of ``/…/p2p/RELAY/p2p-circuit``, and its address where there is one; None for any other shape."""
    found = parts(addr)
    if found[-1:] != (CIRCUIT,) or CIRCUIT in found[:-1]:
        return None
    try:
        way, relay = split_peer(from_parts(found[:-1]))
    except DecodeError:
        return None
    return None if relay is None else (relay, way if way.to_bytes() else None)


def circuit_addr(relay: PeerId, way: Multiaddr) -> Multiaddr:
    """``/…/p2p/RELAY/p2p-circuit`` for a relay at ``way``, which may end in its ``/p2p``."""
    bare, _ = split_peer(way)
    return from_parts((*parts(bare), Part("p2p", bytes(relay)), CIRCUIT))


def seen_through(connection: Connection) -> Multiaddr:
    """The remote address of circuits that come or go through ``connection``, to a relay."""
    return circuit_addr(connection.peer, connection.remote_addr)
