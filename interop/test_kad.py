"""Kademlia with real peers: every operation in both directions, in mixed networks. Time here is real."""

from __future__ import annotations

import base64
import hashlib
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
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
async def open_ours(bootstrap: Sequence[str]) -> AsyncIterator[Ours]:
    kad = Kademlia(
        KadConfig(protocol=PROTOCOL, mode=Mode.SERVER, validators={**public_validators(), "test": Longest()}),
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
    assert [peer for peer in theirs if peer != here] == [peer for peer in ours if peer != there]


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
    target = "/ipfs/bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy"
    await them("dht_put_ipns", data=text(target.encode()), count=1)
    answer = await them("dht_put_ipns", data=text(target.encode()), count=2)
    record = open_record(
        await us.kad.get_value(base64.b64decode(answer["key"]), quorum=0), libp2p.PeerId.parse(them.peer_id)
    )
    assert (record.value, record.sequence) == (target.encode(), 2)


async def our_name_theirs(us: Ours, them: Peer) -> None:
    peer = us.host.local_peer
    for sequence in (1, 2):
        record = IpnsRecord(
            name=peer, value=b"/ipfs/x", sequence=sequence, validity=rfc3339(time.time() + 3600), ttl=60 * 10**9
        )
        await us.kad.put_value(b"/ipns/" + bytes(peer), record.seal(us.host.private_key))
    answer = await them("dht_get", key=text(b"/ipns/" + bytes(peer)))
    assert open_record(base64.b64decode(answer["data"]), peer).sequence == 2


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
        self._kad = us.kad
        self.peer_id = str(us.host.local_peer)
        self.addr = us.addr

    async def __call__(self, command: str, *, key: str = "", data: str = "", peer: str = "", count: int = 1) -> Any:
        kad, name = self._kad, base64.b64decode(key)
        match command:
            case "dht_table":
                return {"peers": [str(entry.peer) for entry in kad.table]}
            case "dht_closest":
                return {"peers": [str(found) for found in await kad.closest_peers(name)]}
            case "dht_put":
                return await kad.put_value(name, base64.b64decode(data))
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
MIXED = ("us", "go", "js", "rust")


async def mixed_value(a: Anybody, b: Anybody, name: str) -> None:
    await a("dht_put", key=text(f"/test/{name}".encode()), data=text(name.encode()))
    assert base64.b64decode((await b("dht_get", key=text(f"/test/{name}".encode())))["data"]) == name.encode()


async def mixed_content(a: Anybody, b: Anybody, name: str) -> None:
    key = text(b"\x12\x20" + hashlib.sha256(name.encode()).digest())
    await a("dht_provide", key=key)
    assert a.peer_id in (await b("dht_find_providers", key=key, count=1))["peers"]


async def mixed_peer(a: Anybody, b: Anybody, name: str) -> None:
    found = (await b("dht_find_peer", peer=a.peer_id))["addrs"]
    assert a.addr.rpartition("/p2p/")[0] in [addr.partition("/p2p/")[0] for addr in found]


MIXED_OPERATIONS = {"value": mixed_value, "provider": mixed_content, "find peer": mixed_peer}


@asynccontextmanager
async def mixed_network(kinds: Sequence[str], size: int) -> AsyncIterator[dict[str, list[Anybody]]]:
    """Servers of all kinds in turn, each of which knows the one before, and the first."""
    async with AsyncExitStack() as stack:
        nodes: dict[str, list[Anybody]] = {kind: [] for kind in kinds}
        addrs: list[str] = []
        for number in range(size):
            kind, known = kinds[number % len(kinds)], dict.fromkeys([*addrs[:1], *addrs[-1:]])
            node: Anybody
            if kind == "us":
                node = OursAsPeer(await stack.enter_async_context(open_ours(list(known))))
            else:
                node = await stack.enter_async_context(start_peer(kind, pubsub="none", dht="server"))
                for addr in known:
                    await node("dial", addr=addr)
            nodes[kind].append(node)
            addrs.append(node.addr)
        everybody = [node for kind in nodes.values() for node in kind]
        with trio.fail_after(SETTLED):
            for node in everybody:
                while len((await node("dht_table"))["peers"]) < min(3, size - 1):
                    await node("dht_closest", key=text(bytes(libp2p.PeerId.parse(node.peer_id))))
        yield nodes


async def test_mixed(built: dict[str, dict[str, Any]], record: Record, pytestconfig: pytest.Config) -> None:
    """Every operation in every direction between two kinds, among all kinds."""
    kinds = [kind for kind in MIXED if kind == "us" or "server" in built.get(kind, {}).get("dht", ())]
    if len(kinds) < 3:
        pytest.skip("fewer than two other kinds of peers have a DHT")
    failed: list[str] = []
    async with mixed_network(kinds, pytestconfig.getoption("--kad-nodes")) as nodes:
        for a, b in [(a, b) for a in kinds for b in kinds if a != b]:
            for operation, run in MIXED_OPERATIONS.items():
                began, reason = trio.current_time(), ""
                try:
                    with trio.fail_after(30):
                        await run(nodes[a][0], nodes[b][-1], f"{a} {b}")
                except (AssertionError, libp2p.Libp2pError, PeerFailed, trio.TooSlowError, trio.EndOfChannel) as exc:
                    reason = f"{type(exc).__name__}: {exc}"[:300]
                    failed.append(f"{operation}, {a} to {b}: {reason}")
                case, peer = f"kad among all: {operation}, {a} to {b}", b if a == "us" else a
                record(case, peer, "yamux", "", "fail" if reason else "pass", reason, trio.current_time() - began)
    assert not failed, "\n".join(failed)
