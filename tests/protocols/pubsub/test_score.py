"""Scores of peers: requirements G11.7 to G11.11, G11.16; case G9."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libp2p.peer_id import PeerId
from libp2p.protocols.pubsub import GossipsubConfig, Message, PeerScoreConfig, ScoreThresholds, TopicScore
from libp2p.protocols.pubsub._score import PeerScores
from libp2p.testing.keys import seeded_key

A, B, C = (PeerId.from_key(seeded_key(name).public_key) for name in "abc")
QUIET: dict[str, Any] = {"first_deliveries_weight": 0.0, "invalid_messages_weight": 0.0}


def message(number: int = 1, source: PeerId = A, topic: str = "t") -> Message:
    return Message(id=b"%d" % number, topic=topic, data=b"", received_from=source, raw=b"")


def scores(topic: TopicScore | None = None, **config: Any) -> PeerScores:
    made = PeerScores(PeerScoreConfig(topics={} if topic is None else {"t": topic}, **config))
    for peer in (A, B, C):
        made.add(peer, (), 0.0)
    return made


# --- parameters -------------------------------------------------------------------------------------------------------

WRONG_TOPICS: list[dict[str, float]] = [
    {"weight": -1},
    {"time_in_mesh_weight": -1},
    {"time_in_mesh_quantum": 0},
    {"time_in_mesh_cap": 0},
    {"first_deliveries_weight": -1},
    {"first_deliveries_decay": 0},
    {"first_deliveries_decay": 1},
    {"first_deliveries_cap": 0},
    {"mesh_deliveries_weight": 1},
    {"mesh_deliveries_decay": 1.5},
    {"mesh_deliveries_cap": 0},
    {"mesh_deliveries_cap": 5, "mesh_deliveries_threshold": 6},
    {"mesh_deliveries_threshold": 0},
    {"mesh_deliveries_window": -1},
    {"mesh_deliveries_activation": -1},
    {"mesh_failure_weight": 1},
    {"mesh_failure_decay": -1},
    {"invalid_messages_weight": 1},
    {"invalid_messages_decay": 0},
]
WRONG_CONFIGS: list[dict[str, Any]] = [
    {"topic_cap": -1},
    {"app_weight": -1},
    {"colocation_weight": 1},
    {"colocation_threshold": 0},
    {"behaviour_weight": 1},
    {"behaviour_threshold": -1},
    {"behaviour_decay": 0},
    {"behaviour_decay": 1},
    {"decay_interval": 0},
    {"decay_to_zero": 0},
    {"decay_to_zero": 1},
    {"retain": -1},
    {"window": 0},
    {"retained_peers": 0},
    {"messages": 0},
]
WRONG_THRESHOLDS: list[dict[str, float]] = [
    {"gossip": 0},
    {"publish": -5},
    {"graylist": -50},
    {"accept_exchange": -1},
    {"opportunistic": -1},
]


@pytest.mark.parametrize("wrong", WRONG_TOPICS, ids=str)
def test_g11_11_topic_parameters(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"must|threshold"):
        TopicScore(**wrong)


@pytest.mark.parametrize("wrong", WRONG_CONFIGS, ids=str)
def test_g11_11_parameters(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must"):
        PeerScoreConfig(**wrong)


@pytest.mark.parametrize("wrong", WRONG_THRESHOLDS, ids=str)
def test_g11_7_thresholds(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must"):
        ScoreThresholds(**wrong)


@pytest.mark.parametrize("kind", [TopicScore, PeerScoreConfig, ScoreThresholds])
def test_g11_11_numbers_are_finite(kind: Any) -> None:
    names = [item.name for item in fields(kind) if isinstance(getattr(kind(), item.name), float)]
    assert names
    for name in names:
        for value in (math.nan, math.inf, -math.inf):
            with pytest.raises(ValueError, match=f"{name} must be finite"):
                kind(**{name: value})


WRONG_GOSSIPSUB: list[dict[str, Any]] = [
    {"degree": 4},
    {"degree_low": 0},
    {"degree_high": 5},
    {"degree_score": 7},
    {"degree_score": -1},
    {"degree_lazy": -1},
    {"degree_outbound": 5},
    {"degree_outbound": 4},
    {"degree_outbound": -1},
    {"gossip_factor": 1.5},
    {"gossip_factor": -0.5},
    {"history": 2},
    {"history_gossip": 0},
    {"heartbeat": 0},
    {"promise": 0},
    {"prune_backoff": 0},
    {"backoff_slack": -1},
    {"idontwant_size": -1},
    {"ihave_ids": 0},
    {"cache_messages": 0},
]


@pytest.mark.parametrize("wrong", WRONG_GOSSIPSUB, ids=str)
def test_g2_parameters_of_gossipsub(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must|from"):
        GossipsubConfig(**wrong)


def test_g2_defaults() -> None:
    config = GossipsubConfig()
    assert (config.degree, config.degree_low, config.degree_high, config.degree_lazy) == (6, 5, 12, 6)
    assert (config.degree_score, config.degree_outbound) == (4, 2)
    assert (config.heartbeat, config.fanout_ttl, config.seen_ttl) == (1.0, 60.0, 120.0)
    assert (config.history, config.history_gossip) == (5, 3)


# --- P1 to P7 (G11.8) -------------------------------------------------------------------------------------------------


def test_nobody_knows_a_stranger() -> None:
    made = PeerScores(PeerScoreConfig())
    assert made.score(A, 0.0) == 0.0
    made.penalize(A)
    made.graft(A, "t", 0.0)
    made.prune(A, "t", 0.0)
    made.remove(A, 0.0)
    made.forged(A, "t")
    made.arrived(message(), 0.0)
    made.delivered(message(), 0.0)
    assert made.scores(0.0) == {}


def test_p1_time_in_the_mesh() -> None:
    made = scores(TopicScore(time_in_mesh_weight=0.5, time_in_mesh_quantum=2.0, time_in_mesh_cap=10, weight=2.0))
    assert made.score(A, 0.0) == 0.0
    made.graft(A, "t", 10.0)
    assert made.score(A, 11.9) == 0.0
    assert made.score(A, 12.0) == 1.0
    assert made.score(A, 17.0) == 3.0
    assert made.score(A, 1000.0) == 10.0
    made.prune(A, "t", 1000.0)
    assert made.score(A, 1000.0) == 0.0


def test_p2_first_deliveries() -> None:
    made = scores(TopicScore(first_deliveries_weight=2.0, first_deliveries_cap=3))
    for number in range(5):
        made.arrived(message(number), 0.0)
        made.duplicate(B, message(number, B), 0.0)
        made.delivered(message(number), 0.0)
        made.delivered(message(number), 0.0)
    assert made.score(A, 0.0) == 6.0
    assert made.score(B, 0.0) == 0.0


def owing(**more: Any) -> PeerScores:
    params: dict[str, Any] = {"mesh_deliveries_weight": -1.0, "mesh_deliveries_threshold": 4.0, **QUIET, **more}
    made = scores(TopicScore(**params))
    for peer in (A, B, C):
        made.graft(peer, "t", 0.0)
    return made


def test_p3_a_deficit_after_activation() -> None:
    made = owing(mesh_deliveries_activation=5.0)
    made.refresh(0.0)
    made.refresh(5.0)
    assert made.score(A, 5.0) == 0.0
    made.refresh(6.0)
    assert made.score(A, 6.0) == -16.0


def test_p3_near_first_copies_count() -> None:
    made = owing(mesh_deliveries_activation=0.0, mesh_deliveries_decay=0.999999, mesh_deliveries_window=0.1)
    made.refresh(0.0)
    item = message()
    made.arrived(item, 0.5)
    made.duplicate(B, item, 0.6)  # while it is validated
    made.duplicate(B, item, 0.6)
    made.duplicate(A, item, 0.6)  # who brought it
    made.delivered(item, 0.7)
    made.duplicate(C, item, 0.9)  # too late
    made.duplicate(B, item, 0.7)
    second = message(2)
    made.arrived(second, 0.9)
    made.delivered(second, 0.9)
    made.duplicate(C, second, 0.95)
    made.duplicate(C, second, 0.95)
    made.refresh(1.0)
    assert [round(made.score(peer, 1.0), 2) for peer in (A, B, C)] == [-4.0, -9.0, -9.0]


def test_p3_is_capped() -> None:
    made = owing(mesh_deliveries_cap=4.0, mesh_deliveries_activation=0.0, mesh_deliveries_decay=0.5)
    for number in range(20):
        item = message(number)
        made.arrived(item, 0.0)
        made.duplicate(B, item, 0.0)
        made.delivered(item, 0.0)
    made.refresh(0.0)
    made.refresh(1.0)
    assert made.score(A, 1.0) == made.score(B, 1.0) == -4.0


def test_p3_is_off_by_default() -> None:
    made = scores(TopicScore())
    made.graft(A, "t", 0.0)
    for now in range(200):
        made.refresh(float(now))
    assert made.score(A, 200.0) == 0.0


def test_p3b_what_was_owed_stays() -> None:
    made = owing(mesh_failure_weight=-1.0, mesh_deliveries_activation=5.0, mesh_failure_decay=0.5)
    made.refresh(0.0)
    made.prune(A, "t", 4.0)  # not due yet
    assert made.score(A, 4.0) == 0.0
    made.prune(B, "t", 6.0)
    made.prune(B, "t", 6.0)
    assert made.score(B, 6.0) == -16.0
    made.refresh(1.0)
    assert made.score(B, 6.0) == -8.0


def test_p4_invalid_messages() -> None:
    made = scores(TopicScore(invalid_messages_weight=-2.0))
    item = message()
    made.arrived(item, 0.0)
    made.duplicate(B, item, 0.0)
    made.duplicate(A, item, 0.0)
    made.rejected(item, 0.0)
    made.rejected(item, 0.0)
    assert [made.score(peer, 0.0) for peer in (A, B, C)] == [-2.0, -2.0, 0.0]
    made.duplicate(C, item, 0.0)
    assert made.score(C, 0.0) == -2.0
    made.forged(C, "t")
    assert made.score(C, 0.0) == -8.0


def test_g11_16_ignored_messages_cost_nothing() -> None:
    made = scores(TopicScore())
    item = message()
    made.arrived(item, 0.0)
    made.duplicate(B, item, 0.0)
    made.ignored(item, 0.0)
    made.ignored(item, 0.0)
    made.duplicate(C, item, 0.0)
    made.delivered(item, 0.0)
    made.rejected(item, 0.0)
    assert set(made.scores(0.0).values()) == {0.0}


def test_topics_have_a_cap() -> None:
    made = scores(TopicScore(), topic_cap=2.0)
    uncapped = scores(TopicScore(), topic_cap=0.0)
    for table in (made, uncapped):
        for number in range(5):
            table.delivered(message(number), 0.0)
    assert made.score(A, 0.0) == 2.0
    assert uncapped.score(A, 0.0) == 5.0


def test_topics_that_do_not_count() -> None:
    made = scores(None, default_topic=None)
    made.graft(A, "t", 0.0)
    made.delivered(message(), 0.0)
    made.forged(A, "t")
    made.prune(A, "t", 0.0)
    made.refresh(10.0)
    assert made.score(A, 10.0) == 0.0


def test_p5_what_the_application_says() -> None:
    made = scores(app_score=lambda peer: 3.0 if peer == A else -1.0, app_weight=2.0)
    assert [made.score(peer, 0.0) for peer in (A, B)] == [6.0, -2.0]


def test_p6_peers_on_one_address() -> None:
    made = scores(colocation_threshold=1, colocation_weight=-1.0)
    for peer in (A, B, C):
        made.add(peer, ["1.2.3.4", "1.2.3.4"], 0.0)
    assert made.score(A, 0.0) == -4.0
    made.add(C, ["2001:db8::1"], 0.0)
    made.add(B, ["2001:db8::2%eth0"], 0.0)
    assert [made.score(peer, 0.0) for peer in (A, B, C)] == [0.0, -1.0, -1.0]
    made.remove(B, 0.0)
    assert made.score(C, 0.0) == 0.0
    for peer in (A, B, C):
        made.add(peer, ["127.0.0.1", "::1", "a.name"], 0.0)
    assert set(made.scores(0.0).values()) == {0.0}


def test_p7_broken_rules() -> None:
    made = scores(behaviour_threshold=2.0, behaviour_weight=-3.0)
    made.penalize(A, 2)
    assert made.score(A, 0.0) == 0.0
    made.penalize(A)
    made.penalize(A)
    assert made.score(A, 0.0) == -12.0


# --- time (G11.9) -----------------------------------------------------------------------------------------------------


def test_counters_decay_to_zero() -> None:
    made = scores(TopicScore(first_deliveries_decay=0.5, invalid_messages_decay=0.5), decay_to_zero=0.1)
    made.refresh(0.0)
    for number in range(4):
        made.delivered(message(number), 0.0)
    values = []
    for now in range(1, 8):
        made.refresh(float(now))
        values.append(made.score(A, float(now)))
    assert values == [2.0, 1.0, 0.5, 0.25, 0.125, 0.0, 0.0]


def test_decay_that_is_late_is_made_up_for() -> None:
    made = scores(TopicScore(first_deliveries_decay=0.5), decay_interval=2.0)
    made.refresh(0.0)
    for number in range(4):
        made.delivered(message(number), 0.0)
    made.refresh(1.9)
    assert made.score(A, 1.9) == 4.0
    made.refresh(4.0)
    assert made.score(A, 4.0) == 1.0


def test_leaving_does_not_clean_a_bad_score() -> None:
    made = scores(TopicScore(invalid_messages_decay=0.5), retain=10.0)
    made.refresh(0.0)
    for _ in range(4):
        made.forged(A, "t")
    made.delivered(message(1), 0.0)
    made.remove(A, 0.0)
    assert A not in made.scores(0.0)
    made.refresh(1.0)
    made.add(A, (), 1.0)
    assert made.score(A, 1.0) == -40.0
    made.remove(A, 1.0)
    made.refresh(11.0)
    made.add(A, (), 11.0)
    assert made.score(A, 11.0) == 0.0


def test_a_retained_score_ends() -> None:
    made = scores(TopicScore(), retain=10.0)
    made.forged(A, "t")
    made.remove(A, 0.0)
    made.refresh(9.0)
    made.refresh(10.0)
    made.add(A, (), 10.0)
    assert made.score(A, 10.0) == 0.0


def test_a_good_score_is_forgotten() -> None:
    made = scores(TopicScore())
    made.delivered(message(1), 0.0)
    made.graft(A, "t", 0.0)
    made.remove(A, 0.0)
    made.add(A, (), 0.0)
    assert made.score(A, 0.0) == 0.0


def test_nothing_is_retained_without_time_for_it() -> None:
    made = scores(TopicScore(), retain=0.0)
    made.forged(A, "t")
    made.remove(A, 0.0)
    made.add(A, (), 0.0)
    assert made.score(A, 0.0) == 0.0


def test_deliveries_are_forgotten() -> None:
    made = scores(TopicScore(), window=10.0, messages=3)
    for number in range(5):
        made.arrived(message(number), float(number))
    assert len(made._deliveries) == 3
    made.refresh(13.0)
    assert len(made._deliveries) == 1
    made.refresh(14.0)
    assert not made._deliveries
    assert not made._order


# --- case G9 ----------------------------------------------------------------------------------------------------------

weights = st.floats(0, 50, allow_nan=False)
topic_scores = st.fixed_dictionaries(
    {
        "weight": st.floats(0, 5),
        "time_in_mesh_weight": st.floats(0, 2),
        "time_in_mesh_cap": st.floats(1, 500),
        "first_deliveries_weight": weights,
        "first_deliveries_cap": st.floats(1, 100),
        "mesh_deliveries_weight": st.floats(-10, 0),
        "mesh_deliveries_threshold": st.floats(0.5, 20),
        "mesh_deliveries_activation": st.floats(0, 20),
        "mesh_failure_weight": st.floats(-10, 0),
        "invalid_messages_weight": st.floats(-100, 0),
    }
)


@given(st.dictionaries(st.sampled_from("tuv"), topic_scores, min_size=1), st.floats(0, 100), st.data())
def test_g9_who_delivers_nothing_ends_below_zero(
    topics: dict[str, dict[str, float]], cap: float, data: st.DataObject
) -> None:
    """Whatever the parameters: they are refused, or a freeloader that owes messages anywhere is below zero."""
    try:
        config = PeerScoreConfig(topics={name: TopicScore(**params) for name, params in topics.items()}, topic_cap=cap)
    except ValueError as exc:
        assert "delivers nothing" in str(exc)
        return
    made = PeerScores(config)
    made.add(A, (), 0.0)
    owes = [name for name, topic in config.topics.items() if topic.mesh_deliveries_weight and topic.weight]
    for name in topics:
        made.graft(A, name, 0.0)
    for beat in range(100):
        now = float(beat)
        made.refresh(now)
        if data.draw(st.integers(0, 9)) == 0:
            made.duplicate(A, message(beat, B), now)  # copies long after the first: worth nothing
        assert math.isfinite(made.score(A, now))
    if owes:
        assert made.score(A, 100.0) < 0
    else:
        assert made.score(A, 100.0) >= 0


@given(st.dictionaries(st.sampled_from("tuv"), topic_scores, min_size=1))
def test_g9_who_delivers_stays_above_zero(topics: dict[str, dict[str, float]]) -> None:
    try:
        config = PeerScoreConfig(topics={name: TopicScore(**params) for name, params in topics.items()})
    except ValueError:
        return
    made = PeerScores(config)
    made.add(A, (), 0.0)
    number = 0
    for name in topics:
        made.graft(A, name, 0.0)
    for beat in range(100):
        for name in topics:
            for _ in range(25):
                number += 1
                made.delivered(message(number, A, name), float(beat))
        made.refresh(float(beat))
        assert made.score(A, float(beat)) >= 0


def test_g9_p1_needs_names() -> None:
    with pytest.raises(ValueError, match="name the topics"):
        PeerScoreConfig(default_topic=TopicScore(time_in_mesh_weight=0.1))
