"""The swarm as a whole: its tables, its events, several connections to one peer, and trimming. Cases T10 and X9."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio

from libp2p.abc import Connection
from libp2p.errors import ConnectionClosed, DialError
from libp2p.events import (
    ConnectionEnded,
    ConnectionOpened,
    Event,
    PeerConnected,
    PeerDisconnected,
    ProtocolsChanged,
)
from libp2p.host import HostConfig, RunningHost
from libp2p.swarm import SwarmConfig, TrimConfig
from libp2p.swarm._events import SUBSCRIBER_QUEUE
from libp2p.testing import Hosts, Link, memory_network
from tests.protocols.waiting import settled, until
from tests.swarm.nodes import P, checkpoints, echo, works


def received(events: trio.abc.ReceiveChannel[Event]) -> list[Event]:
    """Everything that has arrived."""
    found = []
    try:
        while True:
            found.append(events.receive_nowait())  # type: ignore[attr-defined]
    except trio.WouldBlock:
        return found


async def connect_both_ways(hosts: Hosts, steps: int = 0) -> tuple[Sequence[Connection], Sequence[Connection]]:
    """Let two hosts dial each other at once; returns the connections of both."""
    a, b = hosts
    async with trio.open_nursery() as nursery:
        nursery.start_soon(a.connect, b.addrs[0])
        await checkpoints(steps)()
        nursery.start_soon(b.connect, a.addrs[0])
    await settled()
    return a.connections(), b.connections()


# --- the tables -------------------------------------------------------------------------------------------------------


async def test_connecting_again_gives_the_same_connection() -> None:
    async with memory_network(2, defaults=()) as (a, b):
        first = await a.connect(b.addrs[0])
        assert await a.connect(b.local_peer) is first
        assert await a.connect(b.local_peer, ["/memory/999"]) is first
        await until(b.connections)
        assert (await b.connect(a.local_peer)).peer == a.local_peer
        assert len(a.connections()) == len(b.connections()) == 1


async def test_after_disconnect_there_is_no_connection() -> None:
    """So that who connects next gets a new one, and not one that is dying."""
    async with memory_network(2, connect="full") as (a, b):
        [old] = a.connections()
        await a.disconnect(b.local_peer)
        assert not a.connections(b.local_peer)
        assert await a.connect(b.local_peer) is not old


async def test_a_cancelled_disconnect_disconnects() -> None:
    """Trio's rule: a cancelled close still closes, only without manners. All connections, not just the first."""
    async with memory_network(2, defaults=()) as hosts:
        a, b = hosts
        await connect_both_ways(hosts)
        assert len(a.connections()) == 2
        with trio.CancelScope() as scope:
            scope.cancel()
            await a.disconnect(b.local_peer)
        await settled()
        assert not a.connections() and not b.connections()


async def test_disconnecting_a_stranger_does_nothing() -> None:
    async with memory_network(2, defaults=()) as (a, b):
        await a.disconnect(b.local_peer)


async def test_what_worked_is_remembered() -> None:
    async with memory_network(2, defaults=()) as (a, b):
        await a.connect(b.addrs[0])
        assert list(a.peerstore.addrs(b.local_peer)) == list(b.listen_addrs())
        assert a.peerstore.key(b.local_peer) == b.private_key.public_key
        await a.disconnect(b.local_peer)
        await a.connect(b.local_peer)
        await until(b.connections)
        # The listener has learnt no address: those of inbound connections cannot be dialled.
        assert not b.peerstore.addrs(a.local_peer)


# --- events -----------------------------------------------------------------------------------------------------------


async def test_each_event_once() -> None:
    async with memory_network(2, defaults=()) as hosts:
        a, b = hosts
        with a.subscribe(Event) as events:
            [one, other], _ = await connect_both_ways(hosts)
            kinds = [type(event) for event in received(events)]
            assert kinds == [ConnectionOpened, PeerConnected, ConnectionOpened]
            await one.aclose()
            await settled()
            [ended] = received(events)
            assert isinstance(ended, ConnectionEnded) and ended.connection is one
            await other.aclose()
            await other.aclose()
            await settled()
            assert received(events) == [
                ConnectionEnded(b.local_peer, other, "closed here"),
                PeerDisconnected(b.local_peer),
            ]


