"""Streams of bytes, before anybody has proved who he is."""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from trio.abc import Stream as ByteStream

if TYPE_CHECKING:
    from multiaddr import Multiaddr

Buffer: TypeAlias = bytes | bytearray | memoryview
"""What can be sent: bytes that nobody changes before the call returns."""
ProtocolId: TypeAlias = str
"""The name of a protocol, as ``/chat/1.0.0``."""


class Direction(enum.Enum):
    """Which side started a connection or a stream."""

    OUTBOUND = "outbound"
    INBOUND = "inbound"


class DirectStream(ByteStream, ABC):
    """A byte stream that can also be used without a task switch, for the layers that batch.

    The non-blocking methods never wait and are not checkpoints. One task reads, one task writes.
    """

    __slots__ = ()

    @property
    def kernel(self) -> bool:
        """Whether :meth:`send_nowait` hands bytes to the kernel and touches nothing else, so that it may be called
        outside of any task. False where the other end lives in this process and is woken by it."""
        return True

    @abstractmethod
    def receive_into_nowait(self, buffer: memoryview) -> int:
        """Fill ``buffer`` from its start with what is there. Returns the number of bytes, 0 at the end of the stream.

        Raises:
            trio.WouldBlock: nothing is there; wait with :meth:`wait_readable`.
            trio.BrokenResourceError: the connection is lost.
            trio.ClosedResourceError: the stream was closed here.
        """

    @abstractmethod
    def send_nowait(self, data: Buffer) -> int:
        """Hand the front of ``data`` to the kernel. Returns how many bytes it took.

        The others must come first in the next call: they may be encrypted already.

        Raises:
            trio.WouldBlock: it takes nothing now; wait with :meth:`wait_writable`.
            trio.BrokenResourceError: the connection is lost.
            trio.ClosedResourceError: the stream was closed here.
        """

    @abstractmethod
    async def wait_readable(self) -> None:
        """Wait until :meth:`receive_into_nowait` may succeed."""

    @abstractmethod
    async def wait_writable(self) -> None:
        """Wait until :meth:`send_nowait` may succeed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RawConnection:
    """What TCP, WebSocket, memory and relay transports produce: bytes and two addresses.

    Attributes:
        prepare: what the transport has to say on an accepted connection before ``stream`` can be used; None when there
            is nothing. An accept loop must wait for nobody, so whoever accepted awaits this once, within limits of his
            own. It raises TransportError, and leaves closing to its caller.
        limited: whether a relay bounds its bytes or duration.
    """

    stream: ByteStream
    local_addr: Multiaddr
    remote_addr: Multiaddr
    prepare: Callable[[], Awaitable[None]] | None = None
    limited: bool = False
