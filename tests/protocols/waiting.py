"""Waiting, under the virtual clock."""

from __future__ import annotations

from collections.abc import Callable

import trio
from trio.testing import wait_all_tasks_blocked

_ROUNDS = 50


async def settled() -> None:
    """Wait until nothing happens any more by itself.

    Once is not enough: small writes are held back while the scheduler is busy, and this is a task, too.
    """
    for _ in range(_ROUNDS):
        await wait_all_tasks_blocked()


async def until(condition: Callable[[], object]) -> None:
    """Wait until ``condition`` is true, for a minute of virtual time."""
    with trio.fail_after(60):
        while not condition():
            await trio.sleep(0.01)
