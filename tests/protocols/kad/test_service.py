"""Nodes of the DHT among each other: requirements KD3 to KD16."""

from __future__ import annotations

from contextlib import AsyncExitStack
from types import SimpleNamespace

import pytest
import trio

from libp2p.addressing import parse
from libp2p.crypto.keys import unmarshal_public_key
from libp2p.errors import DialError, LimitExceeded
from libp2p.events import Reachability
from libp2p.metrics import render
from libp2p.peer_id import PeerId
from libp2p.protocols.kad import KAD, InvalidRecord, KadConfig, Kademlia, LookupStep, Mode, NotFound, NotStored, Reach
from libp2p.protocols.kad._codec import MAX_ANSWER, Message, MessageType, decode, encode
from libp2p.protocols.kad._members import reached_at
from libp2p.protocols.kad._values import MAX_CORRECTIONS
from libp2p.records.ipns import IpnsRecord, open_record, rfc3339
from libp2p.testing.keys import seeded_key
from libp2p.transports.memory import MemoryNetwork
from libp2p.wire.framing import FrameBuffer, frame

from .networks import dht, open_node

SOMEBODY = PeerId.from_key(seeded_key("somebody").public_key)


async def test_two_nodes() -> None:
    async with dht(2) as (a, b):
        assert b.peer in a.kad.table
        assert a.peer in b.kad.table
        await a.kad.put_value(b"/v/key", b"value")
        assert await b.kad.get_value(b"/v/key") == b"value"
        await a.kad.provide(b"content")
        async with b.kad.find_providers(b"content") as providers:
            assert [peer async for peer in providers] == [a.peer]
        assert b.host.peerstore.addrs(a.peer)


async def test_a_network() -> None:
    """KD4: who only asks is in nobody's table; KD8, KD10."""
    async with dht(10, clients=2) as nodes:
        first, other, client = nodes[3], nodes[7], nodes[-1]
        await first.kad.put_value(b"/v/key", b"value")
        assert await client.kad.get_value(b"/v/key") == b"value"
        with pytest.raises(NotFound) as caught:
            await client.kad.get_value(b"/v/other")
        assert caught.value.asked == 8
        await client.kad.provide(b"content")
        async with other.kad.find_providers(b"content", count=1) as providers:
            assert [peer async for peer in providers] == [client.peer]
        assert all(client.peer not in node.kad.table for node in nodes)
        assert not client.kad.serving
        assert KAD not in client.host.protocols
        # A peer id without an address is found by asking.
        await client.host.disconnect(other.peer)
        client.host.peerstore.forget(other.peer)
        connection = await client.host.connect(other.peer)
        assert connection.peer == other.peer
        async with await client.host.open_stream(other.peer, "/ipfs/ping/1.0.0"):
            pass
        closest = await client.kad.closest_peers(b"x")
        assert set(closest) == {node.peer for node in nodes[:8]}
        assert closest == await nodes[-2].kad.closest_peers(b"x")


async def test_an_unknown_peer_is_not_found() -> None:
    async with dht(2) as (a, b):
        async with open_node(MemoryNetwork(1), "elsewhere") as stranger:
            peer = stranger.peer
        assert await a.kad.find_peer(peer) == []
        with pytest.raises(DialError):
            await a.host.connect(peer)
        assert await a.kad.find_peer(b.peer)


async def test_a_connected_peer_that_has_yet_to_say_its_addresses_is_asked_for() -> None:
    async with dht(4) as (a, b, *_):
        await a.host.connect(b.peer, b.host.addrs)
        a.host.peerstore.forget(b.peer)
        assert not a.host.peerstore.addrs(b.peer)
        told = await a.kad.find_peer(b.peer)
        assert [str(addr) for addr in told] == [str(addr).partition("/p2p/")[0] for addr in b.host.addrs]


async def test_alone() -> None:
    async with open_node(MemoryNetwork(0), "alone") as node:
        with pytest.raises(NotStored, match="none of 0"):
            await node.kad.put_value(b"/v/key", b"value")
        assert await node.kad.get_value(b"/v/key", quorum=1) == b"value"  # it has it itself
        with pytest.raises(NotStored):
            await node.kad.provide(b"content")
        assert node.kad.provided == (b"content",)
        node.kad.stop_providing(b"content")
        assert node.kad.provided == ()


