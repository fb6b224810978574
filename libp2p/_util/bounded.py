"""Containers that cannot grow without end: a channel that drops the oldest, an LRU map, a map whose entries expire.

The maps know no clock: whoever has one passes ``now`` in, so that pure code can use them. Each drops an entry when it
is full instead of refusing the new one; where the *newcomer* has to lose, the caller checks ``len`` first.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

import trio
from trio.abc import ReceiveChannel
from trio.lowlevel import ParkingLot

T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")


class _ChannelState(Generic[T]):
    """What both ends of a bounded channel share."""

    __slots__ = ("lost", "lot", "queue", "receiver_closed", "sender_closed")

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError("a bounded channel needs room for at least one value")
        self.queue: deque[T] = deque(maxlen=capacity)
        self.lot: ParkingLot = ParkingLot()
        self.lost: int = 0
        self.sender_closed: bool = False
        self.receiver_closed: bool = False


class BoundedSender(Generic[T]):
    """The end that never waits. Made by :func:`open_bounded_channel`."""

    __slots__ = ("_state",)

    def __init__(self, state: _ChannelState[T]) -> None:
        self._state = state

    def send_nowait(self, value: T, *, victim: Callable[[Sequence[T]], int] | None = None) -> None:
        """Append ``value``; when the channel is full, the oldest value that was not received is lost.

        A receiver that was closed swallows everything: the sender of events must not care who still listens.

        Args:
            value: what to send.
            victim: chooses, of what waits in a full channel, another one to lose.

        Raises:
            trio.ClosedResourceError: this end was closed.
        """
        state = self._state
        if state.sender_closed:
            raise trio.ClosedResourceError
        if state.receiver_closed:
            return
        if len(state.queue) == state.queue.maxlen:
            state.lost += 1
            if victim is not None:
                del state.queue[victim(state.queue)]  # otherwise the deque drops its left end by itself
        state.queue.append(value)
        if state.lot:
            state.lot.unpark()

    @property
    def receiver_closed(self) -> bool:
        """Whether nobody will receive any more, so that the sender can forget this channel."""
        return self._state.receiver_closed

    def close(self) -> None:
        """Let the receiver see the end after what is queued. Idempotent."""
        self._state.sender_closed = True
        self._state.lot.unpark_all()


class BoundedReceiver(ReceiveChannel[T]):
    """The end that waits: an ordinary Trio receive channel. Made by :func:`open_bounded_channel`.

    Several tasks may receive; each value goes to one of them.
    """

    def __init__(self, state: _ChannelState[T]) -> None:
        self._state = state

    @property
    def lost(self) -> int:
        """How many values were dropped because this side was too slow."""
        return self._state.lost

    def receive_nowait(self) -> T:
        """Return the oldest value.

        Raises:
            trio.WouldBlock: there is none now.
            trio.EndOfChannel: there is none, and the sender is closed.
            trio.ClosedResourceError: this end was closed.
        """
        state = self._state
        if state.receiver_closed:
            raise trio.ClosedResourceError
        if state.queue:
            return state.queue.popleft()
        if state.sender_closed:
            raise trio.EndOfChannel
        raise trio.WouldBlock

    async def receive(self) -> T:
        """Wait for the oldest value. Cancelling loses none.

        Raises:
            trio.EndOfChannel: the sender is closed and everything was received.
            trio.ClosedResourceError: this end was closed, perhaps while waiting.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            value = self.receive_nowait()
        except trio.WouldBlock:
            pass
        else:
            # The value is taken: from here on a cancellation would lose it.
            await trio.lowlevel.cancel_shielded_checkpoint()
            return value
        while True:
            await self._state.lot.park()
            try:
                return self.receive_nowait()
            except trio.WouldBlock:
                continue  # another task was quicker

    def close(self) -> None:
        """Drop what is queued and wake waiting receivers with ``ClosedResourceError``. Idempotent."""
        state = self._state
        state.receiver_closed = True
        state.queue.clear()
        state.lot.unpark_all()

    async def aclose(self) -> None:
        """As :meth:`close`, and a checkpoint."""
        self.close()
        await trio.lowlevel.checkpoint()


def open_bounded_channel(capacity: int) -> tuple[BoundedSender[T], BoundedReceiver[T]]:
    """Make a channel that holds at most ``capacity`` values and loses the oldest beyond that.

    Raises:
        ValueError: ``capacity`` is below one.
    """
    state = _ChannelState[T](capacity)
    return BoundedSender(state), BoundedReceiver(state)


