"""What peers are scored for, and what follows from a score. Pure.

Parameters are checked when they are made: a wrong sign turns a penalty into a reward, and some combinations let a peer
that never forwards anything stay in good standing (case G9).

Source: libp2p/specs gossipsub v1.1, "Peer Scoring".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from types import MappingProxyType
from typing import TYPE_CHECKING

from ...peer_id import PeerId

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def _nobody(peer: PeerId) -> float:
    return 0.0


def _check_numbers(params: DataclassInstance) -> None:
    """NaN and infinity compare strangely and would spread: refuse them everywhere."""
    for item in fields(params):
        value = getattr(params, item.name)
        if isinstance(value, int | float) and not math.isfinite(value):
            raise ValueError(f"{item.name} must be finite, not {value}")


def _require(condition: bool, text: str) -> None:
    if not condition:
        raise ValueError(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicScore:
    """How the behaviour of a peer in one topic counts. Decays are factors for each ``decay_interval``.

    The defaults reward first deliveries and punish invalid messages. What is due of a mesh member (P3) depends on the
    topic's traffic, so it is off until it is set.
    """

    weight: float = 1.0
    """Of the topic among others."""
    time_in_mesh_weight: float = 0.0
    """P1, for each quantum in the mesh; not negative."""
    time_in_mesh_quantum: float = 1.0
    """Seconds."""
    time_in_mesh_cap: float = 300.0
    """Most quanta that count."""
    first_deliveries_weight: float = 1.0
    """P2, for each valid message brought first; not negative."""
    first_deliveries_decay: float = 0.98
    first_deliveries_cap: float = 30.0
    mesh_deliveries_weight: float = 0.0
    """P3, for the square of what is missing to the threshold; not positive. Zero switches P3 off."""
    mesh_deliveries_decay: float = 0.97
    mesh_deliveries_cap: float = 100.0
    mesh_deliveries_threshold: float = 10.0
    mesh_deliveries_window: float = 0.01
    """Seconds after the first copy in which another one still counts: a peer must not profit from copies of ours."""
    mesh_deliveries_activation: float = 30.0
    """Seconds in the mesh before deliveries are due."""
    mesh_failure_weight: float = 0.0
    """P3b, for what was missing when a peer left the mesh; not positive."""
    mesh_failure_decay: float = 0.98
    invalid_messages_weight: float = -10.0
    """P4, for the square of the number of invalid messages; not positive."""
    invalid_messages_decay: float = 0.99

    def __post_init__(self) -> None:
        _check_numbers(self)
        _require(self.weight >= 0, "a topic's weight must not be negative")
        rewards = (self.time_in_mesh_weight, self.first_deliveries_weight)
        _require(min(rewards) >= 0, "weights of P1 and P2 must not be negative")
        penalties = (self.mesh_deliveries_weight, self.mesh_failure_weight, self.invalid_messages_weight)
        _require(max(penalties) <= 0, "weights of P3, P3b and P4 must not be positive")
        decays = (
            self.first_deliveries_decay,
            self.mesh_deliveries_decay,
            self.mesh_failure_decay,
            self.invalid_messages_decay,
        )
        _require(all(0 < decay < 1 for decay in decays), "decays must be between 0 and 1")
        _require(self.time_in_mesh_quantum > 0, "the quantum of P1 must be positive")
        caps = (self.time_in_mesh_cap, self.first_deliveries_cap, self.mesh_deliveries_cap)
        _require(min(caps) > 0, "caps must be positive")
        _require(self.mesh_deliveries_threshold > 0, "the threshold of P3 must be positive")
        _require(self.mesh_deliveries_threshold <= self.mesh_deliveries_cap, "P3 can not be met: threshold above cap")
        _require(self.mesh_deliveries_window >= 0, "the window of P3 must not be negative")
        _require(self.mesh_deliveries_activation >= 0, "the activation of P3 must not be negative")

    @property
    def highest_p1(self) -> float:
        """What the topic can give a peer for nothing but being there."""
        return self.weight * self.time_in_mesh_weight * self.time_in_mesh_cap

    @property
    def full_p3(self) -> float:
        """What it takes from a peer in the mesh that delivers nothing."""
        return -self.weight * self.mesh_deliveries_weight * self.mesh_deliveries_threshold**2


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerScoreConfig:
    """How peers are scored."""

    topics: Mapping[str, TopicScore] = field(default_factory=lambda: MappingProxyType({}))
    """Parameters of single topics."""
    default_topic: TopicScore | None = field(default_factory=TopicScore)
    """Those of all others; None to leave them out of the score."""
    topic_cap: float = 100.0
    """The most that topics together can give; 0 for no cap."""
    app_score: Callable[[PeerId], float] = _nobody
    """P5: what the application thinks of a peer. Must be quick, and must not raise."""
    app_weight: float = 1.0
    colocation_weight: float = -5.0
    """P6, for the square of the peers on one IP address (one /64 network of IPv6) beyond the threshold."""
    colocation_threshold: int = 10
    colocation_exempt: tuple[str, ...] = ("127.0.0.0/8", "::1/128")
    """Networks in which peers may share an address."""
    behaviour_weight: float = -10.0
    """P7, for the square of the misdeeds beyond the threshold."""
    behaviour_threshold: float = 1.0
    behaviour_decay: float = 0.98
    decay_interval: float = 1.0
    """Seconds."""
    decay_to_zero: float = 0.01
    """Counters below this are zero."""
    retain: float = 3600.0
    """Seconds that a bad score is remembered when a peer has left."""
    retained_peers: int = 10_000
    """Peers that have left and are remembered; more, and the first to be forgotten goes early."""
    window: float = 120.0
    """Seconds that deliveries of a message are told apart."""
    messages: int = 20_000
    """Messages whose deliveries are; more, and the oldest goes early."""

    def __post_init__(self) -> None:
        _check_numbers(self)
        _require(self.topic_cap >= 0, "topic_cap must not be negative")
        _require(self.app_weight >= 0, "the weight of P5 must not be negative")
        _require(max(self.colocation_weight, self.behaviour_weight) <= 0, "weights of P6, P7 must not be positive")
        _require(self.colocation_threshold >= 1, "the threshold of P6 must be at least 1")
        _require(self.behaviour_threshold >= 0, "the threshold of P7 must not be negative")
        _require(0 < self.behaviour_decay < 1, "decays must be between 0 and 1")
        _require(0 < self.decay_to_zero < 1, "decay_to_zero must be between 0 and 1")
        _require(self.decay_interval > 0, "decay_interval must be positive")
        _require(self.retain >= 0 and self.window > 0, "times must be positive")
        _require(min(self.retained_peers, self.messages) >= 1, "bounds of scores must be positive")
        self._refuse_freeloaders()

    def _refuse_freeloaders(self) -> None:
        """Being in many meshes must not make up for delivering nothing in one (CVE-2022-47547)."""
        known = [*self.topics.values(), *([self.default_topic] if self.default_topic else [])]
        if self.default_topic is not None:
            _require(
                not self.default_topic.highest_p1, "P1 for any topic whatever would have no bound: name the topics"
            )
        reward = sum(topic.highest_p1 for topic in known)
        for topic in known:
            if topic.mesh_deliveries_weight and topic.weight and topic.full_p3 <= reward:
                raise ValueError(
                    f"a peer that delivers nothing loses {topic.full_p3:g} by P3 and gets {reward:g} by P1"
                )

    def topic(self, topic: str) -> TopicScore | None:
        """The parameters for ``topic``; None when it does not count."""
        return self.topics.get(topic, self.default_topic)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreThresholds:
    """What follows from a score (js)."""

    gossip: float = -10.0
    """Below it nothing is told to a peer, or believed, about messages."""
    publish: float = -50.0
    """Below it a peer does not get our own messages, unless it is in the mesh."""
    graylist: float = -80.0
    """Below it all it sends is ignored."""
    accept_exchange: float = 10.0
    """From here on it may propose other peers."""
    opportunistic: float = 5.0
    """A mesh whose median is below this looks for better peers."""

    def __post_init__(self) -> None:
        _check_numbers(self)
        _require(self.gossip < 0, "the gossip threshold must be negative")
        _require(self.publish <= self.gossip, "the publish threshold must not be above the gossip threshold")
        _require(self.graylist < self.publish, "the graylist threshold must be below the publish threshold")
        _require(self.accept_exchange >= 0, "the threshold to accept peers must not be negative")
        _require(self.opportunistic >= 0, "the threshold of opportunistic grafting must not be negative")
