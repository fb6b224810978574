"""Kinds of addresses that lead nowhere from here: a network that drops UDP, or an IPv6 that is only announced. Pure.

Theory of operation. Packets into a black hole are not refused, they vanish: each dial costs a slot and its whole
timeout, and a peer's better addresses wait their turn behind it. Whether a *kind* of address is swallowed shows over
many dials to many peers, so a detector for each kind looks at the last of them (go ``black_hole_detector.go``):

    PROBING --the window is full--> ALLOWED <--enough of it worked, or not--> BLOCKED
       ^                                                                        |
       +-------------------------------one works, so everything is open again --+

BLOCKED lets every ``window``-th dial try all the same.

Only public addresses count and only they are left out: what happens on a private network says nothing about the way out
of it. And they are only left out where a peer has other addresses (ours; go fails such dials): a host that moves from
one network to another reaches whoever it wants from the first dial on, and finds out that the black hole has ended.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from multiaddr import Multiaddr

from ..addressing import Scope, names, scope


@dataclass(frozen=True, slots=True, kw_only=True)
class BlackHoleConfig:
    """When UDP, and when IPv6, counts as blocked (go ``swarm.go``)."""

    window: int = 100
    """Dials looked at; while blocked, one in as many is tried."""
    min_successes: int = 5
    """Of them, how many must work."""

    def __post_init__(self) -> None:
        if not 1 <= self.min_successes <= self.window:
            raise ValueError("a black hole is judged by at least one success in a window that can hold them")


class Way(enum.Enum):
    """What a detector says about its kind of addresses."""

    PROBING = "probing"
    """Too few dials to tell: go on."""
    ALLOWED = "allowed"
    """It works often enough."""
    BLOCKED = "blocked"
    """It hardly ever works: leave it out."""


class Detector:
    """The last dials to one kind of addresses.

    Args:
        config: the window.
    """

    __slots__ = ("_config", "_dials", "_results")

    def __init__(self, config: BlackHoleConfig) -> None:
        self._config = config
        self._results: deque[bool] = deque(maxlen=config.window)
        self._dials = 0

    @property
    def successes(self) -> int:
        """How many of the dials looked at have worked."""
        return sum(self._results)

    @property
    def state(self) -> Way:
        """What the results say."""
        if len(self._results) < self._config.window:
            return Way.PROBING
        return Way.ALLOWED if self.successes >= self._config.min_successes else Way.BLOCKED

    def record(self, worked: bool) -> None:
        """Note how a dial went."""
        if worked and self.state is Way.BLOCKED:
            # The network has changed, and what was learned in the old one says nothing.
            self._results.clear()
        self._results.append(worked)

    def ask(self) -> Way:
        """What to do about one more dial; while blocked, every so often one may probe."""
        state = self.state
        if state is not Way.BLOCKED:
            self._dials = 0
            return state
        self._dials += 1
        return Way.PROBING if self._dials % self._config.window == 0 else Way.BLOCKED


class BlackHoles:
    """The detectors of a host, for UDP and for IPv6.

    Args:
        config: their window.
    """

    def __init__(self, config: BlackHoleConfig | None = None) -> None:
        self._config = config or BlackHoleConfig()
        self._detectors = {"udp": Detector(self._config), "ip6": Detector(self._config)}

    @property
    def states(self) -> dict[str, Way]:
        """What is known about ``"udp"`` and ``"ip6"``."""
        return {kind: detector.state for kind, detector in self._detectors.items()}

    def record(self, addr: Multiaddr, *, worked: bool) -> None:
        """Note how a dial to ``addr`` went: whether anybody answered, not whether he was of use."""
        for kind in self._kinds(addr):
            self._detectors[kind].record(worked)

    def refusals(self, addrs: Sequence[Multiaddr]) -> dict[Multiaddr, str]:
        """The addresses to leave out of the dial of one peer, with the reason. Never all of them."""
        kinds = {addr: self._kinds(addr) for addr in addrs}
        met = dict.fromkeys(kind for found in kinds.values() for kind in found)
        blocked = [kind for kind in met if self._detectors[kind].ask() is Way.BLOCKED]
        refused: dict[Multiaddr, str] = {}
        for addr, found in kinds.items():
            if (kind := next((kind for kind in found if kind in blocked), None)) is not None:
                refused[addr] = self._reason(kind)
        return refused if len(refused) < len(kinds) else {}

    def _reason(self, kind: str) -> str:
        name = "UDP" if kind == "udp" else "IPv6"
        worked = self._detectors[kind].successes
        return f"left out: {name} seems to be blocked here, {worked} of the last {self._config.window} dials worked"

    def _kinds(self, addr: Multiaddr) -> tuple[str, ...]:
        if scope(addr) is not Scope.PUBLIC:
            return ()
        found = names(addr)
        return tuple(kind for kind in self._detectors if kind in found)
