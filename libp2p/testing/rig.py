"""Honest peers that must notice nothing while somebody else misbehaves (section 3.1 of the reliability bar).

A :class:`Rig` watches one host, the *victim*. Canaries, honest hosts, ping it five times a second and have 64 KiB
echoed every second; a sampler looks at memory, tasks and files; an instrument measures the longest step of the event
loop, in CPU time, so that a busy machine does not matter. At the end, :meth:`Rig.verdict` holds all of it against the
case's budget.

It works on both clocks. On a virtual one, times are virtual and tell only of waiting, and steps are as real as ever.
"""

from __future__ import annotations

import gc
import math
import os
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import trio

from ..abc import Host, Stream
from ..errors import Libp2pError
from ..protocols.ping import open_ping

__all__ = ["ECHO", "Budget", "Figures", "Rig", "StepWatch", "echo_once", "open_rig", "rss"]

ECHO = "/libp2p-testing/echo/1.0.0"
"""The protocol id that the rig's hosts serve."""
_ECHO_SIZE = 64 * 1024
_PING_INTERVAL = 0.2
_ECHO_INTERVAL = 1.0
_SAMPLE_INTERVAL = 0.5
_ANSWER_WITHIN = 5.0
"""Seconds after which a canary counts a failure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What a case may cost.

    Attributes:
        memory: bytes the resident set may grow while the attack runs.
        kept: bytes it may have grown when all is over.
        step: seconds of CPU time of the longest step of the event loop.
        ping_p99: seconds that the 99th percentile of pings may lie above the quiet one.
        failures: pings and echoes that may fail.
    """

    memory: float = 32e6
    kept: float = 8e6
    step: float = 0.050
    ping_p99: float = 0.100
    failures: int = 0


@dataclass(slots=True)
class Figures:
    """What a case did cost. Times in seconds, sizes in bytes."""

    pings: int = 0
    echoes: int = 0
    failures: list[str] = field(default_factory=list[str])
    quiet_p99: float = 0.0
    ping_p99: float = 0.0
    memory_peak: float = 0.0
    memory_kept: float = 0.0
    longest_step: float = 0.0
    longest_step_in: str = ""
    tasks_left: int = 0
    files_left: int = 0

    def as_dict(self) -> dict[str, object]:
        """For a report."""
        return asdict(self)


class StepWatch(trio.abc.Instrument):
    """Measures the longest step of any task, in CPU time of the thread.

    Nothing is measured while the thread is traced (coverage, debuggers), which takes several times as long.

    Args:
        ignore: beginnings of the names of tasks that do not count: those of the tests, who prepare attacks and are
            nobody's victim.

    Attributes:
        longest: seconds.
        where: the name of the task that took them.
    """

    def __init__(self, ignore: tuple[str, ...] = ("<test", "tests.")) -> None:
        self.longest: float = 0.0
        self.where: str = ""
        self._ignore = ignore
        self._began = 0.0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """A step begins."""
        self._began = time.thread_time() if sys.gettrace() is None else math.inf

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """A step ends."""
        took = time.thread_time() - self._began
        if took > self.longest and not task.name.startswith(self._ignore):
            self.longest, self.where = took, task.name

    def forget(self) -> None:
        """Begin anew."""
        self.longest = 0.0
        self.where = ""


