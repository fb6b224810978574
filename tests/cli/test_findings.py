"""What ``libp2p doctor`` makes of what it sees."""

from __future__ import annotations

import pytest

from libp2p.addressing import parse

pytest.importorskip("typer")
pytest.importorskip("rich")

from libp2p.cli._checks import judge_clock, judge_files
from libp2p.cli._findings import (
    ASK_PEERS,
    Finding,
    Observation,
    State,
    Try,
    conclude,
    judge_interfaces,
    judge_nat,
    judge_reachability,
)

ONE, TWO = "/ip4/1.1.1.1/udp/4001/quic-v1", "/ip4/8.8.8.8/udp/4001/quic-v1"
LOCAL = "/ip4/192.168.1.7/udp/5000/quic-v1"


def seen(peer: str, at: str, local: str = LOCAL) -> Observation:
    return Observation(peer=parse(peer), local=parse(local), seen=parse(at))


@pytest.mark.parametrize(
    ("observations", "kind", "state"),
    [
        ([], "unknown", State.UNKNOWN),
        ([seen("/ip4/192.168.1.9/tcp/1", "/ip4/192.168.1.7/tcp/5000", "/ip4/192.168.1.7/tcp/5000")], "unknown",
         State.UNKNOWN),
        ([seen("/ip6/2606:4700::1/tcp/1", "/ip6/2a00::7/tcp/5", "/ip6/2a00::7/tcp/5")], "unknown", State.UNKNOWN),
        ([seen(ONE, "/ip4/93.184.216.34/udp/5000/quic-v1", "/ip4/93.184.216.34/udp/5000/quic-v1")], "none", State.GOOD),
        ([seen(ONE, "/ip4/93.184.216.34/udp/61000/quic-v1")], "unknown", State.UNKNOWN),
        ([seen("/ip4/1.1.1.1/tcp/1", "/ip4/93.184.216.34/tcp/61000", "/ip4/192.168.1.7/tcp/40000"),
          seen("/ip4/8.8.8.8/tcp/1", "/ip4/93.184.216.34/tcp/61001", "/ip4/192.168.1.7/tcp/40001")], "unknown",
         State.UNKNOWN),
        ([seen(ONE, "/ip4/93.184.216.34/udp/61000/quic-v1"), seen(TWO, "/ip4/93.184.216.34/udp/61000/quic-v1")],
         "endpoint-independent", State.GOOD),
        ([seen(ONE, "/ip4/93.184.216.34/udp/61000/quic-v1"), seen(TWO, "/ip4/93.184.216.34/udp/61001/quic-v1")],
         "symmetric", State.BAD),
        # The same neighbour twice says nothing about others.
        ([seen(ONE, "/ip4/93.184.216.34/udp/61000/quic-v1"), seen("/ip4/1.1.1.1/udp/2/quic-v1",
          "/ip4/93.184.216.34/udp/61000/quic-v1")], "unknown", State.UNKNOWN),
        # A peer may say anything.
        ([seen(ONE, "/dns4/example.com/tcp/1"), seen(TWO, "/memory/1")], "symmetric", State.BAD),
    ],
)  # fmt: skip
def test_nat(observations: list[Observation], kind: str, state: State) -> None:
    finding = judge_nat(observations)
    assert (finding.details["kind"], finding.state) == (kind, state)


def tried(reached: bool | None, server: str = "/ip4/1.1.1.1/tcp/1", reason: str = "") -> Try:
    return Try(server=parse(server), addr=parse("/ip4/8.8.8.8/tcp/4001"), reached=reached, reason=reason)


NEXT_DOOR = "/ip4/192.168.1.9/tcp/1"


@pytest.mark.parametrize(
    ("tries", "state", "words", "outcomes"),
    [
        ([], State.UNKNOWN, "no peer on the internet", []),
        ([tried(True)], State.GOOD, "1 of 1 peers get through to /ip4/8.8.8.8/tcp/4001", ["reached"]),
        ([tried(False), tried(True), tried(None, reason="busy")], State.GOOD, "1 of 2 peers",
         ["not reached", "reached", "busy"]),
        ([tried(False), tried(False)], State.BAD, "none of 2 peers gets through to /ip4/8.8.8.8/tcp/4001",
         ["not reached", "not reached"]),
        ([tried(None, reason="busy")], State.UNKNOWN, "nobody tries: busy", ["busy"]),
        # Who is on this side of the NAT cannot tell.
        ([tried(True, NEXT_DOOR)], State.UNKNOWN, "peers of this network get through", ["reached"]),
        ([tried(False, NEXT_DOOR)], State.UNKNOWN, "no peer on the internet", ["not reached"]),
        ([tried(True, NEXT_DOOR), tried(False)], State.BAD, "none of 1 peers", ["reached", "not reached"]),
    ],
)  # fmt: skip
def test_reachability(tries: list[Try], state: State, words: str, outcomes: list[str]) -> None:
    finding = judge_reachability(tries)
    assert finding.state is state
    assert words in finding.words
    assert [each["outcome"] for each in finding.details["tries"]] == outcomes
    assert bool(finding.advice) == (state is not State.GOOD)


