"""When to ask for which mapping. Pure.

Theory of operation. A mapping is asked for when its port is wanted, renewed at half of its life, and asked for again
when the router has forgotten it; the external port that was granted is the wish from then on. A refusal puts the next
try off, longer after each one, but a mapping that is still alive counts until its end. Who drives it asks the router
what :meth:`Mappings.due` names and reports back.

Source of half of the life: RFC 6886, 3.3; RFC 6887, 11.2.1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from ._types import Lease, Port


@dataclass(frozen=True, slots=True, kw_only=True)
class PortMapConfig:
    """How ports are mapped. Times are in seconds."""

    lifetime: int = 3600
    """To ask for (go: 60 for UPnP; RFC 6886 recommends 7200)."""
    ports: int = 16
    """Ports to map at most; the others are not."""
    min_renewal: float = 15.0
    """Between two requests for the same mapping, however short a life the router gives it."""
    first_retry: float = 10.0
    """After a refusal; doubled with each one that follows."""
    max_retry: float = 300.0
    """The longest."""
    check: float = 60.0
    """Between two looks whether the router is still the same, and still knows what it granted."""
    search_timeout: float = 4.0
    """For a router to answer at all."""
    head_start: float = 1.0
    """For better protocols, and other routers, when one has answered."""
    request_timeout: float = 4.0
    """For an answer of one that has answered."""
    farewell: float = 1.0
    """For giving everything back when the host closes."""

    def __post_init__(self) -> None:
        times = (self.min_renewal, self.first_retry, self.check, self.search_timeout, self.request_timeout)
        waits = (self.head_start, self.farewell)
        if min(self.lifetime, self.ports, *times) <= 0 or min(waits) < 0 or self.max_retry < self.first_retry:
            raise ValueError("times and bounds must be positive")


@dataclass(slots=True)
class _Entry:
    due: float
    lease: Lease | None = None
    ends: float = -math.inf
    wish: int = 0
    failures: int = 0


class Mappings:
    """The mappings of one host.

    Args:
        config: how.
    """

    def __init__(self, config: PortMapConfig) -> None:
        self._config = config
        self._entries: dict[Port, _Entry] = {}

    def want(self, ports: Iterable[Port], now: float) -> list[Lease]:
        """Replace what is wanted. The first :attr:`PortMapConfig.ports` of ``ports`` are taken.

        Returns:
            What is to be given back.
        """
        wanted = dict.fromkeys(ports)
        gone = [port for port in self._entries if port not in wanted]
        leases = [entry.lease for port in gone if (entry := self._entries.pop(port)).lease is not None]
        for port in wanted:
            if port not in self._entries and len(self._entries) < self._config.ports:
                self._entries[port] = _Entry(due=now, wish=port.number)
        return leases

    def due(self, now: float) -> list[tuple[Port, int]]:
        """What to ask for now: ports, and the external ports that are wished for."""
        return [(port, entry.wish) for port, entry in self._entries.items() if entry.due <= now]

    def granted(self, lease: Lease, now: float) -> None:
        """The router has granted what was due."""
        entry = self._entries[lease.port]
        entry.lease, entry.wish, entry.failures = lease, lease.external_port, 0
        entry.ends = now + lease.lifetime
        entry.due = now + max(lease.lifetime / 2, self._config.min_renewal)

    def refused(self, port: Port, now: float) -> None:
        """The router has not granted what was due."""
        entry = self._entries[port]
        delay = self._config.first_retry * 2 ** min(entry.failures, 32)
        entry.due = now + min(delay, self._config.max_retry)
        entry.failures += 1

    def forget(self, now: float) -> None:
        """The router has lost everything: ask again for all of it."""
        for port, entry in self._entries.items():
            self._entries[port] = _Entry(due=now, wish=entry.wish)

    def leases(self, now: float) -> list[Lease]:
        """What the router has granted and has not ended."""
        return [entry.lease for entry in self._entries.values() if entry.lease is not None and entry.ends > now]

    def next_timeout(self, now: float) -> float:
        """When something is due, or ends; infinity when nothing is wanted."""
        times = [entry.due for entry in self._entries.values()]
        times += [entry.ends for entry in self._entries.values() if entry.ends > now]
        return min(times, default=math.inf)
