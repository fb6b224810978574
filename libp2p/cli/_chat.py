"""``libp2p chat``: a room for people, and for programs that read and write lines."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from functools import partial
from typing import Annotated

import trio
import typer

from ..protocols.pubsub import Messages, NoPeers, Pubsub
from ._listen import EVERYWHERE
from ._node import Node, run
from ._options import (
    Json,
    KeyFile,
    Listen,
    MuxerName,
    MuxerOption,
    PskFile,
    SecurityOption,
    Timeout,
    Verbose,
    check_addrs,
)
from ._output import DIM, NAME, Output
from ._rooms import author, described, fail_when_alone, join, wait_for_company, watch_people
from ._typed import PipedLines, TypedLines, open_input

Addrs = Annotated[
    list[str] | None,
    typer.Argument(metavar="ADDR", callback=check_addrs, help="Who is in the room already.", show_default=False),
]
Room = Annotated[str, typer.Option(metavar="TOPIC", help="The room.")]
Name = Annotated[str | None, typer.Option(metavar="TEXT", help="Put 'TEXT: ' before what you say.", show_default=False)]


def chat(
    addrs: Addrs = None,
    room: Room = "chat",
    name: Name = None,
    listen: Listen = None,
    key: KeyFile = None,
    timeout: Timeout = 15.0,
    security: SecurityOption = None,
    psk: PskFile = None,
    muxer: MuxerOption = MuxerName.YAMUX,
    as_json: Json = False,
    verbose: Verbose = 0,
) -> None:
    """Talk in a room: each line goes to everybody in it.

    Without ADDR it opens a room, and says at which addresses others can join. Piped input is sent once somebody is
    there; when it ends, so does the command.
    """
    if not addrs and not listen:
        listen = [EVERYWHERE]
    out = Output(as_json=as_json, verbose=verbose)
    node = Node(key=key, listen=listen or (), timeout=timeout, security=security, psk=psk, muxer=muxer)
    run(partial(_chat, node, out, room, addrs or (), f"{name}: " if name else ""), out)


async def _chat(node: Node, out: Output, room: str, addrs: Sequence[str], prefix: str) -> None:
    pubsub = Pubsub()
    async with (
        node.running(pubsub) as host,
        pubsub.subscribe(room) as messages,
        trio.open_nursery() as nursery,
    ):
        await join(host, out, addrs)
        nursery.start_soon(fail_when_alone, host, node, pubsub, messages)
        with open_input(out) as typed:
            nursery.start_soon(_show_messages, messages, typed)
            nursery.start_soon(watch_people, host, pubsub, room, typed.show)
            if not os.isatty(0):
                patience = math.inf if node.listen else node.timeout
                await wait_for_company(host, pubsub, room, 1, patience=patience)
            async for line in typed:
                await _speak(pubsub, room, prefix.encode() + line, typed)
            nursery.cancel_scope.cancel()


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
