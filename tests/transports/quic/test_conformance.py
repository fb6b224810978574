"""QUIC as a transport, over loopback, and its connections as muxed connections, in memory and on the virtual clock."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import pytest

from libp2p.abc import MuxedConnection, Transport
from libp2p.crypto.keys import generate
from libp2p.errors import ConnectionClosed
from libp2p.testing.conformance import ConnectionConformance, ConnectionPair, TransportConformance
from libp2p.transports.quic import Quic
from libp2p.transports.quic._connection import QuicConnection
from libp2p.transports.quic._transport import QuicTransport
from tests.transports.quic.net import connect, open_net


class TestQuicConnections(ConnectionConformance):
    """SPEC C4, Q3, Q7."""

    delay = 0.1
    seconds = 120.0

    @asynccontextmanager
    async def open_ends(self) -> AsyncIterator[ConnectionPair]:
        async with open_net() as net:
            listener = await net.listener(await net.node())
            ours, theirs = await connect(await net.node(), listener)

            def lose() -> None:
                net.udp.filter = lambda data, source, target: None
                for end in (ours, theirs):
                    end.fail(ConnectionClosed("the network is gone", remote=True))

            yield ConnectionPair(ours, theirs, lose)

    def in_use(self, connection: MuxedConnection) -> Mapping[str, int]:
        assert isinstance(connection, QuicConnection)
        return connection.machine.in_use


@pytest.mark.sockets
class TestQuic(TransportConformance):
    listen_addr = "/ip4/127.0.0.1/udp/0/quic-v1"
    nobody_addr = "/ip4/127.0.0.1/udp/1/quic-v1"
    foreign_addrs = (
        "/ip4/127.0.0.1/tcp/4001",
        "/ip4/127.0.0.1/udp/4001",
        "/ip4/127.0.0.1/udp/4001/quic",
        "/ip4/127.0.0.1/udp/4001/quic-v1/webtransport",
        "/dns4/example.com/udp/4001/quic-v1",
        "/memory/1",
    )
    settle = 0.01

    def make(self) -> Transport:
        return Quic(generate())


@pytest.mark.sockets
class TestQuic6(TestQuic):
    listen_addr = "/ip6/::1/udp/0/quic-v1"
    nobody_addr = "/ip6/::1/udp/1/quic-v1"

    def make(self) -> Transport:
        return QuicTransport(generate())
