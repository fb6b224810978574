"""``libp2p.protocols.portmap`` against a router of our own on loopback."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
import trio

import libp2p
from libp2p.events import ListenAddrsChanged
from libp2p.metrics import render
from libp2p.protocols.portmap import (
    NoGateway,
    Port,
    PortMapConfig,
    PortMapping,
    PortMappingChanged,
    PortMappingError,
    Router,
    RouterPlace,
    RouterRefused,
    RouterSilent,
    Transport,
    find_routers,
)
from libp2p.protocols.portmap._gateway import default_gateway, local_ip_towards, parse_routes
from tests.protocols.portmap.routers import EXTERNAL, LOOPBACK, FakeRouter, Mapping, open_router, reply

pytestmark = pytest.mark.sockets
# Patient where an answer will come, impatient where none will.
CONFIG = PortMapConfig(
    search_timeout=10.0, request_timeout=10.0, head_start=0.05, first_retry=0.05, max_retry=0.05, min_renewal=0.05,
    farewell=10.0,
)  # fmt: skip
HASTY = replace(CONFIG, search_timeout=0.3, request_timeout=0.3)
ALL = ["pcp", "nat-pmp", "upnp"]
NAMES = {"pcp": "PCP", "nat-pmp": "NAT-PMP", "upnp": "UPnP"}
WAYS = pytest.mark.parametrize("way", ALL)
LISTEN = "/ip4/127.0.0.1/tcp/0"


@asynccontextmanager
async def mapped(
    router: FakeRouter, config: PortMapConfig = CONFIG, *listen: str
) -> AsyncIterator[tuple[libp2p.Host, PortMapping]]:
    """A host whose ports the router maps, once it does."""
    service = PortMapping(config, place=router.place, rng=random.Random(1))
    async with libp2p.open_host(listen=listen or [LISTEN], services=[service]) as host:
        yield host, service


async def until_leases(host: libp2p.Host, service: PortMapping, count: int) -> None:
    with host.subscribe(PortMappingChanged) as events, trio.fail_after(30):
        while len(service.leases) != count:
            await events.receive()


async def failure(host: libp2p.Host, service: PortMapping) -> PortMappingError:
    with host.subscribe(PortMappingChanged) as events, trio.fail_after(30):
        while (event := await events.receive()).error is None or event.leases:
            pass
    assert service.leases == ()
    assert event.error is not None
    return event.error


def port_of(addr: object) -> int:
    return int(str(addr).split("/")[4])


# --- the life of a mapping --------------------------------------------------------------------------------------------


@WAYS
async def test_a_port_is_mapped_announced_and_given_back(way: str) -> None:
    async with open_router(way) as router:
        async with mapped(router) as (host, service):
            await until_leases(host, service, 1)
            inside = port_of(host.listen_addrs()[0])
            assert service.protocol == NAMES[way]
            assert service.leases[0].port == Port(Transport.TCP, inside)
            assert [*router.mappings] == [("TCP", inside)]
            assert router.mappings["TCP", inside].client == LOOPBACK
            announced = [str(addr) for addr in host.addrs]
            assert f"/ip4/{EXTERNAL}/tcp/{inside}/p2p/{host.local_peer}" in announced
            assert "libp2p_portmap_leases 1" in render(list(service.measure()))
        assert router.mappings == {}


@WAYS
async def test_what_is_not_answered_yet_is_given_back_too(way: str) -> None:
    """The host closes after its question and before the router's answer."""
    async with open_router(way) as router:
        router.mute = True
        async with mapped(router):
            await router.until(lambda: bool(router.mappings))
        assert router.mappings == {}


@WAYS
async def test_each_port_once_in_the_shape_of_each_address(way: str) -> None:
    pytest.importorskip("qh3")
    async with open_router(way) as router:
        listen = [LISTEN, "/ip4/127.0.0.1/udp/0/quic-v1", "/ip4/127.0.0.1/tcp/0/ws", "/ip6/::1/tcp/0"]
        async with mapped(router, CONFIG, *listen) as (host, service):
            await until_leases(host, service, 3)
            shapes = {str(addr).partition("/p2p/")[0] for addr in host.addrs if EXTERNAL in str(addr)}
            ports = {addr.partition("/ip4/127.0.0.1")[2] for addr in map(str, host.listen_addrs())} - {""}
            assert shapes == {f"/ip4/{EXTERNAL}{rest}" for rest in ports}
            assert {name for name, _ in router.mappings} == {"TCP", "UDP"}
        assert router.mappings == {}


