"""What a pubsub router is, and what all of them need. Pure.

A router decides who gets which message; it never sees a stream, a clock or a signature. Every input returns the list
of what is to be done about it, in order. A message goes through three gates, and the router is told at each of them:

1. ``receive_rpc`` returns :class:`Authenticate` for a message that is not known yet. Nothing is remembered of it: a
   forged copy must not keep the real one out.
2. ``authenticated`` tells that its signature is as the policy wants it. From here on copies of it are duplicates. It
   returns :class:`Validate`; or nothing, when a copy was quicker.
3. ``validated`` brings the application's verdict, and returns what to send and deliver.
"""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ...abc import ProtocolId
from ...peer_id import PeerId
from ._codec import Message, MessageId, Rpc, Subscription
from ._extensions import PartialRpc


class Verdict(enum.Enum):
    """What a validator thinks of a message."""

    ACCEPT = "accept"
    """Deliver and forward it."""
    REJECT = "reject"
    """Drop it; whoever forwarded it should have known better."""
    IGNORE = "ignore"
    """Drop it; nobody is to blame."""


class Fault(enum.Enum):
    """What is wrong with a message, before the application has seen it. The values name counters."""

    SELF_ORIGIN = "self_origin"
    """It says to be ours, and comes from somebody else."""
    MISSING_AUTHOR = "missing_author"
    BAD_SEQNO = "bad_seqno"
    """Missing, empty, or longer than eight bytes. (js leaves out zeros in front.)"""
    MISSING_SIGNATURE = "missing_signature"
    UNEXPECTED_SIGNATURE = "unexpected_signature"
    """The policy has no room for an author, a sequence number, a signature or a key."""
    BAD_KEY = "bad_key"
    """The key does not parse, is missing, or is not the author's."""
    BAD_SIGNATURE = "bad_signature"


@dataclass(slots=True)
class Action:
    """Something the service is to do."""


@dataclass(slots=True)
class Authenticate(Action):
    """Check the signature, then call ``authenticated`` or ``refused``."""

    message: Message


@dataclass(slots=True)
class Validate(Action):
    """Ask the validators, then call ``validated``."""

    message: Message


@dataclass(slots=True)
class SendMessage(Action):
    """Send ``message`` to ``peers``."""

    message: Message
    peers: tuple[PeerId, ...]


@dataclass(slots=True)
class SendControl(Action):
    """Send control entries, encoded, ahead of messages."""

    peer: PeerId
    control: bytes


@dataclass(slots=True)
class SendHello(Action):
    """Send a control entry, encoded, in the first RPC of the stream to ``peer``, which has just been opened."""

    peer: PeerId
    control: bytes


@dataclass(slots=True)
class SendExtension(Action):
    """Send a field of an extension, encoded, in an RPC of its own, behind the messages that wait."""

    peer: PeerId
    field: bytes = field(repr=False)


@dataclass(slots=True)
class SendPrune(Action):
    """Send a PRUNE to ``peer``.

    Attributes:
        backoff: seconds it is to stay away; None where its protocol has no such thing.
        exchange: peers to propose to it, with the signed records that are known of them.
    """

    peer: PeerId
    topic: str
    backoff: float | None
    exchange: tuple[PeerId, ...] = ()


@dataclass(slots=True)
class Unqueue(Action):
    """Of what waits to be sent to ``peer``, drop these messages: it has them."""

    peer: PeerId
    ids: tuple[MessageId, ...]


@dataclass(slots=True)
class Connect(Action):
    """Try to connect to ``peer``.

    Attributes:
        record: a signed peer record somebody sent, not verified; empty for none.
    """

    peer: PeerId
    record: bytes = b""


@dataclass(slots=True)
class Deliver(Action):
    """Give ``message`` to the subscribers on this host."""

    message: Message


@dataclass(slots=True)
class DeliverPartial(Action):
    """Give parts of a message, or what ``peer`` told of its parts, to the application."""

    peer: PeerId
    rpc: PartialRpc


@dataclass(slots=True)
class PeerSubscribed(Action):
    """``peer`` is now among the peers of ``topic``."""

    peer: PeerId
    topic: str


