"""A page in a browser, made of js-libp2p's packages, dials our node over WebSocket, pings it, and chats with it.

Needs a Chromium (Debian: ``apt install chromium``) and the built js peer; without them the cell is absent.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import IO

import pytest
import trio

from libp2p.protocols.ping import ping
from libp2p.transports.websocket import WebSocket

from .ours import open_ours
from .peer import BUILD

pytestmark = pytest.mark.real_clock("a browser")

PAGE = BUILD / "js" / "browser.js"
HTML = b"<!doctype html><meta charset=utf-8><title>libp2p</title><script src=/page.js></script>"
NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    *("--headless=new", "--disable-gpu", "--no-first-run", "--no-default-browser-check", "--disable-sync"),
    *(
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-default-apps",
        "--disable-extensions",
    ),
    # The tests run in containers, as root, where its sandbox does not start; the page is ours.
    *("--no-sandbox", "--disable-dev-shm-usage", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"),
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One cell."""
    metafunc.parametrize("cell", [("browser", "yamux", "ws")])


class Server:
    """Serves the page, and takes its complaints."""

    def __init__(self) -> None:
        self.errors: list[str] = []

    async def __call__(self, stream: trio.SocketStream) -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            data = await stream.receive_some()
            if not data:
                return
            request += data
        kind, body = "text/html", HTML
        if request.startswith(b"GET /page.js"):
            kind, body = "text/javascript", await trio.Path(PAGE).read_bytes()
        elif request.startswith(b"POST"):
            with trio.move_on_after(1):
                request += await stream.receive_some()
            self.errors.append(request.partition(b"\r\n\r\n")[2].decode())
        head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        await stream.send_all(head.encode() + body)


@asynccontextmanager
async def browsing(program: str, folder: Path, url: str) -> AsyncIterator[None]:
    """A browser on ``url``."""
    command = [program, *FLAGS, f"--user-data-dir={folder}", url]

    async def run(log: IO[bytes], task_status: trio.TaskStatus[trio.Process]) -> None:
        await trio.run_process(command, stdout=log, stderr=subprocess.STDOUT, check=False, task_status=task_status)

    with (folder / "log").open("wb") as log:
        async with trio.open_nursery() as nursery:
            process: trio.Process = await nursery.start(run, log)
            yield
            process.terminate()


async def test_browser_chat(cell: tuple[str, str, str], tmp_path: Path) -> None:
    """Noise, yamux, identify, ping and floodsub with a page."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip("absent: no Chromium on this machine (Debian: apt install chromium)")
    if not PAGE.exists():
        pytest.skip("absent: the js peer is not built")
    server = Server()
    with trio.fail_after(180):
        async with (
            open_ours(stack="yamux", listen="/ip4/127.0.0.1/tcp/0/ws", transports=[WebSocket()]) as ours,
            ours.pubsub.subscribe("chat") as messages,
            trio.open_nursery() as nursery,
        ):
            (listener, *_) = await trio.open_tcp_listeners(0, host="127.0.0.1")
            nursery.start_soon(trio.serve_listeners, server, [listener])
            url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}/#{ours.addr}"
            async with browsing(program, tmp_path, url):
                text = ""
                with trio.move_on_after(120):
                    message = await messages.receive()
                    text = message.data.decode()
                assert re.match(r"ping: [\d.]+ ms, Mozilla", text), (text, server.errors)
                assert (await ping(ours.host, message.author)) is not None
                await ours.pubsub.publish("chat", b"hello, page")
                while (await messages.receive()).data != b"heard: hello, page":
                    pass
            nursery.cancel_scope.cancel()
