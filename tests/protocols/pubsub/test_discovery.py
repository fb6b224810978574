"""Peers for topics, found by their name."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from multiaddr import Multiaddr

from libp2p.abc import Discovery, Host, Service
from libp2p.errors import ServiceError
from libp2p.metrics import render
from libp2p.peer_id import PeerId
from libp2p.protocols.pubsub import Pubsub, TopicDiscovery, TopicDiscoveryConfig, TopicPeerLeft
from libp2p.testing import memory_network
from libp2p.testing.discovery import BoardReader, Noticeboard
from libp2p.testing.keys import seeded_key
from tests.protocols.pubsub.networks import Services
from tests.protocols.waiting import settled

CONFIG = TopicDiscoveryConfig(wanted=2)
"""Few, so that a handful of hosts is many."""


class Kit:
    """The services of all hosts, by kind."""

    def __init__(self, config: TopicDiscoveryConfig = CONFIG) -> None:
        self.board = Noticeboard()
        self.pubsub = Services()
        self.readers: list[BoardReader] = []
        self.discoveries: list[TopicDiscovery] = []
        self._config = config

    def reader(self) -> BoardReader:
        self.readers.append(self.board.reader())
        return self.readers[-1]

    def discovery(self) -> TopicDiscovery:
        made = TopicDiscovery(self.pubsub.made[-1], self.readers[-1], config=self._config, rng=random.Random(0))
        self.discoveries.append(made)
        return made

    @property
    def services(self) -> list[Services | type[Service]]:
        return [self.pubsub, self.reader, self.discovery]  # type: ignore[list-item]


def events(service: Service) -> dict[str, float]:
    (metric,) = service.measure()
    return {labels[0]: value for labels, value in metric.values.items() if isinstance(value, float | int)}


def test_what_is_offered_is_what_is_asked_for() -> None:
    reader = Noticeboard().reader()
    discovery: Discovery = reader
    assert discovery is reader


async def test_hosts_that_know_nobody_find_each_other() -> None:
    kit = Kit()
    async with memory_network(2, services=kit.services) as hosts:
        one, other = kit.pubsub.made
        async with one.subscribe("news"), other.subscribe("news") as messages:
            with trio.fail_after(10):
                await one.wait_for_peers("news")
                await one.publish("news", b"hello", require_peers=True)
                assert (await messages.receive()).data == b"hello"
            assert 'libp2p_pubsub_discovery_total{event="connected"}' in "".join(
                [render(host.measure()) for host in hosts]
            )
        await trio.sleep(2)
        assert not any(kit.board.notices.values()), "who has left the topic is not found there any more"


async def test_whoever_has_company_does_not_look() -> None:
    kit = Kit()
    async with memory_network(3, services=kit.services) as hosts:
        pubsubs = kit.pubsub.made
        await hosts.connect()
        async with pubsubs[0].subscribe("news"), pubsubs[1].subscribe("news"), pubsubs[2].subscribe("news"):
            await settled()
            await trio.sleep(300)
            assert [reader.looks for reader in kit.readers] == [0, 0, 0]
            with hosts[0].subscribe(TopicPeerLeft) as left:
                await hosts[0].disconnect(hosts[1].local_peer)
                await left.receive()
            with trio.fail_after(10):
                await pubsubs[0].wait_for_peers("news", 2)
            assert kit.readers[0].looks + kit.readers[1].looks >= 1, "but whoever has lost it does"


async def test_pauses_grow_while_nobody_is_there() -> None:
    kit = Kit()
    async with memory_network(1, services=kit.services), kit.pubsub.made[0].subscribe("news"):
        await trio.sleep(20)
        first = kit.readers[0].looks
        assert 4 <= first <= 8
        await trio.sleep(600)
        assert 10 <= kit.readers[0].looks - first <= 22


class Lying(Service):
    """Finds peers that are not there, more and more of them."""

    def __init__(self) -> None:
        self.taken = 0

    async def run(self, host: Host, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        self._host = host
        task_status.started()

    @asynccontextmanager
    async def advertise(self, name: str, /) -> AsyncIterator[None]:
        yield

    @asynccontextmanager
    async def find_peers(self, name: str, /) -> AsyncIterator[trio.abc.ReceiveChannel[PeerId]]:
        sender, receiver = trio.open_memory_channel[PeerId](0)
        async with trio.open_nursery() as nursery, receiver:
            nursery.start_soon(self._lie, sender)
            yield receiver
            nursery.cancel_scope.cancel()

    async def _lie(self, sender: trio.MemorySendChannel[PeerId]) -> None:
        while True:
            peer = PeerId.from_key(seeded_key(str(self.taken)).public_key)
            self._host.peerstore.add_addrs(peer, [Multiaddr(f"/memory/{self.taken}")], ttl=60)
            await sender.send(self._host.local_peer)
            await sender.send(peer)
            self.taken += 1


async def test_a_provider_that_lies_costs_a_few_dials() -> None:
    pubsub, lying = Pubsub(), Lying()
    discovery = TopicDiscovery(pubsub, lying, config=TopicDiscoveryConfig(per_look=5), rng=random.Random(0))
    services = [lambda: pubsub, lambda: lying, lambda: discovery]
    async with memory_network(1, services=services), pubsub.subscribe("news"):
        while not events(discovery):
            await trio.sleep(0.1)
        await trio.sleep(0.1)
        assert events(discovery) == {"looks": 1, "failed": 5}
        assert lying.taken <= 6
        await trio.sleep(600)
        found = events(discovery)
        assert found["failed"] == 5 * found["looks"] <= 5 * 30


class Same(Lying):
    """Finds the same peer again and again."""

    async def _lie(self, sender: trio.MemorySendChannel[PeerId]) -> None:
        peer = PeerId.from_key(seeded_key("same").public_key)
        while True:
            await sender.send(peer)
            await trio.sleep(0.1)


async def test_a_peer_is_not_tried_again_in_a_while() -> None:
    pubsub, same = Pubsub(), Same()
    discovery = TopicDiscovery(pubsub, same, config=TopicDiscoveryConfig(look=60), rng=random.Random(0))
    services = [lambda: pubsub, lambda: same, lambda: discovery]
    async with memory_network(1, services=services), pubsub.subscribe("news"):
        await trio.sleep(59)
        assert events(discovery) == {"looks": 1, "failed": 1}
        await trio.sleep(600)
        assert events(discovery)["failed"] <= 11


class Broken(Lying):
    """Raises."""

    error: Exception = ServiceError("nobody answers")

    @asynccontextmanager
    async def advertise(self, name: str, /) -> AsyncIterator[None]:
        self.taken += 1
        raise self.error
        yield

    @asynccontextmanager
    async def find_peers(self, name: str, /) -> AsyncIterator[trio.abc.ReceiveChannel[PeerId]]:
        raise self.error
        yield


@pytest.mark.parametrize(
    ("error", "advertised"), [(ServiceError("nobody answers"), range(10, 25)), (ValueError("too long"), range(1, 2))]
)
async def test_a_provider_that_fails_is_asked_again(error: Exception, advertised: range) -> None:
    """But not with a name it cannot take."""
    pubsub, broken = Pubsub(), Broken()
    broken.error = error
    discovery = TopicDiscovery(pubsub, broken, rng=random.Random(0))
    services = [lambda: pubsub, lambda: broken, lambda: discovery]
    async with memory_network(1, services=services), pubsub.subscribe("news"):
        await trio.sleep(600)
        assert broken.taken in advertised
        assert events(discovery)["looks"] in range(10, 30)
        assert ("unfit_name" in events(discovery)) == isinstance(error, ValueError)


async def test_only_so_many_topics_get_company() -> None:
    kit = Kit(TopicDiscoveryConfig(topics=1))
    async with memory_network(1, services=kit.services):
        (pubsub,) = kit.pubsub.made
        async with pubsub.subscribe("one"), pubsub.subscribe("two"):
            await trio.sleep(5)
            assert list(kit.board.notices) == ["one"]


async def test_the_board_needs_a_name_and_a_host() -> None:
    reader = Noticeboard().reader()
    with pytest.raises(RuntimeError):
        async with reader.find_peers("x"):
            pass
    async with memory_network(1, services=[lambda: reader]):
        with pytest.raises(ValueError, match="empty"):
            async with reader.advertise(""):
                pass


@pytest.mark.parametrize("wrong", [{"wanted": 0}, {"look": 0}, {"first_pause": 2, "max_pause": 1}])
def test_configurations_that_make_no_sense(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be positive"):
        TopicDiscoveryConfig(**wrong)  # type: ignore[arg-type]
