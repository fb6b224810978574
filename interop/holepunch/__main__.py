"""``python -m interop.holepunch``: two nodes behind two NATs, for each pair of kinds, over TCP and over QUIC.

The dialer knows the listener's peer id and the address of a bootstrap node, and is connected directly where the two
kinds of NAT allow it; where they do not, it has to do with the relay. The table says how often and how soon.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import trio

from libp2p.testing.nat import KINDS, Bed, Dependence, NatConfig, Unavailable, nat_bed, places

from ..peer import BUILD, Peer, run_peer

SOON = 5.0
"""Seconds within which a dialer must have what there is to have."""
SHARE = 0.95
"""Of the runs."""
LISTEN = {"tcp": "/ip4/{}/tcp/{}", "quic": "/ip4/{}/udp/{}/quic-v1"}
OUTCOMES = ("soon", "later", "relay")
CHOSEN = ("full-cone", "restricted", "port-restricted", "symmetric", "udp-blocked")
SAME = "@dialer"
"""In place of the listener's kind: it is behind the dialer's NAT."""


def expected(transport: str, dialer: str, listener: str, who_dials: str = "ours", who_listens: str = "ours") -> str:
    """What theory allows: a direct connection ``soon``, or on a ``later`` try, or the ``relay`` only.

    Each side tells the other where it was seen. That is right for a NAT with one port for all; from any other, packets
    come from a port that nobody knows, and get through only where the port does not matter. The listener's NAT then
    lets in the dialer at once; the other way round the listener has to dial, which ours does on its second try, go on
    its third, rust over TCP never, and over QUIC always.

    Behind one and the same NAT both are told the address outside of it: its own addresses are nobody's business that a
    peer might only claim to share.
    """
    dials, listens = KINDS[dialer], KINDS[dialer if listener == SAME else listener]
    if transport == "quic" and not (dials.udp and listens.udp):
        return "relay"
    if "js" in (who_dials, who_listens):
        js, other = (dials, listens) if who_dials == "js" else (listens, dials)
        return "soon" if _js_gets_through(transport, js, other) else "relay"
    if listener == SAME and not dials.hairpin:
        return "relay"
    known = dials.mapping is Dependence.NOTHING, listens.mapping is Dependence.NOTHING
    if all(known):
        return "soon"
    if known == (False, True) and listens.filtering is not Dependence.ADDRESS_AND_PORT:
        return "soon"
    if known == (True, False) and dials.filtering is not Dependence.ADDRESS_AND_PORT:
        return {"rust-tcp": "relay", "rust-quic": "soon"}.get(f"{who_listens}-{transport}", "later")
    return "relay"


def _js_gets_through(transport: str, js: NatConfig, other: NatConfig) -> bool:
    """js-libp2p dials from other ports than it listens on, so that nobody gets through to it.

    Whichever part it has, it dials as a client. What it dials over QUIC all comes from one port, which it tells; of TCP
    it tells nothing.
    """
    if other.mapping is not Dependence.NOTHING:
        return False
    if transport == "tcp":
        return other.filtering is Dependence.NOTHING
    return js.mapping is Dependence.NOTHING or other.filtering is not Dependence.ADDRESS_AND_PORT


@dataclass
class Row:
    """What came of one pair."""

    transport: str
    dialer: str
    listener: str
    who_dials: str = "ours"
    who_listens: str = "ours"
    results: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    @property
    def expected(self) -> str:
        return expected(self.transport, self.dialer, self.listener, self.who_dials, self.who_listens)

    @property
    def listens_behind(self) -> str:
        """The kind of the listener's NAT."""
        return self.dialer if self.listener == SAME else self.listener

    @property
    def unplayable(self) -> str:
        """Why there is nothing to try; empty when there is."""
        for who, kind in ((self.who_dials, self.dialer), (self.who_listens, self.listens_behind)):
            if who != "ours" and self.transport == "quic" and not KINDS[kind].udp:
                return "n/a: the peer has one transport, and does not come to the relay with it"
        return ""

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
            f"{self.who_dials} to {self.who_listens}",
            *(self.transport, self.dialer, self.listener, self.expected),
            f"{len(direct)}/{len(self.results)}",
            *(_middle_and_high(direct) or ("", "")),
            f"{statistics.median(relayed):.2f}" if relayed else "",
            self.unplayable or ("ok" if self.good else "NOT OK"),
        ]
        return "| " + " | ".join(cells) + " |"


def _middle_and_high(times: Sequence[float]) -> tuple[str, str] | None:
    if not times:
        return None
    return f"{statistics.median(times):.2f}", f"{times[min(len(times) - 1, int(0.95 * len(times)))]:.2f}"


HEAD = """\
| who | over | dialer behind | listener behind | expected | direct | median s | 95 % s | relayed after s | |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"""


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


class Party(ABC):
    """Whoever dials or listens, on a host of the bed."""

    @abstractmethod
    def listening(self, place: Where) -> AbstractAsyncContextManager[Listening]:
        """Be reached through the relay while the block is open."""

    @abstractmethod
    async def dial(self, place: Where, target: Listening, runs: int, patience: float) -> list[dict[str, Any]]:
        """Connect ``runs`` times; what came of it."""


@dataclass(frozen=True)
class Where:
    """What a party is told.

    Attributes:
        listen: where to listen.
        relay: the address of the bootstrap node.
    """

    bed: Bed
    host: str
    transport: str
    listen: str
    relay: str


@dataclass(frozen=True)
class Listening:
    """Somebody who can be reached.

    Attributes:
        peer: its id.
        node: our program, if it is that.
    """

    peer: str
    node: Node | None = None


