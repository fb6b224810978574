"""Containers that cannot grow without end."""

from __future__ import annotations

from collections import OrderedDict

import pytest
import trio
import trio.testing
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from libp2p._util.bounded import BoundedReceiver, BoundedSender, ExpiringMap, LruMap, open_bounded_channel


def channel(capacity: int) -> tuple[BoundedSender[int], BoundedReceiver[int]]:
    return open_bounded_channel(capacity)


# --- channel ----------------------------------------------------------------------------------------------------------


async def test_slow_receiver_loses_the_oldest_and_can_read_how_many() -> None:
    """A slow subscriber loses the oldest events and never slows the swarm."""
    sender, receiver = channel(3)
    for value in range(10):
        sender.send_nowait(value)
    assert receiver.lost == 7
    assert [await receiver.receive() for _ in range(3)] == [7, 8, 9]
    with pytest.raises(trio.WouldBlock):
        receiver.receive_nowait()


async def test_values_arrive_in_order_until_the_sender_closes() -> None:
    sender, receiver = channel(10)

    async def produce() -> None:
        for value in range(5):
            await trio.sleep(1)
            sender.send_nowait(value)
        sender.close()
        sender.close()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(produce)
        assert [value async for value in receiver] == [0, 1, 2, 3, 4]
    with pytest.raises(trio.EndOfChannel):
        await receiver.receive()
    with pytest.raises(trio.ClosedResourceError):
        sender.send_nowait(5)


async def test_closing_the_sender_wakes_receivers_and_keeps_what_is_queued() -> None:
    sender, receiver = channel(10)
    sender.send_nowait(1)
    sender.close()
    assert await receiver.receive() == 1
    with pytest.raises(trio.EndOfChannel):
        await receiver.receive()

    sender, receiver = channel(10)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_expect, receiver, trio.EndOfChannel)
        await trio.testing.wait_all_tasks_blocked()
        sender.close()


async def test_closing_the_receiver_wakes_receivers_and_swallows_what_comes() -> None:
    sender, receiver = channel(2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_expect, receiver, trio.ClosedResourceError)
        await trio.testing.wait_all_tasks_blocked()
        await receiver.aclose()
    assert sender.receiver_closed
    sender.send_nowait(1)
    assert receiver.lost == 0
    with pytest.raises(trio.ClosedResourceError):
        await receiver.receive()
    with pytest.raises(trio.ClosedResourceError):
        receiver.receive_nowait()


async def test_async_with_closes_the_receiver() -> None:
    sender, receiver = channel(2)
    async with receiver:
        assert not sender.receiver_closed
    assert sender.receiver_closed


async def test_cancelled_receive_loses_nothing() -> None:
    sender, receiver = channel(2)
    with trio.move_on_after(1) as scope:
        await receiver.receive()
    assert scope.cancelled_caught
    sender.send_nowait(1)
    with trio.CancelScope() as scope:
        scope.cancel()
        await receiver.receive()
    assert scope.cancelled_caught
    assert await receiver.receive() == 1


async def test_receive_is_a_checkpoint_even_when_a_value_is_there() -> None:
    sender, receiver = channel(2)
    sender.send_nowait(1)
    with trio.testing.assert_checkpoints():
        await receiver.receive()


async def test_several_receivers_share_the_values() -> None:
    sender, receiver = channel(100)
    got: list[int] = []

    async def take() -> None:
        got.extend([await receiver.receive() for _ in range(3)])

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(take)
        await trio.testing.wait_all_tasks_blocked()
        for value in range(12):
            sender.send_nowait(value)
            if value % 5 == 0:
                await trio.lowlevel.checkpoint()
    assert sorted(got) == list(range(12))


async def test_a_quicker_task_does_not_strand_a_woken_one() -> None:
    sender, receiver = channel(2)
    got: list[int] = []

    async def take() -> None:
        got.append(await receiver.receive())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(take)
        await trio.testing.wait_all_tasks_blocked()
        sender.send_nowait(1)
        assert receiver.receive_nowait() == 1  # steals what the task was woken for
        await trio.testing.wait_all_tasks_blocked()
        sender.send_nowait(2)
    assert got == [2]


def test_a_channel_needs_room() -> None:
    with pytest.raises(ValueError, match="room"):
        open_bounded_channel(0)


async def _expect(receiver: BoundedReceiver[int], error: type[Exception]) -> None:
    with pytest.raises(error):
        await receiver.receive()


# --- maps -------------------------------------------------------------------------------------------------------------


