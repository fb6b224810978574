"""``libp2p pubsub``: messages to topics."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated

import trio
import typer

from ..abc import Host
from ..peer_id import PeerId
from ..protocols.pubsub import Messages, Pubsub
from ._listen import EVERYWHERE
from ._node import Node, node_command
from ._options import Listen, Points, addrs_option
from ._output import NAME, Output
from ._rooms import author, described, fail_when_alone, in_topic, join, wait_for_company, watch_people
from ._typed import PipedLines
from ._view import View

app = typer.Typer(help="Send and receive messages of topics.", no_args_is_help=True)

Topic = Annotated[str, typer.Argument(metavar="TOPIC", help="The topic.", show_default=False)]
MessageArgs = Annotated[
    list[str] | None,
    typer.Argument(metavar="MESSAGE", help="What to publish; without any, each line of standard input."),
]
Peers = Annotated[list[str] | None, addrs_option("--peer", text="Connect to ADDR")]
SubCount = Annotated[int, typer.Option("--count", min=0, help="End after so many messages; 0 for never.")]
LookCount = Annotated[int, typer.Option("--count", min=0, help="End after so many looks; 0 for never.")]
Interval = Annotated[float, typer.Option("--interval", min=0.01, metavar="SECONDS", help="Between two looks.")]
MinPeers = Annotated[int, typer.Option("--wait-for", min=1, metavar="N", help="Publish once N peers are subscribed.")]


@app.command()
@node_command
async def sub(
    node: Node,
    out: Output,
    topic: Topic,
    peers: Peers = None,
    listen: Listen = None,
    points: Points = None,
    count: SubCount = 0,
) -> None:
    """Print the messages of TOPIC as they come. With -v, or as JSON, also which peers are in it."""
    async with in_topic(_in_company(node, peers, listen, points), out, topic, peers or (), points or ()) as room:
        if out.as_json or out.verbose:
            room.nursery.start_soon(watch_people, room.host, room.pubsub, topic, out.result)
        await _print(room.messages, out, count or math.inf)


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
@node_command
async def pub(
    node: Node,
    out: Output,
    topic: Topic,
    messages: MessageArgs = None,
    peers: Peers = None,
    listen: Listen = None,
    wait_for: MinPeers = 1,
) -> None:
    """Publish messages to TOPIC, once somebody is subscribed to it.

    With --listen it waits for subscribers as long as it takes, else for --timeout.
    """
    pubsub, node = Pubsub(), _in_company(node, peers, listen)
    async with node.running(pubsub) as host:
        await join(host, out, peers or ())
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
@node_command
async def mesh(
    node: Node,
    out: Output,
    topic: Topic,
    peers: Peers = None,
    listen: Listen = None,
    points: Points = None,
    count: LookCount = 0,
    interval: Interval = 1.0,
) -> None:
    """Join TOPIC and show, again and again, who is in it: whether in our mesh, and the score we give."""
    async with in_topic(_in_company(node, peers, listen, points), out, topic, peers or (), points or ()) as room:
        with out.view() as view:
            looks = 0
            while not count or looks < count:
                await trio.sleep(interval)
                _show_mesh(room.host, room.pubsub, view, topic)
                looks += 1


def _show_mesh(host: Host, pubsub: Pubsub, view: View, topic: str) -> None:
    members, scores, counted = pubsub.mesh(topic), pubsub.scores(), pubsub.metrics()
    rows = [(peer, peer in members, scores.get(peer, 0.0)) for peer in pubsub.peers(topic)]
    # The mesh first, the best first.
    rows.sort(key=lambda row: (not row[1], -row[2]))
    found = [{"peer": str(peer), "mesh": inside, "score": round(score, 3)} for peer, inside, score in rows]
    delivered, duplicates = counted.get("delivered", 0), counted.get("duplicates", 0)
    view.draw(
        {"topic": topic, "peers": found, "delivered": delivered, "duplicates": duplicates},
        title=f"{len(members)} of {len(rows)} peers are in the mesh",
        caption=f"{delivered} messages, {duplicates} copies",
        columns=("peer", "mesh", "score", "address"),
        rows=[
            (peer.short(), "mesh" if inside else "", f"{score:8.2f}", _address(host, peer))
            for peer, inside, score in rows
        ],
    )


def _address(host: Host, peer: PeerId) -> str:
    return next((str(connection.remote_addr) for connection in host.connections(peer)), "")


def _in_company(
    node: Node, peers: Sequence[str] | None, listen: Sequence[str] | None, points: Sequence[str] | None = None
) -> Node:
    """``node``, listening, if it can have anybody to talk to. Who is to be found at ``points`` listens somewhere."""
    if not (peers or listen or points):
        raise typer.BadParameter("give --peer ADDR, or --listen ADDR, or both: a node alone has nobody to talk to")
    return node.listening(listen or ([EVERYWHERE] if points else []))
