"""``libp2p rendezvous`` and ``libp2p discover``: processes on this machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.program import Program, result_of

pytest.importorskip("typer")
pytest.importorskip("rich")
pytestmark = pytest.mark.real_clock("runs the real command in processes of its own")

LOOPBACK = "/ip4/127.0.0.1/tcp/0"


@pytest.mark.limit(180)
def test_register_and_discover(tmp_path: Path) -> None:
    store = tmp_path / "registrations.db"
    with Program("rendezvous", "serve", LOOPBACK, "--store", str(store), "--json") as serving:
        point = serving.event("listening")["addrs"][0]
        with Program("rendezvous", "register", point, "chess", "--listen", LOOPBACK, "--json") as member:
            listening = member.event("listening")
            registered = member.event("registered")
            assert (registered["name"], registered["ttl"]) == ("chess", 7200)
            found = result_of("rendezvous", "discover", point, "chess", "--json").record
            assert (found["peer"], found["name"]) == (registered["peer"], "chess")
            assert [f"{addr}/p2p/{found['peer']}" for addr in found["addrs"]] == listening["addrs"]
            assert member.interrupt() == 130
        empty = result_of("rendezvous", "discover", point)
        assert (empty.status, empty.out, "nobody is registered" in empty.err) == (0, [], True)
        refused = result_of("rendezvous", "register", point, "go", "--ttl", "7", "--json", "--listen", LOOPBACK)
        assert (refused.status, refused.records[-1]["error"]["type"]) == (1, "RendezvousRefused")
        assert serving.interrupt() == 130
    assert store.exists()


def test_a_name_that_no_point_takes() -> None:
    result = result_of(
        "rendezvous", "register", f"{LOOPBACK}/p2p/12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp", "x" * 256
    )
    assert (result.status, "1 to 255 bytes" in result.err) == (2, True)


def test_discover_on_the_local_network() -> None:
    """Whether somebody is there or not depends on the machine; it ends in time, and says what it found."""
    with Program("discover", "--watch", "--json") as watching:
        assert watching.event("listening")["peer"]
        result = result_of("discover", "--for", "0.5", "--json")
        assert result.status == 0
        assert {record["event"] for record in result.records} <= {"discovered"}
        assert watching.interrupt() == 130
