"""``libp2p chat``: a room for people, and for programs that read and write lines."""

from __future__ import annotations

import math
import os
from typing import Annotated

import typer

from ..protocols.pubsub import Messages, NoPeers, Pubsub
from ._listen import EVERYWHERE
from ._node import Node, node_command
from ._options import Listen, Points, check_addrs
from ._output import DIM, NAME, Output
from ._rooms import author, described, in_topic, wait_for_company, watch_people
from ._typed import PipedLines, TypedLines, open_input

Addrs = Annotated[
    list[str] | None,
    typer.Argument(metavar="ADDR", callback=check_addrs, help="Who is in the room already.", show_default=False),
]
RoomOption = Annotated[str, typer.Option("--room", metavar="TOPIC", help="The room.")]
Name = Annotated[str | None, typer.Option(metavar="TEXT", help="Put 'TEXT: ' before what you say.", show_default=False)]


@node_command
async def chat(
    node: Node,
    out: Output,
    addrs: Addrs = None,
    room: RoomOption = "chat",
    name: Name = None,
    listen: Listen = None,
    points: Points = None,
) -> None:
    """Talk in a room: each line goes to everybody in it.

    Without ADDR it opens a room, and says at which addresses others can join. With --rendezvous those who know the same
    rendezvous point find each other. Piped input is sent once somebody is there; when it ends, so does the command.
    """
    prefix = f"{name}: ".encode() if name else b""
    node = node.listening(listen or ([] if addrs and not points else [EVERYWHERE]))
    async with in_topic(node, out, room, addrs or (), points or ()) as joined:
        host, pubsub = joined.host, joined.pubsub
        with open_input(out) as typed:
            joined.nursery.start_soon(_show_messages, joined.messages, typed)
            joined.nursery.start_soon(watch_people, host, pubsub, room, typed.show)
            if not os.isatty(0):
                patience = math.inf if node.listen else node.timeout
                await wait_for_company(host, pubsub, room, 1, patience=patience)
            async for line in typed:
                await _speak(pubsub, room, prefix + line, typed)


async def _speak(pubsub: Pubsub, room: str, data: bytes, typed: PipedLines | TypedLines) -> None:
    if isinstance(typed, TypedLines):
        if not data.strip():
            return
        typed.show({}, ("you ", DIM), data.decode())
    try:
        await pubsub.publish(room, data, require_peers=True)
    except NoPeers:
        typed.show({"event": "unheard"}, ("nobody else is here", DIM))


async def _show_messages(messages: Messages, typed: PipedLines | TypedLines) -> None:
    async for message in messages:
        typed.show(described(message), (f"{author(message)} ", NAME), message.data.decode(errors="replace"))
