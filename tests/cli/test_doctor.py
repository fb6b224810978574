"""``libp2p doctor``, on this machine alone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import trio

pytest.importorskip("typer")
pytest.importorskip("rich")

import libp2p
from libp2p.addressing import host_port
from libp2p.cli._checks import Checks
from libp2p.cli._findings import State
from libp2p.cli._node import Node
from libp2p.errors import TransportError
from libp2p.protocols.autonat import AutoNatServer
from libp2p.protocols.relay import RelayServer
from tests.cli.program import Result

LOOPBACK = "/ip4/127.0.0.1/tcp/0"
NOBODY = "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp"
ALL = {"interfaces", "peers", "udp", "nat", "reachability", "ipv6", "port mapping", "relays", "dns", "clock"}
ALL |= {"file descriptors"}


@asynccontextmanager
async def checking(**given: Any) -> AsyncIterator[Checks]:
    node = Node(timeout=10)
    options: dict[str, Any] = {
        "peers": [],
        "relays": [],
        "name": "localhost",
        "gateway": "127.0.0.1",
        "port": 0,
    } | given
    async with libp2p.open_host() as host:
        with trio.fail_after(50):
            yield Checks(node, host, **options)


@pytest.mark.sockets
async def test_peers_udp_and_nat() -> None:
    pytest.importorskip("qh3")
    listen = [LOOPBACK, "/ip4/127.0.0.1/udp/0/quic-v1"]
    async with libp2p.open_host(listen=listen) as peer, checking(peers=[str(peer.addrs[0]), NOBODY]) as checks:
        found = await checks.peers()
        assert found.state is State.GOOD
        assert found.details["reached"] == [str(peer.local_peer)]
        assert found.details["failed"].keys() == {NOBODY}
        udp = await checks.udp()
        assert (udp.state, udp.words) == (State.GOOD, "QUIC reaches 1 of 1 peers")
        assert (await checks.nat()).details == {"kind": "unknown"}  # a peer of this machine sees no NAT
        assert (await checks.ipv6()).state is State.UNKNOWN


@pytest.mark.sockets
async def test_nobody_is_reached() -> None:
    async with checking(peers=[NOBODY]) as checks:
        found = await checks.peers()
        assert found.state is State.BAD
        assert found.words.startswith("0 of 1 reached: ")
        assert (await checks.udp()).state is State.UNKNOWN


@pytest.mark.sockets
async def test_reachability() -> None:
    """Peers of this machine get through, which says nothing about others."""
    async with (
        libp2p.open_host(listen=[LOOPBACK], services=[AutoNatServer(libp2p.open_host, allow_private=True)]) as one,
        libp2p.open_host(listen=[LOOPBACK]) as two,
        checking(peers=[str(one.addrs[0]), str(two.addrs[0])]) as checks,
    ):
        await checks.interfaces()
        await checks.peers()
        found = await checks.reachability()
        assert found.state is State.UNKNOWN
        [tried] = found.details["tries"]
        assert tried["outcome"] == "reached" and tried["addr"].startswith("/ip4/127.0.0.1/tcp/")


@pytest.mark.sockets
async def test_a_server_that_does_not_try() -> None:
    async with (
        # It dials nobody at private addresses.
        libp2p.open_host(listen=[LOOPBACK], services=[AutoNatServer(libp2p.open_host)]) as server,
        checking(peers=[str(server.addrs[0])]) as checks,
    ):
        await checks.interfaces()
        await checks.peers()
        [tried] = (await checks.reachability()).details["tries"]
        assert "answered" in tried["outcome"]


@pytest.mark.sockets
async def test_a_port_that_is_taken() -> None:
    async with libp2p.open_host() as other:
        [bound] = await other.listen("/ip4/0.0.0.0/tcp/0")
        place = host_port(bound)
        assert place is not None
        with suppress(TransportError):  # taken as well, or there is no IPv6
            await other.listen(f"/ip6/::/tcp/{place[1]}")
        async with checking(port=place[1]) as checks:
            found = await checks.interfaces()
        assert found.state is State.BAD and "--port N" in found.advice


@pytest.mark.sockets
async def test_relays() -> None:
    async with libp2p.open_host(listen=[LOOPBACK], services=[RelayServer()]) as relay:
        async with checking(relays=[str(relay.addrs[0]), NOBODY]) as checks:
            found = await checks.relays()
            assert found.state is State.GOOD
            assert found.details["round_trips_ms"].keys() == {str(relay.addrs[0])}
            assert found.details["failed"].keys() == {NOBODY}
        async with checking(relays=[NOBODY]) as checks:
            assert (await checks.relays()).state is State.BAD


@pytest.mark.sockets
async def test_interfaces_names_and_files() -> None:
    async with checking() as checks:
        assert "127.0.0.1" in (await checks.interfaces()).details["addresses"]
        found = await checks.dns()
        assert found.state in (State.GOOD, State.UNKNOWN)  # without dnspython, not all names resolve
        assert (await checks.files()).state is not State.UNKNOWN
    async with checking(name="nobody.invalid") as checks:
        assert (await checks.dns()).state is State.BAD
    async with checking(name="a b/c") as checks:
        assert (await checks.dns()).state is State.BAD


ALONE = ("--name", "localhost", "--gateway", "127.0.0.1", "--timeout", "1")


def test_the_command(call: Callable[..., Result]) -> None:
    result = call("doctor", *ALONE, "--json")
    assert (result.status, result.err) == (0, "")
    *checks, verdict = result.records
    assert {record["check"] for record in checks} == ALL
    assert all(record["state"] in ("ok", "problem", "unknown") for record in checks)
    assert (verdict["event"], bool(verdict["verdict"]), bool(verdict["next"])) == ("verdict", True, True)


def test_the_command_for_people(call: Callable[..., Result]) -> None:
    result = call("doctor", "--peer", NOBODY, *ALONE)
    assert result.status == 0
    assert any(line.startswith("problem peers") for line in result.out)
    assert result.out[-1].startswith("next: ")