async def test_the_reason_of_an_end() -> None:
    async with memory_network(2, defaults=(), connect="full") as hosts:
        a, b = hosts
        await until(b.connections)
        with a.subscribe(ConnectionEnded) as ours, b.subscribe(ConnectionEnded) as theirs:
            hosts.network.kill(hosts.node(a))
            assert "reset" in (await ours.receive()).reason
            assert "reset" in (await theirs.receive()).reason


async def test_a_slow_subscriber_loses_the_oldest_and_can_tell() -> None:
    async with memory_network(1, defaults=()) as (a,):
        with a.subscribe(ProtocolsChanged) as slow, a.subscribe(PeerConnected) as other:
            for number in range(SUBSCRIBER_QUEUE + 10):
                a.publish(ProtocolsChanged((str(number),)))
            assert slow.lost == 10  # type: ignore[attr-defined]
            assert await slow.receive() == ProtocolsChanged(("10",))
            assert not received(other)


async def test_subscriptions_end() -> None:
    async with memory_network(1, defaults=()) as (a,):
        with pytest.raises(ValueError, match="name the kinds"), a.subscribe():
            pass
        with a.subscribe(Event) as events:
            await events.aclose()
            a.publish(ProtocolsChanged(()))  # to nobody
        with pytest.raises(trio.ClosedResourceError):
            await events.receive()
        assert not a.swarm.events._subscribers


# --- several connections to one peer ----------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", range(0, 12, 3))
@pytest.mark.parametrize("latency", [0.0, 0.1])
async def test_t10_simultaneous_dials_both_work(steps, latency) -> None:
    """C8: either connection carries streams, and those of one do not notice when the other ends."""
    async with memory_network(2, defaults=(), link=Link(latency=latency)) as hosts:
        a, b = hosts
        ours, theirs = await connect_both_ways(hosts, steps)
        await trio.sleep(1)
        assert len(ours) == len(theirs)
        with a.handle(P, echo), b.handle(P, echo):
            streams = [await conn.open_stream(P) for conn in (*a.connections(), *b.connections())]
            for stream in streams:
                assert await works(stream)
            doomed = a.connections()[0]
            ends_too = {conn for conn in b.connections() if conn.remote_addr == doomed.local_addr}
            ends_too |= {conn for conn in b.connections() if conn.local_addr == doomed.remote_addr}
            assert len(ends_too) == 1
            await doomed.aclose()
            await trio.sleep(1)
            for stream in streams:
                if stream.connection is doomed or stream.connection in ends_too:
                    with pytest.raises((ConnectionClosed, trio.ClosedResourceError)):
                        await works(stream)
                else:
                    assert await works(stream)
            async with await a.open_stream(b.local_peer, P) as stream:
                assert await works(stream)
            for stream in streams:
                stream.reset()


async def test_streams_go_over_the_busiest_connection() -> None:
    async with memory_network(2, defaults=()) as hosts:
        a, b = hosts
        with b.handle(P, echo):
            ours, _ = await connect_both_ways(hosts)
            busy = ours[-1]
            async with await busy.open_stream(P):
                assert a.connections(b.local_peer)[0] is busy
                async with await a.open_stream(b.local_peer, P) as stream:
                    assert stream.connection is busy


# --- a connection that has just died ----------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", range(6))
async def test_open_stream_tries_again_on_a_connection_that_just_died(steps) -> None:
    """At whatever step it is noticed; on the streams of protocols that must be asked for."""
    async with memory_network(2, defaults=(), connect="full") as hosts:
        a, b = hosts
        with b.handle(P, echo):
            await until(b.connections)
            hosts.network.kill(hosts.node(a))
            await checkpoints(steps)()
            async with await a.open_stream(b.local_peer, P) as stream:
                assert await works(stream)
        assert len(a.connections()) == 1


