"""Networks of pubsub routers without hosts: thousands of nodes in one process, in virtual time, from a seed.

::

    simulation = Simulation(seed=1)
    nodes = [simulation.add_node("news") for _ in range(1000)]
    simulation.connect_at_random(nodes, dials=10)
    simulation.run(until=10.0)
    simulation.publish(nodes[0], "news")
    simulation.run(until=15.0)
    print(simulation.report())

Theory of operation. The routers are the very objects that run in production: pure machines, told the time and given
their randomness. Here a heap of (time, serial, what) takes the place of streams and clocks. Between two nodes lies a
link with a latency of its own, drawn once; what is sent on it arrives in order, and what is lost arrives when it has
been sent again, as on TCP. Signatures are taken as checked. The same seed gives the same run, in every process:
:attr:`Report.digest` tells two runs apart.
"""

from __future__ import annotations

import hashlib
import heapq
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from ..peer_id import PeerId
from ..protocols.pubsub import MESHSUB_13, Gossipsub, GossipsubConfig, Message, MessageId, Router, Verdict
from ..protocols.pubsub.routing import (
    Action,
    Authenticate,
    Count,
    Deliver,
    Prune,
    Rpc,
    SendControl,
    SendHello,
    SendMessage,
    SendPrune,
    Subscription,
    Validate,
    encode_message,
    encode_prune,
)
from ..wire import multihash

Forwards: TypeAlias = Callable[["Node", Message, float], bool]
"""Whether a node passes a message on; adversaries do not always."""
Judges: TypeAlias = Callable[["Node", Message], Verdict]
"""What a node thinks of a message."""

_EMPTY = Rpc()
_RESEND = 0.2
"""Seconds after which what was lost is sent again, the way not counted (the least of Linux)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkModel:
    """What lies between two nodes.

    The latency of a link is drawn once, from a distribution with a long tail, within the bounds.
    """

    min_latency: float = 0.02
    """Seconds one way."""
    max_latency: float = 0.2
    loss: float = 0.0
    """Share of what is sent that has to be sent again."""

    def __post_init__(self) -> None:
        if not 0 <= self.min_latency <= self.max_latency or not 0 <= self.loss < 1:
            raise ValueError("a latency must not be negative, and a loss a share below 1")

    def draw(self, rng: random.Random) -> float:
        """The latency of a new link, in seconds."""
        # Most are near, some far: the square of a uniform draw.
        return self.min_latency + (self.max_latency - self.min_latency) * rng.random() ** 2


@dataclass(eq=False, slots=True)
class Node:
    """One peer of the simulated network.

    Attributes:
        index: its number.
        peer: its id.
        router: the machine that runs in production.
        topic: what it is subscribed to; None for nothing.
        address: its IP address.
        honest: whether it counts in reports.
        forwards: whether it passes a message on.
        judges: what it thinks of messages.
        alive: whether it is there.
        links: the nodes it is connected to, and the latency of each link.
    """

    index: int
    peer: PeerId
    router: Router
    topic: str | None
    address: str
    honest: bool = True
    forwards: Forwards | None = None
    judges: Judges | None = None
    alive: bool = True
    links: dict[PeerId, float] = field(default_factory=dict[PeerId, float])
    _clear: dict[PeerId, float] = field(default_factory=dict[PeerId, float])
    _armed: bool = False

    def __repr__(self) -> str:
        return f"<Node {self.index}{'' if self.honest else ', not honest'}>"


@dataclass(slots=True)
class _Published:
    time: float
    author: Node
    wanted: dict[int, None]
    delays: dict[int, float] = field(default_factory=dict[int, float])


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What became of the messages of honest nodes.

    Attributes:
        published: how many there were.
        delivery: share of the honest subscribers, at the time of publishing, that got them.
        p50: seconds from publishing to delivery, the median.
        p99: of 100 deliveries the slowest but one.
        copies: messages sent for each delivery, honest and not.
        honest_mesh: share of honest peers in the meshes of honest nodes.
        events: how many were processed.
        digest: of all that was delivered, where, when, and of what the routers counted; the same for the same seed.
    """

    published: int
    delivery: float
    p50: float
    p99: float
    copies: float
    honest_mesh: float
    events: int
    digest: str

    def __str__(self) -> str:
        return (
            f"{self.published} messages, {self.delivery:.2%} delivered, p50 {self.p50 * 1000:.0f} ms,"
            f" p99 {self.p99 * 1000:.0f} ms, {self.copies:.2f} copies each,"
            f" {self.honest_mesh:.1%} of mesh members honest, digest {self.digest[:16]}"
        )


