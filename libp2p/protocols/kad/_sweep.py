"""Announcing many keys with few lookups. Pure.

Theory of operation. A lookup for one key finds its ``k`` nearest peers, and these are the nearest of its neighbours,
too: of every key whose distance to it is so small that the order of the peers hardly changes. If the farthest of the
peers lies at distance ``r``, then for a key that differs only below bit ``t`` of ``r`` all peers not found are at
least as far, above bit ``t``, as ``r``; in doubt are only those found that share those upper bits with ``r``. So a
region is as wide as leaves at most ``slack`` of the peers in doubt. The number of lookups then depends on how many
peers there are, and not on how many keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ...peer_id import PeerId
from ._keyspace import BITS, Point, point_of

SLACK = 4
"""Peers of ``k`` that may be the next but nearest instead of the nearest."""


class Sweep:
    """Keys to announce, region by region.

    Args:
        keys: all of them.
    """

    def __init__(self, keys: Iterable[bytes]) -> None:
        self._keys: list[tuple[Point, bytes]] = sorted([(point_of(key), key) for key in keys], reverse=True)

    def __len__(self) -> int:
        """Keys that are left."""
        return len(self._keys)

    def next(self) -> bytes | None:
        """The key to look up; None when all are done."""
        return self._keys[-1][1] if self._keys else None

    def found(self, peers: Sequence[PeerId], k: int) -> list[bytes]:
        """Take the nearest peers of the key that was looked up, and return the keys to announce to them.

        Args:
            peers: nearest first; fewer than ``k`` when there are no more, and then they are everybody's nearest.
        """
        point = self._keys[-1][0]
        width = BITS if len(peers) < k else _width([point_of(bytes(peer)) ^ point for peer in peers])
        region: list[bytes] = []
        while self._keys and (self._keys[-1][0] ^ point) >> width == 0:
            region.append(self._keys.pop()[1])
        return region


def _width(distances: Sequence[int]) -> int:
    """How many low bits may differ from the key with these distances of peers."""
    edge = distances[-1]
    width = edge.bit_length()
    while width and sum([distance >> width == edge >> width for distance in distances]) > SLACK:
        width -= 1
    return width
