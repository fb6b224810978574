"""Runs queries: asks whom they name, and tells them what came of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import trio
from multiaddr import Multiaddr

from ...abc import Host
from ...errors import Libp2pError, NegotiationError
from ...peer_id import PeerId
from ._addrs import groups_of, readable
from ._codec import Message, MessageType, PeerInfo
from ._config import KadConfig
from ._events import LookupStep, Step
from ._keyspace import common_prefix, point_of
from ._members import Members, reached_at
from ._messenger import Messenger
from ._query import Query

OnAnswer: TypeAlias = Callable[[PeerId, Message], bool]
"""Told each answer; True when that is enough."""

NAMED_AT_ONCE = 16
"""Addresses of a peer that are taken of one answer (ours): the next may know better."""
MAX_NAMED = 64
"""Addresses of a peer that are tried in one lookup (ours; case K1)."""

UNREACHABLE = (Libp2pError, trio.BrokenResourceError, trio.ClosedResourceError, trio.TooSlowError)
"""What a peer's failing to answer looks like."""


class Lookups:
    """Lookups of one host."""

    def __init__(self, host: Host, config: KadConfig, members: Members, messenger: Messenger) -> None:
        self._host = host
        self._config = config
        self._members = members
        self._messenger = messenger

    async def run(
        self,
        message: Message,
        on_answer: OnAnswer | None = None,
        *,
        timeout: float | None = None,
    ) -> Query:
        """Ask ever nearer peers until the nearest have answered, ``on_answer`` has enough, or time is up.

        Args:
            timeout: seconds; by default ``lookup_timeout``.

        Returns:
            The query as it ended. It never fails: with nobody to ask, nobody was asked.
        """
        lookup = _Lookup(self._host, self._config, self._members, self._messenger, message, on_answer)
        with trio.move_on_after(self._config.lookup_timeout if timeout is None else timeout):
            await lookup.run()
        return lookup.query

    async def closest(self, key: bytes, *, timeout: float | None = None) -> list[PeerId]:
        """The nearest peers to ``key`` that answer, nearest first."""
        query = await self.run(Message(type=MessageType.FIND_NODE, key=key), timeout=timeout)
        return query.closest()

    async def responsible(self, key: bytes) -> list[PeerId]:
        """Those that answer and are to keep what is stored under ``key``, nearest first."""
        return (await self.run(Message(type=MessageType.FIND_NODE, key=key))).responsible()


class _Lookup:
    """One lookup under way."""

    def __init__(
        self,
        host: Host,
        config: KadConfig,
        members: Members,
        messenger: Messenger,
        message: Message,
        on_answer: OnAnswer | None,
    ) -> None:
        self._host = host
        self._config = config
        self._members = members
        self._messenger = messenger
        self._message = message
        self._on_answer = on_answer
        self._point = point_of(message.key)
        # Where the peers are said to be: at most 20 of an answer, and the query bounds those.
        self._addrs: dict[PeerId, dict[bytes, None]] = {}
        self._asking: dict[PeerId, None] = {}
        self.query = Query(self._point, host.local_peer, (), config.query)

    async def run(self) -> None:
        table = self._members.table
        seeds = [(peer, table.groups(peer)) for peer in self._members.seeds(self._point, self._config.query.k)]
        self.query = Query(self._point, self._host.local_peer, seeds, self._config.query, radius=table.radius())
        table.looked_up(self._point, trio.current_time())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._pass_over, nursery)
            self._go_on(nursery)

    async def _pass_over(self, nursery: trio.Nursery) -> None:
        """Go on when somebody has been waited for long enough."""
        while True:
            await trio.sleep(self._config.query.patience / 4)
            self._go_on(nursery)

    def _go_on(self, nursery: trio.Nursery) -> None:
        if self.query.finished:
            nursery.cancel_scope.cancel()
        else:
            for peer in self.query.next(trio.current_time()):
                nursery.start_soon(self._ask, peer, nursery)

    async def _ask(self, peer: PeerId, nursery: trio.Nursery) -> None:
        self._say(peer, Step.ASKED)
        self._asking[peer] = None
        try:
            answer = await self._messenger.ask(peer, self._message, tuple(self._addrs.get(peer, ())))
        except UNREACHABLE as exc:
            self.query.failed(peer)
            self._members.failed(peer, speaks=not isinstance(exc, NegotiationError))
            self._say(peer, Step.FAILED)
            del self._asking[peer]
        else:
            del self._asking[peer]
            self._members.answered(peer)
            reached = reached_at(self._host, peer)
            self.query.answered(peer, self._usable(answer.closer, nursery), groups_of(reached) if reached else None)
            self._say(peer, Step.ANSWERED, len(answer.closer))
            if self._on_answer is not None and self._on_answer(peer, answer):
                nursery.cancel_scope.cancel()
                return
        self._go_on(nursery)

    def _usable(self, closer: Sequence[PeerInfo], nursery: trio.Nursery) -> list[tuple[PeerId, Sequence[bytes]]]:
        """Those that could be asked, with their IP groups."""
        found: list[tuple[PeerId, Sequence[bytes]]] = []
        for info in closer:
            connected = bool(self._host.connections(info.peer))
            if info.peer == self._host.local_peer or not (info.addrs or connected):
                continue
            addrs = [addr for addr in readable(info.addrs, info.peer) if self._config.reach.admits(addr)]
            if addrs or connected:
                found.append((info.peer, groups_of(reached_at(self._host, info.peer) or addrs)))
            if addrs and not connected:
                self._learn(info.peer, addrs, nursery)
        return found

    def _learn(self, peer: PeerId, addrs: Sequence[Multiaddr], nursery: trio.Nursery) -> None:
        """``peer`` may be at ``addrs``. Whoever named it first may have lied, so others are heard, too: before it is
        asked, while it is, and when it could not be reached."""
        known = self._addrs.setdefault(peer, {})
        fresh = [addr for addr in addrs[:NAMED_AT_ONCE] if addr.to_bytes() not in known][: MAX_NAMED - len(known)]
        known.update(dict.fromkeys([addr.to_bytes() for addr in fresh]))
        if fresh and peer in self._asking:
            nursery.start_soon(self._dial, peer, fresh)
        elif fresh:
            self.query.revive(peer)

    async def _dial(self, peer: PeerId, addrs: Sequence[Multiaddr]) -> None:
        """Let the dial to a peer that is being asked try ``addrs``, too."""
        try:
            await self._host.connect(peer, addrs)
        except UNREACHABLE:
            pass  # the question finds out

    def _say(self, peer: PeerId, step: Step, closer: int = 0) -> None:
        prefix = common_prefix(point_of(bytes(peer)), self._point)
        self._host.publish(LookupStep(self._message.key, peer, step, closer, self.query.asked, prefix))
