"""TCP.

The stream owns its non-blocking socket and offers Trio's stream methods as well as the direct ones, so that the layers
above can batch without a task switch.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable, Sequence
from operator import index

import trio
from multiaddr import Multiaddr

from .._util.conflict import ConflictGuard
from .._util.eager import send_directly
from ..abc import Buffer, DirectStream, Listener, RawConnection, Transport
from ..addressing import host_port, ip_addr, names
from ..errors import TransportError
from ..metrics import Kind, LabelValues, Metric, Value
from ..peer_id import PeerId

BACKLOG = 1024
"""Connections the kernel holds for us between two accepts."""
RECEIVE_SIZE = 65536
"""Bytes a plain ``receive_some`` asks for."""

_SHAPES = (("ip4", "tcp"), ("ip6", "tcp"))


class Traffic:
    """Bytes that sockets have carried.

    Attributes:
        sent: by all of them.
        received: likewise.
    """

    __slots__ = ("received", "sent")

    def __init__(self) -> None:
        self.sent: int = 0
        self.received: int = 0


class TcpStream(DirectStream):
    """A connected socket. Owns it.

    Args:
        sock: connected.
        traffic: where to count the bytes.
    """

    __slots__ = ("_receiving", "_sending", "_socket", "_traffic")

    def __init__(self, sock: socket.socket, traffic: Traffic | None = None) -> None:
        sock.setblocking(False)
        # Muxed frames are small and urgent; batching is done above, where it is known what belongs together.
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._socket = sock
        self._traffic = traffic or Traffic()
        self._sending = ConflictGuard("another task is sending on this stream")
        self._receiving = ConflictGuard("another task is receiving from this stream")

    @property
    def socket(self) -> socket.socket:
        """The socket, for options; reading and writing it breaks the stream."""
        return self._socket

    def receive_into_nowait(self, buffer: memoryview) -> int:
        try:
            size = self._socket.recv_into(buffer)
        except BlockingIOError:
            pass
        except OSError as exc:
            raise self._broken(exc) from exc
        else:
            self._traffic.received += size
            return size
        # Not above: whoever waits while he handles this one would keep the other one as well, for each connection.
        raise trio.WouldBlock

    def send_nowait(self, data: Buffer) -> int:
        try:
            size = self._socket.send(data)
        except BlockingIOError:
            raise trio.WouldBlock from None
        except OSError as exc:
            raise self._broken(exc) from exc
        self._traffic.sent += size
        return size

    async def wait_readable(self) -> None:
        if self._socket.fileno() < 0:
            raise trio.ClosedResourceError("this stream is closed")
        await trio.lowlevel.wait_readable(self._socket)

    async def wait_writable(self) -> None:
        if self._socket.fileno() < 0:
            raise trio.ClosedResourceError("this stream is closed")
        await trio.lowlevel.wait_writable(self._socket)

    def _broken(self, exc: OSError) -> Exception:
        if self._socket.fileno() < 0:
            return trio.ClosedResourceError("this stream is closed")
        return trio.BrokenResourceError(str(exc))

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """As in Trio."""
        if max_bytes is not None and index(max_bytes) < 1:
            raise ValueError("max_bytes must be at least 1")
        with self._receiving:
            await trio.lowlevel.checkpoint_if_cancelled()
            waited = False
            while True:
                try:
                    data = self._socket.recv(max_bytes or RECEIVE_SIZE)
                except BlockingIOError:
                    await self.wait_readable()
                    waited = True
                except OSError as exc:
                    raise self._broken(exc) from exc
                else:
                    self._traffic.received += len(data)
                    if not waited:
                        # Taken already: from here on a cancellation would lose it.
                        await trio.lowlevel.cancel_shielded_checkpoint()
                    return data

    async def send_all(self, data: Buffer) -> None:
        """As in Trio."""
        with self._sending:
            await trio.lowlevel.checkpoint()
            if self._socket.fileno() < 0:
                raise trio.ClosedResourceError("this stream is closed")
            await send_directly(self, data)

    async def wait_send_all_might_not_block(self) -> None:
        """As in Trio."""
        with self._sending:
            await trio.lowlevel.checkpoint()
            await self.wait_writable()

    async def aclose(self) -> None:
        """Close the socket. Does not wait."""
        if self._socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()
        await trio.lowlevel.checkpoint()


class TcpListener(Listener):
    """A listening socket. Owns it."""

    def __init__(self, sock: socket.socket, traffic: Traffic) -> None:
        self._socket = sock
        self._traffic = traffic
        self._addr = _socket_addr(sock.getsockname())

    @property
    def addresses(self) -> Sequence[Multiaddr]:
        return (self._addr,)

    async def accept(self) -> RawConnection:
        await trio.lowlevel.checkpoint_if_cancelled()
        waited = False
        while True:
            if self._socket.fileno() < 0:
                raise trio.ClosedResourceError("this listener is closed")
            try:
                sock, remote = self._socket.accept()
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._socket)
                waited = True
            except OSError as exc:
                if exc.errno not in _ACCEPT_AGAIN:
                    raise
                await trio.lowlevel.checkpoint()  # a network that is down may say so for ever
            else:
                if not waited:
                    await trio.lowlevel.cancel_shielded_checkpoint()
                try:
                    local = _socket_addr(sock.getsockname())
                    stream = TcpStream(sock, self._traffic)
                    return RawConnection(stream=stream, local_addr=local, remote_addr=_socket_addr(remote))
                except OSError:
                    sock.close()  # gone already: some systems say so here

    async def aclose(self) -> None:
        """Stop listening."""
        if self._socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()
        await trio.lowlevel.checkpoint()


# Errors of the connection that was to be accepted, not of the listener (accept(2), "Error handling").
_ACCEPT_AGAIN = frozenset(
    getattr(errno, name)
    for name in (
        *("ECONNABORTED", "EPERM", "EPROTO", "ENETDOWN", "ENOPROTOOPT", "EHOSTDOWN", "ENONET"),
        *("EHOSTUNREACH", "EOPNOTSUPP", "ENETUNREACH", "EINTR"),
    )
    if hasattr(errno, name)
)


class Tcp(Transport):
    """``/ip4/…/tcp/…`` and ``/ip6/…/tcp/…``.

    Args:
        reuse_port: dial from a listening port where one fits, as hole punching needs. Off by default: two hosts that
            dial each other at the same moment from their listening ports meet in one simultaneous open, which leaves
            both without a listener side and fails.
    """

    def __init__(self, *, reuse_port: bool = False) -> None:
        self._reuse_port = reuse_port
        self._listening: list[TcpListener] = []
        self._traffic = Traffic()

    def can_dial(self, addr: Multiaddr) -> bool:
        return names(addr) in _SHAPES

    def can_listen(self, addr: Multiaddr) -> bool:
        return self.can_dial(addr)

    async def dial(self, addr: Multiaddr, *, peer: PeerId | None) -> RawConnection:
        target = host_port(addr)
        assert target is not None
        family = _family(addr)
        try:
            sock = self._bound_socket(family, target)
            if sock is not None:
                try:
                    return await self._connect(sock, target, addr)
                except OSError as exc:
                    # The very same pair of ports may still linger from an earlier connection: use any port then.
                    if exc.errno not in (errno.EADDRNOTAVAIL, errno.EADDRINUSE):
                        raise
            return await self._connect(socket.socket(family, socket.SOCK_STREAM), target, addr)
        except OSError as exc:
            raise TransportError(addr, exc.strerror or str(exc)) from exc

    async def punch(self, addr: Multiaddr, *, peer: PeerId) -> RawConnection:
        """Connect to ``addr`` from a listening port while the peer there does the same: TCP's simultaneous open.

        Raises:
            TransportError: it did not work; ports are not reused, or none is listened on.
        """
        target = host_port(addr)
        assert target is not None
        await trio.lowlevel.checkpoint()
        try:
            sock = self._bound_socket(_family(addr), target)
            if sock is None:
                raise TransportError(addr, "hole punching needs a listening port to dial from: Tcp(reuse_port=True)")
            return await self._connect(sock, target, addr)
        except OSError as exc:
            raise TransportError(addr, exc.strerror or str(exc)) from exc

    async def _connect(self, sock: socket.socket, target: tuple[str, int], addr: Multiaddr) -> RawConnection:
        try:
            sock.setblocking(False)
            result = sock.connect_ex(target)
            if result == errno.EINPROGRESS or result == errno.EWOULDBLOCK:
                await trio.lowlevel.wait_writable(sock)
                result = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            else:
                await trio.lowlevel.checkpoint()
            if result:
                raise OSError(result, os.strerror(result))
            local = _socket_addr(sock.getsockname())
            return RawConnection(stream=TcpStream(sock, self._traffic), local_addr=local, remote_addr=addr)
        except BaseException:
            sock.close()
            raise

    def _bound_socket(self, family: socket.AddressFamily, target: tuple[str, int]) -> socket.socket | None:
        """A socket bound to a listening port that can reach ``target``, when that is wanted and possible."""
        if not self._reuse_port:
            return None
        self._listening = [listener for listener in self._listening if listener._socket.fileno() >= 0]
        for listener in self._listening:
            host, port = listener._socket.getsockname()[:2]
            if listener._socket.family != family or _is_loopback(host) != _is_loopback(target[0]):
                continue
            sock = socket.socket(family, socket.SOCK_STREAM)
            try:
                _allow_reuse(sock)
                sock.bind((host, port))
            except OSError:
                sock.close()
                continue
            return sock
        return None

    async def listen(self, addr: Multiaddr) -> TcpListener:
        target = host_port(addr)
        assert target is not None
        family = _family(addr)
        await trio.lowlevel.checkpoint()  # cancelled later, it would have to close the socket
        try:
            sock = socket.socket(family, socket.SOCK_STREAM)
            try:
                sock.setblocking(False)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                if family == socket.AF_INET6:
                    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                sock.bind(target)
                sock.listen(BACKLOG)
                if self._reuse_port:
                    # Only now: bound first, a port that is in use is still refused to us and to others.
                    _allow_reuse(sock)
            except OSError:
                sock.close()
                raise
        except OSError as exc:
            raise TransportError(addr, exc.strerror or str(exc)) from exc
        listener = TcpListener(sock, self._traffic)
        self._listening.append(listener)
        return listener

    def measure(self) -> Iterable[Metric]:
        """Bytes of all connections, with what security and muxers add (js ``libp2p_data_transfer_bytes_total``)."""
        values: dict[LabelValues, Value] = {
            ("global sent",): self._traffic.sent,
            ("global received",): self._traffic.received,
        }
        help_text = "Bytes sent and received"
        yield Metric("libp2p_data_transfer_bytes_total", help_text, Kind.COUNTER, values, ("protocol",))


def _allow_reuse(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "SO_REUSEPORT"):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


def _family(addr: Multiaddr) -> socket.AddressFamily:
    return socket.AF_INET6 if names(addr)[0] == "ip6" else socket.AF_INET


def _is_loopback(host: str) -> bool:
    return host.startswith("127.") or host == "::1"


def _socket_addr(name: tuple[str, int] | tuple[str, int, int, int]) -> Multiaddr:
    return ip_addr(name[0], name[1])