async def test_kd8_stale_holders_are_corrected() -> None:
    """KD8: the outdated are told of the best, and the nearest that have nothing."""
    async with dht(4) as nodes:
        a, b, c, d = nodes
        now = trio.current_time()
        for node, value in ((a, b"old"), (b, b"newest"), (c, b"older")):
            node.kad._node().store.put_value(b"/v/key", value, now=now, expires=now + 100)
        assert await d.kad.get_value(b"/v/key", quorum=0) == b"newest"
        await trio.sleep(5)
        assert d.kad._node().corrections == 0
        for node in (a, b, c):
            held = node.kad._node().store.value(b"/v/key", trio.current_time())
            assert held is not None
            assert held.value == b"newest"


async def test_corrections_that_wait_are_bounded() -> None:
    """KD8: peers with old values that hang cannot pile up tasks here."""
    async with dht(3) as (a, b, c):
        now = trio.current_time()
        for node, value in ((a, b"old"), (b, b"newest")):
            node.kad._node().store.put_value(b"/v/key", value, now=now, expires=now + 100)
        c.kad._node().corrections = MAX_CORRECTIONS
        assert await c.kad.get_value(b"/v/key", quorum=0) == b"newest"
        await trio.sleep(5)
        held = a.kad._node().store.value(b"/v/key", trio.current_time())
        assert held is not None
        assert held.value == b"old"


async def test_values_get_better_while_searching() -> None:
    async with dht(3) as (a, b, c):
        now = trio.current_time()
        for node, value in ((a, b"old"), (b, b"newest")):
            node.kad._node().store.put_value(b"/v/key", value, now=now, expires=now + 100)
        async with c.kad.search_value(b"/v/key") as values:
            found = [value async for value in values]
        assert found[-1] == b"newest"
        assert found == sorted(found, key=len)
        with pytest.raises(InvalidRecord):
            async with c.kad.search_value(b"/unknown/key") as values:
                await values.receive()


async def test_kd8_public_keys_and_names() -> None:
    """KD8."""
    async with dht(2) as (a, b):
        key = a.host.private_key.public_key
        await a.kad.put_value(b"/pk/" + bytes(a.peer), key.marshal())
        assert unmarshal_public_key(await b.kad.get_value(b"/pk/" + bytes(a.peer))) == key
        for sequence in (1, 2):
            record = IpnsRecord(name=a.peer, value=b"/ipfs/x", sequence=sequence, validity=rfc3339(10**6))
            await a.kad.put_value(b"/ipns/" + bytes(a.peer), record.seal(a.host.private_key))
        assert open_record(await b.kad.get_value(b"/ipns/" + bytes(a.peer)), a.peer).sequence == 2
        with pytest.raises(InvalidRecord, match="better"):
            await a.kad.put_value(
                b"/ipns/" + bytes(a.peer),
                IpnsRecord(name=a.peer, value=b"/x", sequence=1, validity=rfc3339(10**6)).seal(a.host.private_key),
            )


async def test_k2_unknown_namespaces_are_refused() -> None:
    """K2: when storing and when asking."""
    async with dht(2) as (a, _):
        for key in (b"/unknown/key", b"key", b"/v", b"/v/", b"v/key"):
            with pytest.raises(InvalidRecord):
                await a.kad.put_value(key, b"value")
            with pytest.raises(InvalidRecord):
                await a.kad.get_value(key)


async def test_kd11_providers_end_and_are_announced_again() -> None:
    """KD11: after 22 and 48 hours; here seconds stand for ten minutes."""
    defaults = KadConfig()
    assert (defaults.reprovide_interval, defaults.provider_ttl) == (22 * 3600, 48 * 3600)
    async with dht(2, reprovide_interval=132.0, provider_ttl=288.0) as (a, b):
        await a.kad.provide(b"content")
        await trio.sleep(400)
        async with b.kad.find_providers(b"content") as providers:
            assert [peer async for peer in providers] == [a.peer]
        a.kad.stop_providing(b"content")
        await trio.sleep(300)
        async with b.kad.find_providers(b"content") as providers:
            assert [peer async for peer in providers] == []


