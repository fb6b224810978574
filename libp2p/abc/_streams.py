"""Streams of a connection, as applications see them, and as muxers hand them to the swarm."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, TypeAlias

from trio.abc import HalfCloseableStream

if TYPE_CHECKING:
    from ._bytes import Buffer, Direction, ProtocolId
    from ._connections import Connection


class Stream(HalfCloseableStream, ABC):
    """One bidirectional, flow-controlled stream of a connection.

    ``async with stream:`` closes on normal exit and *resets* on exit by exception: half an answer must not look whole.
    Leaving the block is no checkpoint.

    | situation | ``receive_some`` | ``send_all`` |
    | --- | --- | --- |
    | remote half-closed | the rest, then ``b""`` | works |
    | ``send_eof()`` called | works | ``ClosedResourceError`` |
    | closed or reset here | ``ClosedResourceError`` | ``ClosedResourceError`` |
    | reset by the remote | ``StreamReset`` | ``StreamReset`` |
    | connection lost | buffered data, then ``ConnectionClosed`` | ``ConnectionClosed`` |
    | two tasks on one side | ``BusyResourceError`` | ``BusyResourceError`` |
    """

    __slots__ = ("connection", "direction", "protocol")

    protocol: ProtocolId | None
    """What was negotiated on it; None before that."""
    connection: Connection
    """The connection that carries it."""
    direction: Direction

    @abstractmethod
    def send_nowait(self, data: Buffer) -> None:
        """Queue all of ``data`` if that is possible without waiting.

        What :meth:`send_all` does, without its checkpoint: for many small messages in a row. Whoever sends without end
        has to let others run now and then, and to fall back on ``send_all`` when it has to wait.

        Raises:
            trio.WouldBlock: the peer's window or the connection is full; nothing was queued.
            trio.BusyResourceError: another task is sending.
            trio.ClosedResourceError, StreamReset, ConnectionClosed: as ``send_all``.
        """

    @abstractmethod
    def receive_nowait(self) -> bytes:
        """The next chunk if it is there already; ``b""`` at the end of the stream.

        What :meth:`receive_some` does, without its checkpoint: for whoever takes all that is there at once. Nothing
        more arrives while no other task runs, so a loop of these ends.

        Raises:
            trio.WouldBlock: it is not there yet. Also when the peer's answer to what was negotiated is still to be
                checked: the first read of a stream opened here is ``receive_some``.
            trio.BusyResourceError: another task is receiving.
            trio.ClosedResourceError, StreamReset, ConnectionClosed: as ``receive_some``.
        """

    @abstractmethod
    async def send_eof(self, last: Buffer = b"") -> None:
        """Send ``last``, then half-close: the peer reads to the end, this side goes on reading. Idempotent.

        One step where ``send_all`` and ``send_eof`` are two.

        Raises:
            trio.BusyResourceError: another task is sending.
            trio.ClosedResourceError, StreamReset, ConnectionClosed: as ``send_all``.
        """

    @abstractmethod
    def close(self) -> None:
        """What ``aclose`` does, without its checkpoint. Synchronous, idempotent."""

    @abstractmethod
    def reset(self, code: int = 0) -> None:
        """End both directions at once and tell the peer. Synchronous, idempotent."""

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close, or reset when the block is left by an exception."""
        if exc_type is not None:
            self.reset()
        self.close()


StreamHandler: TypeAlias = Callable[[Stream], Awaitable[None]]
"""Answers on a stream; when it returns the stream is closed, when it raises it is reset."""


class Agreement(Protocol):
    """The end of a negotiation: the protocol, and bytes of the peer that belong to it already."""

    protocol: ProtocolId
    leftover: bytes


class Opening(Protocol):
    """A negotiation that is finished on first use of its stream (multistream's dialer)."""

    def data_to_send(self) -> bytes:
        """What is to be sent; drains."""
        ...

    def receive_data(self, data: bytes | bytearray) -> Agreement | None:
        """Take the peer's bytes; the agreement when it is complete."""
        ...


class MuxedStream(Stream, ABC):
    """A stream as a muxer hands it to the swarm: with what it takes to negotiate on it without extra packets."""

    __slots__ = ("on_end",)

    on_end: Callable[[], None] | None
    """Called once, when the stream is closed or reset, by whichever side, or its connection is lost."""

    @abstractmethod
    def unread(self, data: bytes) -> None:
        """Put bytes that were received back in front of what is read next."""

    @abstractmethod
    def send_now(self, data: bytes) -> None:
        """Queue a few bytes and try to write them, without waiting. For negotiations only: nothing holds it back."""

    @abstractmethod
    def send_with_next(self, data: bytes) -> None:
        """Send ``data`` with the first bytes of the application, or before it waits for input, or when it closes."""

    @abstractmethod
    def begin_optimistic(self, opening: Opening, protocol: ProtocolId) -> None:
        """Use ``protocol`` as if it were agreed; the peer's answer is checked before the first read returns."""
