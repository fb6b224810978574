"""``python -m interop.holepunch``: two nodes behind two NATs, for each pair of kinds, over TCP and over QUIC.

The dialer knows the listener's peer id and the address of a bootstrap node, and is connected directly where the two
kinds of NAT allow it; where they do not, it has to do with the relay. The table says how often and how soon.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import trio

from libp2p.testing.nat import KINDS, Bed, Dependence, Unavailable, nat_bed, places

SOON = 5.0
"""Seconds within which a dialer must have what there is to have."""
SHARE = 0.95
"""Of the runs."""
LISTEN = {"tcp": "/ip4/{}/tcp/{}", "quic": "/ip4/{}/udp/{}/quic-v1"}
CHOSEN = ("full-cone", "restricted", "port-restricted", "symmetric", "udp-blocked")


def expected(transport: str, dialer: str, listener: str) -> str:
    """What theory allows: a direct connection ``soon``, or on a ``later`` try, or the ``relay`` only.

    Each side tells the other where it was seen. That is right for a NAT with one port for all; from any other, packets
    come from a port that nobody knows, and get through only where the port does not matter. The listener's NAT then
    lets in the dialer at once; the other way round the listener has to dial, which it does on its second try.
    """
    ours, theirs = KINDS[dialer], KINDS[listener]
    if transport == "quic" and not (ours.udp and theirs.udp):
        return "relay"
    known = ours.mapping is Dependence.NOTHING, theirs.mapping is Dependence.NOTHING
    if all(known):
        return "soon"
    if known == (False, True) and theirs.filtering is not Dependence.ADDRESS_AND_PORT:
        return "soon"
    if known == (True, False) and ours.filtering is not Dependence.ADDRESS_AND_PORT:
        return "later"
    return "relay"


@dataclass
class Row:
    """What came of one pair."""

    transport: str
    dialer: str
    listener: str
    results: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    @property
    def expected(self) -> str:
        return expected(self.transport, self.dialer, self.listener)

    def times(self, what: str) -> list[float]:
        """Of the runs that got it."""
        return sorted(result[what] for result in self.results if result.get(what) is not None)

    @property
    def good(self) -> bool:
        """Whether it is as theory allows."""
        needed = SHARE * len(self.results)
        in_time = [time for time in self.times("relayed") if time < SOON]
        if self.expected == "soon":
            return len([time for time in self.times("direct") if time < SOON]) >= needed
        direct = self.times("direct")
        return len(in_time) >= needed and (len(direct) >= needed if self.expected == "later" else not direct)

    def __str__(self) -> str:
        direct, relayed = self.times("direct"), self.times("relayed")
        cells = [
            *(self.transport, self.dialer, self.listener, self.expected),
            f"{len(direct)}/{len(self.results)}",
            *(_middle_and_high(direct) or ("", "")),
            f"{statistics.median(relayed):.2f}" if relayed else "",
            "ok" if self.good else "NOT OK",
        ]
        return "| " + " | ".join(cells) + " |"


def _middle_and_high(times: Sequence[float]) -> tuple[str, str] | None:
    if not times:
        return None
    return f"{statistics.median(times):.2f}", f"{times[min(len(times) - 1, int(0.95 * len(times)))]:.2f}"


HEAD = """\
| over | dialer behind | listener behind | expected | direct | median s | 95 % s | relayed after s | |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |"""


class Node:
    """A program on a host of the bed, and the lines it tells."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self._buffer = b""

    async def line(self) -> dict[str, Any]:
        """The next line; EOFError when there is none any more."""
        assert self.process.stdout is not None
        while b"\n" not in self._buffer:
            data = await self.process.stdout.receive_some()
            if not data:
                raise EOFError("a node has ended")
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\n", 1)
        found: dict[str, Any] = json.loads(line)
        return found


@asynccontextmanager
async def node(bed: Bed, host: str, *argv: str) -> AsyncIterator[Node]:
    """Run one of the nodes while the block is open."""
    command = bed.command(host, sys.executable, "-m", "interop.holepunch.node", *argv)
    process = await trio.lowlevel.open_process(command, stdout=-1)
    try:
        yield Node(process)
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            if process.stdout is not None:
                await process.stdout.aclose()


async def try_pair(row: Row, runs: int, latency: float, patience: float) -> None:
    """Fill in ``row``."""
    hosts = places({"relay": "public", "dialer": row.dialer, "listener": row.listener})
    at_relay = [part for form in LISTEN.values() for part in ("--listen", form.format(hosts["relay"].ip, 4001))]
    listen = LISTEN[row.transport].format("0.0.0.0", 0)
    async with (
        nat_bed(hosts, latency=latency) as bed,
        node(bed, "relay", "relay", *at_relay) as relay,
    ):
        addrs = dict(zip(LISTEN, (await relay.line())["addrs"], strict=True))

        def options(kind: str) -> list[str]:
            # Who gets no UDP through comes to the bootstrap node by TCP, whatever it listens on.
            return ["--listen", listen, "--bootstrap", addrs[row.transport if KINDS[kind].udp else "tcp"]]

        async with node(bed, "listener", "listener", *options(row.listener)) as listener:
            target = (await listener.line())["peer"]
            more = ["--target", target, "--runs", str(runs), "--patience", str(patience)]
            async with node(bed, "dialer", "dialer", *options(row.dialer), *more) as dialer:
                while len(row.results) < runs:
                    row.results.append(await dialer.line())


async def run(args: argparse.Namespace) -> bool:
    """Print the table; whether all is well."""
    print(HEAD, flush=True)
    good = True
    for transport, dialer, listener in product(args.transports, args.dialers, args.listeners):
        row = Row(transport, dialer, listener)
        patience = SOON if row.expected == "soon" else args.patience
        await try_pair(row, args.runs, args.latency, patience)
        good &= row.good
        print(row, flush=True)
        for result in row.results:
            if "error" in result:
                print(f"  {result['error']}", file=sys.stderr)
    return good


def main() -> int:
    """Run the pairs that are asked for."""
    parser = argparse.ArgumentParser(prog="python -m interop.holepunch", description=__doc__)
    parser.add_argument("--transports", nargs="+", choices=LISTEN, default=list(LISTEN))
    parser.add_argument("--dialers", nargs="+", choices=KINDS, default=CHOSEN, help="kinds of NAT")
    parser.add_argument("--listeners", nargs="+", choices=KINDS, default=CHOSEN, help="kinds of NAT")
    parser.add_argument("--runs", type=int, default=3, help="of each pair")
    parser.add_argument("--latency", type=float, default=0.01, help="seconds that every packet takes")
    parser.add_argument("--patience", type=float, default=20.0, help="seconds to wait where a later try may do it")
    args = parser.parse_args()
    try:
        return 0 if trio.run(run, args) else 1
    except Unavailable as exc:
        print(f"left out: {exc}", file=sys.stderr)
        return 0


if __name__ == "__main__":
    sys.exit(main())