async def test_what_nobody_took_is_announced_again_soon() -> None:
    """KD11: not after 22 hours only."""
    network = MemoryNetwork(0)
    async with open_node(network, "a") as a, open_node(network, "b") as b:
        with pytest.raises(NotStored):
            await a.kad.provide(b"content")
        await a.host.connect(b.host.addrs[0])
        await trio.sleep(70)
        assert [each.peer for each in b.kad._node().store.providers(b"content", trio.current_time())] == [a.peer]


async def test_i9_only_addresses_of_the_network_are_announced() -> None:
    """I9: nobody on the internet is told where in his home network a provider is."""
    network, public = MemoryNetwork(0), parse("/ip4/7.7.7.7/tcp/4001")
    async with (
        open_node(network, "server", ip="8.8.8.8", reach=Reach.PUBLIC) as server,
        open_node(network, "home", ip="192.168.1.7", reach=Reach.PUBLIC, bootstrap=[server.host.addrs[0]]) as home,
    ):
        await trio.sleep(5)
        with pytest.raises(NotStored, match="no address"):
            await home.kad.provide(b"content")
        home.host.set_mapped_addrs([public])
        await home.kad.provide(b"content")
        await trio.sleep(1)
        (held,) = server.kad._node().store.providers(b"content", trio.current_time())
        assert held.addrs == (public.to_bytes(),)


async def test_kd8_a_value_that_has_ended_is_not_in_the_way_of_the_next() -> None:
    """KD8: a name's record ends before its place with servers does; whoever lost count begins again."""
    async with dht(2) as (a, b):
        key, ends = b"/ipns/" + bytes(a.peer), trio.current_time() + 60
        for sequence, validity in ((5, ends), (1, ends + 1000)):
            record = IpnsRecord(name=a.peer, value=b"/ipfs/x", sequence=sequence, validity=rfc3339(validity))
            await a.kad.put_value(key, record.seal(a.host.private_key))
            assert open_record(await b.kad.get_value(key), a.peer).sequence == sequence
            await trio.sleep(100)
        b.kad._node().store.put_value(key, b"nonsense", now=0.0, expires=1e9)
        async with await a.host.open_stream(b.peer, KAD) as stream:
            await stream.send_all(frame(encode(Message(type=MessageType.GET_VALUE, key=key))))
            (answer,) = FrameBuffer(MAX_ANSWER).receive_data(await stream.receive_some())
        assert decode(answer).record is None


def test_k6_where_a_relay_is_says_nothing_of_those_behind_it() -> None:
    """K6: or whoever has a relay without limits would have as many places in a table as he likes."""
    direct = parse("/ip4/8.8.8.8/tcp/1")
    relayed = parse(f"/ip4/9.9.9.9/tcp/1/p2p/{SOMEBODY}/p2p-circuit")
    connections = [SimpleNamespace(remote_addr=addr) for addr in (direct, relayed)]
    host = SimpleNamespace(connections=lambda peer: connections)
    assert reached_at(host, SOMEBODY) == [direct]


async def test_what_is_provided_is_bounded() -> None:
    async with dht(2, provided=3) as (a, _):
        await a.kad.provide_many([b"1", b"2", b"3"])
        with pytest.raises(LimitExceeded, match="provided"):
            await a.kad.provide(b"4")
        with pytest.raises(ValueError, match="80"):
            await a.kad.provide(bytes(81))
        with pytest.raises(ValueError, match="80"):
            async with a.kad.find_providers(b""):
                pass


async def test_more_keys_than_a_stream_carries() -> None:
    async with dht(2) as (a, b):
        keys = [b"key %d" % number for number in range(b.kad.config.messages_per_stream + 500)]
        await a.kad.provide_many(keys)
        await trio.sleep(1)
        store = b.kad._node().store
        assert all(store.providers(key, trio.current_time()) for key in keys)


async def test_announcements_reach_servers_that_close_a_stream_after_each_answer() -> None:
    """KD3: as py-libp2p does; nothing answers an announcement, so nothing would tell that it was lost."""
    async with dht(2, messages_per_stream=1) as (a, b):
        await a.kad.provide(b"content")
        await trio.sleep(1)
        assert [each.peer for each in b.kad._node().store.providers(b"content", trio.current_time())] == [a.peer]


