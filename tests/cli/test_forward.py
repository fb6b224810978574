"""``libp2p forward``: two processes, and a TCP connection through both."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from libp2p.crypto.key_file import load_or_create
from libp2p.peer_id import PeerId
from tests.cli.program import Program, Result

pytest.importorskip("typer")
pytest.importorskip("rich")
pytestmark = pytest.mark.real_clock("runs the real command in processes of its own")

LOOPBACK = "/ip4/127.0.0.1/tcp/0"


def test_a_port_by_way_of_two_nodes(tmp_path: Path) -> None:
    key = tmp_path / "dialer.key"
    peer = str(PeerId.from_key(load_or_create(key).public_key))
    with socket.create_server(("127.0.0.1", 0)) as program:
        program.settimeout(20)
        port = str(program.getsockname()[1])
        with Program("forward", "listen", "web", port, LOOPBACK, "--allow", peer, "--json") as server:
            [addr] = server.event("listening")["addrs"]
            with Program("forward", "dial", "web", addr, "--key", str(key), "--json") as dialer:
                [address] = dialer.event("forwarding")["addresses"]
                host, _, number = address.rpartition(":")
                with socket.create_connection((host, int(number)), timeout=20) as client:
                    client.sendall(b"GET /")
                    client.shutdown(socket.SHUT_WR)
                    served, _ = program.accept()
                    with served:
                        served.settimeout(20)
                        assert served.recv(100, socket.MSG_WAITALL) == b"GET /"
                        served.sendall(b"200 OK")
                    assert client.recv(100, socket.MSG_WAITALL) == b"200 OK"
                ended = dialer.event("ended")
                assert (ended["sent"], ended["received"], ended["name"]) == (5, 6, "/x/web")
                assert "error" not in ended
                assert server.event("ended")["peer"] == peer
                assert dialer.interrupt() == 130
            assert server.interrupt() == 130


def test_a_peer_that_is_not_there(call: Callable[..., Result]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    result = call("forward", "dial", "web", f"/ip4/127.0.0.1/tcp/{port}", "--json")
    assert result.status == 1
    assert json.loads(result.out[-1])["error"]["type"] == "DialError"


@pytest.mark.parametrize(
    "arguments",
    [
        ("listen", "web", "80"),
        ("listen", "web", "80", "--allow-anyone", "--allow", "12D3KooWErsDzNcW1QaCSseSDKYPorXhfiTQhJRSjjav7iLRHLYD"),
        ("listen", "web", "80", "--allow", "nobody"),
        ("listen", "a b", "80", "--allow-anyone"),
        ("listen", "web", "http", "--allow-anyone"),
        ("dial", "web", LOOPBACK, "--bind", "99999"),
    ],
)
def test_wrong_usage(call: Callable[..., Result], arguments: tuple[str, ...]) -> None:
    assert call("forward", *arguments).status == 2
