"""Every transport against the contract of transports."""

from __future__ import annotations

import functools
import ssl

import pytest

from libp2p.testing.certificates import tls_pair
from libp2p.testing.conformance import TransportConformance
from libp2p.transports.memory import Memory, MemoryNetwork
from libp2p.transports.tcp import Tcp
from libp2p.transports.websocket import WebSocket


class TestMemory(TransportConformance):
    listen_addr = "/memory/0"
    nobody_addr = "/memory/987654321"
    foreign_addrs = (*TransportConformance.foreign_addrs, "/ip4/192.0.2.1/tcp/4001")

    @functools.cached_property
    def network(self) -> MemoryNetwork:
        return MemoryNetwork()

    def make(self) -> Memory:
        return Memory(self.network)


class TestSlowMemory(TestMemory):
    """The same over a link that takes its time."""

    @functools.cached_property
    def network(self) -> MemoryNetwork:
        return MemoryNetwork(1, latency=0.05, jitter=0.02, rate=5e6, loss=0.02, buffer=100_000)


class TestMemoryWithIp(TransportConformance):
    listen_addr = "/ip4/10.0.0.2/tcp/0"
    nobody_addr = "/ip4/10.0.0.9/tcp/1"

    @functools.cached_property
    def network(self) -> MemoryNetwork:
        return MemoryNetwork()

    def make(self) -> Memory:
        return Memory(self.network, ip="10.0.0.2")


@pytest.mark.sockets
class TestTcp(TransportConformance):
    listen_addr = "/ip4/127.0.0.1/tcp/0"
    nobody_addr = "/ip4/127.0.0.1/tcp/1"
    settle = 0.06

    def make(self) -> Tcp:
        return Tcp()


@pytest.mark.sockets
class TestTcp6(TestTcp):
    listen_addr = "/ip6/::1/tcp/0"
    nobody_addr = "/ip6/::1/tcp/1"
    test_stream_is_a_stream = None  # type: ignore[assignment]  # TCP's stream over IPv4, tested above


@pytest.mark.sockets
class TestTcpWithPortReuse(TestTcp):
    """Hole punching dials from listening ports; whoever does not listen is not affected."""

    test_stream_is_a_stream = None  # type: ignore[assignment]  # as above

    def make(self) -> Tcp:
        return Tcp(reuse_port=True)


@pytest.mark.sockets
class TestWebSocket(TransportConformance):
    listen_addr = "/ip4/127.0.0.1/tcp/0/ws"
    nobody_addr = "/ip4/127.0.0.1/tcp/1/ws"
    foreign_addrs = (*TransportConformance.foreign_addrs, "/ip4/192.0.2.1/tcp/4001", "/ip4/192.0.2.1/tcp/4001/tls")
    settle = 0.06

    def make(self) -> WebSocket:
        return WebSocket()


@pytest.mark.sockets
class TestSecureWebSocket(TransportConformance):
    """Over TLS."""

    listen_addr = "/ip6/::1/tcp/0/tls/ws"
    nobody_addr = "/ip6/::1/tcp/1/wss"
    foreign_addrs = TestWebSocket.foreign_addrs

    @functools.cached_property
    def tls(self) -> tuple[ssl.SSLContext, ssl.SSLContext]:
        return tls_pair("::1")

    def make(self) -> WebSocket:
        return WebSocket(server_tls=self.tls[0], client_tls=self.tls[1])
