"""``python -m libp2p.testing.nat NAME=KIND ...``: a network with NATs, until interrupted."""

from __future__ import annotations

import argparse
import sys

import trio

from ._bed import PUBLIC, Unavailable, describe, nat_bed, places
from ._table import KINDS


def main(argv: list[str] | None = None) -> int:
    """Make the network, print a line for each host, and carry packets."""
    parser = argparse.ArgumentParser(prog="python -m libp2p.testing.nat", description=__doc__)
    kinds_help = f"kinds: {PUBLIC}, {', '.join(KINDS)}; @NAME: behind the same NAT as an earlier host"
    parser.add_argument("hosts", nargs="+", metavar="NAME=KIND", help=kinds_help)
    parser.add_argument("--latency", type=float, default=0.01, help="seconds that every packet takes (0.01)")
    args = parser.parse_args(argv)
    kinds = dict(given.partition("=")[::2] for given in args.hosts)
    try:
        trio.run(_run, kinds, args.latency)
    except (Unavailable, ValueError) as exc:
        print(exc, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        pass
    return 0


async def _run(kinds: dict[str, str], latency: float) -> None:
    hosts = places(kinds)
    async with nat_bed(hosts, latency=latency) as bed:
        print("name\taddress\toutside\tkind\tto run something there")
        for line in describe(hosts, kinds, bed):
            print(line, flush=True)
        await trio.sleep_forever()


if __name__ == "__main__":
    sys.exit(main())
