"""An event that costs little while nobody waits for it: every connection has some, and most are never waited for."""

from __future__ import annotations

import trio


class Once:
    """As :class:`trio.Event`, of a tenth of its size until the first task waits."""

    __slots__ = ("_event", "_set")

    def __init__(self) -> None:
        self._set = False
        self._event: trio.Event | None = None

    def is_set(self) -> bool:
        """Whether it has happened."""
        return self._set

    def set(self) -> None:
        """Let everybody go who waits, now or later. Idempotent."""
        self._set = True
        if self._event is not None:
            self._event.set()
            self._event = None

    async def wait(self) -> None:
        """Wait until :meth:`set` was called; a checkpoint in any case."""
        if self._set:
            await trio.lowlevel.checkpoint()
            return
        if self._event is None:
            self._event = trio.Event()
        await self._event.wait()
