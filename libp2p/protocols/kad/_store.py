"""Where a server keeps values and who provides what: the interface, and the store in memory.

Bounds. What is farthest from this host goes first when there is no room: whoever looks for it looks elsewhere. Of the
providers of one key those nearest to the key stay, which nobody can steer without mining identities. Everything ends:
a heap says what is next, so nothing is ever searched through.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import trio

from ..._util.bounded import ExpiringMap
from ...peer_id import PeerId
from ._keyspace import Point, point_of


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreConfig:
    """The bounds of a store."""

    records: int = 1024
    """Values (rust; case K2)."""
    record_bytes: int = 256 * 1024 * 1024
    """Bytes of values and their keys (case K2)."""
    provider_keys: int = 10_000
    """Keys with providers (ours; case K3)."""
    providers_per_key: int = 20
    """Providers of one key (rust; case K3)."""

    def __post_init__(self) -> None:
        if min(self.records, self.record_bytes, self.provider_keys, self.providers_per_key) < 1:
            raise ValueError("the bounds of a store must be positive")


@dataclass(frozen=True, slots=True)
class StoredValue:
    """A value that is kept.

    Attributes:
        received: when it came, in seconds since 1970.
        expires: when it ends.
    """

    value: bytes
    received: float
    expires: float


@dataclass(frozen=True, slots=True)
class StoredProvider:
    """A provider that is kept.

    Attributes:
        addrs: its addresses, binary; empty once they are too old to tell.
        expires: when it ends.
    """

    peer: PeerId
    addrs: tuple[bytes, ...]
    expires: float


class Store(Protocol):
    """Keeps values and providers. Synchronous, as its answers are needed while a peer waits; times are since 1970."""

    def value(self, key: bytes, now: float) -> StoredValue | None:
        """The value under ``key``, if it has not ended."""
        ...

    def put_value(self, key: bytes, value: bytes, *, now: float, expires: float) -> bool:
        """Keep ``value``, in place of any other under ``key``. False when it is too far away to have a place."""
        ...

    def providers(self, key: bytes, now: float) -> Sequence[StoredProvider]:
        """The providers of ``key`` that have not ended, nearest to the key first."""
        ...

    def add_provider(
        self, key: bytes, peer: PeerId, addrs: Sequence[bytes], *, addrs_expire: float, expires: float
    ) -> bool:
        """Keep ``peer`` as a provider of ``key``, or renew it. False when it has no place.

        Args:
            addrs_expire: when the addresses are no longer told, the provider still being.
        """
        ...

    def expire(self, now: float) -> None:
        """Remove what has ended."""
        ...

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Persist where there is a disk; writes what is left when cancelled."""
        ...

    def close(self) -> None:
        """Give back files; idempotent."""
        ...


class _ByDistance:
    """Keys, sorted by their distance from this host."""

    def __init__(self, local: PeerId) -> None:
        self._local: Point = point_of(bytes(local))
        self._items: list[tuple[int, bytes]] = []

    def add(self, key: bytes) -> None:
        bisect.insort(self._items, (point_of(key) ^ self._local, key))

    def remove(self, key: bytes) -> None:
        del self._items[bisect.bisect_left(self._items, (point_of(key) ^ self._local, key))]

    def farthest(self) -> bytes:
        return self._items[-1][1]


class MemoryStore(Store):
    """A store that ends with the process.

    Args:
        local: this host, for what is far.
        config: the bounds.

    Attributes:
        evicted: how many keys had to go, or were not taken, because others are nearer.
    """

    def __init__(self, local: PeerId, config: StoreConfig | None = None) -> None:
        self.config: StoreConfig = config or StoreConfig()
        self.evicted: int = 0
        # Their capacities are never reached: the farthest has to go, not what ends first.
        self._values: ExpiringMap[bytes, StoredValue] = ExpiringMap(self.config.records + 1)
        self._ends: ExpiringMap[tuple[bytes, PeerId], None] = ExpiringMap(
            (self.config.provider_keys + 1) * (self.config.providers_per_key + 1)
        )
        self._value_bytes = 0
        self._values_by_distance = _ByDistance(local)
        self._providers: dict[bytes, dict[PeerId, _Provider]] = {}
        self._keys_by_distance = _ByDistance(local)

    # --- values

    def value(self, key: bytes, now: float) -> StoredValue | None:
        return self._values.get(key, now)

    def put_value(self, key: bytes, value: bytes, *, now: float, expires: float) -> bool:
        self._forget_value(key)
        self._values.put(key, StoredValue(value, now, expires), expires=expires)
        self._values_by_distance.add(key)
        self._value_bytes += len(key) + len(value)
        kept = True
        while len(self._values) > self.config.records or self._value_bytes > self.config.record_bytes:
            farthest = self._values_by_distance.farthest()
            self._forget_value(farthest)
            self.evicted += 1
            kept = kept and farthest != key
        return kept

    def _forget_value(self, key: bytes) -> None:
        if (held := self._values.pop(key)) is not None:
            self._discount(key, held)

    def _discount(self, key: bytes, held: StoredValue) -> None:
        self._values_by_distance.remove(key)
        self._value_bytes -= len(key) + len(held.value)

    # --- providers

    def providers(self, key: bytes, now: float) -> Sequence[StoredProvider]:
        return [
            StoredProvider(peer, held.addrs if held.addrs_expire > now else (), held.expires)
            for peer, held in sorted(self._providers.get(key, {}).items(), key=_distance_to(key))
            if held.expires > now
        ]

    def add_provider(
        self, key: bytes, peer: PeerId, addrs: Sequence[bytes], *, addrs_expire: float, expires: float
    ) -> bool:
        if key not in self._providers:
            self._providers[key] = {}
            self._keys_by_distance.add(key)
        providers = self._providers[key]
        providers[peer] = _Provider(tuple(addrs), addrs_expire, expires)
        self._ends.put((key, peer), None, expires=expires)
        if len(providers) > self.config.providers_per_key:
            self._forget_provider(key, max(providers.items(), key=_distance_to(key))[0])
        if len(self._providers) > self.config.provider_keys:
            farthest = self._keys_by_distance.farthest()
            self.evicted += 1
            for each in tuple(self._providers[farthest]):
                self._forget_provider(farthest, each)
        return peer in self._providers.get(key, ())

    def _forget_provider(self, key: bytes, peer: PeerId) -> None:
        self._ends.pop((key, peer))
        self._drop_provider(key, peer)

    def _drop_provider(self, key: bytes, peer: PeerId) -> None:
        del self._providers[key][peer]
        if not self._providers[key]:
            del self._providers[key]
            self._keys_by_distance.remove(key)

    # --- life

    def expire(self, now: float) -> None:
        for key, held in self._values.expire(now):
            self._discount(key, held)
        for (key, peer), _ in self._ends.expire(now):
            self._drop_provider(key, peer)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()

    def close(self) -> None:
        pass


@dataclass(frozen=True, slots=True)
class _Provider:
    addrs: tuple[bytes, ...]
    addrs_expire: float
    expires: float


def _distance_to(key: bytes) -> Callable[[tuple[PeerId, _Provider]], int]:
    """Sorts the providers of a key."""
    point = point_of(key)
    return lambda item: point_of(bytes(item[0])) ^ point
