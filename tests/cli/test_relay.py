"""``libp2p relay serve``, and commands that go through it: three processes on this machine."""

from __future__ import annotations

import urllib.request

import pytest

from libp2p.protocols.relay import HOP, RELAY_V1
from tests.cli.program import Program, result_of

pytest.importorskip("typer")
pytest.importorskip("rich")
pytestmark = pytest.mark.real_clock("runs the real command in processes of its own")

LOOPBACK = "/ip4/127.0.0.1/tcp/0"


def test_ping_through_a_relay() -> None:
    with Program("relay", "serve", LOOPBACK, "--reservations", "1", "--json") as relay:
        listening = relay.event("listening")
        assert HOP in listening["protocols"] and RELAY_V1 not in listening["protocols"]
        [way] = listening["addrs"]
        with Program("listen", f"{way}/p2p-circuit", "--json") as node:
            [addr] = node.event("listening")["addrs"]
            assert addr.startswith(f"{way}/p2p-circuit/p2p/")
            result = result_of("ping", addr, "--count", "2", "--interval", "0", "--json")
            assert (result.status, result.err) == (0, "")
            assert result.records[-1]["received"] == 2
            full = result_of("listen", f"{way}/p2p-circuit", "--json")
            assert full.status == 1 and "RESERVATION_REFUSED" in full.err + "\n".join(full.out)
        assert relay.interrupt() == 130


def test_version_1_is_served_when_asked_for() -> None:
    with Program("relay", "serve", LOOPBACK, "--v1", "--json", "--metrics", "0") as relay:
        with urllib.request.urlopen(relay.event("metrics")["url"], timeout=30) as answer:
            assert b"libp2p_relay_reservations 0" in answer.read()
        assert RELAY_V1 in relay.event("listening")["protocols"]


@pytest.mark.parametrize("arguments", [("--reservations", "0"), ("--data", "-1"), ("nonsense",)])
def test_wrong_usage(arguments: tuple[str, ...]) -> None:
    assert result_of("relay", "serve", *arguments).status == 2
