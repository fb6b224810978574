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
_EVERYTHING = frozenset(Scope) - {Scope.UNSPECIFIED}
KINDS = (_ANYWHERE, _ON_SITE, _EVERYTHING)
"""What :func:`useful_scopes` may be; each holds the ones before it."""
# Loopback, and what is not IP at all (memory, unix sockets): the peer is on this machine and sees what we see.
_HERE = frozenset((Scope.LOOPBACK, Scope.OTHER, Scope.UNSPECIFIED))


def useful_scopes(remote: Multiaddr) -> frozenset[Scope]:
    """Of what scopes addresses are of use between us and a peer that is seen at ``remote`` (as go filters them)."""
    seen = scope(remote)
    if seen in _HERE:
        return _EVERYTHING
    return _ANYWHERE if seen in _ANYWHERE else _ON_SITE


def believable(addrs: Iterable[Multiaddr], remote: Multiaddr) -> tuple[Multiaddr, ...]:
    """Those of the addresses a peer claims that may lead to it, when it is seen at ``remote``."""
    return of_scopes(addrs, useful_scopes(remote))


def of_scopes(addrs: Iterable[Multiaddr], scopes: frozenset[Scope]) -> tuple[Multiaddr, ...]:
    """The addresses of these scopes."""
    return tuple([addr for addr in addrs if scope(addr) in scopes])


def without_loopback(addrs: Iterable[Multiaddr]) -> tuple[Multiaddr, ...]:
    """The addresses that may be of use on another machine."""
    return of_scopes(addrs, frozenset(Scope) - {Scope.LOOPBACK})