def test_lru_map_drops_what_was_used_longest_ago() -> None:
    held: LruMap[str, int] = LruMap(2)
    held["a"], held["b"] = 1, 2
    assert held.get("a") == 1
    held["c"] = 3
    assert list(held) == ["a", "c"]
    assert "b" not in held
    assert held.get("b") is None
    assert held.evicted == 1
    assert held.pop("a") == 1
    assert held.pop("a") is None
    held.clear()
    assert len(held) == 0
    with pytest.raises(ValueError, match="room"):
        LruMap(0)


def test_expiring_map_hides_ended_entries_and_removes_them_in_order() -> None:
    held: ExpiringMap[str, int] = ExpiringMap(10)
    held.put("a", 1, expires=5)
    held.put("b", 2, expires=3)
    assert held.next_timeout() == 3
    assert held.get("b", 2.9) == 2
    assert held.get("b", 3) is None
    assert held.expires("b") == 3
    assert held.expires("x") is None
    held.put("b", 4, expires=9)  # renewed
    assert held.expire(6) == [("a", 1)]
    assert list(held) == ["b"]
    assert held.pop("b") == 4
    assert held.pop("b") is None
    assert held.next_timeout() is None
    assert held.expire(100) == []


def test_full_expiring_map_drops_what_ends_first() -> None:
    held: ExpiringMap[str, int] = ExpiringMap(2)
    held.put("a", 1, expires=5)
    held.put("b", 2, expires=3)
    held.put("c", 3, expires=4)
    assert list(held) == ["a", "c"]
    assert held.evicted == 1
    held.clear()
    assert len(held) == 0
    with pytest.raises(ValueError, match="room"):
        ExpiringMap(0)


def test_renewing_an_expiring_entry_for_ever_does_not_leak() -> None:
    held: ExpiringMap[str, int] = ExpiringMap(10)
    for number in range(10_000):
        held.put("a", number, expires=number)
    assert len(held._heap) < 50
    assert held.get("a", 0) == 9999


class LruModel(RuleBasedStateMachine):
    """An LruMap against an OrderedDict."""

    def __init__(self) -> None:
        super().__init__()
        self.real: LruMap[int, int] = LruMap(4)
        self.model: OrderedDict[int, int] = OrderedDict()

    @rule(key=st.integers(0, 8), value=st.integers())
    def put(self, key: int, value: int) -> None:
        self.real[key] = value
        self.model[key] = value
        self.model.move_to_end(key)
        if len(self.model) > 4:
            self.model.popitem(last=False)

    @rule(key=st.integers(0, 8))
    def get(self, key: int) -> None:
        if key in self.model:
            self.model.move_to_end(key)
        assert self.real.get(key) == self.model.get(key)

    @rule(key=st.integers(0, 8))
    def pop(self, key: int) -> None:
        assert self.real.pop(key) == self.model.pop(key, None)

    @invariant()
    def same(self) -> None:
        assert list(self.real) == list(self.model)


class ExpiringModel(RuleBasedStateMachine):
    """An ExpiringMap against a dict that is searched."""

    def __init__(self) -> None:
        super().__init__()
        self.real: ExpiringMap[int, int] = ExpiringMap(5)
        self.model: dict[int, tuple[int, int]] = {}
        self.now = 0

    @rule(key=st.integers(0, 9), value=st.integers(), ttl=st.integers(1, 20))
    def put(self, key: int, value: int, ttl: int) -> None:
        expires = self.now * 10 + ttl
        if any(end == expires for end, _ in self.model.values()):
            return  # which of two equals goes first is not promised
        self.real.put(key, value, expires=expires)
        self.model[key] = (expires, value)
        if len(self.model) > 5:
            del self.model[min(self.model, key=lambda held: self.model[held])]

    @rule(key=st.integers(0, 9))
    def get(self, key: int) -> None:
        end, value = self.model.get(key, (0, None))
        assert self.real.get(key, self.now * 10) == (value if end > self.now * 10 else None)

    @rule(key=st.integers(0, 9))
    def pop(self, key: int) -> None:
        assert self.real.pop(key) == self.model.pop(key, (0, None))[1]

    @rule()
    def expire(self) -> None:
        self.now += 1
        ended = sorted((end, key, value) for key, (end, value) in self.model.items() if end <= self.now * 10)
        assert self.real.expire(self.now * 10) == [(key, value) for _, key, value in ended]
        for _, key, _ in ended:
            del self.model[key]

    @invariant()
    def same(self) -> None:
        assert sorted(self.real) == sorted(self.model)
        assert self.real.next_timeout() == min((end for end, _ in self.model.values()), default=None)


LruModel.TestCase.settings = settings(max_examples=50)
ExpiringModel.TestCase.settings = settings(max_examples=50)
TestLruModel = LruModel.TestCase
TestExpiringModel = ExpiringModel.TestCase
