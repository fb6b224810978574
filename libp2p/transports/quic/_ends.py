"""When the end of a stream may be sent, with an engine that loses ends.

qh3 2.1.0 forgets a STREAM frame that carries nothing but the end of its stream when it is lost before all data of the
stream is acknowledged: the end is never sent again, and the peer waits for it for ever. Acknowledged in that state, it
is not noted, and the stream is kept for ever. So an end goes with data that was not sent yet, or by itself once
everything sent before is acknowledged; to hear of that soon, the peer is asked.

The engine says nothing of single streams, so acknowledged means: of all packets that were outstanding at some moment,
a *mark*, none is any more, and none was lost since; and at that moment nothing that was lost before waited to be sent
again. When other streams leave the engine no such moment for :data:`PATIENCE` seconds, they are held back.

Pure. Specification: RFC 9000, sections 2.2 and 13.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

PATIENCE = 1.0
"""Seconds that an end waits before it makes the other streams wait for it."""


@dataclass(slots=True)
class _Waiting:
    """An end. ``mark``: the last packet at the mark, and the count of losses; None while there is none."""

    since: float | None = None
    mark: tuple[int, int] | None = None


class LateEnds:
    """Streams of one connection whose end comes after their data has left.

    Args:
        core: the connection in qh3.

    Attributes:
        overdue: whether an end waits for longer than :data:`PATIENCE`.
        asked: whether :meth:`due` has just asked the peer for an acknowledgement.
    """

    def __init__(self, core: Any) -> None:
        self._core = core
        self._waiting: dict[int, _Waiting] = {}
        self._repaired = 0
        self.overdue: bool = False
        self.asked: bool = False

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, stream_id: int) -> None:
        """The stream is to end. Call :meth:`due` after everything that can be sent has been."""
        self._waiting[stream_id] = _Waiting()

    def discard(self, stream_id: int) -> None:
        """The stream ends in another way, or has."""
        self._waiting.pop(stream_id, None)
        self.overdue = self.overdue and bool(self._waiting)

    def due(self, now: float) -> list[int]:
        """Streams that may end now, each once. Something is to be sent afterwards, for them or when :attr:`asked`."""
        core = self._core
        self.asked = False
        losses: int = core.loss_total
        if losses != self._repaired and self._nothing_waits(now):
            self._repaired = losses
        repaired = losses == self._repaired
        if repaired and not core.bytes_in_flight:
            found = list(self._waiting)
        else:
            outstanding = [packet[0] for packet in core.outstanding_application_packets]
            found = self._compare(min(outstanding, default=0), max(outstanding, default=0), losses, repaired)
        for stream_id in found:
            del self._waiting[stream_id]
        self.overdue = False
        for end in self._waiting.values():
            end.since = now if end.since is None else end.since
            self.overdue |= end.since + PATIENCE <= now
        return found

    def _compare(self, first: int, last: int, losses: int, repaired: bool) -> list[int]:
        found: list[int] = []
        for stream_id, end in self._waiting.items():
            if end.mark is not None and end.mark[1] != losses:
                end.mark = None
            if end.mark is not None and first > end.mark[0]:
                found.append(stream_id)
            elif end.mark is None and repaired:
                end.mark = (last, losses)
                if not self.asked:
                    self._core.send_ping(0)  # two packets are acknowledged at once, one may wait
                    self.asked = True
        return found

    def _nothing_waits(self, now: float) -> bool:
        """Whether the engine holds nothing back, for congestion or pacing; it may say so of nothing, too.

        Its first timer only can be seen. That of pacing comes long before the next probe, so it is not behind that.
        """
        core = self._core
        kind, due = core.get_timer()
        room = core.bytes_in_flight + core.active_path[-1] <= core.congestion_window
        return bool(room and (kind == "idle" or (kind == "loss_detection" and due - now > core.smoothed_rtt)))
