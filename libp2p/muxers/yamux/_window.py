"""A yamux stream's state, and how its receive window grows. Pure.

**Accounting.** For a stream whose end has not come, at any moment

    recv_window + (rest of a frame being received) + buffered + returned == window

where ``recv_window`` is what the peer may still send, ``buffered`` was delivered and not consumed, ``returned`` was
consumed and not yet given back to the peer. A window update gives back all of ``returned``, plus growth, as soon as
that is half the window: rarely enough to be cheap, early enough that the peer has the other half to go on with.

**Growth.** A window of W bytes lets through W per round trip. When half of it is consumed within a few round trips
since the last update, the window may be what holds the peer back, and it doubles. A slow reader never gets there, so
windows grow only for applications that keep up, no further than they need, and what they may buffer in total has its
own bound. The round trip that counts is the one without queues, or windows and queues would make each other grow.
"""

from __future__ import annotations

from .._table import StreamEntry
from ._codec import ACK, INITIAL_WINDOW, SYN
from ._config import YamuxConfig


class StreamState(StreamEntry):
    """One stream and its two windows."""

    __slots__ = ("epoch", "flags", "recv_window", "returned", "send_peak", "send_window", "unacked", "window")

    def __init__(self, stream_id: int, *, inbound: bool, window: int) -> None:
        super().__init__(stream_id, inbound=inbound, plain=inbound)
        self.flags = ACK if inbound else SYN
        """What the next frame has to carry: SYN or ACK before the first one, 0 after it."""
        self.unacked = not inbound
        """The peer has not reacted to this stream of ours yet; not ``plain`` until then."""
        self.send_window = INITIAL_WINDOW
        self.send_peak = INITIAL_WINDOW
        """The most the peer's window can be, all given back that is under way: only what exceeds it is a new grant."""
        self.recv_window = INITIAL_WINDOW
        self.window = window
        self.returned = window - INITIAL_WINDOW
        """A larger window than the peer assumes begins as credit not given yet."""
        self.epoch = -1.0
        """When what is ``returned`` began to accumulate; negative before the first byte was consumed."""


class WindowTuner:
    """Decides by how much receive windows grow, for one connection."""

    __slots__ = ("_config", "_extra", "rtt")

    def __init__(self, config: YamuxConfig) -> None:
        self._config = config
        self._extra = 0
        self.rtt = 0.0
        """The round trip as it is without a queue; 0 before the first measurement."""

    def measured(self, rtt: float) -> None:
        """Take a round-trip time.

        What exceeds the shortest one is mostly time spent in queues, which larger windows would only make longer, so
        the estimate follows downwards at once and upwards by an eighth, and at most to twice of what it was: one ping
        behind a full window would make room for the next one otherwise.
        """
        if rtt < self.rtt or not self.rtt:
            self.rtt = rtt
        else:
            self.rtt = min(self.rtt + (rtt - self.rtt) / 8, self.rtt * 2)

    def grow(self, stream: StreamState, now: float, buffered: int) -> int:
        """Enlarge ``stream``'s window if that is due; return by how much. ``buffered`` is the connection's total."""
        config = self._config
        elapsed = now - stream.epoch
        stream.epoch = now
        if elapsed > self.rtt * config.grow_within_rtts and elapsed > config.grow_within:
            return 0
        if buffered * 2 > config.max_buffered:
            return 0
        extra = min(stream.window, config.max_window - stream.window, config.max_extra_window - self._extra)
        stream.window += extra
        self._extra += extra
        return extra

    def release(self, stream: StreamState) -> None:
        """``stream`` is gone: others may grow in its place."""
        self._extra -= stream.window - self._config.initial_window

    @property
    def extra(self) -> int:
        """What all windows together have grown."""
        return self._extra
