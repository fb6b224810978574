"""``libp2p listen``, ``dial``, ``ping`` and ``identify``: two processes on this machine."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from libp2p.security.pnet import PreSharedKey
from tests.cli.program import Program, command, environment, result_of

pytest.importorskip("typer")
pytest.importorskip("rich")
pytestmark = pytest.mark.real_clock("runs the real command in processes of its own")

LOOPBACK = "/ip4/127.0.0.1/tcp/0"
NOBODY = "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp"


@pytest.fixture(scope="module")
def addr() -> Iterator[str]:
    """Where a node listens while the tests of this file run."""
    with Program("listen", LOOPBACK, "--json") as node:
        yield node.event("listening")["addrs"][0]


def test_ping(addr: str) -> None:
    result = result_of("ping", addr, "--count", "3", "--interval", "0", "--json")
    connected, *pongs, summary = result.records
    assert (result.status, result.err) == (0, "")
    assert connected["peer"] == addr.rpartition("/")[2]
    assert [(pong["event"], pong["seq"]) for pong in pongs] == [("pong", 1), ("pong", 2), ("pong", 3)]
    assert (summary["event"], summary["sent"], summary["received"]) == ("summary", 3, 3)
    assert 0 < summary["min_ms"] <= summary["p50_ms"] <= summary["p99_ms"] <= summary["max_ms"]


def test_ping_for_people(addr: str) -> None:
    result = result_of("ping", addr, "--count", "2", "--interval", "0")
    assert result.status == 0
    assert result.out[0].startswith(f"connected to {addr.rpartition('/')[2]} in ")
    assert [line.split()[::2] for line in result.out[1:3]] == [["1", "ms"], ["2", "ms"]]
    assert result.out[3].startswith("2 sent, 2 answered: min ")


def test_pinging_until_interrupted(addr: str) -> None:
    with Program("ping", addr, "--count", "0", "--interval", "0.01", "--json") as program:
        while program.event("pong")["seq"] < 3:
            pass
        assert program.interrupt() == 130
        assert '"event": "summary"' in program.out.rest()[-1]
        assert program.err.rest() == []


def test_identify(addr: str) -> None:
    info = result_of("identify", addr, "--json").record
    assert info["peer"] == addr.rpartition("/")[2]
    assert info["key_type"] == "ed25519"
    assert info["agent"].startswith("libp2p-trio/")
    assert {"/echo/1.0.0", "/ipfs/ping/1.0.0", "/ipfs/id/1.0.0"} <= set(info["protocols"])
    assert info["addrs"] == [addr.rpartition("/p2p/")[0]]
    assert info["signed"] is True


def test_dial_without_a_peer_id(addr: str) -> None:
    bare, _, peer = addr.partition("/p2p/")
    result = result_of("dial", bare)
    assert result.status == 0
    assert [line.split()[-1] for line in result.out[:2]] == [peer, bare]


def test_dial_with_more_addresses(addr: str) -> None:
    dead = f"/ip4/127.0.0.1/tcp/1/p2p/{addr.rpartition('/')[2]}"
    result = result_of("dial", dead, addr, "--json")
    assert (result.status, result.record["addr"]) == (0, addr.partition("/p2p/")[0])


def test_nobody_is_there() -> None:
    result = result_of("dial", NOBODY, "--json")
    (attempt,) = result.record["error"]["attempts"]
    assert result.status == 1
    assert result.record["error"]["type"] == "DialError"
    assert (attempt["addr"], attempt["stage"]) == ("/ip4/127.0.0.1/tcp/1", "transport")
    first, second = result.err.splitlines()
    assert first.startswith("error: could not connect to 12D3KooWEyopp")
    assert second.strip().startswith("/ip4/127.0.0.1/tcp/1: transport: ")


def test_somebody_else_is_there(addr: str) -> None:
    result = result_of("ping", addr.partition("/p2p/")[0] + NOBODY[NOBODY.index("/p2p/") :])
    assert (result.status, result.out) == (1, [])
    assert "security handshake: expected peer 12D3KooWEyopp" in result.err


def test_a_protocol_nobody_shares(addr: str) -> None:
    result = result_of("dial", addr, "--security", "plaintext")
    assert result.status == 1
    assert "security negotiation" in result.err
    assert "Traceback" not in result.err


def test_everything_is_logged_when_asked(addr: str) -> None:
    result = result_of("dial", NOBODY, "-vv")
    assert result.status == 1
    assert "Traceback (most recent call last)" in result.err
    assert "DialError" in result.err


def test_an_address_that_is_taken(addr: str) -> None:
    result = result_of("listen", addr.partition("/p2p/")[0])
    assert (result.status, result.out) == (1, [])
    assert result.err.startswith(f"error: {addr.partition('/p2p/')[0]}: ")


def test_listening_with_a_key_in_plaintext_over_mplex(tmp_path: Path) -> None:
    key = str(tmp_path / "key")
    (peer,) = result_of("key", "new", key).out
    options = ["--security", "plaintext", "--muxer", "mplex"]
    with Program("listen", LOOPBACK, "--key", key, "-v", *options) as node:
        where = node.out.until("/p2p/").string
        assert where.endswith(peer)
        with Program("ping", where, "--count", "0", *options) as pinging:  # or it may be gone before it was identified
            node.out.until("^[+] ….{8} connected from /ip4/127.0.0.1/tcp/")
            node.out.until("^i ….{8} is libp2p-trio/.* and serves 4 protocols")
            assert pinging.interrupt() == 130
        node.out.until("^- ….{8} disconnected: ")
        assert node.interrupt() == 130
        assert [line for line in node.err.rest() if "Ctrl-C" not in line] == []


def test_over_tls(addr: str) -> None:
    assert result_of("ping", addr, "--count", "1", "--security", "tls").status == 0


def test_in_a_private_network(tmp_path: Path) -> None:
    psk, other = tmp_path / "swarm.key", tmp_path / "other.key"
    for path in (psk, other):
        path.write_bytes(PreSharedKey.generate().to_file())
    with Program("listen", LOOPBACK, "--psk", str(psk)) as node:
        where = node.out.until("/p2p/").string
        assert result_of("ping", where, "--count", "1", "--psk", str(psk)).status == 0
        for options in ([], ["--psk", str(other)]):
            result = result_of("dial", where, "--timeout", "3", *options)
            assert result.status == 1
            assert "Traceback" not in result.err


def test_a_key_of_a_private_network_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "swarm.key"
    assert result_of("dial", NOBODY, "--psk", str(path)).status == 2
    path.write_text("nonsense")
    result = result_of("dial", NOBODY, "--psk", str(path))
    assert result.status == 1
    assert "swarm.key: a pre-shared key begins with the line" in result.err


def test_PN4_a_private_network_can_be_forced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIBP2P_FORCE_PNET", "1")
    for arguments in (["listen", LOOPBACK], ["dial", NOBODY], ["pubsub", "pub", "topic", "x"]):
        result = result_of(*arguments)
        assert (result.status, result.out) == (2, [])
        assert "private network" in result.err
    assert result_of("key", "new", str(tmp_path / "key")).status == 0, "this runs no node"
    psk = tmp_path / "swarm.key"
    psk.write_bytes(PreSharedKey.generate().to_file())
    assert result_of("dial", NOBODY, "--psk", str(psk), "--json").record["error"]["type"] == "DialError"
    monkeypatch.setenv("LIBP2P_FORCE_PNET", "0")
    assert result_of("dial", NOBODY, "--json").record["error"]["type"] == "DialError"


def test_events_as_json() -> None:
    with Program("listen", LOOPBACK, "--json") as node:
        where = node.event("listening")["addrs"][0]
        assert result_of("identify", where).status == 0
        connected = node.event("connected")
        assert connected["direction"] == "inbound"
        assert node.event("disconnected")["peer"] == connected["peer"]
        node.process.terminate()
        assert node.end() == 143
        assert node.err.rest() == []


def test_whoever_reads_may_stop() -> None:
    """As in ``libp2p listen | head -1``: the node ends at the next thing it has to say, without complaints."""
    argv = command("listen", LOOPBACK, "--json")
    with subprocess.Popen(argv, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as node:
        assert node.stdout and node.stderr
        where = node.stdout.readline().split('"addrs": ["')[1].split('"')[0]
        node.stdout.close()
        result_of("dial", where)
        assert node.wait(30) == 1
        assert node.stderr.read() == ""


def test_colours_on_request(addr: str) -> None:
    result = result_of("ping", addr, "--count", "1", colour=True)
    assert "\x1b[" in "\n".join(result.out)
