"""``libp2p rendezvous``: be found under a name, and find others."""

from __future__ import annotations

from typing import Annotated

import trio
import typer

from ..abc import Host
from ..protocols.rendezvous import (
    FoundPeer,
    Rendezvous,
    RendezvousClientConfig,
    RendezvousPoint,
    discover,
    register,
)
from ..protocols.rendezvous.sqlite import SqliteRegistrations
from ._listen import EVERYWHERE, Where, serve
from ._node import Node, announce, node_command
from ._options import Listen, StoreFile, check_addrs
from ._output import DIM, NAME, Output

app = typer.Typer(help="Find peers by a name, at a point that all of them know.", no_args_is_help=True)

Point = Annotated[
    str,
    typer.Argument(
        metavar="POINT", callback=check_addrs, help="The rendezvous point: /ip4/…/tcp/…/p2p/….", show_default=False
    ),
]


def check_namespace(value: str) -> str:
    """Refuse names that no point takes. A callback for arguments."""
    if not 0 < len(value.encode(errors="replace")) <= 255:
        raise typer.BadParameter("a name has 1 to 255 bytes")
    return value


Name = Annotated[
    str, typer.Argument(metavar="NAME", callback=check_namespace, help="The name to meet under.", show_default=False)
]
AnyName = Annotated[str, typer.Argument(metavar="NAME", help="The name; without one, all there are.")]
Ttl = Annotated[
    int | None,
    typer.Option("--ttl", min=1, metavar="SECONDS", help="How long to be found; by default what the point likes."),
]
Once = Annotated[bool, typer.Option("--once", help="Register once and end; the registration stays until its time.")]
Limit = Annotated[int, typer.Option("--limit", min=1, metavar="N", help="Show at most N peers.")]


@app.command("serve")
@node_command
async def serve_command(
    node: Node,
    out: Output,
    addrs: Where = None,
    store: StoreFile = None,
) -> None:
    """Be a rendezvous point, until interrupted. Give it a --key, so that others can rely on its address."""
    rendezvous = RendezvousPoint(store=None if store is None else SqliteRegistrations(store))
    await serve(node, out, addrs, "a rendezvous point", rendezvous)


@app.command("register")
@node_command
async def register_command(
    node: Node,
    out: Output,
    point: Point,
    name: Name,
    listen: Listen = None,
    ttl: Ttl = None,
    once: Once = False,
) -> None:
    """Be found at POINT under NAME: register, and renew until interrupted; then take it back."""
    service = Rendezvous([point], config=RendezvousClientConfig(ttl=ttl, timeout=node.timeout))
    async with node.listening(listen or [EVERYWHERE]).running(service) as host:
        announce(host, out)
        with out.waiting(f"registering at {point}"):
            granted = await register(host, point, name, ttl=ttl, timeout=node.timeout)
        record = {"event": "registered", "peer": str(host.local_peer), "name": name, "ttl": granted}
        out.result(record, "registered as ", (str(host.local_peer), NAME), f" for {granted} s")
        if not once:
            async with service.advertise(name):
                await trio.sleep_forever()


@app.command("discover")
@node_command
async def discover_command(
    node: Node,
    out: Output,
    point: Point,
    name: AnyName = "",
    limit: Limit = 1000,
) -> None:
    """Print who is registered at POINT under NAME, with the addresses they have signed."""
    async with node.running() as host:
        with out.waiting(f"asking {point}"):
            found = await _all(host, point, name, limit, node.timeout)
        for each in found:
            addrs = [str(addr) for addr in each.addrs]
            record = {"peer": str(each.peer), "name": each.namespace, "addrs": addrs, "ttl": each.ttl}
            out.listing(record, [f"{addr}/p2p/{each.peer}" for addr in addrs])
        if not found:
            out.note(("nobody is registered there", DIM))


async def _all(host: Host, point: str, name: str, limit: int, timeout: float) -> list[FoundPeer]:
    """Registrations, the oldest first, from as many answers as it takes."""
    found: list[FoundPeer] = []
    cookie = b""
    while len(found) < limit:
        answer = await discover(host, point, name, limit=limit - len(found), cookie=cookie, timeout=timeout)
        found += answer.peers
        cookie = answer.cookie
        if answer.complete:
            break
    return found[:limit]
