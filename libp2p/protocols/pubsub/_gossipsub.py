"""Gossipsub: messages go at once to a few peers for each topic, and others are told that there are some. Pure.

Theory of operation. For each topic this host is subscribed to it keeps a *mesh*: some peers that forward everything to
each other. GRAFT and PRUNE say who is in. Every heartbeat it mends the meshes and tells some other peers, by IHAVE,
which messages came lately; who misses one asks for it by IWANT. So a message takes few links, and finds its way when
those in the mesh are slow or hostile.

What a peer does is scored (``_score``), and a bad score costs it the mesh, then gossip, then our ear. A message that is
large is announced to the mesh by IDONTWANT as soon as it is known to be genuine, so that fewer copies cross.

The parts are in files of their own: the cache of messages, back-off, promises, scores, and the choice of peers. Here
they meet. Entries for one peer are collected in ``_Control`` and leave as one action.

What version 1.3 adds is said in the first RPC of each stream: which extensions a side knows. One is messages in parts
(``_partial``).

Source: libp2p/specs gossipsub v1.0 to v1.3.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..._util.bounded import ExpiringMap
from ...abc import ProtocolId
from ...peer_id import PeerId
from ._backoff import Backoff
from ._cache import MessageCache
from ._codec import Message, MessageId, Rpc, Subscription
from ._control import (
    MAX_BACKOFF,
    Control,
    Prune,
    decode_control,
    encode_graft,
    encode_idontwant,
    encode_ihave,
    encode_iwant,
    split_ids,
)
from ._extensions import Extensions
from ._floodsub import FLOODSUB
from ._gossipsub_config import GossipsubConfig
from ._hello import Hellos
from ._mesh import Random, better_than_median, gossip_targets, sample, surplus
from ._outgoing import Outgoing
from ._partial import PartialMessage, Partials
from ._promises import Promises
from ._router import (
    Action,
    Authenticate,
    Connect,
    Count,
    Deliver,
    Fault,
    Router,
    SeenCache,
    SendControl,
    SendMessage,
    SendPrune,
    TopicTable,
    Unqueue,
    Validate,
    Verdict,
)
from ._score import PeerScores
from ._unwanted import Unwanted

MESHSUB_10: ProtocolId = "/meshsub/1.0.0"
"""The protocol id of gossipsub 1.0."""
MESHSUB_11: ProtocolId = "/meshsub/1.1.0"
"""The protocol id of gossipsub 1.1."""
MESHSUB_12: ProtocolId = "/meshsub/1.2.0"
"""The protocol id of gossipsub 1.2."""
MESHSUB_13: ProtocolId = "/meshsub/1.3.0"
"""The protocol id of gossipsub 1.3."""

_VERSIONS = {FLOODSUB: 0, MESHSUB_10: 10, MESHSUB_11: 11, MESHSUB_12: 12, MESHSUB_13: 13}
_MAX_IHAVES = 8
"""IHAVE entries, of one RPC each, to one peer in one heartbeat: peers take ten RPCs (go)."""


@dataclass(slots=True)
class _Peer:
    """What is kept of a peer besides its topics and its score.

    Attributes:
        version: of gossipsub, times ten; 0 for floodsub.
        ihave_messages: RPCs with IHAVEs since the heartbeat.
        asked: messages asked of it since the heartbeat.
        unwanted: what it does not want to be sent.
    """

    version: int
    outbound: bool
    unwanted: Unwanted
    ihave_messages: int = 0
    asked: int = 0


@dataclass(slots=True)
class _Pending:
    """A message that is being validated, and who has it already."""

    message: Message
    holders: dict[PeerId, None]


class Gossipsub(Router):
    """The router of ``/meshsub``, versions 1.0 to 1.3; peers that only speak floodsub are served as well.

    Args:
        rng: breaks ties and chooses peers. Give a seeded ``random.Random`` for a run that can be repeated; otherwise
            one nobody can predict.
        config: parameters.
    """

    def __init__(self, rng: Random, config: GossipsubConfig | None = None) -> None:
        self._rng = rng
        self._config = config = config or GossipsubConfig()
        self._direct = dict.fromkeys(config.direct_peers)
        self._peers: dict[PeerId, _Peer] = {}
        # Those that are never in a mesh: direct peers, and those that know none.
        self._meshless: dict[PeerId, None] = {}
        self._topics = TopicTable(
            topics_per_peer=config.topics_per_peer, topic_bytes_per_peer=config.topic_bytes_per_peer
        )
        # With what is kept of the peers: the hash of one is Python's work, and forwarding looks at all of a mesh.
        self._mesh: dict[str, dict[PeerId, _Peer]] = {}
        self._fanout: ExpiringMap[str, dict[PeerId, None]] = ExpiringMap(config.fanout_topics)
        self._cache = MessageCache(
            windows=config.history,
            gossip_windows=config.history_gossip,
            max_messages=config.cache_messages,
            max_bytes=config.cache_bytes,
        )
        self._seen = SeenCache(ttl=config.seen_ttl, capacity=config.seen_capacity)
        self._pending: dict[MessageId, _Pending] = {}
        self._backoff = Backoff(capacity=config.backoff_entries)
        self._promises = Promises()
        self._score = PeerScores(config.score)
        self._partials = Partials(config.partial, self._score.forged)
        ours = Extensions(partial=True, test=config.test_extension)
        self._hellos = Hellos(ours, self._partials, self._score.penalize)
        self._beat = 0
        # Without direct peers the first one that joins starts it.
        self._next_beat: float | None = 0.0 if self._direct else None

    # --- what is known

    @property
    def protocols(self) -> Sequence[ProtocolId]:
        """All versions, and floodsub."""
        return (MESHSUB_13, MESHSUB_12, MESHSUB_11, MESHSUB_10, FLOODSUB)

    def peers(self, topic: str | None = None) -> Sequence[PeerId]:
        """See :class:`Router`."""
        return tuple(self._topics.all_peers() if topic is None else self._topics.peers(topic))

    def mesh(self, topic: str) -> Sequence[PeerId]:
        """See :class:`Router`."""
        return tuple(self._mesh.get(topic, ()))

    def scores(self, now: float) -> Mapping[PeerId, float]:
        """See :class:`Router`."""
        return self._score.scores(now)

    # --- peers

    def peer_joined(
        self, peer: PeerId, protocol: ProtocolId, now: float, *, outbound: bool = False, addresses: Sequence[str] = ()
    ) -> list[Action]:
        """See :class:`Router`. The peer is told again which meshes it is in."""
        version = _VERSIONS.get(protocol, 0)
        known = self._peers.get(peer)
        if known is None:
            self._peers[peer] = _Peer(version, outbound, Unwanted(self._config))
        else:
            known.version, known.outbound = version, outbound
        if version and peer not in self._direct:
            self._meshless.pop(peer, None)
        else:
            self._meshless[peer] = None
        self._topics.add(peer)
        self._score.add(peer, addresses, now)
        if self._next_beat is None:
            self._next_beat = now + self._config.first_heartbeat
        actions = self._hellos.opened(peer) if version >= 13 else []
        grafts = [encode_graft(topic) for topic, mesh in self._mesh.items() if peer in mesh]
        return [*actions, SendControl(peer, b"".join(grafts))] if grafts else actions

    def peer_began(self, peer: PeerId) -> None:
        """See :class:`Router`."""
        self._hellos.began(peer)

    def peer_left(self, peer: PeerId, now: float) -> list[Action]:
        """See :class:`Router`."""
        for mesh in self._mesh.values():
            mesh.pop(peer, None)
        for topic in self._fanout:
            if fanout := self._fanout.get(topic, now):
                fanout.pop(peer, None)
        self._promises.peer_left(peer)
        self._hellos.left(peer)
        self._score.remove(peer, now)
        self._peers.pop(peer, None)
        self._meshless.pop(peer, None)
        return self._topics.remove(peer)

    # --- messages of others

    def receive_rpc(self, peer: PeerId, rpc: Rpc, messages: Sequence[Message], now: float) -> list[Action]:
        """See :class:`Router`."""
        known = self._peers.get(peer)
        if known is None:
            return []
        # First of all, for it may raise.
        control = decode_control(rpc.control) if rpc.control else None
        score = self._score.score(peer, now)
        if score < self._config.thresholds.graylist and peer not in self._direct:
            return [Count("graylisted")]
        actions: list[Action] = []
        if known.version >= 13:
            actions += self._hellos.receive(peer, control.extensions if control else ())
        if rpc.subscriptions:
            actions += self._take_subscriptions(peer, rpc, score, now)
        actions += self._take_messages(peer, messages, now)
        if control is not None and known.version:
            actions += self._take_control(peer, known, control, score, now)
        if rpc.extensions and known.version >= 13:
            heed = score >= self._config.thresholds.gossip or peer in self._direct
            actions += self._hellos.take(peer, rpc.extensions, heed=heed)
        return actions

    def _take_subscriptions(self, peer: PeerId, rpc: Rpc, score: float, now: float) -> list[Action]:
        actions = self._topics.apply(peer, rpc.subscriptions)
        out = Outgoing()
        for change in rpc.subscriptions:
            mesh = self._mesh.get(change.topic)
            if not change.subscribe or peer in self._topics.peers(change.topic):
                self._partials.subscribed(peer, change)
            if not change.subscribe:
                self._drop_from_mesh(peer, change.topic, now)
                if fanout := self._fanout.get(change.topic, now):
                    fanout.pop(peer, None)
            elif (
                mesh is not None
                and len(mesh) < self._config.degree_low
                and self._may_graft(peer, change.topic, score, now)
            ):
                # Not at the next heartbeat only: who comes first would wait a second for the first message.
                self._graft(peer, change.topic, out, now)
        return actions + out.actions()

    def _take_messages(self, peer: PeerId, messages: Iterable[Message], now: float) -> list[Action]:
        actions: list[Action] = []
        duplicates = 0
        for message in messages:
            pending = self._pending.get(message.id)
            if pending is None and message.id not in self._seen:
                actions.append(Authenticate(message))
                continue
            if pending is not None:
                pending.holders[peer] = None
            self._score.duplicate(peer, message, now)
            duplicates += 1
        if duplicates:
            actions.append(Count("duplicates", duplicates))
        return actions

    def knows(self, message: Message) -> bool:
        """See :class:`Router`."""
        return message.id in self._seen

    def authenticated(self, message: Message, now: float) -> list[Action]:
        """See :class:`Router`. From here on others need not send it any more."""
        self._promises.arrived(message.id)
        self._seen.expire(now)
        if message.id in self._seen:
            self._score.duplicate(message.received_from, message, now)
            return [Count("duplicates")]
        self._seen.add(message.id, now)
        self._score.arrived(message, now)
        self._pending[message.id] = _Pending(message, {message.received_from: None})
        actions: list[Action] = [Validate(message)]
        if len(message.raw) >= self._config.idontwant_size:
            entry = encode_idontwant((message.id,))
            actions += [
                SendControl(peer, entry)
                for peer, known in self._mesh.get(message.topic, {}).items()
                if known.version >= 12
                and peer != message.received_from
                and not self._partials.gives(peer, message.topic)
            ]
        return actions

    def refused(self, message: Message, fault: Fault, now: float) -> list[Action]:
        """See :class:`Router`. Who sent it is to blame; who promised it is not done with."""
        if fault is not Fault.SELF_ORIGIN:
            self._score.forged(message.received_from, message.topic)
        return []

    def validated(self, message_id: MessageId, verdict: Verdict, now: float) -> list[Action]:
        """See :class:`Router`."""
        pending = self._pending.pop(message_id, None)
        if pending is None:
            return []
        message = pending.message
        if verdict is Verdict.REJECT:
            self._score.rejected(message, now)
            return []
        if verdict is Verdict.IGNORE:
            self._score.ignored(message, now)
            return []
        self._score.delivered(message, now)
        self._cache.put(message)
        return [Deliver(message), *self._send(message, self._targets(message.topic, now), pending.holders)]

    # --- messages of this host

    def publish(self, message: Message, now: float) -> list[Action]:
        """See :class:`Router`."""
        self._seen.expire(now)
        if message.id not in self._seen:
            self._seen.add(message.id, now)
        self._cache.put(message)
        threshold = self._config.thresholds.publish
        targets = self._targets(message.topic, now)
        if self._config.flood_publish:
            found = self._topics.peers(message.topic)
            others = [peer for peer in found if self._score.score(peer, now) >= threshold]
        elif message.topic in self._mesh:
            others = self._fill_up(message.topic, self._mesh[message.topic], now)
        else:
            others = list(self._fanout_of(message.topic, now))
        targets.update((peer, self._peers[peer]) for peer in others)
        return self._send(message, targets, {})

    def _targets(self, topic: str, now: float) -> dict[PeerId, _Peer]:
        """Who gets every message of ``topic`` at once."""
        targets = {peer: self._peers[peer] for peer in self._always(topic, now)}
        targets.update(self._mesh.get(topic, {}))
        return targets

    def _always(self, topic: str, now: float) -> list[PeerId]:
        """Who gets every message of ``topic`` without being in its mesh: direct peers, and those that know none."""
        if not self._meshless:
            return []
        threshold, subscribers = self._config.thresholds.publish, self._topics.peers(topic)
        return [
            peer
            for peer in self._meshless
            if peer in subscribers and (peer in self._direct or self._score.score(peer, now) >= threshold)
        ]

    def _fill_up(self, topic: str, mesh: Mapping[PeerId, object], now: float) -> list[PeerId]:
        """Others to publish to while a mesh is too small."""
        missing = self._config.degree - len(mesh)
        return sample(self._candidates(topic, mesh, self._config.thresholds.publish, now), missing, self._rng)

    def _fanout_of(self, topic: str, now: float) -> Mapping[PeerId, None]:
        """Whom to publish to without being subscribed; the same for some time."""
        fanout = self._fanout.get(topic, now) or {}
        for peer in self._fill_up(topic, fanout, now):
            fanout[peer] = None
        if fanout:
            self._fanout.put(topic, fanout, expires=now + self._config.fanout_ttl)
        return fanout

    def _send(self, message: Message, targets: dict[PeerId, _Peer], holders: Mapping[PeerId, None]) -> list[Action]:
        """To ``targets``, which are used up, except those that have it or do not want it."""
        for peer in holders:
            targets.pop(peer, None)
        if message.author is not None:
            targets.pop(message.author, None)
        message_id = message.id
        peers = tuple([peer for peer, known in targets.items() if message_id not in known.unwanted.until])
        if message.topic in self._partials:
            peers = tuple([peer for peer in peers if not self._partials.takes(peer, message.topic)])
        return [SendMessage(message, peers)] if peers else []

    # --- messages in parts

    def open_partial(self, topic: str, *, requests: bool) -> None:
        """Send parts of messages of ``topic`` to who asks for them; ask others for them, too, if ``requests``."""
        self._partials.open(topic, requests=requests)

    def close_partial(self, topic: str) -> None:
        """No longer."""
        self._partials.close(topic)

    def publish_partial(self, topic: str, message: PartialMessage, now: float) -> list[Action]:
        """This host has ``message``, or some of it, and tells the mesh; again whenever it has got more."""
        mesh = self._mesh.get(topic) or self._fanout_of(topic, now)
        return self._partials.publish(topic, message, [*self._always(topic, now), *mesh])

    def judge_partial(self, peer: PeerId, topic: str, verdict: Verdict) -> None:
        """The application has looked at parts that ``peer`` sent: as good, or as bad, as a message."""
        if verdict is Verdict.ACCEPT:
            self._score.useful(peer, topic)
        elif verdict is Verdict.REJECT:
            self._score.forged(peer, topic)

    def subscription(self, topic: str) -> Subscription:
        """See :class:`Router`."""
        return self._partials.subscription(topic)

    # --- subscriptions of this host

    def subscribe(self, topic: str, now: float) -> list[Action]:
        """See :class:`Router`. Grafts who was published to until now, and others."""
        mesh = self._mesh.setdefault(topic, {})
        fanout = self._fanout.pop(topic) or {}
        out = Outgoing()
        for peer in fanout:
            if self._may_graft(peer, topic, self._score.score(peer, now), now):
                self._graft(peer, topic, out, now)
        for peer in sample(self._graftable(topic, mesh, now), self._config.degree - len(mesh), self._rng):
            self._graft(peer, topic, out, now)
        return out.actions()

    def unsubscribe(self, topic: str, now: float) -> list[Action]:
        """See :class:`Router`. Prunes everybody."""
        backoff, exchange = self._config.unsubscribe_backoff, self._config.exchange
        members = self.mesh(topic)
        actions: list[Action] = [self._prune(peer, topic, now, backoff=backoff, exchange=exchange) for peer in members]
        self._mesh.pop(topic, None)
        return actions

    # --- control

    def _take_control(self, peer: PeerId, known: _Peer, control: Control, score: float, now: float) -> list[Action]:
        actions: list[Action] = []
        if control.ids_left_out:
            actions.append(Count("control_ids_left_out"))
        if score >= self._config.thresholds.gossip or peer in self._direct:
            if control.ihave:
                actions += self._take_ihave(peer, known, control.ihave, now)
            if control.iwant:
                actions += self._take_iwant(peer, control.iwant)
        elif control.ihave or control.iwant:
            actions.append(Count("gossip_ignored"))
        for topic in dict.fromkeys(control.graft):
            actions += self._take_graft(peer, topic, now)
        # Once for each topic: the records of peers in there cost a signature each.
        for prune in {prune.topic: prune for prune in control.prune}.values():
            actions += self._take_prune(peer, prune, score, now)
        if control.idontwant:
            actions += self._take_idontwant(peer, known, control.idontwant)
        return actions

    def _take_ihave(
        self, peer: PeerId, known: _Peer, ihave: Mapping[str, Sequence[MessageId]], now: float
    ) -> list[Action]:
        config = self._config
        known.ihave_messages += 1
        if known.ihave_messages > config.ihave_messages:
            return [Count("ihave_flood")]
        missing = {
            message_id: None
            for topic, ids in ihave.items()
            if topic in self._mesh
            for message_id in ids
            if message_id not in self._seen
        }
        wanted = sample(missing, config.ihave_ids - known.asked, self._rng)
        if not wanted:
            return []
        known.asked += len(wanted)
        self._promises.add(peer, wanted[0], until=now + config.promise)
        return [SendControl(peer, encode_iwant(ids)) for ids in split_ids(wanted)]

    def _take_iwant(self, peer: PeerId, ids: Iterable[MessageId]) -> list[Action]:
        actions: list[Action] = []
        for message_id in dict.fromkeys(ids):
            found = self._cache.take_for(peer, message_id)
            if found is None:
                actions.append(Count("iwant_unknown"))
            elif found[1] > self._config.retransmissions:
                actions.append(Count("iwant_refused"))
            else:
                actions.append(SendMessage(found[0], (peer,)))
        return actions

    def _take_graft(self, peer: PeerId, topic: str, now: float) -> list[Action]:
        mesh = self._mesh.get(topic)
        if mesh is None:
            # Not answered: a PRUNE for each topic somebody thinks of would be a gift to him (G11.15).
            return [Count("graft_unknown_topic")]
        if peer in mesh:
            return []
        until = self._backoff.until(peer, topic, now)
        if until is not None:
            self._score.penalize(peer)
            if now < until + self._config.graft_flood - self._config.prune_backoff:
                self._score.penalize(peer)
            return [Count("graft_in_backoff"), self._prune(peer, topic, now)]
        if peer in self._direct or self._score.score(peer, now) < 0:
            return [Count("graft_refused"), self._prune(peer, topic, now)]
        if peer not in self._topics.peers(topic):
            return [Count("graft_not_subscribed"), self._prune(peer, topic, now)]
        if len(mesh) >= self._config.degree_high and not self._peers[peer].outbound:
            return [Count("graft_mesh_full"), self._prune(peer, topic, now, exchange=self._config.exchange)]
        mesh[peer] = self._peers[peer]
        self._score.graft(peer, topic, now)
        return []

    def _take_prune(self, peer: PeerId, prune: Prune, score: float, now: float) -> list[Action]:
        if prune.topic not in self._mesh:
            return []
        self._drop_from_mesh(peer, prune.topic, now)
        backoff = self._config.prune_backoff if prune.backoff is None else prune.backoff
        self._backoff.add(peer, prune.topic, until=now + min(backoff, MAX_BACKOFF))
        if not prune.peers:
            return []
        if score < self._config.thresholds.accept_exchange:
            return [Count("exchange_ignored")]
        return [Connect(other.peer, other.record) for other in prune.peers if other.peer not in self._peers]

    def _take_idontwant(self, peer: PeerId, known: _Peer, entries: Iterable[Sequence[MessageId]]) -> list[Action]:
        ids, left_out = known.unwanted.take(entries, self._beat)
        actions: list[Action] = [Unqueue(peer, ids)] if ids else []
        return [*actions, Count("idontwant_left_out", left_out)] if left_out else actions

    # --- the mesh

    def _graft(self, peer: PeerId, topic: str, out: Outgoing, now: float) -> None:
        self._mesh[topic][peer] = self._peers[peer]
        self._score.graft(peer, topic, now)
        out.add(peer, encode_graft(topic))

    def _prune(
        self, peer: PeerId, topic: str, now: float, *, backoff: float | None = None, exchange: bool = False
    ) -> Action:
        """Take ``peer`` out of the mesh, if it is there, and tell it to stay away."""
        seconds = self._config.prune_backoff if backoff is None else backoff
        self._drop_from_mesh(peer, topic, now)
        self._backoff.add(peer, topic, until=now + seconds)
        if self._peers[peer].version < 11:
            return SendPrune(peer, topic, None)
        others: list[PeerId] = []
        if exchange:
            found = [
                other for other in self._topics.peers(topic) if other != peer and self._score.score(other, now) >= 0
            ]
            others = sample(found, self._config.exchange_peers, self._rng)
        return SendPrune(peer, topic, seconds, tuple(others))

    def _drop_from_mesh(self, peer: PeerId, topic: str, now: float) -> None:
        mesh = self._mesh.get(topic)
        if mesh is not None and peer in mesh:
            del mesh[peer]
            self._score.prune(peer, topic, now)

    def _may_graft(self, peer: PeerId, topic: str, score: float, now: float) -> bool:
        return (
            peer in self._topics.peers(topic)
            and peer not in self._mesh[topic]
            and peer not in self._direct
            and self._peers[peer].version > 0
            and score >= 0
            and not self._backoff.is_active(peer, topic, now, slack=self._config.backoff_slack)
        )

    def _graftable(self, topic: str, mesh: Mapping[PeerId, object], now: float) -> list[PeerId]:
        return [
            peer
            for peer in self._candidates(topic, mesh, 0.0, now)
            if not self._backoff.is_active(peer, topic, now, slack=self._config.backoff_slack)
        ]

    def _candidates(self, topic: str, without: Mapping[PeerId, object], threshold: float, now: float) -> list[PeerId]:
        """Peers of ``topic`` that know meshes, are not ``without`` nor direct, and have at least this score."""
        return [
            peer
            for peer in self._topics.peers(topic)
            if peer not in without
            and peer not in self._direct
            and self._peers[peer].version
            and self._score.score(peer, now) >= threshold
        ]

    # --- heartbeat

    def next_timeout(self) -> float | None:
        """See :class:`Router`. Nothing beats while there are no peers."""
        return self._next_beat if self._peers or self._direct else None

    def handle_timeout(self, now: float) -> list[Action]:
        """One heartbeat: punish, mend the meshes, tell others about messages, and forget what is over."""
        self._beat += 1
        self._next_beat = now + self._config.heartbeat
        self._forget(now)
        actions: list[Action] = []
        for peer, count in self._promises.broken(now).items():
            self._score.penalize(peer, count)
            actions.append(Count("promises_broken", count))
        self._score.refresh(now)
        scores = self._score.scores(now)
        out = Outgoing()
        for topic in self._mesh:
            actions += self._mend(topic, scores, out, now)
        self._mend_fanout(scores, now)
        actions += self._gossip(scores, out)
        self._cache.shift()
        self._partials.beat()
        if self._beat % self._config.direct_beats == 1 or self._config.direct_beats == 1:
            actions += [Connect(peer) for peer in self._direct if peer not in self._peers]
        return actions + out.actions()

    def _forget(self, now: float) -> None:
        self._seen.expire(now)
        self._backoff.expire(now - self._config.backoff_slack)
        self._fanout.expire(now)
        for known in self._peers.values():
            known.ihave_messages = known.asked = 0
            known.unwanted.expire(self._beat)

    def _mend(self, topic: str, scores: Mapping[PeerId, float], out: Outgoing, now: float) -> list[Action]:
        """Take out who is bad or too many, and in who is missing."""
        config, mesh, score = self._config, self._mesh[topic], scores.__getitem__
        actions: list[Action] = [self._prune(peer, topic, now) for peer in tuple(mesh) if score(peer) < 0]
        if len(mesh) < config.degree_low:
            missing = config.degree - len(mesh)
            for peer in sample(self._graftable(topic, mesh, now), missing, self._rng):
                self._graft(peer, topic, out, now)
        if len(mesh) > config.degree_high:
            too_many = surplus(
                tuple(mesh),
                keep=config.degree,
                keep_best=config.degree_score,
                keep_outbound=config.degree_outbound,
                score=score,
                is_outbound=self._is_outbound,
                rng=self._rng,
            )
            actions += [self._prune(peer, topic, now, exchange=config.exchange) for peer in too_many]
        if len(mesh) >= config.degree_low:
            missing = config.degree_outbound - sum(map(self._is_outbound, mesh))
            if missing > 0:
                dialled = list(filter(self._is_outbound, self._graftable(topic, mesh, now)))
                for peer in sample(dialled, missing, self._rng):
                    self._graft(peer, topic, out, now)
        if self._beat % config.opportunistic_beats == 0:
            better = better_than_median(
                tuple(mesh),
                self._graftable(topic, mesh, now),
                threshold=config.thresholds.opportunistic,
                count=config.opportunistic_peers,
                score=score,
                rng=self._rng,
            )
            for peer in better:
                self._graft(peer, topic, out, now)
        return actions

    def _is_outbound(self, peer: PeerId) -> bool:
        return self._peers[peer].outbound

    def _mend_fanout(self, scores: Mapping[PeerId, float], now: float) -> None:
        for topic in tuple(self._fanout):
            fanout = self._fanout.get(topic, now) or {}
            for peer in tuple(fanout):
                if scores[peer] < self._config.thresholds.publish:
                    del fanout[peer]
            for peer in self._fill_up(topic, fanout, now):
                fanout[peer] = None

    def _gossip(self, scores: Mapping[PeerId, float], out: Outgoing) -> list[Action]:
        """Tell peers that are not in the mesh, and so did not get them, which messages there are."""
        config = self._config
        actions: list[Action] = []
        sent: dict[PeerId, int] = {}
        gossip = self._cache.gossip()
        for topic in dict.fromkeys((*gossip, *self._partials)):
            ids = gossip.get(topic, ())
            mesh = self._mesh.get(topic, {})
            candidates = [
                peer
                for peer in self._topics.peers(topic)
                if peer not in mesh
                and peer not in self._direct
                and self._peers[peer].version
                and scores[peer] >= config.thresholds.gossip
            ]
            targets = gossip_targets(candidates, at_least=config.degree_lazy, share=config.gossip_factor, rng=self._rng)
            partners = [peer for peer in targets if self._partials.takes(peer, topic)]
            actions += self._partials.gossip(topic, partners)
            entries: list[bytes] = []
            for peer in targets:
                if peer in partners:
                    continue
                # Each gets others when there are too many, so that together they know all.
                if not entries or len(ids) > config.ihave_ids:
                    entries = [encode_ihave(topic, batch) for batch in split_ids(self._told(ids))]
                fit = entries[: max(0, _MAX_IHAVES - sent.get(peer, 0))]
                sent[peer] = sent.get(peer, 0) + len(fit)
                for entry in fit:
                    out.add(peer, entry)
        return actions

    def _told(self, ids: Sequence[MessageId]) -> Sequence[MessageId]:
        """As many of ``ids`` as one peer is told."""
        return ids if len(ids) <= self._config.ihave_ids else sample(ids, self._config.ihave_ids, self._rng)
