"""What the stack asks of addresses: parse, print, take apart, classify.

:class:`multiaddr.Multiaddr` is the type everybody passes around; this module knows what is in one. All functions work
on the binary form and remember the last few thousand answers, because the same addresses come back with every message.

Functions that take an address raise :class:`~libp2p.errors.DecodeError` when it was made, past :func:`parse`, from
bytes that are no address.

Sources: libp2p/specs addressing; the address registries of IANA for :func:`scope`.
"""

from __future__ import annotations

import enum
import functools
import ipaddress
from typing import TypeAlias

from multiaddr import Multiaddr

from .errors import DecodeError
from .peer_id import PeerId
from .wire import maddr
from .wire.maddr import Part

__all__ = [
    "AddrLike",
    "Part",
    "Scope",
    "canonical_ws",
    "from_parts",
    "host_port",
    "ip_addr",
    "ip_group",
    "is_relay",
    "names",
    "parse",
    "parts",
    "scope",
    "split_peer",
    "to_text",
    "with_peer",
    "with_sni",
]

AddrLike: TypeAlias = "str | bytes | Multiaddr"
"""An address in any form that :func:`parse` takes."""

# Entries of a cache, each up to a few hundred bytes.
_CACHED = 2048

_IPS = ("ip4", "ip6")
_NAMES = ("dns", "dns4", "dns6", "dnsaddr")
_TRANSPORTS = {
    "tcp": ("tcp", ()),
    "ws": ("tcp", (Part("ws"),)),
    "udp": ("udp", ()),
    "quic-v1": ("udp", (Part("quic-v1"),)),
}


class _Address(Multiaddr):  # type: ignore[misc]  # the package has no types
    """A Multiaddr that prints through :func:`to_text`: the package's own printing is slow and fails for some names."""

    __slots__ = ()

    def __str__(self) -> str:
        return to_text(self)


class Scope(enum.Enum):
    """From where an address can be reached."""

    LOOPBACK = "loopback"
    """This machine."""
    LINK_LOCAL = "link-local"
    """This link: 169.254/16, fe80::/10."""
    PRIVATE = "private"
    """This site or provider: RFC 1918, 100.64/10, fc00::/7."""
    PUBLIC = "public"
    """The internet."""
    UNSPECIFIED = "unspecified"
    """All interfaces: something to listen on, nothing to dial."""
    RELAY = "relay"
    """Through a relay, whatever the relay's own address is."""
    NAME = "name"
    """A host name; only its resolved addresses tell."""
    OTHER = "other"
    """Nothing to dial over IP: multicast, reserved and documentation ranges, ``/memory``, ``/unix``, no host at all."""


# --- text, bytes, parts -----------------------------------------------------------------------------------------------


def parse(addr: AddrLike) -> Multiaddr:
    """Return ``addr`` as a checked Multiaddr.

    The result prints (``str``, ``repr``) without failing, and equal addresses have equal bytes: ``/ipfs`` becomes
    ``/p2p``, and a peer id in any form becomes its multihash.

    Args:
        addr: text, bytes from the wire, or a Multiaddr from anywhere.

    Raises:
        DecodeError: it is empty, or is not a multiaddr of known protocols, or is longer than 1 KiB.
        TypeError: it is none of these types.
    """
    if isinstance(addr, str):
        return _parse_text(addr)
    if not isinstance(addr, bytes | Multiaddr):
        raise TypeError(f"an address is text, bytes or a Multiaddr, not {addr!r}")
    data = addr if isinstance(addr, bytes) else addr.to_bytes()
    return _parse_bytes(data)


@functools.lru_cache(_CACHED)
def _parse_text(text: str) -> Multiaddr:
    return _parse_bytes(maddr.join(maddr.from_text(text)))


@functools.lru_cache(_CACHED)
def _parse_bytes(data: bytes) -> Multiaddr:
    found = _split(data)
    if not found:
        raise DecodeError("an empty address")
    return from_parts(found)


@functools.lru_cache(_CACHED)
def _split(data: bytes) -> tuple[Part, ...]:
    return maddr.split(data)


@functools.lru_cache(_CACHED)
def _to_text(data: bytes) -> str:
    return maddr.to_text(_split(data))


def to_text(addr: Multiaddr) -> str:
    """Return the text of ``addr``."""
    return _to_text(addr.to_bytes())


def parts(addr: Multiaddr) -> tuple[Part, ...]:
    """Return what ``addr`` is made of, outermost first: names, and values as bytes.

    ``[part.text for part in parts(addr)]`` are the values as text.
    """
    return _split(addr.to_bytes())


def from_parts(found: tuple[Part, ...]) -> Multiaddr:
    """Return the address made of the parts ``found``; the inverse of :func:`parts`.

    Raises:
        ValueError: a name is unknown, or a value has the wrong size for its name. Values are not checked further.
    """
    return _Address(maddr.join(found))


