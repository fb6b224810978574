"""What commands about topics have in common: getting into company, and noticing that it is gone."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

import trio

from ..abc import Host, Service
from ..errors import DialError
from ..events import PeerDisconnected
from ..peer_id import PeerId
from ..protocols.pubsub import Message, Messages, Pubsub, TopicDiscovery, TopicPeerJoined, TopicPeerLeft
from ..protocols.rendezvous import Rendezvous
from ._errors import Failure
from ._node import Node, announce
from ._output import DIM, Output, Part
from ._text import from_bytes


class Show(Protocol):
    """Prints a result, as :meth:`Output.result` does."""

    def __call__(self, record: Mapping[str, object], *parts: Part) -> None: ...


_GLANCE = 0.02
"""Seconds between two looks whether the last messages have been read."""


@dataclass(frozen=True, slots=True)
class Room:
    """A topic this node is in.

    Attributes:
        messages: those of the topic.
        nursery: for what goes on while it is.
    """

    host: Host
    pubsub: Pubsub
    messages: Messages
    nursery: trio.Nursery


@asynccontextmanager
async def in_topic(
    node: Node, out: Output, topic: str, addrs: Sequence[str], points: Sequence[str]
) -> AsyncIterator[Room]:
    """Run ``node``, subscribed to ``topic`` and connected to ``addrs``, while the block is open.

    Args:
        node: where.
        out: says what goes on.
        topic: the topic.
        addrs: peers that are to be there already.
        points: rendezvous points to find others at, and to be found.

    Raises:
        DialError: none of ``addrs`` could be reached.
        Failure: the last peer is gone, and nobody can come.
    """
    pubsub = Pubsub()
    async with (
        node.meeting_at(points).running(pubsub, *_discovery(pubsub, points)) as host,
        pubsub.subscribe(topic) as messages,
        trio.open_nursery() as nursery,
    ):
        await join(host, out, addrs)
        nursery.start_soon(fail_when_alone, host, node, pubsub, messages)
        yield Room(host, pubsub, messages, nursery)
        nursery.cancel_scope.cancel()


def _discovery(pubsub: Pubsub, points: Sequence[str]) -> list[Service]:
    """What finds company for the topics of ``pubsub`` at ``points``."""
    if not points:
        return []
    rendezvous = Rendezvous(points)
    return [rendezvous, TopicDiscovery(pubsub, rendezvous)]


async def join(host: Host, out: Output, addrs: Sequence[str]) -> None:
    """Connect to all of ``addrs``, and say where to connect to us.

    Raises:
        DialError: none of them could be reached.
    """
    if host.addrs:
        announce(host, out)
    failures: list[DialError] = []
    for addr in addrs:
        try:
            with out.waiting(f"connecting to {addr}"):
                await host.connect(addr)
        except DialError as exc:
            failures.append(exc)
    if failures and len(failures) == len(addrs):
        raise failures[0]
    for failure in failures:
        out.note(str(failure).replace("\n", ""))


async def wait_for_company(host: Host, pubsub: Pubsub, topic: str, count: int, *, patience: float) -> None:
    """Return when ``count`` peers are subscribed to ``topic``.

    Raises:
        Failure: they are not after ``patience`` seconds.
    """
    with trio.move_on_after(patience), host.subscribe(TopicPeerJoined) as events:
        while len(pubsub.peers(topic)) < count:
            await events.receive()
        return
    raise Failure(f"{len(pubsub.peers(topic))} of {count} peers are subscribed to {topic!r} after {patience:g} s")


async def fail_when_alone(host: Host, node: Node, pubsub: Pubsub, messages: Messages | None = None) -> None:
    """Raise when the last peer is gone and nobody can come, for whoever waits would do so for ever.

    Not before everything it sent has been read, and received from ``messages``.
    """
    with host.subscribe(PeerDisconnected) as events:
        while node.listen or host.connections():
            await events.receive()
    while pubsub.peers() or (messages is not None and messages.waiting):  # noqa: ASYNC110 - no event says so
        await trio.sleep(_GLANCE)
    raise Failure("the last peer is gone")


async def watch_people(host: Host, pubsub: Pubsub, topic: str, show: Show) -> None:
    """Tell who is in ``topic``, who comes and who leaves."""
    with host.subscribe(TopicPeerJoined, TopicPeerLeft) as events:
        for peer in pubsub.peers(topic):
            _show_person("joined", peer, show)
        async for event in events:
            match event:
                case TopicPeerJoined(peer=peer, topic=where) if where == topic:
                    _show_person("joined", peer, show)
                case TopicPeerLeft(peer=peer, topic=where) if where == topic:
                    _show_person("left", peer, show)
                case _:
                    pass


def _show_person(what: str, peer: PeerId, show: Show) -> None:
    show({"event": what, "peer": str(peer)}, (f"{peer.short()} {what}", DIM))


def described(message: Message) -> dict[str, object]:
    """A message for programs. ``text`` is None when the data is not UTF-8."""
    return {
        "event": "message",
        "topic": message.topic,
        "from": None if message.author is None else str(message.author),
        "data": base64.b64encode(message.data).decode(),
        "text": from_bytes(message.data),
    }


def author(message: Message) -> str:
    """Who wrote a message, short."""
    return "anonymous" if message.author is None else message.author.short()
