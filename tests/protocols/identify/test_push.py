"""Identify pushes, both ways: requirements I3 to I5, case I2."""

from __future__ import annotations

import dataclasses

import pytest
import trio

from libp2p.abc import Connection, Host, Stream
from libp2p.addressing import parse
from libp2p.errors import ConnectionClosed, NegotiationError, StreamReset
from libp2p.events import PeerIdentified
from libp2p.protocols.identify import (
    IDENTIFY,
    IDENTIFY_PUSH,
    IdentifyConfig,
    IdentifyFailed,
    IdentifyInfo,
    identify,
)
from libp2p.protocols.identify._codec import decode, encode
from libp2p.protocols.ping import PING, ping
from libp2p.testing import memory_network
from libp2p.testing.keys import seeded_key
from libp2p.testing.network import open_memory_host
from libp2p.wire.framing import FrameBuffer, frame
from tests.protocols.identify.raw import (
    PUBLIC_A,
    Services,
    garbage,
    nop,
    push,
    silent,
    with_raw_peer,
)
from tests.protocols.waiting import settled

# --- pushes of others -------------------------------------------------------------------------------------------------


async def test_i4_a_push_changes_only_what_it_says() -> None:
    answer = encode(IdentifyInfo(protocols=("/one",), agent_version="old", protocol_version="p"))
    async with with_raw_peer(answer) as (a, service, raw):
        await raw.connect(a.addrs[0])
        await service.identified(raw.local_peer)
        with a.subscribe(PeerIdentified) as events:
            await push(raw, a, encode(IdentifyInfo(protocols=("/two", "/three"))))
            event = await events.receive()
            assert event.protocols == ("/two", "/three")
            assert (event.agent_version, event.protocol_version) == ("old", "p")
        assert a.peerstore.protocols(raw.local_peer) == {"/two", "/three"}
        assert (await service.identified(raw.local_peer)).agent_version == "old"


async def test_a_push_waits_for_identify() -> None:
    asked, answer_now = trio.Event(), trio.Event()

    async def answer(stream: Stream) -> None:
        asked.set()
        await answer_now.wait()
        await stream.send_all(frame(encode(IdentifyInfo(protocols=("/old",), agent_version="x"))))

    async with with_raw_peer(answer) as (a, service, raw), trio.open_nursery() as nursery:
        await raw.connect(a.addrs[0])
        await asked.wait()
        nursery.start_soon(push, raw, a, encode(IdentifyInfo(protocols=("/new",))))
        await settled()
        answer_now.set()
        await settled()
        info = await service.identified(raw.local_peer)
        assert (info.protocols, info.agent_version) == (("/new",), "x")


async def test_a_push_after_identify_failed() -> None:
    async with with_raw_peer(garbage) as (a, service, raw):
        await raw.connect(a.addrs[0])
        with pytest.raises(IdentifyFailed):
            await service.identified(raw.local_peer)
        await push(raw, a, encode(IdentifyInfo(protocols=("/new",))))
        assert (await service.identified(raw.local_peer)).protocols == ("/new",)


async def test_i3_a_push_with_a_wrong_key_ends_the_connection() -> None:
    async with with_raw_peer(b"") as (a, _, raw):
        connection = await raw.connect(a.addrs[0])
        with pytest.raises((StreamReset, ConnectionClosed, NegotiationError)):
            await push(raw, a, encode(IdentifyInfo(public_key=seeded_key("stranger").public_key.marshal())))
        await until_ended(raw, connection)


async def until_ended(host: Host, connection: Connection) -> None:
    await settled()
    assert connection not in host.connections()


async def test_case_i2_pushes_are_rate_limited_by_neighbourhood() -> None:
    services = Services()
    ips = (PUBLIC_A, "9.9.9.1", "9.9.9.2", "9.9.8.1")
    async with memory_network(1, defaults=(services,), ips=ips[:1]) as hosts:
        (a,) = hosts
        async with (
            open_memory_host(hosts.network, name="x", ip=ips[1], defaults=()) as x,
            open_memory_host(hosts.network, name="y", ip=ips[2], defaults=()) as y,
            open_memory_host(hosts.network, name="z", ip=ips[3], defaults=()) as z,
        ):
            for raw in (x, y, z):
                await raw.connect(a.addrs[0])
            taken = [await is_taken(x, a, number) for number in range(9)]
            assert all(taken)
            assert await is_taken(y, a, 9)
            assert not await is_taken(x, a, 10)
            assert not await is_taken(y, a, 11)
            assert await is_taken(z, a, 12)
            await trio.sleep(5)
            assert await is_taken(x, a, 13)
            assert not await is_taken(x, a, 14)
            assert a.peerstore.protocols(x.local_peer) == {"/p/13"}


async def is_taken(raw: Host, host: Host, number: int) -> bool:
    try:
        await push(raw, host, encode(IdentifyInfo(protocols=(f"/p/{number}",))))
    except (StreamReset, NegotiationError):
        return False
    return True


