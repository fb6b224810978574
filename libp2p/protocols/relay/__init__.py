"""Circuit relay: reach peers that cannot be dialled, and be reached where nobody can dial.

:class:`RelayServer` serves as a relay; :class:`RelayClient` uses relays, to dial and to be dialled. What goes through a
relay is secured end to end: the relay sees who talks to whom, and how much, and nothing else.

:class:`RelayV1` adds version 1, for old peers.

Source: libp2p/specs relay/circuit-v2, relay/circuit-v1.
"""

from ._client import RelayClient, RelayClientConfig, Reservation, reserve
from ._codec import CircuitLimit, Status, Voucher
from ._errors import CircuitRefused, ReservationRefused
from ._hop import HOP, RELAYS, STOP, RelayServer
from ._reservations import RelayLimits
from ._v1 import RELAY_V1, StatusV1
from ._v1_service import RelayV1

__all__ = [
    "HOP",
    "RELAYS",
    "RELAY_V1",
    "STOP",
    "CircuitLimit",
    "CircuitRefused",
    "RelayClient",
    "RelayClientConfig",
    "RelayLimits",
    "RelayServer",
    "RelayV1",
    "Reservation",
    "ReservationRefused",
    "Status",
    "StatusV1",
    "Voucher",
    "reserve",
]
