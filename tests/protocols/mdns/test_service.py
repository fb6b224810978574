"""mDNS on real sockets, by multicast on the loopback interface."""

from __future__ import annotations

import errno
import functools
import random
import socket

import pytest
import trio

import libp2p
from libp2p.events import PeerDiscovered
from libp2p.metrics import render
from libp2p.protocols.mdns import Mdns, MdnsConfig
from libp2p.protocols.mdns import _service as service_module
from libp2p.protocols.mdns._codec import PTR, Question, encode_query, name
from libp2p.protocols.mdns._sockets import GroupSocket, interfaces
from libp2p.testing import memory_network

LOOPBACK = tuple(each for _, each in socket.if_nameindex() if each in ("lo", "lo0"))
QUICK = MdnsConfig(
    interfaces=LOOPBACK, interval=0.2, first_questions=(0.0, 0.1), min_delay=0, max_delay=0.01, min_pause=0.05
)
QUERY = encode_query([Question(name("_p2p._udp.local"), PTR)])
_ports = iter(random.SystemRandom().sample(range(20_000, 32_000), 100))


@pytest.fixture
def port() -> int:
    """A port of this test's own: several may run at a time."""
    return next(_ports)


@functools.cache
def _works(version: int) -> bool:
    async def attempt() -> bool:
        with trio.move_on_after(2):
            try:
                sock = GroupSocket(version, port=next(_ports))
            except OSError:
                return False
            try:
                await sock.bind()
                sock.use(interfaces(LOOPBACK))
                await sock.send([b"hello"])
                return (await sock.receive())[0] == b"hello"
            except OSError:
                return False
            finally:
                sock.close()
        return False

    return trio.run(attempt, clock=None)  # on the real clock: it asks the system


@pytest.fixture
def needs_multicast() -> None:
    if not _works(4):
        pytest.skip("this machine has no multicast on its loopback interface")


