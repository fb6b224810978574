"""TCP beyond the contract of transports: errors of accept, half-open connections, cancellation, options."""

from __future__ import annotations

import errno
import gc
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from libp2p.addressing import parse
from libp2p.errors import TransportError
from libp2p.metrics import render
from libp2p.peer_id import PeerId
from libp2p.testing.keys import seeded_key
from libp2p.transports.tcp import Tcp, TcpListener, TcpStream, Traffic

pytestmark = pytest.mark.sockets

ANY = parse("/ip4/127.0.0.1/tcp/0")
PEER = PeerId.from_key(seeded_key("peer").public_key)


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[TcpStream, TcpStream]]:
    """Both ends of a connection: who dialled first."""
    listener = await Tcp().listen(ANY)
    ours = (await Tcp().dial(listener.addresses[0], peer=None)).stream
    theirs = (await listener.accept()).stream
    await listener.aclose()
    assert isinstance(ours, TcpStream)
    assert isinstance(theirs, TcpStream)
    with trio.fail_after(5):
        yield ours, theirs
    await ours.aclose()
    await theirs.aclose()


def reset(stream: TcpStream) -> None:
    """Let the next close send RST."""
    stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def test_small_writes_are_not_delayed() -> None:
    """Nagle's algorithm is off on both ends."""
    async with connected() as ends:
        for end in ends:
            assert end.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_half_open() -> None:
    """The end of one direction leaves the other."""
    async with connected() as (ours, theirs):
        ours.socket.shutdown(socket.SHUT_WR)
        assert await theirs.receive_some() == b""
        await theirs.send_all(b"still here")
        assert await ours.receive_some() == b"still here"


@pytest.mark.parametrize("sending", [False, True])
async def test_a_reset_is_a_broken_resource(sending: bool) -> None:
    """For whoever waits to receive or to send."""
    async with connected() as (ours, theirs):

        async def use() -> None:
            with pytest.raises(trio.BrokenResourceError):
                await (ours.send_all(bytes(20_000_000)) if sending else ours.receive_some())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(use)
            await wait_all_tasks_blocked(0.05)
            reset(theirs)
            await theirs.aclose()
        with pytest.raises(trio.BrokenResourceError):
            ours.send_nowait(b"x")


async def test_closing_wakes_who_waits() -> None:
    """On the same end, in every method that waits."""
    for waiting in ("receive_some", "wait_readable"):
        async with connected() as (ours, _), trio.open_nursery() as nursery:

            async def wait(ours: TcpStream = ours, waiting: str = waiting) -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await getattr(ours, waiting)()
                assert ours.socket.fileno() < 0

            nursery.start_soon(wait)
            await wait_all_tasks_blocked()
            await ours.aclose()


class _Socket:
    """A listening socket whose first accepts fail."""

    def __init__(self, sock: socket.socket, *errors: int) -> None:
        self._sock = sock
        self.errors = list(errors)

    def accept(self) -> Any:
        if self.errors:
            raise OSError(self.errors.pop(0), "on purpose")
        return self._sock.accept()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


async def _failing_listener(*errors: int) -> tuple[TcpListener, _Socket]:
    listener = await Tcp().listen(ANY)
    sock = _Socket(listener._socket, *errors)
    listener._socket = sock  # type: ignore[assignment]
    return listener, sock


async def test_errors_of_one_connection_do_not_end_the_listener() -> None:
    """The connection that failed is not counted, and other tasks run meanwhile, however long it lasts."""
    listener, sock = await _failing_listener(*[errno.ENETDOWN] * 1000, errno.ECONNABORTED)
    ours = await Tcp().dial(listener.addresses[0], peer=None)
    left = []

    async def others() -> None:
        for _ in range(5):
            await trio.lowlevel.checkpoint()
        left.append(len(sock.errors))

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(others)
            theirs = await listener.accept()
    assert 0 < left[0] < 1000
    for resource in (ours.stream, theirs.stream, listener):
        await resource.aclose()


