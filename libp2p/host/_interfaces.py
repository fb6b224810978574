"""The IP addresses of this machine's interfaces, from the C library's ``getifaddrs``.

The standard library cannot list them. ``getifaddrs`` is the same on Linux, macOS and the BSDs but for the layout of a
socket address; where there is none (Windows, or a C library that hides it) the addresses are those that the machine
would use to reach the internet, found by connecting UDP sockets, which sends nothing.
"""

from __future__ import annotations

import ctypes
import math
import socket
import sys
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv6Address

import trio

LIFE = 5.0
"""Seconds an answer of the system is believed (go looks for new addresses as often)."""
_UP = 0x1
"""``IFF_UP`` of ``net/if.h``, on all systems."""
_MAX_ADDRESSES = 1024
"""More than any sane machine has; ends a broken list."""
_LENGTH_FIRST = ("darwin", "dragonfly", "freebsd", "ios", "netbsd", "openbsd")
_OUTSIDE = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
"""Documentation addresses: routed like the internet, and nobody is there."""


class _IfAddrs(ctypes.Structure):
    """``struct ifaddrs``, up to the last member used."""


_IfAddrs._fields_ = [
    ("next", ctypes.POINTER(_IfAddrs)),
    ("name", ctypes.c_char_p),
    ("flags", ctypes.c_uint),
    ("addr", ctypes.c_void_p),
]


class Interfaces:
    """What :func:`interface_addresses` said within the last :data:`LIFE` seconds: every connection wants to know.

    Args:
        ask: who is asked.
    """

    def __init__(self, ask: Callable[[], Sequence[str]] | None = None) -> None:
        self._ask = ask or interface_addresses
        self._found: tuple[str, ...] = ()
        self._until = -math.inf

    def addresses(self) -> tuple[str, ...]:
        """The addresses of all interfaces that are up. To be called inside ``trio.run``."""
        now = trio.current_time()
        if now >= self._until:
            self._found = tuple(self._ask())
            self._until = now + LIFE
        return self._found

    def forget(self) -> None:
        """Ask the system the next time, however soon that is."""
        self._until = -math.inf


def interface_addresses() -> list[str]:
    """Return the addresses of all interfaces that are up, loopback included, without IPv6 zones.

    It does not block. An empty list when the machine has no network at all.
    """
    try:
        library = ctypes.CDLL(None, use_errno=True)
        getifaddrs, freeifaddrs = library.getifaddrs, library.freeifaddrs
    except (OSError, TypeError, AttributeError):
        return _by_routing()
    first = ctypes.POINTER(_IfAddrs)()
    getifaddrs.argtypes = [ctypes.POINTER(ctypes.POINTER(_IfAddrs))]
    freeifaddrs.argtypes = [ctypes.POINTER(_IfAddrs)]
    freeifaddrs.restype = None
    if getifaddrs(ctypes.byref(first)) != 0:
        return _by_routing()
    try:
        return _walk(first)
    finally:
        freeifaddrs(first)


def _walk(item: ctypes._Pointer[_IfAddrs]) -> list[str]:
    found: dict[str, None] = {}
    for _ in range(_MAX_ADDRESSES):
        if not bool(item):  # a null pointer
            break
        entry = item.contents
        if entry.addr and entry.flags & _UP and (text := _text(entry.addr)) is not None:
            found[text] = None
        item = entry.next
    return list(found)


def _text(pointer: int) -> str | None:
    """Read a ``struct sockaddr``; None when it is of another family."""
    head = ctypes.string_at(pointer, 2)
    # The BSDs, macOS among them, have the length first and one byte for the family.
    family = head[1] if sys.platform.startswith(_LENGTH_FIRST) else int.from_bytes(head, sys.byteorder)
    if family == socket.AF_INET:
        return str(IPv4Address(ctypes.string_at(pointer + 4, 4)))
    if family == socket.AF_INET6:
        return str(IPv6Address(ctypes.string_at(pointer + 8, 16)))
    return None


def _by_routing() -> list[str]:
    found: dict[str, None] = {}
    for family, outside in _OUTSIDE:
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((outside, 9))
                host: str = probe.getsockname()[0]
                found[host.partition("%")[0]] = None
        except OSError:
            continue  # no route, or no such family
    return list(found)
