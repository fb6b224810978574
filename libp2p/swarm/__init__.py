"""The swarm: connections by peer, and how they come and go."""

from ._black_hole import BlackHoleConfig
from ._config import SwarmConfig
from ._connection import Handler, StreamConfig
from ._dial_plan import BackoffConfig
from ._dial_rank import RankConfig
from ._gater import BlockList, Gater
from ._limits import IpNetworkLimit, LimitsConfig, limit_table
from ._swarm import Swarm
from ._trim import TrimConfig

__all__ = [
    "BackoffConfig",
    "BlackHoleConfig",
    "BlockList",
    "Gater",
    "Handler",
    "IpNetworkLimit",
    "LimitsConfig",
    "RankConfig",
    "StreamConfig",
    "Swarm",
    "SwarmConfig",
    "TrimConfig",
    "limit_table",
]
