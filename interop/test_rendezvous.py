"""Rendezvous with real peers: each as the point and as its client. Of the packages only rust's has it; for js-libp2p 2
Canvas has made one, without refusals and cookies for clients."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

import libp2p
from libp2p.protocols.rendezvous import (
    RendezvousPoint,
    RendezvousRefused,
    Status,
    discover,
    register,
    unregister,
)

from .conftest import cells, get_features
from .ours import Ours, join, open_ours
from .peer import Peer, PeerFailed, features, start_peer

Cell = tuple[str, str, str]
"""Peer, muxer, what the peer is: client or server."""

CANVAS = "js2"

pytestmark = pytest.mark.real_clock("other processes")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests say by their name what the peer is."""
    role = "server" if "server" in metafunc.function.__name__ else "client"
    if "canvas" in metafunc.function.__name__:
        marks = [] if features(CANVAS) else [pytest.mark.skip(reason="not built: its toolchain is absent, see above")]
        cell = pytest.param((CANVAS, "yamux", role), id=CANVAS, marks=marks)
        metafunc.parametrize("cell", [cell] if "js" in get_features(metafunc.config) else [])
        return
    metafunc.parametrize("cell", cells(metafunc.config, "rendezvous", (role,), stacks=("yamux",)))


@asynccontextmanager
async def connected(cell: Cell) -> AsyncIterator[tuple[Ours, Peer, libp2p.PeerId]]:
    """Our host, which listens, and the peer, connected."""
    name, muxer, role = cell
    with trio.fail_after(60):
        flags = {"rendezvous": role} if name == CANVAS else {"rendezvous": role, "muxer": muxer}
        async with open_ours(stack=muxer, listen=True) as ours, start_peer(name, **flags) as peer:
            yield ours, peer, await join(ours, peer)


async def test_rendezvous_server(cell: Cell) -> None:
    """Register, discover by name and all, go on with a cookie, unregister, at the peer."""
    async with connected(cell) as (ours, _, point):
        assert await register(ours.host, point, "chess") == 7200
        assert await register(ours.host, point, "go", ttl=10_000) == 10_000
        found = await discover(ours.host, point, "chess")
        assert [(each.peer, each.namespace) for each in found.peers] == [(ours.host.local_peer, "chess")]
        assert set(found.peers[0].addrs) == set(ours.host.listen_addrs())
        assert (await discover(ours.host, point, "chess", cookie=found.cookie)).complete
        assert {each.namespace for each in (await discover(ours.host, point)).peers} == {"chess", "go"}
        assert len((await discover(ours.host, point, limit=1)).peers) == 1
        await unregister(ours.host, point, "chess")
        assert (await discover(ours.host, point, "chess")).complete


async def test_rendezvous_server_refuses(cell: Cell) -> None:
    """What the peer refuses arrives as what it is."""
    async with connected(cell) as (ours, _, point):
        for ttl in (1, 72 * 3600 + 1):
            with pytest.raises(RendezvousRefused) as refused:
                await register(ours.host, point, "chess", ttl=ttl)
            assert refused.value.status == Status.INVALID_TTL
        await register(ours.host, point, "chess")
        cookie = (await discover(ours.host, point, "chess")).cookie
        with pytest.raises(RendezvousRefused) as refused:
            await discover(ours.host, point, "go", cookie=cookie)
        assert refused.value.status == Status.INVALID_COOKIE


async def test_rendezvous_client(cell: Cell) -> None:
    """The peer registers with us, and finds itself and goes on with our cookie."""
    async with connected(cell) as (ours, peer, _), _serving(ours) as point:
        assert (await peer("rendezvous_register", peer=ours.peer_id, namespace="chess"))["ttl"] == 7200
        assert point.registrations == 1
        first = await peer("rendezvous_discover", peer=ours.peer_id, namespace="chess")
        (item,) = first["registrations"]
        assert (item["peer"], item["namespace"]) == (peer.peer_id, "chess")
        assert item["addrs"]
        more = await peer("rendezvous_discover", peer=ours.peer_id, namespace="chess", cookie=first["cookie"])
        assert more["registrations"] == []
        everything = await peer("rendezvous_discover", peer=ours.peer_id, limit=5)
        assert len(everything["registrations"]) == 1
        await peer("rendezvous_unregister", peer=ours.peer_id, namespace="chess")
        while point.registrations:
            await trio.sleep(0.01)


async def test_rendezvous_client_is_found_by_ours(cell: Cell) -> None:
    """A third host of ours finds the peer's record at our point, and can dial it."""
    async with connected(cell) as (ours, peer, peer_id), _serving(ours), open_ours(stack=cell[1]) as other:
        await peer("rendezvous_register", peer=ours.peer_id, namespace="chess")
        point = (await other.host.connect(ours.addr)).peer
        (found,) = (await discover(other.host, point, "chess")).peers
        assert found.peer == peer_id
        await other.host.connect(found.peer, found.addrs)


async def test_rendezvous_client_is_refused(cell: Cell) -> None:
    """Our refusals arrive as what they are."""
    async with connected(cell) as (ours, peer, _), _serving(ours):
        with pytest.raises(PeerFailed, match="InvalidTtl"):
            await peer("rendezvous_register", peer=ours.peer_id, namespace="chess", ttl=1)
        forged = base64.b64encode(bytes(8) + b"chess").decode()
        with pytest.raises(PeerFailed, match="InvalidCookie"):
            await peer("rendezvous_discover", peer=ours.peer_id, namespace="chess", cookie=forged)


async def test_rendezvous_canvas_server(cell: Cell) -> None:
    """Register, discover, go on with a cookie, and unregister at Canvas' point."""
    async with connected(cell) as (ours, _, point):
        assert await register(ours.host, point, "chess") == 7200
        found = await discover(ours.host, point, "chess")
        assert [(each.peer, each.namespace) for each in found.peers] == [(ours.host.local_peer, "chess")]
        assert set(found.peers[0].addrs) == set(ours.host.listen_addrs())
        assert (await discover(ours.host, point, "chess", cookie=found.cookie)).complete
        await unregister(ours.host, point, "chess")
        assert (await discover(ours.host, point, "chess")).complete


async def test_rendezvous_canvas_client(cell: Cell) -> None:
    """Canvas' client registers with us, is found and dialled by a third host, finds that one, and unregisters."""
    async with (
        connected(cell) as (ours, peer, peer_id),
        _serving(ours) as serving,
        open_ours(stack=cell[1], listen=True) as other,
    ):
        assert (await peer("rendezvous_register", peer=ours.peer_id, namespace="chess"))["ttl"] == 7200
        point = (await other.host.connect(ours.addr)).peer
        (found,) = (await discover(other.host, point, "chess")).peers
        assert found.peer == peer_id
        await other.host.connect(found.peer, found.addrs)
        await register(other.host, point, "chess")
        (item,) = (await peer("rendezvous_discover", peer=ours.peer_id, namespace="chess"))["registrations"]
        assert (item["peer"], item["namespace"]) == (other.peer_id, "chess")
        assert item["addrs"]
        await peer("rendezvous_unregister", peer=ours.peer_id, namespace="chess")
        while serving.registrations > 1:
            await trio.sleep(0.01)


@asynccontextmanager
async def _serving(ours: Ours) -> AsyncIterator[RendezvousPoint]:
    """Our host as the point."""
    point = RendezvousPoint()
    ((protocol, handler),) = point.handlers.items()
    async with trio.open_nursery() as nursery:
        await nursery.start(point.run, ours.host)
        with ours.host.handle(protocol, handler):
            yield point
        nursery.cancel_scope.cancel()
