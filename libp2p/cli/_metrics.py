"""``--metrics``: what a node has counted, over HTTP, for Prometheus.

As little of HTTP as that takes: a connection carries one request, and only ``GET /metrics`` gets what it asks for.
Clients, the time that each has, and the size of a request are bounded.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated

import trio
import typer

from ..abc import Host
from ..metrics import CONTENT_TYPE, render
from ._errors import Failure
from ._options import check_address, split_address
from ._output import DIM, Output

MAX_CLIENTS = 8
"""Connections at a time; more are closed at once."""
MAX_REQUEST = 8192
"""Bytes of a request."""
PATIENCE = 5.0
"""Seconds that a client has for everything."""
_END = b"\r\n\r\n"


MetricsAddress = Annotated[
    str | None,
    typer.Option(
        "--metrics",
        metavar="[HOST:]PORT",
        callback=check_address,
        help="Serve what the node counts to Prometheus, at http://HOST:PORT/metrics.",
        show_default=False,
    ),
]


@asynccontextmanager
async def serving_metrics(host: Host, out: Output, address: str | None) -> AsyncIterator[None]:
    """Serve the metrics of ``host`` while the block is open; not at all without an address.

    Raises:
        Failure: the address cannot be listened on.
    """
    if address is None:
        yield
        return
    name, port = split_address(address)
    try:
        listeners = await trio.open_tcp_listeners(port, host=name)
    except OSError as exc:
        raise Failure(f"metrics cannot be served at {address}: {exc.strerror or exc}") from exc
    shown = f"[{name}]" if ":" in name else name
    url = f"http://{shown}:{listeners[0].socket.getsockname()[1]}/metrics"
    if out.as_json:
        out.result({"event": "metrics", "url": url})
    else:
        out.note(("metrics are at ", DIM), url)
    answer = partial(_answer, trio.Semaphore(MAX_CLIENTS), lambda: render(host.measure()))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, answer, listeners)
        yield
        nursery.cancel_scope.cancel()


async def _answer(clients: trio.Semaphore, text: Callable[[], str], stream: trio.SocketStream) -> None:
    try:
        clients.acquire_nowait()
    except trio.WouldBlock:
        return await trio.aclose_forcefully(stream)
    try:
        with trio.move_on_after(PATIENCE):
            async with stream:
                await stream.send_all(respond(await _request(stream), text))
    except trio.BrokenResourceError:
        return  # whoever asked is gone
    finally:
        clients.release()


async def _request(stream: trio.SocketStream) -> bytes:
    """What was asked, up to the empty line, or as much of it as is taken."""
    request = bytearray()
    while _END not in request and len(request) < MAX_REQUEST:
        chunk = await stream.receive_some(MAX_REQUEST)
        if not chunk:
            break
        request += chunk
    return bytes(request)


def respond(request: bytes, text: Callable[[], str]) -> bytes:
    """The answer to ``request``; ``text`` makes the body of a good one."""
    method, _, rest = request.partition(b"\r\n")[0].partition(b" ")
    path = rest.partition(b" ")[0].partition(b"?")[0]
    if _END not in request:
        status, kind, body = "400 Bad Request", "text/plain", "not a request\n"
    elif method != b"GET":
        status, kind, body = "405 Method Not Allowed", "text/plain", "only GET\n"
    elif path != b"/metrics":
        status, kind, body = "404 Not Found", "text/plain", "only /metrics\n"
    else:
        status, kind, body = "200 OK", CONTENT_TYPE, text()
    data = body.encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(data)}\r\nConnection: close\r\n\r\n"
    return head.encode() + data
