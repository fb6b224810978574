"""The bounds of a yamux connection. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from .._table import MuxLimits
from ._codec import INITIAL_WINDOW, MAX_U32


@dataclass(frozen=True, slots=True, kw_only=True)
class YamuxConfig(MuxLimits):
    """Bounds and times of one yamux connection. Sizes in bytes, times in seconds."""

    initial_window: int = INITIAL_WINDOW
    """Receive window of a new stream. What exceeds the specification's 256 KiB is announced with the first frame."""
    max_window: int = 16 * 1024 * 1024
    """Ceiling of a stream's receive window as it grows (go's and js's ceiling)."""
    max_extra_window: int = 32 * 1024 * 1024
    """How much all windows together may have grown: growing on many streams must not promise memory without end."""
    grow_within_rtts: float = 4.0
    """A window doubles when half of it is consumed within this many round trips (go's figure)."""
    grow_within: float = 0.002
    """... or within this many seconds, where round trips take less than a reader's turn. So a stream's window holds at
    most some milliseconds, or eight round trips, of what its reader takes: that is how long others may have to wait
    behind it, and much more would not make it faster."""
    rtt_interval: float = 30.0
    """How old the round-trip time may be when a window update falls due; beyond, it is measured again (go)."""

    ack_backlog: int = 256
    """Own streams the peer has not acknowledged (yamux specification, "ACK backlog"; go's accept queue)."""
    max_pongs: int = 16
    """Answers to pings waiting to be sent. A peer that pings on without reading them loses the connection."""

    keepalive: float | None = 30.0
    """Silence of the peer after which it is pinged (go, js); None for never."""
    ping_timeout: float = 20.0
    """How long the peer may then stay silent before it counts as dead. Any byte is a sign of life."""

    def __post_init__(self) -> None:
        MuxLimits.__post_init__(self)
        if not INITIAL_WINDOW <= self.initial_window <= self.max_window <= MAX_U32:
            raise ValueError("256 KiB <= initial_window <= max_window < 4 GiB must hold")
        for name in ("rtt_interval", "ack_backlog", "max_pongs", "ping_timeout"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive")
        for name in ("max_extra_window", "grow_within_rtts", "grow_within"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must not be negative")
        if self.keepalive is not None and not self.keepalive > 0:
            raise ValueError("keepalive must be positive or None")