class Ours(Party):
    """This library."""

    @asynccontextmanager
    async def listening(self, place: Where) -> AsyncIterator[Listening]:
        async with node(place.bed, place.host, "listener", *_options(place)) as found:
            yield Listening((await found.line())["peer"], found)

    async def dial(self, place: Where, target: Listening, runs: int, patience: float) -> list[dict[str, Any]]:
        # Others are not in the DHT: of them it is told the way.
        known = target.peer if target.node is not None else f"{place.relay}/p2p-circuit/p2p/{target.peer}"
        more = ["--target", known, "--runs", str(runs), "--patience", str(patience)]
        async with node(place.bed, place.host, "dialer", *_options(place), *more) as found:
            return [await found.line() for _ in range(runs)]


def _options(place: Where) -> list[str]:
    return ["--listen", place.listen, "--bootstrap", place.relay]


class Theirs(Party):
    """Another implementation, as an interop peer whose ``--relay`` may be ``punch``; it needs us at the other end."""

    def __init__(self, name: str) -> None:
        self._name = name

    @asynccontextmanager
    async def _peer(self, place: Where) -> AsyncIterator[Peer]:
        transport = {"quic": "quic-v1"}.get(place.transport, place.transport)
        flags = ["--relay", "punch", "--pubsub", "none", "--transport", transport, "--listen", place.listen]
        program = str(BUILD / f"{self._name}-peer")
        async with run_peer(self._name, place.bed.command(place.host, program, *flags)) as peer:
            yield peer

    @asynccontextmanager
    async def listening(self, place: Where) -> AsyncIterator[Listening]:
        async with self._peer(place) as peer:
            await peer("reserve", addr=place.relay)
            await _be_seen(peer, place)
            yield Listening(peer.peer_id)

    async def dial(self, place: Where, target: Listening, runs: int, patience: float) -> list[dict[str, Any]]:
        assert target.node is not None
        results: list[dict[str, Any]] = []
        while len(results) < runs:
            async with self._peer(place) as peer:
                await peer("dial", addr=place.relay)
                await _be_seen(peer, place)
                began = trio.current_time()
                await peer("dial", addr=f"{place.relay}/p2p-circuit/p2p/{target.peer}")
                relayed = trio.current_time() - began
                direct = None
                with trio.move_on_after(patience):
                    if await _punched(target.node, peer.peer_id):
                        direct = trio.current_time() - began
                results.append({"relayed": relayed, "direct": direct})
        return results


async def _be_seen(peer: Peer, place: Where) -> None:
    """Wait until ``peer`` knows where the relay sees it: rust looks once, when the relayed connection begins."""
    await peer("identify", peer=place.relay.rpartition("/")[2])


async def _punched(listener: Node, dialer: str) -> bool:
    """Wait for what became of ``dialer``; what comes late is of an earlier one."""
    while (line := await listener.line())["peer"] != dialer:
        continue
    return bool(line["direct"])


PARTIES: dict[str, Party] = {"ours": Ours(), **{name: Theirs(name) for name in ("go", "js", "rust")}}


async def try_pair(row: Row, runs: int, latency: float, patience: float) -> None:
    """Fill in ``row``."""
    hosts = places({"relay": "public", "dialer": row.dialer, "listener": row.listener})
    at_relay = [part for form in LISTEN.values() for part in ("--listen", form.format(hosts["relay"].ip, 4001))]
    listen = LISTEN[row.transport].format("0.0.0.0", 0)
    async with nat_bed(hosts, latency=latency) as bed, node(bed, "relay", "relay", *at_relay) as relay:
        addrs = dict(zip(LISTEN, (await relay.line())["addrs"], strict=True))

        def place(host: str, kind: str) -> Where:
            # Who gets no UDP through comes to the bootstrap node by TCP, whatever it listens on.
            known = addrs[row.transport if KINDS[kind].udp else "tcp"]
            return Where(bed=bed, host=host, transport=row.transport, listen=listen, relay=known)

        async with PARTIES[row.who_listens].listening(place("listener", row.listens_behind)) as target:
            dialing = PARTIES[row.who_dials]
            row.results += await dialing.dial(place("dialer", row.dialer), target, runs, patience)


async def run(args: argparse.Namespace) -> bool:
    """Print the table; whether all is well."""
    print(HEAD, flush=True)
    good = True
    for transport, dialer, listener in product(args.transports, args.dialers, args.listeners):
        row = Row(transport, dialer, listener, args.who_dials, args.who_listens)
        if row.expected not in args.only:
            continue
        if not row.unplayable:
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
    parser.add_argument(
        "--listeners", nargs="+", choices=[*KINDS, SAME], default=CHOSEN, help=f"kinds of NAT; {SAME}: the same NAT"
    )
    parser.add_argument("--who-dials", choices=PARTIES, default="ours")
    parser.add_argument("--who-listens", choices=PARTIES, default="ours", help="one of the two must be ours")
    parser.add_argument("--only", nargs="+", choices=OUTCOMES, default=OUTCOMES, help="pairs that this is expected of")
    parser.add_argument("--runs", type=int, default=3, help="of each pair")
    parser.add_argument("--latency", type=float, default=0.01, help="seconds that every packet takes")
    parser.add_argument("--patience", type=float, default=30.0, help="seconds to wait where a later try may do it")
    args = parser.parse_args()
    if "ours" not in (args.who_dials, args.who_listens):
        parser.error("one of the two must be ours")
    try:
        return 0 if trio.run(run, args) else 1
    except Unavailable as exc:
        print(f"left out: {exc}", file=sys.stderr)
        return 0


if __name__ == "__main__":
    sys.exit(main())
