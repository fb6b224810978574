"""``libp2p pubsub``: messages to topics."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Sequence
from functools import partial
from typing import Annotated

import trio
import typer

from ..abc import Host
from ..protocols.pubsub import Floodsub, Messages, Pubsub
from ._errors import Failure
from ._node import Node, run
from ._options import (
    Json,
    KeyFile,
    Listen,
    MuxerName,
    MuxerOption,
    Security,
    SecurityOption,
    Timeout,
    Verbose,
    check_addrs,
)
from ._output import DIM, NAME, Output
from ._rooms import author, described, fail_when_alone, flush, join, wait_for_company
from ._typed import PipedLines

app = typer.Typer(help="Send and receive messages of topics.", no_args_is_help=True)

Topic = Annotated[str, typer.Argument(metavar="TOPIC", help="The topic.", show_default=False)]
MessageArgs = Annotated[
    list[str] | None,
    typer.Argument(metavar="[MESSAGE]…", help="What to publish; without any, each line of standard input."),
]
Peers = Annotated[
    list[str] | None,
    typer.Option(
        "--peer", metavar="ADDR", callback=check_addrs, help="Connect to ADDR; may be repeated.", show_default=False
    ),
]
SubCount = Annotated[int, typer.Option("--count", min=0, help="End after so many messages; 0 for never.")]
MinPeers = Annotated[int, typer.Option("--wait-for", min=1, metavar="N", help="Publish once N peers are subscribed.")]
