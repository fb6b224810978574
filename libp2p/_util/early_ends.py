"""The ends of first streams, which wait for a sign of life of the peer."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .stream import MachineStream


class EarlyEnds:
    """Until the peer has sent something on a stream, or opened one, the ends of optimistic streams wait for that.

    js resets a stream that ends before its connection is set up, and whatever was said on it is lost. The wait cannot
    last: no listener waits for the end of a stream before it answers a negotiation.
    """

    __slots__ = ("_waiting", "awake")

    def __init__(self) -> None:
        self.awake = False
        # By the id of the stream: whether it was closed as well. Bounded by the streams there may be.
        self._waiting: dict[int, bool] = {}

    def delay(self, stream: MachineStream, *, closed: bool) -> bool:
        """Whether the end of ``stream`` has to wait; it is kept then."""
        if self.awake or not stream.optimistic:
            return False
        self._waiting[stream.id] = closed
        return True

    def drop(self, stream_id: int) -> None:
        """The stream was reset."""
        self._waiting.pop(stream_id, None)

    def wake(self) -> dict[int, bool]:
        """The peer is awake, or need not be any more. Returns the streams to end, and whether they were closed."""
        self.awake = True
        waiting, self._waiting = self._waiting, {}
        return waiting
