"""``libp2p dht``: look around in a Kademlia DHT, and store in it."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import trio
import typer

from ..abc import Host
from ..errors import DecodeError, Libp2pError
from ..peer_id import PeerId
from ..protocols.bootstrap import AMINO
from ..protocols.identify import identify
from ..protocols.kad import (
    KAD,
    MAX_CONTENT_KEY,
    AnyValue,
    KadConfig,
    Kademlia,
    LookupStep,
    MemoryStore,
    Mode,
    Reach,
    StoreFactory,
    public_validators,
)
from ..protocols.kad.lookup import common_prefix, point_of
from ..protocols.kad.sqlite import SqliteStore
from ..wire import multihash, varint
from ._errors import Failure
from ._listen import Where, serve
from ._node import Node, announce, node_command
from ._options import Listen, StoreFile, addrs_option, check_addrs
from ._output import DIM, GOOD, Output

AMINO_NAME = "amino"
"""Stands for the servers with which one begins in the public network."""
_CRAWLED_AT_ONCE = 16

app = typer.Typer(help="Find peers, providers and values in a DHT.", no_args_is_help=True)

Peer = Annotated[str, typer.Argument(metavar="PEER", help="The peer id.", show_default=False)]
Content = Annotated[
    str, typer.Argument(metavar="KEY", help="What it is about: a CID, or text of up to 80 bytes.", show_default=False)
]
Key = Annotated[
    str,
    typer.Argument(metavar="KEY", help="/NAMESPACE/NAME; /pk/PEER and /ipns/PEER with a peer id.", show_default=False),
]
Value = Annotated[
    str | None, typer.Argument(metavar="VALUE", help="The value; by default standard input.", show_default=False)
]


def check_servers(value: Sequence[str] | None) -> str | Sequence[str] | None:
    """Put servers in place of the name of their network, and refuse what is no address. A callback for options."""
    return check_addrs([addr for each in value or () for addr in (AMINO if each == AMINO_NAME else (each,))])


Bootstrap = Annotated[
    list[str],
    addrs_option(
        *("--bootstrap", "-b"),
        text=f"Begin with the server at ADDR, which ends in /p2p/…, or with those of IPFS: {AMINO_NAME}",
        callback=check_servers,
    ),
]
Known = Annotated[
    list[str] | None,
    addrs_option(
        *("--bootstrap", "-b"),
        text=f"Join the network of the server at ADDR, or {AMINO_NAME}; without one, be the first",
        callback=check_servers,
    ),
]
Protocol = Annotated[str, typer.Option("--protocol", metavar="ID", help="Which network.")]
Namespaces = Annotated[
    list[str] | None,
    typer.Option("--namespace", metavar="NAME", help="Take any value of this namespace, too; may be repeated."),
]
Count = Annotated[int, typer.Option("--count", min=1, help="End after so many.")]


@dataclass(frozen=True)
class _Dht:
    """What the options say about our part in the network."""

    node: Node
    out: Output
    bootstrap: Sequence[str]
    protocol: str
    namespaces: Sequence[str] = ()

    def make(self, mode: Mode, store: StoreFactory = MemoryStore) -> Kademlia:
        """The service."""
        validators = {**public_validators(), **{name: AnyValue() for name in self.namespaces}}
        try:
            reach = Reach.PUBLIC if set(AMINO) <= set(self.bootstrap) else Reach.ANY
            config = KadConfig(protocol=self.protocol, mode=mode, reach=reach, validators=validators)
            return Kademlia(config, bootstrap=self.bootstrap, store=store)
        except ValueError as exc:  # the name of a namespace, an address without a peer
            raise typer.BadParameter(str(exc)) from exc

    @asynccontextmanager
    async def joined(self, what: str) -> AsyncIterator[tuple[Host, Kademlia]]:
        """Be in the network while the block is open; steps of lookups are shown, or told with -v."""
        kad = self.make(Mode.CLIENT)
        async with self.node.running(kad) as host:
            await self._connect(host)
            async with trio.open_nursery() as nursery:
                with self.out.progress(what) as show:
                    nursery.start_soon(self._watch, host, what, show)
                    yield host, kad
                nursery.cancel_scope.cancel()

    async def _connect(self, host: Host) -> None:
        """Ask all there is to begin with, until one has answered."""
        failures: list[Libp2pError] = []

        async def meet(addr: str) -> None:
            try:
                found = await identify(host, addr, timeout=self.node.timeout)
            except Libp2pError as exc:
                failures.append(exc)
            else:
                if self.protocol in found.protocols:
                    nursery.cancel_scope.cancel()
                else:
                    failures.append(_elsewhere(addr, self.protocol, found.protocols))

        async with trio.open_nursery() as nursery:
            for addr in self.bootstrap:
                nursery.start_soon(meet, addr)
        if len(failures) == len(self.bootstrap):
            raise failures[0]

    async def _watch(self, host: Host, what: str, show: Callable[[str], None]) -> None:
        answered = nearest = 0
        with host.subscribe(LookupStep) as steps:
            async for step in steps:
                if step.step.value == "answered":
                    answered += 1
                    nearest = max(nearest, step.prefix)
                show(f"{what}: {step.asked} asked, {answered} answered, within {nearest} bits")
                if self.out.verbose:
                    record = {
                        "event": step.step.value,
                        "peer": str(step.peer),
                        "prefix": step.prefix,
                        "closer": step.closer,
                    }
                    self.out.result(record, (f"{step.step.value:<9}", DIM), f"{step.peer} ", (f"{step.prefix}", DIM))


def _elsewhere(addr: str, protocol: str, serves: Collection[str]) -> Failure:
    """What to say of a server that is none of this network."""
    networks = [each for each in serves if "/kad/" in each]
    hint = f"it is of {' and '.join(networks)}: see --protocol" if networks else "it serves no DHT"
    return Failure(f"{addr} is no server of {protocol}; {hint}")


@app.command("serve")
@node_command
async def serve_command(
    node: Node,
    out: Output,
    addrs: Where = None,
    bootstrap: Known = None,
    store: StoreFile = None,
    namespaces: Namespaces = None,
    protocol: Protocol = KAD,
) -> None:
    """Be a server until interrupted: answer others, and keep what they store. Give it a --key, so that others can rely
    on its address."""
    dht = _Dht(node, out, bootstrap or (), protocol, namespaces or ())
    kad = dht.make(Mode.SERVER, MemoryStore if store is None else partial(SqliteStore, store))
    await serve(node, out, addrs, f"a server of {protocol}", kad)


@app.command("find-peer")
@node_command
async def find_peer(
    node: Node,
    out: Output,
    peer: Peer,
    bootstrap: Bootstrap,
    protocol: Protocol = KAD,
) -> None:
    """Print the addresses of PEER."""
    dht = _Dht(node, out, bootstrap, protocol)
    wanted = _peer_id(peer)
    async with dht.joined(f"looking for {peer}") as (host, kad):
        addrs = await kad.find_peer(wanted)
        if not addrs:
            raise Failure(f"nobody knows {peer}")
        record = {"peer": peer, "addrs": [str(addr) for addr in addrs], "reached": bool(host.connections(wanted))}
        out.listing(record, [str(addr) for addr in addrs])


@app.command("find-providers")
@node_command
async def find_providers(
    node: Node,
    out: Output,
    content: Content,
    bootstrap: Bootstrap,
    count: Count = 20,
    protocol: Protocol = KAD,
) -> None:
    """Print peers that provide KEY, as they are found."""
    dht, key = _Dht(node, out, bootstrap, protocol), _content_key(content)
    found = False
    async with (
        dht.joined(f"looking for {content}") as (host, kad),
        kad.find_providers(key, count=count) as providers,
    ):
        async for peer in providers:
            found = True
            addrs = [str(addr) for addr in host.peerstore.addrs(peer)]
            out.result({"peer": str(peer), "addrs": addrs}, str(peer), (f"  {' '.join(addrs)}", DIM))
    if not found:
        raise Failure(f"nobody provides {content}")


@app.command()
@node_command
async def provide(
    node: Node,
    out: Output,
    content: Content,
    bootstrap: Bootstrap,
    listen: Listen = None,
    protocol: Protocol = KAD,
) -> None:
    """Announce that this node has KEY, and stay until interrupted, announcing it again in time."""
    if not listen:
        raise typer.BadParameter("somebody has to be able to call: give an address to --listen on")
    dht, key = _Dht(node.listening(listen), out, bootstrap, protocol), _content_key(content)
    async with dht.joined(f"announcing {content}") as (host, kad):
        announce(host, out)
        await kad.provide(key)
        record = {"event": "provided", "key": content, "peer": str(host.local_peer)}
        out.result(record, ("provides ", GOOD), content)
        await trio.sleep_forever()


@app.command()
@node_command
async def put(
    node: Node,
    out: Output,
    name: Key,
    bootstrap: Bootstrap,
    value: Value = None,
    namespaces: Namespaces = None,
    protocol: Protocol = KAD,
) -> None:
    """Store VALUE under KEY."""
    dht = _Dht(node, out, bootstrap, protocol, namespaces or ())
    key = _value_key(name, dht.namespaces)
    data = sys.stdin.buffer.read() if value is None else value.encode()
    async with dht.joined(f"storing {name}") as (_, kad):
        await kad.put_value(key, data)
        out.result({"key": name, "bytes": len(data)}, ("stored ", GOOD), f"{len(data)} bytes under {name}")


@app.command()
@node_command
async def get(
    node: Node,
    out: Output,
    name: Key,
    bootstrap: Bootstrap,
    namespaces: Namespaces = None,
    protocol: Protocol = KAD,
) -> None:
    """Print the best value under KEY; as JSON in hexadecimal."""
    dht = _Dht(node, out, bootstrap, protocol, namespaces or ())
    key = _value_key(name, dht.namespaces)
    async with dht.joined(f"looking for {name}") as (_, kad):
        value = await kad.get_value(key)
    out.result({"key": name, "value": value.hex()}, value.decode(errors="backslashreplace"))


@app.command()
@node_command
async def closest(
    node: Node,
    out: Output,
    content: Content,
    bootstrap: Bootstrap,
    protocol: Protocol = KAD,
) -> None:
    """Print the servers nearest to KEY, nearest first, and how many bits they share with it."""
    dht = _Dht(node, out, bootstrap, protocol)
    wanted = _content_key(content)
    async with dht.joined(f"looking for {content}") as (_, kad):
        for peer in await kad.closest_peers(wanted):
            prefix = common_prefix(point_of(bytes(peer)), point_of(wanted))
            out.result({"peer": str(peer), "prefix": prefix}, f"{peer} ", (f"{prefix}", DIM))


@app.command()
@node_command
async def table(
    node: Node,
    out: Output,
    bootstrap: Bootstrap,
    protocol: Protocol = KAD,
) -> None:
    """Join, look up this node, and print the routing table that comes of it: farthest bucket first."""
    dht = _Dht(node, out, bootstrap, protocol)
    async with dht.joined("filling the table") as (_, kad):
        await kad.refresh()
        for entry in sorted(kad.table, key=lambda entry: -(entry.point ^ kad.table.point)):
            bucket = common_prefix(entry.point, kad.table.point)
            out.result({"peer": str(entry.peer), "bucket": bucket}, (f"{bucket:>3} ", DIM), str(entry.peer))


@app.command()
@node_command
async def crawl(
    node: Node,
    out: Output,
    bootstrap: Bootstrap,
    count: Count = 1000,
    protocol: Protocol = KAD,
) -> None:
    """Ask every server for its neighbours, and theirs, until --count are known, and print who answers."""
    dht = _Dht(node, out, bootstrap, protocol)
    known: dict[PeerId, None] = {}
    at_once = trio.CapacityLimiter(_CRAWLED_AT_ONCE)
    async with dht.joined("crawling") as (_, kad), trio.open_nursery() as nursery:

        async def ask(peer: PeerId) -> None:
            async with at_once:
                found = await _neighbours(kad, peer)
            answers = found is not None
            record = {"peer": str(peer), "answers": answers, "known": len(known)}
            out.result(record, f"{peer} ", ("answers", GOOD) if answers else ("does not answer", DIM))
            learn(found or ())

        def learn(peers: Iterable[PeerId]) -> None:
            for each in peers:
                if each not in known and len(known) < count:
                    known[each] = None
                    nursery.start_soon(ask, each)

        learn([_peer_id(addr.rpartition("/")[2]) for addr in dht.bootstrap])


async def _neighbours(kad: Kademlia, peer: PeerId) -> list[PeerId] | None:
    """Whom ``peer`` knows near itself and in far corners; None when it does not answer."""
    found: dict[PeerId, None] = {}
    for key in (bytes(peer), *(b"corner %d" % number for number in range(8))):
        try:
            found.update(dict.fromkeys(await kad.ask_peer(peer, key)))
        except (Libp2pError, trio.TooSlowError, trio.BrokenResourceError, trio.ClosedResourceError):
            return None
    return list(found)


def _peer_id(text: str) -> PeerId:
    try:
        return PeerId.parse(text)
    except DecodeError as exc:
        raise typer.BadParameter(f"{text!r} is no peer id: {exc}") from exc


def _value_key(text: str, namespaces: Collection[str]) -> bytes:
    """The key of a value: peer ids behind the two public namespaces are binary."""
    start, _, rest = text.partition("/")
    namespace, _, name = rest.partition("/")
    if start or not namespace or not name:
        raise typer.BadParameter(f"{text!r} is no key of a value, which is /NAMESPACE/NAME")
    if namespace in public_validators():
        return f"/{namespace}/".encode() + bytes(_peer_id(name))
    if namespace not in namespaces:
        raise typer.BadParameter(
            f"there are no rules for values under /{namespace}; with --namespace {namespace}, any is taken"
        )
    return text.encode()


def _content_key(text: str) -> bytes:
    """The key of content: the multihash in a CID, a peer id, or the text itself."""
    key = _multihash(text) or text.encode()
    if not 0 < len(key) <= MAX_CONTENT_KEY:
        raise typer.BadParameter(f"a key has 1 to {MAX_CONTENT_KEY} bytes, not {len(key)}")
    return key


def _multihash(text: str) -> bytes | None:
    """The multihash in ``text``, if that is a CID."""
    try:
        if text.startswith("Qm") and len(text) == 46:
            return multihash.decode_base58(text)
        if len(text) > 40 and text[0] in "bkzf":
            data = multihash.decode_multibase(text)
            version, offset = varint.decode(data)
            if version == 1:
                return data[varint.decode(data, offset)[1] :]
    except DecodeError:
        pass  # then it is text
    return None
