"""Relays that are found by looking for them: under a name, and in the DHT."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import trio
from multiaddr import Multiaddr

from libp2p.errors import ServiceError
from libp2p.peer_id import PeerId
from libp2p.protocols.kad import DhtDiscovery, KadConfig, Kademlia, Mode
from libp2p.protocols.relay import RELAYS, RelayClientConfig, RelayLimits, RelayServer
from libp2p.testing.discovery import Noticeboard
from libp2p.testing.keys import seeded_key
from tests.protocols.relay.nodes import client, net, wall
from tests.protocols.waiting import until


async def test_relays_are_found_when_too_few_are_known() -> None:
    async with net() as found:
        board = Noticeboard()
        for number in range(3):
            reader = board.reader()
            await found.open(f"relay {number}", reader, RelayServer(discovery=reader, clock=wall))
        assert list(board.notices) == [RELAYS]
        known = await found.open("known", RelayServer(clock=wall))
        reader = board.reader()
        service = client(relays=[known.addrs[0]], discovery=reader)
        host = await found.open("host", reader, service)
        await host.listen("/p2p-circuit")
        await until(lambda: len(service.reservations) == 2)
        assert known.local_peer in service.reservations
        looks = reader.looks
        await trio.sleep(300)
        assert reader.looks == looks == 1  # two are enough
        [lost] = [relay for relay in service.reservations if relay != known.local_peer]
        await host.disconnect(lost)
        await until(lambda: lost not in service.reservations)
        await until(lambda: len(service.reservations) == 2)
        assert lost not in service.reservations


async def test_looks_that_do_not_help_become_rare() -> None:
    async with net() as found:
        board = Noticeboard()
        reader, looker = board.reader(), board.reader()
        # One relay, which is full; and the host itself is one, too.
        await found.open("relay", reader, RelayServer(RelayLimits(reservations=0), discovery=reader, clock=wall))
        service = client(discovery=looker, config=RelayClientConfig(retry=10, max_retry=80))
        host = await found.open("host", looker, service, RelayServer(discovery=looker, clock=wall))
        await host.listen("/p2p-circuit")
        await trio.sleep(400)
        assert not service.reservations
        assert looker.looks == 7  # after 1, 21, 61, 141, 221, 301, 381 seconds


class Flood:
    """A discovery that is full of relays that are not there, and does not end."""

    def advertise(self, name: str, /) -> AbstractAsyncContextManager[None]:
        raise NotImplementedError

    @asynccontextmanager
    async def find_peers(self, name: str, /) -> AsyncIterator[trio.abc.ReceiveChannel[PeerId]]:
        sender, receiver = trio.open_memory_channel[PeerId](500)
        for number in range(500):
            sender.send_nowait(PeerId.from_key(seeded_key(f"ghost {number}").public_key))
        yield receiver


async def test_r1_a_flood_of_relays_that_are_none() -> None:
    async with net() as found:
        service = client(discovery=Flood())
        host = await found.open("host", service)
        await host.listen("/p2p-circuit")
        await trio.sleep(20)
        assert len(service._found) == 64 and len(service._failures) <= 256
        relay = await found.open("relay", RelayServer(clock=wall))
        await relay.connect(host.addrs[0])
        await until(lambda: list(service.reservations) == [relay.local_peer])


class Broken(Flood):
    """A discovery that fails at first."""

    def __init__(self) -> None:
        self.calls = 0

    def advertise(self, name: str, /) -> AbstractAsyncContextManager[None]:
        self.calls += 1
        return self._advertise()

    @asynccontextmanager
    async def _advertise(self) -> AsyncIterator[None]:
        if self.calls < 3:
            await trio.sleep(1)
            raise ServiceError("not today")
        yield


async def test_a_relay_is_advertised_again_when_that_failed() -> None:
    async with net() as found:
        broken = Broken()
        server = RelayServer(discovery=broken, clock=wall)
        await found.open("relay", server)
        await trio.sleep(600)
        assert broken.calls == 3


async def test_relays_are_found_in_the_dht() -> None:
    async with net() as found:

        def dht(name: str, *bootstrap: Multiaddr) -> Kademlia:
            rng = random.Random(name)
            return Kademlia(KadConfig(mode=Mode.SERVER), bootstrap=bootstrap, rng=rng, clock=trio.current_time)

        first = await found.open("first", dht("first"))
        serving, asking = dht("serving", first.addrs[0]), dht("asking", first.addrs[0])
        relay = await found.open("relay", serving, RelayServer(discovery=DhtDiscovery(serving), clock=wall))
        service = client(discovery=DhtDiscovery(asking))
        host = await found.open("host", asking, service)
        await host.listen("/p2p-circuit")
        with trio.fail_after(600):
            while list(service.reservations) != [relay.local_peer]:
                await trio.sleep(1)
