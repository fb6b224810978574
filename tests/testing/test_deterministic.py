"""Trio's order of tasks, repeated on request."""

from __future__ import annotations

import pytest
import trio
from trio.testing import MockClock

from libp2p.testing import deterministic_scheduling


def _order() -> list[int]:
    """In which order twenty tasks take their steps."""
    order: list[int] = []

    async def task(number: int) -> None:
        for _ in range(3):
            await trio.lowlevel.checkpoint()
            order.append(number)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(task, number)

    trio.run(main, clock=MockClock(autojump_threshold=0))
    return order


def _seeded(seed: int) -> list[int]:
    with deterministic_scheduling(seed):
        return _order()


def test_the_seed_decides() -> None:
    assert _seeded(1) == _seeded(1)
    assert len({tuple(_seeded(seed)) for seed in range(5)}) > 1


def test_outside_it_chance_is_back() -> None:
    _seeded(1)
    assert len({tuple(_order()) for _ in range(5)}) > 1


def test_a_trio_without_the_switch_is_an_error(monkeypatch) -> None:
    monkeypatch.delattr("trio._core._run._ALLOW_DETERMINISTIC_SCHEDULING")
    with pytest.raises(RuntimeError, match="cannot be made deterministic"), deterministic_scheduling():
        pass
