"""WebSockets against real peers, with TLS and without: Noise and a muxer over each, in both roles."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio

import libp2p
from libp2p.protocols.ping import ping
from libp2p.testing.certificates import issue
from libp2p.transports.websocket import WebSocket

from .conftest import cells
from .ours import RESET, Ours, join, open_ours, pattern_digest
from .peer import Peer, start_peer

Cell = tuple[str, str, str]
"""Peer, muxer, transport."""
MIB = 1024 * 1024

pytestmark = [
    pytest.mark.real_clock("other processes"),
    pytest.mark.parametrize("role", ["dial", "listen"]),
]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Cells by transport instead of key type."""
    metafunc.parametrize("cell", cells(metafunc.config, "transports", ("ws", "wss")))


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Files with a server's key and certificate, and with its authority's."""
    folder = tmp_path_factory.mktemp("certificates")
    found = issue("127.0.0.1", "localhost")
    (folder / "server.pem").write_bytes(found.server)
    (folder / "authority.pem").write_bytes(found.authority)
    return folder / "server.pem", folder / "authority.pem"


def _ours(certificates: tuple[Path, Path]) -> WebSocket:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificates[0])
    return WebSocket(server_tls=server, client_tls=ssl.create_default_context(cafile=str(certificates[1])))


@asynccontextmanager
async def connected(
    cell: Cell, role: str, certificates: tuple[Path, Path]
) -> AsyncIterator[tuple[Ours, Peer, libp2p.PeerId]]:
    """Our host and the peer, connected; ``role`` is ours."""
    name, muxer, transport = cell
    listen = f"/ip4/127.0.0.1/tcp/0/{'ws' if transport == 'ws' else 'tls/ws'}" if role == "listen" else False
    flags = {"certificate": str(certificates[0]), "authority": str(certificates[1])} if transport == "wss" else {}
    with trio.fail_after(100):
        async with (
            open_ours(stack=muxer, listen=listen, transports=[_ours(certificates)]) as ours,
            start_peer(name, muxer=muxer, transport=transport, **flags) as peer,
        ):
            yield ours, peer, await join(ours, peer, role)


async def test_websocket_connect(cell: Cell, role: str, certificates: tuple[Path, Path]) -> None:
    """Handshakes, identify, ping in both directions."""
    async with connected(cell, role, certificates) as (ours, peer, peer_id):
        assert len(await ping(ours.host, peer_id, count=3)) == 3
        assert len((await peer("ping", peer=ours.peer_id, count=3))["rtts_ms"]) == 3
        assert (await peer("identify", peer=ours.peer_id))["agent"]
        (connection,) = ours.host.connections(peer_id)
        assert str(connection.remote_addr).endswith("/ws" if cell[2] == "ws" else ("/tls/ws", "/wss"))


async def test_websocket_echo(cell: Cell, role: str, certificates: tuple[Path, Path]) -> None:
    """Eight megabytes each way, one direction after the other and both at once."""
    size = 8 * MIB
    async with connected(cell, role, certificates) as (ours, peer, peer_id):
        assert await ours.half_close(peer_id, size, 1) == pattern_digest(1, size)
        answer = await peer("half_close", peer=ours.peer_id, size=size, seed=2)
        assert answer["response"] == pattern_digest(2, size)
        assert await ours.echo(peer_id, size, 3) == pattern_digest(3, size)


async def test_websocket_streams(cell: Cell, role: str, certificates: tuple[Path, Path]) -> None:
    """Many small frames, a reset, and a connection that goes on."""
    async with connected(cell, role, certificates) as (ours, peer, peer_id):
        assert await ours.streams(peer_id, 200, 20) == 200
        assert (await peer("streams", peer=ours.peer_id, total=200, parallel=20))["completed"] == 200
        async with await ours.host.open_stream(peer_id, RESET) as stream:
            await stream.send_all(b"ping")
            with pytest.raises(libp2p.StreamReset):
                while await stream.receive_some():
                    pass
        assert await ours.half_close(peer_id, 10, 5) == pattern_digest(5, 10)


async def test_websocket_end(cell: Cell, role: str, certificates: tuple[Path, Path]) -> None:
    """A disconnect is seen by the other side, whoever does it, and another connection works."""
    async with connected(cell, role, certificates) as (ours, peer, peer_id):
        for end in (lambda: ours.host.disconnect(peer_id), lambda: peer("disconnect", peer=ours.peer_id)):
            await end()
            while ours.host.connections(peer_id) or (await peer("connections"))["peers"]:
                await trio.sleep(0.05)
            await (ours.host.connect(peer.addr) if role == "dial" else peer("dial", addr=ours.addr))
            assert len(await ping(ours.host, peer_id)) >= 1
