"""A UDP socket that gives and takes datagrams in batches, where the kernel can (Linux: GSO and GRO)."""

from __future__ import annotations

import errno
import socket
import struct
import sys
from collections.abc import Sequence
from typing import Protocol

import trio

from ._engine import Address

BUFFER = 4 * 1024 * 1024
"""Bytes asked for in the kernel, each way; it may give less. Bursts that do not fit are lost and sent again."""
MAX_SEGMENTS = 44
"""Datagrams in one call. Linux takes 64, and at most 65,507 bytes with all of them."""
MAX_BATCH = 65_000
"""Bytes in one call."""
RECEIVE_SIZE = 65_536

_LINUX = sys.platform == "linux"
# From linux/udp.h and linux/in.h; the socket module names them on some versions only.
_SOL_UDP, _UDP_SEGMENT, _UDP_GRO = 17, 103, 104
_IP_MTU_DISCOVER, _IPV6_MTU_DISCOVER, _PMTUDISC_PROBE = 10, 23, 3
_IP_RECVERR, _IPV6_RECVERR = 11, 25
_U16 = struct.Struct("H")
_INT = struct.Struct("i")

# The datagram is lost, the socket is well: too long for the path, or not deliverable now. By ECONNRESET and ENETRESET
# Windows says what became of one that was sent earlier.
_UNDELIVERABLE = frozenset(
    getattr(errno, name)
    for name in (
        *("EMSGSIZE", "ENETUNREACH", "EHOSTUNREACH", "ENETDOWN", "EHOSTDOWN", "ECONNREFUSED", "EPERM", "EACCES"),
        *("EADDRNOTAVAIL", "EINVAL", "ENOBUFS", "ENOMEM", "EAFNOSUPPORT", "ECONNRESET", "ENETRESET"),
    )
    if hasattr(errno, name)
)


class DatagramSocket(Protocol):
    """What an endpoint sends and receives with."""

    @property
    def address(self) -> Address:
        """What it is bound to."""
        ...

    def address_towards(self, remote: Address) -> Address:
        """The address that ``remote`` sees, as far as this machine knows; unspecified only where it cannot tell."""
        ...

    def receive(self) -> tuple[bytes, int, Address]:
        """One or more datagrams of one sender, joined; the size of each but the last; and the sender.

        Raises:
            trio.WouldBlock: none is there.
            trio.ClosedResourceError: it was closed here.
            OSError: the socket is broken.
        """
        ...

    def receive_error(self) -> Address | None:
        """An address that somebody on the way has reported as unreachable; None when there is no report.

        To be called when the socket was readable and :meth:`receive` would block.
        """
        ...

    def send(self, datagrams: Sequence[tuple[bytes, Address]]) -> tuple[int, OSError | None]:
        """Send datagrams, in order. Returns how many are done with, and an error that one of them met."""
        ...

    async def wait_readable(self) -> None:
        """Wait until :meth:`receive` or :meth:`receive_error` may succeed.

        Raises:
            trio.ClosedResourceError: it was closed here.
        """
        ...

    async def wait_writable(self) -> None:
        """Wait until :meth:`send` may take another."""
        ...

    def close(self) -> None:
        """Give the port back. Idempotent."""
        ...


