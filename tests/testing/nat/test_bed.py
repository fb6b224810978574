"""The network of namespaces: packets go through it. Needs the right to make namespaces."""

from __future__ import annotations

import subprocess
import sys
from functools import partial

import pytest
import trio

from libp2p.testing.nat import Unavailable, nat_bed, places, why_unavailable
from libp2p.testing.nat import _bed as bed_module
from libp2p.testing.nat.__main__ import main

pytestmark = [pytest.mark.sockets, pytest.mark.real_clock("namespaces are the kernel's")]

_ANSWER = """
import socket
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind(("", 80))
print("ready", flush=True)
_, sender = sock.recvfrom(100)
sock.sendto(repr(sender).encode(), sender)
"""
_ASK = """
import socket
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind(("", 4001))
sock.settimeout(20)
sock.sendto(b"who am I?", ("7.1.0.1", 80))
print(sock.recv(100).decode())
"""


@pytest.fixture
def root() -> None:
    reason = why_unavailable()
    if reason is not None:
        pytest.skip(reason)


async def test_a_server_sees_the_nat(root: None) -> None:
    hosts = places({"server": "public", "ann": "port-restricted"})
    async with nat_bed(hosts, latency=0.001) as bed, trio.open_nursery() as nursery:
        serve = bed.command("server", sys.executable, "-c", _ANSWER)
        server = await nursery.start(partial(trio.run_process, serve, stdout=subprocess.PIPE))
        async with server.stdout:
            with trio.fail_after(50):
                await server.stdout.receive_some()  # it says that it is ready
                asked = await trio.run_process(bed.command("ann", sys.executable, "-c", _ASK), capture_stdout=True)
        assert asked.stdout.decode().strip() == "('5.2.0.1', 4001)"
        assert bed.lost == 0


async def test_more_than_can_be_under_way_is_lost(root: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bed_module, "QUEUE", 0)
    async with nat_bed(places({"server": "public", "other": "public"})) as bed:
        send = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'', ('7.2.0.1', 1))"
        await trio.run_process(bed.command("server", sys.executable, "-c", send))
        with trio.fail_after(20):
            while not bed.lost:
                await trio.sleep(0.01)


async def test_why_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda tool: None)
    assert why_unavailable() == "the program ip is not installed"
    with pytest.raises(Unavailable, match="ip is not installed"):
        async with nat_bed(places({"server": "public"})):
            raise AssertionError


def test_nonsense_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ann=conical"]) == 2
    assert "no kind 'conical'" in capsys.readouterr().err
