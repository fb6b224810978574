"""What commands about topics have in common: getting into company, and noticing that it is gone."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Protocol

import trio
import trio.testing

from ..abc import Host
from ..errors import DialError, Libp2pError
from ..events import PeerDisconnected
from ..peer_id import PeerId
from ..protocols.ping import ping
from ..protocols.pubsub import Message, Pubsub, TopicPeerJoined, TopicPeerLeft
from ._errors import Failure
from ._node import Node, announce
from ._output import DIM, Output, Part
from ._text import from_bytes


class Show(Protocol):
    """Prints a result, as :meth:`Output.result` does."""

    def __call__(self, record: Mapping[str, object], *parts: Part) -> None: ...


_FLUSH = 2.0
"""Seconds for the last messages to arrive."""
_FLUSH_PINGS = 256


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


async def fail_when_alone(host: Host, node: Node) -> None:
    """Raise when the last peer is gone and nobody can come, for whoever waits would do so for ever."""
    with host.subscribe(PeerDisconnected) as events:
        while node.listen or host.connections():
            await events.receive()
    raise Failure("the last peer is gone")


async def flush(host: Host, pubsub: Pubsub, topic: str, messages: int) -> None:
    """Wait until what was published has reached the peers, as far as this host can tell.

    Args:
        messages: how many there were.
    """
    # Pubsub sends in tasks of its own, and drops what is left when the host ends; a peer drops what it has not looked
    # at when we are gone. When every task waits for the network, ours have done what they can. A peer that answers a
    # ping has received what was sent before, and for each answer its tasks had a turn, in which one takes a message.
    with trio.move_on_after(_FLUSH):
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            for peer in pubsub.peers(topic):
                nursery.start_soon(_ping, host, peer, min(messages + 1, _FLUSH_PINGS))


async def _ping(host: Host, peer: PeerId, count: int) -> None:
    try:
        await ping(host, peer, count=count)
    except Libp2pError:
        pass  # it is gone, or does not speak ping: nothing more can be done for it


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
