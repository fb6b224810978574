"""Ways to reach addresses, and to be reached at them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeAlias

import trio
from trio.abc import AsyncResource

from ..errors import TransportError

if TYPE_CHECKING:
    from multiaddr import Multiaddr

    from ..crypto.keys import PrivateKey
    from ..metrics import Metric
    from ..peer_id import PeerId
    from ._bytes import RawConnection
    from ._connections import SecureMuxedConnection


class Listener(AsyncResource, ABC):
    """One listening address."""

    @property
    @abstractmethod
    def addresses(self) -> Sequence[Multiaddr]:
        """The concrete addresses, with the real port, unspecified hosts not expanded."""

    @abstractmethod
    async def accept(self) -> RawConnection | SecureMuxedConnection:
        """Wait for the next connection.

        Raises:
            OSError: the listener is broken; resource exhaustion is retried by the caller after a pause.
            trio.ClosedResourceError: it was closed here.
        """


class Transport(ABC):
    """A way to reach addresses of some shape."""

    brings_security: ClassVar[bool] = False
    """Whether its connections come secured and muxed, as QUIC's do: a private network cannot go below that."""

    @abstractmethod
    def can_dial(self, addr: Multiaddr) -> bool:
        """Whether :meth:`dial` understands ``addr`` (without its ``/p2p`` suffix)."""

    @abstractmethod
    def can_listen(self, addr: Multiaddr) -> bool:
        """Whether :meth:`listen` understands ``addr``."""

    @abstractmethod
    async def dial(self, addr: Multiaddr, *, peer: PeerId | None) -> RawConnection | SecureMuxedConnection:
        """Connect to ``addr``, which holds no unresolved name.

        Raises:
            TransportError: it did not work, and why.
        """

    @abstractmethod
    async def listen(self, addr: Multiaddr) -> Listener:
        """Listen on ``addr``.

        Raises:
            TransportError: the address cannot be bound.
        """

    async def punch(self, addr: Multiaddr, *, peer: PeerId) -> RawConnection | SecureMuxedConnection:
        """Meet ``peer``, which dials this host from ``addr`` at the same moment, so that the NATs between let both in.

        What comes of it is used as if it had been accepted: the peer dials, and this end listens. Where the peer's
        packets arrive at a listener of this transport (QUIC), the connection is accepted there; this then keeps the way
        open and does not return until it is cancelled.

        Raises:
            TransportError: it did not work, or this transport cannot do it.
        """
        await trio.lowlevel.checkpoint()
        raise TransportError(addr, "this transport punches no holes")

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Whatever the transport does in the background; most do nothing."""
        task_status.started()

    def measure(self) -> Iterable[Metric]:
        """What it has counted."""
        return ()


TransportFactory: TypeAlias = "Callable[[PrivateKey], Transport]"
"""Makes a host's transport from its key; for transports that prove identities themselves, as the class ``Quic``."""


class Resolver(Protocol):
    """Turns names in addresses into IP addresses."""

    async def resolve(self, addr: Multiaddr) -> Sequence[Multiaddr]:
        """Replace ``/dns``, ``/dns4``, ``/dns6`` and ``/dnsaddr`` in ``addr``; other addresses come back as they are.

        Raises:
            ResolveError: nothing was found, or the limits were reached.
        """
        ...
