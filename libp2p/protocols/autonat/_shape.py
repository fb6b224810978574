"""What metrics say about addresses, and how the shape of one tells how it is dialled. Pure."""

from __future__ import annotations

from multiaddr import Multiaddr

from ...addressing import names

_VERSIONS = ("ip4", "ip6", "dns", "dns4", "dns6", "dnsaddr")
_TRANSPORTS = ("webrtc-direct", "webtransport", "quic-v1", "wss", "ws", "tcp")
"""What an address has in it to go by one of these; the first counts."""
_NOT_DIALLED = ("p2p", "certhash", "tls", "sni", "wss", "ws")


def ip_version(addr: Multiaddr) -> str:
    """``ip4``, ``ip6`` or a kind of name."""
    first = names(addr)[0]
    return first if first in _VERSIONS else "unknown"


def transport_name(addr: Multiaddr) -> str:
    """What carries a connection to ``addr``."""
    found = names(addr)
    return next((name for name in _TRANSPORTS if name in found), "unknown")


def same_listener(local: Multiaddr, addr: Multiaddr) -> bool:
    """Whether a connection that ended here at ``local`` may have been dialled at ``addr``: by the same protocols.

    A NAT changes the address and the port, and one that listens with WebSocket sees no more than TCP.
    """
    ours, dialled = [[name for name in names(found) if name not in _NOT_DIALLED] for found in (local, addr)]
    return ours == dialled
