"""Connections, as muxers make them, and as protocols see them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import trio
from trio.abc import AsyncResource

if TYPE_CHECKING:
    from multiaddr import Multiaddr

    from ..crypto.keys import PublicKey
    from ..peer_id import PeerId
    from ._bytes import Direction, ProtocolId
    from ._security import SecureStream
    from ._streams import MuxedStream, Stream


class MuxedConnection(AsyncResource, ABC):
    """Many streams over one secure connection."""

    @abstractmethod
    async def run(
        self, accept: Callable[[MuxedStream], None], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Read and write until the connection ends. Returns when it ended in order.

        Args:
            accept: called, synchronously, for every stream the peer opens. It must not block; it starts a task that
                handles the stream, or resets it.

        Raises:
            RemoteProtocolError: the peer broke the muxer's rules.
            ConnectionClosed: the connection was lost.
        """

    @property
    @abstractmethod
    def can_open(self) -> bool:
        """Whether :meth:`open_stream` would succeed without waiting."""

    @abstractmethod
    async def open_stream(self) -> MuxedStream:
        """Open a stream. Waits while the peer has too many unacknowledged ones; otherwise not a checkpoint.

        Raises:
            ConnectionClosed: the connection is gone or going away.
            LimitExceeded: too many streams are open.
        """

    @abstractmethod
    def abort(self, code: int = 0) -> None:
        """End the connection at once. Synchronous, idempotent."""


class SecureMuxedConnection(MuxedConnection, ABC):
    """What transports with built-in security and muxing (QUIC) produce directly."""

    remote_peer: PeerId
    remote_key: PublicKey
    local_addr: Multiaddr
    remote_addr: Multiaddr


class Muxer(Protocol):
    """Makes muxed connections."""

    protocol: ProtocolId

    def mux(self, stream: SecureStream, *, direction: Direction, initial: bytes = b"") -> MuxedConnection:
        """Wrap ``stream``, which the result owns. ``initial`` are bytes of the peer already read from it."""
        ...


class Connection(Protocol):
    """What protocols see of a connection."""

    @property
    def peer(self) -> PeerId:
        """Who is at the other end, proved by the handshake."""
        ...

    @property
    def remote_key(self) -> PublicKey:
        """The other end's public key, proved by the handshake."""
        ...

    @property
    def direction(self) -> Direction:
        """Who dialled."""
        ...

    @property
    def local_addr(self) -> Multiaddr:
        """Our end."""
        ...

    @property
    def remote_addr(self) -> Multiaddr:
        """Their end, as seen here, without ``/p2p``."""
        ...

    @property
    def limited(self) -> bool:
        """Whether a relay bounds its bytes or duration."""
        ...

    @property
    def stream_count(self) -> int:
        """Streams it carries now."""
        ...

    async def open_stream(self, *protocols: ProtocolId, allow_limited: bool = False) -> Stream:
        """Open a stream for the first of ``protocols`` the peer speaks.

        Args:
            protocols: at least one, best first.
            allow_limited: whether a few bytes for a short time are enough, as a relay with limits gives.

        Raises:
            NegotiationError: the peer speaks none of them.
            LimitedConnection: the connection is :attr:`limited`, and that is not allowed.
            LimitExceeded: a stream limit of ours.
            ConnectionClosed: the connection is gone.
        """
        ...

    async def aclose(self) -> None:
        """Close it, telling the peer."""
        ...