async def test_the_second_try_uses_the_address_that_was_given() -> None:
    async with memory_network(2, defaults=()) as hosts:
        a, b = hosts
        with b.handle(P, echo):
            await b.connect(a.addrs[0])
            await until(a.connections)
            assert not a.peerstore.addrs(b.local_peer)
            hosts.network.kill(hosts.node(b))
            async with await a.open_stream(b.addrs[0], P) as stream:
                assert await works(stream)


async def test_when_the_second_try_fails_too() -> None:
    async with memory_network(2, defaults=(), connect="full") as hosts:
        a, b = hosts
        hosts.network.cut(hosts.node(a), hosts.node(b), hard=True)
        with pytest.raises(DialError, match="the network is cut"):
            await a.open_stream(b.local_peer, P)


# --- trimming ---------------------------------------------------------------------------------------------------------


def trimming(**trim: float) -> HostConfig:
    return HostConfig(swarm=SwarmConfig(trim=TrimConfig(**trim)))  # type: ignore[arg-type]


async def _all_connect_to(hub: RunningHost, others: Sequence[RunningHost]) -> None:
    for other in others:
        await other.connect(hub.addrs[0])
    await settled()


async def test_above_high_the_timer_trims_to_low_once_their_grace_is_over() -> None:
    async with memory_network(8, defaults=(), config=trimming(low=3, high=5, grace=60, silence=10)) as (hub, *others):
        with hub.subscribe(ConnectionEnded) as events:
            await _all_connect_to(hub, others)
            kept = others[-1]
            hub.protect(kept.local_peer, "mine")
            hub.swarm.tags.tag(others[-2].local_peer, "useful", 5)
            assert len(hub.connections()) == 7
            await trio.sleep(59)
            assert len(hub.connections()) == 7
            started = trio.current_time()
            await until(lambda: len(hub.connections()) <= 3)
            assert trio.current_time() - started <= 11
            await settled()
            assert len(hub.connections()) == 3
            assert hub.connections(kept.local_peer) and hub.connections(others[-2].local_peer)
            assert [event.reason for event in received(events)] == ["aborted here"] * 4  # type: ignore[attr-defined]
        # The others know.
        assert sum(len(other.connections()) for other in others) == 3


async def test_a_new_connection_trims_at_once_and_is_spared() -> None:
    async with memory_network(6, defaults=(), config=trimming(low=2, high=4, grace=60, silence=1e6)) as (hub, *others):
        await _all_connect_to(hub, others[:4])
        await trio.sleep(100)
        await _all_connect_to(hub, others[4:])
        assert len(hub.connections()) == 2
        assert hub.connections(others[4].local_peer)


async def test_protected_peers_are_never_trimmed() -> None:
    async with memory_network(6, defaults=(), config=trimming(low=0, high=1, grace=0, silence=1)) as (hub, *others):
        for other in others:
            hub.protect(other.local_peer, "mine")
        await _all_connect_to(hub, others)
        await trio.sleep(10)
        assert len(hub.connections()) == 5
        for other in others:
            hub.unprotect(other.local_peer, "mine")
        await trio.sleep(2)
        assert not hub.connections()


def test_the_timer_needs_a_time() -> None:
    """Zero would be a loop that never rests."""
    with pytest.raises(ValueError, match="timer"):
        TrimConfig(silence=0)


# --- the end ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("silent", [False, True])
async def test_closing_takes_no_longer_than_it_may(silent) -> None:
    """With many connections, and with peers that do not read any more."""
    async with memory_network(6, defaults=(), connect="full", link=Link(buffer=1024)) as hosts:
        for host in hosts:
            host.handle(P, echo)
        if silent:
            hosts.network.partition(*([host.swarm._transports[0].name] for host in hosts))  # type: ignore[attr-defined]
            for other in hosts[1:]:
                hosts[0].peerstore.set_protocols(other.local_peer, [P])
                stream = await hosts[0].open_stream(other.local_peer, P)
                with trio.move_on_after(0.1):
                    await stream.send_all(bytes(100_000))
        started = trio.current_time()
    assert trio.current_time() - started <= (6 * 2.0 if silent else 0.0)
