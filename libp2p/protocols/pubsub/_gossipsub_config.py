"""The parameters of gossipsub. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from ...peer_id import PeerId
from ._partial import PartialConfig
from ._score_config import PeerScoreConfig, ScoreThresholds


@dataclass(frozen=True, slots=True, kw_only=True)
class GossipsubConfig:
    """How gossipsub behaves, and what it remembers. Defaults of the specification, unless another source is named."""

    degree: int = 6
    """Peers in the mesh of a topic (D)."""
    degree_low: int = 5
    """With fewer, peers are grafted (D_lo; go, rust)."""
    degree_high: int = 12
    """With more, peers are pruned (D_hi)."""
    degree_score: int = 4
    """Peers that stay for their score when a mesh is pruned (D_score)."""
    degree_outbound: int = 2
    """Peers of a mesh that were dialled from here, at least (D_out)."""
    degree_lazy: int = 6
    """Peers outside of the mesh that are told which messages there are, at least (D_lazy)."""
    gossip_factor: float = 0.25
    """Share of them that is told, if that is more."""
    heartbeat: float = 1.0
    """Seconds between two heartbeats."""
    first_heartbeat: float = 0.1
    """Seconds from the first peer to the first heartbeat (go, js)."""
    history: int = 5
    """Heartbeats that a message can be asked for (``mcache_len``)."""
    history_gossip: int = 3
    """Heartbeats that others are told about it (``mcache_gossip``)."""
    cache_messages: int = 10_000
    """Messages kept for that; more, and the oldest goes early (ours)."""
    cache_bytes: int = 64 * 1024 * 1024
    """The same in bytes (ours)."""
    seen_ttl: float = 120.0
    """Seconds in which a copy of a message is recognized."""
    seen_capacity: int = 100_000
    """Message ids remembered for that (ours)."""
    topics_per_peer: int = 100
    """Subscriptions of a peer that are kept (rust; case G1)."""
    topic_bytes_per_peer: int = 1024 * 1024
    """Bytes of the topics of a peer that are kept (case G1)."""
    fanout_ttl: float = 60.0
    """Seconds after the last message that the peers to publish to, without being subscribed, are kept."""
    fanout_topics: int = 1000
    """Topics published to without being subscribed that peers are kept for; of more, the first to end is forgotten
    (ours)."""
    flood_publish: bool = True
    """Send our own messages to all peers of the topic, not only to the mesh."""
    prune_backoff: float = 60.0
    """Seconds between two grafts of a peer."""
    unsubscribe_backoff: float = 10.0
    """The same after leaving the topic."""
    backoff_slack: float = 2.0
    """Seconds waited on top, because clocks and the way to the peer are not exact (go: two heartbeats)."""
    backoff_entries: int = 50_000
    """Pairs of peer and topic that are remembered as backed off (ours)."""
    graft_flood: float = 10.0
    """Seconds after a PRUNE in which a GRAFT counts twice as a misdeed."""
    exchange: bool = False
    """Propose other peers to those that are pruned. For bootstrap nodes."""
    exchange_peers: int = 16
    """How many are proposed."""
    opportunistic_beats: int = 60
    """Heartbeats between two looks for better peers."""
    opportunistic_peers: int = 2
    """How many are grafted then."""
    direct_peers: tuple[PeerId, ...] = ()
    """Peers that always get all messages, and whose messages are always taken; never in a mesh. Both sides need to
    have each other here."""
    direct_beats: int = 300
    """Heartbeats between two attempts to connect to those that are missing."""
    ihave_messages: int = 10
    """RPCs with IHAVEs taken from a peer between two heartbeats (go)."""
    ihave_ids: int = 5000
    """Messages asked of a peer between two heartbeats, and told to one about a topic (go)."""
    promise: float = 3.0
    """Seconds a peer has to send what it said to have (go)."""
    retransmissions: int = 3
    """How often a peer may ask for the same message."""
    idontwant_size: int = 1024
    """Bytes from which on peers are told not to send another copy (go)."""
    idontwant_messages: int = 1000
    """IDONTWANTs taken from a peer between two heartbeats (go)."""
    idontwant_ids: int = 10
    """Ids taken from each (go)."""
    idontwant_beats: int = 3
    """Heartbeats that an IDONTWANT holds (go)."""
    partial: PartialConfig = field(default_factory=PartialConfig)
    """What is remembered of messages in parts."""
    test_extension: bool = False
    """Take part in the extension that only shows that extensions work."""
    score: PeerScoreConfig = field(default_factory=PeerScoreConfig)
    """How peers are scored."""
    thresholds: ScoreThresholds = field(default_factory=ScoreThresholds)
    """What follows from it."""

    def __post_init__(self) -> None:
        if not 0 < self.degree_low <= self.degree <= self.degree_high:
            raise ValueError("the degrees of a mesh must be positive and in order: low, degree, high")
        if not 0 <= self.degree_score <= self.degree or self.degree_lazy < 0:
            raise ValueError("degree_score must be within the degree, and degree_lazy not negative")
        if not (0 <= self.degree_outbound < self.degree_low and self.degree_outbound <= self.degree // 2):
            raise ValueError("degree_outbound must be below degree_low, and at most half of the degree")
        if not 0 <= self.gossip_factor <= 1:
            raise ValueError("gossip_factor is a share, from 0 to 1")
        if not 0 < self.history_gossip <= self.history:
            raise ValueError("what is told must be kept: history_gossip from 1 to history")
        times = (self.heartbeat, self.first_heartbeat, self.seen_ttl, self.fanout_ttl, self.promise)
        if min(*times, self.prune_backoff, self.unsubscribe_backoff) <= 0 or min(self._not_negative()) < 0:
            raise ValueError("times of gossipsub must be positive")
        if min(self._counts()) < 1:
            raise ValueError("bounds of gossipsub must be positive")

    def _not_negative(self) -> tuple[float, ...]:
        return (self.backoff_slack, self.graft_flood, self.idontwant_size)

    def _counts(self) -> tuple[int, ...]:
        remembered = (self.cache_messages, self.cache_bytes, self.seen_capacity, self.fanout_topics)
        of_peers = (self.topics_per_peer, self.topic_bytes_per_peer, self.backoff_entries, self.exchange_peers)
        asked = (self.ihave_messages, self.ihave_ids, self.retransmissions)
        unwanted = (self.idontwant_messages, self.idontwant_ids, self.idontwant_beats)
        beats = (self.opportunistic_beats, self.opportunistic_peers, self.direct_beats)
        return (*remembered, *of_peers, *asked, *unwanted, *beats)
