"""The dial plan and the backoff: case T10."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from multiaddr import Multiaddr

from libp2p.addressing import parse
from libp2p.errors import LocalProtocolError
from libp2p.swarm._dial_plan import Backoff, BackoffConfig, DialPlan


def addr(number: int) -> Multiaddr:
    return parse(f"/ip4/1.2.3.4/tcp/{number}")


A, B, C, D = (addr(number) for number in (1, 2, 3, 4))


# --- plan -------------------------------------------------------------------------------------------------------------


def test_addresses_start_when_their_delay_has_passed() -> None:
    plan = DialPlan([(A, 0.0), (B, 0.25), (C, 0.5)], now=100)
    assert plan.next(100) == [A]
    assert plan.next_timeout() == 100.25
    assert plan.next(100.2) == []
    assert plan.next(100.25) == [B]
    assert plan.next(100.6) == [C]
    assert plan.next_timeout() is None
    assert not plan.done
    assert plan.running == (A, B, C)


def test_failure_pulls_the_next_address_forward_and_keeps_the_distances() -> None:
    plan = DialPlan([(A, 0.0), (B, 0.25), (C, 0.5)], now=0)
    plan.next(0)
    plan.failed(A, 0.01)
    assert plan.next_timeout() == pytest.approx(0.01)
    assert plan.next(0.01) == [B]
    assert plan.next_timeout() == pytest.approx(0.26)


def test_failure_does_not_push_anything_back() -> None:
    plan = DialPlan([(A, 0.0), (B, 0.25), (C, 0.5)], now=0)
    plan.next(0)
    plan.failed(A, 9)
    assert plan.next(9) == [B, C]


def test_success_ends_the_plan_and_leaves_the_rest_to_cancel() -> None:
    plan = DialPlan([(A, 0.0), (B, 0.25), (C, 0.5)], now=0)
    plan.next(0.3)
    plan.succeeded(B)
    assert plan.done
    assert plan.winner == B
    assert plan.running == (A,)
    assert plan.next(99) == []
    assert plan.next_timeout() is None
    plan.failed(A, 1)  # the cancelled attempt reports
    plan.add([(D, 0.0)], 2)
    assert plan.next(99) == []


def test_a_second_success_does_not_replace_the_first() -> None:
    plan = DialPlan([(A, 0.0), (B, 0.0)], now=0)
    plan.next(0)
    plan.succeeded(A)
    plan.succeeded(B)
    assert plan.winner == A


def test_plan_is_done_when_all_have_failed_or_there_was_nothing() -> None:
    assert DialPlan([], now=0).done
    plan = DialPlan([(A, 0.0)], now=0)
    assert not plan.done
    plan.next(0)
    assert not plan.done
    plan.failed(A, 1)
    assert plan.done
    assert plan.winner is None


def test_no_more_than_max_parallel_at_once() -> None:
    """T10: at most 8 per peer."""
    addrs = [addr(number) for number in range(1, 21)]
    plan = DialPlan([(each, 0.0) for each in addrs], now=0)
    assert plan.next(0) == addrs[:8]
    assert plan.next(5) == []
    assert plan.next_timeout() is None
    plan.failed(addrs[3], 6)
    assert plan.next_timeout() is not None
    assert plan.next(6) == [addrs[8]]


def test_no_more_than_max_attempts_in_all() -> None:
    """T9: at most 25 dials per peer."""
    addrs = [addr(number) for number in range(1, 61)]
    plan = DialPlan([(each, 0.0) for each in addrs], now=0)
    tried: list[Multiaddr] = []
    while not plan.done:
        for each in plan.next(0):
            tried.append(each)
            plan.failed(each, 0)
    assert tried == addrs[:25]
    plan.add([(D, 0.0)], 0)
    assert plan.done


def test_added_addresses_count_from_now_and_only_once() -> None:
    plan = DialPlan([(A, 0.0), (B, 1.0)], now=0)
    plan.next(0)
    plan.add([(A, 0.0), (B, 0.0), (C, 0.0), (D, 0.25)], 0.5)
    assert plan.next(0.5) == [C]
    assert plan.next(0.75) == [D]
    assert plan.next(1.0) == [B]
    plan.add([(addr(9), 0.0)], 50)
    assert plan.next(50) == [addr(9)]


def test_answers_for_attempts_that_do_not_run_are_a_bug() -> None:
    plan = DialPlan([(A, 0.0)], now=0)
    with pytest.raises(LocalProtocolError):
        plan.failed(A, 0)
    with pytest.raises(LocalProtocolError):
        plan.succeeded(B)
    with pytest.raises(ValueError, match="at least one"):
        DialPlan([], now=0, max_parallel=0)


class PlanModel(RuleBasedStateMachine):
    """Whatever happens, nobody waits for a dead attempt, and the bounds hold."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.plan = DialPlan([(addr(n), 0.1 * n) for n in range(1, 7)], now=0, max_parallel=3, max_attempts=9)
        self.added = 100
        self.started: list[Multiaddr] = []
        self.running: list[Multiaddr] = []

    @rule(step=st.sampled_from([0.0, 0.05, 0.3]))
    def proceed(self, step: float) -> None:
        self.now += step
        new = self.plan.next(self.now)
        self.started += new
        self.running += new

    @precondition(lambda self: self.running)
    @rule(pick=st.integers(0, 100))
    def fail(self, pick: int) -> None:
        which = self.running.pop(pick % len(self.running))
        self.plan.failed(which, self.now)
        timeout = self.plan.next_timeout()
        if self.plan.winner is None and timeout is not None:
            assert timeout <= self.now

    @precondition(lambda self: self.running)
    @rule(pick=st.integers(0, 100))
    def succeed(self, pick: int) -> None:
        self.plan.succeeded(self.running.pop(pick % len(self.running)))

    @rule()
    def add(self) -> None:
        self.added += 1
        self.plan.add([(addr(self.added), 0.2)], self.now)

    @invariant()
    def bounds(self) -> None:
        assert list(self.plan.running) == self.running
        assert len(self.running) <= 3
        assert len(self.started) <= 9
        assert len(set(self.started)) == len(self.started)
        if not self.running and not self.plan.done:
            assert self.plan.next_timeout() is not None, "nothing runs, and nothing ever will"