def names(addr: Multiaddr) -> tuple[str, ...]:
    """Return the protocol names of ``addr``, which say how to dial it: ``("ip4", "udp", "quic-v1")``."""
    return _names(addr.to_bytes())


@functools.lru_cache(_CACHED)
def _names(data: bytes) -> tuple[str, ...]:
    return tuple([part.name for part in _split(data)])


# --- peers ------------------------------------------------------------------------------------------------------------


def split_peer(addr: Multiaddr) -> tuple[Multiaddr, PeerId | None]:
    """Take the peer at the end off ``addr``.

    Returns:
        The address without its last part, and the peer that part names; or ``addr`` and None when its last part is no
        ``/p2p``. The address is empty when there was nothing before.
    """
    split = _split_peer(addr.to_bytes())
    return (addr, None) if split is None else split


@functools.lru_cache(_CACHED)
def _split_peer(data: bytes) -> tuple[Multiaddr, PeerId] | None:
    found = _split(data)
    if not found or found[-1].name != "p2p":
        return None
    return from_parts(found[:-1]), PeerId.from_bytes(found[-1].value)


def with_peer(addr: Multiaddr, peer: PeerId) -> Multiaddr:
    """Return ``addr`` with ``/p2p/<peer>`` at its end, which may be there already.

    Raises:
        ValueError: ``addr`` ends with another peer.
    """
    found = parts(addr)
    if not found or found[-1].name != "p2p":
        return from_parts((*found, Part("p2p", bytes(peer))))
    if found[-1].value != bytes(peer):
        raise ValueError(f"{to_text(addr)} is the address of another peer than {peer}")
    return addr


def is_relay(addr: Multiaddr) -> bool:
    """Whether ``addr`` goes through a relay."""
    return "p2p-circuit" in names(addr)


# --- hosts and ports --------------------------------------------------------------------------------------------------


@functools.lru_cache(_CACHED)
def _host_parts(host: str) -> tuple[Part, ...]:
    try:
        ip = ipaddress.ip_address(host)
        if isinstance(ip, ipaddress.IPv4Address):
            return (Part("ip4", ip.packed),)
        if ip.scope_id is None:
            return (Part("ip6", ip.packed),)
        # Split again, to check the zone: it may be any text.
        return maddr.split(maddr.join((Part("ip6zone", ip.scope_id.encode()), Part("ip6", ip.packed))))
    except ValueError as exc:
        raise DecodeError(f"not an IP address: {host[:80]!r}") from exc


def ip_addr(host: str, port: int, transport: str = "tcp") -> Multiaddr:
    """Return the address of a socket.

    Args:
        host: an IP address as the operating system gives it; an IPv6 zone (``fe80::1%eth0``) is kept.
        port: the port.
        transport: ``"tcp"``, ``"udp"``, ``"ws"`` (over TCP) or ``"quic-v1"`` (over UDP).

    Raises:
        DecodeError: ``host`` is not an IP address.
        ValueError: ``port`` is out of range, or ``transport`` is none of these.
    """
    if transport not in _TRANSPORTS:
        raise ValueError(f"unknown transport {transport!r}; known are {', '.join(_TRANSPORTS)}")
    if not 0 <= port <= 0xFFFF:
        raise ValueError(f"{port} is not a port")
    layer, rest = _TRANSPORTS[transport]
    return from_parts((*_host_parts(host), Part(layer, port.to_bytes(2, "big")), *rest))


def host_port(addr: Multiaddr) -> tuple[str, int] | None:
    """Return the host and the port to connect a socket to, for TCP and UDP alike.

    Returns:
        An IP address (with its zone, ``fe80::1%eth0``) or a host name, and the port; None when ``addr`` does not start
        with a host and a port. For a relayed address they are the relay's.
    """
    return _host_port(addr.to_bytes())


@functools.lru_cache(_CACHED)
def _host_port(data: bytes) -> tuple[str, int] | None:
    found = _split(data)
    zone = ""
    if found and found[0].name == "ip6zone":
        zone, found = "%" + found[0].text, found[1:]
    if len(found) < 2 or found[1].name not in ("tcp", "udp"):
        return None
    host, port = found[0], int.from_bytes(found[1].value, "big")
    if host.name == "ip6" or (host.name in ("ip4", "dns", "dns4", "dns6") and not zone):
        return host.text + zone, port
    return None


def canonical_ws(addr: Multiaddr) -> Multiaddr:
    """Return ``addr`` with ``/wss`` spelled ``/tls/ws``, which means the same (libp2p/specs websockets)."""
    found = parts(addr)
    if Part("wss") not in found:
        return addr
    spelled: list[Part] = []
    for part in found:
        spelled += (Part("tls"), Part("ws")) if part.name == "wss" else (part,)
    return from_parts(tuple(spelled))


