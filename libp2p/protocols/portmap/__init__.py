"""Port mapping: have the router in front let peers in, by PCP, NAT-PMP or UPnP.

Off by default, as in go-libp2p: ``open_host(services=[PortMapping()])``. Only IPv4 is mapped.
"""

from __future__ import annotations

from ._machine import PortMapConfig
from ._search import RouterPlace, find_routers
from ._service import PortMapping
from ._types import (
    Lease,
    NoGateway,
    Port,
    PortMappingChanged,
    PortMappingError,
    Router,
    RouterRefused,
    RouterSilent,
    Transport,
)

__all__ = [
    "Lease",
    "NoGateway",
    "Port",
    "PortMapConfig",
    "PortMapping",
    "PortMappingChanged",
    "PortMappingError",
    "Router",
    "RouterPlace",
    "RouterRefused",
    "RouterSilent",
    "Transport",
    "find_routers",
]
