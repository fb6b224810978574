"""Scores of peers: what each did in each topic, and what that is worth. Pure.

Seven counters make up a score: P1 time in the mesh, P2 messages brought first, P3 messages a mesh member owes, P3b what
it owed when it left, P4 invalid messages, P5 what the application says, P6 peers on one address, P7 broken rules.
Counters decay. A message's copies are told apart until some time after it came, because only validation shows whether
bringing it was good or bad.

Source: libp2p/specs gossipsub v1.1, "Peer Scoring".
"""

from __future__ import annotations

import enum
import ipaddress
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from ..._util.bounded import ExpiringMap
from ...peer_id import PeerId
from ._codec import Message, MessageId
from ._score_config import PeerScoreConfig, TopicScore


@dataclass(slots=True)
class _InTopic:
    """What a peer did in one topic."""

    params: TopicScore
    """How that counts."""
    grafted: float | None = None
    """When it came into the mesh; None when it is not there."""
    is_due: bool = False
    """Whether it has been there long enough to owe messages."""
    first: float = 0.0
    in_mesh: float = 0.0
    failures: float = 0.0
    invalid: float = 0.0


@dataclass(slots=True)
class _Record:
    topics: dict[str, _InTopic] = field(default_factory=dict[str, _InTopic])
    addresses: tuple[str, ...] = ()
    misdeeds: float = 0.0


class _State(enum.Enum):
    """What is known about a message: nothing until it is validated, then one of the others for ever."""

    UNKNOWN = enum.auto()
    VALID = enum.auto()
    INVALID = enum.auto()
    IGNORED = enum.auto()


@dataclass(slots=True)
class _Delivery:
    """Who brought a message. Copies that come before it is validated wait here for the verdict."""

    state: _State = _State.UNKNOWN
    validated: float = 0.0
    peers: dict[PeerId, None] = field(default_factory=dict[PeerId, None])


