"""What pubsub has counted, under the names of js-libp2p's gossipsub dashboards. Pure.

They are made from the counters that :meth:`Pubsub.metrics` shows, which are all there as well, under one name of ours.
Only what is looked up when somebody asks has topics for labels.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from ...metrics import Kind, LabelValues, Metric, Value, bounded, counter, gauge
from ...peer_id import PeerId
from ._router import Fault, Verdict

_INVALID = ("malformed", *[fault.value for fault in Fault])
"""Counters of messages that were wrong before a validator saw them."""
_VERDICTS = {"accepted": Verdict.ACCEPT, "ignored": Verdict.IGNORE, "rejected": Verdict.REJECT}
_IHAVE_IGNORED = {"ihave_flood": "max_ihave", "gossip_ignored": "low_score"}
_PENALTIES = {"graft_in_backoff": "graft_backoff", "promises_broken": "broken_promise"}
"""Counters to js's names of reasons."""


def measure_counts(counts: Mapping[str, int]) -> Iterator[Metric]:
    """Everything that only grows.

    Args:
        counts: by the names of :meth:`Pubsub.metrics`.
    """

    def count(name: str) -> int:
        return counts.get(name, 0)

    events: dict[LabelValues, Value] = {(name,): value for name, value in counts.items()}
    yield Metric("libp2p_pubsub_events_total", "All that pubsub counts", Kind.COUNTER, events, ("event",))
    yield counter("gossipsub_msg_publish_count_total", "Messages published", count("published"))
    invalid = {name: count(name) for name in _INVALID if count(name)}
    verdicts = {name: count(verdict.value) for name, verdict in _VERDICTS.items()}
    found = {"valid": sum(verdicts.values()), "duplicate": count("duplicates"), "invalid": sum(invalid.values())}
    for name, value in found.items():
        yield counter(f"gossipsub_pre_validation_{name}_total", f"Messages {name} before validators see them", value)
    for name, value in verdicts.items():
        yield counter(f"gossipsub_{name}_messages_total", f"Messages {name} by validators", value)
    refused = {name: count(name) for name in (Verdict.REJECT.value, Verdict.IGNORE.value) if count(name)}
    yield _labelled("gossipsub_msg_received_invalid_total", "Why messages were not taken", "error", invalid | refused)
    graylisted = count("graylisted")
    yield counter("gossipsub_rpc_rcv_not_accepted_total", "RPCs not read because of the sender's score", graylisted)
    ignored = {reason: count(name) for name, reason in _IHAVE_IGNORED.items()}
    yield _labelled("gossipsub_ihave_rcv_ignored_total", "IHAVEs ignored", "reason", ignored)
    unknown = count("iwant_unknown")
    yield counter("gossipsub_iwant_rcv_dont_have_msgids_total", "Messages asked for and not there", unknown)
    broken = count("promises_broken")
    yield counter("gossipsub_iwant_promise_broken", "Messages that peers said to have and did not send", broken)
    penalties = {penalty: count(name) for name, penalty in _PENALTIES.items()}
    yield _labelled("gossipsub_scoring_penalties_total", "Misdeeds of peers", "penalty", penalties)


def measure_state(
    topics: Mapping[str, tuple[Collection[PeerId], Collection[PeerId]]], scores: Collection[float]
) -> Iterator[Metric]:
    """How things are now.

    Args:
        topics: this host's topics; the peers of each, and those in its mesh.
    """
    peers = bounded([((topic,), float(len(found))) for topic, (found, _) in topics.items()])
    meshes = bounded([((topic,), float(len(mesh))) for topic, (_, mesh) in topics.items()])
    yield Metric("gossipsub_topic_peer_count", "Peers subscribed to our topics", Kind.GAUGE, peers, ("topicStr",))
    yield Metric("gossipsub_mesh_peer_count", "Peers in our meshes", Kind.GAUGE, meshes, ("topicStr",))
    if scores:
        yield gauge("gossipsub_score_avg", "Scores of peers: average", sum(scores) / len(scores))
        yield gauge("gossipsub_score_min", "Scores of peers: worst", min(scores))
        yield gauge("gossipsub_score_max", "Scores of peers: best", max(scores))


def _labelled(name: str, help_text: str, label: str, counts: Mapping[str, int]) -> Metric:
    values: dict[LabelValues, Value] = {(which,): count for which, count in counts.items()}
    return Metric(name, help_text, Kind.COUNTER, values, (label,))
