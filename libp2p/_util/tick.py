"""Writes at the end of a scheduler tick, so that what belongs together leaves together.

A request is ``send_all``, ``send_eof`` and a read; an answer is ``send_all`` and a close. Each is a checkpoint,
so each runs in a tick of its own, and writing in each would cost a packet, a system call, and the peer a wake-up each.
Trio calls an instrument before it waits for events: when nothing is runnable any more, everything small that was queued
since is written at once. While tasks stay runnable it waits no more than :data:`MAX_TICKS` ticks.

The instrument is shared by all connections of a Trio run, and there only while there are any.
"""

from __future__ import annotations

from typing import Protocol

import trio

MAX_TICKS = 2
"""Ticks that small writes wait for more while other tasks keep the scheduler busy."""


class Writer(Protocol):
    """What has something to write."""

    def tick_ended(self, token: trio.lowlevel.TrioToken) -> None:
        """Write now. Runs outside of any task: it may wake none, except through ``token``."""
        ...


class TickEnd(trio.abc.Instrument):
    """Knows who has something to write."""

    def __init__(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        self._waiting: list[Writer] = []
        self._ticks = 0
        self.users = 0

    def add(self, writer: Writer) -> None:
        """Let ``writer`` write when the tick ends; once for each call."""
        if not self._waiting:
            self._ticks = 0
        self._waiting.append(writer)

    def forget_all(self) -> None:
        """Nobody is left; keep no connection alive."""
        self._waiting.clear()

    def before_io_wait(self, timeout: float) -> None:
        """Called by Trio."""
        if not self._waiting:
            return
        if timeout <= 0 and self._ticks < MAX_TICKS:
            self._ticks += 1
            return
        waiting, self._waiting = self._waiting, []
        for writer in waiting:
            writer.tick_ended(self._token)


_current: trio.lowlevel.RunVar[TickEnd] = trio.lowlevel.RunVar("libp2p.muxers.tick_end")


def acquire() -> TickEnd | None:
    """The instrument of this Trio run, installed when there was none. Balance with :func:`release`.

    None under a clock that jumps when nothing is runnable: it would jump over what is still to be written.
    """
    if hasattr(trio.lowlevel.current_clock(), "autojump_threshold"):
        return None
    try:
        tick_end = _current.get()
    except LookupError:
        tick_end = TickEnd()
        _current.set(tick_end)
    if tick_end.users == 0:
        trio.lowlevel.add_instrument(tick_end)
    tick_end.users += 1
    return tick_end


def release(tick_end: TickEnd) -> None:
    """Give the instrument back."""
    tick_end.users -= 1
    if tick_end.users == 0:
        tick_end.forget_all()
        trio.lowlevel.remove_instrument(tick_end)
