"""The rendezvous point and its clients on a network in memory (checklist RV4 to RV8; reliability case R7)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from typing import Any

import pytest
import trio

import libp2p
from libp2p._util.nursery import open_unwrapping_nursery
from libp2p.abc import Stream
from libp2p.addressing import parse
from libp2p.errors import NegotiationError, RemoteProtocolError, StoreUnwritable, StreamReset
from libp2p.events import PeerDiscovered
from libp2p.host import RunningHost
from libp2p.metrics import render
from libp2p.peer_id import PeerId
from libp2p.protocols.rendezvous import (
    RENDEZVOUS,
    NothingToRegister,
    Rendezvous,
    RendezvousClientConfig,
    RendezvousConfig,
    RendezvousPoint,
    RendezvousRefused,
    RendezvousTimeout,
    Status,
    StoredRegistration,
    discover,
    register,
    unregister,
)
from libp2p.protocols.rendezvous._codec import (
    MAX_MESSAGE,
    MAX_REQUEST,
    Discover,
    DiscoverResponse,
    Register,
    RegisterResponse,
    Unregister,
    decode,
    encode,
)
from libp2p.protocols.rendezvous._point import REQUESTS_PER_STREAM
from libp2p.records.peer_record import OBSOLETE, PeerRecord
from libp2p.testing import memory_network
from libp2p.testing.keys import seeded_key
from libp2p.testing.network import open_memory_host
from libp2p.transports.memory import MemoryNetwork
from libp2p.wire.framing import FrameBuffer, frame
from tests.protocols.waiting import settled, until


class Net:
    """A rendezvous point, and hosts that know it.

    Attributes:
        point: its service, while it runs; :attr:`end` ends it.
    """

    def __init__(self, config: RendezvousConfig | None = None, *, clients: int = 2, store=None) -> None:
        self.point = RendezvousPoint(config, store=store)
        self._network = memory_network(clients + 1, connect="none")

    async def __aenter__(self) -> tuple[RunningHost, ...]:
        async with AsyncExitStack() as stack:
            hosts = await stack.enter_async_context(self._network)
            for protocol, handler in self.point.handlers.items():
                hosts[0].handle(protocol, handler)
            nursery = await stack.enter_async_context(open_unwrapping_nursery())
            stack.callback(nursery.cancel_scope.cancel)
            await nursery.start(self.point.run, hosts[0])
            for host in hosts[1:]:
                host.peerstore.add_addrs(hosts[0].local_peer, hosts[0].listen_addrs(), ttl=1e9)
            self._stack = stack.pop_all()
            return hosts

    async def __aexit__(self, *exc_info) -> None:
        await self._stack.__aexit__(*exc_info)


def peers(found) -> list[PeerId]:
    return [each.peer for each in found.peers]


async def say(host: RunningHost, point: RunningHost, data: bytes) -> bytes:
    """Send ``data`` on a stream of its own and return all that comes back."""
    async with await host.open_stream(point.local_peer, RENDEZVOUS) as stream:
        await stream.send_all(data)
        await stream.send_eof()
        return b"".join([chunk async for chunk in stream])


# --- one question -----------------------------------------------------------------------------------------------------


async def test_register_discover_unregister() -> None:
    net = Net()
    async with net as (point, a, b):
        assert await register(a, point.local_peer, "chess") == 7200
        assert net.point.registrations == 1
        found = await discover(b, point.local_peer, "chess")
        (one,) = found.peers
        assert (one.peer, one.namespace, one.standard) == (a.local_peer, "chess", True)
        assert one.addrs == tuple(a.listen_addrs())
        assert 7190 < one.ttl <= 7200
        assert not found.complete
        assert peers(await discover(b, point.local_peer)) == [a.local_peer]  # RV8
        assert peers(await discover(b, point.local_peer, "go")) == []
        await unregister(a, point.local_peer, "chess")
        assert net.point.registrations == 0
        await unregister(a, point.local_peer, "chess")  # harmless
        text = render(net.point.measure())
        assert "libp2p_rendezvous_registrations 0" in text
        assert 'libp2p_rendezvous_requests_total{request="discover",status="ok"} 3' in text


async def test_rv6_unregister_is_not_answered() -> None:
    async with Net() as (point, a, _b):
        body = b"\x08\x02\x22\x07\x0a\x05chess"
        assert await say(a, point, frame(body)) == b""


async def test_rv7_cookies_go_on_where_the_last_answer_ended() -> None:
    async with Net(RendezvousConfig(page=2), clients=3) as (point, *hosts):
        for host in hosts:
            await register(host, point.local_peer, "chess")
        seen: list[PeerId] = []
        cookie = b""
        while True:
            found = await discover(hosts[0], point.local_peer, "chess", cookie=cookie)
            cookie = found.cookie
            seen += peers(found)
            if found.complete:
                break
        assert seen == [host.local_peer for host in hosts]
        await register(hosts[1], point.local_peer, "chess")
        newer = await discover(hosts[0], point.local_peer, "chess", cookie=cookie)
        assert peers(newer) == [hosts[1].local_peer]
        assert peers(await discover(hosts[0], point.local_peer, "chess", limit=1)) == [hosts[0].local_peer]


async def test_r7_forged_cookies_are_refused() -> None:
    async with Net() as (point, a, _b):
        await register(a, point.local_peer, "chess")
        cookie = (await discover(a, point.local_peer, "chess")).cookie
        for namespace, wrong in (("chess", b"x"), ("chess", cookie[:-1] + b"!"), ("go", cookie), ("", cookie)):
            with pytest.raises(RendezvousRefused) as refused:
                await discover(a, point.local_peer, namespace, cookie=wrong)
            assert refused.value.status == Status.INVALID_COOKIE
        assert "invalid cookie" in str(refused.value)


async def test_registrations_end() -> None:
    net = Net(RendezvousConfig(min_ttl=60, default_ttl=60))
    async with net as (point, a, b):
        await register(a, point.local_peer, "chess")
        await trio.sleep(121)
        assert net.point.registrations == 0  # without anybody asking
        assert peers(await discover(b, point.local_peer, "chess")) == []


@pytest.mark.parametrize("ttl", [0, 1, 72 * 3600 + 1, 2**63])
async def test_r7_bad_lives_are_typed(ttl: int) -> None:
    async with Net() as (point, a, _b):
        with pytest.raises(RendezvousRefused) as refused:
            await register(a, point.local_peer, "chess", ttl=ttl)
        assert refused.value.status == Status.INVALID_TTL


async def test_lives_that_are_asked_for() -> None:
    async with Net() as (point, a, b):
        assert await register(a, point.local_peer, "chess", ttl=10_000) == 10_000
        assert (await discover(b, point.local_peer, "chess")).peers[0].ttl <= 10_000


@pytest.mark.parametrize("name", ["", "x" * 256])
async def test_names_out_of_bounds(name: str) -> None:
    async with Net() as (point, a, _b):
        for ask in (register, unregister):
            with pytest.raises(ValueError):
                await ask(a, point.local_peer, name)
        record = PeerRecord(peer=a.local_peer, seq=1, addrs=tuple(a.listen_addrs())).seal(a.private_key)
        answer = await say(a, point, frame(encode(Register(namespace=name, record=record))))
        (message,) = FrameBuffer(MAX_REQUEST).receive_data(answer)
        expected = RegisterResponse(status=Status.INVALID_NAMESPACE, text="a namespace must have 1 to 255 bytes")
        assert decode(message) == expected


def sealed(owner: str, about: str, **how) -> bytes:
    peer = PeerId.from_key(seeded_key(about).public_key)
    return PeerRecord(peer=peer, seq=1, addrs=(parse("/ip4/1.2.3.4/tcp/1"),)).seal(seeded_key(owner), **how)


@pytest.mark.parametrize(
    ("record", "status"),
    [
        (b"", Status.INVALID_SIGNED_PEER_RECORD),
        (b"garbage", Status.INVALID_SIGNED_PEER_RECORD),
        (sealed("me", "me")[:-1] + b"\xff", Status.INVALID_SIGNED_PEER_RECORD),
        (bytes(9000), Status.INVALID_SIGNED_PEER_RECORD),
        (sealed("other", "other"), Status.NOT_AUTHORIZED),  # RV5
        (sealed("other", "other", form=OBSOLETE), Status.NOT_AUTHORIZED),
    ],
)
async def test_r7_rv5_records_that_prove_nothing(record: bytes, status: Status) -> None:
    net = Net()
    async with net as (point, a, _b):
        answer = await say(a, point, frame(encode(Register(namespace="chess", record=record))))
        (message,) = FrameBuffer(MAX_REQUEST).receive_data(answer)
        refusal = decode(message)
        assert isinstance(refusal, RegisterResponse)
        assert refusal.status == status
        assert net.point.registrations == 0


async def test_a_record_as_rust_makes_them() -> None:
    async with Net() as (point, a, b):
        record = PeerRecord(peer=a.local_peer, seq=1, addrs=tuple(a.listen_addrs()))
        old = record.seal(a.private_key, form=OBSOLETE)
        await say(a, point, frame(encode(Register(namespace="chess", record=old))))
        (one,) = (await discover(b, point.local_peer, "chess")).peers
        assert (one.peer, one.standard, one.addrs) == (a.local_peer, False, tuple(a.listen_addrs()))


@pytest.mark.parametrize(
    "data",
    [
        b"\x05junk!",
        frame(b"\x08\x07"),
        b"\xff\xff\x7f",  # a length above the limit
        frame(encode(DiscoverResponse(status=Status.OK))),  # an answer as a question
        frame(encode(Discover()))[:-1],
    ],
)
async def test_what_is_no_request_costs_the_stream(data: bytes) -> None:
    net = Net()
    async with net as (point, a, _b):
        with pytest.raises(StreamReset):
            await say(a, point, data)
        assert await register(a, point.local_peer, "chess")


async def test_a_stream_may_carry_several_requests() -> None:
    """As clients for js-libp2p have them; the unregistration in between is not answered. But not without end."""
    async with Net() as (point, a, b):
        await register(b, point.local_peer, "chess")
        ask = frame(encode(Discover(namespace="chess")))
        answers = FrameBuffer(MAX_MESSAGE).receive_data(
            await say(b, point, ask + frame(encode(Unregister(namespace="chess"))) + ask)
        )
        found = [decode(answer) for answer in answers]
        assert [len(each.registrations) for each in found if isinstance(each, DiscoverResponse)] == [1, 0]
        many = FrameBuffer(MAX_MESSAGE).receive_data(await say(a, point, ask * (REQUESTS_PER_STREAM + 1)))
        assert len(many) == REQUESTS_PER_STREAM
        assert await say(a, point, b"") == b""


async def test_r7_ten_thousand_namespaces_of_one_peer() -> None:
    net = Net()
    async with net as (point, a, b):
        for number in range(40):
            if number < 32:
                await register(a, point.local_peer, f"n{number}")
                continue
            with pytest.raises(RendezvousRefused) as refused:
                await register(a, point.local_peer, f"n{number}")
            assert refused.value.status == Status.UNAVAILABLE
        assert net.point.registrations == 32
        await register(b, point.local_peer, "chess")


async def test_a_peer_that_says_nothing_is_not_waited_for() -> None:
    net = Net(RendezvousConfig(streams_at_once=1))
    async with net as (point, a, b):
        async with await a.open_stream(point.local_peer, RENDEZVOUS) as quiet:
            await quiet.send_all(b"\x05")
            await settled()
            with pytest.raises((StreamReset, NegotiationError)):  # above the limit
                await say(b, point, frame(encode(Discover())))
            with pytest.raises(StreamReset):
                await quiet.receive_some()
        assert trio.current_time() >= 10
        await register(b, point.local_peer, "chess")


async def test_r7_nobody_keeps_a_point_for_himself() -> None:
    """R7: streams on which one peer says nothing; others are served all the same."""
    async with (
        Net(RendezvousConfig(streams_at_once=10, streams_per_peer=4)) as (point, a, b),
        AsyncExitStack() as stack,
    ):
        for _ in range(10):
            with suppress(StreamReset, NegotiationError):  # one too many
                stream = await a.open_stream(point.local_peer, RENDEZVOUS)
                stack.callback(stream.reset)
                await stream.send_all(b"\x05")
            await settled()
        assert await register(b, point.local_peer, "chess")


async def test_an_answer_has_so_many_bytes() -> None:
    async with Net(RendezvousConfig(answer_bytes=MAX_REQUEST)) as (point, a, b):
        for number in range(32):
            await register(a, point.local_peer, f"{number}".ljust(250, "x"))
            await register(b, point.local_peer, f"{number}".ljust(250, "x"))
        first = await discover(b, point.local_peer)
        assert 20 < len(first.peers) < 64
        cookie, total = first.cookie, len(first.peers)
        while not (more := await discover(b, point.local_peer, cookie=cookie)).complete:
            cookie, total = more.cookie, total + len(more.peers)
        assert total == 64


async def test_a_host_that_listens_nowhere_has_nothing_to_register() -> None:
    async with libp2p.open_host(transports=[]) as host:
        with pytest.raises(NothingToRegister):
            await register(host, PeerId.from_key(seeded_key("x").public_key), "chess")


@pytest.mark.parametrize(
    ("at", "told"),
    [("9.9.9.9", ["/ip4/8.8.8.8/tcp/4001"]), ("192.168.1.1", ["/ip4/192.168.1.7/tcp/4001", "/ip4/8.8.8.8/tcp/4001"])],
)
async def test_i9_a_point_on_the_internet_is_told_no_private_addresses(at: str, told: list[str]) -> None:
    network = MemoryNetwork(0)
    service = RendezvousPoint()
    async with (
        open_memory_host(network, name="point", services=[lambda: service], ip=at) as point,
        open_memory_host(network, name="host", ip="192.168.1.7") as host,
    ):
        if at == "9.9.9.9":
            with pytest.raises(NothingToRegister, match="all addresses of this host are private"):
                await register(host, point.addrs[0], "chess")
        host.set_mapped_addrs([parse("/ip4/8.8.8.8/tcp/4001")])
        await register(host, point.addrs[0], "chess")
        [found] = (await discover(host, point.local_peer, "chess")).peers
        assert sorted(map(str, found.addrs)) == told


# --- points that misbehave --------------------------------------------------------------------------------------------


def answering(host: RunningHost, *answers: bytes | None) -> list[bytes]:
    """Let ``host`` answer requests with ``answers``, one after the other and the last for ever; None says nothing."""
    left = list(answers)
    requests: list[bytes] = []

    async def answer(stream: Stream) -> None:
        frames = FrameBuffer(100_000)
        async for chunk in stream:
            requests.extend(frames.receive_data(chunk))
        found = left.pop(0) if len(left) > 1 else left[0]
        if found is None:
            await trio.sleep_forever()
        await stream.send_all(frame(found))

    host.handle(RENDEZVOUS, answer)
    return requests


async def test_a_point_that_does_not_answer() -> None:
    async with memory_network(2, connect="full") as (a, b):
        answering(b, None)
        with pytest.raises(RendezvousTimeout):
            await discover(a, b.local_peer, "chess", timeout=3)
        with pytest.raises(RendezvousTimeout, match="within 3 s"):
            await register(a, b.local_peer, "chess", timeout=3)
        with pytest.raises(RendezvousTimeout):
            await unregister(a, b.local_peer, "chess", timeout=3)
        assert trio.current_time() == pytest.approx(9)


@pytest.mark.parametrize("answer", [b"", b"junk", encode(Discover()), bytes(100)])
async def test_a_point_that_answers_nonsense(answer: bytes) -> None:
    async with memory_network(2, connect="full") as (a, b):
        answering(b, answer)
        with pytest.raises(RemoteProtocolError):
            await discover(a, b.local_peer, "chess")
        with pytest.raises(RemoteProtocolError):
            await register(a, b.local_peer, "chess")


async def test_forged_and_foreign_registrations_are_left_out() -> None:
    good = Register(namespace="chess", record=sealed("x", "x"), ttl=60)
    items = (
        Register(namespace="chess", record=sealed("x", "x")[:-1] + b"\xff", ttl=60),
        Register(namespace="go", record=sealed("y", "y"), ttl=60),
        Register(namespace="chess", record=b"", ttl=60),
        good,
    )
    async with memory_network(2, connect="full") as (a, b):
        answering(b, encode(DiscoverResponse(status=Status.OK, registrations=items)))
        found = await discover(a, b.local_peer, "chess")
        assert peers(found) == [PeerId.from_key(seeded_key("x").public_key)]
        assert not found.complete


async def test_r7_others_have_a_turn_while_many_registrations_are_checked() -> None:
    """R7: what strangers registered is a thousand signatures to check."""
    item = Register(namespace="chess", record=sealed("x", "x"), ttl=60)
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with memory_network(2, connect="full") as (a, b):
        answering(b, encode(DiscoverResponse(status=Status.OK, registrations=(item,) * 500)))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take_turns)
            assert len((await discover(a, b.local_peer, "chess")).peers) == 500
            assert turns >= 500
            nursery.cancel_scope.cancel()


async def test_a_status_that_is_not_known() -> None:
    async with memory_network(2, connect="full") as (a, b):
        answering(b, encode(DiscoverResponse(status=999, text="just so")))
        with pytest.raises(RendezvousRefused, match=r"status 999 \(just so\)"):
            await discover(a, b.local_peer, "chess")


# --- for as long as somebody wants it ---------------------------------------------------------------------------------


@pytest.fixture
async def running(nursery: trio.Nursery):
    """A function that runs a client service on a host."""

    async def start(host: RunningHost, points: Sequence[PeerId], **config) -> Rendezvous:
        service = Rendezvous(points, config=RendezvousClientConfig(**config))
        await nursery.start(service.run, host)
        return service

    return start


async def test_advertised_for_as_long_as_the_block_is_open(running) -> None:
    net = Net(RendezvousConfig(min_ttl=60, default_ttl=60))
    async with net as (point, a, b):
        service = await running(a, [point.local_peer], min_renewal=10)
        async with service.advertise("chess"):
            await until(lambda: net.point.registrations)
            for _ in range(5):  # longer than any registration lives
                await trio.sleep(45)
                assert peers(await discover(b, point.local_peer, "chess")) == [a.local_peer]
        assert net.point.registrations == 0


async def test_new_addresses_are_registered_at_once(running) -> None:
    net = Net()
    async with net as (point, a, b):
        service = await running(a, [point.local_peer])
        async with service.advertise("chess"):
            await until(lambda: net.point.registrations)
            (new,) = await a.listen("/memory/0")
            await trio.sleep(10)
            (one,) = (await discover(b, point.local_peer, "chess")).peers
            assert new in one.addrs


async def test_a_point_that_is_away_is_tried_again(running) -> None:
    async with Net() as (point, a, b):
        nobody = PeerId.from_key(seeded_key("nobody").public_key)
        service = await running(a, [nobody, point.local_peer])
        node = a.swarm.connections
        async with service.advertise("chess"):
            await trio.sleep(30)
            assert peers(await discover(b, point.local_peer, "chess")) == [a.local_peer]
            assert node() and not a.connections(nobody)


async def test_peers_that_are_there_and_those_that_come(running) -> None:
    async with Net(clients=3) as (point, a, b, c):
        await register(a, point.local_peer, "chess")
        await register(b, point.local_peer, "chess")
        service = await running(b, [point.local_peer])
        with b.subscribe(PeerDiscovered) as events:
            async with service.find_peers("chess") as found:
                assert await found.receive() == a.local_peer
                assert set(b.peerstore.addrs(a.local_peer)) == set(a.listen_addrs())
                assert b.peerstore.envelope(a.local_peer) is not None
                event = await events.receive()
                assert (event.peer, event.source) == (a.local_peer, "rendezvous")
                await register(c, point.local_peer, "chess")
                with trio.fail_after(120):
                    assert await found.receive() == c.local_peer
        await b.connect(a.local_peer)


async def test_a_point_that_was_restarted_has_forgotten_its_cookies(running) -> None:
    net = Net()
    async with net as (point, a, b):
        await register(a, point.local_peer, "chess")
        service = await running(b, [point.local_peer])
        async with service.find_peers("chess") as found:
            assert await found.receive() == a.local_peer
            net.point._cookies = RendezvousPoint()._cookies
            with trio.fail_after(120):
                assert await found.receive() == a.local_peer


async def test_a_point_without_end_is_no_loop(running) -> None:
    """It says that there is more for ever: after some pages it has to wait like others."""
    item = Register(namespace="chess", record=sealed("x", "x"), ttl=60)
    async with memory_network(2, connect="full") as (a, b):
        requests = answering(b, encode(DiscoverResponse(status=Status.OK, registrations=(item,), cookie=b"c")))
        service = await running(a, [b.local_peer], pages=3, first_interval=60)
        async with service.find_peers("chess") as found:
            with trio.move_on_after(40):
                async for _ in found:
                    pass
        assert len(requests) == 3


async def test_a_point_that_always_refuses_the_cookie_is_no_loop(running) -> None:
    async with memory_network(2, connect="full") as (a, b):
        requests = answering(b, encode(DiscoverResponse(status=Status.INVALID_COOKIE)))
        service = await running(a, [b.local_peer])
        async with service.find_peers("chess"):
            await trio.sleep(60)
        assert 3 <= len(requests) <= 8


async def test_a_point_that_grants_no_time_is_no_loop(running) -> None:
    async with memory_network(2, connect="full") as (a, b):
        requests = answering(b, b"\x08\x01\x1a\x04\x08\x00\x18\x00")
        service = await running(a, [b.local_peer])
        async with service.advertise("chess"):
            await trio.sleep(290)
        assert len(requests) == 6  # five registrations, and the farewell


async def test_nobody_takes_what_is_found(running) -> None:
    async with Net() as (point, a, b):
        await register(a, point.local_peer, "chess")
        service = await running(b, [point.local_peer], buffer=0)
        async with service.find_peers("chess") as found:
            await trio.sleep(10)
            await found.aclose()
            await trio.sleep(1000)


async def test_errors_of_the_block_come_out_as_themselves(running) -> None:
    async with Net() as (point, a, _b):
        service = await running(a, [point.local_peer])
        with pytest.raises(KeyError):
            async with service.advertise("chess"):
                raise KeyError
        with pytest.raises(KeyError):
            async with service.find_peers("chess"):
                raise KeyError


async def test_a_service_that_does_not_run() -> None:
    service = Rendezvous([])
    with pytest.raises(RuntimeError):
        async with service.advertise("chess"):
            pass
    with pytest.raises(RuntimeError):
        async with service.find_peers("chess"):
            pass


async def test_the_name_is_looked_at_first(running) -> None:
    async with memory_network(1) as (a,):
        service = await running(a, [])
        with pytest.raises(ValueError):
            async with service.advertise(""):
                pass


@pytest.mark.parametrize(
    "wrong", [{"timeout": 0}, {"renew_at": 1}, {"pages": 0}, {"first_delay": 400}, {"farewell": -1}, {"buffer": -1}]
)
def test_configs_that_make_no_sense(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        RendezvousClientConfig(**wrong)


# --- the store behind it ----------------------------------------------------------------------------------------------


class Remembering:
    """A store that notes what it is told."""

    def __init__(self, *stored: StoredRegistration) -> None:
        self.stored = stored
        self.told: list[tuple[object, ...]] = []
        self.closed = False

    def load(self) -> Sequence[StoredRegistration]:
        return self.stored

    async def save(self, namespace: str, peer: PeerId, record: bytes, ttl: float) -> None:
        self.told.append(("save", namespace, peer, ttl))
        await trio.lowlevel.checkpoint()

    async def remove(self, namespace: str, peer: PeerId) -> None:
        self.told.append(("remove", namespace, peer))
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        self.closed = True


async def test_the_store_is_told_and_asked() -> None:
    other = PeerId.from_key(seeded_key("other").public_key)
    stored = [StoredRegistration("chess", other, sealed("other", "other"), 100.0)]
    stored.append(StoredRegistration("", other, b"", 100.0))  # nothing that could be registered
    store = Remembering(*stored)
    async with Net(store=store) as (point, a, _b):
        (one,) = (await discover(a, point.local_peer)).peers
        assert (one.peer, one.ttl <= 100) == (other, True)
        await register(a, point.local_peer, "chess")
        await unregister(a, point.local_peer, "chess")
        await unregister(a, point.local_peer, "go")  # it was not there
        assert store.told == [("save", "chess", a.local_peer, 7200), ("remove", "chess", a.local_peer)]
        assert not store.closed
    assert store.closed


async def test_a_store_that_cannot_be_read_is_closed() -> None:
    class Broken(Remembering):
        def load(self) -> Sequence[StoredRegistration]:
            raise StoreUnwritable("file", "gone")

    store = Broken()
    async with memory_network(1) as (host,):
        with pytest.raises(StoreUnwritable):
            await RendezvousPoint(store=store).run(host)
    assert store.closed
