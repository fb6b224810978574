"""What pubsub tells operators."""

from __future__ import annotations

from libp2p.metrics import MAX_SERIES, OTHER, render
from libp2p.peer_id import PeerId
from libp2p.protocols.pubsub import Pubsub
from libp2p.protocols.pubsub._measured import measure_counts, measure_state
from libp2p.testing.keys import seeded_key
from tests.protocols.pubsub.networks import subscribed

PEERS = [PeerId.from_key(seeded_key(str(number)).public_key) for number in range(3)]


def test_counters_have_the_names_of_dashboards() -> None:
    counts = {"published": 5, "accept": 3, "duplicates": 2, "reject": 1, "bad_signature": 4, "ihave_flood": 6}
    text = render(measure_counts(counts))
    for line in (
        "gossipsub_msg_publish_count_total 5",
        "gossipsub_pre_validation_valid_total 4",
        "gossipsub_pre_validation_duplicate_total 2",
        "gossipsub_pre_validation_invalid_total 4",
        "gossipsub_accepted_messages_total 3",
        "gossipsub_rejected_messages_total 1",
        "gossipsub_ignored_messages_total 0",
        'gossipsub_msg_received_invalid_total{error="bad_signature"} 4',
        'gossipsub_msg_received_invalid_total{error="reject"} 1',
        'gossipsub_ihave_rcv_ignored_total{reason="max_ihave"} 6',
        'libp2p_pubsub_events_total{event="published"} 5',
    ):
        assert f"{line}\n" in text


def test_topics_and_scores() -> None:
    text = render(measure_state({"news": (PEERS, PEERS[:1])}, [1.0, -3.0]))
    for line in (
        'gossipsub_topic_peer_count{topicStr="news"} 3.0',
        'gossipsub_mesh_peer_count{topicStr="news"} 1.0',
        "gossipsub_score_avg -1.0",
        "gossipsub_score_min -3.0",
        "gossipsub_score_max 1.0",
    ):
        assert f"{line}\n" in text


def test_only_so_many_topics_are_told_apart() -> None:
    topics = {f"topic {number}": (PEERS, PEERS) for number in range(MAX_SERIES + 4)}
    text = render(measure_state(topics, []))
    assert text.count("gossipsub_topic_peer_count{") == MAX_SERIES + 1
    assert f'gossipsub_topic_peer_count{{topicStr="{OTHER}"}} {3.0 * 4}' in text
    assert "gossipsub_score" not in text


async def test_a_host_with_pubsub() -> None:
    async with subscribed([(0, 1)], Pubsub) as net:
        await net.pubsubs[0].publish("t", b"hello")
        await net.messages[1].receive()
        text = render(net.hosts[1].measure())
        assert 'gossipsub_topic_peer_count{topicStr="t"} 1.0\n' in text
        assert "gossipsub_accepted_messages_total 1\n" in text
        assert "gossipsub_msg_publish_count_total 1\n" in render(net.hosts[0].measure())
