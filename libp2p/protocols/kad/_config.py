"""How a node of the DHT behaves."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from ...abc import ProtocolId
from ._addrs import Reach
from ._query import QueryConfig
from ._records import Validator, public_validators
from ._routing_table import TableConfig

KAD: ProtocolId = "/ipfs/kad/1.0.0"
"""The public network."""
LAN_KAD: ProtocolId = "/ipfs/lan/kad/1.0.0"
"""The network that go nodes have beside the public one, for private addresses."""
_HOUR = 3600.0


class Mode(enum.Enum):
    """Whether a node only asks, or also answers."""

    AUTO = "auto"
    """A server while the host announces an address that belongs into the network, otherwise a client."""
    SERVER = "server"
    """Answers, and says so: others keep it in their tables."""
    CLIENT = "client"
    """Asks only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KadConfig:
    """Everything that can be set about a node of the DHT. Times are in seconds."""

    protocol: ProtocolId = KAD
    """Which network: nodes with another protocol id are not seen at all."""
    mode: Mode = Mode.AUTO
    reach: Reach = Reach.ANY
    """Addresses that belong into the network; peers without one are neither kept nor told of."""
    validators: Mapping[str, Validator] = field(default_factory=public_validators)
    """Rules by namespace; keys of any other namespace are refused."""
    query: QueryConfig = field(default_factory=QueryConfig)
    table: TableConfig = field(default_factory=TableConfig)
    quorum: int = 5
    """Values to see before the best is taken for the answer (ours); 0: ask everybody concerned (go)."""
    request_timeout: float = 5.0
    """For one question, its dial included (go: 10 for the answer; ours is half, so that peers that never answer do not
    hold up a lookup, case K8)."""
    lookup_timeout: float = 60.0
    """For a lookup (case K8)."""
    read_timeout: float = 10.0
    """For a peer to send the rest of a message once it has begun, and to take an answer (specification)."""
    idle_timeout: float = 60.0
    """After which a stream on which nothing is asked is closed (go)."""
    messages_per_stream: int = 1000
    """Requests that are answered on one stream (case K1)."""
    idle_streams: int = 256
    """Streams that are kept for the next question (ours)."""
    refresh_interval: float = 600.0
    """Between two lookups of a kind in the routing table's care (specification)."""
    refresh_timeout: float = 10.0
    """For each of these lookups (specification)."""
    checks: int = 64
    """Peers that wait to be asked whether they answer, before they may enter the table (ours)."""
    checks_at_once: int = 8
    corrections_at_once: int = 8
    """Peers with an outdated value that are told of a better one at a time (ours)."""
    value_ttl: float = 48 * _HOUR
    """For which a value is kept (specification)."""
    provider_ttl: float = 48 * _HOUR
    """For which a provider is kept (specification)."""
    provider_addrs_ttl: float = 24 * _HOUR
    """For which its addresses are told (go)."""
    reprovide_interval: float = 22 * _HOUR
    """After which what this host provides is announced again (specification)."""
    provided: int = 1_000_000
    """Keys this host may provide (ours)."""
    found_addrs_ttl: float = 1800.0
    """For which addresses that were found are remembered in the peerstore (specification)."""

    def __post_init__(self) -> None:
        times = (
            *(self.request_timeout, self.lookup_timeout, self.read_timeout, self.idle_timeout, self.refresh_interval),
            *(self.refresh_timeout, self.value_ttl, self.provider_ttl, self.provider_addrs_ttl),
            *(self.reprovide_interval, self.found_addrs_ttl),
        )
        counts = (
            *(self.messages_per_stream, self.idle_streams, self.checks, self.checks_at_once, self.provided),
            self.corrections_at_once,
        )
        if min(times) <= 0 or min(counts) < 1 or self.quorum < 0:
            raise ValueError("times and bounds of the DHT must be positive")


def amino() -> KadConfig:
    """The public network of IPFS: public addresses, and the namespaces ``pk`` and ``ipns``."""
    return KadConfig(protocol=KAD, reach=Reach.PUBLIC)


def lan() -> KadConfig:
    """The network of go nodes on the same site: private addresses, and always a server."""
    return KadConfig(protocol=LAN_KAD, reach=Reach.PRIVATE, mode=Mode.SERVER)
