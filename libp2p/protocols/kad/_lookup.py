"""Runs queries: asks whom they name, and tells them what came of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

import trio

from ...abc import Host
from ...errors import Libp2pError, NegotiationError
from ...peer_id import PeerId
from ._addrs import groups_of, readable
from ._codec import Message, MessageType, PeerInfo
from ._config import KadConfig
from ._events import LookupStep, Step
from ._keyspace import common_prefix, point_of
from ._members import Members
from ._messenger import Messenger
from ._query import Query

OnAnswer: TypeAlias = Callable[[PeerId, Message], bool]
"""Told each answer; True when that is enough."""

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
        first: Iterable[PeerId] = (),
    ) -> Query:
        """Ask ever nearer peers until the nearest have answered, ``on_answer`` has enough, or time is up.

        Args:
            timeout: seconds; by default ``lookup_timeout``.
            first: peers to begin with, besides those of the routing table.

        Returns:
            The query as it ended. It never fails: with nobody to ask, nobody was asked.
        """
        lookup = _Lookup(self._host, self._config, self._members, self._messenger, message, on_answer)
        with trio.move_on_after(self._config.lookup_timeout if timeout is None else timeout):
            await lookup.run(first)
        return lookup.query

    async def closest(self, key: bytes, *, timeout: float | None = None) -> list[PeerId]:
        """The nearest peers to ``key`` that answer, nearest first."""
        query = await self.run(Message(type=MessageType.FIND_NODE, key=key), timeout=timeout)
        return query.closest()


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
        # Where the peers are said to be; the query bounds how many there are.
        self._addrs: dict[PeerId, tuple[bytes, ...]] = {}
        self.query = Query(self._point, host.local_peer, (), config.query)

    async def run(self, first: Iterable[PeerId]) -> None:
        seeds = [*first, *self._members.seeds(self._point, self._config.query.k)]
        self.query = Query(self._point, self._host.local_peer, seeds, self._config.query)
        self._members.table.looked_up(self._point, trio.current_time())
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
        try:
            answer = await self._messenger.ask(peer, self._message, self._addrs.pop(peer, ()))
        except UNREACHABLE as exc:
            self.query.failed(peer)
            self._members.failed(peer, speaks=not isinstance(exc, NegotiationError))
            self._say(peer, Step.FAILED)
        else:
            self._members.answered(peer)
            self.query.answered(peer, self._usable(answer.closer))
            self._say(peer, Step.ANSWERED, len(answer.closer))
            if self._on_answer is not None and self._on_answer(peer, answer):
                nursery.cancel_scope.cancel()
                return
        self._go_on(nursery)

    def _usable(self, closer: Sequence[PeerInfo]) -> list[tuple[PeerId, Sequence[bytes]]]:
        """Those that could be asked, with their IP groups."""
        found: list[tuple[PeerId, Sequence[bytes]]] = []
        for info in closer:
            known = info.addrs or self._host.connections(info.peer)
            if info.peer == self._host.local_peer or not known:
                continue
            addrs = [addr for addr in readable(info.addrs, info.peer) if self._config.reach.admits(addr)]
            if addrs or self._host.connections(info.peer):
                self._addrs.setdefault(info.peer, tuple([addr.to_bytes() for addr in addrs]))
                found.append((info.peer, groups_of(addrs)))
        return found

    def _say(self, peer: PeerId, step: Step, closer: int = 0) -> None:
        prefix = common_prefix(point_of(bytes(peer)), self._point)
        self._host.publish(LookupStep(self._message.key, peer, step, closer, self.query.asked, prefix))
