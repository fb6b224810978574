"""Announcing what this host provides, and finding who provides what."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import trio

from ...peer_id import PeerId
from ...wire.framing import frame
from ._addrs import readable
from ._codec import Message, MessageType, PeerInfo, encode
from ._errors import NotStored, StoreBusy
from ._lookup import UNREACHABLE
from ._node import Node
from ._server import MAX_CONTENT_KEY
from ._sweep import Sweep

_AT_ONCE = 500
"""Announcements on one stream: servers end it after some number; ours reads 1000 (``messages_per_stream``)."""


def check_key(key: bytes) -> None:
    """ValueError when ``key`` cannot stand for content: other implementations refuse it."""
    if not 0 < len(key) <= MAX_CONTENT_KEY:
        raise ValueError(f"the key of content has 1 to {MAX_CONTENT_KEY} bytes, not {len(key)}")


async def announce(node: Node, keys: Iterable[bytes]) -> int:
    """Tell the servers nearest to each of ``keys`` that this host provides it.

    Many keys take hardly more lookups than there are regions with servers of their own.

    Returns:
        How many announcements were taken.

    Raises:
        NotStored: this host has no address to announce.
    """
    sweep, k, told = Sweep(keys), node.config.query.k, 0
    while (key := sweep.next()) is not None:
        own = _own_info(node, key)
        servers = await node.lookups.responsible(key)
        region = sweep.found(servers, k)
        for start in range(0, len(region), _AT_ONCE):
            batch = region[start : start + _AT_ONCE]
            for each in batch:
                _keep(node, each, own)
            servers = await _tell(node, servers, own, batch)
            told += len(servers) * len(batch)
    return told


def _own_info(node: Node, key: bytes) -> PeerInfo:
    addrs = node.config.reach.told(node.host.addrs)
    if not addrs:
        raise NotStored(key, "this host has no address at which it could be reached")
    return PeerInfo(node.host.local_peer, addrs)


def _keep(node: Node, key: bytes, own: PeerInfo) -> None:
    """This host may be among the nearest itself."""
    wall = node.clock()
    try:
        node.store.add_provider(
            key,
            own.peer,
            own.addrs,
            addrs_expire=wall + node.config.provider_addrs_ttl,
            expires=wall + node.config.provider_ttl,
        )
    except StoreBusy:
        pass  # the others have it


async def _tell(node: Node, peers: Sequence[PeerId], own: PeerInfo, keys: Sequence[bytes]) -> list[PeerId]:
    """Announce ``keys`` to ``peers``; returns those who could be told."""
    messages = [Message(type=MessageType.ADD_PROVIDER, key=key, providers=(own,)) for key in keys]
    data = b"".join([frame(encode(message)) for message in messages])
    told: list[PeerId] = []

    async def tell(peer: PeerId) -> None:
        try:
            await node.messenger.tell(peer, data)
        except UNREACHABLE:
            return
        told.append(peer)

    async with trio.open_nursery() as nursery:
        for peer in peers:
            nursery.start_soon(tell, peer)
    return told


class ProviderSearch:
    """One search for who provides a key.

    Args:
        count: providers that are enough.
        on_found: told each provider, once.
    """

    def __init__(self, node: Node, key: bytes, count: int, on_found: Callable[[PeerId], None]) -> None:
        self._node = node
        self._key = key
        self._count = count
        self._on_found = on_found
        self._found: dict[PeerId, None] = {}

    async def run(self) -> None:
        """Search until enough were found or everybody concerned has answered."""
        node = self._node
        for held in node.store.providers(self._key, node.clock()):
            self._take(PeerInfo(held.peer, held.addrs))
        if len(self._found) < self._count:
            await node.lookups.run(Message(type=MessageType.GET_PROVIDERS, key=self._key), self._on_answer)

    def _on_answer(self, _: PeerId, answer: Message) -> bool:
        for info in answer.providers:
            self._take(info)
        return len(self._found) >= self._count

    def _take(self, info: PeerInfo) -> None:
        node = self._node
        if info.peer != node.host.local_peer:
            # Perhaps forged: whoever dials them finds out.
            addrs = readable(info.addrs, info.peer)
            node.host.peerstore.add_addrs(info.peer, addrs, ttl=node.config.found_addrs_ttl)
        if info.peer not in self._found and len(self._found) < self._count:
            self._found[info.peer] = None
            self._on_found(info.peer)
