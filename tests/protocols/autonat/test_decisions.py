"""What follows from what servers say, whom to ask, and whom to serve: requirements AN5, AN6, AV9, cases R5 and R6."""

from __future__ import annotations

import math

import pytest

from libp2p.addressing import parse
from libp2p.events import Reachability
from libp2p.peer_id import PeerId
from libp2p.protocols.autonat import AutoNatLimits, ReachabilityConfig, ScheduleConfig, Voice
from libp2p.protocols.autonat._limits import Admission
from libp2p.protocols.autonat._reachability import Verdict, Verdicts
from libp2p.protocols.autonat._schedule import Ask, Schedule, Server
from libp2p.protocols.autonat._shape import ip_version, same_listener, transport_name
from libp2p.testing.keys import seeded_key

A, B = parse("/ip4/1.1.1.1/tcp/1"), parse("/ip4/2.2.2.2/tcp/2")
PEERS = [PeerId.from_key(seeded_key(number).public_key) for number in range(20)]
UNKNOWN, PUBLIC, PRIVATE = Reachability.UNKNOWN, Reachability.PUBLIC, Reachability.PRIVATE


class Heard:
    """Verdicts, fed in short."""

    def __init__(self, **options: float) -> None:
        self.verdicts = Verdicts(ReachabilityConfig(**options))  # type: ignore[arg-type]

    def say(self, voice: Voice, *groups: int, now: float = 0.0, peer: int | None = None) -> None:
        for group in groups:
            server = PEERS[group if peer is None else peer]
            self.verdicts.add(A, voice, server=server, group=bytes([group]), now=now)

    def of(self, now: float = 0.0) -> Verdict:
        return self.verdicts.of(A, now)


def test_r6_how_many_it_takes() -> None:
    heard = Heard()
    assert heard.of() == Verdict()
    heard.say(Voice.PROOF, 1, 1, 1)
    assert heard.of() == Verdict(UNKNOWN, 0)
    heard.say(Voice.PROOF, 2)
    assert heard.of() == Verdict(PUBLIC, 2)


@pytest.mark.parametrize(("voice", "found"), [(Voice.CLAIM, PUBLIC), (Voice.DENIAL, PRIVATE)])
def test_an5_more_than_three(voice: Voice, found: Reachability) -> None:
    heard = Heard()
    heard.say(voice, 1, 2, 3)
    assert heard.of() == Verdict(UNKNOWN, 0)
    heard.say(voice, 4)
    assert heard.of() == Verdict(found, 4)


def test_an5_claims_against_denials() -> None:
    heard = Heard()
    heard.say(Voice.CLAIM, 1, 2, 3, 4)
    heard.say(Voice.DENIAL, 5, 6, 7, 8)
    assert heard.of().reachability is UNKNOWN
    heard.say(Voice.CLAIM, 9)
    assert heard.of() == Verdict(PUBLIC, 5)


def test_r6_no_number_of_denials_outweighs_a_proof() -> None:
    heard = Heard()
    heard.say(Voice.PROOF, 1)
    heard.say(Voice.DENIAL, *range(2, 20))
    assert heard.of().reachability is UNKNOWN
    heard.say(Voice.PROOF, 2)
    assert heard.of() == Verdict(PUBLIC, 2)


def test_r6_only_who_gave_a_proof_takes_it_back() -> None:
    heard = Heard(hold=0)
    heard.say(Voice.PROOF, 1, 2)
    heard.say(Voice.DENIAL, 1, 2, peer=7)
    assert heard.of() == Verdict(PUBLIC, 2)
    heard.say(Voice.DENIAL, 1)
    # One who still says so is enough for it to stay.
    assert heard.of() == Verdict(PUBLIC, 1)
    heard.say(Voice.DENIAL, 2)
    assert heard.of() == Verdict()


def test_voices_end() -> None:
    heard = Heard(hold=0, expiry=100)
    heard.say(Voice.PROOF, 1, now=0)
    heard.say(Voice.PROOF, 2, now=50)
    assert heard.of(99) == Verdict(PUBLIC, 2)
    assert heard.of(100) == Verdict(PUBLIC, 1)
    assert heard.of(150) == Verdict(UNKNOWN, 0)