def with_sni(found: tuple[Part, ...]) -> tuple[Part, ...]:
    """Return the parts of a secure WebSocket with the host name they begin with also as ``/tls/sni/NAME/ws``.

    Once ``/dns`` has become an IP address, nothing else tells for which name a server's certificate must be (see
    libp2p/specs websockets). All other addresses, and those that say a name already, come back as they are.
    """
    if len(found) < 3 or found[0].name not in ("dns", "dns4", "dns6") or found[1].name != "tcp":
        return found
    for spelling in ((Part("wss"),), (Part("tls"), Part("ws"))):
        if found[2 : 2 + len(spelling)] == spelling:
            sni = Part("sni", found[0].value)
            return (*found[:2], Part("tls"), sni, Part("ws"), *found[2 + len(spelling) :])
    return found


# --- where an address leads -------------------------------------------------------------------------------------------


def scope(addr: Multiaddr) -> Scope:
    """Return from where ``addr`` can be reached, judged by its host.

    IPv6 addresses that carry an IPv4 address (``::ffff:0:0/96``, ``64:ff9b::/96``) count as that address.
    """
    return _scope(addr.to_bytes())


@functools.lru_cache(_CACHED)
def _scope(data: bytes) -> Scope:
    found = _split(data)
    if Part("p2p-circuit") in found:
        return Scope.RELAY
    host = _host_part(found)
    if host is None:
        return Scope.OTHER
    if host.name in _NAMES:
        return Scope.NAME
    return _scope_of_ip(_unmapped(host.value))


def _host_part(found: tuple[Part, ...]) -> Part | None:
    for part in found[:2]:
        if part.name in _IPS or part.name in _NAMES:
            return part
        if part.name != "ip6zone":
            break
    return None


def _unmapped(packed: bytes) -> bytes:
    return packed[12:] if packed[:12] in _CARRIERS else packed


def _scope_of_ip(packed: bytes) -> Scope:
    size = 8 * len(packed)
    number = int.from_bytes(packed, "big")
    for network, length, found in _RANGES_4 if size == 32 else _RANGES_6:
        if number >> (size - length) == network:
            return found
    # All unicast of IPv6 that is given out so far is in 2000::/3.
    return Scope.PUBLIC if size == 32 or number >> 125 == 1 else Scope.OTHER


def _ranges(table: dict[str, Scope]) -> tuple[tuple[int, int, Scope], ...]:
    networks = [(ipaddress.ip_network(text), found) for text, found in table.items()]
    return tuple(
        (int(net.network_address) >> (net.max_prefixlen - net.prefixlen), net.prefixlen, found)
        for net, found in networks
    )


# IPv4 in IPv6: mapped (RFC 4291) and NAT64 (RFC 6052).
_CARRIERS = (ipaddress.IPv6Address("::ffff:0:0").packed[:12], ipaddress.IPv6Address("64:ff9b::").packed[:12])
# The first match counts. From the IANA registries of special-purpose addresses.
_RANGES_4 = _ranges(
    {
        "127.0.0.0/8": Scope.LOOPBACK,
        "10.0.0.0/8": Scope.PRIVATE,
        "192.168.0.0/16": Scope.PRIVATE,
        "172.16.0.0/12": Scope.PRIVATE,
        "100.64.0.0/10": Scope.PRIVATE,
        "169.254.0.0/16": Scope.LINK_LOCAL,
        "0.0.0.0/32": Scope.UNSPECIFIED,
        "0.0.0.0/8": Scope.OTHER,
        "192.0.0.0/24": Scope.OTHER,
        "192.0.2.0/24": Scope.OTHER,
        "192.88.99.0/24": Scope.OTHER,
        "198.18.0.0/15": Scope.OTHER,
        "198.51.100.0/24": Scope.OTHER,
        "203.0.113.0/24": Scope.OTHER,
        "224.0.0.0/3": Scope.OTHER,
    }
)
_RANGES_6 = _ranges(
    {
        "::1/128": Scope.LOOPBACK,
        "::/128": Scope.UNSPECIFIED,
        "fe80::/10": Scope.LINK_LOCAL,
        "fc00::/7": Scope.PRIVATE,
        "2001:db8::/32": Scope.OTHER,
        "3fff::/20": Scope.OTHER,
    }
)


def ip_group(addr: Multiaddr, *, ip4_bits: int = 16, ip6_bits: int = 56) -> bytes:
    """Return a key that addresses of one neighbourhood share, to count them as one witness.

    Args:
        addr: the address; of a relayed one, the relay's host counts.
        ip4_bits: how much of an IPv4 address, plain or carried in IPv6, is the neighbourhood.
        ip6_bits: the same for IPv6; providers give a customer a /56.

    Returns:
        The kind of host and its masked address; for a host name, the name in lower case; empty without a host.
    """
    host = _host_part(parts(addr))
    if host is None:
        return b""
    if host.name in _NAMES:
        return b"n" + host.value.lower()
    packed = _unmapped(host.value)
    size, bits, kind = (32, ip4_bits, b"4") if len(packed) == 4 else (128, ip6_bits, b"6")
    spare = size - bits
    return kind + (int.from_bytes(packed, "big") >> spare << spare).to_bytes(size // 8, "big")
