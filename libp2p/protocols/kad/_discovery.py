"""Peers that are there for the same thing, through the DHT: each provides the hash of the thing's name.

The key is that of go's ``RoutingDiscovery`` and of js.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from ..._util.nursery import open_unwrapping_nursery
from ...errors import Libp2pError
from ...peer_id import PeerId
from ...wire import multihash
from ._errors import NotStored
from ._service import Kademlia

RETRY = 60.0
"""Seconds until a name that could not be taken on is tried again (ours)."""


class DhtDiscovery:
    """A :class:`~libp2p.abc.Discovery` in the DHT.

    Args:
        dht: a service of the host.
    """

    def __init__(self, dht: Kademlia) -> None:
        self._dht = dht

    @asynccontextmanager
    async def advertise(self, name: str, /) -> AsyncIterator[None]:
        """Be found under ``name`` while the block is open. Servers forget it some time after that."""
        key = multihash.sha2_256(name.encode())
        async with open_unwrapping_nursery() as nursery:
            nursery.start_soon(self._provide, key)
            try:
                yield
            finally:
                self._dht.stop_providing(key)
            nursery.cancel_scope.cancel()

    async def _provide(self, key: bytes) -> None:
        while True:
            try:
                return await self._dht.provide(key)
            except NotStored:  # a host that has just started knows nobody yet; the DHT goes on trying
                return
            except Libp2pError:
                await trio.sleep(RETRY)

    @asynccontextmanager
    async def find_peers(self, name: str, /) -> AsyncIterator[trio.abc.ReceiveChannel[PeerId]]:
        """Peers under ``name``, each once; the channel ends when all who may know were asked."""
        async with self._dht.find_providers(multihash.sha2_256(name.encode())) as found:
            yield found
