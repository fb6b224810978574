"""What there is of a node of the DHT while its service runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import trio

from ...abc import Host
from ._config import KadConfig
from ._lookup import Lookups
from ._members import Members
from ._messenger import Messenger
from ._records import Namespaces
from ._server import Server
from ._store import Store


@dataclass(eq=False, slots=True, kw_only=True)
class Node:
    """The parts of a running node, for what works with several of them.

    Attributes:
        clock: seconds since 1970.
        nursery: of the service; for what goes on after an operation has its result.
        correcting: how many peers are told of better values at a time.
        corrections: how many are told, or wait for it.
    """

    host: Host
    config: KadConfig
    clock: Callable[[], float]
    namespaces: Namespaces
    store: Store
    messenger: Messenger
    members: Members
    lookups: Lookups
    server: Server
    nursery: trio.Nursery
    correcting: trio.CapacityLimiter
    corrections: int = 0
