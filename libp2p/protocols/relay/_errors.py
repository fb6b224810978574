"""What can go wrong with relays."""

from __future__ import annotations

from multiaddr import Multiaddr

from ...errors import ServiceError, TransportError
from ...peer_id import PeerId
from ._codec import status_name


class ReservationRefused(ServiceError):
    """A relay gave no reservation that can be used.

    Attributes:
        relay: who was asked.
        reason: why not, for people.
        status: the relay's answer; None when it did not say no.
    """

    def __init__(self, relay: PeerId, reason: str, *, status: int | None = None) -> None:
        super().__init__(relay, reason, status)
        self.relay = relay
        self.reason = reason
        self.status = status

    def __str__(self) -> str:
        return f"no reservation with the relay {self.relay}: {self.reason}"


class CircuitRefused(TransportError):
    """A relay would not connect us.

    Attributes:
        status: its answer, one of :class:`~libp2p.protocols.relay.Status`, or a number that is not known here; of a
            relay that speaks version 1 alone, one of :class:`~libp2p.protocols.relay.StatusV1`.
    """

    def __init__(self, addr: Multiaddr, status: int | None) -> None:
        super().__init__(addr, f"the relay answered {status_name(status)}")
        self.status = status
