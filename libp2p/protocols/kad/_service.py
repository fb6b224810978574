"""The DHT as a service of a host: its life, its streams, and what applications ask of it."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from typing import TypeAlias, TypeVar

import trio
from multiaddr import Multiaddr

from ..._util.nursery import open_unwrapping_nursery
from ...abc import Host, Routing, Service, Stream
from ...addressing import parse, split_peer
from ...errors import DecodeError, LimitExceeded, RemoteProtocolError
from ...events import ListenAddrsChanged, PeerIdentified
from ...metrics import Kind, LabelValues, Metric, Value
from ...peer_id import PeerId
from ...wire.framing import FrameBuffer, frame
from ._addrs import readable
from ._codec import MAX_REQUEST, Message, MessageType
from ._config import KadConfig, Mode
from ._errors import Ended, NotFound, NotStored
from ._keyspace import preimage
from ._lookup import MAX_NAMED, NAMED_AT_ONCE, UNREACHABLE, Lookups
from ._members import Members
from ._messenger import Messenger
from ._node import Node
from ._providers import ProviderSearch, announce, check_key
from ._records import Namespaces
from ._routing_table import RoutingTable
from ._server import Server
from ._store import MemoryStore, Store
from ._values import ValueSearch, put

T = TypeVar("T")
StoreFactory: TypeAlias = Callable[[PeerId], Store]
"""Makes the store of a host, whose id it needs to know what is far away."""

MAX_FOUND = 1000
"""Providers that one search yields."""
_TEND_INTERVAL = 30.0
"""Seconds between two looks at what has ended."""
_RETRY = 60.0
"""Seconds until what nobody could be told is announced again."""
_PINGED = 10
"""Silent peers that are asked for a sign of life at a time."""


class Kademlia(Service, Routing):
    """A node of a Kademlia DHT: finds peers, providers and values, and helps others to.

    Args:
        config: which network, and how to behave there.
        bootstrap: addresses of servers to begin with, each with its peer id. They are asked again whenever the routing
            table is empty.
        store: makes the store for what others put here; in memory by default. It is closed with the service.
        rng: chooses what to look up to keep the table fresh.
        clock: wall clock in seconds since 1970: when records end.

    Raises:
        ValueError: a bootstrap address has no peer id.
    """

    def __init__(
        self,
        config: KadConfig | None = None,
        *,
        bootstrap: Iterable[Multiaddr | str] = (),
        store: StoreFactory = MemoryStore,
        rng: random.Random | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.config: KadConfig = config or KadConfig()
        self._bootstrap: dict[PeerId, list[Multiaddr]] = {}
        for given in bootstrap:
            addr, peer = split_peer(parse(given))
            if peer is None:
                raise ValueError(f"{given} does not end in the peer to begin with: /p2p/...")
            self._bootstrap.setdefault(peer, []).append(addr)
        self._make_store = store
        self._rng = rng or random.Random()
        self._clock = clock
        self._namespaces = Namespaces(self.config.validators)
        self._provided: dict[bytes, None] = {}
        self._missed = trio.Event()
        self._serving: AbstractContextManager[object] | None = None
        self._running: Node | None = None

    # --- life ---------------------------------------------------------------------------------------------------------

    async def run(self, host: Host, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Take part in the DHT until cancelled."""
        store = self._make_store(host.local_peer)
        table = RoutingTable(host.local_peer, self.config.table)
        messenger = Messenger(host, self.config)
        try:
            async with trio.open_nursery() as nursery:
                with host.subscribe(PeerIdentified, ListenAddrsChanged) as events:
                    members = Members(host, self.config, table, messenger, nursery, list(self._bootstrap))
                    self._running = node = Node(
                        host=host,
                        config=self.config,
                        clock=self._clock,
                        namespaces=self._namespaces,
                        store=store,
                        messenger=messenger,
                        members=members,
                        lookups=Lookups(host, self.config, members, messenger),
                        server=Server(host, self.config, table, store, self._namespaces),
                        nursery=nursery,
                        correcting=trio.CapacityLimiter(self.config.corrections_at_once),
                    )
                    await nursery.start(store.run)
                    self._choose_mode(host)
                    self._remember_bootstrap(host)  # the first lookup may come before they have answered
                    for peer in {connection.peer: None for connection in host.connections()}:
                        self._on_protocols(node, peer, host.peerstore.protocols(peer))
                    task_status.started()
                    nursery.start_soon(self._tend, node)
                    nursery.start_soon(self._refresh, node)
                    nursery.start_soon(self._reprovide, node)
                    async for event in events:
                        if isinstance(event, PeerIdentified):
                            self._on_protocols(node, event.peer, event.protocols)
                        else:
                            self._choose_mode(host)
        finally:
            self._running = None
            self._stop_serving()
            messenger.close()
            store.close()

    def _node(self) -> Node:
        if self._running is None:
            raise RuntimeError("the DHT is not running: give it to open_host(services=[...])")
        return self._running

    def _on_protocols(self, node: Node, peer: PeerId, protocols: Iterable[str]) -> None:
        if self.config.protocol not in protocols:
            node.members.left(peer)
        elif node.members.table.wants(peer):
            node.members.check(peer)

    def _choose_mode(self, host: Host) -> None:
        """Serve, or stop serving, as the configuration and the announced addresses say."""
        mode = self.config.mode
        serve = mode is Mode.SERVER or (
            mode is Mode.AUTO and any(self.config.reach.admits(split_peer(addr)[0]) for addr in host.addrs)
        )
        if not serve:
            self._stop_serving()
        elif self._serving is None:
            self._serving = host.handle(self.config.protocol, self._serve)

    def _stop_serving(self) -> None:
        if self._serving is not None:
            self._serving.__exit__(None, None, None)
            self._serving = None

    # --- upkeep -------------------------------------------------------------------------------------------------------

    async def _tend(self, node: Node) -> None:
        """Forget what has ended, see whether silent peers are still there, and find somebody when nobody is left."""
        while True:
            if not len(node.members.table):
                await self._join(node)
            node.messenger.sweep()
            node.store.expire(self._clock())
            now = trio.current_time()
            for peer in node.members.table.silent(now, self.config.refresh_interval, _PINGED):
                node.members.check(peer)
            await trio.sleep(_TEND_INTERVAL)

    def _remember_bootstrap(self, host: Host) -> None:
        for peer, addrs in self._bootstrap.items():
            host.peerstore.add_addrs(peer, addrs, ttl=self.config.found_addrs_ttl)

    async def _join(self, node: Node) -> None:
        self._remember_bootstrap(node.host)
        async with trio.open_nursery() as nursery:
            for peer, addrs in self._bootstrap.items():
                nursery.start_soon(self._ask_bootstrap, node, peer, addrs)

    async def _ask_bootstrap(self, node: Node, peer: PeerId, addrs: Sequence[Multiaddr]) -> None:
        try:
            await node.host.connect(peer, addrs)
        except UNREACHABLE:
            return  # the next round tries again
        node.members.check(peer)

    async def _refresh(self, node: Node) -> None:
        """Look up this host itself, and something in every bucket where nothing was looked up lately."""
        table, lookups = node.members.table, node.lookups
        while True:
            if len(table):
                timeout = self.config.refresh_timeout
                await lookups.closest(bytes(node.host.local_peer), timeout=timeout)
                for bucket in table.stale(trio.current_time(), self.config.refresh_interval):
                    await lookups.closest(preimage(table.point, bucket, self._rng), timeout=timeout)
                await trio.sleep(self.config.refresh_interval)
            else:
                await trio.sleep(1)

    async def refresh(self) -> None:
        """Look up this host itself now: what a node that has just met its first peers does by itself a moment later."""
        node = self._node()
        await node.lookups.closest(bytes(node.host.local_peer), timeout=self.config.refresh_timeout)

    # --- answering ----------------------------------------------------------------------------------------------------

    async def _serve(self, stream: Stream) -> None:
        peer, frames, served = stream.connection.peer, FrameBuffer(MAX_REQUEST), 0
        with trio.CancelScope(deadline=trio.current_time() + self.config.idle_timeout) as scope:
            while served < self.config.messages_per_stream:
                began = bool(frames.buffered)
                chunk = await stream.receive_some()
                if not chunk:
                    return
                try:
                    requests = frames.receive_data(chunk)
                except DecodeError as exc:
                    raise RemoteProtocolError(f"not a request of the DHT: {exc}") from exc
                for request in requests[: self.config.messages_per_stream - served]:
                    served += 1
                    await self._answer(stream, peer, request, scope)
                if requests or not began:
                    # A message that has begun must be complete by an absolute time, however it drips in (case K1).
                    allowed = self.config.read_timeout if frames.buffered else self.config.idle_timeout
                    scope.deadline = trio.current_time() + allowed
        if scope.cancelled_caught:
            raise trio.TooSlowError

    async def _answer(self, stream: Stream, peer: PeerId, request: bytes, scope: trio.CancelScope) -> None:
        if self._running is None:
            raise Ended("the DHT has ended, and the connection soon will")
        now = trio.current_time()
        answer = self._running.server.answer(peer, request, now=now, wall=self._clock())
        if answer is not None:
            scope.deadline = now + self.config.read_timeout
            await stream.send_all(frame(answer))

    # --- looking around -----------------------------------------------------------------------------------------------

    @property
    def serving(self) -> bool:
        """Whether this host answers others now."""
        return self._serving is not None

    @property
    def table(self) -> RoutingTable:
        """The routing table, to look at.

        Raises:
            RuntimeError: the service is not running.
        """
        return self._node().members.table

    def metrics(self) -> Mapping[str, int]:
        """Requests that were answered, by kind, and refusals, by reason; and the size of the routing table."""
        node = self._node()
        return {**node.server.counters, "table": len(node.members.table)}

    def measure(self) -> Iterator[Metric]:
        """The same for operators; nothing while it does not run."""
        if self._running is None:
            return
        network = self.config.protocol
        events: dict[LabelValues, Value] = {
            (network, name): float(count) for name, count in self._running.server.counters.items()
        }
        labels = ("network", "event")
        yield Metric("libp2p_kad_requests_total", "Requests of others, and refusals", Kind.COUNTER, events, labels)
        peers: dict[LabelValues, Value] = {(network,): float(len(self.table))}
        yield Metric("libp2p_kad_table_peers", "Peers in the routing table", Kind.GAUGE, peers, ("network",))

    async def closest_peers(self, key: bytes) -> Sequence[PeerId]:
        """Return the servers nearest to ``key``, nearest first; at most k. Empty when nobody answers."""
        return await self._node().lookups.closest(key)

    async def ask_peer(self, peer: PeerId, key: bytes) -> Sequence[PeerId]:
        """Ask one server for the peers it knows near ``key``: for crawlers.

        Raises:
            DialError, NegotiationError, RemoteProtocolError, trio.TooSlowError, trio.BrokenResourceError: it does not
                answer.
        """
        node = self._node()
        answer = await node.messenger.ask(peer, Message(type=MessageType.FIND_NODE, key=key))
        for info in answer.closer:
            addrs = readable(info.addrs, info.peer)
            node.host.peerstore.add_addrs(info.peer, addrs, ttl=self.config.found_addrs_ttl)
        return [info.peer for info in answer.closer if info.peer != node.host.local_peer]

    # --- peers --------------------------------------------------------------------------------------------------------

    async def find_peer(self, peer: PeerId) -> Sequence[Multiaddr]:
        """Return addresses of ``peer``.

        Whoever names addresses may lie, so they are tried: a peer that was reached is connected when this returns, and
        its addresses are those it was reached at and those it then gave. When nobody's addresses work, all that were
        named are returned. Empty when nobody knows the peer.
        """
        node = self._node()
        host, named = node.host, dict[Multiaddr, None]()

        def found() -> bool:
            # Who has just come to us is connected, and has yet to say where it can be reached.
            return bool(host.connections(peer)) and bool(named or host.peerstore.addrs(peer))

        if found():
            await trio.lowlevel.checkpoint()
            return host.peerstore.addrs(peer)
        async with trio.open_nursery() as nursery:

            def on_answer(_: PeerId, answer: Message) -> bool:
                told = [addr for info in answer.closer if info.peer == peer for addr in readable(info.addrs, peer)]
                fresh = [addr for addr in told[:NAMED_AT_ONCE] if addr not in named][: MAX_NAMED - len(named)]
                if fresh:
                    named.update(dict.fromkeys(fresh))
                    nursery.start_soon(self._try, node, peer, fresh, nursery.cancel_scope)
                return found()

            await node.lookups.run(Message(type=MessageType.FIND_NODE, key=bytes(peer)), on_answer)
        known = host.peerstore.addrs(peer) if host.connections(peer) else ()
        return known or list(named)

    async def _try(self, node: Node, peer: PeerId, addrs: Sequence[Multiaddr], scope: trio.CancelScope) -> None:
        try:
            await node.host.connect(peer, addrs)
        except UNREACHABLE:
            return  # somebody else may know better
        scope.cancel()

    # --- values -------------------------------------------------------------------------------------------------------

    async def put_value(self, key: bytes, value: bytes) -> None:
        """Store ``value`` under ``key``, here and with the servers nearest to it.

        Raises:
            InvalidRecord: the namespace's rules refuse it, or a better value is known here.
            NotStored: no server took it.
        """
        await put(self._node(), key, value)

    async def get_value(self, key: bytes, *, quorum: int | None = None) -> bytes:
        """Return the best value under ``key``.

        Servers that have a worse one, or should have one and have not, are told of the best afterwards.

        Args:
            quorum: values to see before the best is taken; 0: ask everybody concerned; by default the configuration's.

        Raises:
            InvalidRecord: nobody here has rules for the key's namespace.
            NotFound: nobody has a valid value.
        """
        search = ValueSearch(self._node(), key, self.config.quorum if quorum is None else quorum)
        await search.run()
        if search.best is None:
            raise NotFound(key, search.asked)
        return search.best

    @asynccontextmanager
    async def search_value(self, key: bytes) -> AsyncIterator[trio.abc.ReceiveChannel[bytes]]:
        """Receive values under ``key`` while they are found, each better than the one before; the last is the best.

        Everybody concerned is asked. Leaving the block ends the search.

        Raises:
            InvalidRecord: nobody here has rules for the key's namespace.
        """
        self._namespaces.of(key)
        send, receive = trio.open_memory_channel[bytes](self.config.query.max_asked + 1)
        search = ValueSearch(self._node(), key, 0, send.send_nowait)
        async with _searching(search.run, send, receive):
            yield receive

    # --- providers ----------------------------------------------------------------------------------------------------

    async def provide(self, key: bytes) -> None:
        """Announce that this host has what ``key``, a multihash, stands for; see :meth:`provide_many`."""
        await self.provide_many([key])

    async def provide_many(self, keys: Iterable[bytes]) -> None:
        """Announce that this host has what ``keys`` stand for, now and every ``reprovide_interval``.

        Raises:
            NotStored: no server took an announcement, or this host has no address. It is tried again once a minute.
            LimitExceeded: this host provides too much.
            ValueError: a key is empty or longer than 80 bytes.
        """
        node, wanted = self._node(), dict.fromkeys(keys)
        for key in wanted:
            check_key(key)
        if len(self._provided) + len(wanted) > self.config.provided:
            raise LimitExceeded("provided", self.config.provided)
        self._provided.update(wanted)
        told = 0
        try:
            told = await announce(node, wanted)
        finally:
            if wanted and not told:
                self._missed.set()
        if wanted and not told:
            raise NotStored(next(iter(wanted)), "nobody took the announcement")

    def stop_providing(self, key: bytes) -> None:
        """Announce ``key`` no more. Servers forget it in time. Harmless when it was not provided."""
        self._provided.pop(key, None)

    @property
    def provided(self) -> Sequence[bytes]:
        """What this host provides."""
        return tuple(self._provided)

    @asynccontextmanager
    async def find_providers(
        self, key: bytes, *, count: int | None = None
    ) -> AsyncIterator[trio.abc.ReceiveChannel[PeerId]]:
        """Receive providers of ``key`` while they are found, each once; their addresses are in the peerstore then.

        Leaving the block ends the search.

        Args:
            count: how many are enough; by default :data:`MAX_FOUND`.

        Raises:
            ValueError: the key is empty or longer than 80 bytes.
        """
        check_key(key)
        send, receive = trio.open_memory_channel[PeerId](MAX_FOUND)
        limit = MAX_FOUND if count is None else min(count, MAX_FOUND)
        search = ProviderSearch(self._node(), key, limit, send.send_nowait)
        async with _searching(search.run, send, receive):
            yield receive

    async def _reprovide(self, node: Node) -> None:
        """Announce everything again in time, and soon where nobody could be told."""
        while True:
            with trio.move_on_after(self.config.reprovide_interval):
                await self._missed.wait()
                await trio.sleep(_RETRY)
            self._missed = trio.Event()
            told = 0
            try:
                told = await announce(node, self._provided)
            except NotStored:
                pass  # no address at the moment
            if self._provided and not told:
                self._missed.set()


@asynccontextmanager
async def _searching(
    run: Callable[[], Awaitable[None]], send: trio.MemorySendChannel[T], receive: trio.MemoryReceiveChannel[T]
) -> AsyncIterator[None]:
    """Run a search while the block is open; the channel ends when the search does."""

    async def search() -> None:
        with send:
            await run()

    async with open_unwrapping_nursery() as nursery:
        nursery.start_soon(search)
        with receive:
            yield
        nursery.cancel_scope.cancel()