@pytest.mark.parametrize(
    ("addrs", "state"),
    [
        ([], State.BAD),
        (["/ip4/127.0.0.1/tcp/1", "/ip6/::1/tcp/1"], State.BAD),
        (["/ip4/127.0.0.1/tcp/1", "/ip4/192.168.1.7/tcp/1", "/ip6/2a00::7/tcp/1"], State.GOOD),
    ],
)
def test_interfaces(addrs: list[str], state: State) -> None:
    finding = judge_interfaces(map(parse, addrs))
    assert finding.state is state
    if state is State.GOOD:
        assert finding.words == "192.168.1.7 (private), 2a00::7 (public)"


GOOD, BAD = Finding(state=State.GOOD, words=""), Finding(state=State.BAD, words="it is bad", advice="do something")
UNKNOWN = Finding(state=State.UNKNOWN, words="")


def nat(kind: str) -> Finding:
    return Finding(state=State.UNKNOWN, words="", details={"kind": kind})


@pytest.mark.parametrize(
    ("findings", "verdict", "step"),
    [
        ({"interfaces": BAD}, "it is bad", "do something"),
        ({"peers": BAD}, "none of the given peers could be reached", "try from another network"),
        ({"peers": GOOD, "nat": nat("none")}, "peers can reach a node here, unless", "libp2p listen"),
        ({"nat": nat("none"), "reachability": UNKNOWN}, "peers can reach a node here, unless", "libp2p listen"),
        ({"nat": nat("none"), "reachability": BAD}, "a firewall keeps peers out", "--port 4001"),
        ({"nat": nat("symmetric"), "reachability": GOOD}, "peers can reach a node here", "libp2p listen /ip4"),
        ({"nat": nat("unknown"), "reachability": BAD}, "peers cannot reach a node here", "--relay ADDR"),
        ({"reachability": BAD, "relays": GOOD}, "through the relay", "/p2p-circuit"),
        ({"nat": nat("symmetric"), "port mapping": GOOD}, "the router will let peers in", "--port-map"),
        ({"nat": nat("symmetric"), "port mapping": BAD, "relays": GOOD}, "through the relay", "/p2p-circuit"),
        ({"nat": nat("endpoint-independent"), "relays": UNKNOWN}, "peers cannot reach a node here", "--relay ADDR"),
        ({"nat": nat("unknown")}, "not known", ASK_PEERS),
        ({}, "not known", ASK_PEERS),
    ],
)
def test_the_verdict(findings: dict[str, Finding], verdict: str, step: str) -> None:
    words, following = conclude({"interfaces": GOOD, **findings}, asked=["somebody"] if "peers" in findings else ())
    assert verdict in words
    assert step in following


@pytest.mark.parametrize(
    ("wall", "kept", "state"),
    [(0.0, True, State.BAD), (2e9, True, State.GOOD), (2e9, False, State.UNKNOWN), (2e9, None, State.UNKNOWN)],
)
def test_clock(wall: float, kept: bool | None, state: State) -> None:
    assert judge_clock(lambda: wall, lambda: kept).state is state


@pytest.mark.parametrize(
    ("limits", "state", "advice"),
    [
        (None, State.UNKNOWN, ""),
        ((-1, -1), State.GOOD, ""),
        ((1024, 4096), State.GOOD, ""),
        ((256, 4096), State.BAD, "ulimit -n 4096"),
        ((256, 1_000_000), State.BAD, "ulimit -n 8192"),
        ((256, -1), State.BAD, "ulimit -n 8192"),
    ],
)
def test_files(limits: tuple[int, int] | None, state: State, advice: str) -> None:
    finding = judge_files(limits)
    assert (finding.state, finding.advice) == (state, advice)
