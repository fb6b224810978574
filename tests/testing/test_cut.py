"""The instrument that cancels everywhere finds what it is made to find."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from trio.testing import MockClock

from libp2p.testing.cut import Cut, Scenario, cut_everywhere


class _Counting(Scenario[list[str]]):
    """Five points in a row."""

    @asynccontextmanager
    async def setup(self) -> AsyncIterator[list[str]]:
        self.state: list[str] = []
        yield self.state
        await trio.lowlevel.checkpoint()

    async def act(self, state: list[str]) -> None:
        state.clear()
        for number in range(5):
            state.append(f"{number} begun")
            await trio.lowlevel.checkpoint()
            state.append(f"{number} done")


def test_every_point_is_cut() -> None:
    seen: list[int] = []

    class Seeing(_Counting):
        async def check(self, state: list[str]) -> None:
            seen.append(len(state))

    cuts = cut_everywhere(Seeing())
    assert cuts >= 5
    assert set(seen) >= {1, 3, 5, 7, 9, 10}, "begun and not done, five times; and whole"
    assert seen.count(10) >= cuts, "after each cut it is done again, whole"


def test_fewer_points_on_request() -> None:
    assert cut_everywhere(_Counting(), every=3) <= cut_everywhere(_Counting()) // 3 + 1


class _Leaky(_Counting):
    """Forgets to undo when it is cancelled at one certain point."""

    async def act(self, state: list[str]) -> None:
        await trio.lowlevel.checkpoint()
        state.append("open")
        await trio.lowlevel.checkpoint()
        state.remove("open")

    async def check(self, state: list[str]) -> None:
        assert state == []


def test_a_broken_invariant_is_found_and_its_point_named() -> None:
    with pytest.raises(AssertionError) as caught:
        cut_everywhere(_Leaky())
    assert "_Leaky was cut at point" in caught.value.__notes__[0]


class _LosesFile(_Counting):
    """Leaves a file open when it is cancelled."""

    def __init__(self) -> None:
        self.files: list[object] = []

    async def act(self, state: list[str]) -> None:
        file = Path(__file__).open()  # noqa: ASYNC230, SIM115  # that it stays open is the point
        self.files.append(file)
        await trio.lowlevel.checkpoint()
        file.close()


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs a system that lists open files")
def test_an_open_file_is_found() -> None:
    scenario = _LosesFile()
    with pytest.raises(AssertionError, match="files are open"):
        cut_everywhere(scenario)
    for file in scenario.files:
        file.close()  # type: ignore[attr-defined]


class _Hangs(_Counting):
    """Never ends once it was cancelled."""

    async def check(self, state: list[str]) -> None:
        if len(state) == 5:
            await trio.sleep_forever()


def test_a_hang_is_found() -> None:
    with pytest.raises(trio.TooSlowError):
        cut_everywhere(_Hangs())


def test_a_disarmed_cut_counts_no_more() -> None:
    cut = Cut(3)

    async def main() -> None:
        with trio.CancelScope() as scope:
            cut.arm(scope)
            await trio.lowlevel.checkpoint()
            cut.disarm()
            for _ in range(10):
                await trio.lowlevel.checkpoint()

    trio.run(main, clock=MockClock(autojump_threshold=0), instruments=[cut])
    assert not cut.fired
    assert cut.steps < 3
