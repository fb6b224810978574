"""How much work servers of AutoNAT do, for whom, and at whom it may be aimed. Pure."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from types import TracebackType

from ..._util.rate import RateLimit
from ...peer_id import PeerId

_SOURCES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class AutoNatLimits:
    """What a server does for others. Numbers of requests are for a minute."""

    requests: int = 60
    """Of version 2, in all (go ``serverRPM``)."""
    requests_per_peer: int = 12
    """Of version 2 (go ``serverPerPeerRPM``)."""
    requests_with_data: int = 12
    """Of version 2, to dial another address than the asker's (go ``serverDialDataRPM``)."""
    requests_1: int = 30
    """Of version 1, in all (go ``throttleGlobalMax``)."""
    requests_1_per_peer: int = 3
    """Of version 1 (go ``throttlePeerMax``)."""
    at_once: int = 16
    """Requests worked on at a time (ours): each has a dialer of its own. Of one peer no more than two are let in, which
    is for ``LimitsConfig.protocols`` to say."""
    destination_pause: float = 10.0
    """Seconds between two dials to an address that is not the asker's, whoever asks for it (case R5)."""
    min_data: int = 30_000
    """Bytes that an asker pays at least, to have another address dialled (specs autonat-v2)."""
    max_data: int = 100_000
    """Bytes that an asker pays at most (specs autonat-v2)."""
    data_timeout: float = 10.0
    """Seconds to pay in: slow payers could be saved up, to dial all at once (specs issue 640, case R5)."""
    max_wait: float = 3.0
    """Most seconds to wait after that, at random, so that nothing can be aimed to happen at once (go)."""
    dial_timeout: float = 10.0
    """Seconds for a dial of version 2 (go ``dialBackDialTimeout``)."""
    dial_timeout_1: float = 15.0
    """Seconds for a dial of version 1, and until its failure is told (go): sooner would tell why (case R5)."""
    addrs_1: int = 16
    """Addresses dialled for a request of version 1 (go ``maxPeerAddresses``)."""

    def __post_init__(self) -> None:
        counts = (
            self.requests,
            self.requests_per_peer,
            self.requests_with_data,
            self.requests_1,
            self.requests_1_per_peer,
            self.at_once,
            self.addrs_1,
        )
        if min(counts) < 1 or not 0 < self.min_data <= self.max_data:
            raise ValueError("limits must be positive")
        if min(self.data_timeout, self.dial_timeout, self.dial_timeout_1) <= 0:
            raise ValueError("timeouts must be positive")
        if min(self.destination_pause, self.max_wait) < 0:
            raise ValueError("pauses must not be negative")


class Work:
    """A request that is worked on, until the block is left."""

    __slots__ = ("_admission",)

    def __init__(self, admission: Admission) -> None:
        self._admission = admission

    def __enter__(self) -> Work:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._admission._busy -= 1


class Admission:
    """Which requests one server takes on.

    Args:
        limits: how many.
    """

    def __init__(self, limits: AutoNatLimits) -> None:
        self._limits = limits
        self._busy = 0
        self._total = {1: _per_minute(limits.requests_1, 1), 2: _per_minute(limits.requests, 1)}
        self._peers = {
            1: _per_minute(limits.requests_1_per_peer, _SOURCES),
            2: _per_minute(limits.requests_per_peer, _SOURCES),
        }
        self._with_data = _per_minute(limits.requests_with_data, 1)
        # Counted from request to request, of which the first may pay slowly and wait long, and the second pay at once.
        pause = limits.destination_pause + limits.data_timeout + limits.max_wait
        self._destinations = RateLimit(rate=1 / pause, burst=1, sources=_SOURCES) if limits.destination_pause else None

    def enter(self, peer: PeerId, version: int, now: float) -> Work | None:
        """Take on a request of ``peer``, which has to be entered; None when it is too much."""
        if self._busy >= self._limits.at_once:
            return None
        if not (self._peers[version].take(peer, now) and self._total[version].take(None, now)):
            return None
        self._busy += 1
        return Work(self)

    def elsewhere(self, destination: Hashable, now: float) -> bool:
        """Whether to dial ``destination``, which is not where the asker is."""
        if self._destinations is not None and not self._destinations.take(destination, now):
            return False
        return self._with_data.take(None, now)


def _per_minute(count: int, sources: int) -> RateLimit:
    return RateLimit(rate=count / 60, burst=count, sources=sources)