async def test_errors_of_the_system_reach_the_caller() -> None:
    """Who pauses and tries again; the listener still works then."""
    listener, _ = await _failing_listener(errno.EMFILE)
    ours = await Tcp().dial(listener.addresses[0], peer=None)
    with pytest.raises(OSError, match="on purpose") as caught:
        await listener.accept()
    assert caught.value.errno == errno.EMFILE
    theirs = await listener.accept()
    for resource in (ours.stream, theirs.stream, listener):
        await resource.aclose()


async def test_a_connection_that_is_gone_when_it_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some systems refuse every option then: the next connection is accepted, the socket is closed."""
    listener = await Tcp().listen(ANY)
    first = await Tcp().dial(listener.addresses[0], peer=None)
    second = await Tcp().dial(listener.addresses[0], peer=None)
    made = TcpStream.__init__
    refused: list[socket.socket] = []

    def init(self: TcpStream, sock: socket.socket, traffic: Traffic) -> None:
        if not refused:
            refused.append(sock)
            raise OSError(errno.EINVAL, "gone")
        made(self, sock, traffic)

    monkeypatch.setattr(TcpStream, "__init__", init)
    theirs = await listener.accept()
    assert theirs.remote_addr == second.local_addr
    assert refused[0].fileno() < 0
    for resource in (first.stream, second.stream, theirs.stream, listener):
        await resource.aclose()


async def test_a_cancelled_listen_leaves_nothing() -> None:
    """No socket stays open, and the address is free."""
    with trio.CancelScope() as scope:
        scope.cancel()
        await Tcp().listen(ANY)
    assert scope.cancelled_caught
    gc.collect()  # an unclosed socket would warn, and fail this test


async def test_dialling_from_the_listening_port() -> None:
    """With port reuse, also a second time while the first connection lives: then from any port."""
    transport = Tcp(reuse_port=True)
    ours = await transport.listen(ANY)
    theirs = await Tcp().listen(ANY)
    first = await transport.dial(theirs.addresses[0], peer=None)
    assert first.local_addr == ours.addresses[0]
    second = await transport.dial(theirs.addresses[0], peer=None)
    assert second.local_addr != ours.addresses[0]
    for resource in (first.stream, second.stream, ours, theirs):
        await resource.aclose()


async def test_bytes_are_counted_both_ways() -> None:
    transport = Tcp()
    listener = await transport.listen(ANY)
    ours = await Tcp().dial(listener.addresses[0], peer=None)
    theirs = await listener.accept()
    await ours.stream.send_all(b"x" * 100)
    read = 0
    while read < 100:
        read += len(await theirs.stream.receive_some())
    await theirs.stream.send_all(b"y" * 7)
    assert 'received"} 100\n' in (text := render(transport.measure()))
    assert 'sent"} 7\n' in text
    for resource in (ours.stream, theirs.stream, listener):
        await resource.aclose()


async def test_d4_punching_leaves_from_the_listening_port() -> None:
    transport = Tcp(reuse_port=True)
    ours = await transport.listen(ANY)
    theirs = await Tcp().listen(ANY)
    met = await transport.punch(theirs.addresses[0], peer=PEER)
    assert met.local_addr == ours.addresses[0] and met.remote_addr == theirs.addresses[0]
    for resource in (met.stream, ours, theirs):
        await resource.aclose()


async def test_punching_needs_a_port_and_somebody_there() -> None:
    transport = Tcp(reuse_port=True)
    listener = await Tcp().listen(ANY)
    target = listener.addresses[0]
    with pytest.raises(TransportError, match="reuse_port"):
        await transport.punch(target, peer=PEER)
    await listener.aclose()
    ours = await transport.listen(ANY)
    with pytest.raises(TransportError, match="refused"):
        await transport.punch(target, peer=PEER)
    await ours.aclose()
