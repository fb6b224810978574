"""Trio's scheduler without chance.

Trio runs tasks that are ready in random order, on purpose: nobody shall rely on one. A failing test of many hosts needs
the same order twice. Trio has a switch for that, made for its own tests of hypothesis strategies: with it, tasks are
sorted by age and then shuffled by a generator that can be seeded. The switch is semi-private; this module is the only
place that touches it, and fails loudly where Trio has moved it. Trio itself says that timers which end at the same time
are not covered yet.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import trio

__all__ = ["deterministic_scheduling"]


@contextmanager
def deterministic_scheduling(seed: int = 0) -> Iterator[None]:
    """Let every Trio run inside the context schedule its tasks in an order that ``seed`` decides.

    Enter it outside ``trio.run``, or before the tasks start whose order matters.

    Raises:
        RuntimeError: this version of Trio has no such switch.
    """
    core: Any = getattr(trio, "_core", None)
    runner = getattr(core, "_run", None)
    rng = getattr(runner, "_r", None)
    before = getattr(runner, "_ALLOW_DETERMINISTIC_SCHEDULING", None)
    if runner is None or before is None or not isinstance(rng, random.Random):
        raise RuntimeError(f"trio {trio.__version__} cannot be made deterministic this way")
    state = rng.getstate()
    runner._ALLOW_DETERMINISTIC_SCHEDULING = True
    rng.seed(seed)
    try:
        yield
    finally:
        runner._ALLOW_DETERMINISTIC_SCHEDULING = before
        rng.setstate(state)
