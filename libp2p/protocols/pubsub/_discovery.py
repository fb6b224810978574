"""Company for topics: peers that are subscribed to the same, found by their name.

For each topic of this host it sees to it that others find this host there, and while too few of its peers are
subscribed it looks for others and connects to them. Who is found is anybody: nobody is tried twice in a while, only so
many are tried at a time, and the pauses between looks that lead to nobody grow.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass

import trio

from ..._util.bounded import ExpiringMap
from ...abc import Discovery, Host, Service
from ...errors import Libp2pError
from ...metrics import Metric, Tally
from ...peer_id import PeerId
from ._events import TopicPeerLeft
from ._service import Pubsub


@dataclass(frozen=True, slots=True, kw_only=True)
class TopicDiscoveryConfig:
    """When peers are looked for, and how many are tried. Times are in seconds."""

    wanted: int = 6
    """Peers of a topic below which others are looked for (gossipsub's degree)."""
    per_look: int = 16
    """Peers tried in one look (ours)."""
    dials: int = 8
    """Peers tried at a time, for all topics (ours)."""
    topics: int = 100
    """Topics that company is looked for (ours); what is subscribed to later goes without."""
    interval: float = 1.0
    """Between two looks at which topics this host is subscribed to (go)."""
    look: float = 20.0
    """How long one look goes on when it finds too few (ours)."""
    connect_timeout: float = 10.0
    """For one peer (go)."""
    first_pause: float = 1.0
    """Before the first look, for hosts that start together to be found, and after one that was of use (ours)."""
    max_pause: float = 60.0
    """After many that did not: pauses double (ours)."""
    retry: float = 60.0
    """Until a peer that was tried is tried again, whatever came of it (ours)."""
    remembered: int = 1000
    """Peers remembered for that (ours)."""

    def __post_init__(self) -> None:
        if min(self.wanted, self.per_look, self.dials, self.topics, self.remembered) < 1:
            raise ValueError("bounds of discovery must be positive")
        times = (self.interval, self.look, self.connect_timeout, self.first_pause, self.retry)
        if min(times) <= 0 or self.max_pause < self.first_pause:
            raise ValueError("times of discovery must be positive, and max_pause not below first_pause")


class TopicDiscovery(Service):
    """Finds peers for the topics that ``pubsub`` is subscribed to.

    ::

        pubsub, rendezvous = Pubsub(), Rendezvous([point])
        open_host(services=[pubsub, rendezvous, TopicDiscovery(pubsub, rendezvous)])

    It runs after both. Peers it connects to are disconnected by nobody but the connection limits.

    Args:
        pubsub: whose topics.
        discovery: how others are found; topics are the names.
        config: when and how many.
        rng: spreads the looks of many hosts.
    """

    def __init__(
        self,
        pubsub: Pubsub,
        discovery: Discovery,
        *,
        config: TopicDiscoveryConfig | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._pubsub = pubsub
        self._discovery = discovery
        self._config = config = config or TopicDiscoveryConfig()
        self._rng = rng or random.Random()
        self._scopes: dict[str, trio.CancelScope] = {}
        self._dials = trio.Semaphore(config.dials)
        self._tried: ExpiringMap[PeerId, bool] = ExpiringMap(config.remembered)
        self._events = Tally()

    def measure(self) -> Iterable[Metric]:
        """Looks, and what they led to."""
        yield self._events.metric(
            "libp2p_pubsub_discovery_total", "Looks for peers of topics, and peers tried", "event"
        )

    async def run(self, host: Host, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep company for all topics, until cancelled."""
        async with trio.open_nursery() as nursery:
            task_status.started()
            try:
                while True:
                    self._follow(host, nursery)
                    await trio.sleep(self._config.interval)
            finally:
                self._scopes.clear()

    def _follow(self, host: Host, nursery: trio.Nursery) -> None:
        """Start with topics that are new, and end with those that are gone."""
        topics = self._pubsub.topics()[: self._config.topics]
        for topic in [topic for topic in self._scopes if topic not in topics]:
            self._scopes.pop(topic).cancel()
        for topic in topics:
            if topic not in self._scopes:
                scope = self._scopes[topic] = trio.CancelScope()
                nursery.start_soon(self._keep_company, host, topic, scope)

    async def _keep_company(self, host: Host, topic: str, scope: trio.CancelScope) -> None:
        with scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._advertise, host, topic)
                nursery.start_soon(self._search, host, topic)

    async def _advertise(self, host: Host, topic: str) -> None:
        while True:
            with host.contain("advertising", topic):
                try:
                    async with self._discovery.advertise(topic):
                        await trio.sleep_forever()
                except ValueError:
                    return self._events.add("unfit_name")
            await self._rest(self._config.max_pause)

    async def _search(self, host: Host, topic: str) -> None:
        pause = self._config.first_pause
        await self._rest(pause)
        while True:
            with host.subscribe(TopicPeerLeft) as events:
                while self._is_enough(topic):
                    await events.receive()
            if await self._look(host, topic):
                pause = self._config.first_pause
            await self._rest(pause)
            pause = min(pause * 2, self._config.max_pause)

    async def _rest(self, pause: float) -> None:
        await trio.sleep(pause * self._rng.uniform(0.5, 1.0))

    def _is_enough(self, topic: str) -> bool:
        return len(self._pubsub.peers(topic)) >= self._config.wanted

    async def _look(self, host: Host, topic: str) -> int:
        """Look once. Returns how many new connections it led to."""
        self._events.add("looks")
        connected: list[PeerId] = []
        with host.contain("looking for peers of", topic), trio.move_on_after(self._config.look):
            try:
                async with self._discovery.find_peers(topic) as found, trio.open_nursery() as nursery:
                    left = self._config.per_look
                    async for peer in found:
                        if not left or self._is_enough(topic):
                            break
                        if self._is_worth_a_try(host, peer):
                            left -= 1
                            await self._dials.acquire()
                            nursery.start_soon(self._connect, host, peer, connected)
            except ValueError:
                self._events.add("unfit_name")
        return len(connected)

    def _is_worth_a_try(self, host: Host, peer: PeerId) -> bool:
        now = trio.current_time()
        if peer == host.local_peer or host.connections(peer) or self._tried.get(peer, now):
            return False
        self._tried.put(peer, True, expires=now + self._config.retry)
        return True

    async def _connect(self, host: Host, peer: PeerId, connected: list[PeerId]) -> None:
        try:
            # By what the peerstore knows only: an address from anybody must not be one that the host insists on.
            with trio.fail_after(self._config.connect_timeout):
                await host.connect(peer)
            self._events.add("connected")
            connected.append(peer)
        except (Libp2pError, trio.TooSlowError):
            self._events.add("failed")
        finally:
            self._dials.release()
