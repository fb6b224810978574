"""Putting and getting values."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable

import trio

from ...peer_id import PeerId
from ._codec import Message, MessageType, Record
from ._errors import NotStored
from ._lookup import UNREACHABLE
from ._node import Node
from ._records import InvalidRecord

MAX_CORRECTIONS = 256
"""Peers that wait to be told of a better value (ours); of others, whoever looks there next."""


async def put(node: Node, key: bytes, value: bytes) -> None:
    """Store ``value`` here and with the servers nearest to ``key``; see :meth:`Kademlia.put_value`."""
    now = node.clock()
    node.namespaces.validate(key, value, now)
    held = node.store.value(key, now)
    if held is not None and held.value != value and node.namespaces.is_valid(key, held.value, now):
        if not node.namespaces.better(key, value, held.value, now):
            raise InvalidRecord(key, "a better value is known here")
    node.store.put_value(key, value, now=now, expires=now + node.config.value_ttl)
    message = _put_message(key, value)
    taken = 0

    async def put_to(peer: PeerId) -> None:
        nonlocal taken
        try:
            await node.messenger.ask(peer, message)
        except UNREACHABLE:
            return
        taken += 1

    servers = await node.lookups.responsible(key)
    async with trio.open_nursery() as nursery:
        for peer in servers:
            nursery.start_soon(put_to, peer)
    if not taken:
        raise NotStored(key, f"none of {len(servers)} peers took it")


class ValueSearch:
    """One search for the best value under a key.

    Args:
        quorum: values to see before the best is taken; 0: ask everybody concerned.
        on_better: told each value that is better than all before.

    Attributes:
        best: the best value so far; None when there is none.
        asked: how many peers were asked.
    """

    def __init__(self, node: Node, key: bytes, quorum: int, on_better: Callable[[bytes], None] | None = None) -> None:
        self.best: bytes | None = None
        self.asked: int = 0
        self._node = node
        self._key = key
        self._quorum = quorum
        self._on_better = on_better
        self._seen = 0
        self._holders: dict[PeerId, bytes | None] = {}

    async def run(self) -> None:
        """Search, and have those told who should know better.

        Raises:
            InvalidRecord: nobody here has rules for the key's namespace.
        """
        node = self._node
        node.namespaces.of(self._key)
        held = node.store.value(self._key, node.clock())
        if held is not None and self._take(held.value) and self._seen == self._quorum:
            await trio.lowlevel.checkpoint()
            return
        query = await node.lookups.run(Message(type=MessageType.GET_VALUE, key=self._key), self._on_answer)
        self.asked = query.asked
        if self.best is not None:
            # Those with nothing are told only if they are among the nearest, where it will be looked for.
            nearest = set(query.responsible())
            outdated = [
                peer
                for peer, value in self._holders.items()
                if value != self.best and (value is not None or peer in nearest)
            ]
            self._correct(outdated, self.best)

    def _on_answer(self, peer: PeerId, answer: Message) -> bool:
        value = None
        if answer.record is not None and answer.record.key == self._key and self._take(answer.record.value):
            value = answer.record.value
        self._holders[peer] = value
        return 0 < self._quorum <= self._seen

    def _take(self, value: bytes) -> bool:
        """Count ``value`` in; False when it is not valid."""
        node, valid = self._node, False
        with node.host.contain("record validator"):
            valid = self._consider(value)
        return valid

    def _consider(self, value: bytes) -> bool:
        node, now = self._node, self._node.clock()
        if not node.namespaces.is_valid(self._key, value, now):
            return False
        if self.best is None or node.namespaces.better(self._key, value, self.best, now):
            self.best = value
            if self._on_better is not None:
                self._on_better(value)
        self._seen += 1
        return True

    def _correct(self, peers: Iterable[PeerId], value: bytes) -> None:
        node, message = self._node, _put_message(self._key, value)

        async def tell(peer: PeerId) -> None:
            try:
                async with node.correcting:
                    await node.messenger.ask(peer, message)
            except UNREACHABLE:
                pass  # whoever looks there next tells it
            finally:
                node.corrections -= 1

        for peer in itertools.islice(peers, MAX_CORRECTIONS - node.corrections):
            node.corrections += 1
            node.nursery.start_soon(tell, peer)


def _put_message(key: bytes, value: bytes) -> Message:
    return Message(type=MessageType.PUT_VALUE, key=key, record=Record(key=key, value=value))
