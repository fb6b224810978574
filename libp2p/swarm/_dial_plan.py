"""Which address of a peer to try next, and when to leave an address alone. Pure.

Theory of operation. A :class:`DialPlan` turns addresses with delays, as ``rank`` gives them, into times at which each
is *due*. A failure makes the next address due at once and moves all others forward by as much: the delays are there to
spare the network while an attempt may yet succeed, never to make anybody wait for one that has already failed.

    waiting --next()--> running --failed()--> tried
                           \\----succeeded()--> the plan is done, nothing else starts

A :class:`Backoff` remembers failures across plans.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass

from multiaddr import Multiaddr

from .._util.bounded import LruMap
from ..errors import LocalProtocolError


@dataclass(frozen=True, slots=True, kw_only=True)
class BackoffConfig:
    """How long an address is left alone after failures (go ``swarm_dial.go``, case T10).

    After the first failure ``base`` seconds, after n more ``base + coefficient * n**2``, at most ``maximum``.
    """

    base: float = 5.0
    coefficient: float = 1.0
    maximum: float = 300.0
    peers: int = 2048
    """Peers remembered; beyond that the one used longest ago is forgotten (ours, 10 MB at worst)."""
    addresses: int = 32
    """Addresses remembered of each: a few more than one dial tries."""

    def __post_init__(self) -> None:
        if self.base < 0 or self.coefficient < 0 or self.maximum < self.base:
            raise ValueError("backoff times must not be negative, and the maximum not below the base")
        if self.peers < 1 or self.addresses < 1:
            raise ValueError("a backoff must remember at least one address")


class Backoff:
    """Which addresses failed lately.

    Entries are kept per peer *and* address: otherwise anybody could claim an honest peer's address as his own, fail the
    dials to it, and so keep us from dialling its owner.

    Args:
        config: the times.
    """

    def __init__(self, config: BackoffConfig | None = None) -> None:
        self._config = config or BackoffConfig()
        # peer -> address -> (failures so far, until when)
        self._peers: LruMap[Hashable, LruMap[Multiaddr, tuple[int, float]]] = LruMap(self._config.peers)

    def __len__(self) -> int:
        """Peers with failed addresses."""
        return len(self._peers)

    def failed(self, addr: Multiaddr, now: float, *, peer: Hashable = None) -> float:
        """Note a failed attempt. Returns until when the address is left alone."""
        config = self._config
        entries = self._peers.get(peer)
        if entries is None:
            entries = self._peers[peer] = LruMap(config.addresses)
        failures, until = entries.get(addr) or (0, now)
        if now > until + config.maximum:
            failures = 0  # long ago: the address starts afresh, as in go, which drops such entries
        until = now + min(config.maximum, config.base + config.coefficient * failures**2)
        entries[addr] = (failures + 1, until)
        return until

    def succeeded(self, addr: Multiaddr, *, peer: Hashable = None) -> None:
        """Forget the failures of an address that worked."""
        entries = self._peers.get(peer)
        if entries is not None:
            entries.pop(addr)
            if not entries:
                self._peers.pop(peer)

    def blocked_until(self, addr: Multiaddr, now: float, *, peer: Hashable = None) -> float | None:
        """Until when the address is left alone; None when it may be tried."""
        entries = self._peers.get(peer)
        entry = None if entries is None else entries.get(addr)
        return entry[1] if entry is not None and entry[1] > now else None

    def clear(self, peer: Hashable) -> None:
        """Forget all failures of ``peer``: it connected to us, or the user insists."""
        self._peers.pop(peer)


class DialPlan:
    """The order of attempts to reach one peer.

    Args:
        ranked: addresses with their delays in seconds.
        now: monotonic seconds; the delays count from here.
        max_parallel: attempts at once (limit ``dials_per_peer``).
        max_attempts: attempts in all (limit ``dial_addresses_per_peer``); the rest is never tried.
    """

    def __init__(
        self,
        ranked: Sequence[tuple[Multiaddr, float]],
        *,
        now: float,
        max_parallel: int = 8,
        max_attempts: int = 25,
    ) -> None:
        if max_parallel < 1 or max_attempts < 1:
            raise ValueError("a dial plan needs at least one attempt at a time")
        self._max_parallel = max_parallel
        self._attempts_left = max_attempts
        self._waiting: deque[tuple[Multiaddr, float]] = deque()  # with the time each is due, in that order
        self._running: dict[Multiaddr, None] = {}
        self._seen: set[Multiaddr] = set()  # never iterated, so its order does not matter
        self._winner: Multiaddr | None = None
        self._add(ranked, now)

    @property
    def done(self) -> bool:
        """Whether an address worked, or all were tried."""
        return self._winner is not None or not (self._waiting or self._running)

    @property
    def winner(self) -> Multiaddr | None:
        """The address that worked."""
        return self._winner

    @property
    def running(self) -> Sequence[Multiaddr]:
        """The attempts that are under way, in the order they were started."""
        return tuple(self._running)

    def add(self, ranked: Iterable[tuple[Multiaddr, float]], now: float) -> None:
        """Take more addresses, for example of a second caller; those the plan has seen are ignored.

        Their delays count from now.
        """
        if self._winner is None:
            self._add(ranked, now)

    def next(self, now: float) -> list[Multiaddr]:
        """The addresses to start now. Each must be answered with :meth:`failed` or :meth:`succeeded`."""
        started: list[Multiaddr] = []
        while self._may_start() and self._waiting[0][1] <= now:
            addr, _ = self._waiting.popleft()
            self._running[addr] = None
            self._attempts_left -= 1
            started.append(addr)
        if self._attempts_left == 0:
            self._waiting.clear()
        return started

    def failed(self, addr: Multiaddr, now: float) -> None:
        """Note that an attempt failed. The next address becomes due at once.

        Raises:
            LocalProtocolError: ``addr`` is not under way.
        """
        self._stop(addr)
        if self._waiting:
            first = self._waiting[0][1]
            if first > now:
                # Written so that the first is due exactly now, whatever the rounding.
                self._waiting = deque([(waiting, now + (due - first)) for waiting, due in self._waiting])

    def succeeded(self, addr: Multiaddr) -> None:
        """Note that an attempt worked: the plan is done. The caller cancels what is still :attr:`running`.

        Raises:
            LocalProtocolError: ``addr`` is not under way.
        """
        self._stop(addr)
        if self._winner is None:
            self._winner = addr
        self._waiting.clear()

    def next_timeout(self) -> float | None:
        """When to call :meth:`next` again if nothing else happens; None when only an answer can change anything."""
        return self._waiting[0][1] if self._may_start() else None

    def _may_start(self) -> bool:
        return bool(self._waiting) and self._attempts_left > 0 and len(self._running) < self._max_parallel

    def _stop(self, addr: Multiaddr) -> None:
        if addr not in self._running:
            raise LocalProtocolError(f"no attempt on {addr} is under way")
        del self._running[addr]

    def _add(self, ranked: Iterable[tuple[Multiaddr, float]], now: float) -> None:
        for addr, delay in ranked:
            if addr not in self._seen and self._attempts_left > 0:
                self._seen.add(addr)
                self._waiting.append((addr, now + delay))
        # Stable: what is due at the same time keeps the rank's order.
        self._waiting = deque(sorted(self._waiting, key=lambda item: item[1]))
