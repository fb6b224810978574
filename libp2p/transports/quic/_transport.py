"""The transport: which socket serves which address."""

from __future__ import annotations

import errno
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Sequence

import trio
from multiaddr import Multiaddr

from ...abc import Listener, Transport
from ...addressing import host_port, ip_addr, names
from ...crypto.keys import PrivateKey
from ...errors import TransportError
from ...peer_id import PeerId
from ._connection import QuicConnection
from ._endpoint import Endpoint
from ._engine import Address, EngineConfig
from ._socket import DatagramSocket, UdpSocket
from ._tls import Outside, TlsIdentity, self_test

PUNCH_PAUSES = (0.01, 0.2)
"""Seconds between two packets that open a way through a NAT, at least and at most (specs relay/DCUtR)."""
BACKLOG = 128
"""Connections that wait to be accepted; more are refused."""

_SHAPES = (("ip4", "udp", "quic-v1"), ("ip6", "udp", "quic-v1"))

_SYSTEM = Outside(time.time, os.urandom, time.thread_time, time.perf_counter)

OpenSocket = Callable[[socket.AddressFamily, tuple[str, int]], DatagramSocket]


class QuicListener(Listener):
    """One listening address. Connections stay when it is closed."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        host, port = endpoint.address[:2]
        self._addr = ip_addr(host, port, "quic-v1")
        self._waiting: deque[QuicConnection] = deque()
        self._arrived = trio.lowlevel.ParkingLot()
        self._closed = False
        endpoint.acceptor = self

    @property
    def addresses(self) -> Sequence[Multiaddr]:
        return (self._addr,)

    @property
    def endpoint(self) -> Endpoint:
        """The socket it shares with dials."""
        return self._endpoint

    def offer(self, connection: QuicConnection) -> bool:
        """Let ``connection`` wait to be accepted; False when too many do."""
        if len(self._waiting) >= BACKLOG:
            return False
        self._waiting.append(connection)
        self._arrived.unpark()
        return True

    def socket_closed(self) -> None:
        """The socket is gone, with all its connections."""
        self._arrived.unpark_all()

    async def accept(self) -> QuicConnection:
        await trio.lowlevel.checkpoint()
        while not self._closed:
            while self._waiting:
                connection = self._waiting.popleft()
                if connection.end is None:
                    return connection
            if self._endpoint.closed:
                raise OSError(errno.ENETDOWN, "the socket is gone")
            await self._arrived.park()
        raise trio.ClosedResourceError("this listener is closed")

    async def aclose(self) -> None:
        """Stop listening; connections that were not accepted are refused."""
        if not self._closed:
            self._closed = True
            self._endpoint.acceptor = None
            self._arrived.unpark_all()
            while self._waiting:
                self._waiting.popleft().abort()
            self._endpoint.check_idle()
        await trio.lowlevel.checkpoint()


class QuicTransport(Transport):
    """QUIC for one host, with its engine loaded.

    Args:
        key: the host's identity key; it vouches for a certificate that is made anew for each transport.
        config: windows and timeouts.
        open_socket: makes bound sockets; by default the operating system's.
        outside: the wall clock and randomness; by default the operating system's.

    Raises:
        SecurityError: the installed engine does not authenticate both ends.
    """

    brings_security = True

    def __init__(
        self,
        key: PrivateKey,
        *,
        config: EngineConfig | None = None,
        open_socket: OpenSocket = UdpSocket,
        outside: Outside = _SYSTEM,
    ) -> None:
        self._outside = outside
        self._identity = TlsIdentity.make(key, outside.wall_clock())
        self_test(self._identity, key.public_key, self._outside)
        self._config = config or EngineConfig()
        self._open_socket = open_socket
        self._endpoints: list[Endpoint] = []
        self._nursery: trio.Nursery | None = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the endpoints; they all close when this ends."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._nursery = None

    def can_dial(self, addr: Multiaddr) -> bool:
        return names(addr) in _SHAPES

    def can_listen(self, addr: Multiaddr) -> bool:
        return self.can_dial(addr)

    async def dial(self, addr: Multiaddr, *, peer: PeerId | None) -> QuicConnection:
        """Connect to ``addr``, from a listening socket where one fits.

        Raises:
            PeerIdMismatch, SecurityError: the peer is not who it should be.
            TransportError: it did not work, and why.
        """
        target = host_port(addr)
        assert target is not None
        await trio.lowlevel.checkpoint()
        remote = _resolved(addr, target)
        endpoint = self._endpoint_for(addr, target[0])
        try:
            if endpoint is None:
                family = _family(addr)
                endpoint = self._open(addr, ("::" if family == socket.AF_INET6 else "0.0.0.0", 0))
            return await endpoint.dial(addr, remote, peer)
        finally:
            if endpoint is not None:
                endpoint.check_idle()

    async def punch(self, addr: Multiaddr, *, peer: PeerId) -> QuicConnection:
        """Send packets that mean nothing to ``addr``, so that the NATs on this side let in what comes from there.

        Does not return: the connection that the peer makes is accepted by the listener.

        Raises:
            TransportError: no listening socket can reach it.
        """
        target = host_port(addr)
        assert target is not None
        await trio.lowlevel.checkpoint()
        remote = _resolved(addr, target)
        endpoint = self._endpoint_for(addr, target[0])
        if endpoint is None or endpoint.acceptor is None:
            raise TransportError(addr, "hole punching needs a listening socket")
        while not endpoint.closed:
            endpoint.send_noise(remote)
            pause = int.from_bytes(self._outside.entropy(2), "big") / 0xFFFF
            await trio.sleep(PUNCH_PAUSES[0] + pause * (PUNCH_PAUSES[1] - PUNCH_PAUSES[0]))
        raise TransportError(addr, "the socket is gone")

    async def listen(self, addr: Multiaddr) -> QuicListener:
        """Listen on ``addr``."""
        target = host_port(addr)
        assert target is not None
        await trio.lowlevel.checkpoint()
        return QuicListener(self._open(addr, target))

    def _open(self, addr: Multiaddr, bind_to: tuple[str, int]) -> Endpoint:
        if self._nursery is None:
            raise RuntimeError("the transport is not running")
        try:
            sock = self._open_socket(_family(addr), bind_to)
        except OSError as exc:
            raise TransportError(addr, exc.strerror or str(exc)) from exc
        endpoint = Endpoint(
            sock,
            identity=self._identity,
            config=self._config,
            outside=self._outside,
            kernel=isinstance(sock, UdpSocket),
        )
        self._endpoints.append(endpoint)
        self._nursery.start_soon(self._run_endpoint, endpoint)
        return endpoint

    async def _run_endpoint(self, endpoint: Endpoint) -> None:
        try:
            await endpoint.run()
        finally:
            self._endpoints.remove(endpoint)

    def _endpoint_for(self, addr: Multiaddr, host: str) -> Endpoint | None:
        """An open socket that can reach ``host``; listening ones first, they are what others can call back."""
        suitable = [
            endpoint
            for endpoint in self._endpoints
            if not endpoint.closed
            and (":" in endpoint.address[0]) == (":" in host)
            and _reaches(endpoint.address[0], host)
        ]
        return min(suitable, key=lambda endpoint: endpoint.acceptor is None, default=None)


def _family(addr: Multiaddr) -> socket.AddressFamily:
    return socket.AF_INET6 if names(addr)[0] == "ip6" else socket.AF_INET


def _reaches(local: str, remote: str) -> bool:
    if local in ("0.0.0.0", "::"):
        return True
    return _is_loopback(local) == _is_loopback(remote)


def _is_loopback(host: str) -> bool:
    return host.startswith("127.") or host == "::1"


def _resolved(addr: Multiaddr, target: tuple[str, int]) -> Address:
    """The address as the socket reports it for what arrives from there."""
    return (target[0], target[1], 0, 0) if _family(addr) == socket.AF_INET6 else target
