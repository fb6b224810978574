"""The UDP sockets of mDNS: one for each IP version, a member of the group on every interface."""

from __future__ import annotations

import errno
import logging
import re
import socket
import struct
from collections.abc import Iterable, Sequence

import trio

from ._codec import MAX_PACKET

_log = logging.getLogger("libp2p.mdns")

PORT = 5353
GROUP_4 = "224.0.0.251"
GROUP_6 = "ff02::fb"
_ANY_4, _ANY_6 = "0.0.0.0", "::"
_HOPS = 255
"""So that receivers can tell that a packet comes from this link (RFC 6762, 11)."""
_LINK_LOCAL_6 = ("fe80:", "::1")
_LOOPBACK = re.compile(r"lo\d*|loopback_\d+")
_NOT_BOUND = (errno.EADDRNOTAVAIL, errno.EINVAL)


class GroupSocket:
    """Multicast of one IP version.

    Args:
        version: 4 or 6.
        port: 5353, but for tests.

    Raises:
        OSError: there is no such IP version here, or somebody has the port for himself.
    """

    def __init__(self, version: int, *, port: int = PORT) -> None:
        self.version = version
        self._port = port
        self._members: set[int] = set()
        self._socket = trio.socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
        try:
            self._prepare()
        except BaseException:
            self._socket.close()
            raise

    def _prepare(self) -> None:
        sock = self._socket
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "SO_REUSEPORT"):  # the system's own responder has the port, too
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if self.version == 4:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, _HOPS)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
        else:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, _HOPS)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 1)

    async def bind(self) -> None:
        """Take the port. What is sent to an address of this machine instead of the group is not for us: it could come
        from outside of this link. Where the group cannot be bound to, it is received all the same."""
        try:
            if self.version == 6:
                raise OSError(errno.EINVAL, "the group of one link only")
            await self._socket.bind((GROUP_4, self._port))
        except OSError as exc:
            if exc.errno not in _NOT_BOUND:
                raise
            await self._socket.bind((_ANY_4 if self.version == 4 else _ANY_6, self._port))

    @property
    def members(self) -> frozenset[int]:
        """Indexes of the interfaces on which it receives."""
        return frozenset(self._members)

    def use(self, interfaces: Iterable[int]) -> bool:
        """Receive and send on ``interfaces``, given by index, as far as they can. True when there are new ones."""
        wanted = set(interfaces)
        for index in self._members - wanted:
            self._change(index, join=False)
        # One that went away and came back has lost its membership; to join again where it is harmless costs nothing.
        joined = {index for index in wanted if self._change(index, join=True)}
        fresh = joined - self._members
        self._members = joined
        return bool(fresh)

    def _change(self, index: int, *, join: bool) -> bool:
        try:
            if self.version == 4:
                request = socket.inet_aton(GROUP_4) + bytes(4) + struct.pack("@i", index)
                option = socket.IP_ADD_MEMBERSHIP if join else socket.IP_DROP_MEMBERSHIP
                self._socket.setsockopt(socket.IPPROTO_IP, option, request)
            else:
                request = socket.inet_pton(socket.AF_INET6, GROUP_6) + struct.pack("@I", index)
                option = socket.IPV6_JOIN_GROUP if join else socket.IPV6_LEAVE_GROUP
                self._socket.setsockopt(socket.IPPROTO_IPV6, option, request)
        except OSError as exc:
            return join and exc.errno == errno.EADDRINUSE  # it is a member already
        return True

    async def send(self, packets: Sequence[bytes]) -> None:
        """Send ``packets`` on all interfaces. One that does not take them misses them."""
        for index in sorted(self._members):
            try:
                if self.version == 4:
                    request = bytes(8) + struct.pack("@i", index)
                    self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, request)
                else:
                    self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
                for packet in packets:
                    await self._socket.sendto(packet, self._group(index))
            except OSError as exc:
                _log.debug("cannot send on interface %d: %s", index, exc)

    def _group(self, index: int) -> tuple[str, int] | tuple[str, int, int, int]:
        return (GROUP_4, self._port) if self.version == 4 else (GROUP_6, self._port, 0, index)

    async def receive(self) -> tuple[bytes, str]:
        """Wait for a packet of this link; returns it and the address it comes from.

        Raises:
            OSError: the socket is broken.
        """
        while True:
            data, source = await self._socket.recvfrom(MAX_PACKET)
            address = str(source[0])
            if self.version == 4 or address.startswith(_LINK_LOCAL_6):
                return data, address

    def close(self) -> None:
        """Give the port back. Idempotent."""
        self._socket.close()


def interfaces(wanted: Sequence[str] | None) -> list[int]:
    """Indexes of the machine's network interfaces with the names ``wanted``; None for all but loopback."""
    found = socket.if_nameindex()
    if wanted is None:
        return [index for index, each in found if not _LOOPBACK.fullmatch(each)]
    return [index for index, each in found if each in wanted]
