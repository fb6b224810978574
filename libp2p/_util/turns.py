"""Who may send next, when more wait than there is room for."""

from __future__ import annotations

from collections import OrderedDict

import trio
from trio.lowlevel import Abort, RaiseCancelT, current_task, reschedule, wait_task_rescheduled


class Turns:
    """Tasks that wait to send on one connection, in the order in which they came; whoever had a turn passes it on."""

    __slots__ = ("_waiting",)

    def __init__(self) -> None:
        # By who sends. Bounded by the streams there may be, and whoever closes the connection.
        self._waiting: OrderedDict[object, trio.lowlevel.Task] = OrderedDict()

    def __len__(self) -> int:
        return len(self._waiting)

    async def wait(self, sender: object) -> None:
        """Wait for a turn. ``sender`` waits once at a time."""
        self._waiting[sender] = current_task()

        def abort(_: RaiseCancelT) -> Abort:
            del self._waiting[sender]
            return Abort.SUCCEEDED

        await wait_task_rescheduled(abort)

    def leave(self, sender: object) -> None:
        """Let ``sender`` go, if it waits, out of turn: it has nothing to send any more."""
        task = self._waiting.pop(sender, None)
        if task is not None:
            reschedule(task)

    def pass_on(self) -> None:
        """Let the next one go, if anybody waits."""
        if self._waiting:
            reschedule(self._waiting.popitem(last=False)[1])

    def end(self) -> None:
        """Let everybody go."""
        while self._waiting:
            self.pass_on()
