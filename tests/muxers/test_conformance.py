"""yamux and mplex against the contracts of streams and muxers: over memory and TCP, in the clear and encrypted."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest
import trio
from trio.abc import Stream as ByteStream

from libp2p.abc import Direction, MuxedConnection, SecurityProtocol
from libp2p.addressing import parse
from libp2p.crypto.keys import PrivateKey
from libp2p.muxers._connection import MachineConnection
from libp2p.muxers.mplex import Mplex
from libp2p.muxers.yamux import Yamux
from libp2p.security.noise import Noise
from libp2p.security.plaintext import Plaintext
from libp2p.testing import seeded_key
from libp2p.testing.conformance import MuxerConformance, SecurePair
from libp2p.testing.flaky import Plain
from libp2p.transports.memory import Memory, MemoryNetwork
from libp2p.transports.tcp import Tcp, TcpStream


@asynccontextmanager
async def _secured(
    make: type[Noise] | type[Plaintext], dialer: ByteStream, listener: ByteStream, lose
) -> AsyncIterator[SecurePair]:
    ends = {}

    async def secure(stream: ByteStream, direction: Direction, key: PrivateKey) -> None:
        protocol: SecurityProtocol = make(key)
        ends[direction] = (await protocol.secure(stream, direction=direction, peer=None)).stream

    async with trio.open_nursery() as nursery:
        nursery.start_soon(secure, dialer, Direction.OUTBOUND, seeded_key("a"))
        nursery.start_soon(secure, listener, Direction.INBOUND, seeded_key("b"))
    yield SecurePair(ends[Direction.OUTBOUND], ends[Direction.INBOUND], lose)
    for stream in (dialer, listener):
        await stream.aclose()


class _Counted(MuxerConformance):
    def in_use(self, connection: MuxedConnection) -> Mapping[str, int]:
        assert isinstance(connection, MachineConnection)
        machine = connection.machine
        return {
            "streams": machine.stream_count,
            "inbound": machine.inbound_count,
            "outbound": machine.outbound_count,
            "buffered": machine.buffered,
            "objects": len(connection.streams),
        }


class _OverNoise(_Counted):
    """Encrypted, in memory."""

    @asynccontextmanager
    async def open_secure_pair(self) -> AsyncIterator[SecurePair]:
        network = self.network()
        listener = await Memory(network).listen(parse("/memory/0"))
        ours = await Memory(network).dial(listener.addresses[0], peer=None)
        theirs = await listener.accept()
        await listener.aclose()
        async with _secured(Noise, ours.stream, theirs.stream, network.connections[0].kill) as pair:
            yield pair

    def network(self) -> MemoryNetwork:
        return MemoryNetwork()


class _OverTcp(_Counted):
    """Encrypted, over sockets."""

    @asynccontextmanager
    async def open_secure_pair(self) -> AsyncIterator[SecurePair]:
        listener = await Tcp().listen(parse("/ip4/127.0.0.1/tcp/0"))
        ours = await Tcp().dial(listener.addresses[0], peer=None)
        theirs = await listener.accept()
        await listener.aclose()

        def lose() -> None:
            assert isinstance(ours.stream, TcpStream)
            ours.stream.socket.shutdown(socket.SHUT_RDWR)

        async with _secured(Noise, ours.stream, theirs.stream, lose) as pair:
            yield pair


class _Yamux:
    def make(self) -> Yamux:
        return Yamux()


class _Mplex:
    flow_control = False
    reset_codes = False

    def make(self) -> Mplex:
        return Mplex()


class TestYamux(_Yamux, _Counted):
    pass


class TestYamuxOverNoise(_Yamux, _OverNoise):
    pass


class TestYamuxOverSlowNoise(_Yamux, _OverNoise):
    seconds = 300.0
    delay = 1.0

    def network(self) -> MemoryNetwork:
        return MemoryNetwork(2, latency=0.03, jitter=0.01, rate=20e6, loss=0.001, buffer=64 * 1024)


class TestYamuxOverPlainStream(_Yamux, _OverNoise):
    """Over a stream that cannot be used without waiting, as WebSockets and relayed connections."""

    @asynccontextmanager
    async def open_secure_pair(self) -> AsyncIterator[SecurePair]:
        network = self.network()
        listener = await Memory(network).listen(parse("/memory/0"))
        ours = await Memory(network).dial(listener.addresses[0], peer=None)
        theirs = await listener.accept()
        await listener.aclose()
        async with _secured(Noise, Plain(ours.stream), Plain(theirs.stream), network.connections[0].kill) as pair:
            yield pair


class TestYamuxThroughAStraw(_Yamux, _Counted):
    """Over a pipe that is always full (case M11)."""

    @asynccontextmanager
    async def open_secure_pair(self) -> AsyncIterator[SecurePair]:
        network = MemoryNetwork(buffer=5000)
        listener = await Memory(network).listen(parse("/memory/0"))
        ours = await Memory(network).dial(listener.addresses[0], peer=None)
        theirs = await listener.accept()
        await listener.aclose()
        async with _secured(Plaintext, ours.stream, theirs.stream, network.connections[0].kill) as pair:
            yield pair


@pytest.mark.sockets
class TestYamuxOverTcp(_Yamux, _OverTcp):
    pass


class TestMplex(_Mplex, _Counted):
    pass


class TestMplexOverNoise(_Mplex, _OverNoise):
    pass


@pytest.mark.sockets
class TestMplexOverTcp(_Mplex, _OverTcp):
    # Who reads nothing is waited for, 5 s; over memory those are virtual.
    test_a_slow_stream_blocks_nobody = None  # type: ignore[assignment]
    test_cancelled_send_harms_only_its_stream = None  # type: ignore[assignment]
