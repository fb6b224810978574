"""The host's configuration."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..swarm import SwarmConfig
from ._addresses import ObservedConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class HostConfig:
    """Everything that can be set about a host besides its parts.

    Attributes:
        swarm: connections: timeouts, limits, trimming.
        observed: when an address that others see counts as this host's.
        close_grace: seconds that services and connections may spend on farewells when the host closes.
        force_private_network: refuse to start without the key of a private network.
        strict: raise bugs in handlers and validators instead of containing them; for tests.
    """

    swarm: SwarmConfig = field(default_factory=SwarmConfig)
    observed: ObservedConfig = field(default_factory=ObservedConfig)
    close_grace: float = 2.0
    force_private_network: bool = False
    strict: bool = False

    def __post_init__(self) -> None:
        if self.close_grace < 0:
            raise ValueError("close_grace must not be negative")
