"""The network in memory: who listens where, what lies between two nodes, and how to break it."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import trio
from multiaddr import Multiaddr

from ...errors import TransportError
from ._pipe import Link, Pipe
from ._stream import MemoryStream

if TYPE_CHECKING:
    from ._transport import Memory, MemoryListener

SYN_TIMEOUT = 1.0
"""Seconds after which a lost request for a connection is repeated (RFC 6298, section 2.1)."""

Node: TypeAlias = "Memory | str"
"""A node of the network: its transport, or its name."""


@dataclass(frozen=True, slots=True)
class Wire:
    """One direction of a connection, as a tap sees it.

    Attributes:
        connection: whose direction it is.
        source: the name of the node that sends.
        target: the name of the node that receives.
        dialer: whether the sending node made the connection.
    """

    connection: MemoryConnection
    source: str
    target: str
    dialer: bool

    @property
    def sent(self) -> int:
        """Bytes that went this way so far."""
        return self.connection.sent(dialer=self.dialer)


Tap: TypeAlias = "Callable[[Wire, bytes], bytes | None]"
"""Sees every piece as it is sent. What it returns travels instead; None lets the piece pass."""


class MemoryConnection:
    """Two pipes between two nodes.

    Attributes:
        number: counts the connections of the network, from 1.
        dialer: the name of the node that made it.
        listener: the name of the other node.
    """

    def __init__(self, network: MemoryNetwork, number: int, dialer: str, listener: str) -> None:
        self.number = number
        self.dialer = dialer
        self.listener = listener
        self._network = network
        self._open_ends = 2
        self._there = self._pipe(Wire(self, dialer, listener, dialer=True))
        self._back = self._pipe(Wire(self, listener, dialer, dialer=False))
        self.streams: tuple[MemoryStream, MemoryStream] = (
            MemoryStream(dialer, self._there, self._back, self._end_closed),
            MemoryStream(listener, self._back, self._there, self._end_closed),
        )
        """The dialer's end and the listener's."""

    def __repr__(self) -> str:
        return f"<MemoryConnection {self.number} from {self.dialer} to {self.listener}>"

    def _pipe(self, wire: Wire) -> Pipe:
        network = self._network
        # A generator of its own for each direction: what other connections do must not change this one's fate.
        rng = random.Random(f"{network.seed}/{self.number}/{wire.dialer}")

        def watch(piece: bytes) -> bytes:
            for tap in network.taps:
                changed = tap(wire, piece)
                piece = piece if changed is None else changed
            return piece

        return Pipe(network.link(wire.source, wire.target), rng, watch)

    def _end_closed(self) -> None:
        self._open_ends -= 1
        if not self._open_ends:
            self._network._gone(self)

    @property
    def open(self) -> bool:
        """Whether an end of it is not closed."""
        return self._open_ends > 0

    def sent(self, *, dialer: bool) -> int:
        """Bytes sent so far by the dialer, or by the listener."""
        return (self._there if dialer else self._back).sent

    def kill(self, reason: str = "the connection was reset") -> None:
        """Reset it: both ends see a broken stream at once."""
        self._there.reset(reason)
        self._back.reset(reason)

    def stall(self, *, dialer: bool | None = None) -> None:
        """Let nothing arrive any more, of what the dialer or the listener sends, or both. Nobody is told."""
        for pipe in self._pipes(dialer):
            pipe.stall()

    def resume(self, *, dialer: bool | None = None) -> None:
        """End a stall."""
        for pipe in self._pipes(dialer):
            pipe.resume()

    def end(self, *, dialer: bool) -> None:
        """Let the dialer's bytes, or the listener's, end here, as if it had sent its end."""
        (self._there if dialer else self._back).send_eof()

    def _pipes(self, dialer: bool | None) -> Iterable[Pipe]:
        if dialer is None:
            return (self._there, self._back)
        return (self._there if dialer else self._back,)

    def _set_link(self, source: str, target: str, link: Link) -> None:
        if (self.dialer, self.listener) == (source, target):
            self._there.link = link
        if (self.listener, self.dialer) == (source, target):
            self._back.link = link

    def _touches(self, source: str, target: str) -> bool:
        return (source, target) in ((self.dialer, self.listener), (self.listener, self.dialer))


class MemoryNetwork:
    """Nodes in one process, and the links between them.

    Args:
        seed: decides all jitter and all losses.
        latency: seconds that every byte takes, from any node to any other; see :class:`Link` for this and the rest.
        jitter: up to so many seconds more.
        rate: bytes a second of each connection, each way.
        loss: how likely a packet is lost and sent again.
        buffer: bytes under way each way.
    """

    def __init__(
        self,
        seed: int = 0,
        *,
        latency: float = 0.0,
        jitter: float = 0.0,
        rate: float = math.inf,
        loss: float = 0.0,
        buffer: int = 256 * 1024,
    ) -> None:
        self.seed = seed
        self.taps: list[Tap] = []
        self._default = Link(latency=latency, jitter=jitter, rate=rate, loss=loss, buffer=buffer)
        self._links: dict[tuple[str, str], Link] = {}
        self._cuts: dict[tuple[str, str], bool] = {}
        self._healed = trio.lowlevel.ParkingLot()
        self._listeners: dict[bytes, MemoryListener] = {}
        self._connections: dict[int, MemoryConnection] = {}
        self._nodes: dict[str, Memory] = {}
        self._numbers = itertools.count(1)
        self._addresses = itertools.count(1)
        self._rng = random.Random(f"{seed}/dials")

    # --- what is there

    @property
    def connections(self) -> Sequence[MemoryConnection]:
        """Connections of which an end is open, the oldest first."""
        return tuple(self._connections.values())

    @property
    def listening(self) -> Sequence[Multiaddr]:
        """Addresses somebody listens on."""
        return tuple(addr for listener in self._listeners.values() for addr in listener.addresses)

    @property
    def nodes(self) -> Sequence[str]:
        """The names of all nodes."""
        return tuple(self._nodes)

    def between(self, a: Node, b: Node) -> Sequence[MemoryConnection]:
        """Open connections between two nodes."""
        return tuple(conn for conn in self._connections.values() if conn._touches(_name(a), _name(b)))

    # --- links

    def link(self, source: Node, target: Node) -> Link:
        """The link from one node to another."""
        return self._links.get((_name(source), _name(target)), self._default)

    def set_link(self, a: Node, b: Node, link: Link, *, one_way: bool = False) -> None:
        """Change the link from ``a`` to ``b``, and back unless ``one_way``. Connections that are open change too."""
        for source, target in _ways(a, b, one_way):
            self._links[source, target] = link
            for conn in self._connections.values():
                conn._set_link(source, target, link)

    # --- faults

    def cut(self, a: Node, b: Node, *, hard: bool = False, one_way: bool = False) -> None:
        """Separate two nodes.

        Args:
            a: a node.
            b: another.
            hard: reset their connections and refuse new ones; otherwise nothing arrives any more and nobody is told.
            one_way: only what ``a`` sends is lost; new connections fail in both directions all the same.
        """
        for source, target in _ways(a, b, one_way):
            self._cuts[source, target] = hard
            for conn in self.between(source, target):
                if hard:
                    conn.kill("the network was cut")
                else:
                    conn.stall(dialer=conn.dialer == source)

    def heal(self, a: Node | None = None, b: Node | None = None) -> None:
        """Join two nodes again; a node and everybody; or everybody. What was under way arrives after all."""
        names = {_name(node) for node in (a, b) if node is not None}
        for source, target in [ways for ways in self._cuts if names <= set(ways)]:
            del self._cuts[source, target]
            for conn in self.between(source, target):
                conn.resume(dialer=conn.dialer == source)
        self._healed.unpark_all()

    def partition(self, *groups: Iterable[Node], hard: bool = False) -> None:
        """Separate every node of a group from every node of the others."""
        named = [[_name(node) for node in group] for group in groups]
        for first, second in itertools.combinations(named, 2):
            for a, b in itertools.product(first, second):
                self.cut(a, b, hard=hard)

    def kill(self, a: Node, b: Node | None = None) -> int:
        """Reset all connections of ``a``, or those between ``a`` and ``b``. Returns how many there were."""
        one, other = _name(a), None if b is None else _name(b)
        found = [
            conn
            for conn in self._connections.values()
            if one in (conn.dialer, conn.listener) and (other is None or conn._touches(one, other))
        ]
        for conn in found:
            conn.kill()
        return len(found)

    @contextmanager
    def tap(self, tap: Tap) -> Iterator[None]:
        """Let ``tap`` see, and perhaps change, all bytes that are sent while the context is open."""
        self.taps.append(tap)
        try:
            yield
        finally:
            self.taps.remove(tap)

    # --- for the transports

    def _join(self, node: Memory) -> None:
        if node.name in self._nodes:
            raise ValueError(f"there is a node {node.name} already")
        self._nodes[node.name] = node

    def _free_number(self) -> int:
        return next(self._addresses)

    def _listen(self, listener: MemoryListener) -> None:
        addr = listener.addresses[0]
        if addr.to_bytes() in self._listeners:
            raise TransportError(addr, "the address is in use")
        self._listeners[addr.to_bytes()] = listener

    def _unlisten(self, listener: MemoryListener) -> None:
        self._listeners.pop(listener.addresses[0].to_bytes(), None)

    def _gone(self, conn: MemoryConnection) -> None:
        del self._connections[conn.number]

    async def _connect(self, node: Memory, local: Multiaddr, addr: Multiaddr) -> MemoryStream:
        await trio.lowlevel.checkpoint()
        listener = self._listeners.get(addr.to_bytes())
        # Whoever is nowhere is as far away as the network is wide.
        target = listener.node if listener is not None else ""
        await self._travel(node.name, target, addr)
        listener = self._listeners.get(addr.to_bytes())
        if listener is None or not listener.has_room:
            await self._travel(target, node.name, addr)
            raise TransportError(addr, "connection refused")
        conn = MemoryConnection(self, next(self._numbers), node.name, listener.node)
        self._connections[conn.number] = conn
        ours, theirs = conn.streams
        listener.offer(theirs, local)
        try:
            await self._travel(target, node.name, addr)
        except BaseException:
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(ours)
            raise
        return ours

    async def _travel(self, source: str, target: str, addr: Multiaddr) -> None:
        """Let one packet of a handshake go from one node to another; waits out a silent cut."""
        while (hard := self._cuts.get((source, target))) is not None:
            if hard:
                raise TransportError(addr, "the network is cut")
            await self._healed.park()
        link = self.link(source, target)
        delay, pause = link.latency + self._rng.random() * link.jitter, SYN_TIMEOUT
        while link.loss and self._rng.random() < link.loss:
            delay += pause
            pause *= 2
        if delay:
            await trio.sleep(delay)


def _name(node: Node) -> str:
    return node if isinstance(node, str) else node.name


def _ways(a: Node, b: Node, one_way: bool) -> list[tuple[str, str]]:
    source, target = _name(a), _name(b)
    ways = [(source, target)]
    if not one_way:
        ways.append((target, source))
    return ways