class Rig:
    """Made by :func:`open_rig`.

    Attributes:
        victim: the host under attack.
        canaries: the honest ones.
        figures: what was measured so far.
    """

    def __init__(self, victim: Host, canaries: Sequence[Host]) -> None:
        self.victim = victim
        self.canaries = canaries
        self.figures: Figures = Figures()
        self._watch = StepWatch()
        self._quiet: list[float] = []
        self._pings: list[float] = []
        self._attacked = False
        self._memory = self._peak = 0.0
        self._before = (0, 0)

    @asynccontextmanager
    async def attack(self) -> AsyncIterator[None]:
        """What happens in here is the attack; what it costs counts, and what it leaves."""
        gc.collect()
        self._memory = self._peak = rss()
        self._before = (_tasks(), _files())
        self._watch.forget()
        self._attacked = True
        yield
        self._sample()
        self.figures.longest_step, self.figures.longest_step_in = self._watch.longest, self._watch.where

    def _sample(self) -> None:
        self._peak = max(self._peak, rss())

    def verdict(self, budget: Budget | None = None) -> Figures:
        """Hold everything against ``budget``. Call it when the attacker has gone and things have settled.

        Raises:
            AssertionError: something exceeded it; all that did is in the message.
        """
        budget = budget or Budget()
        figures = self._finish()
        rise = figures.ping_p99 - figures.quiet_p99
        problems = [
            text
            for wrong, text in (
                (not figures.pings or not figures.echoes, "the canaries did nothing"),
                (len(figures.failures) > budget.failures, f"canaries failed: {figures.failures[:5]}"),
                (rise > budget.ping_p99, f"ping p99 rose by {rise:.3f} s"),
                (figures.memory_peak > budget.memory, f"memory grew by {figures.memory_peak / 1e6:.1f} MB"),
                (figures.memory_kept > budget.kept, f"{figures.memory_kept / 1e6:.1f} MB were not given back"),
                (
                    figures.longest_step > budget.step,
                    f"a step of {figures.longest_step_in} took {figures.longest_step * 1e3:.0f} ms",
                ),
                # An echo may be under way at either moment, with a task or two on each side.
                (figures.tasks_left > 3 * len(self.canaries), f"{figures.tasks_left} tasks are left"),
                (figures.files_left > 0, f"{figures.files_left} files are left"),
            )
            if wrong
        ]
        if problems:
            raise AssertionError("; ".join(problems) + f"\n{figures}")
        return figures

    def _finish(self) -> Figures:
        gc.collect()
        figures = self.figures
        figures.quiet_p99, figures.ping_p99 = _p99(self._quiet), _p99(self._pings)
        figures.memory_peak, figures.memory_kept = self._peak - self._memory, rss() - self._memory
        figures.tasks_left = max(0, _tasks() - self._before[0])
        figures.files_left = max(0, _files() - self._before[1])
        return figures

    # --- canaries

    async def _ping(self, canary: Host) -> None:
        async with open_ping(canary, self.victim.local_peer, timeout=_ANSWER_WITHIN) as session:
            while True:
                try:
                    rtt = await session.once()
                    (self._pings if self._attacked else self._quiet).append(rtt)
                    self.figures.pings += 1
                except (Libp2pError, trio.BrokenResourceError) as exc:
                    self.figures.failures.append(f"ping: {exc!r}")
                await trio.sleep(_PING_INTERVAL)

    async def _echo(self, canary: Host) -> None:
        data = os.urandom(_ECHO_SIZE)
        while True:
            try:
                with trio.fail_after(_ANSWER_WITHIN):
                    if await echo_once(canary, self.victim, data) == data:
                        self.figures.echoes += 1
                    else:
                        self.figures.failures.append("echo: other bytes came back")
            except* (Libp2pError, trio.BrokenResourceError, trio.TooSlowError) as group:
                self.figures.failures += [f"echo: {exc!r}" for exc in group.exceptions]
            await trio.sleep(_ECHO_INTERVAL)

    async def _sampling(self) -> None:
        while True:
            await trio.sleep(_SAMPLE_INTERVAL)
            self._sample()


@asynccontextmanager
async def open_rig(victim: Host, canaries: Sequence[Host], *, quiet: float = 2.0) -> AsyncIterator[Rig]:
    """Let ``canaries`` connect to ``victim`` and do what they do while the context is open.

    Args:
        victim: the host under attack; it serves ping, and :data:`ECHO` from now on.
        canaries: honest hosts, usually three.
        quiet: seconds to look at how it is without an attack.
    """
    rig = Rig(victim, canaries)
    registration = victim.handle(ECHO, _answer)
    trio.lowlevel.add_instrument(rig._watch)
    try:
        with registration:
            async with trio.open_nursery() as nursery:
                for canary in canaries:
                    await canary.connect(victim.addrs[0])
                    nursery.start_soon(rig._ping, canary)
                    nursery.start_soon(rig._echo, canary)
                nursery.start_soon(rig._sampling)
                await trio.sleep(quiet)
                yield rig
                nursery.cancel_scope.cancel()
    finally:
        trio.lowlevel.remove_instrument(rig._watch)


async def _answer(stream: Stream) -> None:
    async for chunk in stream:
        await stream.send_all(chunk)


async def echo_once(asking: Host, answering: Host, data: bytes) -> bytes:
    """Have ``data`` echoed by a victim; returns what came back."""
    async with await asking.open_stream(answering.local_peer, ECHO) as stream, trio.open_nursery() as nursery:
        nursery.start_soon(_send, stream, data)
        return b"".join([bytes(chunk) async for chunk in stream])


async def _send(stream: Stream, data: bytes) -> None:
    await stream.send_all(data)
    await stream.send_eof()


def rss() -> float:
    """Bytes of this process in memory; 0 where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return 0.0
    return float(pages * os.sysconf("SC_PAGE_SIZE"))


def _tasks() -> int:
    return trio.lowlevel.current_statistics().tasks_living


def _files() -> int:
    folder = Path("/proc/self/fd")
    return sum(1 for _ in folder.iterdir()) if folder.is_dir() else 0


def _p99(values: list[float]) -> float:
    return sorted(values)[math.ceil(len(values) * 0.99) - 1] if values else 0.0
