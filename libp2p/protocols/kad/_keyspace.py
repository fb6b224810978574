"""The space in which peers and keys lie: 256 bits, and the distance of two points is their XOR. Pure.

Everything has its place by the SHA-256 of its bytes: peers by their id, values and content by their key. Places are
plain integers, on which Python is quick.

Source: libp2p/specs kad-dht, "Distance".
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    import random

Point: TypeAlias = int
"""A place in the key space."""

BITS = 256
"""Bits of a point."""
MAX_PREIMAGE_PREFIX = 15
"""Longest common prefix that :func:`preimage` finds in reasonable time (go): 65,000 hashes on average."""


def point_of(data: bytes) -> Point:
    """Where ``data``, a peer id or a key, lies."""
    return int.from_bytes(hashlib.sha256(data).digest(), "big")


def common_prefix(a: Point, b: Point) -> int:
    """How many leading bits ``a`` and ``b`` share; all of them when they are equal."""
    return BITS - (a ^ b).bit_length()


def preimage(near: Point, prefix: int, rng: random.Random) -> bytes:
    """Find bytes that lie where exactly ``prefix`` bits are shared with ``near``: something to look up in a bucket.

    Raises:
        ValueError: ``prefix`` is above :data:`MAX_PREIMAGE_PREFIX`.
    """
    if not 0 <= prefix <= MAX_PREIMAGE_PREFIX:
        raise ValueError(f"no preimage for {prefix} common bits")
    while True:
        found = rng.randbytes(32)
        if common_prefix(point_of(found), near) == prefix:
            return found
