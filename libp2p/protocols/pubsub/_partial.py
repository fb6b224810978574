"""Messages in parts: who has which, who is to get which. Pure.

Theory of operation. The parts of one message have a *group* in common, an id that is known before the message is. What
a part is, and how parts and *metadata* (what somebody has and wants) are encoded, is the application's; its object for
a message, a :class:`PartialMessage`, is asked. Remembered here is what each peer has told and was told of a group, so
that nothing is sent twice, and who tells what it has is answered at once. A group is forgotten some heartbeats after
the application published it last. One that a peer speaks of first is remembered only to be answered once it is
published here, and there are few of these for each peer.

Who asks for parts of a topic gets no whole messages of it from those that send parts, and no IHAVE.

Source: libp2p/specs gossipsub, partial messages extension; limits as in go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ...errors import DecodeError
from ...peer_id import PeerId
from ._codec import Subscription
from ._extensions import PartialRpc, encode_partial
from ._router import Action, Count, DeliverPartial, SendExtension


@dataclass(frozen=True, slots=True)
class Parts:
    """Parts of a message for one peer.

    Attributes:
        data: the parts, as they go to the peer.
        metadata: what the peer has and wants when it has got them, so that it does not get them again.
    """

    data: bytes = field(repr=False)
    metadata: bytes = field(repr=False)


class PartialMessage(Protocol):
    """A message in parts, as this host has it: the application's object. Asked often; must be quick.

    When its methods fail otherwise than said here, peers get nothing and the host logs a bug.
    """

    @property
    def group(self) -> bytes:
        """What all parts of this message have in common, for everybody; at most 256 bytes, and not empty."""
        ...

    def metadata(self) -> bytes:
        """What this host has and wants. Peers are told when it differs from what they were told."""
        ...

    def parts_for(self, metadata: bytes | None) -> Parts | None:
        """The parts for a peer that told ``metadata``; None when there are none that it lacks.

        Args:
            metadata: what it has and wants; None when it has not told, and parts would be pushed unasked.

        Raises:
            DecodeError: it is malformed. That counts as an invalid message of the peer.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PartialConfig:
    """What is remembered of messages in parts."""

    group_beats: int = 5
    """Heartbeats that a group is remembered: ours after it was last published, others' from the start (rust)."""
    groups: int = 255
    """Groups of each topic that this host published; of more, the oldest is forgotten (ours)."""
    groups_of_peers: int = 255
    """Groups of each topic that peers spoke of first; more are not answered (go)."""
    groups_of_peer: int = 8
    """Of these, those of one peer (go)."""
    metadata_size: int = 4096
    """Bytes of metadata kept for one peer and group; what is longer is ignored (ours)."""
    answers: int = 64
    """Times that one peer is answered about one group (ours)."""

    def __post_init__(self) -> None:
        groups = (self.groups, self.groups_of_peers, self.groups_of_peer)
        if self.group_beats < 3 or min(*groups, self.metadata_size, self.answers) < 1:
            raise ValueError("bounds of messages in parts must be positive, and a group be kept for three heartbeats")


_GROUP_SIZE = 256
"""Bytes of a group's id (ours)."""


@dataclass(slots=True)
class _Known:
    """What one peer and this host know of each other's parts.

    Attributes:
        theirs: what the peer told, and what was sent since; None when it told nothing.
        told: what the peer was told.
        answers: how often it was answered.
    """

    theirs: bytes | None = None
    told: bytes | None = None
    answers: int = 0


@dataclass(slots=True)
class _Group:
    """One message.

    Attributes:
        beats: heartbeats left.
        message: the application's object; None until it has published one.
        starter: the peer that spoke of it first, unless this host did.
    """

    beats: int
    message: PartialMessage | None = None
    starter: PeerId | None = None
    peers: dict[PeerId, _Known] = field(default_factory=dict[PeerId, _Known])


