"""The parts of the programs for libp2p's test suites: environments, the Redis client, the words of results."""

from __future__ import annotations

import json
import math

import pytest
import trio
from trio.testing import memory_stream_pair

from interop.harness import kad, report, resp
from interop.harness.contract import LISTENER, ContractError, Role, iterations, read, read_kad
from interop.harness.stacks import available
from interop.matrix import matrix

NEW = {
    "IS_DIALER": "true",
    "REDIS_ADDR": "transport-redis:6379",
    "TEST_KEY": "a5b50d5e",
    "TRANSPORT": "tcp",
    "SECURE_CHANNEL": "noise",
    "MUXER": "yamux",
    "LISTENER_IP": "0.0.0.0",
    "DEBUG": "false",
}
OLD = {"version": "x", "transport": "ws", "is_dialer": "false", "ip": "0.0.0.0", "muxer": "mplex", "security": "noise"}


def test_the_new_environment() -> None:
    found = read(NEW)
    assert (found.legacy, found.dialer, found.redis) == (False, True, ("transport-redis", 6379))
    assert found.key(LISTENER) == "a5b50d5e_listener_multiaddr"
    assert (found.transport, found.security, found.muxer, found.timeout) == ("tcp", "noise", "yamux", 180.0)


def test_the_old_environment() -> None:
    """Redis is where test-plans has it, unless it is said."""
    found = read(OLD)
    assert (found.legacy, found.dialer, found.redis, found.ip) == (True, False, ("redis", 6379), "0.0.0.0")
    assert found.key(LISTENER) == "listenerAddr"
    assert read({**OLD, "redis_addr": "proxy-abc:1", "test_timeout_seconds": "30"}).redis == ("proxy-abc", 1)
    assert read({**OLD, "test_timeout_seconds": "30"}).timeout == 30


def test_the_environment_of_the_hole_punch_suite() -> None:
    """Three parts, each with its own name for its address; the relay is not told that it is no dialer."""
    common = {"REDIS_ADDR": "hole-punch-redis:6379", "TEST_KEY": "a5b50d5e", "TRANSPORT": "quic-v1", "DEBUG": "false"}
    parts = [
        read({**common, "IS_DIALER": "true", "DIALER_IP": "10.0.0.99", "LISTENER_IP": "10.0.0.131"}),
        read({**common, "IS_DIALER": "false", "LISTENER_IP": "10.0.0.131"}),
        read({**common, "RELAY_IP": "10.0.0.68"}),
    ]
    assert [part.role for part in parts] == [Role.DIALER, Role.LISTENER, Role.RELAY]
    assert [part.ip for part in parts] == ["10.0.0.99", "10.0.0.131", "10.0.0.68"]
    assert {part.key("relay_multiaddr") for part in parts} == {"a5b50d5e_relay_multiaddr"}
    assert not any(part.legacy for part in parts)


@pytest.mark.parametrize("value", ["", "null", None])
def test_transports_with_their_own_security(value) -> None:
    """Unset, empty or null."""
    environ = {**NEW, "TRANSPORT": "quic-v1", "SECURE_CHANNEL": value, "MUXER": value}
    found = read({name: text for name, text in environ.items() if text is not None})
    assert (found.security, found.muxer) == (None, None)


@pytest.mark.parametrize(
    ("name", "value"), [("IS_DIALER", "yes"), ("REDIS_ADDR", "nowhere"), ("TEST_KEY", None), ("TRANSPORT", None)]
)
def test_environments_that_make_no_sense(name, value) -> None:
    environ = {**NEW, name: value}
    with pytest.raises(ContractError):
        read({name: text for name, text in environ.items() if text is not None})


def test_the_environment_of_the_dht() -> None:
    """The provider leaves what the querier looks for, under names that the suite's other programs know."""
    environ = {"ROLE": "querier", "REDIS_ADDR": "transport-redis:6379", "TEST_KEY": "a5b50d5e"}
    found = read_kad(environ)
    assert (found.role, found.redis, found.key) == ("querier", ("transport-redis", 6379), "a5b50d5e")
    assert (found.patience, read_kad({**environ, "ROLE": "provider"}).patience) == (180, math.inf)
    assert kad.content(found.key) == b"interop-test-key-a5b50d5e"
    assert kad.name(found.key) == b"/example/data/a5b50d5e"
    for name, value in (("ROLE", "dialer"), ("REDIS_ADDR", "nowhere"), ("TEST_KEY", "")):
        with pytest.raises(ContractError):
            read_kad({**environ, name: value})


def test_iterations() -> None:
    """The suite writes null for its default."""
    assert [iterations({"N": text}, "N", 7) for text in ("null", "", "12")] == [7, 7, 12]
    assert iterations({}, "N", 7) == 7
    with pytest.raises(ContractError):
        iterations({"N": "many"}, "N", 7)


def test_what_is_here() -> None:
    """The stacks of the base installation, at least."""
    found = available()
    for transport in ("tcp", "ws", "wss"):
        assert (transport, "noise", "yamux") in found
        assert (transport, "noise", "mplex") in found