def test_r6_no_change_of_mind_within_five_minutes() -> None:
    heard = Heard(denials=1, proofs=1)
    changes = 0
    before = UNKNOWN
    for now in range(3000):
        heard.say(Voice.PROOF if now % 2 else Voice.DENIAL, 1, now=now)
        found = heard.of(now).reachability
        changes, before = changes + (found is not before), found
    assert 2 <= changes <= 11


def test_the_host_is_as_reachable_as_its_best_address() -> None:
    verdicts = Verdicts(ReachabilityConfig(hold=0))
    assert verdicts.overall([], 0) == Verdict()
    for group in range(4):
        verdicts.add(A, Voice.DENIAL, server=PEERS[group], group=bytes([group]), now=0)
    assert verdicts.overall([A], 0) == Verdict(PRIVATE, 4)
    assert verdicts.overall([A, B], 0) == Verdict(UNKNOWN, 0)
    for group in range(3):
        verdicts.add(B, Voice.PROOF, server=PEERS[group], group=bytes([group]), now=0)
    assert verdicts.overall([A, B], 0) == Verdict(PUBLIC, 3)


def test_what_is_said_of_no_address_counts_where_there_is_none() -> None:
    verdicts = Verdicts()
    for group in range(4):
        verdicts.add(None, Voice.CLAIM, server=PEERS[group], group=bytes([group]), now=0)
    assert verdicts.overall([], 0) == Verdict(PUBLIC, 4)


def test_bounds() -> None:
    verdicts = Verdicts(ReachabilityConfig(addrs=2, voices=4))
    verdicts.add(A, Voice.PROOF, server=PEERS[0], group=b"0", now=0)
    for port in range(1, 3):
        verdicts.add(parse(f"/ip4/3.3.3.3/tcp/{port}"), Voice.PROOF, server=PEERS[0], group=b"0", now=0)
    assert verdicts.overall([A], 0) == Verdict()
    heard = Heard(voices=4)
    heard.say(Voice.PROOF, 1, 2)
    heard.say(Voice.DENIAL, *range(3, 20))
    assert heard.of() == Verdict(PUBLIC, 2)


@pytest.mark.parametrize("wrong", [{"proofs": 0}, {"expiry": 0.0}, {"hold": -1.0}, {"voices": 3}])
def test_configurations_that_make_no_sense(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"must be positive|too few voices"):
        ReachabilityConfig(**wrong)  # type: ignore[arg-type]


# --- the schedule

ONE, TWO, SAME = Server(PEERS[1], b"1"), Server(PEERS[2], b"2"), Server(PEERS[3], b"1")


def test_one_after_the_other_while_nothing_is_known() -> None:
    schedule = Schedule(ScheduleConfig(server_pause=0))
    ask, _ = schedule.next({A: UNKNOWN}, [ONE, SAME, TWO], 0.0)
    assert ask == Ask(ONE, A)
    schedule.answered(ask, 0.0, worked=False)
    ask, _ = schedule.next({A: UNKNOWN}, [ONE, SAME, TWO], 0.0)
    assert ask == Ask(TWO, A)
    schedule.answered(ask, 0.0, worked=False)
    assert schedule.next({A: UNKNOWN}, [ONE, SAME, TWO], 0.0) == (None, 90.0)
    # Another address is another matter.
    assert schedule.next({A: UNKNOWN, B: UNKNOWN}, [ONE], 0.0)[0] == Ask(ONE, B)


@pytest.mark.parametrize(("known", "pause"), [(PUBLIC, 900.0), (PRIVATE, 90.0)])
def test_now_and_then_when_something_is(known: Reachability, pause: float) -> None:
    schedule = Schedule()
    schedule.answered(Ask(ONE, A), 0.0, worked=False)
    assert schedule.next({A: known}, [ONE, TWO], 0.0) == (None, pause)
    assert schedule.next({A: known}, [ONE, TWO], pause)[0] == Ask(TWO, A)


