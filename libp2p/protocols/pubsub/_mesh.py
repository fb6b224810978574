"""Choosing peers: whom to graft, whom to prune, whom to tell about messages. Pure.

Functions of what is known now; ``rng`` breaks ties, so that nobody can predict or force a choice. Peers come in lists
whose order does not depend on hashes, and the same seed chooses the same peers.

Source: libp2p/specs gossipsub v1.1.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar

from ...peer_id import PeerId

_T = TypeVar("_T")


class Random(Protocol):
    """What is needed of ``random.Random``."""

    def shuffle(self, x: list[_T], /) -> None:
        """Shuffle in place."""
        ...


def sample(items: Iterable[_T], count: int, rng: Random) -> list[_T]:
    """At most ``count`` of ``items``, in random order."""
    shuffled = list(items)
    rng.shuffle(shuffled)
    return shuffled[: max(0, count)]


def surplus(
    mesh: Sequence[PeerId],
    *,
    keep: int,
    keep_best: int,
    keep_outbound: int,
    score: Callable[[PeerId], float],
    is_outbound: Callable[[PeerId], bool],
    rng: Random,
) -> list[PeerId]:
    """Whom to prune from a mesh that is too large.

    The ``keep_best`` with the highest scores stay, then others at random up to ``keep``; but ``keep_outbound`` of them
    are peers that were dialled from here, if there are so many: those who dialled us may all be one attacker.
    """
    shuffled = sample(mesh, len(mesh), rng)
    best = sorted(shuffled, key=score, reverse=True)
    head, tail = best[:keep_best], best[keep_best:]
    rng.shuffle(tail)
    room = keep - len(head)
    missing = keep_outbound - sum(map(is_outbound, head))
    if missing > 0:
        # Outbound ones first, as many as are missing; the others keep their order.
        dialled = [peer for peer in tail if is_outbound(peer)][:missing]
        tail = dialled + [peer for peer in tail if peer not in dialled]
    return tail[room:]


def median(values: Sequence[float]) -> float:
    """The one in the middle; of two, the upper one (go). There must be one."""
    return sorted(values)[len(values) // 2]


def better_than_median(
    mesh: Sequence[PeerId],
    candidates: Sequence[PeerId],
    *,
    threshold: float,
    count: int,
    score: Callable[[PeerId], float],
    rng: Random,
) -> list[PeerId]:
    """Whom to graft on top when a mesh has become bad: its median score is below ``threshold``."""
    if len(mesh) < 2:
        return []
    middle = median([score(peer) for peer in mesh])
    if middle >= threshold:
        return []
    return sample([peer for peer in candidates if score(peer) > middle], count, rng)


def gossip_targets(candidates: Sequence[PeerId], *, at_least: int, share: float, rng: Random) -> list[PeerId]:
    """Whom to tell which messages there are: more of them the more there are."""
    return sample(candidates, max(at_least, math.floor(share * len(candidates))), rng)
