"""``libp2p relay``: a node through which others are reached."""

from __future__ import annotations

from typing import Annotated

import typer

from ..protocols.relay import RelayLimits, RelayServer, RelayV1
from ._listen import EVERYWHERE, Where, follow
from ._metrics import MetricsAddress, serving_metrics
from ._node import Node, node_command
from ._output import Output

app = typer.Typer(help="Be a relay.", no_args_is_help=True)

_DEFAULTS = RelayLimits()
_LIMITS = "Limits"

Reservations = Annotated[
    int, typer.Option(min=1, metavar="N", help="How many peers may be reached through it.", rich_help_panel=_LIMITS)
]
PerIp = Annotated[
    int, typer.Option("--per-ip", min=1, metavar="N", help="Of them, from one IP address.", rich_help_panel=_LIMITS)
]
Circuits = Annotated[int, typer.Option(min=1, metavar="N", help="Circuits at a time.", rich_help_panel=_LIMITS)]
Duration = Annotated[
    int, typer.Option(min=0, metavar="SECONDS", help="A circuit's life; 0 for no limit.", rich_help_panel=_LIMITS)
]
Data = Annotated[
    int,
    typer.Option(min=0, metavar="BYTES", help="A circuit's bytes each way; 0 for no limit.", rich_help_panel=_LIMITS),
]
V1 = Annotated[
    bool,
    typer.Option("--v1", help="Serve version 1, too: as many circuits again, for any peer.", rich_help_panel=_LIMITS),
]


@app.callback()
def group() -> None:
    """Be a relay."""


@app.command()
@node_command
async def serve(
    node: Node,
    out: Output,
    addrs: Where = None,
    reservations: Reservations = _DEFAULTS.reservations,
    per_ip: PerIp = _DEFAULTS.reservations_per_ip,
    circuits: Circuits = _DEFAULTS.circuits,
    duration: Duration = _DEFAULTS.circuit_duration or 0,
    data: Data = _DEFAULTS.circuit_data or 0,
    v1: V1 = False,
    metrics: MetricsAddress = None,
) -> None:
    """Run a relay (circuit relay v2), until it is interrupted.

    Prints the addresses to reach it at: behind them, /p2p-circuit is where others listen. With -v, or as JSON, also who
    connects and who leaves.
    """
    limits = RelayLimits(
        reservations=reservations,
        reservations_per_ip=per_ip,
        circuits=circuits,
        circuit_duration=duration or None,
        circuit_data=data or None,
    )
    services = [RelayServer(limits), *([RelayV1(limits=limits)] if v1 else [])]
    async with node.listening(addrs or [EVERYWHERE]).running(*services) as host, serving_metrics(host, out, metrics):
        await follow(host, out)
