"""The guard against two tasks on one side of a stream."""

from __future__ import annotations

import trio


class ConflictGuard:
    """Raises ``trio.BusyResourceError`` where two tasks would interleave.

    ``with guard:`` around the whole operation, awaits included. Trio runs one task at a time, so a flag is enough; a
    lock would make the second task wait, which hides the bug and costs a task switch.

    Args:
        message: what the loser reads, for example ``"another task is sending on this stream"``.
    """

    __slots__ = ("_held", "_message")

    def __init__(self, message: str) -> None:
        self._message = message
        self._held = False

    @property
    def held(self) -> bool:
        """Whether a task is inside."""
        return self._held

    def __enter__(self) -> None:
        if self._held:
            raise trio.BusyResourceError(self._message)
        self._held = True

    def __exit__(self, *exc_info: object) -> None:
        self._held = False
