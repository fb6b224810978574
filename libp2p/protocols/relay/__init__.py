"""Circuit relay: reach peers that cannot be dialled, and be reached where nobody can dial.

:class:`RelayServer` serves as a relay; :class:`RelayClient` uses relays, to dial and to be dialled. What goes through a
relay is secured end to end: the relay sees who talks to whom, and how much, and nothing else.

Source: libp2p/specs relay/circuit-v2.
"""

from ._client import RelayClient, RelayClientConfig, Reservation, reserve
from ._codec import CircuitLimit, Status, Voucher
from ._errors import CircuitRefused, ReservationRefused
from ._hop import HOP, STOP, RelayServer
from ._reservations import RelayLimits

__all__ = [
    "HOP",
    "STOP",
    "CircuitLimit",
    "CircuitRefused",
    "RelayClient",
    "RelayClientConfig",
    "RelayLimits",
    "RelayServer",
    "Reservation",
    "ReservationRefused",
    "Status",
    "Voucher",
    "reserve",
]
