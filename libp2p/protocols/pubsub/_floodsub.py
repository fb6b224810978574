"""Floodsub: every new message goes to everybody who is subscribed. Pure.

The simplest router there is: right for small networks, where each peer is connected to a few others. Messages take
every link once.

Source: libp2p/specs pubsub.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...abc import ProtocolId
from ...peer_id import PeerId
from ._codec import Message, MessageId, Rpc
from ._router import (
    Action,
    Authenticate,
    Count,
    Deliver,
    Fault,
    Router,
    SeenCache,
    SendMessage,
    TopicTable,
    Validate,
    Verdict,
)

FLOODSUB: ProtocolId = "/floodsub/1.0.0"
"""The protocol id of floodsub."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FloodsubConfig:
    """What floodsub remembers."""

    seen_ttl: float = 120.0
    """Seconds in which a copy of a message is recognized (specs, gossipsub ``seen_ttl``)."""
    seen_capacity: int = 100_000
    """Message ids remembered; about 15 MB when they are 46 bytes long (ours)."""
    topics_per_peer: int = 100
    """Subscriptions of a peer that are kept (rust; case G1)."""
    topic_bytes_per_peer: int = 1024 * 1024
    """Bytes of the topics of a peer that are kept (case G1)."""

    def __post_init__(self) -> None:
        if self.seen_ttl <= 0 or min(self.seen_capacity, self.topics_per_peer, self.topic_bytes_per_peer) < 1:
            raise ValueError("bounds of floodsub must be positive")


@dataclass(slots=True)
class _Pending:
    """A message that is being validated, and who has it already."""

    message: Message
    holders: dict[PeerId, None]


class Floodsub(Router):
    """The router of ``/floodsub/1.0.0``."""

    def __init__(self, config: FloodsubConfig | None = None) -> None:
        self._config = config or FloodsubConfig()
        self._topics = TopicTable(
            topics_per_peer=self._config.topics_per_peer, topic_bytes_per_peer=self._config.topic_bytes_per_peer
        )
        self._seen = SeenCache(ttl=self._config.seen_ttl, capacity=self._config.seen_capacity)
        self._pending: dict[MessageId, _Pending] = {}

    @property
    def protocols(self) -> Sequence[ProtocolId]:
        """Only floodsub."""
        return (FLOODSUB,)

    def peer_joined(
        self, peer: PeerId, protocol: ProtocolId, now: float, *, outbound: bool = False, addresses: Sequence[str] = ()
    ) -> list[Action]:
        """See :class:`Router`."""
        self._topics.add(peer)
        return []

    def peer_left(self, peer: PeerId, now: float) -> list[Action]:
        """See :class:`Router`."""
        return self._topics.remove(peer)

    def receive_rpc(self, peer: PeerId, rpc: Rpc, messages: Sequence[Message], now: float) -> list[Action]:
        """See :class:`Router`."""
        if peer not in self._topics:
            return []
        actions = self._topics.apply(peer, rpc.subscriptions) if rpc.subscriptions else []
        for message in messages:
            pending = self._pending.get(message.id)
            if pending is not None:
                pending.holders[peer] = None
                actions.append(Count("duplicates"))
            elif message.id in self._seen:
                actions.append(Count("duplicates"))
            else:
                actions.append(Authenticate(message))
        return actions

    def knows(self, message: Message) -> bool:
        """See :class:`Router`."""
        return message.id in self._seen

    def authenticated(self, message: Message, now: float) -> list[Action]:
        """See :class:`Router`."""
        self._seen.expire(now)
        if message.id in self._seen:
            return [Count("duplicates")]
        self._seen.add(message.id, now)
        self._pending[message.id] = _Pending(message, {message.received_from: None})
        return [Validate(message)]

    def refused(self, message: Message, fault: Fault, now: float) -> list[Action]:
        """See :class:`Router`. Floodsub keeps no scores."""
        return []

    def validated(self, message_id: MessageId, verdict: Verdict, now: float) -> list[Action]:
        """See :class:`Router`."""
        pending = self._pending.pop(message_id, None)
        if pending is None or verdict is not Verdict.ACCEPT:
            return []
        return [Deliver(pending.message), *self._flood(pending.message, pending.holders)]

    def publish(self, message: Message, now: float) -> list[Action]:
        """See :class:`Router`."""
        self._seen.expire(now)
        if message.id not in self._seen:
            self._seen.add(message.id, now)
        return self._flood(message, {})

    def subscribe(self, topic: str, now: float) -> list[Action]:
        """See :class:`Router`. Nothing is to be done besides telling the peers."""
        return []

    def unsubscribe(self, topic: str, now: float) -> list[Action]:
        """See :class:`Router`."""
        return []

    def peers(self, topic: str | None = None) -> Sequence[PeerId]:
        """See :class:`Router`."""
        return tuple(self._topics.all_peers() if topic is None else self._topics.peers(topic))

    def handle_timeout(self, now: float) -> list[Action]:
        """See :class:`Router`."""
        self._seen.expire(now)
        return []

    def next_timeout(self) -> float | None:
        """See :class:`Router`."""
        return self._seen.next_timeout()

    def _flood(self, message: Message, holders: dict[PeerId, None]) -> list[Action]:
        """FS1: to all subscribers but those who have it: the author, and whoever sent it here."""
        peers = tuple(self._targets(message, holders))
        return [SendMessage(message, peers)] if peers else []

    def _targets(self, message: Message, holders: dict[PeerId, None]) -> list[PeerId]:
        found = self._topics.peers(message.topic)
        return [peer for peer in found if peer not in holders and peer != message.author]
