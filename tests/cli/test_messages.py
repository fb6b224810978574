"""``libp2p pubsub`` and ``libp2p chat``."""

from __future__ import annotations

import base64

import pytest

from tests.cli.program import Program, result_of

pytest.importorskip("typer")
pytest.importorskip("rich")
pytestmark = pytest.mark.real_clock("runs the real command in processes of its own")

LOOPBACK = "/ip4/127.0.0.1/tcp/0"


def subscriber(*options: str) -> Program:
    return Program("pubsub", "sub", "news", "--listen", LOOPBACK, *options)


def test_messages_from_arguments() -> None:
    with subscriber("--count", "2", "--json") as sub:
        addr = sub.event("listening")["addrs"][0]
        result = result_of("pubsub", "pub", "news", "hello", "wörld", "--peer", addr, "--json")
        assert (result.status, result.record) == (0, {"topic": "news", "published": 2})
        first, second = sub.event("message"), sub.event("message")
        assert (first["text"], second["text"]) == ("hello", "wörld")
        assert base64.b64decode(second["data"]).decode() == "wörld"
        assert first["topic"] == "news"
        assert first["from"] == second["from"]
        assert sub.end() == 0


def test_messages_from_lines() -> None:
    with subscriber("--count", "3") as sub:
        addr = sub.err.until("listens on (/.*)")[1]
        result = result_of("pubsub", "pub", "news", "--peer", addr, stdin="one\n\x1b[31mtwo\nthree, without an end")
        assert (result.status, result.out) == (0, ["published 3 to news"])
        assert sub.out.rest() == ["one", "\\x1b[31mtwo", "three, without an end"]
        assert sub.end() == 0


def test_a_publisher_that_others_come_to() -> None:
    with Program("pubsub", "pub", "news", "hello", "--listen", LOOPBACK, "--json") as pub:
        addr = pub.event("listening")["addrs"][0]
        result = result_of("pubsub", "sub", "news", "--peer", addr, "--count", "1")
        assert (result.status, result.out) == (0, ["hello"])
        assert pub.end() == 0


def test_many_messages_arrive_before_the_publisher_ends() -> None:
    with subscriber("--count", "100") as sub:
        addr = sub.err.until("listens on (/.*)")[1]
        lines = [f"message {number}" for number in range(100)]
        assert result_of("pubsub", "pub", "news", "--peer", addr, stdin="\n".join(lines)).status == 0
        assert sub.out.rest() == lines
        assert sub.end() == 0


def test_a_line_that_is_too_long() -> None:
    with subscriber() as sub:
        addr = sub.err.until("listens on (/.*)")[1]
        result = result_of("pubsub", "pub", "news", "--peer", addr, stdin="x" * 1_200_000)
        assert (result.status, result.out) == (1, [])
        assert result.err.startswith("error: a line of more than ")


def test_nobody_is_subscribed() -> None:
    with Program("listen", LOOPBACK) as node:
        addr = node.out.until("/p2p/").string
        result = result_of("pubsub", "pub", "news", "hello", "--peer", addr, "--timeout", "0.3")
        assert (result.status, result.out) == (1, [])
        assert result.err == "error: 0 of 1 peers are subscribed to 'news' after 0.3 s"


def test_the_last_peer_leaves() -> None:
    with subscriber("--json") as first:
        addr = first.event("listening")["addrs"][0]
        with Program("pubsub", "sub", "news", "--peer", addr) as second:
            first.event("joined")
            assert first.interrupt() == 130
            assert second.end() == 1
            assert second.err.rest() == ["error: the last peer is gone"]


def test_the_mesh() -> None:
    with subscriber("--json") as sub:
        addr = sub.event("listening")["addrs"][0]
        options = ("--peer", addr, "--count", "2", "--interval", "0.5")
        with Program("pubsub", "mesh", "news", *options) as shown:
            assert shown.end() == 0
            assert "1 of 1 peers are in the mesh" in shown.out.rest()
        result = result_of("pubsub", "mesh", "news", *options[:2], "--count", "1", "--json")
        ((peer, record),) = [(found["peer"], found) for found in result.record["peers"]]
        assert addr.endswith(peer)
        assert (record["mesh"], record["score"]) == (True, 0.0)


def test_a_chat_of_two_pipes() -> None:
    with Program("chat", "--listen", LOOPBACK, "--json") as ada:
        addr = ada.event("listening")["addrs"][0]
        with Program("chat", addr, "--name", "brian") as brian:
            brian.out.until("joined")
            brian.say("is anybody there?\n")
            assert ada.event("message")["text"] == "brian: is anybody there?"
            ada.say("yes, me\n")
            brian.out.until("^….{8} yes, me$")
            brian.say("good, bye")
            brian.hang_up()
            assert brian.end() == 0
            assert ada.events("message", "left")["message"]["text"] == "brian: good, bye"
        ada.hang_up()
        assert ada.end() == 0
        assert ada.err.rest() == []


def test_a_room_that_is_not_there() -> None:
    result = result_of("chat", "/ip4/127.0.0.1/tcp/1", "--json")
    assert result.status == 1
    assert result.record["error"]["attempts"]


def test_who_knows_the_same_rendezvous_point_finds_each_other() -> None:
    with Program("rendezvous", "serve", LOOPBACK, "--json") as point:
        at = ("--rendezvous", point.event("listening")["addrs"][0], "--listen", LOOPBACK, "--json")
        with Program("chat", *at) as ada, Program("pubsub", "sub", "chat", *at) as listener:
            listener.event("joined")
            ada.say("hello\n")
            assert listener.event("message")["text"] == "hello"
            assert listener.interrupt() == 130
