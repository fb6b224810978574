"""The commands, put together."""

from __future__ import annotations

import sys
from io import TextIOWrapper
from typing import Annotated

import typer

from .._version import __version__
from . import _chat, _connect, _dht, _discover, _doctor, _forward, _keys, _listen, _pubsub, _relay, _rendezvous

_EPILOG = "Exit status: 0 done, 1 a peer or the network failed, 2 wrong usage, 130 interrupted."

app = typer.Typer(
    name="libp2p",
    epilog=_EPILOG,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"libp2p-trio {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_print_version, is_eager=True)
    ] = False,
    force_private: Annotated[
        bool,
        typer.Option(
            "--force-private",
            envvar="LIBP2P_FORCE_PNET",  # the specification's name (pnet)
            help="Run no node outside of a private network: commands that run one need --psk.",
        ),
    ] = False,
) -> None:
    """Talk to libp2p nodes: keys, connections and messages from a terminal or a script."""


app.add_typer(_keys.app, name="key")
app.command("id")(_keys.identity)
app.command()(_listen.listen)
app.command()(_connect.dial)
app.command()(_connect.ping)
app.command()(_connect.identify)
app.command()(_doctor.doctor)
app.command()(_chat.chat)
app.add_typer(_pubsub.app, name="pubsub")
app.add_typer(_forward.app, name="forward")
app.add_typer(_relay.app, name="relay")
app.add_typer(_rendezvous.app, name="rendezvous")
app.command()(_discover.discover)
app.add_typer(_dht.app, name="dht")


def main() -> None:
    """Run the command in ``sys.argv``."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            # What a peer says may have letters that this terminal has not.
            stream.reconfigure(errors="backslashreplace")
    app(prog_name="libp2p")
