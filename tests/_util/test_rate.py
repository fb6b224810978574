"""Budgets."""

from __future__ import annotations

from libp2p._util.rate import Budget


def test_a_budget_allows_a_burst_and_a_rate() -> None:
    budget = Budget(10, 3)
    assert [budget.charge(0.0) for _ in range(4)] == [True, True, True, False]
    assert budget.charge(0.05) is False
    assert budget.charge(0.3) is True
    assert all(budget.charge(1 + i / 10) for i in range(1000))
    assert [budget.charge(500.0) for _ in range(4)] == [True, True, True, False]
    assert [budget.charge(600.0, 2) for _ in range(2)] == [True, False]
