"""Byte streams that behave badly on purpose: they fail at the n-th call, or hand over a byte at a time (case X2)."""

from __future__ import annotations

import dataclasses
import enum
import errno
from collections.abc import Callable, Sequence

import trio
from multiaddr import Multiaddr
from trio.abc import Stream as ByteStream

from ..abc import Buffer, Listener, RawConnection, SecureMuxedConnection, Transport
from ..peer_id import PeerId

__all__ = ["Dribble", "Fault", "Flaky", "Plain", "Plan", "WrappingTransport"]


class Plain(ByteStream):
    """Passes everything on, and hides what else the stream below can do.

    A layer that finds a :class:`~libp2p.abc.DirectStream` takes its fast path; over this it takes the other one.

    Attributes:
        below: the stream that is wrapped, and owned.
    """

    def __init__(self, below: ByteStream) -> None:
        self.below = below

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """As in Trio."""
        return bytes(await self.below.receive_some(max_bytes))

    async def send_all(self, data: Buffer) -> None:
        """As in Trio."""
        await self.below.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """As in Trio."""
        await self.below.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Close the stream below."""
        await self.below.aclose()


class Dribble(Plain):
    """Hands over at most ``size`` bytes at a time, whatever is there."""

    def __init__(self, below: ByteStream, size: int = 1) -> None:
        super().__init__(below)
        self._size = size

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """As in Trio."""
        return await super().receive_some(self._size if max_bytes is None else min(self._size, max_bytes))


class Fault(enum.Enum):
    """What goes wrong."""

    RESET = "reset"
    """The connection breaks."""
    EOF = "eof"
    """The other side seems to have finished."""
    TIMEOUT = "timeout"
    """The operating system gives up: ``OSError`` with ETIMEDOUT, wrapped as Trio wraps it."""
    OS_ERROR = "oserror"
    """A bare ``OSError``, which Trio's contract does not allow and a careless transport lets out."""
    MEMORY = "memory"
    """``MemoryError``."""


class Plan:
    """Counts the operations of one or more streams, and says which of them fails.

    Args:
        fault: what happens.
        at: to which operation, counted from 1; 0 for none, to learn how many there are.

    Attributes:
        count: operations so far.
        fired: whether the fault has happened.
    """

    def __init__(self, fault: Fault, at: int) -> None:
        self.fault = fault
        self.count: int = 0
        self.fired: bool = False
        self._at = at

    def disarm(self) -> None:
        """Let nothing fail any more; go on counting."""
        self._at = 0

    def step(self) -> bool:
        """Count an operation; whether it is the one that fails."""
        self.count += 1
        if self.count == self._at:
            self.fired = True
            return True
        return False

    def error(self) -> BaseException:
        """What a failing call raises."""
        if self.fault is Fault.OS_ERROR:
            return OSError(errno.EIO, "a fault on purpose")
        if self.fault is Fault.MEMORY:
            return MemoryError("a fault on purpose")
        error = trio.BrokenResourceError("a fault on purpose")
        number = errno.ETIMEDOUT if self.fault is Fault.TIMEOUT else errno.ECONNRESET
        error.__cause__ = OSError(number, "a fault on purpose")
        return error


class Flaky(Plain):
    """Fails once, when its plan says so, and is broken from then on."""

    def __init__(self, below: ByteStream, plan: Plan) -> None:
        super().__init__(below)
        self._plan = plan
        self._dead = False
        self._closed = False

    async def _fails(self) -> bool:
        """Whether this call is the one, or the stream is dead by an earlier one."""
        if self._closed:
            return False
        if not self._dead and self._plan.step():
            self._dead = True
            # The other side must learn of it, as it would from a kernel.
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(self.below)
            return True
        if self._dead:
            await trio.lowlevel.checkpoint()
        return self._dead

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """As in Trio, or the fault."""
        if await self._fails():
            if self._plan.fault is Fault.EOF:
                return b""
            raise self._plan.error()
        return await super().receive_some(max_bytes)

    async def send_all(self, data: Buffer) -> None:
        """As in Trio, or the fault."""
        if await self._fails():
            raise self._plan.error()
        await super().send_all(data)

    async def aclose(self) -> None:
        """Close the stream below."""
        self._closed = True
        await super().aclose()


class WrappingTransport(Transport):
    """A transport whose streams are wrapped, dialled and accepted ones alike.

    Args:
        below: the transport that does the work.
        wrap: called with every new stream.
    """

    def __init__(self, below: Transport, wrap: Callable[[ByteStream], ByteStream]) -> None:
        self._below = below
        self._wrap = wrap

    def can_dial(self, addr: Multiaddr) -> bool:
        return self._below.can_dial(addr)

    def can_listen(self, addr: Multiaddr) -> bool:
        return self._below.can_listen(addr)

    async def dial(self, addr: Multiaddr, *, peer: PeerId | None) -> RawConnection | SecureMuxedConnection:
        return self._wrapped(await self._below.dial(addr, peer=peer))

    async def punch(self, addr: Multiaddr, *, peer: PeerId) -> RawConnection | SecureMuxedConnection:
        return self._wrapped(await self._below.punch(addr, peer=peer))

    async def listen(self, addr: Multiaddr) -> Listener:
        return _WrappingListener(await self._below.listen(addr), self._wrapped)

    def _wrapped(self, conn: RawConnection | SecureMuxedConnection) -> RawConnection | SecureMuxedConnection:
        if not isinstance(conn, RawConnection):
            return conn
        return dataclasses.replace(conn, stream=self._wrap(conn.stream))


class _WrappingListener(Listener):
    def __init__(
        self,
        below: Listener,
        wrapped: Callable[[RawConnection | SecureMuxedConnection], RawConnection | SecureMuxedConnection],
    ) -> None:
        self._below = below
        self._wrapped = wrapped

    @property
    def addresses(self) -> Sequence[Multiaddr]:
        return self._below.addresses

    async def accept(self) -> RawConnection | SecureMuxedConnection:
        return self._wrapped(await self._below.accept())

    async def aclose(self) -> None:
        await self._below.aclose()
