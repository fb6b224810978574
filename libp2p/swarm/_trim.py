"""The connection manager: which connections to close when there are more than anybody needs. Pure.

Theory of operation. Between ``low`` and ``high`` nothing happens; above ``high`` connections are chosen until ``low``
would be left. This is for churn, not for attacks: those meet the limits (``_limits``) first.

Never chosen: a connection in its grace period, and any connection of a protected peer. Among the others the order is:
lowest sum of tags, then fewest streams (a relayed connection with limits counts as having none), then youngest, because
an old connection has proved that it lasts. Tagged peers give way only to each other, when they alone are above
``high``: others, of whom an attacker can send any number, must not push out peers that somebody here has called useful
(case X9).
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

from .._util.bounded import LruMap
from ..errors import LimitExceeded


@dataclass(frozen=True, slots=True, kw_only=True)
class TrimConfig:
    """When connections are closed. Source: go-libp2p's connection manager."""

    low: int = 160
    """How many connections are left after trimming."""
    high: int = 192
    """Above this many connections are trimmed."""
    grace: float = 60.0
    """Seconds in which a new connection is not chosen."""
    silence: float = 10.0
    """Seconds between two trimmings; the owner's timer."""

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high:
            raise ValueError("the low watermark must not be above the high one")
        if self.grace < 0 or self.silence <= 0:
            raise ValueError("the grace must not be negative, and the timer needs a time")


@dataclass(frozen=True, slots=True, kw_only=True)
class TagLimits:
    """Bounds of :class:`Tags` (ours)."""

    peers: int = 4096
    """Peers with tags; beyond that the one tagged longest ago loses them."""
    tags_per_peer: int = 64
    protected_peers: int = 1024


class Tags:
    """What protocols think of peers: values to weigh them by, and protection.

    Args:
        limits: the bounds.
    """

    def __init__(self, limits: TagLimits | None = None) -> None:
        self._limits = limits or TagLimits()
        self._values: LruMap[Hashable, dict[str, int]] = LruMap(self._limits.peers)
        self._protected: dict[Hashable, dict[str, None]] = {}

    def tag(self, peer: Hashable, name: str, value: int) -> None:
        """Give ``peer`` a value under ``name``, replacing the last; higher is more worth keeping.

        Raises:
            LimitExceeded: the peer has too many tags.
        """
        tags = self._values.get(peer)
        if tags is None:
            tags = {}
        if name not in tags and len(tags) >= self._limits.tags_per_peer:
            raise LimitExceeded("tags_per_peer", self._limits.tags_per_peer)
        tags[name] = value
        self._values[peer] = tags

    def untag(self, peer: Hashable, name: str) -> None:
        """Take the value under ``name`` away; nothing happens when there is none."""
        tags = self._values.get(peer)
        if tags is not None:
            tags.pop(name, None)
            if not tags:
                self._values.pop(peer)

    def value(self, peer: Hashable) -> int:
        """The sum of all values of ``peer``."""
        tags = self._values.get(peer)
        return 0 if tags is None else sum(tags.values())

    def protect(self, peer: Hashable, tag: str) -> None:
        """Never trim ``peer`` while it is protected under any tag.

        Raises:
            LimitExceeded: too many peers are protected, or the peer has too many tags.
        """
        tags = self._protected.get(peer)
        if tags is None:
            if len(self._protected) >= self._limits.protected_peers:
                raise LimitExceeded("protected_peers", self._limits.protected_peers)
            tags = self._protected[peer] = {}
        elif tag not in tags and len(tags) >= self._limits.tags_per_peer:
            raise LimitExceeded("tags_per_peer", self._limits.tags_per_peer)
        tags[tag] = None

    def unprotect(self, peer: Hashable, tag: str) -> bool:
        """End the protection under ``tag``. Returns whether ``peer`` is still protected under another."""
        tags = self._protected.get(peer)
        if tags is None:
            return False
        tags.pop(tag, None)
        if not tags:
            del self._protected[peer]
        return bool(tags)

    def protected(self, peer: Hashable) -> bool:
        """Whether ``peer`` is protected under any tag."""
        return peer in self._protected

    def forget(self, peer: Hashable) -> None:
        """Take all values of ``peer`` away; protection stays."""
        self._values.pop(peer)


@dataclass(slots=True, kw_only=True)
class ConnInfo:
    """What there is to know about a connection when choosing.

    Attributes:
        key: the connection itself, for whoever closes it.
        peer: who is at the other end.
        opened_at: when it came up.
        streams: how many streams it carries.
        inbound: whether the other side dialled.
        limited: whether a relay bounds it.
        tags: where the peer's values are; None when nobody tags.
    """

    key: Any
    peer: Hashable
    opened_at: float
    streams: int = 0
    inbound: bool = False
    limited: bool = False
    tags: Tags | None = None

    @property
    def value(self) -> int:
        """The sum of the peer's tags."""
        return 0 if self.tags is None else self.tags.value(self.peer)

    @property
    def protected(self) -> bool:
        """Whether the peer is protected."""
        return self.tags is not None and self.tags.protected(self.peer)


def choose_victims(conns: Sequence[ConnInfo], now: float, config: TrimConfig) -> list[ConnInfo]:
    """Return which of ``conns`` to close, the least worth keeping first.

    May be fewer than needed to come down to ``low``, down to none, when the rest is protected or new.

    Args:
        conns: all connections; among equals the earlier one goes first.
        now: monotonic seconds.
        config: the watermarks.
    """
    if len(conns) <= config.high:
        return []
    excess = len(conns) - config.low
    settled = [conn for conn in conns if now - conn.opened_at >= config.grace]
    weighed = [(conn.value, conn) for conn in settled if not conn.protected]
    weighed.sort(key=lambda item: (item[0], 0 if item[1].limited else item[1].streams, -item[1].opened_at))
    victims = [conn for value, conn in weighed if value <= 0][:excess]
    rest = len(settled) - len(victims)
    if rest > config.high:
        # There are too many of the tagged alone, newcomers and valueless ones not counted.
        victims += [conn for value, conn in weighed if value > 0][: min(excess - len(victims), rest - config.low)]
    return victims
