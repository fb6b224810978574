"""Whom to ask about which address, and when. Pure.

An address of which too little is known is tried at once by one server after the other, each of another neighbourhood.
One that works is tried again every quarter of an hour by one of those who got through, because only they can take that
back. One that does not is tried more often, by everybody in turn: those who lie about it may have come first. No server
is asked more often than it likes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from multiaddr import Multiaddr

from ..._util.bounded import LruMap
from ...events import Reachability
from ...peer_id import PeerId


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleConfig:
    """How often to ask. All are seconds."""

    refresh: float = 900.0
    """Between two tries of an address that works (go ``refreshInterval``)."""
    retry: float = 90.0
    """Between two tries of any other, as far as the same neighbourhood is asked (go ``retryInterval``)."""
    server_pause: float = 10.0
    """Between two requests to one server, whatever they are about (ours): it takes twelve a minute."""
    refused_pause: float = 300.0
    """Before a server is asked again that refused, or failed (ours)."""
    remembered: int = 1024
    """Requests, and servers that are not to be asked, that are remembered (ours)."""

    def __post_init__(self) -> None:
        if min(self.refresh, self.retry, self.refused_pause) <= 0 or self.server_pause < 0 or self.remembered < 1:
            raise ValueError("intervals must be positive")


@dataclass(frozen=True, slots=True)
class Server:
    """Somebody to ask.

    Attributes:
        peer: who.
        group: its neighbourhood.
    """

    peer: PeerId
    group: bytes


@dataclass(frozen=True, slots=True)
class Ask:
    """What to do now."""

    server: Server
    addr: Multiaddr | None


class Schedule:
    """When who was asked for what.

    Args:
        config: how often to ask.
    """

    def __init__(self, config: ScheduleConfig | None = None) -> None:
        self._config = config or ScheduleConfig()
        self._tried: LruMap[Multiaddr | None, float] = LruMap(self._config.remembered)
        self._asked: LruMap[tuple[Multiaddr | None, bytes], float] = LruMap(self._config.remembered)
        self._worked: LruMap[tuple[Multiaddr | None, bytes], None] = LruMap(self._config.remembered)
        self._not_before: LruMap[PeerId, float] = LruMap(self._config.remembered)

    def next(
        self, addrs: Mapping[Multiaddr | None, Reachability], servers: Sequence[Server], now: float
    ) -> tuple[Ask | None, float]:
        """What to do now, and otherwise when to look again (infinity: when something changes).

        Args:
            addrs: what there is to try, and what is known of it.
            servers: whom to ask, best first.
            now: monotonic seconds.
        """
        again = math.inf
        for addr, known in addrs.items():
            pause = self._config.refresh if known is Reachability.PUBLIC else self._config.retry
            due = -math.inf if known is Reachability.UNKNOWN else _or_never(self._tried.get(addr)) + pause
            for server in sorted(servers, key=lambda server: self._turn(addr, server, known)):
                at = max(due, self._last(addr, server) + pause, _or_never(self._not_before.get(server.peer)))
                if at <= now:
                    return Ask(server, addr), now
                again = min(again, at)
        return None, again

    def refused(self, ask: Ask, now: float) -> None:
        """Remember that the server did not do what it was asked for."""
        self._not_before[ask.server.peer] = now + self._config.refused_pause

    def answered(self, ask: Ask, now: float, *, worked: bool) -> None:
        """Remember that it did, and whether it got through."""
        self._not_before[ask.server.peer] = now + self._config.server_pause
        self._tried[ask.addr] = now
        self._asked[ask.addr, ask.server.group] = now
        if worked:
            self._worked[ask.addr, ask.server.group] = None
        else:
            self._worked.pop((ask.addr, ask.server.group))

    def _turn(self, addr: Multiaddr | None, server: Server, known: Reachability) -> tuple[bool, float]:
        worked = known is Reachability.PUBLIC and (addr, server.group) in self._worked
        return (not worked, self._last(addr, server))

    def _last(self, addr: Multiaddr | None, server: Server) -> float:
        return _or_never(self._asked.get((addr, server.group)))


def _or_never(when: float | None) -> float:
    return -math.inf if when is None else when