class UdpSocket:
    """A bound UDP socket of the operating system, which it owns."""

    def __init__(self, family: socket.AddressFamily, bind_to: tuple[str, int]) -> None:
        self._socket = sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind(bind_to)
            self._gro = _try_linux_option(sock, _SOL_UDP, _UDP_GRO, 1)
            self._gso = _try_linux_option(sock, _SOL_UDP, _UDP_SEGMENT, 0)
            # Datagrams must not be cut in pieces on the way: the engine finds out how long they may be.
            if family == socket.AF_INET6:
                _try_linux_option(sock, socket.IPPROTO_IPV6, _IPV6_MTU_DISCOVER, _PMTUDISC_PROBE)
                self._reports = _try_linux_option(sock, socket.IPPROTO_IPV6, _IPV6_RECVERR, 1)
            else:
                _try_linux_option(sock, socket.IPPROTO_IP, _IP_MTU_DISCOVER, _PMTUDISC_PROBE)
                self._reports = _try_linux_option(sock, socket.IPPROTO_IP, _IP_RECVERR, 1)
            for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                _try_option(sock, socket.SOL_SOCKET, option, BUFFER)
        except BaseException:
            sock.close()
            raise

    @property
    def address(self) -> Address:
        name: Address = self._socket.getsockname()
        return name

    def address_towards(self, remote: Address) -> Address:
        host, port = self.address[:2]
        if host in ("0.0.0.0", "::"):
            try:
                with socket.socket(self._socket.family, socket.SOCK_DGRAM) as probe:
                    probe.connect(remote)  # sends nothing, but chooses a route
                    host = probe.getsockname()[0]
            except OSError:
                pass  # no route: the first datagram will say so; or no descriptor, which must not end this socket
        return host, port

    def receive(self) -> tuple[bytes, int, Address]:
        while True:
            try:
                if not self._gro:
                    data, sender = self._socket.recvfrom(RECEIVE_SIZE)
                    return data, len(data), sender
                data, ancillary, _, sender = self._socket.recvmsg(RECEIVE_SIZE, 64)
                break
            except BlockingIOError:
                raise trio.WouldBlock from None
            except OSError as exc:
                if self._socket.fileno() < 0:
                    raise trio.ClosedResourceError("this socket is closed") from None
                if exc.errno not in _UNDELIVERABLE:
                    raise
                # A report about something sent earlier, which receive_error explains: there may be datagrams behind it.
        for level, kind, value in ancillary:
            if level == _SOL_UDP and kind == _UDP_GRO:
                return data, _INT.unpack_from(value)[0], sender
        return data, len(data), sender

    def receive_error(self) -> Address | None:
        if not self._reports:
            return None
        try:
            target: Address = self._socket.recvmsg(0, 512, socket.MSG_ERRQUEUE)[3]
        except OSError:
            return None
        return target

    def send(self, datagrams: Sequence[tuple[bytes, Address]]) -> tuple[int, OSError | None]:
        done, problem, failed_at = 0, None, -1
        while done < len(datagrams):
            count = self._run_length(datagrams, done) if self._gso else 1
            try:
                if count > 1:
                    segment = [(_SOL_UDP, _UDP_SEGMENT, _U16.pack(len(datagrams[done][0])))]
                    batch = [datagram for datagram, _ in datagrams[done : done + count]]
                    self._socket.sendmsg(batch, segment, 0, datagrams[done][1])
                else:
                    self._socket.sendto(*datagrams[done])
            except BlockingIOError:
                break
            except OSError as exc:
                if count > 1 and exc.errno in (errno.EIO, errno.EINVAL):
                    self._gso = False  # this interface cannot; the same datagrams go one by one
                    continue
                if exc.errno not in _UNDELIVERABLE:
                    raise
                if failed_at != done:
                    failed_at = done  # it may be about something sent earlier: only a second one is about this
                    continue
                problem = exc
            done += count
        return done, problem

    @staticmethod
    def _run_length(datagrams: Sequence[tuple[bytes, Address]], start: int) -> int:
        """How many from ``start`` on can go in one call: to one address, of one size, of which the last may be less."""
        first, address = datagrams[start]
        size, count = len(first), 1
        for datagram, other in datagrams[start + 1 : start + min(MAX_SEGMENTS, MAX_BATCH // size)]:
            length = len(datagram)
            if length > size or other != address:
                break
            count += 1
            if length < size:
                break
        return count

    async def wait_readable(self) -> None:
        await self._check_open()
        await trio.lowlevel.wait_readable(self._socket)

    async def wait_writable(self) -> None:
        await self._check_open()
        await trio.lowlevel.wait_writable(self._socket)

    async def _check_open(self) -> None:
        if self._socket.fileno() < 0:
            await trio.lowlevel.checkpoint()
            raise trio.ClosedResourceError("this socket is closed")

    def close(self) -> None:
        if self._socket.fileno() >= 0:
            trio.lowlevel.notify_closing(self._socket)
            self._socket.close()


def _try_linux_option(sock: socket.socket, level: int, option: int, value: int) -> bool:
    """Elsewhere the same numbers mean something else."""
    return _LINUX and _try_option(sock, level, option, value)


def _try_option(sock: socket.socket, level: int, option: int, value: int) -> bool:
    try:
        sock.setsockopt(level, option, value)
    except OSError:
        return False
    return True
