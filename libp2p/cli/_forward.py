"""``libp2p forward``: a TCP port here that is one at a peer's side."""

from __future__ import annotations

from typing import Annotated

import typer

from ..abc import Direction, Host
from ..addressing import parse, with_peer
from ..errors import DecodeError
from ..peer_id import PeerId
from ..protocols.forward import ANYONE, Forwarded, ForwardServer, open_forward, protocol_of
from ._listen import EVERYWHERE, Where
from ._node import Node, announce, node_command
from ._options import Target, check_address, split_address
from ._output import BAD, DIM, GOOD, NAME, Output

app = typer.Typer(help="Use a TCP port of another machine as one of your own.", no_args_is_help=True)


def check_name(value: str) -> str:
    """Refuse names that are none. A callback for arguments."""
    try:
        protocol_of(value)
    except ValueError as exc:
        raise typer.BadParameter(str(exc)) from exc
    return value


def check_peers(values: list[str] | None) -> list[str] | None:
    """Refuse what is no peer id. A callback for options."""
    for value in values or ():
        try:
            PeerId.parse(value)
        except DecodeError as exc:
            raise typer.BadParameter(f"{value!r} is no peer id: {exc}") from exc
    return values


Name = Annotated[
    str,
    typer.Argument(metavar="NAME", callback=check_name, help="What both sides call it, as ssh.", show_default=False),
]
Port = Annotated[
    str,
    typer.Argument(
        metavar="[HOST:]PORT", callback=check_address, help="The TCP port that is served.", show_default=False
    ),
]
Allow = Annotated[
    list[str] | None,
    typer.Option(
        "--allow", metavar="PEER", callback=check_peers, help="Who may use it; may be repeated.", show_default=False
    ),
]
AllowAnyone = Annotated[bool, typer.Option("--allow-anyone", help="Let everybody use it who finds this node.")]
Bind = Annotated[
    str,
    typer.Option(
        "--bind", metavar="[HOST:]PORT", callback=check_address, help="The TCP port here; 0 for any that is free."
    ),
]


@app.callback()
def group() -> None:
    """Use a TCP port of another machine as one of your own."""


@app.command()
@node_command
async def listen(
    node: Node,
    out: Output,
    name: Name,
    port: Port,
    addrs: Where = None,
    allow: Allow = None,
    allow_anyone: AllowAnyone = False,
) -> None:
    """Let peers use a TCP port that this machine can reach, until interrupted.

    Nobody may by default: name the peers with --allow. Give this node a --key, so that they can rely on its address,
    and them, so that you can rely on theirs.
    """
    if bool(allow) == allow_anyone:
        raise typer.BadParameter("say who may use it: --allow PEER, or --allow-anyone")
    allowed = ANYONE if allow_anyone else frozenset(PeerId.parse(peer) for peer in allow or ())
    server = ForwardServer({name: split_address(port)}, allow=allowed)
    async with node.listening(addrs or [EVERYWHERE]).running(server) as host:
        out.note((f"serves {port} as {name} at these addresses; Ctrl-C ends it", DIM))
        announce(host, out, results=True)
        await _follow(host, out)


@app.command()
@node_command
async def dial(node: Node, out: Output, name: Name, target: Target, bind: Bind = "0") -> None:
    """Listen on a TCP port that leads to the one a peer serves as NAME, until interrupted.

    A peer that cannot be reached now is an error; one that is lost later is dialled again for the next connection.
    """
    async with node.running() as host:
        with out.waiting(f"connecting to {target}"):
            peer = (await host.connect(target)).peer
        way = with_peer(parse(target), peer) if target.startswith("/") else peer
        async with open_forward(host, way, name, listen=split_address(bind)) as forward:
            addresses = [f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}" for ip, port in forward.addresses]
            record = {"event": "forwarding", "name": name, "peer": str(peer), "addresses": addresses}
            out.result(record, f"{', '.join(addresses)} is {name} of ", (str(peer), NAME))
            await _follow(host, out)


async def _follow(host: Host, out: Output) -> None:
    """Say how connections end, until cancelled: those that failed, and with -v or as JSON all."""
    with host.subscribe(Forwarded) as events:
        async for event in events:
            _report(event, out)


def _report(event: Forwarded, out: Output) -> None:
    peer = None if event.peer is None else str(event.peer)
    who = "the peer" if event.peer is None else event.peer.short()
    record: dict[str, object] = {"event": "ended", "name": event.name, "peer": peer}
    record |= {"direction": event.direction.value, "sent": event.sent, "received": event.received}
    if event.error is not None:
        record["error"] = {"type": type(event.error).__name__, "message": str(event.error)}
    if out.as_json:
        out.result(record)
    elif event.error is not None:
        out.note(("- ", BAD), (who, NAME), f" {str(event.error).splitlines()[0]}")
    elif out.verbose:
        verb = "served" if event.direction is Direction.INBOUND else "used"
        out.note(("+ ", GOOD), (who, NAME), f" {verb}: {event.sent} bytes to the peer, {event.received} bytes from it")
