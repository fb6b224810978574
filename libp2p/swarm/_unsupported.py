"""Why no transport of a host takes an address, in words that say what to do. Pure."""

from __future__ import annotations

from multiaddr import Multiaddr

from ..addressing import names

# The first that is in the address counts.
_NEEDS = {
    "p2p-circuit": "relay addresses need a RelayClient among the services",
    "webtransport": "WebTransport is not spoken here",
    "webrtc-direct": "WebRTC is not spoken here",
    "webrtc": "WebRTC is not spoken here",
    "quic": "QUIC is spoken in version 1 only, as /quic-v1",
    "quic-v1": "the transport Quic is not among this host's, as in a private network",
    "wss": "the transport WebSocket is not among this host's",
    "ws": "the transport WebSocket is not among this host's",
}
_LACKS = {
    "udp": "it ends in a port of UDP: say what is spoken there, as /quic-v1",
    **dict.fromkeys(("ip4", "ip6", "dns", "dns4", "dns6"), "it lacks a port, as /tcp/4001"),
}


def not_dialled(addr: Multiaddr) -> str:
    """Why nobody dials ``addr``, which has no ``/p2p`` at its end."""
    return _why(names(addr)) or "no transport of this host can dial it"


def not_listened_on(addr: Multiaddr) -> str:
    """Why nobody listens on ``addr``."""
    found = names(addr)
    if found[-1] == "p2p":
        return "leave out the /p2p at its end: a host's peer id comes from its key"
    if found[0].startswith("dns"):
        return "listen on an IP address, not on a name"
    return _why(found) or "no transport of this host can listen on it"


def _why(found: tuple[str, ...]) -> str | None:
    needed = next((hint for name, hint in _NEEDS.items() if name in found), None)
    return needed or _LACKS.get(found[-1])
