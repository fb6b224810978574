"""What is mapped, and what came of it. Pure."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ...errors import ServiceError
from ...events import Event


class Transport(enum.Enum):
    """Of which transport a port is; the values are IP's protocol numbers."""

    TCP = 6
    UDP = 17


@dataclass(frozen=True, slots=True)
class Port:
    """A port that this machine listens on."""

    transport: Transport
    number: int

    def __str__(self) -> str:
        return f"{self.transport.name.lower()}/{self.number}"


@dataclass(frozen=True, slots=True)
class Lease:
    """A router's promise to pass on what comes to one of its ports.

    Attributes:
        port: where it leads.
        external_ip: the router's address, IPv4 as text.
        external_port: the router's port.
        lifetime: seconds from when it was granted.
    """

    port: Port
    external_ip: str
    external_port: int
    lifetime: float


class PortMappingError(ServiceError):
    """A router does not map ports, or there is none. Its subclasses say why."""


class NoGateway(PortMappingError):
    """It is not known which router leads to the internet.

    Attributes:
        reason: why not.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return f"no router is known: {self.reason}"


class RouterSilent(PortMappingError):
    """Nobody answered, or with something else than the protocol.

    Attributes:
        protocol: what was asked in: ``"PCP"``, ``"NAT-PMP"`` or ``"UPnP"``.
        reason: what happened instead.
    """

    def __init__(self, protocol: str, reason: str) -> None:
        super().__init__(protocol, reason)
        self.protocol = protocol
        self.reason = reason

    def __str__(self) -> str:
        return f"no router speaks {self.protocol} here: {self.reason}"


class RouterRefused(PortMappingError):
    """The router answered no.

    Attributes:
        protocol: what was asked in.
        code: the protocol's number for why.
        reason: its meaning, or the router's words.
    """

    def __init__(self, protocol: str, code: int, reason: str) -> None:
        super().__init__(protocol, code, reason)
        self.protocol = protocol
        self.code = code
        self.reason = reason

    def __str__(self) -> str:
        return f"the router refused by {self.protocol}: {self.reason} ({self.code})"


@dataclass(slots=True)
class PortMappingChanged(Event):
    """What a router has granted has changed, or why it grants nothing.

    Attributes:
        protocol: how it was asked; None when no router was found.
        leases: all that it has granted.
        error: why there are none, or not all.
    """

    protocol: str | None
    leases: tuple[Lease, ...]
    error: PortMappingError | None


class Router(Protocol):
    """A router that maps ports, in whatever protocol. Methods raise :class:`PortMappingError`."""

    @property
    def protocol(self) -> str:
        """What it speaks: ``"PCP"``, ``"NAT-PMP"`` or ``"UPnP"``."""
        ...

    @property
    def address(self) -> str:
        """The router's IPv4 address on this side."""
        ...

    @property
    def local_ip(self) -> str:
        """This machine's address, as the router sees it."""
        ...

    @property
    def external_ip(self) -> str | None:
        """The router's own address on its other side; None while it has not said."""
        ...

    async def map(self, port: Port, *, wish: int, lifetime: int) -> Lease:
        """Ask for a mapping, or to renew one.

        Args:
            port: where it shall lead.
            wish: the external port that is liked best.
            lifetime: seconds that are liked best.
        """
        ...

    async def unmap(self, lease: Lease) -> None:
        """Give a mapping back."""
        ...

    async def check(self, leases: Sequence[Lease]) -> bool:
        """Whether the router still has what it granted and the address it had. Cheap: one or two requests."""
        ...
