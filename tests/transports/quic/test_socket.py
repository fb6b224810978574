"""QUIC over sockets of the operating system: batches, reports of errors, and whole hosts."""

from __future__ import annotations

import errno
import random
import socket
import subprocess
import sys

import pytest
import trio

import libp2p
from libp2p.abc import MuxedStream
from libp2p.addressing import host_port, parse
from libp2p.crypto.keys import generate
from libp2p.errors import ConnectionClosed, DialError, TransportError
from libp2p.protocols.ping import ping
from libp2p.security.pnet import PreSharedKey
from libp2p.transports.quic import Quic
from libp2p.transports.quic._connection import QuicConnection
from libp2p.transports.quic._engine import Address
from libp2p.transports.quic._socket import MAX_SEGMENTS, UdpSocket
from libp2p.transports.quic._transport import QuicTransport
from libp2p.transports.tcp import Tcp

pytestmark = pytest.mark.sockets

LOOPBACK = ("127.0.0.1", 0)


async def receive(sock: UdpSocket, count: int) -> list[bytes]:
    """``count`` datagrams, as they were sent."""
    found: list[bytes] = []
    with trio.fail_after(5):
        while len(found) < count:
            await sock.wait_readable()
            try:
                data, size, _ = sock.receive()
            except trio.WouldBlock:
                continue
            found += [data[start : start + size] for start in range(0, len(data), size)]
    return found


@pytest.mark.parametrize("batches", [True, False])
async def test_datagrams_of_all_sizes(batches: bool) -> None:
    """Joined where the kernel can, and the same where it cannot."""
    one, other = UdpSocket(socket.AF_INET, LOOPBACK), UdpSocket(socket.AF_INET, LOOPBACK)
    if not batches:
        one._gso = other._gro = False
        other._socket.setsockopt(17, 104, 0)
    rng = random.Random(1)
    sizes = [1200] * 100 + [1200, 1200, 700] * 5 + [5, 5, 9] + [1452] * 20
    sent = [rng.randbytes(size) for size in sizes]
    done, problem = one.send([(data, other.address) for data in sent])
    assert (done, problem) == (len(sent), None)
    assert await receive(other, len(sent)) == sent
    with pytest.raises(trio.WouldBlock):
        other.receive()
    assert other.receive_error() is None
    await one.wait_writable()
    for sock in (one, other):
        sock.close()
        sock.close()
        for wait in (sock.wait_readable, sock.wait_writable):
            with pytest.raises(trio.ClosedResourceError):
                await wait()
        with pytest.raises(trio.ClosedResourceError):
            sock.receive()


def test_what_goes_in_one_call() -> None:
    a, b = ("127.0.0.1", 1), ("127.0.0.1", 2)
    big, small = bytes(1200), bytes(100)
    cases: list[tuple[list[tuple[bytes, Address]], int]] = [
        ([(big, a)], 1),
        ([(big, a), (big, a), (small, a), (small, a)], 3),
        ([(big, a), (big, b)], 1),
        ([(small, a), (big, a)], 1),
        ([(big, a)] * 100, MAX_SEGMENTS),
        ([(bytes(40_000), a)] * 3, 1),
    ]
    for datagrams, expected in cases:
        assert UdpSocket._run_length(datagrams, 0) == expected


async def test_an_interface_that_cannot_batch() -> None:
    """The same datagrams go one by one."""
    one, other = UdpSocket(socket.AF_INET, LOOPBACK), UdpSocket(socket.AF_INET, LOOPBACK)

    class Refusing:
        def __init__(self, sock: socket.socket) -> None:
            self.sock = sock

        def sendmsg(self, *args: object) -> int:
            raise OSError(errno.EIO, "no")

        def __getattr__(self, name: str) -> object:
            return getattr(self.sock, name)

    real = one._socket
    one._gso = True
    one._socket = Refusing(real)  # type: ignore[assignment]
    assert one.send([(bytes(100), other.address)] * 3) == (3, None)
    assert not one._gso
    assert len(await receive(other, 3)) == 3
    real.close()
    other.close()


async def test_a_report_about_another_datagram_costs_nothing() -> None:
    """The port that is closed is named; the one that is open gets everything."""
    one, other = UdpSocket(socket.AF_INET, LOOPBACK), UdpSocket(socket.AF_INET, LOOPBACK)
    gone = UdpSocket(socket.AF_INET, LOOPBACK)
    nobody = gone.address
    gone.close()
    assert one.send([(b"anybody?", nobody)])[0] == 1
    with trio.fail_after(5):
        await one.wait_readable()
    assert one.send([(b"hello", other.address)]) == (1, None)
    assert await receive(other, 1) == [b"hello"]
    with pytest.raises(trio.WouldBlock):
        one.receive()
    assert one.receive_error() == nobody
    assert one.receive_error() is None
    one._reports = False
    assert one.receive_error() is None
    assert one.send([(bytes(70_000), other.address)])[1] is not None
    one.close()
    other.close()


async def test_the_address_that_others_see() -> None:
    everywhere = UdpSocket(socket.AF_INET, ("0.0.0.0", 0))
    assert everywhere.address_towards(("127.0.0.1", 9)) == ("127.0.0.1", everywhere.address[1])
    assert everywhere.address_towards(("255.255.255.255", 9))[1] == everywhere.address[1]
    everywhere.close()
    with pytest.raises(OSError):
        UdpSocket(socket.AF_INET, ("192.0.2.1", 0))