@pytest.mark.parametrize("way", ["pcp", "nat-pmp"])
async def test_the_routers_choice_of_port_counts_and_is_kept(way: str) -> None:
    async with open_router(way) as router:
        router.shift, router.max_lifetime = -1, 1
        async with mapped(router) as (host, service):
            await until_leases(host, service, 1)
            inside = port_of(host.listen_addrs()[0])
            await router.until(lambda: router.log.count("map TCP") >= 2)
            assert service.leases[0].external_port == inside - 1
            assert any(f"/ip4/{EXTERNAL}/tcp/{inside - 1}/" in str(addr) for addr in host.addrs)
            assert [*router.mappings] == [("TCP", inside - 1)]


async def test_renewed_at_half_of_its_life() -> None:
    async with open_router("nat-pmp") as router:
        router.max_lifetime = 1
        async with mapped(router) as (host, service):
            await until_leases(host, service, 1)
            await router.until(lambda: router.log.count("map TCP") >= 3)
            assert len(service.leases) == 1


@WAYS
async def test_a_router_that_forgot_is_asked_again(way: str) -> None:
    async with open_router(way) as router, mapped(router, replace(CONFIG, check=0.05)) as (host, service):
        await until_leases(host, service, 1)
        router.restart()
        await router.until(lambda: bool(router.mappings))
        await until_leases(host, service, 1)


@pytest.mark.parametrize("way", ["nat-pmp", "upnp"])
async def test_another_external_address(way: str) -> None:
    async with open_router(way) as router, mapped(router, replace(CONFIG, check=0.05)) as (host, service):
        await until_leases(host, service, 1)
        with host.subscribe(ListenAddrsChanged) as changes, trio.fail_after(30):
            router.external = "8.8.4.4"
            while not any("8.8.4.4" in str(addr) for addr in (await changes.receive()).addrs):
                pass
        assert not any(EXTERNAL in str(addr) for addr in host.addrs)


async def test_a_port_that_comes_later_is_mapped_too() -> None:
    async with open_router("pcp") as router, mapped(router) as (host, service):
        await until_leases(host, service, 1)
        await host.listen(LISTEN)
        await until_leases(host, service, 2)
        assert len(router.mappings) == 2


async def test_no_more_ports_than_configured() -> None:
    config = replace(CONFIG, ports=1)
    async with open_router("pcp") as router, mapped(router, config, LISTEN, LISTEN) as (host, service):
        await until_leases(host, service, 1)
        await router.until(lambda: len(router.mappings) == 1)


@pytest.mark.parametrize("external", ["0.0.0.0", "127.0.0.1", "192.0.2.1"])
async def test_an_external_address_of_no_use_is_not_announced(external: str) -> None:
    async with open_router("nat-pmp") as router:
        router.external = external
        async with mapped(router) as (host, service):
            await until_leases(host, service, 1)
            assert len(host.addrs) == 1


async def test_the_gateway_of_another_network(tmp_path: Path) -> None:
    """The machine moves: what was mapped is gone from the addresses, and there is a new search."""
    moved = False

    class Place(RouterPlace):
        def address(self) -> str:
            return "127.0.0.2" if moved else LOOPBACK

    async with open_router("pcp") as router:
        service = PortMapping(replace(HASTY, check=0.05), place=Place(port=router.place.port, group=router.place.group))
        async with libp2p.open_host(listen=[LISTEN], services=[service]) as host:
            await until_leases(host, service, 1)
            moved = True
            await until_leases(host, service, 0)
            assert not any(EXTERNAL in str(addr) for addr in host.addrs)


# --- which protocol ---------------------------------------------------------------------------------------------------


async def test_the_best_protocol_is_taken() -> None:
    async with open_router(*ALL) as router, mapped(router) as (host, service):
        await until_leases(host, service, 1)
        assert service.protocol == "PCP"


