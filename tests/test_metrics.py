"""Metrics and their text, and what a host has to say."""

from __future__ import annotations

from collections.abc import Iterable

import trio

from libp2p.abc import Service
from libp2p.metrics import MAX_SERIES, OTHER, Histogram, Kind, Metric, Tally, bounded, counter, gauge, render
from libp2p.protocols.ping import ping
from libp2p.testing import memory_network


def lines(*metrics: Metric) -> list[str]:
    return render(metrics).splitlines()


def test_text_of_a_counter_and_a_gauge() -> None:
    assert render([counter("a_total", "How many", 3), gauge("b", "How much", 0.5)]) == (
        "# HELP a_total How many\n# TYPE a_total counter\na_total 3\n# HELP b How much\n# TYPE b gauge\nb 0.5\n"
    )


def test_nothing_is_no_text() -> None:
    assert render([]) == ""


def test_labels_are_escaped() -> None:
    metric = Metric("a", "one\\two\nthree", Kind.GAUGE, {('say "hi"\\\n',): 1}, ("topic",))
    assert lines(metric)[0] == "# HELP a one\\\\two\\nthree"
    assert lines(metric)[2] == 'a{topic="say \\"hi\\"\\\\\\n"} 1'


def test_what_has_no_values_is_left_out() -> None:
    assert lines(Metric("a", "", Kind.COUNTER)) == []


def test_histogram() -> None:
    """A value on a bound belongs below it; what is above all bounds counts as well."""
    histogram = Histogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 9.0):
        histogram.observe(value)
    assert lines(Metric("s", "", Kind.HISTOGRAM, {("in",): histogram}, ("dir",)))[2:] == [
        's_bucket{dir="in",le="1.0"} 2',
        's_bucket{dir="in",le="2.0"} 3',
        's_bucket{dir="in",le="+Inf"} 4',
        's_sum{dir="in"} 12.0',
        's_count{dir="in"} 4',
    ]


def test_values_of_several_owners_are_added_up() -> None:
    one = Metric("a", "", Kind.COUNTER, {("x",): 1, ("y",): 2}, ("l",))
    other = Metric("a", "", Kind.COUNTER, {("x",): 10, ("z",): 3}, ("l",))
    assert lines(one, other)[2:] == ['a{l="x"} 11', 'a{l="y"} 2', 'a{l="z"} 3']


def test_a_tally_keeps_only_so_many_labels_apart() -> None:
    tally = Tally()
    for number in range(MAX_SERIES + 10):
        tally.add(str(number), "x")
    tally.add("0", "x")
    values = tally.metric("a", "", "l", "m").values
    assert len(values) == MAX_SERIES + 1
    assert (values["0", "x"], values[OTHER, OTHER]) == (2, 10)


def test_bounded_keeps_the_largest() -> None:
    few = bounded([(("a",), 1.0), (("b",), 2.0)])
    assert few == {("b",): 2.0, ("a",): 1.0}
    many = bounded([((f"{number:03}",), float(number)) for number in range(MAX_SERIES + 3)])
    assert len(many) == MAX_SERIES + 1
    assert many[(OTHER,)] == 0 + 1 + 2
    assert ("003",) in many


class Counting(Service):
    """Has something to tell."""

    def measure(self) -> Iterable[Metric]:
        yield counter("mine_total", "Mine", 7)


async def test_a_host_measures_its_connections_and_services() -> None:
    async with memory_network(2, services=[Counting], connect="full") as (a, b):
        await ping(a, b.local_peer)
        text = render(b.measure())
        assert (
            'libp2p_swarm_connections_opened_total{dir="inbound",transport="memory",security="/noise",'
            'muxer="/yamux/1.0.0",ip_version="unknown"} 1\n'
        ) in text
        assert 'libp2p_rcmgr_connections{dir="inbound",scope="system"} 1\n' in text
        assert "libp2p_ping_answered_total 1\n" in text
        assert 'libp2p_identify_identify_total{dir="outbound"} 1\n' in text
        assert "mine_total 7\n" in text
        await a.disconnect(b.local_peer)
        await trio.testing.wait_all_tasks_blocked()
        text = render(b.measure())
        assert 'libp2p_rcmgr_connections{dir="inbound",scope="system"} 0\n' in text
        assert "libp2p_swarm_connection_duration_seconds_count" in text