@pytest.fixture(params=[4, 6])
def only(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves one IP version."""
    version: int = request.param
    if not _works(version):
        pytest.skip(f"this machine has no IPv{version} multicast on its loopback interface")

    class Only(GroupSocket):
        def __init__(self, wanted: int, **more) -> None:
            if wanted != version:
                raise OSError(errno.EAFNOSUPPORT, "not in this test")
            super().__init__(wanted, **more)

    monkeypatch.setattr(service_module, "GroupSocket", Only)


def open_host(service: Mdns, listen: str = "/ip4/127.0.0.1/tcp/0"):
    return libp2p.open_host(listen=[listen], services=[service])


@pytest.mark.sockets
@pytest.mark.usefixtures("only")
async def test_two_hosts_find_each_other(port: int) -> None:
    async with (
        open_host(Mdns(QUICK, port=port)) as a,
        open_host(Mdns(QUICK, port=port)) as b,
    ):
        with trio.fail_after(20):
            while not a.peerstore.addrs(b.local_peer) or not b.peerstore.addrs(a.local_peer):
                await trio.sleep(0.01)
            await a.connect(b.local_peer, a.peerstore.addrs(b.local_peer))
        assert not a.peerstore.metadata(a.local_peer)


@pytest.mark.sockets
@pytest.mark.usefixtures("needs_multicast")
async def test_news_are_told_once_and_own_answers_not_at_all(port: int) -> None:
    async with open_host(Mdns(QUICK, port=port)) as a:
        with a.subscribe(PeerDiscovered) as events:
            async with open_host(Mdns(QUICK, port=port)) as b:
                with trio.fail_after(20):
                    event = await events.receive()
                assert (event.peer, event.source) == (b.local_peer, "mdns")
                assert set(event.addrs) == set(b.listen_addrs())
                with trio.move_on_after(0.5):  # a few questions later
                    pytest.fail(f"told again: {await events.receive()}")


@pytest.mark.sockets
@pytest.mark.usefixtures("needs_multicast")
async def test_md5_networks_do_not_see_each_other(port: int) -> None:
    one, two = bytes(16), bytes([1] * 16)
    async with (
        open_host(Mdns(QUICK, port=port)) as public,
        open_host(Mdns(QUICK, port=port)) as another,
        open_host(Mdns(QUICK, port=port, network=one)) as a,
        open_host(Mdns(QUICK, port=port, network=one)) as b,
        open_host(Mdns(QUICK, port=port, network=two)) as c,
    ):
        with trio.fail_after(20):
            while not (a.peerstore.addrs(b.local_peer) and public.peerstore.addrs(another.local_peer)):
                await trio.sleep(0.01)
        for stranger in (public, c):
            assert not stranger.peerstore.addrs(a.local_peer)
            assert not a.peerstore.addrs(stranger.local_peer)


@pytest.mark.sockets
@pytest.mark.usefixtures("needs_multicast")
async def test_interfaces_that_come_and_go(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    config = MdnsConfig(
        interfaces=LOOPBACK, interval=1000, first_questions=(0.0,), max_delay=0.03, interface_check=0.05
    )
    up = False
    looks = 0

    def found(wanted: tuple[str, ...] | None) -> list[int]:
        nonlocal looks
        looks += 1
        return interfaces(wanted) if up else []

    async def look_around() -> None:
        with trio.fail_after(20):
            seen = looks
            while looks < seen + 4:
                await trio.sleep(0.01)

    monkeypatch.setattr(service_module, "interfaces", found)
    async with (
        open_host(Mdns(config, port=port)) as a,
        open_host(Mdns(config, port=port)) as b,
    ):
        await look_around()
        assert not a.peerstore.addrs(b.local_peer)
        up = True
        with trio.fail_after(20):
            while not a.peerstore.addrs(b.local_peer) or not b.peerstore.addrs(a.local_peer):
                await trio.sleep(0.01)
        up = False
        await look_around()
        up = True
        await look_around()


@pytest.mark.sockets
@pytest.mark.usefixtures("needs_multicast")
async def test_r7_a_flood_is_not_read(port: int) -> None:
    service = Mdns(QUICK, port=port)
    async with open_host(service) as host, trio.open_nursery():
        flood = GroupSocket(4, port=port)
        try:
            await flood.bind()
            flood.use(interfaces(LOOPBACK))
            with trio.fail_after(30):
                while service.dropped < 1000:
                    await flood.send([b"\0" * 12] * 100)
        finally:
            flood.close()
        assert host.listen_addrs()


@pytest.mark.sockets
async def test_a_port_that_somebody_has_for_himself(caplog: pytest.LogCaptureFixture) -> None:
    taken = []
    try:
        for family, host in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):
            with_port = socket.socket(family, socket.SOCK_DGRAM)
            taken.append(with_port)
            if family == socket.AF_INET6:
                with_port.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                with_port.bind((host, taken[0].getsockname()[1] if len(taken) > 1 else 0))
            except OSError:
                pytest.skip("this machine has no such IP version, or the port is taken")
        port = taken[0].getsockname()[1]
        async with open_host(Mdns(QUICK, port=port)) as host:  # it works without
            assert host.listen_addrs()
    finally:
        for each in taken:
            each.close()
    assert "no mDNS over IPv" in caplog.text


class FakeSocket:
    """A socket of the group that takes what is sent."""

    def __init__(self, version: int, *, port: int) -> None:
        self.received = 0

    async def bind(self) -> None:
        await trio.lowlevel.checkpoint()

    def use(self, found: list[int]) -> bool:
        return False

    async def send(self, packets: list[bytes]) -> None:
        await trio.lowlevel.checkpoint()

    def close(self) -> None:
        pass


async def test_a_broken_socket_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(FakeSocket):
        """Fails, then brings packets."""

        def __init__(self, version: int, *, port: int) -> None:
            super().__init__(version, port=port)
            broken.append(self)

        async def receive(self) -> tuple[bytes, str]:
            self.received += 1
            await trio.sleep(0.1)
            if self.received < 3:
                raise OSError(errno.ENETDOWN, "down")
            return QUERY, "192.0.2.1"

    broken: list[Broken] = []
    monkeypatch.setattr(service_module, "GroupSocket", Broken)
    async with memory_network(1, services=[lambda: Mdns(MdnsConfig(packets_burst=5))]):
        await trio.sleep(10)
    assert min(each.received for each in broken) > 10


async def test_r7_a_flood_from_made_up_sources_is_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """R7: each packet from an address of its own."""

    class Flooded(FakeSocket):
        """Brings a thousand packets a second."""

        def __init__(self, version: int, *, port: int) -> None:
            super().__init__(version, port=port)
            flooded.append(self)

        async def receive(self) -> tuple[bytes, str]:
            self.received += 1
            await trio.sleep(0.001)
            return QUERY, f"source {self.received}"

    flooded: list[Flooded] = []
    monkeypatch.setattr(service_module, "GroupSocket", Flooded)
    service = Mdns(MdnsConfig(packets_of_all=100))
    async with memory_network(1, services=[lambda: service]):
        await trio.sleep(2)
    assert sum(each.received for each in flooded) - service.dropped <= 310
    assert f"libp2p_mdns_dropped_total {service.dropped}" in render(service.measure())


def test_loopback_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(1, "lo"), (2, "eth0"), (3, "lo0"), (4, "loopback_0"), (5, "lora0")]
    monkeypatch.setattr(socket, "if_nameindex", lambda: found)
    assert interfaces(None) == [2, 5]
    assert interfaces(["lo", "nothing"]) == [1]


def test_fingerprint_of_a_private_network() -> None:
    pytest.importorskip("Crypto")
    pnet = pytest.importorskip("libp2p.security.pnet")
    key = pnet.PreSharedKey(bytes(range(32)))
    assert len(key.fingerprint) == 16
    assert pnet.PreSharedKey(bytes(32)).fingerprint != key.fingerprint
