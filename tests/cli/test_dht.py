"""``libp2p dht``: against servers that run in this process's place, in another one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from libp2p.protocols.bootstrap import AMINO
from tests.cli.program import Program, result_of

pytest.importorskip("typer")
pytest.importorskip("rich")
pytestmark = [pytest.mark.real_clock("runs the real command in processes of its own"), pytest.mark.limit(240)]

LOOPBACK = "/ip4/127.0.0.1/tcp/0"
NOBODY = "/ip4/127.0.0.1/tcp/1/p2p/12D3KooWEyoppNCUx8Yx66oV9fJnriXwCcXwDDUA2kj6vnc6iDEp"
SERVERS = Path(__file__).with_name("_dht_servers.py")


@pytest.fixture(scope="module")
def servers() -> Iterator[list[str]]:
    """The addresses of three servers that know each other."""
    with Program(argv=[sys.executable, str(SERVERS)]) as running:
        yield [running.out.until(r"/ip4/\S+").group() for _ in range(3)]


def peer(addr: str) -> str:
    return addr.rpartition("/")[2]


def test_values(servers: list[str]) -> None:
    stored = result_of("dht", "put", "/test/motto", "hello", "-b", servers[0], "--namespace", "test", "--json")
    assert stored.record == {"key": "/test/motto", "bytes": 5}
    result = result_of("dht", "get", "/test/motto", "-b", servers[1], "--namespace", "test")
    assert (result.status, result.out) == (0, ["hello"])
    missing = result_of("dht", "get", "/test/other", "-b", servers[1], "--namespace", "test", "--json")
    assert missing.status == 1
    assert missing.records[-1]["error"]["type"] == "NotFound"


def test_peers(servers: list[str]) -> None:
    found = result_of("dht", "find-peer", peer(servers[2]), "-b", servers[0], "--json").record
    assert found["addrs"] == [servers[2].rpartition("/p2p/")[0]]
    assert found["reached"] is True
    closest = result_of("dht", "closest", "anything", "-b", servers[0], "--json").records
    assert {record["peer"] for record in closest} == {peer(addr) for addr in servers}
    table = result_of("dht", "table", "-b", servers[0], "--json").records
    assert {record["peer"] for record in table} == {peer(addr) for addr in servers}
    crawled = result_of("dht", "crawl", "-b", servers[0], "--json").records
    assert {record["peer"] for record in crawled if record["answers"]} == {peer(addr) for addr in servers}


def test_providers(servers: list[str]) -> None:
    cid = "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"
    with Program("dht", "provide", cid, "-b", servers[0], "--listen", LOOPBACK, "--json") as provider:
        provided = provider.event("provided")
        found = result_of("dht", "find-providers", cid, "-b", servers[1], "--count", "1", "--json", "-v")
        steps = [record for record in found.records if "event" in record]
        assert steps[0]["event"] == "asked"
        assert [record["peer"] for record in found.records if "event" not in record] == [provided["peer"]]
        assert provider.interrupt() == 130
    nobody = result_of("dht", "find-providers", "something else", "-b", servers[1])
    assert nobody.status == 1
    assert "nobody provides" in nobody.err
    assert result_of("dht", "provide", cid, "-b", servers[0]).status == 2


def test_a_network_of_ones_own(tmp_path: Path) -> None:
    """The first server, and others that know it; what it keeps it still has after a restart."""
    store, key, protocol = str(tmp_path / "dht.db"), str(tmp_path / "key"), ("--protocol", "/mine/kad/1.0.0")
    assert result_of("key", "new", key).status == 0
    serve = ("dht", "serve", LOOPBACK, "--key", key, "--store", store, "--namespace", "test", "--json", *protocol)
    with Program(*serve) as server:
        addr = server.event("listening")["addrs"][0]
        put = result_of("dht", "put", "/test/motto", "kept", "-b", addr, "--namespace", "test", *protocol)
        assert (put.status, put.out) == (0, ["stored 4 bytes under /test/motto"])
        elsewhere = result_of("dht", "closest", "anything", "-b", addr)
        assert elsewhere.status == 1
        assert "it is of /mine/kad/1.0.0: see --protocol" in elsewhere.err
        assert server.interrupt() == 130
    with Program(*serve) as server:
        addr = server.event("listening")["addrs"][0]
        got = result_of("dht", "get", "/test/motto", "-b", addr, "--namespace", "test", *protocol)
        assert (got.status, got.out) == (0, ["kept"])


def test_the_public_network_has_a_name() -> None:
    check_servers = pytest.importorskip("libp2p.cli._dht").check_servers
    assert check_servers(["amino", NOBODY]) == [*AMINO, NOBODY]
    assert result_of("dht", "closest", "x", "-b", "ammino").status == 2


def test_nobody_to_begin_with() -> None:
    result = result_of("dht", "closest", "x", "-b", NOBODY)
    assert result.status == 1
    assert "could not connect" in result.err


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        (("find-providers", "x" * 81, "-b", NOBODY), "a key has 1 to 80 bytes"),
        (("get", "/a/b", "--namespace", "a", "--namespace", "a/b", "-b", NOBODY), "a word without slashes"),
        (("get", "/other/motto", "-b", NOBODY), "with --namespace other, any is taken"),
        (("put", "motto", "hello", "-b", NOBODY), "/NAMESPACE/NAME"),
        (("closest", "x", "-b", "/ip4/127.0.0.1/tcp/1"), "does not end in the peer"),
    ],
)
def test_mistakes_are_no_bugs(args: tuple[str, ...], reason: str) -> None:
    result = result_of("dht", *args)
    assert result.status == 2
    assert reason in result.err
    assert "bug" not in result.err
