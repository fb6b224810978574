"""``libp2p pubsub``: messages to topics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Annotated

import trio
import typer

from ..protocols.pubsub import Messages, Pubsub
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
from ._output import NAME, Output
from ._rooms import author, described, fail_when_alone, join, wait_for_company, watch_people
from ._typed import PipedLines

app = typer.Typer(help="Send and receive messages of topics.", no_args_is_help=True)

Topic = Annotated[str, typer.Argument(metavar="TOPIC", help="The topic.", show_default=False)]
MessageArgs = Annotated[
    list[str] | None,
    typer.Argument(metavar="MESSAGE", help="What to publish; without any, each line of standard input."),
]
Peers = Annotated[
    list[str] | None,
    typer.Option(
        "--peer", metavar="ADDR", callback=check_addrs, help="Connect to ADDR; may be repeated.", show_default=False
    ),
]
SubCount = Annotated[int, typer.Option("--count", min=0, help="End after so many messages; 0 for never.")]
LookCount = Annotated[int, typer.Option("--count", min=0, help="End after so many looks; 0 for never.")]
Interval = Annotated[float, typer.Option("--interval", min=0.01, metavar="SECONDS", help="Between two looks.")]
MinPeers = Annotated[int, typer.Option("--wait-for", min=1, metavar="N", help="Publish once N peers are subscribed.")]


@app.command()
def sub(
    topic: Topic,
    peers: Peers = None,
    listen: Listen = None,
    count: SubCount = 0,
    key: KeyFile = None,
    timeout: Timeout = 15.0,
    security: SecurityOption = None,
    psk: PskFile = None,
    muxer: MuxerOption = MuxerName.YAMUX,
    as_json: Json = False,
    verbose: Verbose = 0,
) -> None:
    """Print the messages of TOPIC as they come. With -v, or as JSON, also which peers are in it."""
    _check_company(peers, listen)
    out = Output(as_json=as_json, verbose=verbose)
    node = Node(key=key, listen=listen or (), timeout=timeout, security=security, psk=psk, muxer=muxer)
    run(partial(_sub, node, out, topic, peers or (), count or math.inf), out)


async def _sub(node: Node, out: Output, topic: str, peers: Sequence[str], count: float) -> None:
    pubsub = Pubsub()
    async with (
        node.running(pubsub) as host,
        pubsub.subscribe(topic) as messages,
        trio.open_nursery() as nursery,
    ):
        await join(host, out, peers)
        nursery.start_soon(fail_when_alone, host, node, pubsub, messages)
        if out.as_json or out.verbose:
            nursery.start_soon(watch_people, host, pubsub, topic, out.result)
        await _print(messages, out, count)
        nursery.cancel_scope.cancel()


async def _print(messages: Messages, out: Output, count: float) -> None:
    seen = 0
    async for message in messages:
        text = message.data.decode(errors="replace")
        # The author's name is for people; what a script reads is the message.
        head = [(f"{author(message)} ", NAME)] if out.is_terminal else []
        out.result(described(message), *head, text)
        seen += 1
        if seen >= count:
            return


@app.command()
def pub(
    topic: Topic,
    messages: MessageArgs = None,
    peers: Peers = None,
    listen: Listen = None,
    wait_for: MinPeers = 1,
    key: KeyFile = None,
    timeout: Timeout = 15.0,
    security: SecurityOption = None,
    psk: PskFile = None,
    muxer: MuxerOption = MuxerName.YAMUX,
    as_json: Json = False,
    verbose: Verbose = 0,
) -> None:
    """Publish messages to TOPIC, once somebody is subscribed to it.

    With --listen it waits for subscribers as long as it takes, else for --timeout.
    """
    _check_company(peers, listen)
    out = Output(as_json=as_json, verbose=verbose)
    node = Node(key=key, listen=listen or (), timeout=timeout, security=security, psk=psk, muxer=muxer)
    run(partial(_pub, node, out, topic, messages or (), peers or (), wait_for), out)


async def _pub(
    node: Node, out: Output, topic: str, messages: Sequence[str], peers: Sequence[str], wait_for: int
) -> None:
    pubsub = Pubsub()
    async with node.running(pubsub) as host:
        await join(host, out, peers)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(fail_when_alone, host, node, pubsub)
            await wait_for_company(host, pubsub, topic, wait_for, patience=math.inf if node.listen else node.timeout)
            nursery.cancel_scope.cancel()
        published = await _publish(pubsub, topic, messages) if messages else await _publish_lines(pubsub, topic, out)
    out.result({"topic": topic, "published": published}, f"published {published} to {topic}")


async def _publish(pubsub: Pubsub, topic: str, messages: Sequence[str]) -> int:
    for message in messages:
        await pubsub.publish(topic, message.encode(), require_peers=True)
    return len(messages)


async def _publish_lines(pubsub: Pubsub, topic: str, out: Output) -> int:
    count = 0
    async for line in PipedLines(out):
        await pubsub.publish(topic, line, require_peers=True)
        count += 1
    return count


@app.command()
def mesh(
    topic: Topic,
    peers: Peers = None,
    listen: Listen = None,
    count: LookCount = 0,
    interval: Interval = 1.0,
    key: KeyFile = None,
    timeout: Timeout = 15.0,
    security: SecurityOption = None,
    psk: PskFile = None,
    muxer: MuxerOption = MuxerName.YAMUX,
    as_json: Json = False,
    verbose: Verbose = 0,
) -> None:
    """Join TOPIC and show, again and again, who is in it: whether in our mesh, and the score we give."""
    _check_company(peers, listen)
    out = Output(as_json=as_json, verbose=verbose)
    node = Node(key=key, listen=listen or (), timeout=timeout, security=security, psk=psk, muxer=muxer)
    run(partial(_mesh, node, out, topic, peers or (), count or math.inf, interval), out)


async def _mesh(node: Node, out: Output, topic: str, peers: Sequence[str], count: float, interval: float) -> None:
    pubsub = Pubsub()
    async with (
        node.running(pubsub) as host,
        pubsub.subscribe(topic),
        trio.open_nursery() as nursery,
    ):
        await join(host, out, peers)
        nursery.start_soon(fail_when_alone, host, node, pubsub)
        looks = 0
        while True:
            await trio.sleep(interval)
            _show_mesh(pubsub, out, topic)
            looks += 1
            if looks >= count:
                break
        nursery.cancel_scope.cancel()


def _show_mesh(pubsub: Pubsub, out: Output, topic: str) -> None:
    members, scores = pubsub.mesh(topic), pubsub.scores()
    rows = [(peer, peer in members, scores.get(peer, 0.0)) for peer in pubsub.peers(topic)]
    # The mesh first, the best first.
    rows.sort(key=lambda row: (not row[1], -row[2]))
    found = [{"peer": str(peer), "mesh": inside, "score": round(score, 3)} for peer, inside, score in rows]
    lines = [f"{peer.short()}  {'mesh' if inside else '    '}  {score:8.2f}" for peer, inside, score in rows]
    out.listing({"topic": topic, "peers": found}, [f"{len(members)} of {len(rows)} peers are in the mesh", *lines])


def _check_company(peers: Sequence[str] | None, listen: Sequence[str] | None) -> None:
    if not peers and not listen:
        raise typer.BadParameter("give --peer ADDR, or --listen ADDR, or both: a node alone has nobody to talk to")
