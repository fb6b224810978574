"""AutoNAT on a small internet, in network namespaces: what others do for public addresses alone. Time is real.

``cell`` is (a peer, the version, nothing). With addresses of this machine: :mod:`interop.test_autonat`.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio

from libp2p.testing.nat import Bed, nat_bed, places, why_unavailable

from .conftest import get_features
from .peer import BUILD, Peer, run_peer

OURS = "ours"
CELLS = [("go", "v1"), ("js", "v1"), ("js", "v2")]
"""Who dials public addresses only; everybody else does in the other suite what there is to do."""

pytestmark = pytest.mark.real_clock


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "cell" not in metafunc.fixturenames:
        return
    found = get_features(metafunc.config)
    cells = []
    for name, version in CELLS:
        if name not in found:
            continue  # not asked for
        absent = pytest.mark.skip(reason="not built: its toolchain is absent, see above")
        marks = [absent] if found[name] is None else []
        cells.append(pytest.param((name, version, ""), id=f"{name}-{version}", marks=marks))
    metafunc.parametrize("cell", cells)


@pytest.fixture(autouse=True)
def _bed_available() -> None:
    reason = why_unavailable()
    if reason is not None:
        pytest.skip(reason)


@asynccontextmanager
async def ours(bed: Bed, host: str, ip: str, relay: str = "client") -> AsyncIterator[Peer]:
    """This library, on a host of the bed."""
    command = [sys.executable, "-m", "interop.reachable", "--listen", f"/ip4/{ip}/tcp/4001", "--relay", relay]
    async with run_peer(OURS, bed.command(host, *command)) as peer:
        yield peer


@asynccontextmanager
async def pair(cell: tuple[str, str, str]) -> AsyncIterator[tuple[Peer, str, Peer, str]]:
    """This library and the peer, both public: each with its address."""
    name, version, _ = cell
    hosts = places({"us": "public", "them": "public"})
    addrs = {host: f"/ip4/{place.ip}/tcp/4001" for host, place in hosts.items()}
    flags = ["--autonat", version, "--pubsub", "none", "--listen", addrs["them"]]
    with trio.fail_after(60):
        async with (
            nat_bed(hosts, latency=0.001) as bed,
            ours(bed, "us", str(hosts["us"].ip)) as us,
            run_peer(name, bed.command("them", str(BUILD / f"{name}-peer"), *flags)) as them,
        ):
            yield us, f"{addrs['us']}/p2p/{us.peer_id}", them, f"{addrs['them']}/p2p/{them.peer_id}"


async def test_they_ask_us_in_public(cell: tuple[str, str, str]) -> None:
    """The peer finds out from us that it can be reached, and where."""
    async with pair(cell) as (us, our_addr, them, their_addr):
        await them("dial", addr=our_addr)
        answer: dict[str, Any] = await them("autonat", peer=us.peer_id)
        assert answer["reachable"] is True
        if answer.get("addr"):
            assert answer["addr"].removesuffix(f"/p2p/{them.peer_id}") in their_addr


async def test_we_ask_them_in_public(cell: tuple[str, str, str]) -> None:
    """We find out from the peer that we can be reached."""
    if cell[:2] == ("js", "v1"):
        pytest.skip("unsupported by peer: it takes the connection there is for its dial, and closes it")
    async with pair(cell) as (us, our_addr, _, their_addr):
        await us("dial", addr=their_addr)
        answer = await us("autonat")
        assert answer == {**answer, "reachability": "public", "addrs": [our_addr]}


async def test_nobody_there_in_public(cell: tuple[str, str, str]) -> None:
    """The peer says so when an address leads nowhere, after it was paid for one that is not ours."""
    if cell[1] == "v1":
        pytest.skip("unsupported by peer: version 1 dials no other address")
    async with pair(cell) as (us, our_addr, them, their_addr):
        await us("dial", addr=their_addr)
        for addr in (our_addr, their_addr):
            nowhere = addr.partition("/p2p/")[0].replace("/4001", "/1")
            assert (await us("check", peer=them.peer_id, addr=nowhere))["voice"] == "denial"


async def test_behind_a_nat_relays_come_by_themselves() -> None:
    """AutoNAT finds that nobody gets through the NAT, so a relay is used, and through that somebody does."""
    hosts = places({"server": "public", "hidden": "port-restricted", "caller": "public"})
    with trio.fail_after(60):
        async with (
            nat_bed(hosts, latency=0.001) as bed,
            ours(bed, "server", "7.1.0.1", "server") as server,
            ours(bed, "hidden", "0.0.0.0") as hidden,
            ours(bed, "caller", "7.3.0.1") as caller,
        ):
            await hidden("dial", addr=f"/ip4/7.1.0.1/tcp/4001/p2p/{server.peer_id}")
            assert (await hidden("autonat"))["reachability"] == "private"
            [addr] = (await hidden("relayed"))["addrs"]
            assert len((await caller("ping", addr=addr))["rtts_ms"]) == 3
            # Who can be dialled needs none.
            found = await server("autonat")
            assert found["reachability"] == "public" and not any("p2p-circuit" in addr for addr in found["addrs"])
