"""``libp2p listen --metrics``."""

from __future__ import annotations

import socket
import urllib.request
from functools import partial

import pytest
import trio
from trio.testing import memory_stream_pair

from tests.cli.program import Program, result_of

pytest.importorskip("typer")
pytest.importorskip("rich")

from libp2p.cli import _metrics
from libp2p.cli._metrics import MAX_REQUEST, PATIENCE, respond
from libp2p.cli._options import split_address

LOOPBACK = "/ip4/127.0.0.1/tcp/0"


@pytest.mark.parametrize(
    ("text", "address"),
    [("9090", ("127.0.0.1", 9090)), ("0.0.0.0:1", ("0.0.0.0", 1)), ("[::1]:0", ("::1", 0)), (":5", ("127.0.0.1", 5))],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert split_address(text) == address


@pytest.mark.parametrize("text", ["", "x", "localhost", "1:70000", "::1:80", "h:-1", "h:²"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match="neither HOST:PORT nor PORT"):
        split_address(text)


@pytest.mark.parametrize(
    ("request_", "status", "body"),
    [
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", b"200 OK", b"a 1\n"),
        (b"GET /metrics?x=1 HTTP/1.0\r\n\r\n", b"200 OK", b"a 1\n"),
        (b"GET / HTTP/1.1\r\n\r\n", b"404 Not Found", b"only /metrics\n"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", b"405 Method Not Allowed", b"only GET\n"),
        (b"GET /metrics HTTP/1.1\r\n", b"400 Bad Request", b"not a request\n"),
        (b"", b"400 Bad Request", b"not a request\n"),
    ],
)
def test_answers(request_: bytes, status: bytes, body: bytes) -> None:
    answer = respond(request_, lambda: "a 1\n")
    assert answer.startswith(b"HTTP/1.1 " + status + b"\r\n")
    assert f"\r\nContent-Length: {len(body)}\r\n".encode() in answer
    assert answer.endswith(b"\r\n\r\n" + body)


async def _ask(*chunks: bytes, clients: int = 1, eof: bool = False) -> bytes:
    """What a client gets that sends ``chunks``."""
    ours, theirs = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        serve = partial(_metrics._answer, trio.Semaphore(clients), lambda: "a 1\n")
        nursery.start_soon(serve, theirs)
        for chunk in chunks:
            await ours.send_all(chunk)
        if eof:
            await ours.send_eof()
        return b"".join([chunk async for chunk in ours])
    raise AssertionError


async def test_a_request_in_pieces() -> None:
    assert (await _ask(b"GET /met", b"rics HTTP/1.1\r\n\r", b"\n")).endswith(b"a 1\n")


async def test_a_request_that_never_ends() -> None:
    """Size and time are bounded."""
    assert (await _ask(b"x" * MAX_REQUEST)).startswith(b"HTTP/1.1 400")
    assert (await _ask(b"GET", eof=True)).startswith(b"HTTP/1.1 400")
    started = trio.current_time()
    assert await _ask(b"GET /metrics") == b""
    assert trio.current_time() - started == pytest.approx(PATIENCE)


async def test_too_many_clients() -> None:
    assert await _ask(clients=0) == b""


@pytest.mark.real_clock("runs the real command in processes of its own")
def test_a_node_with_metrics() -> None:
    with Program("listen", LOOPBACK, "--metrics", "0", "--json") as node:
        url = node.event("metrics")["url"]
        addr = node.event("listening")["addrs"][0]
        assert result_of("ping", addr, "--count", "2", "--interval", "0").status == 0
        with urllib.request.urlopen(url, timeout=10) as answer:
            text = answer.read().decode()
            assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        assert "\nlibp2p_ping_answered_total 2\n" in text
        assert 'libp2p_swarm_connections_opened_total{dir="inbound",transport="tcp"' in text
        assert node.interrupt() == 130


@pytest.mark.real_clock("runs the real command in processes of its own")
def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = result_of("listen", LOOPBACK, "--metrics", str(port))
    assert result.status == 1
    assert result.err.startswith(f"error: metrics cannot be served at {port}: ")
