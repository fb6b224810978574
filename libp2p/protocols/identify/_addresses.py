"""Which addresses make sense between two peers. Pure.

An address is only good within its scope: the loopback address of a peer elsewhere is *this* machine, and its private
address is some machine of our own network.
"""

from __future__ import annotations

from collections.abc import Iterable

from multiaddr import Multiaddr

from ...addressing import Scope, scope

_ANYWHERE = frozenset((Scope.PUBLIC, Scope.NAME, Scope.RELAY))
_ON_SITE = _ANYWHERE | {Scope.PRIVATE, Scope.LINK_LOCAL}
# Loopback, and what is not IP at all (memory, unix sockets): the peer is on this machine and sees what we see.
_HERE = frozenset((Scope.LOOPBACK, Scope.OTHER, Scope.UNSPECIFIED))


def believable(addrs: Iterable[Multiaddr], remote: Multiaddr) -> tuple[Multiaddr, ...]:
    """Those of the addresses a peer claims that may lead to it, when it is seen at ``remote`` (as go filters them)."""
    seen = scope(remote)
    if seen in _HERE:
        return tuple([addr for addr in addrs if scope(addr) is not Scope.UNSPECIFIED])
    wanted = _ANYWHERE if seen in _ANYWHERE else _ON_SITE
    return tuple([addr for addr in addrs if scope(addr) in wanted])


def is_here(remote: Multiaddr) -> bool:
    """Whether a peer seen at ``remote`` is on this machine."""
    return scope(remote) in _HERE


def without_loopback(addrs: Iterable[Multiaddr]) -> tuple[Multiaddr, ...]:
    """The addresses that may be of use on another machine."""
    return tuple([addr for addr in addrs if scope(addr) is not Scope.LOOPBACK])
