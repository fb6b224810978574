"""Whom not to graft again yet, and in which topic. Pure."""

from __future__ import annotations

from ..._util.bounded import ExpiringMap
from ...peer_id import PeerId


class Backoff:
    """Until when a peer must not be grafted in a topic.

    Args:
        capacity: pairs of peer and topic that are remembered; the one that ends first is forgotten for a new one.
    """

    __slots__ = ("_until",)

    def __init__(self, *, capacity: int) -> None:
        self._until: ExpiringMap[tuple[PeerId, str], float] = ExpiringMap(capacity)

    def __len__(self) -> int:
        return len(self._until)

    def add(self, peer: PeerId, topic: str, *, until: float) -> None:
        """Stay away at least until then. What was agreed before is not shortened."""
        held = self._until.expires((peer, topic))
        if held is None or until > held:
            self._until.put((peer, topic), until, expires=until)

    def until(self, peer: PeerId, topic: str, now: float) -> float | None:
        """When it ends; None when there is none."""
        return self._until.get((peer, topic), now)

    def is_active(self, peer: PeerId, topic: str, now: float, *, slack: float = 0.0) -> bool:
        """Whether it is too early, or ended less than ``slack`` seconds ago: the peer's clock may be behind."""
        until = self._until.expires((peer, topic))
        return until is not None and until + slack > now

    def expire(self, before: float) -> None:
        """Forget what ended by then."""
        self._until.expire(before)
