"""Kademlia with real peers: every operation in both directions, in mixed networks. Time here is real."""

from __future__ import annotations

import base64
import hashlib
import itertools
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import pytest
import trio

import libp2p
from libp2p.crypto.keys import unmarshal_public_key
from libp2p.protocols.kad import AnyValue, KadConfig, Kademlia, Mode, public_validators
from libp2p.records.ipns import IpnsRecord, open_record, rfc3339
from libp2p.swarm import SwarmConfig

from .conftest import Record
from .peer import Peer, PeerFailed, start_peer

PROTOCOL = "/interop/kad/1.0.0"
BIG = 8 * 1024
"""Bytes of the big value: with it a message is just below what rust reads."""
AT_ONCE = 4
"""Nodes that start, and operations, in the network of all kinds."""
TARGET = b"/ipfs/bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"
"""Of names."""
SETTLED = 60.0
"""Seconds in which everybody must know enough others."""

pytestmark = [pytest.mark.real_clock, pytest.mark.xdist_group("kad")]


class Longest(AnyValue):
    """As the peers do: of several values the longest."""

    def select(self, key: bytes, values: Sequence[bytes], now: float) -> int:
        return max(range(len(values)), key=lambda index: len(values[index]))


@dataclass
class Ours:
    """One of our nodes."""

    host: libp2p.Host
    kad: Kademlia

    @property
    def addr(self) -> str:
        return str(self.host.addrs[0])


@asynccontextmanager
async def open_ours(
    bootstrap: Sequence[str], *, mode: Mode = Mode.SERVER, provider_ttl: float = 3600.0
) -> AsyncIterator[Ours]:
    validators = {**public_validators(), "test": Longest()}
    kad = Kademlia(
        KadConfig(protocol=PROTOCOL, mode=mode, validators=validators, provider_ttl=provider_ttl),
        bootstrap=bootstrap,
        rng=random.Random(1),
    )
    # Peers tell each other where others are, and here that is this machine.
    config = libp2p.HostConfig(swarm=SwarmConfig(allow_private=True))
    async with libp2p.open_host(listen=["/ip4/127.0.0.1/tcp/0"], services=[kad], config=config) as host:
        yield Ours(host, kad)


@asynccontextmanager
async def network(name: str, theirs: int, ours: int) -> AsyncIterator[tuple[list[Ours], list[Peer]]]:
    """Servers of both kinds in turn, each of which knows one of the other kind, until the tables have filled."""
    async with AsyncExitStack() as stack:
        mine = [await stack.enter_async_context(open_ours(()))]
        peers: list[Peer] = []
        while len(peers) < theirs or len(mine) < ours:
            if len(peers) < theirs:
                peer = await stack.enter_async_context(start_peer(name, pubsub="none", dht="server"))
                await peer("dial", addr=mine[-1].addr)
                peers.append(peer)
            if len(mine) < ours:
                mine.append(await stack.enter_async_context(open_ours([peers[-1].addr])))
        with trio.fail_after(SETTLED):
            while not await _settled(mine, peers):
                await trio.sleep(0.2)
        for node in mine:
            await node.kad.refresh()
        yield mine, peers


async def _settled(mine: Sequence[Ours], peers: Sequence[Peer]) -> bool:
    for peer in peers:
        if not (await peer("dht_table"))["peers"]:
            return False
    return all(len(node.kad.table) for node in mine)


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def content(number: int) -> bytes:
    """The multihash of some content."""
    return b"\x12\x20" + hashlib.sha256(b"content %d" % number).digest()


# --- operations; each takes one of ours and one of theirs -------------------------------------------------------------