class Partials:
    """The messages in parts of one host.

    Args:
        config: bounds.
        blame: called with a peer and a topic when the peer sent what the application can not read.
    """

    __slots__ = ("_able", "_blame", "_config", "_groups", "_subscribed", "_topics")

    def __init__(self, config: PartialConfig, blame: Callable[[PeerId, str], None]) -> None:
        self._config = config
        self._blame = blame
        # Topics to whether parts are wanted, and not only sent.
        self._topics: dict[str, bool] = {}
        self._able: dict[PeerId, None] = {}
        self._subscribed: dict[PeerId, dict[str, Subscription]] = {}
        self._groups: dict[str, dict[bytes, _Group]] = {}

    # --- topics of this host

    def __contains__(self, topic: object) -> bool:
        """Whether this host sends parts in ``topic``."""
        return topic in self._topics

    def __iter__(self) -> Iterator[str]:
        """The topics in which it does."""
        return iter(self._topics)

    def open(self, topic: str, *, requests: bool) -> None:
        """Send parts in ``topic``, and ask for them if ``requests``."""
        self._topics[topic] = requests

    def close(self, topic: str) -> None:
        """No longer, and forget them."""
        del self._topics[topic]
        self._groups.pop(topic, None)

    def subscription(self, topic: str) -> Subscription:
        """What peers are told when this host subscribes to ``topic``."""
        requests = self._topics.get(topic)
        return Subscription(topic, True, requests_partial=bool(requests), supports_partial=requests is not None)

    # --- peers

    def joined(self, peer: PeerId) -> None:
        """``peer`` has said that it knows this extension."""
        self._able[peer] = None

    def subscribed(self, peer: PeerId, change: Subscription) -> None:
        """``peer``, whose subscriptions are kept within bounds elsewhere, subscribed or unsubscribed."""
        if change.subscribe and (change.requests_partial or change.supports_partial):
            self._subscribed.setdefault(peer, {})[change.topic] = change
        elif peer in self._subscribed:
            self._subscribed[peer].pop(change.topic, None)

    def left(self, peer: PeerId) -> None:
        """``peer`` is gone."""
        self._able.pop(peer, None)
        self._subscribed.pop(peer, None)
        self.lost(peer)

    def lost(self, peer: PeerId) -> None:
        """What was told to ``peer`` may be lost."""
        for groups in self._groups.values():
            for group in groups.values():
                group.peers.pop(peer, None)

    def takes(self, peer: PeerId, topic: str) -> bool:
        """Whether ``peer`` gets parts of ``topic`` from here, and so no whole messages."""
        change = self._change(peer, topic)
        return topic in self._topics and change is not None and change.requests_partial

    def gives(self, peer: PeerId, topic: str) -> bool:
        """Whether this host gets parts of ``topic`` from ``peer``."""
        return self._topics.get(topic, False) and self._change(peer, topic) is not None

    def _change(self, peer: PeerId, topic: str) -> Subscription | None:
        return self._subscribed.get(peer, {}).get(topic) if peer in self._able else None

    # --- messages

    def receive(self, peer: PeerId, rpc: PartialRpc) -> list[Action]:
        """``peer`` sent parts, or told what it has."""
        if peer not in self._able or rpc.topic not in self._topics:
            return [Count("partial_ignored")]
        if not 0 < len(rpc.group) <= _GROUP_SIZE or len(rpc.metadata) > self._config.metadata_size:
            return [Count("partial_too_large")]
        group = self._group_of(peer, rpc)
        if group is None:
            return [Count("partial_groups_left_out")]
        known = group.peers.setdefault(peer, _Known())
        if rpc.metadata:
            known.theirs = rpc.metadata
        actions: list[Action] = [DeliverPartial(peer, rpc)]
        if group.message is not None and known.answers < self._config.answers:
            known.answers += 1
            actions += self._tell(peer, rpc.topic, group.message, known)
        return actions

    def publish(self, topic: str, message: PartialMessage, peers: Iterable[PeerId]) -> list[Action]:
        """Tell ``peers`` what this host has of ``message``, and send them what they lack, if they do parts.

        Peers that spoke of the group before are told, too.
        """
        groups = self._groups.setdefault(topic, {})
        group = groups.pop(message.group, None) or _Group(0)
        groups[message.group] = group  # the newest is last
        group.message, group.starter, group.beats = message, None, self._config.group_beats
        own = [name for name, other in groups.items() if other.starter is None]
        for name in own[: -self._config.groups]:
            del groups[name]
        partners = [peer for peer in peers if self.takes(peer, topic) or self.gives(peer, topic)]
        actions: list[Action] = []
        for peer in dict.fromkeys((*partners, *group.peers)):
            known = group.peers.setdefault(peer, _Known())
            actions += self._tell(peer, topic, message, known, eager=True)
        return actions

    def gossip(self, topic: str, peers: Sequence[PeerId]) -> list[Action]:
        """Tell ``peers``, which ask for parts, what this host has of all messages it published."""
        actions: list[Action] = []
        for group in self._groups.get(topic, {}).values():
            if group.message is not None:
                for peer in peers:
                    known = group.peers.setdefault(peer, _Known())
                    actions += self._tell(peer, topic, group.message, known)
        return actions

    def beat(self) -> None:
        """A heartbeat: forget what is over."""
        for groups in self._groups.values():
            for name, group in tuple(groups.items()):
                group.beats -= 1
                if not group.beats:
                    del groups[name]

    def _group_of(self, peer: PeerId, rpc: PartialRpc) -> _Group | None:
        """The group ``peer`` speaks of; None when it is new and there is no room for it."""
        groups = self._groups.setdefault(rpc.topic, {})
        group = groups.get(rpc.group)
        if group is None:
            starters = [other.starter for other in groups.values() if other.starter is not None]
            full = len(starters) >= self._config.groups_of_peers
            if full or starters.count(peer) >= self._config.groups_of_peer:
                return None
            group = groups[rpc.group] = _Group(self._config.group_beats, starter=peer)
        return group

    def _tell(
        self, peer: PeerId, topic: str, message: PartialMessage, known: _Known, *, eager: bool = False
    ) -> list[Action]:
        """What ``peer`` is to get now; nothing when it has, and knows, everything."""
        change = self._change(peer, topic)
        data = metadata = b""
        if change is not None and change.requests_partial and (eager or known.theirs is not None):
            try:
                parts = message.parts_for(known.theirs)
            except DecodeError:
                known.theirs = None
                self._blame(peer, topic)
                return [Count("partial_malformed")]
            if parts is not None:
                data, known.theirs = parts.data, parts.metadata
        # Who publishes without being subscribed tells what it has, and must hear what is wanted of it.
        if change is not None or known.theirs is not None:
            metadata = message.metadata()
            if metadata == known.told:
                metadata = b""
            else:
                known.told = metadata
        if not data and not metadata:
            return []
        rpc = PartialRpc(topic=topic, group=message.group, parts=data, metadata=metadata)
        return [SendExtension(peer, encode_partial(rpc))]