class LruMap(Generic[K, V]):
    """A map of at most ``capacity`` entries; a new one pushes out the one used longest ago.

    Reading with :meth:`get` and writing count as use, ``in`` and iterating do not.

    Attributes:
        evicted: how many entries were pushed out.
    """

    __slots__ = ("_capacity", "_entries", "evicted")

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError("a map needs room for at least one entry")
        self._capacity = capacity
        # Not a plain dict: finding its first key after many deletions at the front takes linear time.
        self._entries: OrderedDict[K, V] = OrderedDict()
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def __iter__(self) -> Iterator[K]:
        """Keys, the one used longest ago first."""
        return iter(self._entries)

    def get(self, key: K) -> V | None:
        """The value under ``key``, which becomes the most recently used; None when there is none."""
        try:
            self._entries.move_to_end(key)
        except KeyError:
            return None
        return self._entries[key]

    def __setitem__(self, key: K, value: V) -> None:
        self._entries[key] = value
        self._entries.move_to_end(key)
        if len(self._entries) > self._capacity:
            self._entries.popitem(last=False)
            self.evicted += 1

    def pop(self, key: K) -> V | None:
        """Remove and return the value under ``key``; None when there is none."""
        return self._entries.pop(key, None)

    def clear(self) -> None:
        """Remove everything."""
        self._entries.clear()


class ExpiringMap(Generic[K, V]):
    """A map of at most ``capacity`` entries, each with the time at which it ends.

    A new entry in a full map pushes out the one that would have ended first. An entry whose time has come is invisible
    at once and removed by :meth:`expire`.

    Attributes:
        evicted: how many entries were pushed out before their time.
    """

    __slots__ = ("_capacity", "_entries", "_heap", "_serial", "evicted")

    def __init__(self, capacity: int) -> None:
        if capacity < 1:
            raise ValueError("a map needs room for at least one entry")
        self._capacity = capacity
        self._entries: dict[K, tuple[float, int, V]] = {}
        # (expires, serial, key); the serial keeps keys, which need not be ordered, out of comparisons, and tells live
        # heap items from those whose entry was replaced or removed.
        self._heap: list[tuple[float, int, K]] = []
        self._serial = 0
        self.evicted = 0

    def __len__(self) -> int:
        """Entries held, those included whose time has come and that :meth:`expire` has not yet removed."""
        return len(self._entries)

    def __iter__(self) -> Iterator[K]:
        """Keys in the order they were put, ended ones included."""
        return iter(self._entries)

    def get(self, key: K, now: float) -> V | None:
        """The value under ``key``; None when there is none or it has ended."""
        entry = self._entries.get(key)
        return entry[2] if entry is not None and entry[0] > now else None

    def expires(self, key: K) -> float | None:
        """When the entry under ``key`` ends; None when there is none."""
        entry = self._entries.get(key)
        return None if entry is None else entry[0]

    def put(self, key: K, value: V, *, expires: float) -> None:
        """Set ``key`` to ``value`` until ``expires``."""
        self._serial += 1
        self._entries.pop(key, None)
        self._entries[key] = (expires, self._serial, value)
        heapq.heappush(self._heap, (expires, self._serial, key))
        if len(self._entries) > self._capacity:
            self._pop_first()
            self.evicted += 1
        if len(self._heap) > 2 * len(self._entries) + 16:
            # Replaced entries leave their old heap item behind; without this, renewing one key for ever leaks.
            self._heap = [(entry[0], entry[1], held) for held, entry in self._entries.items()]
            heapq.heapify(self._heap)

    def pop(self, key: K) -> V | None:
        """Remove and return the value under ``key``, ended or not; None when there is none."""
        entry = self._entries.pop(key, None)
        return None if entry is None else entry[2]

    def expire(self, now: float) -> list[tuple[K, V]]:
        """Remove and return everything that has ended by ``now``, the earliest first."""
        ended: list[tuple[K, V]] = []
        while (timeout := self.next_timeout()) is not None and timeout <= now:
            ended.append(self._pop_first())
        return ended

    def next_timeout(self) -> float | None:
        """When the next entry ends; None when the map is empty."""
        while self._heap:
            expires, serial, key = self._heap[0]
            entry = self._entries.get(key)
            if entry is not None and entry[1] == serial:
                return expires
            heapq.heappop(self._heap)
        return None

    def clear(self) -> None:
        """Remove everything."""
        self._entries.clear()
        self._heap.clear()

    def _pop_first(self) -> tuple[K, V]:
        self.next_timeout()  # drops dead heap items, so that the first one is live
        _, _, key = heapq.heappop(self._heap)
        return key, self._entries.pop(key)[2]