@dataclass(slots=True)
class PeerUnsubscribed(Action):
    """``peer`` no longer is."""

    peer: PeerId
    topic: str


@dataclass(slots=True)
class Count(Action):
    """Something was left out or dropped; ``what`` names the counter."""

    what: str
    by: int = 1


class Router(ABC):
    """Decides who gets which message. Pure: see this module's description.

    ``now`` is in seconds, from a clock that never goes back.
    """

    @property
    @abstractmethod
    def protocols(self) -> Sequence[ProtocolId]:
        """The protocol ids it speaks, best first."""

    @abstractmethod
    def peer_joined(
        self, peer: PeerId, protocol: ProtocolId, now: float, *, outbound: bool = False, addresses: Sequence[str] = ()
    ) -> list[Action]:
        """``peer`` can be reached with ``protocol``.

        May come again, with another protocol perhaps: then what was sent before and has not arrived is lost.

        Args:
            outbound: whether it was dialled from here.
            addresses: IP addresses it is connected from.
        """

    def peer_began(self, peer: PeerId) -> None:
        """``peer``, which has joined, opened a stream: the next RPC is the first on it."""
        return

    @abstractmethod
    def peer_left(self, peer: PeerId, now: float) -> list[Action]:
        """``peer`` is gone."""

    @abstractmethod
    def receive_rpc(self, peer: PeerId, rpc: Rpc, messages: Sequence[Message], now: float) -> list[Action]:
        """``peer`` sent ``rpc``. Of a peer that has not joined, or has left, it is ignored.

        Args:
            messages: those of ``rpc.publish`` that parse and belong to topics this host is subscribed to.

        Raises:
            RemoteProtocolError: the peer broke the rules; its stream is reset.
        """

    @abstractmethod
    def knows(self, message: Message) -> bool:
        """Whether a copy of ``message`` was authenticated already, so that its own signature does not matter."""

    @abstractmethod
    def authenticated(self, message: Message, now: float) -> list[Action]:
        """``message`` is signed as it should be, or known."""

    @abstractmethod
    def refused(self, message: Message, fault: Fault, now: float) -> list[Action]:
        """``message`` is not."""

    @abstractmethod
    def validated(self, message_id: MessageId, verdict: Verdict, now: float) -> list[Action]:
        """The application has looked at a message that was to be validated."""

    @abstractmethod
    def publish(self, message: Message, now: float) -> list[Action]:
        """This host publishes ``message``; whether or not it is subscribed to the topic."""

    @abstractmethod
    def subscribe(self, topic: str, now: float) -> list[Action]:
        """This host wants the messages of ``topic``. The service tells the peers."""

    @abstractmethod
    def unsubscribe(self, topic: str, now: float) -> list[Action]:
        """This host no longer does."""

    @abstractmethod
    def peers(self, topic: str | None = None) -> Sequence[PeerId]:
        """The peers that are subscribed to ``topic``, or all that have joined."""

    def subscription(self, topic: str) -> Subscription:
        """What the peers are told when this host subscribes to ``topic``."""
        return Subscription(topic, True)

    def mesh(self, topic: str) -> Sequence[PeerId]:
        """The peers that messages of ``topic`` are forwarded to at once; none for routers without a mesh."""
        return ()

    def scores(self, now: float) -> Mapping[PeerId, float]:
        """What peers are worth; empty for routers that keep no scores."""
        return {}

    @abstractmethod
    def handle_timeout(self, now: float) -> list[Action]:
        """The time of ``next_timeout`` has come."""

    @abstractmethod
    def next_timeout(self) -> float | None:
        """When to call ``handle_timeout``; None for never."""