TestPlanModel = PlanModel.TestCase


# --- backoff ----------------------------------------------------------------------------------------------------------


def test_backoff_grows_with_the_square_and_is_capped() -> None:
    """T10: 5 s + n**2, at most 5 min."""
    backoff = Backoff()
    now = 0.0
    waits = []
    for _ in range(20):
        until = backoff.failed(A, now)
        waits.append(until - now)
        assert backoff.blocked_until(A, now) == until
        assert backoff.blocked_until(A, until - 0.001) == until
        assert backoff.blocked_until(A, until) is None
        now = until
    assert waits[:5] == pytest.approx([5, 6, 9, 14, 21])
    assert waits[17:] == pytest.approx([294, 300, 300])


def test_backoff_ends_with_success_and_with_time() -> None:
    backoff = Backoff()
    backoff.failed(A, 0)
    backoff.failed(A, 5)
    backoff.succeeded(A)
    assert backoff.blocked_until(A, 5) is None
    assert len(backoff) == 0
    backoff.succeeded(A)
    backoff.failed(B, 0)
    for _ in range(3):
        until = backoff.failed(A, 0)
    backoff.succeeded(B)
    assert backoff.blocked_until(A, 0) is not None
    assert backoff.failed(A, until + 301) == until + 301 + 5, "an old failure must not count for ever"


def test_backoff_is_per_peer_so_that_nobody_can_block_somebody_elses_address() -> None:
    backoff = Backoff()
    backoff.failed(A, 0, peer="liar")
    assert backoff.blocked_until(A, 0, peer="liar") == 5
    assert backoff.blocked_until(A, 0, peer="owner") is None
    backoff.failed(B, 0, peer="liar")
    backoff.clear("liar")
    assert backoff.blocked_until(A, 0, peer="liar") is None
    assert backoff.blocked_until(B, 0, peer="liar") is None


def test_backoff_is_bounded() -> None:
    backoff = Backoff(BackoffConfig(peers=3, addresses=2))
    for number in range(10):
        for each in (A, B, C):
            backoff.failed(each, 0, peer=number)
    assert len(backoff) == 3
    assert backoff.blocked_until(A, 0, peer=9) is None
    assert backoff.blocked_until(C, 0, peer=9) == 5
    assert backoff.blocked_until(C, 0, peer=0) is None


@pytest.mark.parametrize("wrong", [{"base": -1}, {"maximum": 1}, {"coefficient": -1}, {"peers": 0}, {"addresses": 0}])
def test_backoff_config_is_checked(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must"):
        BackoffConfig(**wrong)  # type: ignore[arg-type]