class Simulation:
    """A network of routers, links and time.

    Args:
        seed: of everything that is random.
        links: what lies between two nodes.
        config: of the routers that :meth:`add_node` makes.

    Attributes:
        now: seconds since the start.
        nodes: all that were ever added.
        counters: what routers counted, by name.
    """

    def __init__(self, *, seed: int, links: LinkModel | None = None, config: GossipsubConfig | None = None) -> None:
        self.now: float = 0.0
        self.nodes: list[Node] = []
        self.counters: dict[str, int] = {}
        self._seed = seed
        self._rng = random.Random(seed)
        self._model = links or LinkModel()
        self._config = config
        self._by_peer: dict[PeerId, Node] = {}
        self._heap: list[tuple[float, int, Callable[[], object]]] = []
        self._serial = 0
        self._published: dict[MessageId, _Published] = {}
        self._sent = 0
        self._delivered = 0
        self._digest = hashlib.sha256()

    # --- the network

    def add_node(
        self,
        topic: str | None,
        *,
        router: Callable[[random.Random], Router] | None = None,
        address: str | None = None,
        honest: bool = True,
        forwards: Forwards | None = None,
        judges: Judges | None = None,
    ) -> Node:
        """Add a node, not connected yet.

        Args:
            topic: what it subscribes to; None for nothing.
            router: makes its router from its own randomness; by default gossipsub with the simulation's config.
            address: its IP address; by default one of its own.
            honest: whether it counts in reports.
            forwards: whether it passes a message on; by default always.
            judges: its verdict on messages; by default it accepts all.
        """
        index = len(self.nodes)
        name = hashlib.sha256(b"%d/%d" % (self._seed, index)).digest()
        rng = random.Random(name)
        made = Gossipsub(rng, self._config) if router is None else router(rng)
        ip = address or f"10.{index >> 16 & 255}.{index >> 8 & 255}.{index & 255}"
        # Making keys is slow, and nobody signs here.
        peer = PeerId.from_bytes(multihash.sha2_256(name))
        node = Node(index, peer, made, topic, ip, honest, forwards, judges)
        self.nodes.append(node)
        self._by_peer[peer] = node
        if topic is not None:
            self._perform(node, made.subscribe(topic, self.now))
        return node

    def connect(self, dialler: Node, other: Node) -> bool:
        """Connect two nodes; False when they are connected already, or one is gone."""
        if dialler is other or other.peer in dialler.links or not (dialler.alive and other.alive):
            return False
        dialler.links[other.peer] = other.links[dialler.peer] = self._model.draw(self._rng)
        for node, peer, outbound in ((dialler, other, True), (other, dialler, False)):
            if node.topic is not None:
                self._transmit(node, peer.peer, Rpc(subscriptions=(Subscription(node.topic, True),)), ())
            actions = node.router.peer_joined(
                peer.peer, MESHSUB_13, self.now, outbound=outbound, addresses=(peer.address,)
            )
            self._perform(node, actions)
            self._arm(node)
        return True

    def connect_at_random(self, diallers: Iterable[Node], others: Sequence[Node] | None = None, *, dials: int) -> None:
        """Let each of ``diallers`` connect to ``dials`` of ``others``; by default of all nodes."""
        found = self.nodes if others is None else others
        for node in diallers:
            missing = dials
            for other in self._rng.sample(found, min(len(found), 3 * dials)):
                if missing and self.connect(node, other):
                    missing -= 1

    def disconnect(self, one: Node, other: Node) -> None:
        """Cut a link. What is under way on it is lost."""
        for node, peer in ((one, other), (other, one)):
            if node.links.pop(peer.peer, None) is not None:
                node._clear.pop(peer.peer, None)
                self._perform(node, node.router.peer_left(peer.peer, self.now))

    def remove(self, node: Node) -> None:
        """Take a node away, as a crash does."""
        for peer in tuple(node.links):
            self.disconnect(node, self._by_peer[peer])
        node.alive = False

    # --- time

    def at(self, time: float, what: Callable[[], object]) -> None:
        """Have ``what`` done at ``time``, in seconds since the start."""
        self._serial += 1
        heapq.heappush(self._heap, (time, self._serial, what))

    def run(self, *, until: float) -> None:
        """Let time go on to ``until``."""
        heap = self._heap
        while heap and heap[0][0] <= until:
            self.now, _, what = heapq.heappop(heap)
            what()
        self.now = until

    def _arm(self, node: Node) -> None:
        """Have the next heartbeat of a router done; there is one under way at most."""
        timeout = node.router.next_timeout()
        if timeout is not None and not node._armed and node.alive:
            node._armed = True
            self.at(max(timeout, self.now), lambda: self._beat(node))

    def _beat(self, node: Node) -> None:
        node._armed = False
        if node.alive:
            self._perform(node, node.router.handle_timeout(self.now))
            self._arm(node)

    # --- messages

    def publish(self, node: Node, topic: str, *, size: int = 100) -> MessageId:
        """Publish a message of ``size`` bytes, counted in :meth:`report` if the node is honest."""
        seqno = self._serial = self._serial + 1
        raw = encode_message(
            topic=topic, data=bytes(size), author=bytes(node.peer), seqno=(seqno + (1 << 56)).to_bytes(8, "big")
        )
        message_id = bytes(node.peer) + seqno.to_bytes(8, "big")
        message = Message(id=message_id, topic=topic, data=b"", author=node.peer, received_from=node.peer, raw=raw)
        if node.honest:
            others = [other for other in self.nodes if other.alive and other.honest and other.topic == topic]
            wanted = dict.fromkeys([other.index for other in others if other is not node])
            self._published[message_id] = _Published(self.now, node, wanted)
        self._perform(node, node.router.publish(message, self.now))
        return message_id

    def _perform(self, node: Node, actions: Iterable[Action]) -> None:
        for action in actions:
            if isinstance(action, SendMessage):
                self._send(node, action)
            elif isinstance(action, Authenticate):
                self._perform(node, node.router.authenticated(action.message, self.now))
            elif isinstance(action, Validate):
                verdict = node.judges(node, action.message) if node.judges else Verdict.ACCEPT
                self._perform(node, node.router.validated(action.message.id, verdict, self.now))
            elif isinstance(action, Deliver):
                self._deliver(node, action.message)
            elif isinstance(action, SendControl | SendHello):
                self._transmit(node, action.peer, Rpc(control=action.control), ())
            elif isinstance(action, SendPrune):
                entry = encode_prune(Prune(action.topic, action.backoff))
                self._transmit(node, action.peer, Rpc(control=entry), ())
            elif isinstance(action, Count):
                self.counters[action.what] = self.counters.get(action.what, 0) + action.by

    def _send(self, node: Node, action: SendMessage) -> None:
        message = action.message
        if node.forwards is not None and not node.forwards(node, message, self.now):
            return
        if message.received_from != node.peer:
            # One object for all who get it from here.
            message = Message(
                id=message.id,
                topic=message.topic,
                data=message.data,
                author=message.author,
                received_from=node.peer,
                raw=message.raw,
            )
        self._sent += len(action.peers)
        for peer in action.peers:
            self._transmit(node, peer, _EMPTY, (message,))

    def _transmit(self, node: Node, peer: PeerId, rpc: Rpc, messages: Sequence[Message]) -> None:
        latency = node.links.get(peer)
        if latency is None:
            return
        if self._model.loss:
            while self._rng.random() < self._model.loss:
                latency += _RESEND
        # What was sent later does not arrive earlier.
        arrives = max(self.now + latency, node._clear.get(peer, 0.0))
        node._clear[peer] = arrives
        other = self._by_peer[peer]
        self.at(arrives, lambda: self._receive(other, node, rpc, messages))

    def _receive(self, node: Node, sender: Node, rpc: Rpc, messages: Sequence[Message]) -> None:
        if sender.peer in node.links:
            self._perform(node, node.router.receive_rpc(sender.peer, rpc, messages, self.now))

    def _deliver(self, node: Node, message: Message) -> None:
        published = self._published.get(message.id)
        if node.honest and published is not None:
            published.delays[node.index] = self.now - published.time
            self._delivered += 1
            self._digest.update(b"%d %d %s\n" % (self.now * 1e9, node.index, message.id))

    # --- what came of it

    def honest_mesh(self, nodes: Iterable[Node] | None = None) -> float:
        """Share of honest peers in the meshes of ``nodes``, by default of all honest ones. 1 where there is no mesh."""
        meshes = self._meshes(nodes)
        honest, total = sum([sum(mesh) for mesh in meshes]), sum(map(len, meshes))
        return honest / total if total else 1.0

    def honest_members(self, nodes: Iterable[Node] | None = None) -> float:
        """Honest peers in the mesh of one of ``nodes``, on average. 0 where nobody is subscribed."""
        meshes = self._meshes(nodes)
        return sum([sum(mesh) for mesh in meshes]) / len(meshes) if meshes else 0.0

    def _meshes(self, nodes: Iterable[Node] | None) -> list[list[bool]]:
        """For each honest node that is subscribed, and for each member of its mesh, whether that is honest."""
        return [
            [self._by_peer[peer].honest for peer in node.router.mesh(node.topic)]
            for node in (self.nodes if nodes is None else nodes)
            if node.honest and node.alive and node.topic is not None
        ]

    def report(
        self,
        *,
        since: float = 0.0,
        until: float = float("inf"),
        author: Node | None = None,
        receiver: Node | None = None,
    ) -> Report:
        """What became of the messages published from ``since`` to ``until``.

        Args:
            author: count only the messages of this node.
            receiver: count only what this node got.
        """
        chosen = [
            item
            for item in self._published.values()
            if since <= item.time <= until and (author is None or item.author is author)
        ]
        if receiver is None:
            delays = sorted([delay for item in chosen for delay in item.delays.values()])
            wanted = sum([len(item.wanted) for item in chosen])
        else:
            index = receiver.index
            delays = sorted([item.delays[index] for item in chosen if index in item.delays])
            wanted = sum([index in item.wanted for item in chosen])
        digest = self._digest.copy()
        digest.update(repr((self._sent, sorted(self.counters.items()))).encode())
        return Report(
            published=len(chosen),
            delivery=len(delays) / wanted if wanted else 1.0,
            p50=delays[len(delays) // 2] if delays else 0.0,
            p99=delays[len(delays) * 99 // 100] if delays else 0.0,
            copies=self._sent / self._delivered if self._delivered else 0.0,
            honest_mesh=self.honest_mesh(),
            events=self._serial,
            digest=digest.hexdigest(),
        )