class TopicTable:
    """Which peer is subscribed to what, within bounds.

    Args:
        topics_per_peer: subscriptions of one peer that are kept; more are left out and counted.
        topic_bytes_per_peer: the same, in bytes of topic names.
    """

    __slots__ = ("_by_peer", "_by_topic", "_bytes", "_max_bytes", "_max_topics")

    def __init__(self, *, topics_per_peer: int, topic_bytes_per_peer: int) -> None:
        self._max_topics = topics_per_peer
        self._max_bytes = topic_bytes_per_peer
        # Dicts instead of sets: their order does not depend on hashes.
        self._by_peer: dict[PeerId, dict[str, None]] = {}
        self._by_topic: dict[str, dict[PeerId, None]] = {}
        self._bytes: dict[PeerId, int] = {}

    def __contains__(self, peer: PeerId) -> bool:
        """Whether ``peer`` has joined."""
        return peer in self._by_peer

    def add(self, peer: PeerId) -> None:
        """``peer`` has joined, without subscriptions so far. Harmless when it had already."""
        if peer not in self._by_peer:
            self._by_peer[peer] = {}
            self._bytes[peer] = 0

    def remove(self, peer: PeerId) -> list[Action]:
        """``peer`` has left."""
        topics = self._by_peer.get(peer, {})
        actions: list[Action] = [action for topic in tuple(topics) if (action := self._leave(peer, topic))]
        self._by_peer.pop(peer, None)
        self._bytes.pop(peer, None)
        return actions

    def apply(self, peer: PeerId, changes: Iterable[Subscription]) -> list[Action]:
        """Take in what ``peer``, which has joined, announces. Of several changes to a topic only the last counts."""
        wanted = {change.topic: change.subscribe for change in changes}
        actions: list[Action] = []
        left_out = 0
        # First what makes room.
        for topic, subscribe in sorted(wanted.items(), key=lambda item: item[1]):
            if not subscribe:
                action: Action | None = self._leave(peer, topic)
            elif topic in self._by_peer[peer]:
                action = None
            elif self._has_room(peer, topic):
                action = self._join(peer, topic)
            else:
                action = None
                left_out += 1
            if action is not None:
                actions.append(action)
        if left_out:
            actions.append(Count("subscriptions_left_out", left_out))
        return actions

    def peers(self, topic: str) -> Iterable[PeerId]:
        """Those subscribed to ``topic``, in the order they came."""
        return self._by_topic.get(topic, ())

    def all_peers(self) -> Iterable[PeerId]:
        """Everybody who has joined."""
        return self._by_peer

    def _has_room(self, peer: PeerId, topic: str) -> bool:
        held = self._by_peer[peer]
        return len(held) < self._max_topics and self._bytes[peer] + len(topic.encode()) <= self._max_bytes

    def _join(self, peer: PeerId, topic: str) -> PeerSubscribed:
        self._by_peer[peer][topic] = None
        self._by_topic.setdefault(topic, {})[peer] = None
        self._bytes[peer] += len(topic.encode())
        return PeerSubscribed(peer, topic)

    def _leave(self, peer: PeerId, topic: str) -> PeerUnsubscribed | None:
        if topic not in self._by_peer[peer]:
            return None
        del self._by_peer[peer][topic]
        self._bytes[peer] -= len(topic.encode())
        subscribers = self._by_topic[topic]
        del subscribers[peer]
        if not subscribers:
            del self._by_topic[topic]
        return PeerUnsubscribed(peer, topic)


class SeenCache:
    """The ids of messages seen in the last while; when there are too many, the oldest are forgotten early.

    Attributes:
        evicted: how many were forgotten before their time. Copies of those messages would be taken for new ones.
    """

    __slots__ = ("_capacity", "_ids", "_order", "_ttl", "evicted")

    def __init__(self, *, ttl: float, capacity: int) -> None:
        self._ttl = ttl
        self._capacity = capacity
        self._ids: set[MessageId] = set()
        self._order: deque[tuple[float, MessageId]] = deque()
        self.evicted = 0

    def __contains__(self, message_id: MessageId) -> bool:
        return message_id in self._ids

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, message_id: MessageId, now: float) -> None:
        """Remember an id that is not remembered."""
        self._ids.add(message_id)
        self._order.append((now + self._ttl, message_id))
        if len(self._order) > self._capacity:
            self._ids.discard(self._order.popleft()[1])
            self.evicted += 1

    def expire(self, now: float) -> None:
        """Forget those whose time has come."""
        while self._order and self._order[0][0] <= now:
            self._ids.discard(self._order.popleft()[1])

    def next_timeout(self) -> float | None:
        """When there is something to forget, and it is worth the while: many end together."""
        return self._order[-1][0] if self._order else None
