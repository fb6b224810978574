"""The event that costs little while nobody waits."""

from __future__ import annotations

import trio
from trio.testing import assert_checkpoints

from libp2p._util.once import Once
from tests.protocols.waiting import settled


async def test_everybody_goes_once_it_is_set() -> None:
    once, gone = Once(), list[int]()

    async def wait(number: int) -> None:
        await once.wait()
        gone.append(number)

    async with trio.open_nursery() as nursery:
        for number in range(2):
            nursery.start_soon(wait, number)
        await settled()
        assert not gone and not once.is_set()
        once.set()
        once.set()
        assert once.is_set()
    assert sorted(gone) == [0, 1]
    with assert_checkpoints():
        await once.wait()


async def test_whoever_is_cancelled_takes_nothing_from_the_others() -> None:
    once = Once()
    async with trio.open_nursery() as nursery:
        with trio.move_on_after(1) as scope:
            await once.wait()
        assert scope.cancelled_caught
        nursery.start_soon(once.wait)
        await settled()
        once.set()
