"""What a host runs, and what finds peers, providers and values for it."""

from __future__ import annotations

from abc import ABC
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, ClassVar, Protocol

import trio

if TYPE_CHECKING:
    from multiaddr import Multiaddr

    from ..metrics import Metric
    from ..peer_id import PeerId
    from ._bytes import ProtocolId
    from ._host import Host
    from ._streams import StreamHandler
    from ._transports import Transport


class Service(ABC):  # noqa: B024 - every method has a default; the class is what services share
    """A protocol with a life of its own: handlers for inbound streams and, if needed, background work.

    Each host needs an object of its own.

    Attributes:
        reuses_ports: whether it needs TCP to dial from the ports it listens on, as hole punching does.
    """

    reuses_ports: ClassVar[bool] = False

    @property
    def handlers(self) -> Mapping[ProtocolId, StreamHandler]:
        """Handlers the host installs while the service runs."""
        return {}

    @property
    def limited_protocols(self) -> frozenset[ProtocolId]:
        """Those of :attr:`handlers` that may run over relayed connections with limits."""
        return frozenset()

    @property
    def transports(self) -> Sequence[Transport]:
        """Ways to reach peers that come with the service, added to those of the host."""
        return ()

    async def run(self, host: Host, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Set up, ``task_status.started()``, work, tear down. Returning is fine; raising ends the host."""
        task_status.started()

    def measure(self) -> Iterable[Metric]:
        """What it has counted, for operators. Called when somebody asks, never while it works."""
        return ()


class Discovery(Protocol):
    """Finding peers that are there for the same thing, by its name: rendezvous points, a DHT, a local network.

    Both methods raise ``ValueError`` for a name that cannot be one where it looks. What fails on the way is tried again
    inside, or raised as :class:`~libp2p.errors.Libp2pError`.
    """

    def advertise(self, name: str, /) -> AbstractAsyncContextManager[None]:
        """Be found under ``name`` while the block is open. Entering it need not wait until that is so."""
        ...

    def find_peers(self, name: str, /) -> AbstractAsyncContextManager[trio.abc.ReceiveChannel[PeerId]]:
        """Peers under ``name``, as they are found; their addresses are in the peerstore.

        The channel may end, or go on with who comes later. The same peer may come again; this host does not.
        """
        ...


class Routing(Protocol):
    """Finding peers, providers and values."""

    async def find_peer(self, peer: PeerId) -> Sequence[Multiaddr]:
        """Addresses of ``peer``; empty when nobody knows. It may be connected when this returns."""
        ...

    async def provide(self, key: bytes) -> None:
        """Announce that this host has ``key``, now and again as long as it runs.

        Raises:
            ServiceError: nobody took the announcement.
        """
        ...

    def find_providers(
        self, key: bytes, *, count: int | None = None
    ) -> AbstractAsyncContextManager[trio.abc.ReceiveChannel[PeerId]]:
        """Providers of ``key`` as they are found, each once; their addresses are in the peerstore.

        Leaving the block ends the search.

        Args:
            count: how many are enough.
        """
        ...

    async def get_value(self, key: bytes) -> bytes:
        """The best value under ``key``."""
        ...

    def search_value(self, key: bytes) -> AbstractAsyncContextManager[trio.abc.ReceiveChannel[bytes]]:
        """Values under ``key`` as they are found, each better than the one before; the last is the best.

        Leaving the block ends the search.
        """
        ...

    async def put_value(self, key: bytes, value: bytes) -> None:
        """Store ``value`` under ``key``."""
        ...
