"""mDNS with real peers, by multicast: each finds the other. On this machine's network, and on a link without IPv4."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

import pytest
import trio

import libp2p
from libp2p.protocols.mdns import Mdns, MdnsConfig
from libp2p.testing.nat import Unavailable

from .conftest import cells
from .link import ADDRS, ipv6_link
from .peer import BUILD, run_peer, start_peer

Cell = tuple[str, str, str]
"""Peer, muxer, on."""

pytestmark = [pytest.mark.real_clock("other processes"), pytest.mark.xdist_group("mdns")]
ANYWHERE = "/ip4/0.0.0.0/tcp/0"
ANYWHERE_6 = "/ip6/::/tcp/0"
OURS = "ours"
FINDER = [sys.executable, "-m", "interop.finder"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Peers whose package has it, and for IPv6 ourselves."""
    six = "ipv6" in metafunc.function.__name__
    found = cells(metafunc.config, "mdns", ("ipv6" if six else "on",), stacks=("yamux",))
    ours = [pytest.param((OURS, "yamux", "ipv6"), id="ours")] if six else []
    metafunc.parametrize("cell", [*ours, *found])


def _has_network() -> bool:
    """Whether there is an interface besides loopback, which go and rust leave out."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("224.0.0.251", 5353))
            return not probe.getsockname()[0].startswith("127.")
    except OSError:
        return False


async def test_mdns(cell: Cell) -> None:
    """Both hear of each other, and we dial what we have heard."""
    if not _has_network():
        pytest.skip("unsupported by machine: no multicast but on the loopback interface")
    name, muxer, _ = cell
    config = MdnsConfig(interval=2.0)
    with trio.fail_after(60):
        async with (
            libp2p.open_host(listen=[ANYWHERE], services=[Mdns(config)]) as host,
            start_peer(name, muxer=muxer, mdns="on", listen=ANYWHERE) as peer,
        ):
            await peer.event("discovered", limit=30, peer=str(host.local_peer))
            peer_id = libp2p.PeerId.parse(peer.peer_id)
            while not host.peerstore.addrs(peer_id):
                await trio.sleep(0.01)
            assert (await host.connect(peer_id, host.peerstore.addrs(peer_id))).peer == peer_id


async def test_mdns_ipv6(cell: Cell) -> None:
    """Across a link that has IPv6 only, both hear of each other's address there, and we dial it."""
    name = cell[0]
    flags = ["--mdns", "ipv6", "--listen", ANYWHERE_6]
    command = FINDER if name == OURS else [str(BUILD / f"{name}-peer")]
    try:
        with trio.fail_after(60), ipv6_link() as (here, there):
            async with (
                run_peer(OURS, [*here, *FINDER, *flags], cwd=Path(__file__).parents[1]) as us,
                run_peer(name, [*there, *command, *flags], cwd=Path(__file__).parents[1]) as peer,
            ):
                await peer.event("discovered", limit=30, peer=us.peer_id)
                while True:
                    heard = await us.event("discovered", limit=30, peer=peer.peer_id)
                    us.events.remove(heard)
                    if heard["addr"].startswith(f"/ip6/{ADDRS[1]}/"):
                        break
                assert (await us("dial", addr=f"{heard['addr']}/p2p/{peer.peer_id}"))["peer_id"] == peer.peer_id
    except Unavailable as exc:
        pytest.skip(f"unsupported by machine: {exc}")
