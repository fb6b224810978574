import pytest

from libp2p.cli._rtt import Rtts, percentile


def test_a_summary() -> None:
    rtts = Rtts()
    for ms in range(100, 0, -1):
        rtts.add(ms / 1000)
    rtts.lost()
    assert rtts.summary() == {
        "sent": 101, "received": 100, "min_ms": 1, "avg_ms": 50.5, "max_ms": 100, "p50_ms": 50, "p99_ms": 99
    }  # fmt: skip
    assert rtts.text() == "101 sent, 100 answered: min 1.000, avg 50.500, max 100.000, p50 50.000, p99 99.000 ms"


def test_nothing_came_back() -> None:
    rtts = Rtts()
    rtts.lost()
    assert (rtts.summary(), rtts.text()) == ({"sent": 1, "received": 0}, "1 sent, 0 answered")


@pytest.mark.parametrize(("percent", "expected"), [(0, 1.0), (50, 2.0), (51, 3.0), (100, 4.0)])
def test_percentiles_are_values_that_occurred(percent: float, expected: float) -> None:
    assert percentile([1.0, 2.0, 3.0, 4.0], percent) == expected
