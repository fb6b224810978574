"""``libp2p discover``: who is on the local network?"""

from __future__ import annotations

from typing import Annotated

import trio
import typer

from ..events import PeerDiscovered
from ..protocols.mdns import SOURCE, Mdns
from ..security.pnet import PreSharedKey
from ._listen import EVERYWHERE
from ._node import Node, announce, node_command
from ._options import Listen
from ._output import DIM, NAME, Output

Seconds = Annotated[
    float, typer.Option("--for", min=0.1, metavar="SECONDS", help="How long to listen; --watch does not end.")
]
Watch = Annotated[bool, typer.Option("--watch", help="Go on until interrupted, and be found by others meanwhile.")]


@node_command
async def discover(
    node: Node,
    out: Output,
    seconds: Seconds = 3.0,
    watch: Watch = False,
    listen: Listen = None,
) -> None:
    """Print the peers of the local network, by multicast DNS. With --psk, those of that private network."""
    node = node.listening(listen or ([EVERYWHERE] if watch else []))
    network = None if node.psk is None else PreSharedKey.load(node.psk).fingerprint
    async with node.running(Mdns(network=network)) as host:
        with host.subscribe(PeerDiscovered) as events:
            if node.listen:
                announce(host, out)
            count = 0
            with trio.CancelScope() as scope:
                if not watch:
                    scope.deadline = trio.current_time() + seconds
                async for event in events:
                    if event.source == SOURCE:
                        count += 1
                        _report(event, out)
            if not count:
                out.note(("nobody answered", DIM))


def _report(event: PeerDiscovered, out: Output) -> None:
    addrs = [str(addr) for addr in event.addrs]
    record = {"event": "discovered", "peer": str(event.peer), "addrs": addrs}
    if out.as_json:
        out.listing(record, ())
    else:
        out.text((str(event.peer), NAME))
        for addr in addrs:
            out.text(f"  {addr}")
