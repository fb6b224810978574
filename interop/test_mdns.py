"""mDNS with real peers, by multicast on this machine's network. Each finds the other."""

from __future__ import annotations

import socket

import pytest
import trio

import libp2p
from libp2p.protocols.mdns import Mdns, MdnsConfig

from .conftest import cells
from .peer import start_peer

Cell = tuple[str, str, str]
"""Peer, muxer, on."""

pytestmark = [pytest.mark.real_clock("other processes"), pytest.mark.xdist_group("mdns")]
ANYWHERE = "/ip4/0.0.0.0/tcp/0"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Peers whose package has it."""
    metafunc.parametrize("cell", cells(metafunc.config, "mdns", ("on",), stacks=("yamux",)))


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
