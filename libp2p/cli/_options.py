"""The options that several commands have."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from ..addressing import parse
from ..errors import DecodeError
from ..peer_id import PeerId

_NODE = "Node"
_OUTPUT = "Output"
_LOOPBACK = "127.0.0.1"


class Security(enum.StrEnum):
    """What ``--security`` takes."""

    NOISE = "noise"
    TLS = "tls"
    PLAINTEXT = "plaintext"


class MuxerName(enum.StrEnum):
    """What ``--muxer`` takes."""

    YAMUX = "yamux"
    MPLEX = "mplex"


def check_addrs(value: str | Sequence[str] | None) -> str | Sequence[str] | None:
    """Refuse what is no address. A callback for options and arguments."""
    for text in [value] if isinstance(value, str) else value or ():
        try:
            parse(text)
        except DecodeError as exc:
            raise typer.BadParameter(f"{text!r} is no address: {exc}") from exc
    return value


def check_target(value: str | None) -> str | None:
    """Refuse what is neither an address nor a peer id. A callback for arguments."""
    if value is None:
        return None
    if value.startswith("/"):
        check_addrs(value)
        return value
    try:
        PeerId.parse(value)
    except DecodeError as exc:
        raise typer.BadParameter(f"{value!r} is neither an address nor a peer id: {exc}") from exc
    return value


def check_seconds(value: float) -> float:
    """Refuse times that are none. A callback for options."""
    if not 0 < value < math.inf:
        raise typer.BadParameter("must be a positive number of seconds")
    return value


def check_psk(context: typer.Context, value: Path | None) -> Path | None:
    """Refuse to go without where that is forced. A callback for options."""
    if value is None and context.find_root().params.get("force_private"):
        raise typer.BadParameter("this must be a private network (LIBP2P_FORCE_PNET), so there must be a key")
    return value


def split_address(text: str) -> tuple[str, int]:
    """Host and port of ``HOST:PORT``, ``[IPV6]:PORT`` or ``PORT``, which is one of this machine alone.

    Raises:
        ValueError: it is none of these.
    """
    host, _, port = text.rpartition(":")
    number = int(port) if port.isascii() and port.isdigit() else -1
    if not 0 <= number < 2**16 or (":" in host and not (host.startswith("[") and host.endswith("]"))):
        raise ValueError(f"{text!r} is neither HOST:PORT nor PORT")
    return host.strip("[]") or _LOOPBACK, number


def check_address(value: str | None) -> str | None:
    """Refuse what :func:`split_address` does. A callback for options and arguments."""
    if value is not None:
        try:
            split_address(value)
        except ValueError as exc:
            raise typer.BadParameter(str(exc)) from exc
    return value


def addrs_option(*names: str, text: str, callback: Callable[..., Any] = check_addrs, panel: str | None = None) -> Any:
    """An option that takes an address, and may be repeated."""
    text = f"{text}; may be repeated."
    return typer.Option(*names, metavar="ADDR", callback=callback, help=text, rich_help_panel=panel, show_default=False)


Target = Annotated[
    str,
    typer.Argument(
        metavar="ADDR",
        callback=check_target,
        help="Who to reach: /ip4/…/tcp/…/p2p/…; without /p2p/… whoever answers is taken.",
        show_default=False,
    ),
]
MoreAddrs = Annotated[
    list[str] | None,
    typer.Argument(metavar="ADDR", callback=check_addrs, help="More addresses of the same peer.", show_default=False),
]
KeyFile = Annotated[
    Path | None,
    typer.Option(
        "--key",
        metavar="FILE",
        help="Be the peer whose key is in FILE (see key new); by default a new one.",
        rich_help_panel=_NODE,
    ),
]
Listen = Annotated[list[str] | None, addrs_option("--listen", text="Listen on ADDR", panel=_NODE)]
Points = Annotated[
    list[str] | None,
    addrs_option("--rendezvous", text="Find others at the rendezvous point at ADDR, and be found there"),
]
StoreFile = Annotated[
    Path | None,
    typer.Option(
        "--store", metavar="FILE", dir_okay=False, help="Keep what others leave here in FILE across restarts."
    ),
]
Timeout = Annotated[
    float,
    typer.Option(
        metavar="SECONDS",
        callback=check_seconds,
        help="How long an address may take to connect, and a peer to answer.",
        rich_help_panel=_NODE,
    ),
]
SecurityOption = Annotated[
    Security | None,
    typer.Option(
        "--security",
        help="The one way to secure connections; by default noise and tls. Plaintext is for tests.",
        rich_help_panel=_NODE,
        show_default=False,
    ),
]
PskFile = Annotated[
    Path | None,
    typer.Option(
        "--psk",
        metavar="FILE",
        exists=True,
        dir_okay=False,
        callback=check_psk,
        help="Be in the private network whose key is in FILE.",
        rich_help_panel=_NODE,
        show_default=False,
    ),
]
MuxerOption = Annotated[
    MuxerName, typer.Option("--muxer", help="How streams share a connection.", rich_help_panel=_NODE)
]
Json = Annotated[
    bool,
    typer.Option(
        "--json",
        help="Print JSON, one object a line, and nothing else on standard output.",
        rich_help_panel=_OUTPUT,
    ),
]
Verbose = Annotated[
    int,
    typer.Option(
        "--verbose",
        "-v",
        count=True,
        metavar="",
        help="Say and log more, on standard error; -vv for everything.",
        show_default=False,
        rich_help_panel=_OUTPUT,
    ),
]
