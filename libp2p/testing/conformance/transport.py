"""What every :class:`libp2p.abc.Transport` must do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import pytest
import trio
from trio.testing import check_two_way_stream, wait_all_tasks_blocked

from ...abc import DirectStream, Listener, RawConnection, SecureMuxedConnection, Transport
from ...addressing import parse
from ...errors import TransportError
from .stream import receive_all, receive_exactly

__all__ = ["TransportConformance"]

_FOREIGN = (
    "/ip4/192.0.2.1/udp/4001/quic-v1",
    "/ip4/192.0.2.1/udp/4001",
    "/dns4/example.com/tcp/4001",
    "/ip4/192.0.2.1/tcp/4001/p2p/12D3KooWD3eckifWpRn9wQpMG9R9hX3sD158z7EqHWmweQAJU5SA/p2p-circuit",
    "/unix/tmp",
)


TestT = TypeVar("TestT", bound=Callable[..., object])


def _needs_raw(test: TestT) -> TestT:
    test.needs_raw = True  # type: ignore[attr-defined]
    return test


class TransportConformance(ABC):
    """Tests of a transport.

    Attributes:
        listen_addr: something to listen on, again and again.
        nobody_addr: something to dial where nobody listens.
        foreign_addrs: what the transport must not claim to understand.
        seconds: how long each test may take.
        settle: real seconds after which a full connection does not move any more: a kernel acknowledges late what
            nobody reads (40 ms in Linux), and only then is there room again.
    """

    listen_addr: str
    nobody_addr: str
    foreign_addrs: tuple[str, ...] = _FOREIGN
    seconds: float = 30.0
    settle: float = 0.0

    @abstractmethod
    def make(self) -> Transport:
        """The transport; each call within one test makes another one that reaches the others."""

    @asynccontextmanager
    async def _listening(self) -> AsyncIterator[tuple[Transport, Listener]]:
        """A running transport that dials, and a listener of another one."""
        with trio.fail_after(self.seconds):
            async with trio.open_nursery() as nursery:
                dialer, other = self.make(), self.make()
                await nursery.start(dialer.run)
                await nursery.start(other.run)
                listener = await other.listen(parse(self.listen_addr))
                try:
                    yield dialer, listener
                finally:
                    with trio.CancelScope(shield=True):
                        await trio.aclose_forcefully(listener)
                nursery.cancel_scope.cancel()

    async def _connect(self, dialer: Transport, listener: Listener) -> tuple[RawConnection, RawConnection]:
        accepted: list[RawConnection | SecureMuxedConnection] = []

        async def accept() -> None:
            accepted.append(await _accept(listener))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept)
            ours = await dialer.dial(listener.addresses[0], peer=None)
        theirs = accepted[0]
        assert isinstance(ours, RawConnection)
        assert isinstance(theirs, RawConnection)
        return ours, theirs

    def setup_method(self, method: Callable[..., object]) -> None:
        """Called by pytest before each test."""
        if getattr(method, "needs_raw", False) and self.make().brings_security:
            pytest.skip("this transport makes finished connections; ConnectionConformance tests those")

    async def test_understands_its_own_addresses_only(self) -> None:
        """Addresses with names, peers or other protocols are somebody else's."""
        transport = self.make()
        assert transport.can_listen(parse(self.listen_addr))
        assert transport.can_dial(parse(self.nobody_addr))
        for text in self.foreign_addrs:
            assert not transport.can_dial(parse(text)), text
            assert not transport.can_listen(parse(text)), text
        await trio.lowlevel.checkpoint()

    @_needs_raw
    async def test_addresses(self) -> None:
        """The listener's is concrete; both ends agree on both ends."""
        async with self._listening() as (dialer, listener):
            addr = listener.addresses[0]
            assert dialer.can_dial(addr)
            assert addr != parse(self.listen_addr)
            ours, theirs = await self._connect(dialer, listener)
            assert ours.remote_addr == theirs.local_addr == addr
            assert ours.local_addr == theirs.remote_addr
            await ours.stream.aclose()
            await theirs.stream.aclose()

    @_needs_raw
    async def test_stream_is_a_stream(self) -> None:
        """Trio's own check, clogged streams included where the stream can be filled without waiting."""
        with trio.fail_after(4 * self.seconds):
            async with self._listening() as (dialer, listener):

                async def make() -> tuple[trio.abc.Stream, trio.abc.Stream]:
                    ours, theirs = await self._connect(dialer, listener)
                    return ours.stream, theirs.stream

                async def clogged() -> tuple[trio.abc.Stream, trio.abc.Stream]:
                    one, other = await make()
                    assert isinstance(one, DirectStream)
                    assert isinstance(other, DirectStream)
                    await _fill(one, other, settle=self.settle)
                    return one, other

                one, other = await make()
                direct = isinstance(one, DirectStream)
                await one.aclose()
                await other.aclose()
                await check_two_way_stream(make, clogged if direct else None)

    @_needs_raw
    async def test_direct_methods(self) -> None:
        """Without waiting: nothing there, something there, the end, closed."""
        async with self._listening() as (dialer, listener):
            ours, theirs = await self._connect(dialer, listener)
            one, other = ours.stream, theirs.stream
            if isinstance(one, DirectStream) and isinstance(other, DirectStream):
                buffer = memoryview(bytearray(100))
                with pytest.raises(trio.WouldBlock):
                    other.receive_into_nowait(buffer)
                await one.wait_writable()
                assert one.send_nowait(b"direct") == 6
                await other.wait_readable()
                assert other.receive_into_nowait(buffer) == 6
                assert bytes(buffer[:6]) == b"direct"
                await one.aclose()
                await other.wait_readable()
                assert other.receive_into_nowait(buffer) == 0
                with pytest.raises(trio.ClosedResourceError):
                    one.receive_into_nowait(buffer)
                with pytest.raises(trio.ClosedResourceError):
                    one.send_nowait(b"x")
                for wait in (one.wait_readable, one.wait_writable):
                    with pytest.raises(trio.ClosedResourceError):
                        await wait()
            await one.aclose()
            await other.aclose()

    async def test_dialling_nobody(self) -> None:
        """Is an error that names the address and says why."""
        async with self._listening() as (dialer, _):
            with pytest.raises(TransportError) as caught:
                await dialer.dial(parse(self.nobody_addr), peer=None)
            assert caught.value.addr == parse(self.nobody_addr)
            assert caught.value.reason

    async def test_address_in_use(self) -> None:
        """Cannot be listened on again until its listener is closed."""
        async with self._listening() as (_, listener), trio.open_nursery() as nursery:
            addr = listener.addresses[0]
            other = self.make()
            await nursery.start(other.run)
            with pytest.raises(TransportError) as caught:
                await other.listen(addr)
            assert caught.value.addr == addr
            await listener.aclose()
            again = await other.listen(addr)
            await again.aclose()
            nursery.cancel_scope.cancel()

    @_needs_raw
    async def test_closing_a_listener(self) -> None:
        """Wakes who accepts, refuses who dials, and harms no connection."""
        async with self._listening() as (dialer, listener):
            ours, theirs = await self._connect(dialer, listener)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._expect_closed, listener)
                await wait_all_tasks_blocked()
                await listener.aclose()
                await listener.aclose()
            await self._expect_closed(listener)
            with pytest.raises(TransportError):
                await dialer.dial(listener.addresses[0], peer=None)
            await ours.stream.send_all(b"alive")
            assert await receive_exactly(theirs.stream, 5) == b"alive"
            await ours.stream.aclose()
            await theirs.stream.aclose()

    @staticmethod
    async def _expect_closed(listener: Listener) -> None:
        with pytest.raises(trio.ClosedResourceError):
            await listener.accept()

    async def test_cancelled_close_still_closes(self) -> None:
        """Only without manners."""
        async with self._listening() as (dialer, listener):
            with trio.CancelScope() as scope:
                scope.cancel()
                await listener.aclose()
            with pytest.raises(TransportError):
                await dialer.dial(listener.addresses[0], peer=None)

    async def test_cancelled_dial_leaves_nothing(self) -> None:
        """Cancelled at each of its first steps, a dial either gives a connection or leaves none."""
        async with self._listening() as (dialer, listener):
            for steps in range(6):
                with trio.CancelScope() as scope:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(_cancel_after, scope, steps)
                        conn = await dialer.dial(listener.addresses[0], peer=None)
                        with trio.CancelScope(shield=True):
                            await _close(conn)
            # Connections that ended before they were accepted may still be queued, and only who accepts them can tell.
            accepted: list[RawConnection | SecureMuxedConnection] = []
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._accept_all, listener, accepted)
                ours = await dialer.dial(listener.addresses[0], peer=None)
                while all(conn.remote_addr != ours.local_addr for conn in accepted):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
            for conn in (ours, *accepted):
                await _close(conn)

    @staticmethod
    async def _accept_all(listener: Listener, accepted: list[RawConnection | SecureMuxedConnection]) -> None:
        while True:
            conn = await listener.accept()
            accepted.append(conn)
            try:
                await _prepare(conn)
            except TransportError:
                pass

    @_needs_raw
    async def test_many_connections(self) -> None:
        """At once, each with its own bytes."""
        async with self._listening() as (dialer, listener):
            for conn in await self._connect(dialer, listener):
                await conn.stream.aclose()

            async def echo(conn: RawConnection) -> None:
                await _prepare(conn)
                await conn.stream.send_all(await receive_exactly(conn.stream, 8))
                await conn.stream.aclose()

            async def serve(nursery: trio.Nursery) -> None:
                for _ in range(50):
                    conn = await listener.accept()
                    assert isinstance(conn, RawConnection)
                    nursery.start_soon(echo, conn)

            async def ask(number: int) -> None:
                conn = await dialer.dial(listener.addresses[0], peer=None)
                assert isinstance(conn, RawConnection)
                await conn.stream.send_all(b"%08d" % number)
                assert await receive_all(conn.stream) == b"%08d" % number
                await conn.stream.aclose()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(serve, nursery)
                for number in range(50):
                    nursery.start_soon(ask, number)


async def _accept(listener: Listener) -> RawConnection | SecureMuxedConnection:
    conn = await listener.accept()
    await _prepare(conn)
    return conn


async def _prepare(conn: RawConnection | SecureMuxedConnection) -> None:
    if isinstance(conn, RawConnection) and conn.prepare is not None:
        await conn.prepare()


async def _close(conn: RawConnection | SecureMuxedConnection) -> None:
    await trio.aclose_forcefully(conn.stream if isinstance(conn, RawConnection) else conn)


async def _fill(*streams: DirectStream, settle: float) -> None:
    """Send until there is no room, also after what is under way has found its place."""
    busy = True
    while busy:
        busy = False
        for stream in streams:
            try:
                while True:
                    stream.send_nowait(bytes(65536))
                    busy = True
            except trio.WouldBlock:
                pass
        await wait_all_tasks_blocked(settle)


async def _cancel_after(scope: trio.CancelScope, steps: int) -> None:
    for _ in range(steps):
        await trio.lowlevel.checkpoint()
    scope.cancel()
