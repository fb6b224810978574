"""The guard against concurrent use."""

import pytest
import trio

from libp2p._util.conflict import ConflictGuard


async def test_second_task_is_refused_while_the_first_is_inside() -> None:
    guard = ConflictGuard("another task is sending")

    async def hold() -> None:
        with guard:
            await trio.sleep(1)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hold)
        await trio.sleep(0.5)
        assert guard.held
        with pytest.raises(trio.BusyResourceError, match="another task is sending"), guard:
            pytest.fail("two tasks inside")
        assert guard.held, "the loser must not open the door"
    with guard:
        pass


def test_guard_is_free_after_an_exception() -> None:
    guard = ConflictGuard("busy")
    with pytest.raises(KeyError), guard:
        raise KeyError
    assert not guard.held
