"""``libp2p listen``: a node that others can try things on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import trio
import typer

from .. import Host, Service
from ..events import ConnectionEnded, ConnectionOpened, Event, ListenAddrsChanged, PeerIdentified
from ..protocols.echo import Echo
from ..protocols.portmap import PortMapping, PortMappingChanged
from ._metrics import MetricsAddress, serving_metrics
from ._node import Node, announce, node_command
from ._options import check_addrs
from ._output import BAD, DIM, GOOD, NAME, Output, described

EVERYWHERE = "/ip4/0.0.0.0/tcp/0"
"""Where a node listens that was not told where: on every IPv4 address, on any free port."""

Where = Annotated[
    list[str] | None,
    typer.Argument(metavar="ADDR", callback=check_addrs, help=f"Where to listen. Default: {EVERYWHERE}"),
]
PortMap = Annotated[bool, typer.Option("--port-map", help="Have the router let peers in: PCP, NAT-PMP or UPnP.")]


@node_command
async def listen(
    node: Node, out: Output, addrs: Where = None, metrics: MetricsAddress = None, port_map: PortMap = False
) -> None:
    """Run a node that serves echo, ping and identify, until it is interrupted.

    An ADDR may be that of a relay with /p2p-circuit at its end: whoever cannot be dialled is then reached through it.

    Prints the addresses to reach it at. With -v, or as JSON, also who connects and who leaves.
    """
    services: list[Service] = [Echo(), PortMapping()] if port_map else [Echo()]
    async with node.listening(addrs or [EVERYWHERE]).running(*services) as host, serving_metrics(host, out, metrics):
        await follow(host, out)


async def serve(node: Node, out: Output, addrs: Sequence[str] | None, what: str, service: Service) -> None:
    """Run a node that is ``what`` to others, until it is interrupted."""
    async with node.listening(addrs or [EVERYWHERE]).running(service) as host:
        out.note((f"{host.local_peer} is {what} at these addresses; Ctrl-C ends it", DIM))
        announce(host, out, results=True)
        await trio.sleep_forever()


async def follow(host: Host, out: Output) -> None:
    """Say where ``host`` is reached, and who comes and goes, until cancelled."""
    kinds = (ConnectionOpened, ConnectionEnded, PeerIdentified, ListenAddrsChanged, PortMappingChanged)
    with host.subscribe(*kinds) as events:
        out.note((f"{host.local_peer} listens on these addresses; Ctrl-C ends it", DIM))
        announce(host, out, results=True)
        known = {str(addr) for addr in host.addrs}
        async for event in events:
            if isinstance(event, ListenAddrsChanged):
                fresh = [addr for addr in map(str, event.addrs) if addr not in known]
                known.update(fresh)
                if fresh:
                    out.listing({"event": "addresses", "addrs": fresh}, fresh)
            elif isinstance(event, PortMappingChanged):
                _report_mapping(event, out)
            elif out.as_json or out.verbose:
                _report(event, out)


def _report_mapping(event: PortMappingChanged, out: Output) -> None:
    ports = [f"{lease.external_ip}:{lease.external_port}/{lease.port.transport.name.lower()}" for lease in event.leases]
    if out.as_json:
        error = None if event.error is None else described(event.error)
        out.result({"event": "port mapping", "protocol": event.protocol, "ports": ports, "error": error})
    elif ports:
        out.note(("+ ", GOOD), f"the router lets peers in at {', '.join(ports)} ({event.protocol})")
    elif event.error is not None:
        out.note(("- ", BAD), f"no port is mapped: {event.error}")


def _report(event: Event, out: Output) -> None:
    record: dict[str, object]
    match event:
        case ConnectionOpened(peer=peer, connection=connection):
            addr, direction = str(connection.remote_addr), connection.direction.value
            record = {"event": "connected", "peer": str(peer), "addr": addr, "direction": direction}
            out.result(record, ("+ ", GOOD), (peer.short(), NAME), f" connected from {addr}")
        case ConnectionEnded(peer=peer, connection=connection, reason=reason):
            addr = str(connection.remote_addr)
            record = {"event": "disconnected", "peer": str(peer), "addr": addr, "reason": reason}
            out.result(record, ("- ", BAD), (peer.short(), NAME), f" disconnected: {reason}")
        case PeerIdentified(peer=peer, agent_version=agent, protocols=protocols):
            record = {"event": "identified", "peer": str(peer), "agent": agent, "protocols": list(protocols)}
            text = f" is {agent or 'of unknown make'} and serves {len(protocols)} protocols"
            out.result(record, ("i ", DIM), (peer.short(), NAME), text)
        case _:
            pass
