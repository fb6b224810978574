"""``libp2p relay``: a node through which others are reached."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from ..protocols.relay import RelayLimits, RelayServer
from ._listen import EVERYWHERE, Where, follow
from ._node import Node, run
from ._options import Json, KeyFile, MuxerName, MuxerOption, PskFile, SecurityOption, Timeout, Verbose
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


@app.callback()
def group() -> None:
    """Be a relay."""


@app.command()
def serve(
    addrs: Where = None,
    reservations: Reservations = _DEFAULTS.reservations,
    per_ip: PerIp = _DEFAULTS.reservations_per_ip,
    circuits: Circuits = _DEFAULTS.circuits,
    duration: Duration = _DEFAULTS.circuit_duration or 0,
    data: Data = _DEFAULTS.circuit_data or 0,
    key: KeyFile = None,
    timeout: Timeout = 15.0,
    security: SecurityOption = None,
    psk: PskFile = None,
    muxer: MuxerOption = MuxerName.YAMUX,
    as_json: Json = False,
    verbose: Verbose = 0,
) -> None:
    """Run a relay (circuit relay v2), until it is interrupted.

    Prints the addresses to reach it at: behind them, /p2p-circuit is where others listen. With -v, or as JSON, also who
    connects and who leaves.
    """
    node = Node(key=key, listen=addrs or [EVERYWHERE], timeout=timeout, security=security, psk=psk, muxer=muxer)
    limits = RelayLimits(
        reservations=reservations,
        reservations_per_ip=per_ip,
        circuits=circuits,
        circuit_duration=duration or None,
        circuit_data=data or None,
    )
    out = Output(as_json=as_json, verbose=verbose)
    run(partial(_serve, node, limits, out), out)


async def _serve(node: Node, limits: RelayLimits, out: Output) -> None:
    async with node.running(RelayServer(limits)) as host:
        await follow(host, out)