async def test_pcp_falls_back_to_nat_pmp() -> None:
    """A router that speaks only NAT-PMP says so to whoever speaks PCP (RFC 6887, appendix A)."""
    async with open_router("nat-pmp") as router:
        both = ["PCP", "NAT-PMP"]
        found = await find_routers(router.place, CONFIG, secret=b"", rng=random.Random(), protocols=both)
        refusal = found["PCP"]
        assert isinstance(refusal, RouterRefused)
        assert (refusal.code, refusal.protocol) == (1, "PCP")
        assert not isinstance(found["NAT-PMP"], PortMappingError)


async def test_a_refusal_in_one_protocol_leads_to_the_next_one() -> None:
    async with open_router("nat-pmp", "upnp") as router:
        router.refuse_map = 2
        async with mapped(router) as (host, service):
            await until_leases(host, service, 1)
            assert service.protocol == "UPnP"


async def test_lost_datagrams_are_repeated() -> None:
    async with open_router("pcp") as router:
        router.lose = 2
        async with mapped(router) as (host, service):
            await until_leases(host, service, 1)


async def test_nobody_there() -> None:
    async with open_router() as router, mapped(router, HASTY) as (host, service):
        error = await failure(host, service)
        assert isinstance(error, RouterSilent)
        assert "PCP" in str(error)
        assert service.protocol is None
        router.speaks = {"nat-pmp"}  # it is switched on
        await until_leases(host, service, 1)


async def test_nobody_listens() -> None:
    async with open_router() as router:
        place = router.place
    found = await find_routers(place, HASTY, secret=b"", rng=random.Random())
    assert [*map(type, found.values())] == [RouterSilent] * 3


@pytest.mark.parametrize(("way", "code", "words"), [("pcp", 2, "not authorized"), ("nat-pmp", 77, "no known reason")])
async def test_refused(way: str, code: int, words: str) -> None:
    async with open_router(way) as router:
        router.refuse_map = code
        async with mapped(router, HASTY) as (host, _):
            with host.subscribe(PortMappingChanged) as events, trio.fail_after(30):
                while not isinstance(error := (await events.receive()).error, RouterRefused):
                    pass
            assert (error.code, error.protocol) == (code, NAMES[way])
            assert words in str(error)


async def test_a_router_that_falls_silent_is_given_up() -> None:
    async with open_router("pcp") as router, mapped(router, replace(HASTY, check=0.05)) as (host, service):
        await until_leases(host, service, 1)
        router.speaks.clear()
        assert isinstance(await failure(host, service), RouterSilent)
        assert len(host.addrs) == 1


async def test_pcp_after_a_crash_the_same_host_gets_its_port_back() -> None:
    """Who asks without the nonce of the mapping is refused (RFC 6887, 11.3)."""
    async with open_router("pcp") as router:
        async with mapped(router) as (host, service):
            await until_leases(host, service, 1)
            owner = next(iter(router.mappings.values())).owner
            address, key = str(host.listen_addrs()[0]), host.private_key
            kept = dict(router.mappings)
        router.mappings.update(kept)  # as if it had been killed
        service = PortMapping(CONFIG, place=router.place)
        async with libp2p.open_host(listen=[address], key=key, services=[service]) as host:
            await until_leases(host, service, 1)
            assert next(iter(router.mappings.values())).owner == owner
        router.mappings.update(kept)
        stranger = PortMapping(HASTY, place=router.place)
        async with libp2p.open_host(listen=[address], services=[stranger]) as host:
            assert isinstance(await failure(host, stranger), PortMappingError)


# --- UPnP's own ways --------------------------------------------------------------------------------------------------


async def test_upnp_a_port_that_is_taken() -> None:
    async with open_router("upnp") as router, mapped(router) as (host, service):
        await until_leases(host, service, 1)
        (key,) = router.mappings
        router.mappings[key] = Mapping("192.168.1.9", 1, 0)
        with trio.fail_after(30):
            found = await find_routers(router.place, CONFIG, secret=b"", rng=random.Random(1), protocols=["UPnP"])
            lease = await granted(found["UPnP"], service.leases[0].port)
        assert lease != key[1]
        assert router.mappings["TCP", lease].client == LOOPBACK


