"""Cancellation at every scheduling point (case X1).

A *scenario* says how to set things up, what to do, and what must hold afterwards. :func:`cut_everywhere` runs it again
and again, each time in a Trio run of its own, and cancels the doing at the first scheduling point, at the second, and
so on, until a run completes before its cut comes. After every cut the scenario checks its invariants, and does the
same thing once more, uncut, on what is left: it must succeed.

A scheduling point is a step of any task, so that a cut falls between any two things that happen, on either side of a
connection. Scheduling is deterministic while this runs, so that the n-th point of a run is that of the run before.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Generic, TypeVar

import trio
from trio.testing import MockClock

from .deterministic import deterministic_scheduling

__all__ = ["Cut", "Scenario", "cut_everywhere"]

StateT = TypeVar("StateT")

_SETTLE = 300.0
"""Virtual seconds after which a scenario that hangs is given up."""
_MAX_CUTS = 20_000
"""More points than any scenario should have."""


class Cut(trio.abc.Instrument):
    """Cancels a scope at the n-th scheduling point after it was armed.

    Args:
        at: at which point, counted from 1.

    Attributes:
        steps: points so far.
        fired: whether the scope was cancelled.
    """

    def __init__(self, at: int) -> None:
        self.at = at
        self.steps: int = 0
        self.fired: bool = False
        self._scope: trio.CancelScope | None = None

    def arm(self, scope: trio.CancelScope) -> None:
        """Count from here, and cancel ``scope``."""
        self._scope = scope

    def disarm(self) -> None:
        """Count no more."""
        self._scope = None

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """A scheduling point."""
        if self._scope is not None:
            self.steps += 1
            if self.steps == self.at:
                self.fired = True
                self._scope.cancel()


class Scenario(ABC, Generic[StateT]):
    """Something that can be cancelled."""

    @abstractmethod
    def setup(self) -> AbstractAsyncContextManager[StateT]:
        """What there is before and after, for example two hosts. Leaving it must find nothing left behind."""

    @abstractmethod
    async def act(self, state: StateT) -> None:
        """What is cancelled. Must not catch the cancellation."""

    async def check(self, state: StateT) -> None:
        """What must hold after a cut; by default, whatever ``setup`` checks when it is left."""


def cut_everywhere(scenario: Scenario[StateT], *, seed: int = 0, every: int = 1) -> int:
    """Cancel ``scenario`` at each of its scheduling points.

    Args:
        scenario: what to cancel.
        seed: decides the order in which tasks run.
        every: cut only at every so many points, for long scenarios.

    Returns:
        How many cuts there were.

    Raises:
        Exception: what a run raised, with a note that says at which point it was cut.
        AssertionError: a file was left open.
    """
    cuts, at = 0, 1
    while at <= _MAX_CUTS:
        cut = Cut(at)
        before = _open_files()
        with deterministic_scheduling(seed):
            try:
                trio.run(_run, scenario, cut, clock=MockClock(autojump_threshold=0), instruments=[cut])
            except BaseException as exc:
                exc.add_note(f"{type(scenario).__name__} was cut at point {at}, seed {seed}")
                raise
        if (left := _open_files() - before) > 0:
            raise AssertionError(f"{left} files are open after {type(scenario).__name__} was cut at point {at}")
        if not cut.fired:
            return cuts
        cuts += 1
        at += every
    raise AssertionError(f"{type(scenario).__name__} has more than {_MAX_CUTS} points")


async def _run(scenario: Scenario[StateT], cut: Cut) -> None:
    with trio.fail_after(_SETTLE):
        async with scenario.setup() as state:
            with trio.CancelScope() as scope:
                cut.arm(scope)
                try:
                    await scenario.act(state)
                finally:
                    cut.disarm()
            await scenario.check(state)
            if cut.fired:
                await scenario.act(state)
                await scenario.check(state)


def _open_files() -> int:
    folder = Path("/proc/self/fd")
    return sum(1 for _ in folder.iterdir()) if folder.is_dir() else 0