async def test_kd4_a_node_is_a_server_while_it_can_be_reached() -> None:
    """KD4: it tells connected peers by identify push, and gets into their tables and out of them."""
    network, public = MemoryNetwork(0), parse("/ip4/9.9.9.9/tcp/4001")
    async with (
        open_node(network, "a", ip="8.8.8.8", reach=Reach.PUBLIC) as a,
        open_node(network, "b", ip="192.168.1.7", reach=Reach.PUBLIC, bootstrap=[a.host.addrs[0]]) as b,
    ):
        await trio.sleep(5)
        assert a.kad.serving
        assert a.host.connections(b.peer)
        assert not b.kad.serving
        assert b.peer not in a.kad.table
        b.host.set_mapped_addrs([public])
        await trio.sleep(5)
        assert b.kad.serving
        assert b.peer in a.kad.table
        b.host.judge({public: Reachability.PRIVATE})
        await trio.sleep(5)
        assert not b.kad.serving
        assert b.peer not in a.kad.table


async def test_kd4_mode_by_hand() -> None:
    """KD4."""
    network = MemoryNetwork(0)
    async with open_node(network, "a", mode=Mode.CLIENT) as a, open_node(network, "b") as b:
        await trio.sleep(1)
        assert not a.kad.serving
        assert b.kad.serving
        assert KAD in b.host.protocols


async def test_the_dead_leave_the_table() -> None:
    """KD18."""
    network = MemoryNetwork(0)
    async with open_node(network, "a") as a:
        async with open_node(network, "b", bootstrap=[a.host.addrs[0]]) as b:
            await trio.sleep(5)
            assert b.peer in a.kad.table
        await trio.sleep(1800)
        assert b.peer not in a.kad.table


@pytest.mark.bar_n
@pytest.mark.limit(600)
async def test_k5_half_of_the_network_dies() -> None:
    """K5: ten minutes later nobody names the dead, and the living find each other."""
    network = MemoryNetwork(0)
    async with AsyncExitStack() as living:
        first = await living.enter_async_context(open_node(network, "n0"))
        known = [first.host.addrs[0]]
        alive = [first]
        alive += [
            await living.enter_async_context(open_node(network, f"n{number}", bootstrap=known))
            for number in range(1, 8)
        ]
        async with AsyncExitStack() as dying:
            dead = set[PeerId]()
            for number in range(8, 16):
                dead.add((await dying.enter_async_context(open_node(network, f"n{number}", bootstrap=known))).peer)
            await trio.sleep(60)
            assert any(peer in first.kad.table for peer in dead)
        await trio.sleep(600)
        for node in alive:
            table = node.kad.table
            assert dead.isdisjoint(table.nearest(table.point, 30, healthy=True))
            assert set(await node.kad.closest_peers(b"key")) == {each.peer for each in alive if each is not node}


async def test_streams_are_used_again_and_end_when_idle() -> None:
    """KD3."""
    async with dht(4, idle_streams=2) as nodes:
        messenger = nodes[0].kad._node().messenger
        await nodes[0].kad.closest_peers(b"key")
        await trio.lowlevel.checkpoint()
        assert len(messenger._idle) == 2
        kept = {peer: idle.stream for peer, idle in messenger._idle.items()}
        for peer in kept:
            await nodes[0].kad.ask_peer(peer, b"key")
        assert {peer: idle.stream for peer, idle in messenger._idle.items()} == kept
        await trio.sleep(100)
        assert not messenger._idle


async def test_lookups_tell_their_steps() -> None:
    async with dht(2) as (a, b):
        with a.host.subscribe(LookupStep) as steps:
            await a.kad.closest_peers(b"key")
            asked, answered = await steps.receive(), await steps.receive()
        assert (asked.peer, asked.step.value, answered.step.value) == (b.peer, "asked", "answered")
        assert a.kad.metrics()["table"] == 1
        assert b.kad.metrics()["find_node"] >= 1
        text = render(b.host.measure())
        assert 'libp2p_kad_table_peers{network="/ipfs/kad/1.0.0"} 1.0' in text
        assert 'libp2p_kad_requests_total{network="/ipfs/kad/1.0.0",event="find_node"}' in text
        assert await a.kad.ask_peer(b.peer, b"key") == []


async def test_it_must_run() -> None:
    with pytest.raises(RuntimeError, match="not running"):
        await Kademlia().closest_peers(b"x")
    assert not list(Kademlia().measure())
    with pytest.raises(ValueError, match="/p2p/"):
        Kademlia(bootstrap=["/ip4/1.2.3.4/tcp/1"])
