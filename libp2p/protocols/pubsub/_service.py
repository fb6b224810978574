"""The pubsub service: streams, queues, signatures and validators around a router.

Theory of operation. The router decides and this module does: every input of the router returns actions, and
``_perform`` is the only place that carries them out. A message from a peer is read, checked and validated in the task
of the stream it came on, so a peer that sends more than can be verified is held back by its own stream's window, and
nobody else is. Only asynchronous validators get tasks of their own, a bounded number for each peer.

Towards a peer nothing ever waits except ``publish``: an outbox that is full refuses, and what is dropped is counted.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import trio

from ..._util.bounded import BoundedReceiver, BoundedSender, LruMap, open_bounded_channel
from ...abc import Direction, Host, ProtocolId, Service, Stream, StreamHandler
from ...addressing import host_port, is_relay
from ...errors import DecodeError, RemoteProtocolError
from ...events import PeerDisconnected, PeerIdentified
from ...metrics import Metric
from ...peer_id import PeerId
from ...wire.framing import FrameBuffer, frame
from ._codec import (
    Message,
    MessageId,
    Rpc,
    Subscription,
    decode_message,
    decode_rpcs,
    frame_publish,
    rpc_overhead,
)
from ._config import PubsubConfig
from ._control import Exchanged, Prune, encode_prune
from ._errors import MessageRefused, MessageTooLarge, NoPeers, PeersTooSlow
from ._events import TopicPeerJoined, TopicPeerLeft
from ._exchange import Connector
from ._gossipsub import Gossipsub
from ._link import Link, keep_writing, usable_connection
from ._measured import measure_counts, measure_state
from ._outbox import Outbox
from ._partial import PartialMessage
from ._partial_channel import MAX_UPDATES, Contained, PartialMessages, PartialUpdate, crowding
from ._router import (
    Action,
    Authenticate,
    Connect,
    Count,
    Deliver,
    DeliverPartial,
    PeerSubscribed,
    PeerUnsubscribed,
    Router,
    SendControl,
    SendExtension,
    SendHello,
    SendMessage,
    SendPrune,
    Unqueue,
    Validate,
    Verdict,
)
from ._signing import SignaturePolicy, Signer
from ._subscriber import Messages, Subscribers
from ._validation import CONCURRENCY, TIMEOUT, Application, Check, MessageIdFunction, Validator

_MESSAGES_PER_TURN = 8
"""New messages taken from a peer before other tasks get their turn: half a millisecond of checking signatures."""
_COPY_SIZE = 4 * 1024
"""Bytes of the longest messages that are remembered to recognize copies of them, so that they are decoded once."""
_COPIES = 1024
"""How many are."""


class Pubsub(Service):
    """Publishing and subscribing to topics.

    ::

        pubsub = Pubsub()
        async with open_host(services=[pubsub]) as host, pubsub.subscribe("news") as messages:
            await pubsub.publish("news", b"hello", require_peers=False)
            async for message in messages:
                ...

    One object serves one host. Its methods raise ``RuntimeError`` while the host is not running.

    Args:
        router: who gets which message; by default :class:`Gossipsub` with its default parameters.
        signature_policy: whether messages are signed, and which are taken. Everybody in a network needs the same.
        message_id: what tells messages apart, for topics that :meth:`set_message_id` was not called for; by default
            author and sequence number, or SHA-256 of the data where there is none.
        validators: asked about the messages of all topics, before the topic's own.
        config: bounds.
        clock: wall clock in seconds since 1970, from which sequence numbers start.
        rng: spreads attempts to reopen streams, and chooses peers in the default router.
    """

    def __init__(
        self,
        router: Router | None = None,
        *,
        signature_policy: SignaturePolicy = SignaturePolicy.STRICT_SIGN,
        message_id: MessageIdFunction | None = None,
        validators: Sequence[Validator] = (),
        config: PubsubConfig | None = None,
        clock: Callable[[], float] = time.time,
        rng: random.Random | None = None,
    ) -> None:
        self._rng = rng or random.Random()
        self._router = router or Gossipsub(self._rng)
        self._policy = signature_policy
        self._config = config or PubsubConfig()
        self._clock = clock
        self._application = Application(validators, message_id)
        self._subscribers = Subscribers()
        self._partials: dict[str, BoundedSender[PartialUpdate]] = {}
        self._newcomers = trio.lowlevel.ParkingLot()
        self._links: dict[PeerId, Link] = {}
        self._connector = Connector(self._count)
        self._counters: dict[str, int] = {}
        self._host: Host | None = None
        self._nursery: trio.Nursery | None = None
        self._signer: Signer | None = None
        self._timer = trio.CancelScope()
        self._copies: LruMap[bytes, Message] = LruMap(_COPIES)

    @property
    def handlers(self) -> Mapping[ProtocolId, StreamHandler]:
        """The router's protocols."""
        return dict.fromkeys(self._router.protocols, self._receive)

    # --- the public face

    @asynccontextmanager
    async def subscribe(self, topic: str, *, own: bool = False) -> AsyncIterator[Messages]:
        """Receive the messages of ``topic`` while the block is open; :class:`Messages` is the channel.

        Args:
            topic: the topic; there may be several subscriptions to it.
            own: receive what this host publishes, too.

        Raises:
            ValueError: the topic is empty.
        """
        self._running()
        if not topic:
            raise ValueError("a topic needs a name")
        config = self._config
        messages = Messages(topic, own=own, max_messages=config.subscriber_messages, max_bytes=config.subscriber_bytes)
        if self._subscribers.add(messages):
            self._announce(self._router.subscription(topic))
            self._perform(self._router.subscribe(topic, trio.current_time()))
        try:
            await trio.lowlevel.checkpoint()
            yield messages
        finally:
            if self._subscribers.remove(messages):
                self._announce(Subscription(topic, False))
                self._perform(self._router.unsubscribe(topic, trio.current_time()))

    async def publish(self, topic: str, data: bytes, *, require_peers: bool = False) -> MessageId:
        """Publish ``data``; returns when it is on its way to the peers.

        Peers that take messages slower than they are published make this wait, for a while; see
        :attr:`PubsubConfig.publish_patience`. Cancelled, the message has gone to some, to all or to nobody.

        Args:
            topic: the topic; this host need not be subscribed to it.
            data: what to publish.
            require_peers: raise when there is nobody to send it to; otherwise that is only counted.

        Returns:
            The id of the message.

        Raises:
            MessageTooLarge: it does not fit into one RPC.
            MessageRefused: a validator of this host does not want it.
            NoPeers: no peer is known to be subscribed, and ``require_peers``.
            PeersTooSlow: no peer took the message within :attr:`PubsubConfig.publish_patience`. (When some did and some
                did not, that is counted: the others hear of the message later, and may ask for it.)
            ValueError: the topic is empty.
        """
        host, signer = self._running()
        if not topic:
            raise ValueError("a topic needs a name")
        await trio.lowlevel.checkpoint()
        message = self._make(host, signer, topic, data)
        verdict = await self._ask(self._application.checks(topic), host, message)
        if verdict is not Verdict.ACCEPT:
            raise MessageRefused(topic, verdict)
        actions = self._router.publish(message, trio.current_time())
        peers = [peer for action in actions if isinstance(action, SendMessage) for peer in action.peers]
        if not peers:
            if require_peers:
                raise NoPeers(topic)
            self._count("published_to_nobody")
        self._count("published")
        self._perform([action for action in actions if not isinstance(action, SendMessage)])
        self._deliver(message, own=True)
        await self._send_own(message, peers)
        if self._subscribers.behind:
            await self._subscribers.let_catch_up()
        return message.id

    @asynccontextmanager
    async def partial(self, topic: str, *, requests: bool = True) -> AsyncIterator[PartialMessages]:
        """Exchange parts of messages of ``topic`` while the block is open (gossipsub 1.3, partial messages).

        It takes no part in the topic: open :meth:`subscribe` as well, for the mesh and for whole messages of peers
        that know no parts. Signatures and validators are about whole messages; parts are the application's to check.

        Args:
            topic: the topic, of which there may be one such block at a time.
            requests: ask peers for parts instead of whole messages; otherwise they are only sent.

        Raises:
            ValueError: the topic is empty, open already, or the router is not gossipsub.
        """
        host, _ = self._running()
        router = self._router
        if not topic or topic in self._partials or not isinstance(router, Gossipsub):
            raise ValueError("messages in parts need gossipsub, and a topic in which they are not open already")
        channel: tuple[BoundedSender[PartialUpdate], BoundedReceiver[PartialUpdate]] = open_bounded_channel(MAX_UPDATES)
        sender, receiver = channel

        def check() -> None:
            if self._partials.get(topic) is not sender:
                raise trio.ClosedResourceError("this channel was left")
            self._running()

        def publish(message: PartialMessage) -> None:
            check()
            contained = Contained(message, host.contain)
            self._perform(router.publish_partial(topic, contained, trio.current_time()))

        def judge(update: PartialUpdate, verdict: Verdict) -> None:
            check()
            router.judge_partial(update.peer, topic, verdict)

        self._partials[topic] = sender
        router.open_partial(topic, requests=requests)
        self._announce_again(topic)
        try:
            await trio.lowlevel.checkpoint()
            yield PartialMessages(topic, receiver, publish, judge)
        finally:
            del self._partials[topic]
            receiver.close()
            router.close_partial(topic)
            self._announce_again(topic)

    def set_validator(
        self, topic: str, validator: Validator, *, timeout: float = TIMEOUT, concurrency: int = CONCURRENCY
    ) -> None:
        """Ask ``validator`` about every message of ``topic`` before it is delivered and forwarded.

        It takes the place of the one that was set before. Messages that are published here are asked about, too.

        Args:
            topic: the topic.
            validator: a function, or an async function, that returns a :class:`Verdict`. When it raises, the message
                is ignored and the host logs a bug. A function that is not async must be quick.
            timeout: seconds an async validator has, waiting for its turn included; then the message is ignored.
            concurrency: how many runs of an async validator may be under way.
        """
        self._application.set_check(topic, Check(validator, timeout, concurrency))

    def set_message_id(self, topic: str, function: MessageIdFunction) -> None:
        """Tell messages of ``topic`` apart by what ``function`` returns for them."""
        self._application.set_message_id(topic, function)
        self._copies.clear()

    def topics(self) -> Sequence[str]:
        """The topics this host is subscribed to."""
        return tuple(self._subscribers)

    def peers(self, topic: str | None = None) -> Sequence[PeerId]:
        """The peers that are subscribed to ``topic``; without a topic, all that speak pubsub with this host."""
        return self._router.peers(topic)

    def mesh(self, topic: str) -> Sequence[PeerId]:
        """The peers in the mesh of ``topic``: those that get its messages at once."""
        return self._router.mesh(topic)

    def scores(self) -> Mapping[PeerId, float]:
        """What the peers are worth to the router, see :class:`PeerScoreConfig`."""
        return self._router.scores(trio.current_time())

    async def wait_for_peers(self, topic: str, count: int = 1) -> None:
        """Wait until at least ``count`` peers are subscribed to ``topic``."""
        await trio.lowlevel.checkpoint()
        while True:
            self._running()
            if len(self._router.peers(topic)) >= count:
                return
            await self._newcomers.park()

    def metrics(self) -> Mapping[str, int]:
        """Counters since the service was made, by name. A name appears when it is first counted.

        ``published``, and of these ``published_to_nobody``; ``delivered``; ``duplicates``; ``accept``, ``reject`` and
        ``ignore`` by verdict; ``validator_timeouts``; ``malformed``, ``not_subscribed`` and the values of
        :class:`Fault` for messages that were dropped on arrival; ``dropped_outbound`` and ``dropped_control`` for full
        queues of peers; ``not_wanted_any_more`` for what was taken out of them in time; ``lost`` for full queues of
        subscribers; ``subscriptions_left_out``; and what the router counts.
        """
        return dict(self._counters)

    def measure(self) -> Iterable[Metric]:
        """The same and the state of meshes and scores, under the names of js-libp2p's dashboards."""
        router = self._router
        topics = {topic: (router.peers(topic), router.mesh(topic)) for topic in self._subscribers}
        yield from measure_counts(self._counters)
        yield from measure_state(topics, self.scores().values())

    # --- life

    async def run(self, host: Host, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Talk to the peers of ``host`` that speak pubsub, until cancelled."""
        self._host = host
        self._signer = Signer(self._policy, host.private_key, seqno=int(self._clock() * 1_000_000_000))
        try:
            async with trio.open_nursery() as nursery:
                with host.subscribe(PeerIdentified, PeerDisconnected) as events:
                    self._nursery = nursery
                    nursery.start_soon(self._keep_time)
                    for connection in host.connections():
                        self._consider(host, connection.peer)
                    task_status.started()
                    try:
                        async for event in events:
                            if isinstance(event, PeerIdentified):
                                self._consider(host, event.peer)
                            elif isinstance(event, PeerDisconnected) and not host.connections(event.peer):
                                self._lose(event.peer)
                    finally:
                        # From here on nobody new: a link that starts now would never be told to end.
                        self._nursery = None
                        for link in self._links.values():
                            link.say_farewell()
        finally:
            self._host = self._nursery = self._signer = None
            self._subscribers.end()
            for sender in self._partials.values():
                sender.close()
            self._newcomers.unpark_all()

    def _running(self) -> tuple[Host, Signer]:
        if self._host is None or self._signer is None:
            raise RuntimeError("the pubsub service is not running: give it to open_host(services=[...])")
        return self._host, self._signer

    async def _keep_time(self) -> None:
        while True:
            next_timeout = self._router.next_timeout()
            with trio.CancelScope(deadline=math.inf if next_timeout is None else next_timeout) as self._timer:
                await trio.sleep_forever()
            self._perform(self._router.handle_timeout(trio.current_time()))

    def _rearm(self) -> None:
        """Wake :meth:`_keep_time` earlier, if the router wants to."""
        next_timeout = self._router.next_timeout()
        if next_timeout is not None and next_timeout < self._timer.deadline:
            self._timer.deadline = next_timeout

    def _count(self, what: str, by: int = 1) -> None:
        self._counters[what] = self._counters.get(what, 0) + by

    # --- links

    def _consider(self, host: Host, peer: PeerId) -> None:
        """Open a stream to ``peer``, if it speaks pubsub."""
        if peer not in self._links and not host.peerstore.protocols(peer).isdisjoint(self._router.protocols):
            if usable_connection(host, peer) is not None:
                self._link(peer)

    def _link(self, peer: PeerId) -> Link:
        assert self._nursery is not None
        config = self._config
        link = self._links[peer] = Link(
            peer,
            Outbox(max_messages=config.queue_messages, max_bytes=config.queue_bytes),
            trio.Semaphore(config.validations_per_peer),
        )
        self._nursery.start_soon(self._serve, link)
        return link

    async def _serve(self, link: Link) -> None:
        host, _ = self._running()
        try:
            with link.scope:
                await keep_writing(host, link, self._router.protocols, self._opened, self._rng)
        finally:
            if not link.gone and not link.leaving:
                if host.connections(link.peer):
                    self._end_link(link.peer)  # it does not want to hear us, so it is not heard
                else:
                    self._lose(link.peer)

    def _lose(self, peer: PeerId) -> None:
        """The last connection to ``peer`` is gone. What it sent before may still be waiting to be read."""
        link = self._links.get(peer)
        if link is not None and link.inbound is not None and link.joined.is_set():
            link.leaving = True
            link.scope.cancel()
        else:
            self._end_link(peer)

    def _end_link(self, peer: PeerId) -> None:
        link = self._links.pop(peer, None)
        if link is not None:
            link.end()
            self._perform(self._router.peer_left(peer, trio.current_time()))
            if link.leaving and self._host is not None and self._nursery is not None:
                # It may have come back meanwhile.
                self._consider(self._host, peer)

    def _opened(self, link: Link, stream: Stream) -> None:
        host, _ = self._running()
        link.outbox.restart(map(self._router.subscription, self._subscribers))
        # The address of a relay says nothing about the peer behind it.
        direct = [connection for connection in host.connections(link.peer) if not is_relay(connection.remote_addr)]
        known = [host_port(connection.remote_addr) for connection in direct]
        actions = self._router.peer_joined(
            link.peer,
            stream.protocol or self._router.protocols[0],
            trio.current_time(),
            outbound=stream.connection.direction is Direction.OUTBOUND,
            addresses=[found[0] for found in known if found is not None],
        )
        link.joined.set()
        self._perform(actions)

    async def _receive(self, stream: Stream) -> None:
        """Read what the peer sends, on the stream it opened, to which nothing is ever written."""
        if self._nursery is None:
            return stream.reset()  # the host is closing
        peer = stream.connection.peer
        link = self._links.get(peer) or self._link(peer)
        previous, link.inbound = link.inbound, stream
        if previous is not None:
            previous.reset()
        frames = FrameBuffer(self._config.rpc.size)
        try:
            # The router knows a peer once it can be answered. Until then the stream's window holds the peer back.
            await link.joined.wait()
            self._router.peer_began(peer)
            async for chunk in stream:
                for rpc in decode_rpcs(frames.receive_data(chunk), self._config.rpc):
                    if link.gone or self._host is None:
                        return stream.reset()
                    await self._take_rpc(link, rpc)
        except DecodeError as exc:
            raise RemoteProtocolError(f"pubsub: {exc}") from exc
        finally:
            if link.inbound is stream:
                link.inbound = None
                if link.leaving and not link.gone:
                    self._end_link(peer)

    # --- messages of others

    async def _take_rpc(self, link: Link, rpc: Rpc) -> None:
        decoded = [self._decode(link.peer, raw) for raw in rpc.publish]
        messages = [message for message in decoded if message is not None]
        self._unqueue(link, [message.id for message in messages])  # it has them
        actions = self._router.receive_rpc(link.peer, rpc, messages, trio.current_time())
        for message in self._perform(actions):
            if message.received_from != link.peer:  # of an earlier copy that came to nothing
                message = replace(message, received_from=link.peer)
            await self._examine(link, message)
            link.examined += 1
            if self._subscribers.behind:
                await self._subscribers.let_catch_up()
            elif link.examined % _MESSAGES_PER_TURN == 0:
                await trio.lowlevel.checkpoint()
            if link.gone or self._host is None:
                return

    def _decode(self, peer: PeerId, raw: bytes) -> Message | None:
        """The message in ``raw``, as ``peer`` or somebody before it sent it."""
        message = self._copies.get(raw)
        if message is None:
            message = self._decode_new(peer, raw)
            if message is not None and len(raw) <= _COPY_SIZE:
                self._copies[raw] = message
        elif message.topic not in self._subscribers:
            self._count("not_subscribed")
            return None
        return message

    def _decode_new(self, peer: PeerId, raw: bytes) -> Message | None:
        try:
            message = decode_message(raw, peer)
        except DecodeError:
            self._count("malformed")
            return None
        if message.topic not in self._subscribers:
            self._count("not_subscribed")
            return None
        host, _ = self._running()
        return self._application.identify(host, message)

    async def _examine(self, link: Link, message: Message) -> None:
        """Check the signature, then ask the validators."""
        _, signer = self._running()
        # Others had their turns since it came, and one may have brought a copy.
        fault = None if self._router.knows(message) else signer.check(message)
        now = trio.current_time()
        if fault is not None:
            self._count(fault.value)
            self._perform(self._router.refused(message, fault, now))
            return
        for new in self._perform(self._router.authenticated(message, now)):
            await self._validate(link, new)

    async def _validate(self, link: Link, message: Message) -> None:
        host, _ = self._running()
        checks = self._application.checks(message.topic)
        verdict = Verdict.ACCEPT
        for index, check in enumerate(checks):
            if check.is_async:
                await link.validations.acquire()
                if self._nursery is not None:
                    self._nursery.start_soon(self._validate_later, link, message, checks[index:])
                return
            verdict = check.ask(host, message)
            if verdict is not Verdict.ACCEPT:
                break
        self._settle(message, verdict)

    async def _validate_later(self, link: Link, message: Message, checks: Sequence[Check]) -> None:
        host, _ = self._running()
        try:
            verdict = await self._ask(checks, host, message)
        finally:
            link.validations.release()
        self._settle(message, verdict)

    async def _ask(self, checks: Iterable[Check], host: Host, message: Message) -> Verdict:
        for check in checks:
            verdict = await check.ask_async(host, message) if check.is_async else check.ask(host, message)
            if verdict is None:
                self._count("validator_timeouts")
                return Verdict.IGNORE
            if verdict is not Verdict.ACCEPT:
                return verdict
        return Verdict.ACCEPT

    def _settle(self, message: Message, verdict: Verdict) -> None:
        self._count(verdict.value)
        self._perform(self._router.validated(message.id, verdict, trio.current_time()))

    # --- messages of this host

    def _make(self, host: Host, signer: Signer, topic: str, data: bytes) -> Message:
        limit = self._config.rpc.size
        if len(data) > limit:
            raise MessageTooLarge(len(data), limit)
        made = signer.sign(topic, data)
        size = len(made.raw) + rpc_overhead(len(made.raw))
        if size > limit:
            raise MessageTooLarge(size, limit)
        message = self._application.identify(host, made)
        if message is None:
            raise MessageRefused(topic, Verdict.IGNORE)
        return message

    async def _send_own(self, message: Message, peers: Iterable[PeerId]) -> None:
        """Queue ``message`` for everybody at once, then wait for those who have no room."""
        framed = frame_publish(message.raw)
        outboxes = [link.outbox for peer in peers if (link := self._links.get(peer)) is not None]
        full = [outbox for outbox in outboxes if not outbox.add_message(message.id, framed)]
        if not full:
            return
        patient = [outbox for outbox in full if not outbox.stalled]
        missed = len(full) - len(patient)
        with trio.move_on_after(self._config.publish_patience):
            while patient:
                if await patient[0].wait_for_room(len(framed)) and not patient[0].add_message(message.id, framed):
                    continue  # another publisher was quicker
                patient.pop(0)
        for outbox in patient:
            # Whoever was waited for must not cost the others, who may have got room meanwhile, the message.
            if not outbox.add_message(message.id, framed):
                outbox.stalled = True
                missed += 1
        self._drop_outbound(missed)
        if missed == len(outboxes):
            raise PeersTooSlow(message.topic, message.id, missed)

    def _drop_outbound(self, count: int) -> None:
        if count:
            self._count("dropped_outbound", count)

    # --- what the router wants

    def _perform(self, actions: Iterable[Action]) -> list[Message]:
        """Carry out ``actions``. Returns the messages that are to be authenticated or validated."""
        unfinished: list[Message] = []
        for action in actions:
            if isinstance(action, Count):
                self._count(action.what, action.by)
            elif isinstance(action, Authenticate) or isinstance(action, Validate):  # noqa: SIM101 - faster so
                unfinished.append(action.message)
            elif isinstance(action, SendMessage):
                self._forward(action)
            elif isinstance(action, Deliver):
                self._deliver(action.message, own=False)
            elif isinstance(action, SendControl):
                self._send_control(action)
            elif isinstance(action, SendPrune):
                self._send_prune(action)
            elif isinstance(action, SendHello | SendExtension):
                self._send_extension(action)
            elif isinstance(action, DeliverPartial):
                self._deliver_partial(action)
            elif isinstance(action, Unqueue):
                if (link := self._links.get(action.peer)) is not None:
                    self._unqueue(link, action.ids)
            elif isinstance(action, Connect):
                self._connect(action)
            elif isinstance(action, PeerSubscribed):
                self._newcomers.unpark_all()
                self._publish_event(TopicPeerJoined(action.peer, action.topic))
            elif isinstance(action, PeerUnsubscribed):
                self._publish_event(TopicPeerLeft(action.peer, action.topic))
        self._rearm()
        return unfinished

    def _forward(self, action: SendMessage) -> None:
        framed = frame_publish(action.message.raw)
        links = [self._links.get(peer) for peer in action.peers]
        self._drop_outbound(
            sum([link is None or not link.outbox.forward(action.message.id, framed) for link in links])
        )

    def _send_control(self, action: SendControl) -> None:
        link = self._links.get(action.peer)
        if link is None or not link.outbox.add_control(action.control):
            self._count("dropped_control")

    def _send_extension(self, action: SendHello | SendExtension) -> None:
        link = self._links.get(action.peer)
        if link is not None and isinstance(action, SendHello):
            link.outbox.greet(action.control)
        elif isinstance(action, SendExtension):
            fits = len(action.field) <= self._config.rpc.size
            if link is None or not fits or not link.outbox.add_extension(frame(action.field)):
                self._drop_outbound(1)

    def _send_prune(self, action: SendPrune) -> None:
        host, _ = self._running()
        known = [(peer, host.peerstore.envelope(peer)) for peer in action.exchange]
        # Without a record it would not be believed.
        peers = tuple([Exchanged(peer, record) for peer, record in known if record is not None])
        self._send_control(SendControl(action.peer, encode_prune(Prune(action.topic, action.backoff, peers))))

    def _unqueue(self, link: Link, ids: Iterable[MessageId]) -> None:
        if removed := link.outbox.remove_messages(ids):
            self._count("not_wanted_any_more", removed)

    def _connect(self, action: Connect) -> None:
        if self._host is not None and self._nursery is not None:
            self._connector.want(self._nursery, self._host, action.peer, action.record)

    def _deliver(self, message: Message, *, own: bool) -> None:
        delivered, dropped = self._subscribers.deliver(message, own=own)
        if delivered:
            self._count("delivered", delivered)
        if dropped:
            self._count("lost", dropped)

    def _deliver_partial(self, action: DeliverPartial) -> None:
        sender = self._partials.get(action.rpc.topic)
        if sender is not None:
            update = PartialUpdate(action.peer, action.rpc.group, action.rpc.parts, action.rpc.metadata)
            sender.send_nowait(update, victim=crowding)

    def _publish_event(self, event: TopicPeerJoined | TopicPeerLeft) -> None:
        if self._host is not None:
            self._host.publish(event)

    def _announce(self, change: Subscription) -> None:
        for link in self._links.values():
            link.outbox.announce((change,))

    def _announce_again(self, topic: str) -> None:
        """What is said with a subscription has changed."""
        if topic in self._subscribers:
            self._announce(self._router.subscription(topic))
