"""What can go wrong with AutoNAT."""

from __future__ import annotations

from ...errors import ServiceError
from ...peer_id import PeerId


class AutoNatRefused(ServiceError):
    """A server does not try to dial.

    Attributes:
        server: who was asked.
        status: its answer, a number of its version of AutoNAT.
    """

    def __init__(self, server: PeerId, status: int) -> None:
        super().__init__(server, status)
        self.server = server
        self.status = status

    def __str__(self) -> str:
        return f"the AutoNAT server {self.server} answered {self.status}"