class PeerScores:
    """The scores of all peers. A peer that nothing is known about has zero."""

    __slots__ = ("_addresses", "_config", "_deliveries", "_exempt", "_next_decay", "_order", "_records", "_retained")

    def __init__(self, config: PeerScoreConfig) -> None:
        self._config = config
        self._exempt = tuple([ipaddress.ip_network(network) for network in config.colocation_exempt])
        self._records: dict[PeerId, _Record] = {}
        self._retained: ExpiringMap[PeerId, _Record] = ExpiringMap(config.retained_peers)
        # Peers by IP address or network.
        self._addresses: dict[str, dict[PeerId, None]] = {}
        self._deliveries: dict[MessageId, _Delivery] = {}
        self._order: deque[tuple[float, MessageId]] = deque()
        self._next_decay: float | None = None

    # --- peers

    def add(self, peer: PeerId, addresses: Iterable[str], now: float) -> None:
        """``peer`` is connected, from these IP addresses. What is remembered of it counts again."""
        record = self._records.get(peer)
        if record is None:
            record = self._records[peer] = self._retained.get(peer, now) or _Record()
            self._retained.pop(peer)
        self._leave_addresses(peer, record)
        record.addresses = tuple(dict.fromkeys(self._groups(addresses)))
        for address in record.addresses:
            self._addresses.setdefault(address, {})[peer] = None

    def remove(self, peer: PeerId, now: float) -> None:
        """``peer`` is gone. A good score is forgotten, a bad one kept: leaving must not clean it."""
        record = self._records.get(peer)
        if record is None:
            return
        for topic in tuple(record.topics):
            self.prune(peer, topic, now)
        bad = self.score(peer, now) < 0
        self._leave_addresses(peer, record)
        record.addresses = ()
        del self._records[peer]
        if bad and self._config.retain:
            for counters in record.topics.values():
                counters.first = 0.0
            self._retained.put(peer, record, expires=now + self._config.retain)

    def _groups(self, addresses: Iterable[str]) -> Iterator[str]:
        """What counts as one address; names, which are no addresses, do not count."""
        for text in addresses:
            try:
                address = ipaddress.ip_address(text.partition("%")[0])
            except ValueError:
                continue
            if not any(address in network for network in self._exempt):
                yield str(address) if address.version == 4 else str(ipaddress.ip_network((address, 64), strict=False))

    def _leave_addresses(self, peer: PeerId, record: _Record) -> None:
        for address in record.addresses:
            peers = self._addresses[address]
            del peers[peer]
            if not peers:
                del self._addresses[address]

    # --- the score

    def score(self, peer: PeerId, now: float) -> float:
        """What ``peer`` is worth now."""
        config = self._config
        record = self._records.get(peer)
        if record is None:
            return 0.0
        total = 0.0
        for counters in record.topics.values():
            total += _topic_score(counters, now)
        if config.topic_cap and total > config.topic_cap:
            total = config.topic_cap
        total += config.app_weight * config.app_score(peer)
        for address in record.addresses:
            excess = len(self._addresses[address]) - config.colocation_threshold
            if excess > 0:
                total += config.colocation_weight * excess * excess
        misdeeds = record.misdeeds - config.behaviour_threshold
        if misdeeds > 0:
            total += config.behaviour_weight * misdeeds * misdeeds
        return total

    def scores(self, now: float) -> dict[PeerId, float]:
        """The scores of all connected peers."""
        return {peer: self.score(peer, now) for peer in self._records}

    def penalize(self, peer: PeerId, count: int = 1) -> None:
        """P7: ``peer`` has broken ``count`` rules."""
        record = self._records.get(peer)
        if record is not None:
            record.misdeeds += count

    # --- the mesh

    def graft(self, peer: PeerId, topic: str, now: float) -> None:
        """``peer`` is in the mesh of ``topic`` from now on."""
        counters = self._counters(peer, topic)
        if counters is not None:
            counters.grafted = now
            counters.is_due = False

    def prune(self, peer: PeerId, topic: str, now: float) -> None:
        """``peer`` no longer is. What it owed is held against it."""
        record = self._records.get(peer)
        counters = None if record is None else record.topics.get(topic)
        if counters is None or counters.grafted is None:
            return
        if _is_due(counters, now):
            counters.failures += max(0.0, counters.params.mesh_deliveries_threshold - counters.in_mesh) ** 2
        counters.grafted = None
        counters.is_due = False

    # --- messages

    def arrived(self, message: Message, now: float) -> None:
        """The first copy of a message came, and is being validated."""
        self._delivery(message.id, now)

    def duplicate(self, peer: PeerId, message: Message, now: float) -> None:
        """Another copy came, from ``peer``."""
        delivery = self._deliveries.get(message.id) or self._delivery(message.id, now)
        state, peers = delivery.state, delivery.peers
        if state is _State.INVALID:
            self._count_invalid(peer, message.topic)
        elif state is not _State.IGNORED:
            count = len(peers)
            peers[peer] = None
            if state is _State.VALID and len(peers) > count:
                self._count_mesh(peer, message.topic, now - delivery.validated)

    def delivered(self, message: Message, now: float) -> None:
        """A message was found valid: P2 for who brought it, P3 for all who brought it meanwhile."""
        delivery = self._delivery(message.id, now)
        if delivery.state is not _State.UNKNOWN:
            return
        delivery.state = _State.VALID
        delivery.validated = now
        first = message.received_from
        self._count_first(first, message.topic)
        for peer in delivery.peers:
            if peer != first:
                self._count_mesh(peer, message.topic, 0.0)
        delivery.peers[first] = None

    def rejected(self, message: Message, now: float) -> None:
        """It was found invalid: P4 for all who brought it."""
        delivery = self._delivery(message.id, now)
        if delivery.state is not _State.UNKNOWN:
            return
        delivery.state = _State.INVALID
        self._count_invalid(message.received_from, message.topic)
        for peer in delivery.peers:
            if peer != message.received_from:
                self._count_invalid(peer, message.topic)
        delivery.peers.clear()

    def ignored(self, message: Message, now: float) -> None:
        """It was found neither: nobody is to blame or to praise."""
        delivery = self._delivery(message.id, now)
        if delivery.state is _State.UNKNOWN:
            delivery.state = _State.IGNORED
            delivery.peers.clear()

    def forged(self, peer: PeerId, topic: str) -> None:
        """``peer`` sent a message whose signature is wrong: P4 for it alone, whatever the message claims to be."""
        self._count_invalid(peer, topic)

    def useful(self, peer: PeerId, topic: str) -> None:
        """``peer`` sent parts of a message that were of use: P2 and P3, as for a message brought first."""
        self._count_first(peer, topic)

    def _delivery(self, message_id: MessageId, now: float) -> _Delivery:
        delivery = self._deliveries.get(message_id)
        if delivery is None:
            delivery = self._deliveries[message_id] = _Delivery()
            self._order.append((now + self._config.window, message_id))
            if len(self._order) > self._config.messages:
                del self._deliveries[self._order.popleft()[1]]
        return delivery

    def _count_first(self, peer: PeerId, topic: str) -> None:
        counters = self._counters(peer, topic)
        if counters is None:
            return
        counters.first = min(counters.first + 1, counters.params.first_deliveries_cap)
        if counters.grafted is not None:
            counters.in_mesh = min(counters.in_mesh + 1, counters.params.mesh_deliveries_cap)

    def _count_mesh(self, peer: PeerId, topic: str, late: float) -> None:
        """P3, for a copy that came ``late`` seconds after the message was validated."""
        counters = self._counters(peer, topic)
        if counters is None or counters.grafted is None or late > counters.params.mesh_deliveries_window:
            return
        counters.in_mesh = min(counters.in_mesh + 1, counters.params.mesh_deliveries_cap)

    def _count_invalid(self, peer: PeerId, topic: str) -> None:
        counters = self._counters(peer, topic)
        if counters is not None:
            counters.invalid += 1

    def _counters(self, peer: PeerId, topic: str) -> _InTopic | None:
        """The counters of ``peer`` in ``topic``. None when the peer or the topic does not count."""
        record = self._records.get(peer)
        if record is None:
            return None
        counters = record.topics.get(topic)
        if counters is None and (params := self._config.topic(topic)) is not None:
            counters = record.topics[topic] = _InTopic(params)
        return counters

    # --- time

    def refresh(self, now: float) -> None:
        """Let counters decay as often as is due, and forget what is over."""
        config = self._config
        if self._next_decay is None:
            self._next_decay = now + config.decay_interval
        while self._next_decay <= now:
            self._next_decay += config.decay_interval
            for record in self._records.values():
                self._decay(record, now)
            for peer in self._retained:
                retained = self._retained.get(peer, now)
                if retained is not None:
                    self._decay(retained, now)
        self._retained.expire(now)
        while self._order and self._order[0][0] <= now:
            del self._deliveries[self._order.popleft()[1]]

    def _decay(self, record: _Record, now: float) -> None:
        config = self._config
        zero = config.decay_to_zero
        record.misdeeds = _decayed(record.misdeeds, config.behaviour_decay, zero)
        for topic, counters in tuple(record.topics.items()):
            params = counters.params
            counters.first = _decayed(counters.first, params.first_deliveries_decay, zero)
            counters.in_mesh = _decayed(counters.in_mesh, params.mesh_deliveries_decay, zero)
            counters.failures = _decayed(counters.failures, params.mesh_failure_decay, zero)
            counters.invalid = _decayed(counters.invalid, params.invalid_messages_decay, zero)
            counters.is_due = _is_due(counters, now)
            if counters.grafted is None and not (counters.first or counters.failures or counters.invalid):
                del record.topics[topic]


def _decayed(value: float, factor: float, zero: float) -> float:
    value *= factor
    return value if value >= zero else 0.0


def _is_due(counters: _InTopic, now: float) -> bool:
    if counters.grafted is None or not counters.params.mesh_deliveries_weight:
        return False
    return counters.is_due or now - counters.grafted > counters.params.mesh_deliveries_activation


def _topic_score(counters: _InTopic, now: float) -> float:
    params = counters.params
    total = params.first_deliveries_weight * counters.first
    if counters.grafted is not None:
        quanta = (now - counters.grafted) // params.time_in_mesh_quantum
        total += params.time_in_mesh_weight * min(quanta, params.time_in_mesh_cap)
        if counters.is_due and counters.in_mesh < params.mesh_deliveries_threshold:
            deficit = params.mesh_deliveries_threshold - counters.in_mesh
            total += params.mesh_deliveries_weight * deficit * deficit
    total += params.mesh_failure_weight * counters.failures
    total += params.invalid_messages_weight * counters.invalid * counters.invalid
    return params.weight * total
