"""On which machines of private networks peers were connected: only there their addresses lead to them. Pure.

It is a fact about the peer in the peerstore, so that it lives and ends with what else is known, restarts included.
"""

from __future__ import annotations

from multiaddr import Multiaddr

from ..abc import Peerstore
from ..addressing import Scope, host_port, ip_group, scope
from ..errors import LimitExceeded
from ..peer_id import PeerId

FACT = "seen_at"
"""The key of the fact."""
HOSTS = 8
"""Machines remembered of each peer, the last ones (ours)."""
_PRIVATE = (Scope.PRIVATE, Scope.LOOPBACK, Scope.OTHER)


def note_host(store: Peerstore, peer: PeerId, addr: Multiaddr) -> None:
    """Note that ``peer`` was connected from, or at, ``addr``. Public and relayed addresses need no such witness."""
    host = _host(addr)
    if host is None:
        return
    seen = store.metadata(peer).get(FACT, "").split()
    if host in seen:
        return
    try:
        store.set_metadata(peer, FACT, " ".join([*seen, host][-HOSTS:]))
    except LimitExceeded:
        pass  # the application has filled the room with facts of its own; then nothing is remembered


def was_seen(store: Peerstore, peer: PeerId, addr: Multiaddr) -> bool:
    """Whether ``peer`` was connected with the machine of ``addr``."""
    host = _host(addr)
    return host is not None and host in store.metadata(peer).get(FACT, "").split()


def _host(addr: Multiaddr) -> str | None:
    if scope(addr) not in _PRIVATE or host_port(addr) is None:
        return None
    return ip_group(addr, ip4_bits=32, ip6_bits=128).hex()
