"""AutoNAT: whether, and at which addresses, a host can be dialled.

:class:`AutoNat` finds out for its host, by asking peers; :class:`AutoNatServer` tells peers, by dialling them. Both
speak version 2, which tries single addresses and proves what it finds, and version 1.

Source: libp2p/specs autonat/autonat-v1, autonat/autonat-v2.
"""

from ._client import AutoNat, AutoNatConfig, Tried
from ._errors import AutoNatRefused
from ._exchange import AUTONAT, DIAL_BACK, DIAL_REQUEST
from ._limits import AutoNatLimits
from ._reachability import ReachabilityConfig, Voice
from ._schedule import ScheduleConfig
from ._server import AutoNatServer

__all__ = [
    "AUTONAT",
    "DIAL_BACK",
    "DIAL_REQUEST",
    "AutoNat",
    "AutoNatConfig",
    "AutoNatLimits",
    "AutoNatRefused",
    "AutoNatServer",
    "ReachabilityConfig",
    "ScheduleConfig",
    "Tried",
    "Voice",
]