def test_what_works_is_tried_by_those_for_whom_it_did() -> None:
    """R6: a crowd of liars must not keep the honest ones waiting until what they said has ended."""
    schedule = Schedule()
    for now, worked in enumerate((True, False, True)):
        schedule.answered(Ask(ONE, A), float(now), worked=worked)
    assert schedule.next({A: PUBLIC}, [TWO, ONE], 902.0)[0] == Ask(ONE, A)
    schedule.answered(Ask(ONE, A), 902.0, worked=False)
    assert schedule.next({A: PUBLIC}, [TWO, ONE], 1802.0)[0] == Ask(TWO, A)


def test_no_server_is_asked_too_often() -> None:
    schedule = Schedule()
    schedule.answered(Ask(ONE, A), 0.0, worked=False)
    assert schedule.next({B: UNKNOWN}, [ONE], 0.0) == (None, 10.0)
    schedule.refused(Ask(ONE, A), 10.0)
    assert schedule.next({B: UNKNOWN}, [ONE], 10.0) == (None, 310.0)
    assert schedule.next({}, [ONE], 10.0) == (None, math.inf) == schedule.next({A: UNKNOWN}, [], 10.0)


def test_intervals_that_make_no_sense() -> None:
    with pytest.raises(ValueError, match="must be positive"):
        ScheduleConfig(retry=0)


# --- whom to serve


def test_av9_defaults() -> None:
    limits = AutoNatLimits()
    assert (limits.requests, limits.requests_per_peer, limits.requests_with_data) == (60, 12, 12)
    assert (limits.requests_1, limits.requests_1_per_peer, limits.destination_pause) == (30, 3, 10)


def test_av9_in_all_and_for_each() -> None:
    admission = Admission(AutoNatLimits())
    taken = []
    for number in range(100):
        work = admission.enter(PEERS[number % 20], 2, 0.0)
        taken.append(work is not None)
        if work is not None:
            with work:
                pass
    assert sum(taken) == 60
    assert admission.enter(PEERS[0], 1, 0.0) is not None  # version 1 has an account of its own
    assert admission.enter(PEERS[0], 2, 1.0) is not None


def test_r5_one_destination_and_all_of_them() -> None:
    admission = Admission(AutoNatLimits())
    # The first may still be paying for ten seconds, and wait for three.
    assert admission.elsewhere(b"a", 0.0) and not admission.elsewhere(b"a", 22.9)
    assert admission.elsewhere(b"a", 23.1)
    free = Admission(AutoNatLimits(destination_pause=0))
    assert [free.elsewhere(b"a", 0.0) for _ in range(13)] == [True] * 12 + [False]


@pytest.mark.parametrize(
    "wrong", [{"requests": 0}, {"min_data": 0}, {"max_data": 1}, {"data_timeout": 0.0}, {"max_wait": -1.0}]
)
def test_limits_that_make_no_sense(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must"):
        AutoNatLimits(**wrong)  # type: ignore[arg-type]


# --- shapes


@pytest.mark.parametrize(
    ("addr", "version", "transport"),
    [
        ("/ip4/1.2.3.4/tcp/1", "ip4", "tcp"),
        ("/ip6/::1/udp/1/quic-v1", "ip6", "quic-v1"),
        ("/dns4/example.com/tcp/1/tls/ws", "dns4", "ws"),
        ("/memory/1", "unknown", "unknown"),
    ],
)
def test_labels(addr: str, version: str, transport: str) -> None:
    assert (ip_version(parse(addr)), transport_name(parse(addr))) == (version, transport)


@pytest.mark.parametrize(
    ("local", "addr", "same"),
    [
        ("/ip4/10.0.0.1/tcp/4001", "/ip4/1.2.3.4/tcp/9", True),
        ("/ip4/10.0.0.1/tcp/4001", "/ip4/1.2.3.4/tcp/9/tls/ws", True),
        ("/ip4/10.0.0.1/tcp/4001", "/ip4/1.2.3.4/udp/9/quic-v1", False),
        ("/ip4/10.0.0.1/tcp/4001", "/ip6/2600::1/tcp/9", False),
    ],
)
def test_av7_the_listener_that_was_dialled(local: str, addr: str, same: bool) -> None:
    assert same_listener(parse(local), parse(addr)) is same