async def granted(router: Router | PortMappingError, port: Port) -> int:
    assert not isinstance(router, PortMappingError)
    return (await router.map(port, wish=port.number, lifetime=60)).external_port


async def test_upnp_a_router_that_takes_only_permanent_mappings() -> None:
    async with open_router("upnp") as router:
        router.max_lifetime = 0
        async with mapped(router) as (host, service):
            await until_leases(host, service, 1)
            assert [each.lifetime for each in router.mappings.values()] == [0]
        assert router.mappings == {}


@pytest.mark.parametrize("code", [606, 718, 501])
async def test_upnp_refused(code: int) -> None:
    async with open_router("upnp") as router:
        router.upnp_fault["AddPortMapping"] = code
        found = await find_routers(router.place, CONFIG, secret=b"", rng=random.Random(1), protocols=["UPnP"])
        with pytest.raises(RouterRefused) as caught:
            await granted(found["UPnP"], Port(Transport.TCP, 4001))
        assert caught.value.code == code
        assert router.log.count("fault AddPortMapping") == (1 if code == 606 else 4)


async def test_upnp_faults_elsewhere() -> None:
    async with open_router("upnp") as router:
        found = (await find_routers(router.place, CONFIG, secret=b"", rng=random.Random(1), protocols=["UPnP"]))["UPnP"]
        assert not isinstance(found, PortMappingError)
        lease = await found.map(Port(Transport.TCP, 4001), wish=4001, lifetime=60)
        assert await found.check([lease])
        for elsewhere in (Mapping("192.168.1.9", 4001, 0), Mapping(LOOPBACK, 4002, 0)):
            router.mappings["TCP", 4001] = elsewhere  # somebody has taken it since
            assert not await found.check([lease])
            await found.unmap(lease)
            assert router.mappings == {("TCP", 4001): elsewhere}
        router.mappings.clear()
        assert not await found.check([lease])
        await found.unmap(lease)  # it is gone already, which is what was wanted
        router.upnp_fault["GetSpecificPortMappingEntry"] = 401  # some do not know it
        await found.unmap(lease)
        router.upnp_fault["DeletePortMapping"] = 606
        with pytest.raises(RouterRefused):
            await found.unmap(lease)
        router.upnp_fault["GetExternalIPAddress"] = 501
        with pytest.raises(RouterRefused):
            await found.check([lease])
        with pytest.raises(RouterRefused):
            await found.map(Port(Transport.TCP, 4001), wish=4001, lifetime=60)
        assert router.mappings == {}, "a port is open that nobody can be told of"
        router.upnp_fault.clear()
        router.external = ""
        with pytest.raises(RouterRefused, match="no address itself"):
            await found.check([lease])


# --- hostile routers --------------------------------------------------------------------------------------------------

LAUGHS = (
    "<!DOCTYPE r [<!ENTITY a 'ha'>"
    + "".join(f"<!ENTITY {b} '{f'&{a};' * 10}'>" for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    + "]><r>&i;</r>"
)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + bytes(20_000),
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n" + b"<a>" * 100_000,
        b"HTTP/1.1 200 OK\r\n\r\n" + b"<a>" * 5000,
        b"HTTP/1.1 200 OK\r\n\r\n" + b"<a/>" * 5000,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffff\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * 60_000,
        b"HTTP/1.1 302 Found\r\nLocation: http://192.0.2.1/\r\nContent-Length: 0\r\n\r\n",
        reply(200, LAUGHS),
        reply(200, "<!DOCTYPE r SYSTEM 'file:///etc/passwd'><r/>"),
        reply(200, "<root/>"),
        reply(200, "\ufffe"),
    ],
    ids=range(14),
)
async def test_hostile_descriptions(raw: bytes) -> None:
    async with open_router("upnp") as router:
        router.raw_upnp = raw
        found = await find_routers(router.place, CONFIG, secret=b"", rng=random.Random(), protocols=["UPnP"])
        assert isinstance(found["UPnP"], RouterSilent)


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.2:{port}/",
        "https://127.0.0.1:{port}/",
        "http://localhost:{port}/",
        "file:///etc/passwd",
        "",
        "x",
    ],
)
async def test_hostile_a_description_elsewhere_is_not_fetched(location: str) -> None:
    async with open_router("upnp") as router:
        router.location = location
        found = await find_routers(router.place, HASTY, secret=b"", rng=random.Random(), protocols=["UPnP"])
        assert isinstance(found["UPnP"], RouterSilent)
        assert router.log == []


