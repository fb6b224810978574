"""AutoNAT, both versions, with real peers: they ask us, and we ask them. Time here is real.

``cell`` is (a peer, the version, nothing). With public addresses: :mod:`interop.test_reachable`.
"""

from __future__ import annotations

from typing import Any

import pytest
import trio

import libp2p
from libp2p.addressing import split_peer
from libp2p.events import PeerIdentified, Reachability, ReachabilityChanged
from libp2p.protocols.autonat import (
    AUTONAT,
    DIAL_REQUEST,
    AutoNat,
    AutoNatConfig,
    AutoNatServer,
    ReachabilityConfig,
    Voice,
)
from libp2p.transports.tcp import Tcp

from .conftest import get_features
from .peer import Peer, start_peer

PROTOCOLS = {"v1": AUTONAT, "v2": DIAL_REQUEST}

pytestmark = pytest.mark.real_clock


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    found = get_features(metafunc.config)
    parameters = [_cell(name, version, features) for name, features in found.items() for version in PROTOCOLS]
    metafunc.parametrize("cell", parameters)


def _cell(name: str, version: str, features: dict[str, Any] | None) -> Any:
    marks = []
    if features is None:
        marks = [pytest.mark.skip(reason="not built: its toolchain is absent, see above")]
    elif version not in features.get("autonat", ()):
        marks = [pytest.mark.skip(reason=f"unsupported by peer: AutoNAT {version}: not offered")]
    elif name == "js":
        marks = [pytest.mark.skip(reason="unsupported by peer: public addresses only, as in interop.test_reachable")]
    return pytest.param((name, version, ""), id=f"{name}-{version}", marks=marks)


def dialer() -> Any:
    """What dials back: another host on the same transport."""
    return libp2p.open_host(transports=[Tcp()])


async def identified(host: libp2p.Host, peer: Peer, protocol: str) -> None:
    """Connect, and wait until it is known what the peer serves."""
    with host.subscribe(PeerIdentified) as events:
        await host.connect(peer.addr)
        while protocol not in host.peerstore.protocols(libp2p.PeerId.parse(peer.peer_id)):
            await events.receive()


async def test_they_ask_us(cell: tuple[str, str, str]) -> None:
    """The peer finds out from us that it can be reached, and where."""
    name, version, _ = cell
    server = AutoNatServer(dialer, allow_private=True)
    with trio.fail_after(60):
        async with (
            libp2p.open_host(listen=["/ip4/127.0.0.1/tcp/0"], transports=[Tcp()], services=[server]) as host,
            start_peer(name, autonat=version, pubsub="none") as peer,
        ):
            await peer("dial", addr=str(host.addrs[0]))
            answer = await peer("autonat", peer=str(host.local_peer))
            assert answer["reachable"] is True
            if answer.get("addr"):
                assert answer["addr"].removesuffix(f"/p2p/{peer.peer_id}") in peer.addr


async def test_we_ask_them(cell: tuple[str, str, str]) -> None:
    """We find out from the peer, and announce accordingly."""
    name, version, _ = cell
    quorum = ReachabilityConfig(proofs=1, claims=1, denials=1)
    autonat = AutoNat(AutoNatConfig(reachability=quorum, allow_private=True))
    with trio.fail_after(60):
        async with (
            libp2p.open_host(listen=["/ip4/127.0.0.1/tcp/0"], transports=[Tcp()], services=[autonat]) as host,
            start_peer(name, autonat=version, pubsub="none") as peer,
        ):
            with host.subscribe(ReachabilityChanged) as events:
                await identified(host, peer, PROTOCOLS[version])
                if (name, version) == ("go", "v1"):
                    # go dials public addresses only, as in interop.test_reachable, and can be told otherwise in its own
                    # tests alone.
                    while ("E_DIAL_REFUSED",) not in refusals(host):
                        await trio.sleep(0.1)
                    return
                while (await events.receive()).reachability is not Reachability.PUBLIC:
                    pass
            assert set(autonat.addrs.values()) == {Reachability.PUBLIC}


def refusals(host: libp2p.Host) -> Any:
    """What servers of version 1 answered."""
    name = "libp2p_autonat_received_dial_response_total"
    return next(metric.values for metric in host.measure() if metric.name == name)


async def test_nobody_there(cell: tuple[str, str, str]) -> None:
    """The peer says so when an address leads nowhere, after whatever it wants to be paid."""
    name, version, _ = cell
    if version == "v1":
        pytest.skip("unsupported by peer: it takes 15 s to say that it reached nobody, as it should")
    autonat = AutoNat()
    with trio.fail_after(60):
        async with (
            libp2p.open_host(listen=["/ip4/127.0.0.1/tcp/0"], transports=[Tcp()], services=[autonat]) as host,
            start_peer(name, autonat=version, pubsub="none") as peer,
        ):
            await identified(host, peer, PROTOCOLS[version])
            addr = split_peer(host.addrs[0])[0]
            nowhere = libp2p.Multiaddr(str(addr).replace("127.0.0.1", "127.0.0.2"))
            tried = await autonat.check(host, libp2p.PeerId.parse(peer.peer_id), nowhere)
            assert tried is not None and tried.voice is Voice.DENIAL
