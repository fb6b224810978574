"""Whoever is in one of the three places that a circuit has: at a relay, behind it, and dialling through it."""

from __future__ import annotations

from abc import ABC, abstractmethod

import libp2p
from libp2p.protocols.identify import identify
from libp2p.protocols.ping import ping

from .peer import Peer

OURS = "ours"
"""The name of this library among the peers'."""


class Party(ABC):
    """Somebody in one of the three places."""

    peer_id: str
    addr: str

    @abstractmethod
    async def reserve(self, relay: str) -> None:
        """Let the relay at this address send circuits."""

    @abstractmethod
    async def dial(self, addr: str) -> None:
        """Connect."""

    @abstractmethod
    async def ping(self, peer: str) -> None:
        """Three round trips over the connection there is."""

    @abstractmethod
    async def identify(self, peer: str) -> None:
        """Learn who is there."""


class We(Party):
    """This library."""

    def __init__(self, host: libp2p.Host, *, limited: bool) -> None:
        self.host = host
        self.limited = limited
        self.peer_id = str(host.local_peer)
        self.addr = str(host.addrs[0])

    async def reserve(self, relay: str) -> None:
        await self.host.listen(f"{relay}/p2p-circuit")
        assert any("/p2p-circuit/p2p/" in str(addr) for addr in self.host.addrs)

    async def dial(self, addr: str) -> None:
        connection = await self.host.connect(addr)
        assert connection.limited is self.limited

    async def ping(self, peer: str) -> None:
        assert len(await ping(self.host, peer, count=3)) == 3

    async def identify(self, peer: str) -> None:
        assert "/ipfs/ping/1.0.0" in (await identify(self.host, peer)).protocols


class They(Party):
    """An interop peer, reached over ``transport``."""

    def __init__(self, peer: Peer, transport: str = "tcp") -> None:
        self.peer = peer
        self.peer_id = peer.peer_id
        self.addr = next(addr for addr in peer.addrs if f"/{transport}/" in addr)

    async def reserve(self, relay: str) -> None:
        await self.peer("reserve", addr=relay)

    async def dial(self, addr: str) -> None:
        await self.peer("dial", addr=addr)

    async def ping(self, peer: str) -> None:
        assert len((await self.peer("ping", peer=peer, count=3))["rtts_ms"]) == 3

    async def identify(self, peer: str) -> None:
        assert "/ipfs/ping/1.0.0" in (await self.peer("identify", peer=peer))["protocols"]