async def their_value_ours(us: Ours, them: Peer) -> None:
    value = bytes(range(256)) * (BIG // 256)
    await them("dht_put", key=text(b"/test/theirs"), data=text(value))
    assert await us.kad.get_value(b"/test/theirs") == value


async def our_value_theirs(us: Ours, them: Peer) -> None:
    value = bytes(range(256)) * (BIG // 256)
    await us.kad.put_value(b"/test/ours", value)
    answer = await them("dht_get", key=text(b"/test/ours"))
    assert base64.b64decode(answer["data"]) == value


async def their_content_ours(us: Ours, them: Peer) -> None:
    await them("dht_provide", key=text(content(1)))
    async with us.kad.find_providers(content(1), count=1) as providers:
        assert str(await providers.receive()) == them.peer_id


async def our_content_theirs(us: Ours, them: Peer) -> None:
    await us.kad.provide(content(2))
    answer = await them("dht_find_providers", key=text(content(2)), count=1)
    assert answer["peers"] == [str(us.host.local_peer)]


async def they_find_us(us: Ours, them: Peer) -> None:
    await them("disconnect", peer=str(us.host.local_peer))
    answer = await them("dht_find_peer", peer=str(us.host.local_peer))
    assert us.addr.rpartition("/p2p/")[0] in [addr.rpartition("/p2p/")[0] or addr for addr in answer["addrs"]]


async def we_find_them(us: Ours, them: Peer) -> None:
    peer = libp2p.PeerId.parse(them.peer_id)
    await us.host.disconnect(peer)
    us.host.peerstore.forget(peer)
    assert them.addr.rpartition("/p2p/")[0] in [str(addr) for addr in await us.kad.find_peer(peer)]


async def closest_agree(us: Ours, them: Peer) -> None:
    key = content(3)
    theirs = (await them("dht_closest", key=text(key)))["peers"]
    ours = [str(peer) for peer in await us.kad.closest_peers(key)]
    here, there = str(us.host.local_peer), them.peer_id
    # Each sees 20 and not himself: where there are more, the other may be among his, and take the place of the last.
    assert [peer for peer in theirs if peer != here][:19] == [peer for peer in ours if peer != there][:19]


async def their_key_ours(us: Ours, them: Peer) -> None:
    key = base64.b64decode((await them("dht_put_pk"))["key"])
    value = await us.kad.get_value(key)
    assert libp2p.PeerId.parse(them.peer_id).matches(unmarshal_public_key(value))


async def our_key_theirs(us: Ours, them: Peer) -> None:
    key = b"/pk/" + bytes(us.host.local_peer)
    await us.kad.put_value(key, us.host.private_key.public_key.marshal())
    answer = await them("dht_get", key=text(key))
    assert base64.b64decode(answer["data"]) == us.host.private_key.public_key.marshal()


async def their_name_ours(us: Ours, them: Peer) -> None:
    await them("dht_put_ipns", data=text(TARGET), count=1)
    answer = await them("dht_put_ipns", data=text(TARGET), count=2)
    record = open_record(
        await us.kad.get_value(base64.b64decode(answer["key"]), quorum=0), libp2p.PeerId.parse(them.peer_id)
    )
    assert (record.value, record.sequence) == (TARGET, 2)


async def our_name_theirs(us: Ours, them: Peer) -> None:
    await put_name(us.host, us.kad, TARGET, 1)
    answer = await them("dht_get", key=text(await put_name(us.host, us.kad, TARGET, 2)))
    assert open_record(base64.b64decode(answer["data"]), us.host.local_peer).sequence == 2


async def put_name(host: libp2p.Host, kad: Kademlia, value: bytes, sequence: int) -> bytes:
    """Point our name somewhere; the key of its record."""
    name = host.local_peer
    validity = rfc3339(time.time() + 3600)
    record = IpnsRecord(name=name, value=value, sequence=sequence, validity=validity, ttl=60 * 10**9)
    await kad.put_value(b"/ipns/" + bytes(name), record.seal(host.private_key))
    return b"/ipns/" + bytes(name)


OPERATIONS: dict[str, Callable[[Ours, Peer], Awaitable[Any]]] = {
    "value: theirs, ours": their_value_ours,
    "value: ours, theirs": our_value_theirs,
    "provider: theirs, ours": their_content_ours,
    "provider: ours, theirs": our_content_theirs,
    "find peer: they us": they_find_us,
    "find peer: we them": we_find_them,
    "closest peers": closest_agree,
    "public key: theirs, ours": their_key_ours,
    "public key: ours, theirs": our_key_theirs,
    "name: theirs, ours": their_name_ours,
    "name: ours, theirs": our_name_theirs,
}


@pytest.mark.parametrize("name", ["go", "js", "rust"])
async def test_kad(name: str, built: dict[str, dict[str, Any]], record: Record, pytestconfig: pytest.Config) -> None:
    if name not in built or "server" not in built[name].get("dht", ()):
        pytest.skip("the peer is absent, or has no DHT")
    size = pytestconfig.getoption("--kad-nodes")
    failed: list[str] = []
    async with network(name, size // 2, size - size // 2) as (ours, theirs):
        for operation, run in OPERATIONS.items():
            if operation.startswith("name") and "ipns" not in built[name]["dht_namespaces"]:
                record(f"kad {operation}", name, "yamux", "", "unsupported-by-peer", "no IPNS validator", 0.0)
                continue
            began, reason = trio.current_time(), ""
            try:
                with trio.fail_after(60):
                    await run(ours[0], theirs[-1])
            except (AssertionError, libp2p.Libp2pError, trio.TooSlowError, trio.EndOfChannel) as exc:
                reason = f"{type(exc).__name__}: {exc}"[:300]
                failed.append(f"{operation}: {reason}")
            seconds = trio.current_time() - began
            record(f"kad {operation}", name, "yamux", "", "fail" if reason else "pass", reason, seconds)
    assert not failed, "\n".join(failed)


# --- all of them in one network ---------------------------------------------------------------------------------------


class OursAsPeer:
    """One of our nodes that understands the commands of the contract."""

    def __init__(self, us: Ours) -> None:
        self._host, self._kad = us.host, us.kad
        self.peer_id = str(us.host.local_peer)
        self.addr = us.addr

    async def __call__(
        self, command: str, *, key: str = "", data: str = "", peer: str = "", count: int = 1, addr: str = ""
    ) -> Any:
        kad, name = self._kad, base64.b64decode(key)
        match command:
            case "dial":
                return await self._host.connect(addr)
            case "dht_table":
                return {"peers": [str(entry.peer) for entry in kad.table]}
            case "dht_closest":
                return {"peers": [str(found) for found in await kad.closest_peers(name)]}
            case "dht_put":
                return await kad.put_value(name, base64.b64decode(data))
            case "dht_put_pk":
                key_name = b"/pk/" + bytes(self._host.local_peer)
                await kad.put_value(key_name, self._host.private_key.public_key.marshal())
                return {"key": text(key_name)}
            case "dht_put_ipns":
                return {"key": text(await put_name(self._host, kad, base64.b64decode(data), count))}
            case "dht_get":
                return {"data": text(await kad.get_value(name))}
            case "dht_provide":
                return await kad.provide(name)
            case "dht_find_providers":
                async with kad.find_providers(name, count=count) as providers:
                    return {"peers": [str(await providers.receive())]}
            case _:
                return {"addrs": [str(addr) for addr in await kad.find_peer(libp2p.PeerId.parse(peer))]}


Anybody = Peer | OursAsPeer
KINDS = ("us", "go", "js", "rust")
SERVER, CLIENT = "server", "client"


@dataclass
class Mixed:
    """A network of all kinds.

    Attributes:
        servers: by kind.
        clients: one of each kind.
    """

    servers: dict[str, list[Anybody]]
    clients: dict[str, Anybody]

    def nearest(self, key: bytes, without: str) -> list[str]:
        """Peer ids of all servers but one, nearest to ``key`` first."""
        point = hashlib.sha256(key).digest()

        def distance(peer: str) -> bytes:
            there = hashlib.sha256(bytes(libp2p.PeerId.parse(peer))).digest()
            return bytes(a ^ b for a, b in zip(point, there, strict=True))

        ids = [node.peer_id for nodes in self.servers.values() for node in nodes]
        return sorted([peer for peer in ids if peer != without], key=distance)


async def mixed_value(_: Mixed, a: Anybody, b: Anybody, name: str) -> None:
    await a("dht_put", key=text(f"/test/{name}".encode()), data=text(name.encode()))
    assert base64.b64decode((await b("dht_get", key=text(f"/test/{name}".encode())))["data"]) == name.encode()


async def mixed_big_value(_: Mixed, a: Anybody, b: Anybody, name: str) -> None:
    key, value = text(f"/test/big {name}".encode()), text(hashlib.shake_256(name.encode()).digest(BIG))
    await a("dht_put", key=key, data=value)
    assert (await b("dht_get", key=key))["data"] == value


async def mixed_content(_: Mixed, a: Anybody, b: Anybody, name: str) -> None:
    key = text(b"\x12\x20" + hashlib.sha256(name.encode()).digest())
    await a("dht_provide", key=key)
    assert a.peer_id in (await b("dht_find_providers", key=key, count=1))["peers"]


async def mixed_peer(network: Mixed, a: Anybody, b: Anybody, name: str) -> None:
    wanted = network.servers[name.partition(" ")[0]][0]  # clients are in nobody's table
    found = (await b("dht_find_peer", peer=wanted.peer_id))["addrs"]
    assert wanted.addr.rpartition("/p2p/")[0] in [addr.partition("/p2p/")[0] for addr in found]


async def mixed_closest(network: Mixed, a: Anybody, b: Anybody, name: str) -> None:
    """Who asks finds the very nearest to the other, whom everybody has in his table."""
    key = hashlib.sha256(name.encode()).digest()
    found = [peer for peer in (await b("dht_closest", key=text(key)))["peers"] if peer != b.peer_id]
    assert found[:NEAREST] == network.nearest(key, b.peer_id)[:NEAREST]


async def mixed_key(_: Mixed, a: Anybody, b: Anybody, name: str) -> None:
    found = await b("dht_get", key=(await a("dht_put_pk"))["key"])
    assert libp2p.PeerId.parse(a.peer_id).matches(unmarshal_public_key(base64.b64decode(found["data"])))


async def mixed_name(_: Mixed, a: Anybody, b: Anybody, name: str) -> None:
    # Each has one name: what others put under it before has a lower number.
    key = (await a("dht_put_ipns", data=text(TARGET), count=next(_numbers)))["key"]
    record = open_record(base64.b64decode((await b("dht_get", key=key))["data"]), libp2p.PeerId.parse(a.peer_id))
    assert record.value == TARGET


NEAREST = 3
"""Of these each must find all: farther ones may be missed when somebody is slow."""
_numbers = itertools.count(1)
MIXED_OPERATIONS = {
    "value": mixed_value,
    "big value": mixed_big_value,
    "provider": mixed_content,
    "find peer": mixed_peer,
    "closest peers": mixed_closest,
    "public key": mixed_key,
    "name": mixed_name,
}


@asynccontextmanager
async def mixed_network(kinds: Sequence[str], size: int) -> AsyncIterator[Mixed]:
    """``size`` nodes of all kinds in turn, the last of each kind a client. Each knows the first, and the one before."""
    roles = [SERVER if number < size - len(kinds) else CLIENT for number in range(size)]
    nodes: dict[int, Anybody] = {}
    finished, at_once = trio.Event(), trio.CapacityLimiter(AT_ONCE)

    async def keep(number: int, task_status: trio.TaskStatus[None]) -> None:
        kind, role = kinds[number % len(kinds)], roles[number]
        if kind == "us":
            async with open_ours((), mode=Mode(role)) as ours:
                nodes[number] = OursAsPeer(ours)
                task_status.started()
                await finished.wait()
        else:
            async with start_peer(kind, pubsub="none", dht=role, quiet=True) as peer:
                nodes[number] = peer
                task_status.started()
                await finished.wait()

    async def start(number: int) -> None:
        async with at_once:
            await holding.start(keep, number)

    async def look_around(node: Anybody) -> None:
        await node("dht_closest", key=text(bytes(libp2p.PeerId.parse(node.peer_id))))

    async def join(number: int, node: Anybody) -> None:
        while len((await node("dht_table"))["peers"]) < min(3, size - len(kinds) - 1):
            with suppress(PeerFailed):  # go says so while it knows nobody, rust while the port it dials from is taken
                for known in dict.fromkeys([0, number - 1]):
                    await node("dial", addr=nodes[known].addr)
                await look_around(node)
            await trio.sleep(0.1)

    async with trio.open_nursery() as holding:
        async with trio.open_nursery() as starting:
            for number in range(size):
                starting.start_soon(start, number)
        with trio.fail_after(SETTLED):
            async with trio.open_nursery() as joining:
                for number in range(1, size):
                    joining.start_soon(join, number, nodes[number])
            async with trio.open_nursery() as joining:  # who came early now meets those who came late
                for node in nodes.values():
                    joining.start_soon(look_around, node)
        servers = {
            kind: [nodes[number] for number in range(at, size, len(kinds)) if roles[number] == SERVER]
            for at, kind in enumerate(kinds)
        }
        yield Mixed(servers, {kinds[number % len(kinds)]: nodes[number] for number in range(size - len(kinds), size)})
        finished.set()


async def test_mixed(built: dict[str, dict[str, Any]], record: Record, pytestconfig: pytest.Config) -> None:
    """Every operation in every direction between two kinds, once from a server and once from a client."""
    kinds = [kind for kind in KINDS if kind == "us" or "server" in built.get(kind, {}).get("dht", ())]
    if len(kinds) < 3:
        pytest.skip("fewer than two other kinds of peers have a DHT")
    failed: list[str] = []
    at_once = trio.CapacityLimiter(AT_ONCE)

    async def run(network: Mixed, operation: str, a: str, b: str, role: str) -> None:
        case, peer = f"kad among all: {operation}, {a} to {b}", b if a == "us" else a
        if operation == "name" and not all(kind == "us" or "ipns" in built[kind]["dht_namespaces"] for kind in (a, b)):
            return record(case, peer, "yamux", role, "unsupported-by-peer", "no IPNS validator", 0.0)
        first, second = network.servers[a][0], network.clients[b]
        if role == CLIENT:
            first, second = network.clients[a], network.servers[b][-1]
        began, reason = trio.current_time(), ""
        try:
            async with at_once:
                with trio.fail_after(30):
                    await MIXED_OPERATIONS[operation](network, first, second, f"{a} {b} {role}")
        except (AssertionError, libp2p.Libp2pError, PeerFailed, trio.TooSlowError, trio.EndOfChannel) as exc:
            reason = f"{type(exc).__name__}: {exc}"[:300]
            failed.append(f"{operation}, {a} to {b}, {role}: {reason}")
        record(case, peer, "yamux", role, "fail" if reason else "pass", reason, trio.current_time() - began)

    async with mixed_network(kinds, pytestconfig.getoption("--kad-nodes")) as network:
        for operation in MIXED_OPERATIONS:
            async with trio.open_nursery() as nursery:
                for a, b, role in itertools.product(kinds, kinds, (SERVER, CLIENT)):
                    if a != b:
                        nursery.start_soon(run, network, operation, a, b, role)
    assert not failed, "\n".join(failed)


# --- what ends --------------------------------------------------------------------------------------------------------

SHORT = 3.0
"""Seconds for which a provider is kept."""


async def test_providers_end(built: dict[str, dict[str, Any]], record: Record) -> None:
    """Theirs on our server, ours on theirs: found by somebody else, and after a while no more."""
    failed: list[str] = []

    async def run(name: str, role: str, test: Callable[[str], Awaitable[None]]) -> None:
        began, reason = trio.current_time(), ""
        try:
            with trio.fail_after(SETTLED):
                await test(name)
        except (AssertionError, libp2p.Libp2pError, PeerFailed, trio.TooSlowError) as exc:
            reason = f"{type(exc).__name__}: {exc}"[:300]
            failed.append(f"{name}, {role}: {reason}")
        seconds = trio.current_time() - began
        record("kad provider ends", name, "yamux", role, "fail" if reason else "pass", reason, seconds)

    async with trio.open_nursery() as nursery:
        for name in [name for name in KINDS if "server" in built.get(name, {}).get("dht", ())]:
            nursery.start_soon(run, name, SERVER, theirs_end_here)
            nursery.start_soon(run, name, CLIENT, ours_end_there)
    assert not failed, "\n".join(failed)


async def theirs_end_here(name: str) -> None:
    async with (
        open_ours((), provider_ttl=SHORT) as server,
        open_ours([server.addr], mode=Mode.CLIENT) as asking,
        start_peer(name, pubsub="none", dht="client") as peer,
    ):
        await peer("dial", addr=server.addr)
        while not (await peer("dht_table"))["peers"]:
            await trio.sleep(0.1)
        await peer("dht_provide", key=text(content(4)))
        await _found_and_gone(asking, peer.peer_id)


async def ours_end_there(name: str) -> None:
    async with (
        start_peer(name, pubsub="none", dht="server", provider_ttl=f"{SHORT:g}") as server,
        open_ours([server.addr], mode=Mode.CLIENT) as us,
        open_ours([server.addr], mode=Mode.CLIENT) as asking,
    ):
        while not len(us.kad.table):
            await trio.sleep(0.1)
        await us.kad.provide(content(4))
        await _found_and_gone(asking, str(us.host.local_peer))


async def _found_and_gone(asking: Ours, provider: str) -> None:
    while not len(asking.kad.table):
        await trio.sleep(0.1)
    while await _providers(asking) != [provider]:
        await trio.sleep(0.1)
    while await _providers(asking):
        await trio.sleep(0.1)


async def _providers(asking: Ours) -> list[str]:
    async with asking.kad.find_providers(content(4)) as providers:
        return [str(peer) async for peer in providers]
