"""``libp2p.protocols.forward``: real TCP connections at both ends of an in-memory libp2p network."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Container
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial

import pytest
import trio

from libp2p.abc import Direction, Host
from libp2p.errors import DialError, LimitExceeded, NegotiationError, StreamReset
from libp2p.metrics import render
from libp2p.peer_id import PeerId
from libp2p.protocols.forward import (
    ANYONE,
    GATED,
    Forward,
    Forwarded,
    ForwardLimits,
    ForwardServer,
    NotAllowed,
    PortUnavailable,
    TargetUnreachable,
    open_forward,
    protocol_of,
)
from libp2p.testing import memory_network

pytestmark = pytest.mark.sockets
LOOPBACK = "127.0.0.1"
Program = Callable[[trio.SocketStream], Awaitable[None]]


async def reverse(tcp: trio.SocketStream) -> None:
    """A program that must have read to the end before it answers."""
    whole = b"".join([chunk async for chunk in tcp])
    await tcp.send_all(whole[::-1])


@dataclass
class Rig:
    """Two hosts, a program behind the TCP port of one, and a TCP port of the other that leads there."""

    dialer: Host
    server: Host
    service: ForwardServer
    forward: Forward
    ends: dict[Direction, list[Forwarded]] = field(default_factory=lambda: {each: [] for each in Direction})

    async def connect(self) -> trio.SocketStream:
        return await trio.open_tcp_stream(*self.forward.addresses[0])

    async def ended(self, direction: Direction, count: int = 1) -> Forwarded:
        """Wait until so many connections have ended at a side; the last one."""
        with trio.fail_after(20):
            while len(self.ends[direction]) < count:
                await trio.sleep(0.005)
        return self.ends[direction][count - 1]


async def _collect(host: Host, into: list[Forwarded], *, task_status: trio.TaskStatus[None]) -> None:
    with host.subscribe(Forwarded) as events:
        task_status.started()
        while True:
            into.append(await events.receive())


@asynccontextmanager
async def rig(
    program: Program = reverse,
    *,
    allow: Container[PeerId] = ANYONE,
    limits: ForwardLimits | None = None,
    local_limits: ForwardLimits | None = None,
    name: str = "test",
) -> AsyncIterator[Rig]:
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, _contained(program), 0, host=LOOPBACK))
        target = listeners[0].socket.getsockname()
        async with memory_network(2, connect="full") as (a, b):
            service = ForwardServer({"test": target}, allow=allow, limits=limits)
            for protocol, handler in service.handlers.items():
                b.handle(protocol, handler)
            await nursery.start(service.run, b)
            async with open_forward(a, b.local_peer, name, limits=local_limits) as forward:
                found = Rig(a, b, service, forward)
                await nursery.start(_collect, a, found.ends[Direction.OUTBOUND])
                await nursery.start(_collect, b, found.ends[Direction.INBOUND])
                with trio.fail_after(40):
                    yield found
            assert forward.connections == 0
            with trio.fail_after(10):
                while service.connections:
                    await trio.sleep(0.005)
            nursery.cancel_scope.cancel()


def _contained(program: Program) -> Program:
    async def run(tcp: trio.SocketStream) -> None:
        async with tcp:
            try:
                await program(tcp)
            except trio.BrokenResourceError:
                pass

    return run


async def read_to_end(tcp: trio.SocketStream) -> bytes:
    return b"".join([chunk async for chunk in tcp])


# --- what TCP can say -------------------------------------------------------------------------------------------------


async def test_bytes_and_the_end_of_each_way() -> None:
    """The program answers only after the end of what it is told: half-close crosses."""
    data = bytes(range(256)) * 4000
    async with rig() as net, await net.connect() as tcp:
        async with trio.open_nursery() as nursery:

            async def say() -> None:
                await tcp.send_all(data)
                await tcp.send_eof()

            nursery.start_soon(say)
            assert await read_to_end(tcp) == data[::-1]
        for direction in Direction:
            event = await net.ended(direction)
            assert (event.sent, event.received, event.error, event.name) == (len(data), len(data), None, "/x/test")
            assert event.peer == (net.server if direction is Direction.OUTBOUND else net.dialer).local_peer


async def test_the_program_may_speak_first() -> None:
    async def greet(tcp: trio.SocketStream) -> None:
        await tcp.send_all(b"220 hello")
        assert await read_to_end(tcp) == b"QUIT"

    async with rig(greet) as net, await net.connect() as tcp:
        assert await tcp.receive_some() == b"220 hello"
        await tcp.send_all(b"QUIT")
        await tcp.send_eof()
        assert await read_to_end(tcp) == b""


async def test_nothing_at_all() -> None:
    async def leave(tcp: trio.SocketStream) -> None:
        return

    async with rig(leave) as net:
        async with await net.connect() as tcp:
            assert await tcp.receive_some() == b""
        assert (await net.ended(Direction.OUTBOUND)).error is None


def abort(tcp: trio.SocketStream) -> None:
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    tcp.socket.close()


async def test_an_abort_of_the_client_reaches_the_program() -> None:
    seen: list[BaseException | bytes] = []

    async def program(tcp: trio.SocketStream) -> None:
        await tcp.send_all(b"ready")
        try:
            seen.append(await tcp.receive_some())
        except trio.BrokenResourceError as exc:
            seen.append(exc)

    async with rig(program) as net:
        tcp = await net.connect()
        assert await tcp.receive_some() == b"ready"
        abort(tcp)
        assert (await net.ended(Direction.OUTBOUND)).error is not None
        assert isinstance((await net.ended(Direction.INBOUND)).error, StreamReset)
        with trio.fail_after(10):
            while not seen:
                await trio.sleep(0.005)
        assert isinstance(seen[0], trio.BrokenResourceError)


async def test_an_abort_of_the_program_reaches_the_client() -> None:
    async def program(tcp: trio.SocketStream) -> None:
        await tcp.send_all(b"half an answer")
        await tcp.receive_some()
        abort(tcp)

    async with rig(program) as net, await net.connect() as tcp:
        assert await tcp.receive_some() == b"half an answer"
        await tcp.send_all(b"?")
        with pytest.raises(trio.BrokenResourceError):
            await tcp.receive_some()
        assert isinstance((await net.ended(Direction.OUTBOUND)).error, StreamReset)
        assert isinstance((await net.ended(Direction.INBOUND)).error, trio.BrokenResourceError)


def start(program: str, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", program, *arguments]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


KILLED_CLIENT = """
import socket, sys
sock = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
sock.sendall(b"hello")
print("sent", flush=True)
sock.recv(1, socket.MSG_WAITALL)
sys.stdin.read()
"""


async def test_a_client_killed_by_minus_nine_leaves_nothing() -> None:
    """It dies with bytes that it has not read, so its kernel aborts the connection."""
    ended: list[str] = []

    async def program(tcp: trio.SocketStream) -> None:
        assert await tcp.receive_some() == b"hello"
        await tcp.send_all(bytes(100_000))
        try:
            ended.append("end" if not await tcp.receive_some() else "data")
        except trio.BrokenResourceError:
            ended.append("abort")

    async with rig(program) as net:
        port = str(net.forward.addresses[0][1])
        process = start(KILLED_CLIENT, port)
        with process:
            assert process.stdout is not None
            await trio.to_thread.run_sync(process.stdout.readline)
            with trio.fail_after(20):
                while net.service.connections == 0:
                    await trio.sleep(0.005)
            process.send_signal(signal.SIGKILL)
        await net.ended(Direction.OUTBOUND)
        await net.ended(Direction.INBOUND)
        with trio.fail_after(20):
            while not ended:
                await trio.sleep(0.005)
        assert ended[0] in ("abort", "end")
        async with await net.connect() as tcp:  # and the port still works
            await tcp.send_all(b"hello")
            assert await tcp.receive_some()


KILLED_PROGRAM = """
import socket, sys
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
sock, _ = server.accept()
sock.sendall(b"half")
sys.stdin.read()
"""


async def test_a_program_killed_by_minus_nine_ends_the_client() -> None:
    """As over plain TCP: by an abort when it had not read everything, else in order."""
    with start(KILLED_PROGRAM) as process:
        assert process.stdout is not None
        port = int(await trio.to_thread.run_sync(process.stdout.readline))
        service = ForwardServer({"test": (LOOPBACK, port)}, allow=ANYONE)
        async with memory_network(2, connect="full") as (a, b):
            for protocol, handler in service.handlers.items():
                b.handle(protocol, handler)
            async with open_forward(a, b.local_peer, "test") as forward:
                with trio.fail_after(30):
                    async with await trio.open_tcp_stream(*forward.addresses[0]) as tcp:
                        assert await tcp.receive_some() == b"half"
                        await tcp.send_all(b"x")
                        process.send_signal(signal.SIGKILL)
                        try:
                            assert await tcp.receive_some() == b""
                        except trio.BrokenResourceError:
                            pass
                    while service.connections or forward.connections:
                        await trio.sleep(0.005)


async def test_who_does_not_read_is_not_written_to() -> None:
    """Back-pressure crosses: what is under way is bounded, and nothing of it is lost."""
    read = trio.Event()
    total: list[int] = []

    async def program(tcp: trio.SocketStream) -> None:
        await read.wait()
        size = 0
        async for chunk in tcp:
            size += len(chunk)
        total.append(size)

    async with rig(program) as net, await net.connect() as tcp:
        written, limit, chunk = 0, 256 * 2**20, bytes(2**20)
        while written < limit:
            with trio.move_on_after(1) as patience:
                await tcp.wait_send_all_might_not_block()
            if patience.cancelled_caught:
                break
            written += await tcp.socket.send(chunk)
        assert written < limit // 2  # kernels hold a few MiB at each end, this library a fraction of one
        read.set()
        await tcp.send_eof()
        assert await tcp.receive_some() == b""
        assert total == [written]


async def test_leaving_the_block_aborts_what_is_open() -> None:
    async def program(tcp: trio.SocketStream) -> None:
        await tcp.send_all(b"half")
        await trio.sleep_forever()

    async with rig(program) as net:
        async with open_forward(net.dialer, net.server.local_peer, "test") as other:
            tcp = await trio.open_tcp_stream(*other.addresses[0])
            assert await tcp.receive_some() == b"half"
        async with tcp:
            with pytest.raises(trio.BrokenResourceError):
                await tcp.receive_some()
        with pytest.raises(OSError, match="all attempts to connect"):
            await trio.open_tcp_stream(*other.addresses[0])


async def test_a_lost_connection_aborts_both_ends_and_the_next_one_dials_again() -> None:
    async with rig() as net:
        async with await net.connect() as tcp:
            await tcp.send_all(b"abc")
            with trio.fail_after(10):
                while not net.service.connections:
                    await trio.sleep(0.005)
            await net.dialer.disconnect(net.server.local_peer)
            with pytest.raises(trio.BrokenResourceError):
                await tcp.receive_some()
        async with await net.connect() as tcp:
            await tcp.send_all(b"abc")
            await tcp.send_eof()
            assert await read_to_end(tcp) == b"cba"


async def test_what_the_block_raises_comes_out_as_itself() -> None:
    async with memory_network(2, connect="full") as (a, b):
        with pytest.raises(KeyError):
            async with open_forward(a, b.local_peer, "test"):
                raise KeyError("mine")


# --- who may, and how many --------------------------------------------------------------------------------------------


async def refused(net: Rig, count: int = 1) -> Exception:
    """A connection that is not carried: why, as the dialling side knows it."""
    tcp = await net.connect()
    async with tcp:
        with pytest.raises(trio.BrokenResourceError):
            await tcp.receive_some()
    event = await net.ended(Direction.OUTBOUND, count)
    assert event.error is not None
    return event.error


async def test_who_is_not_on_the_list_is_refused() -> None:
    async with rig(allow=frozenset()) as net:
        error = await refused(net)
        assert isinstance(error, StreamReset)
        assert error.code == GATED
        mine = (await net.ended(Direction.INBOUND)).error
        assert isinstance(mine, NotAllowed)
        assert mine.peer == net.dialer.local_peer
        assert str(net.dialer.local_peer) in str(mine)


async def test_the_list_is_asked_for_each_connection() -> None:
    allowed: set[PeerId] = set()
    async with rig(allow=allowed) as net:
        await refused(net)
        allowed.add(net.dialer.local_peer)
        async with await net.connect() as tcp:
            await tcp.send_eof()
            assert await read_to_end(tcp) == b""


async def test_an_unknown_name() -> None:
    async with rig(name="other") as net:
        error = await refused(net)
        assert isinstance(error, NegotiationError)
        assert error.offered == ("/x/other",)


async def test_nobody_behind_the_port() -> None:
    with socket.create_server((LOOPBACK, 0)) as taken:
        free = taken.getsockname()[:2]
    async with memory_network(2, connect="full") as (a, b), trio.open_nursery() as nursery:
        service = ForwardServer({"test": free}, allow=ANYONE)
        for protocol, handler in service.handlers.items():
            b.handle(protocol, handler)
        await nursery.start(service.run, b)
        found: list[Forwarded] = []
        await nursery.start(_collect, b, found)
        async with (
            open_forward(a, b.local_peer, "test") as forward,
            await trio.open_tcp_stream(*forward.addresses[0]) as tcp,
        ):
            with pytest.raises(trio.BrokenResourceError):
                await tcp.receive_some()
        with trio.fail_after(10):
            while not found:
                await trio.sleep(0.005)
        error = found[0].error
        assert isinstance(error, TargetUnreachable)
        assert error.address == free
        assert f"{LOOPBACK}:{free[1]}" in str(error)
        text = render(list(service.measure()))
        assert 'libp2p_forward_ended_total{end="TargetUnreachable"} 1' in text
        assert "libp2p_forward_connections 0" in text
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize(
    ("limits", "scope"),
    [
        (ForwardLimits(connections=2), "forward_connections"),
        (ForwardLimits(per_peer=2), "forward_connections_per_peer"),
    ],
)
async def test_too_many_for_the_serving_side(limits: ForwardLimits, scope: str) -> None:
    async def program(tcp: trio.SocketStream) -> None:
        await tcp.send_all(b"in")
        await tcp.receive_some()

    async with rig(program, limits=limits) as net:
        async with await net.connect() as one, await net.connect() as two:
            assert [await tcp.receive_some() for tcp in (one, two)] == [b"in", b"in"]
            error = await refused(net)
            assert isinstance(error, StreamReset)
            assert error.code == LimitExceeded.wire_code
            mine = (await net.ended(Direction.INBOUND)).error
            assert isinstance(mine, LimitExceeded)
            assert (mine.scope, mine.limit) == (scope, 2)
        await net.ended(Direction.INBOUND, 3)
        async with await net.connect() as tcp:  # a place was given back
            assert await tcp.receive_some() == b"in"


async def test_too_many_for_the_dialling_side() -> None:
    async def program(tcp: trio.SocketStream) -> None:
        await tcp.send_all(b"in")
        await tcp.receive_some()

    async with rig(program, local_limits=ForwardLimits(connections=1)) as net, await net.connect() as one:
        assert await one.receive_some() == b"in"
        error = await refused(net)
        assert isinstance(error, LimitExceeded)
        assert error.scope == "forward_connections"


async def test_hostile_a_flood_of_streams_holds_no_more_than_its_share() -> None:
    """Streams that say nothing: each holds a place until it ends, so one peer has only so many."""
    started = []

    async def program(tcp: trio.SocketStream) -> None:
        started.append(tcp)
        await tcp.receive_some()

    async with rig(program, limits=ForwardLimits(per_peer=5)) as net:
        streams = [await net.dialer.open_stream(net.server.local_peer, "/x/test") for _ in range(60)]
        for stream in streams:
            await stream.send_all(b"")
        await net.ended(Direction.INBOUND, 55)
        assert net.service.connections == 5
        assert len(started) <= 5
        for stream in streams:
            stream.reset()
        await net.ended(Direction.INBOUND, 60)
        assert net.service.connections == 0


async def test_hostile_bytes_and_a_reset() -> None:
    async with rig() as net:
        async with await net.dialer.open_stream(net.server.local_peer, "/x/test") as stream:
            await stream.send_all(bytes(100_000))
            with trio.fail_after(10):
                while not net.service.connections:
                    await trio.sleep(0.005)
            stream.reset()
        assert isinstance((await net.ended(Direction.INBOUND)).error, StreamReset)


# --- what can go wrong here -------------------------------------------------------------------------------------------


async def test_a_peer_that_cannot_be_reached() -> None:
    async with memory_network(2) as (a, b), trio.open_nursery() as nursery:
        found: list[Forwarded] = []
        await nursery.start(_collect, a, found)
        async with open_forward(a, b.local_peer, "test") as forward:
            async with await trio.open_tcp_stream(*forward.addresses[0]) as tcp:
                with pytest.raises(trio.BrokenResourceError):
                    await tcp.receive_some()
            with trio.fail_after(10):
                while not found:
                    await trio.sleep(0.005)
        assert isinstance(found[0].error, DialError)
        assert found[0].peer is None
        nursery.cancel_scope.cancel()


async def test_a_port_that_is_taken() -> None:
    with socket.create_server((LOOPBACK, 0)) as taken:
        address = taken.getsockname()[:2]
        async with memory_network(2) as (a, b):
            with pytest.raises(PortUnavailable) as caught:
                async with open_forward(a, b.local_peer, "test", listen=address):
                    pass
    assert caught.value.address == address
    assert f"{LOOPBACK}:{address[1]}" in str(caught.value)


@pytest.mark.parametrize("name", ["ssh", "/x/ssh"])
def test_names(name: str) -> None:
    assert protocol_of(name) == "/x/ssh"


@pytest.mark.parametrize("name", ["", "/x/", "/ipfs/id/1.0.0", "a b", "é", "a\n", "x" * 129])
def test_no_names(name: str) -> None:
    with pytest.raises(ValueError, match=r"name|protocol"):
        protocol_of(name)
    with pytest.raises(ValueError, match=r"name|protocol"):
        ForwardServer({name: (LOOPBACK, 1)}, allow=ANYONE)


@pytest.mark.parametrize("field", ["connections", "per_peer", "connect_timeout"])
def test_limits_are_positive(field: str) -> None:
    with pytest.raises(ValueError, match="positive"):
        ForwardLimits(**{field: 0})


def test_anyone() -> None:
    assert repr(ANYONE) == "ANYONE"