def test_latency() -> None:
    """Names and indentation are what the suites look for."""
    assert report.latency(0.0123456, 0.00071, legacy=False) == (
        "latency:\n  handshake_plus_one_rtt: 12.346\n  ping_rtt: 0.71\n  unit: ms"
    )
    found = json.loads(report.latency(0.0123456, 0.00071, legacy=True))
    assert found == {"handshakePlusOneRTTMillis": 12.346, "pingRTTMilllis": 0.71}


def test_distribution() -> None:
    """Quartiles; what is far from them is an outlier, and neither least nor greatest."""
    assert report.distribution("upload", [2.0, 2.1, 2.2, 2.3, 9.0], "Gbps").splitlines() == [
        "upload:",
        "  iterations: 5",
        "  min: 2.00",
        "  q1: 2.10",
        "  median: 2.20",
        "  q3: 2.30",
        "  max: 2.30",
        "  outliers: [9.00]",
        "  samples: [2.00, 2.10, 2.20, 2.30, 9.00]",
        "  unit: Gbps",
    ]
    assert "  median: 1.500" in report.distribution("latency", [1.0, 2.0], "ms").splitlines()
    assert "  max: 3.000" in report.distribution("latency", [3.0], "ms").splitlines()


async def test_redis() -> None:
    """Commands as arrays, replies of every kind, in any pieces."""
    ours, theirs = memory_stream_pair()
    redis = resp.Redis(ours)
    replies = b"+OK\r\n:3\r\n$5\r\nhe\r\no\r\n$-1\r\n*2\r\n$1\r\nk\r\n*-1\r\n-ERR no\r\n"
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:

            async def answer() -> None:
                for byte in replies:
                    await theirs.send_all(bytes((byte,)))

            nursery.start_soon(answer)
            assert await redis("SET", "key", "ä") == b"OK"
            assert await theirs.receive_some() == b"*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$2\r\n\xc3\xa4\r\n"
            assert await redis("X") == 3
            assert await redis("X") == b"he\r\no"
            assert await redis("X") is None
            assert await redis("X") == [b"k", None]
            with pytest.raises(resp.RedisError, match="ERR no"):
                await redis("X")


@pytest.mark.parametrize("reply", [b"HTTP/1.1 400\r\n", b"$99999999\r\n", b"x" * 70_000, b"$5\r\nab"])
async def test_what_is_no_redis(reply) -> None:
    """Is an error, and no memory."""
    ours, theirs = memory_stream_pair()
    await theirs.send_all(reply)
    await theirs.send_eof()
    with pytest.raises(resp.RedisError):
        await resp.Redis(ours)("X")


async def test_finding_the_listener() -> None:
    """A string or a list, whichever the other side leaves, as soon as it is there."""
    said: list[tuple[str, ...]] = []
    answers: dict[str, list[resp.Reply]] = {
        "TYPE": [b"none", b"list", b"string"],
        "LINDEX": [b"/ip4/one"],
        "GET": [b"/ip4/two"],
    }

    async def redis(*command: str) -> resp.Reply:
        await trio.lowlevel.checkpoint()
        said.append(command)
        return answers[command[0]].pop(0)

    assert await resp.fetch(redis, "key") == "/ip4/one"  # type: ignore[arg-type]
    assert await resp.fetch(redis, "key") == "/ip4/two"  # type: ignore[arg-type]
    answers = {"BLPOP": [None, [b"key", b"/ip4/three"]], "DEL": [0, 0], "RPUSH": [1], "SET": [b"OK"]}
    assert await resp.fetch_list(redis, "key") == "/ip4/three"  # type: ignore[arg-type]
    await resp.publish(redis, "key", "a", as_list=True)  # type: ignore[arg-type]
    await resp.publish(redis, "key", "b", as_list=False)  # type: ignore[arg-type]
    assert said[-4:] == [("DEL", "key"), ("RPUSH", "key", "a"), ("DEL", "key"), ("SET", "key", "b")]


def test_the_matrix() -> None:
    """A figure for each pairing, and for each gap whose it is."""

    def row(peer: str, role: str, cell: str, **more: object) -> dict[str, object]:
        return {"suite": "harness_transport", "peer": peer, "role": role, "cell": cell, "reason": "", **more}

    rows = [
        row("go", "dial", "tcp-tls-yamux", status="pass", ping_ms=2.0),
        row("go", "dial", "tcp-tls-yamux", status="pass", ping_ms=0.456),
        row("go", "listen", "tcp-tls-yamux", status="fail"),
        row("go", "dial", "tcp-tls-mplex", status="unsupported-by-peer", reason="gone"),
        row("go", "listen", "tcp-tls-mplex", status="unsupported-by-peer", reason="gone"),
        row("ours", "dial", "tcp-tls-yamux", status="pass", ping_ms=1.0),
        row("rust", "dial", "tcp-tls-yamux", status="pass", ping_ms=1.0) | {"suite": "perf"},
    ]
    assert matrix(rows, ["go", "rust", "ours"]) == [
        "ping in ms; the role is ours",
        "                         go       go       us",
        "                       dial   listen     dial",
        "tcp-tls-yamux          0.46     FAIL     1.00",
        "tcp-tls-mplex           (a)      (a)        -",
        "(a) go: gone",
    ]
    assert matrix(rows[-1:], ["rust"]) == []
