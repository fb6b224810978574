"""The swarm's configuration."""

from __future__ import annotations

from dataclasses import dataclass, field

from ._black_hole import BlackHoleConfig
from ._connection import StreamConfig
from ._dial_plan import BackoffConfig
from ._dial_rank import RankConfig
from ._limits import LimitsConfig
from ._trim import TrimConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class SwarmConfig:
    """How connections are made, bounded and ended.

    Attributes:
        dial_timeout: seconds for one address, from the first packet to the muxer (go: 15).
        accept_timeout: seconds for an inbound connection, likewise; an absolute deadline that no byte extends.
        close_timeout: seconds that closing all connections may take when the host ends.
        allow_private: dial private and loopback addresses that were heard of, by whatever way; for a laboratory or a
            local network. Without it only those are dialled that the caller gives, and those of machines on which the
            peer was connected before.
        limits: what is refused.
        trim: when connections that nobody needs are closed.
    """

    dial_timeout: float = 15.0
    accept_timeout: float = 15.0
    close_timeout: float = 2.0
    allow_private: bool = False
    streams: StreamConfig = field(default_factory=StreamConfig)
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    rank: RankConfig = field(default_factory=RankConfig)
    backoff: BackoffConfig = field(default_factory=BackoffConfig)
    black_holes: BlackHoleConfig = field(default_factory=BlackHoleConfig)
    trim: TrimConfig = field(default_factory=TrimConfig)

    def __post_init__(self) -> None:
        if min(self.dial_timeout, self.accept_timeout) <= 0 or self.close_timeout < 0:
            raise ValueError("timeouts must be positive")
