"""UDP without a kernel, for QUIC on the virtual clock: sockets that find each other by address, on one network."""

from __future__ import annotations

import errno
import socket
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio

from libp2p.abc import Direction
from libp2p.addressing import parse
from libp2p.crypto.keys import KeyType, PrivateKey, generate
from libp2p.transports.quic._connection import QuicConnection
from libp2p.transports.quic._engine import Address, EngineConfig
from libp2p.transports.quic._transport import QuicListener, QuicTransport

Filter = Callable[[bytes, Address, Address], "bytes | None"]
"""Gets a datagram, where it comes from and where it goes; gives what arrives, None for nothing."""


class UdpNetwork:
    """Datagrams arrive in order, unless ``filter`` has something against it.

    Attributes:
        delay: seconds that they take.
        datagrams: how many went out.
        bytes: those of them.
    """

    def __init__(self) -> None:
        self.sockets: dict[Address, FakeUdp] = {}
        self.filter: Filter = lambda data, source, target: data
        self.delay = 0.0
        self.datagrams = self.bytes = 0
        self._flying: deque[tuple[float, bytes, Address, Address]] = deque()
        self._departed = trio.Event()
        self._next_port = 40_000

    def open(self, family: socket.AddressFamily, bind_to: tuple[str, int]) -> FakeUdp:
        host, port = bind_to
        if host in ("0.0.0.0", "::"):
            host = "127.0.0.1" if host == "0.0.0.0" else "::1"
        if not port:
            self._next_port += 1
            port = self._next_port
        address: Address = (host, port) if family == socket.AF_INET else (host, port, 0, 0)
        if address in self.sockets:
            raise OSError(errno.EADDRINUSE, "Address already in use")
        return FakeUdp(self, address)

    def deliver(self, data: bytes, source: Address, target: Address) -> None:
        self.datagrams += 1
        self.bytes += len(data)
        arriving = self.filter(data, source, target)
        if arriving is None:
            return
        if self.delay:
            self._flying.append((trio.current_time() + self.delay, arriving, source, target))
            self._departed.set()
        elif target in self.sockets:
            self.sockets[target].arrive(arriving, source)

    async def run(self) -> None:
        """Let arrive what takes a while."""
        while True:
            await self._departed.wait()
            self._departed = trio.Event()
            while self._flying:
                due, data, source, target = self._flying.popleft()
                await trio.sleep_until(due)
                if target in self.sockets:
                    self.sockets[target].arrive(data, source)


class FakeUdp:
    """A bound socket of a network in memory."""

    def __init__(self, network: UdpNetwork, address: Address) -> None:
        self.address = address
        self.full = False
        self.error: OSError | None = None
        self._network = network
        self._arrived: deque[tuple[bytes, int, Address]] = deque()
        self._readable = trio.lowlevel.ParkingLot()
        self._writable = trio.lowlevel.ParkingLot()
        network.sockets[address] = self

    def arrive(self, data: bytes, source: Address, size: int | None = None) -> None:
        """A datagram arrives, or several of ``size`` bytes that the kernel has joined."""
        self._arrived.append((data, size or len(data), source))
        self._readable.unpark_all()

    def make_room(self) -> None:
        self.full = False
        self._writable.unpark_all()

    def address_towards(self, remote: Address) -> Address:
        return self.address

    def receive(self) -> tuple[bytes, int, Address]:
        if not self._arrived:
            raise trio.WouldBlock
        return self._arrived.popleft()

    def receive_error(self) -> Address | None:
        return None

    def send(self, datagrams: Sequence[tuple[bytes, Address]]) -> tuple[int, OSError | None]:
        if self.full:
            return 0, None
        for data, target in datagrams:
            self._network.deliver(data, self.address, target)
        return len(datagrams), self.error

    async def wait_readable(self) -> None:
        if self._arrived:
            await trio.lowlevel.checkpoint()
        else:
            await self._readable.park()

    async def wait_writable(self) -> None:
        if self.full:
            await self._writable.park()
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        if self._network.sockets.get(self.address) is self:
            del self._network.sockets[self.address]


ED25519 = KeyType.ED25519


@dataclass
class Node:
    """A transport on the network, and its key."""

    key: PrivateKey
    transport: QuicTransport


@dataclass
class Net:
    """A network with a nursery in which its transports run."""

    udp: UdpNetwork
    nursery: trio.Nursery

    async def node(self, *, config: EngineConfig | None = None) -> Node:
        key = generate(ED25519)
        transport = QuicTransport(key, config=config, open_socket=self.udp.open)
        await self.nursery.start(transport.run)
        return Node(key, transport)

    async def listener(self, node: Node, addr: str = "/ip4/127.0.0.1/udp/0/quic-v1") -> QuicListener:
        return await node.transport.listen(parse(addr))


@asynccontextmanager
async def open_net() -> AsyncIterator[Net]:
    """A network; everything on it ends with the block."""
    async with trio.open_nursery() as nursery:
        udp = UdpNetwork()
        nursery.start_soon(udp.run)
        yield Net(udp, nursery)
        nursery.cancel_scope.cancel()


async def connect(dialer: Node, listener: QuicListener) -> tuple[QuicConnection, QuicConnection]:
    """Both ends of a new connection, the dialer's first."""
    ours = await dialer.transport.dial(listener.addresses[0], peer=None)
    theirs = await listener.accept()
    assert theirs.remote_addr == ours.local_addr
    return ours, theirs


__all__ = ["Direction", "FakeUdp", "Net", "Node", "UdpNetwork", "connect", "open_net"]