async def test_case_i2_only_so_many_at_once() -> None:
    async with with_raw_peer(b"", config=IdentifyConfig(pushes_at_once=1)) as (a, service, raw):
        await raw.connect(a.addrs[0])
        await service.identified(raw.local_peer)
        async with await raw.open_stream(a.local_peer, IDENTIFY_PUSH) as hog:
            await hog.send_all(b"\x05")
            await settled()
            assert not await is_taken(raw, a, 1)
            with pytest.raises(StreamReset):  # it has five seconds, and then makes room
                await hog.receive_some()
        assert await is_taken(raw, a, 2)


def test_configuration() -> None:
    for wrong in ("timeout", "addr_ttl", "push_burst", "push_rate", "pushes_at_once", "push_sources"):
        with pytest.raises(ValueError, match="positive"):
            dataclasses.replace(IdentifyConfig(), **{wrong: -1})  # type: ignore[arg-type]


# --- pushes to others -------------------------------------------------------------------------------------------------


class Pushed:
    """Collects the pushes that arrive at a host."""

    def __init__(self, host: Host) -> None:
        self.infos: list[IdentifyInfo] = []
        self.hold = trio.Event()
        self.hold.set()
        host.handle(IDENTIFY_PUSH, self._take)

    async def _take(self, stream: Stream) -> None:
        data = b"".join([chunk async for chunk in stream])
        self.infos.append(decode(FrameBuffer(4096).receive_data(data)))
        await self.hold.wait()


async def test_i5_changes_are_pushed() -> None:
    async with memory_network(2, connect="full") as (a, b):
        await ping(a, b.local_peer)
        await settled()
        assert "/new/1" not in b.peerstore.protocols(a.local_peer)
        with a.handle("/new/1", nop):
            await settled()
            assert "/new/1" in b.peerstore.protocols(a.local_peer)
        await settled()
        assert "/new/1" not in b.peerstore.protocols(a.local_peer)
        assert PING in b.peerstore.protocols(a.local_peer)
        await a.listen("/memory/77")
        await settled()
        assert parse("/memory/77") in b.peerstore.addrs(a.local_peer)


async def test_i5_bursts_are_coalesced() -> None:
    async with with_raw_peer(encode(IdentifyInfo(protocols=(IDENTIFY_PUSH,)))) as (a, service, raw):
        pushed = Pushed(raw)
        await a.connect(raw.addrs[0])
        await service.identified(raw.local_peer)
        for number in range(50):
            a.handle(f"/burst/{number}", nop)
        await settled()
        assert 1 <= len(pushed.infos) <= 2
        assert "/burst/49" in pushed.infos[-1].protocols
        for number in range(50, 60):
            a.handle(f"/burst/{number}", nop)
            await trio.lowlevel.checkpoint()
        await settled()
        assert "/burst/59" in pushed.infos[-1].protocols
        assert len(pushed.infos) <= 12
        before = len(pushed.infos)
        a.handle("/temporary", nop).__exit__(None, None, None)
        await settled()
        assert len(pushed.infos) == before  # nothing has changed


async def test_i5_not_to_peers_that_do_not_take_pushes() -> None:
    async with with_raw_peer(encode(IdentifyInfo(protocols=("/x",)))) as (a, service, raw):
        pushed = Pushed(raw)
        await a.connect(raw.addrs[0])
        await service.identified(raw.local_peer)
        a.handle("/new", nop)
        await trio.sleep(100)
        assert not pushed.infos


async def test_i5_not_before_identify_and_then_what_was_missed() -> None:
    answer_now = trio.Event()

    async def answer(stream: Stream) -> None:
        await answer_now.wait()
        await stream.send_all(frame(encode(IdentifyInfo(protocols=(IDENTIFY_PUSH,)))))

    async with with_raw_peer(answer) as (a, _, raw):
        pushed = Pushed(raw)
        await raw.connect(a.addrs[0])
        assert "/new" not in (await identify(raw, a.local_peer)).protocols
        a.handle("/new", nop)
        await settled()
        assert not pushed.infos
        answer_now.set()
        await settled()
        assert [("/new" in info.protocols) for info in pushed.infos] == [True]


async def test_i5_a_push_that_fails_is_made_up_for() -> None:
    async with with_raw_peer(encode(IdentifyInfo(protocols=(IDENTIFY_PUSH,)))) as (a, service, raw):
        with raw.handle(IDENTIFY_PUSH, silent):
            await a.connect(raw.addrs[0])
            await service.identified(raw.local_peer)
            a.handle("/one", nop)
            await settled()
            await raw.disconnect(a.local_peer)
            await settled()
        pushed = Pushed(raw)
        await a.connect(raw.addrs[0])
        await service.identified(raw.local_peer)
        a.handle("/two", nop)
        await settled()
        assert pushed.infos[-1].protocols == (IDENTIFY, IDENTIFY_PUSH, "/one", "/two")