async def test_T4_no_descriptor_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """To find out which address a stranger sees takes one for a moment: without, the socket works as before."""
    everywhere = UdpSocket(socket.AF_INET, ("0.0.0.0", 0))

    def none_left(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(socket, "socket", none_left)
        assert everywhere.address_towards(("127.0.0.1", 9)) == everywhere.address
    everywhere.close()


@pytest.mark.parametrize("what", ["transmit", "credited"])
async def test_a_bug_at_the_end_of_a_tick(what: str) -> None:
    """It ends its connection; what others write leaves as before."""
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            here, there = QuicTransport(generate()), QuicTransport(generate())
            for transport in (here, there):
                await nursery.start(transport.run)
            listener = await there.listen(parse("/ip4/127.0.0.1/udp/0/quic-v1"))
            over = trio.Event()

            async def run(connection: QuicConnection, task_status: trio.TaskStatus[None]) -> None:
                try:
                    await connection.run(lambda stream: nursery.start_soon(answer, stream), task_status=task_status)
                except ZeroDivisionError:
                    over.set()
                except ConnectionClosed:
                    pass

            async def answer(stream: MuxedStream) -> None:
                await stream.send_all(await stream.receive_some())

            ends = []
            for _ in range(2):
                ends.append(await here.dial(listener.addresses[0], peer=None))
                for end in (ends[-1], await listener.accept()):
                    await nursery.start(run, end)

            def broken(*_: object) -> None:
                raise ZeroDivisionError

            streams = [await end.open_stream() for end in ends]
            setattr(ends[0].machine, what, broken)
            await streams[0].send_all(b"never sent")
            await over.wait()
            await streams[1].send_all(b"hello")
            assert await streams[1].receive_some() == b"hello"
            nursery.cancel_scope.cancel()


async def test_hosts() -> None:
    """Two hosts over QUIC beside TCP: ping, and a megabyte there and back."""
    with trio.fail_after(20):
        async with (
            libp2p.open_host(
                listen=["/ip4/127.0.0.1/udp/0/quic-v1", "/ip6/::1/udp/0/quic-v1"], transports=[Quic, Tcp()]
            ) as server,
            libp2p.open_host(transports=[Tcp(), Quic]) as client,
        ):

            async def echo(stream: libp2p.Stream) -> None:
                async for chunk in stream:
                    await stream.send_all(chunk)

            server.handle("/echo", echo)
            for addr in server.addrs:
                connection = await client.connect(addr)
                assert len(await ping(client, connection.peer, count=3)) == 3
                data = random.Random(1).randbytes(1_000_000)
                async with await connection.open_stream("/echo") as stream, trio.open_nursery() as nursery:

                    async def send(stream: libp2p.Stream = stream, data: bytes = data) -> None:
                        await stream.send_all(data)
                        await stream.send_eof()

                    nursery.start_soon(send)
                    assert b"".join([bytes(chunk) async for chunk in stream]) == data
                await client.disconnect(connection.peer)


async def test_a_listening_host_dials_from_its_port() -> None:
    """Q6."""
    with trio.fail_after(20):
        listen = ["/ip4/127.0.0.1/udp/0/quic-v1"]
        async with (
            libp2p.open_host(listen=listen, transports=[Quic]) as one,
            libp2p.open_host(listen=listen, transports=[Quic]) as other,
        ):
            await one.connect(other.addrs[0])
            while not other.connections(one.local_peer):
                await trio.sleep(0.01)
            [seen] = other.connections(one.local_peer)
            assert host_port(seen.remote_addr) == host_port(one.addrs[0])


async def test_a_port_that_is_closed() -> None:
    """Is known at once on the same machine."""
    transport = Quic(generate())
    async with trio.open_nursery() as nursery:
        await nursery.start(transport.run)
        with trio.fail_after(5), pytest.raises(TransportError, match="nobody listens"):
            await transport.dial(parse("/ip4/127.0.0.1/udp/1/quic-v1"), peer=None)
        nursery.cancel_scope.cancel()


def test_it_is_loaded_when_it_is_used() -> None:
    """A host without QUIC addresses does not pay for it."""
    program = """
import sys, trio, libp2p

async def main():
    async with libp2p.open_host(listen=["/ip4/127.0.0.1/tcp/0"]):
        assert "qh3" not in sys.modules
    async with libp2p.open_host(listen=["/ip4/127.0.0.1/udp/0/quic-v1"]):
        assert "qh3" in sys.modules

trio.run(main)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


async def test_a_missing_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Is named by whatever needs it."""
    monkeypatch.setattr("libp2p.transports.quic.installed", lambda: False)
    addr = "/ip4/127.0.0.1/udp/0/quic-v1"
    with pytest.raises(TransportError, match=r"libp2p-trio\[quic\]"):
        async with libp2p.open_host(listen=[addr]):
            pass
    async with libp2p.open_host() as host:
        with pytest.raises(DialError, match=r"libp2p-trio\[quic\]"):
            await host.connect("/ip4/127.0.0.1/udp/1/quic-v1")


async def test_hosts_speak_quic_by_default() -> None:
    """Beside TCP and WebSocket; and not in a private network, which QUIC cannot be part of."""
    addr = "/ip4/127.0.0.1/udp/0/quic-v1"
    with trio.fail_after(20):
        async with libp2p.open_host(listen=[addr, "/ip4/127.0.0.1/tcp/0"]) as server, libp2p.open_host() as client:
            connection = await client.connect(server.addrs[0])
            assert "quic-v1" in str(connection.remote_addr)
            assert len(await ping(client, connection.peer, count=1)) == 1
    psk = PreSharedKey(bytes(32))
    with pytest.raises(TransportError, match="private network"):
        async with libp2p.open_host(listen=[addr], psk=psk):
            pass


async def test_a_transport_that_does_not_run() -> None:
    with pytest.raises(RuntimeError, match="not running"):
        await Quic(generate()).listen(parse("/ip4/127.0.0.1/udp/0/quic-v1"))
