"""``python -m interop.gossipsub --params params.json``: one node of an experiment.

Its number is in the name of the machine, ``node7``, and node 7 is found by that name: so it is in the simulator of the
suite. With ``--local PORT --node N`` all nodes are on this machine, node 7 at port PORT + 7, and time begins when
something comes on standard input.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import sys
from pathlib import Path

import trio

import libp2p

from .node import Log, run_node
from .script import UnknownInstruction, node_key, of_node

PORT = 9000


async def connect_by_name(host: libp2p.Host, node: int) -> None:
    """Connect to ``node`` in the simulator."""
    peer = libp2p.PeerId.from_key(node_key(node).public_key)
    await host.connect(f"/dns4/node{node}/tcp/{PORT}/p2p/{peer}")


def main() -> int:
    """Run one node. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m interop.gossipsub", description=__doc__)
    parser.add_argument("--params", type=Path, required=True)
    parser.add_argument("--node", type=int)
    parser.add_argument("--local", type=int, metavar="PORT")
    options = parser.parse_args()
    number = options.node
    if number is None:
        named = re.match(r"node(\d+)", platform.node())
        if named is None:
            parser.error("this machine is not called node<number>; give --node")
        number = int(named[1])
    try:
        instructions = of_node(json.loads(options.params.read_text())["script"], number)
    except UnknownInstruction as exc:
        print(f"not supported: {exc}", file=sys.stderr)
        return 2

    async def connect_here(host: libp2p.Host, node: int) -> None:
        # Whoever answers is taken: some nodes are played by programs that have keys of their own.
        await host.connect(f"/ip4/127.0.0.1/tcp/{options.local + node}")

    async def play() -> None:
        if options.local is None:
            await run_node(number, instructions, listen=f"/ip4/0.0.0.0/tcp/{PORT}", connect=connect_by_name, log=Log())
            return
        await run_node(
            number,
            instructions,
            listen=f"/ip4/127.0.0.1/tcp/{options.local + number}",
            connect=connect_here,
            log=Log(),
            ready=lambda: trio.to_thread.run_sync(os.read, 0, 1, abandon_on_cancel=True),
        )

    trio.run(play)
    return 0


if __name__ == "__main__":
    sys.exit(main())