@pytest.mark.parametrize("control", ["http://192.0.2.1/ctl", "//192.0.2.1/ctl", "http://[::1", "http://127.0.0.1:x/"])
async def test_hostile_a_router_that_is_controlled_elsewhere(control: str) -> None:
    async with open_router("upnp") as router:
        router.control = control
        found = await find_routers(router.place, CONFIG, secret=b"", rng=random.Random(), protocols=["UPnP"])
        assert isinstance(found["UPnP"], RouterSilent)
        assert router.log == []


@WAYS
async def test_hostile_junk_before_the_answer(way: str) -> None:
    async with open_router(way) as router:
        router.raw_udp = [b"", b"\0", bytes(2000), b"\x02\x81" + bytes(58), b"\0\x82\0", b"\x02\x81\0"]
        async with mapped(router) as (host, service):
            await until_leases(host, service, 1)


async def test_hostile_a_router_that_never_ends_its_answer() -> None:
    """The time for the whole answer is bounded, whatever trickles in."""
    async with open_router("upnp") as router:

        async def trickle(stream: trio.SocketStream) -> None:
            async with stream:
                with suppress(trio.BrokenResourceError):
                    while True:
                        await stream.send_all(b"H")
                        await trio.lowlevel.checkpoint()
                        await stream.receive_some()

        router.serve_http = trickle  # type: ignore[method-assign]
        found = await find_routers(router.place, HASTY, secret=b"", rng=random.Random(), protocols=["UPnP"])
        assert isinstance(found["UPnP"], RouterSilent)


# --- where the router is ----------------------------------------------------------------------------------------------

HEAD = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"


@pytest.mark.parametrize(
    ("rows", "gateway"),
    [
        (["eth0 00000000 0101A8C0 0003 0 0 100 00000000 0 0 0"], "192.168.1.1"),
        (["eth0 00000000 0101A8C0 0003 0 0 600 00000000 0 0 0", "w 00000000 FE00000A 0003 0 0 50 00000000 0 0 0"],
         "10.0.0.254"),
        (["w 00000000 FE00000A 0003 0 0 50 00000000 0 0 0", "eth0 00000000 0101A8C0 0003 0 0 600 00000000 0 0 0"],
         "10.0.0.254"),
        (["eth0 0001A8C0 00000000 0001 0 0 100 00FFFFFF 0 0 0"], None),
        (["eth0 00000000 0101A8C0 0001 0 0 100 00000000 0 0 0"], None),
        (["eth0 00000000 0101A8C0 0003 0 0 100 000000FF 0 0 0"], None),
        (["eth0 zz", "", "eth0 00000000 01A8C0 0003 0 0 100 00000000 0 0 0"], None),
        ([], None),
    ],
)  # fmt: skip
def test_the_default_route(tmp_path: Path, rows: list[str], gateway: str | None) -> None:
    text = HEAD + "".join(f"{row}\n" for row in rows)
    assert parse_routes(text) == gateway
    (tmp_path / "route").write_text(text)
    if gateway is None:
        with pytest.raises(NoGateway):
            default_gateway(tmp_path / "route")
    else:
        assert default_gateway(tmp_path / "route") == gateway


def test_a_system_that_does_not_tell_its_routes(tmp_path: Path) -> None:
    with pytest.raises(NoGateway, match="give the router's address"):
        default_gateway(tmp_path / "missing")


async def test_without_a_gateway_upnp_is_still_tried() -> None:
    class Place(RouterPlace):
        def address(self) -> str:
            raise NoGateway("test")

    async with open_router("upnp") as router:
        service = PortMapping(CONFIG, place=Place(group=router.place.group))
        async with libp2p.open_host(listen=[LISTEN], services=[service]) as host:
            await until_leases(host, service, 1)
            assert service.protocol == "UPnP"


def test_the_own_address_on_the_way() -> None:
    assert local_ip_towards(LOOPBACK) == LOOPBACK
