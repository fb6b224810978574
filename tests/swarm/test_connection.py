"""Streams of a swarm's connections: negotiation, limits, containment of handlers (case X4), and how they end."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from libp2p.abc import Stream
from libp2p.errors import ConnectionClosed, LimitExceeded, NegotiationError, StreamReset
from libp2p.events import ConnectionEnded
from libp2p.host import HostConfig, RunningHost
from libp2p.swarm import LimitsConfig, StreamConfig, SwarmConfig
from libp2p.testing import Hosts, Link, Memory, MemoryNetwork, memory_network
from libp2p.testing.raw import DATA, HEADER, RST, SYN, RawPeer, Wants, line, yamux
from tests.protocols.waiting import settled, until
from tests.swarm.nodes import P, echo, open_node, works

Q = "/test/2"


@asynccontextmanager
async def pair(
    *, limits: LimitsConfig | None = None, link: Link | None = None, **streams: float
) -> AsyncIterator[Hosts]:
    """Two connected hosts of which the second one serves an echo."""
    config = HostConfig(swarm=SwarmConfig(streams=StreamConfig(**streams), limits=limits or LimitsConfig()))
    async with memory_network(2, defaults=(), connect="full", config=config, link=link) as hosts:
        await until(hosts[1].connections)
        with hosts[1].handle(P, echo):
            yield hosts


@asynccontextmanager
async def contained() -> AsyncIterator[tuple[RunningHost, RunningHost]]:
    """Two hosts that contain bugs, as in production, and are connected."""
    network = MemoryNetwork()
    async with open_node(network, "a") as a, open_node(network, "b") as b:
        await a.connect(b.addrs[0])
        await until(b.connections)
        yield a, b


async def still_serves(a: RunningHost, b: RunningHost) -> bool:
    """Whether the connection that is there carries streams both ways."""
    [before] = a.connections(b.local_peer)
    for here, there in ((a, b), (b, a)):
        with there.handle("/still/1", echo):
            async with await here.open_stream(there.local_peer, "/still/1") as stream:
                if not await works(stream):
                    return False
    return [before] == list(a.connections(b.local_peer))


# --- what a connection tells of itself --------------------------------------------------------------------------------


async def test_both_ends_describe_the_connection() -> None:
    async with pair() as (a, b):
        [ours], [theirs] = a.connections(), b.connections()
        assert (ours.peer, theirs.peer) == (b.local_peer, a.local_peer)
        assert (ours.direction.value, theirs.direction.value) == ("outbound", "inbound")
        assert ours.remote_addr == theirs.local_addr and ours.local_addr == theirs.remote_addr
        assert ours.remote_key == b.private_key.public_key
        assert not ours.limited
        assert (ours.security, ours.muxer) == ("/noise", "/yamux/1.0.0")  # type: ignore[attr-defined]
        assert "outbound" in repr(ours) and str(b.listen_addrs()[0]) in repr(ours)
        stream = await ours.open_stream(P)
        assert (stream.protocol, stream.connection, stream.direction.value) == (P, ours, "outbound")
        await stream.aclose()


# --- negotiation ------------------------------------------------------------------------------------------------------


async def test_the_first_protocol_that_the_peer_serves_is_used() -> None:
    async with pair() as (a, b):
        with b.handle(Q, echo):
            for offered, expected in (((P, Q), P), ((Q, P), Q), (("/none", Q), Q)):
                async with await a.open_stream(b.local_peer, *offered) as stream:
                    assert stream.protocol == expected and await works(stream)


@pytest.mark.parametrize("known", [False, True])
async def test_nothing_in_common(known) -> None:
    """Known or not: the first read tells at the latest."""
    async with pair() as (a, b):
        if known:
            a.peerstore.set_protocols(b.local_peer, ["/none"])
        with pytest.raises(NegotiationError) as caught:
            async with await a.open_stream(b.local_peer, "/none") as stream:
                assert known
                await stream.send_all(b"hello")
                await stream.receive_some()
        assert caught.value.offered == ("/none",)
        await settled()
        assert not any(name.startswith("streams") and n for name, n in a.swarm.scopes.usage().items())
        assert await still_serves(a, b)


async def test_a_known_protocol_costs_no_round_trip() -> None:
    async with pair(link=Link(latency=0.1)) as (a, b):
        started = trio.current_time()
        async with await a.open_stream(b.local_peer, P) as stream:
            assert trio.current_time() - started == pytest.approx(0.2)
            assert await works(stream)
            assert trio.current_time() - started == pytest.approx(0.4)
        a.peerstore.set_protocols(b.local_peer, ["/other", P])
        started = trio.current_time()
        async with await a.open_stream(b.local_peer, Q, P) as stream:
            assert stream.protocol == P and trio.current_time() == started
            assert await works(stream)
            assert trio.current_time() - started == pytest.approx(0.2)


async def _raw(b: RunningHost, network: MemoryNetwork) -> RawPeer:
    raw = await Memory(network, "raw").dial(b.listen_addrs()[0], peer=None)
    peer = RawPeer(raw.stream)
    await peer.connect(Wants(muxers=("/yamux/1.0.0",)))
    await until(b.connections)
    return peer


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("answer", ["na", "reset 0x1001", "end"])
async def test_all_the_ways_to_be_refused(answer, known) -> None:
    network = MemoryNetwork()
    async with open_node(network, "b") as b, trio.open_nursery() as nursery:
        peer = await _raw(b, network)
        [conn] = b.connections()
        if known:
            b.peerstore.set_protocols(conn.peer, [P])

        async def refuse() -> None:
            frame = await peer.next_frame()
            while frame.kind != DATA:
                frame = await peer.next_frame()
            if answer == "na":
                await peer.send(yamux(DATA, 2, frame.stream, HEADER + line("na")))
            elif answer == "end":
                await peer.send(yamux(1, 2 | 4, frame.stream))
            else:
                await peer.send(yamux(1, RST, frame.stream, length=0x1001))
            await trio.sleep_forever()

        nursery.start_soon(refuse)
        with pytest.raises(NegotiationError):
            async with await conn.open_stream(P) as stream:
                await stream.send_all(b"hello")
                await stream.receive_some()
        await settled()
        assert not any(name.startswith("streams") and n for name, n in b.swarm.scopes.usage().items())
        nursery.cancel_scope.cancel()
        await trio.aclose_forcefully(peer.stream)


async def test_a_peer_that_never_answers_a_proposal() -> None:
    network = MemoryNetwork()
    async with open_node(network, "b") as b:
        peer = await _raw(b, network)
        [conn] = b.connections()
        started = trio.current_time()
        with pytest.raises(NegotiationError, match=r"no answer to /test/1 within 10 s"):
            await conn.open_stream(P)
        assert trio.current_time() - started == pytest.approx(10)
        await trio.aclose_forcefully(peer.stream)


async def test_a_stream_whose_protocol_is_never_named() -> None:
    network = MemoryNetwork()
    async with open_node(network, "b") as b:
        peer = await _raw(b, network)
        started = trio.current_time()
        await peer.send(yamux(DATA, SYN, 1, HEADER))
        while not (frame := await peer.next_frame()).flags & RST:
            pass
        assert (frame.stream, frame.length) == (1, 0x1001)
        assert trio.current_time() - started == pytest.approx(10)
        assert not b.swarm.scopes.usage()["streams_inbound"]
        await trio.aclose_forcefully(peer.stream)


async def test_a_cancelled_open_leaves_nothing() -> None:
    async with pair(link=Link(latency=0.1)) as (a, b):
        for after in (0, 0.05, 0.15):
            with trio.move_on_after(after) as scope:
                await a.open_stream(b.local_peer, P)
            assert scope.cancelled_caught
            await trio.sleep(1)
            for host in (a, b):
                assert not any(name.startswith("streams") and n for name, n in host.swarm.scopes.usage().items())
        assert await still_serves(a, b)


async def test_a_protocol_must_be_named() -> None:
    async with pair() as (a, b):
        with pytest.raises(ValueError, match="name at least one protocol"):
            await a.open_stream(b.local_peer)


async def test_a_handler_that_is_withdrawn_while_it_is_agreed_on() -> None:
    async with pair() as hosts:
        a, b = hosts
        registration = b.handle(Q, echo)

        def withdraw(wire: object, data: bytes) -> None:
            if wire.source == hosts.node(b):  # type: ignore[attr-defined]
                registration.__exit__(None, None, None)

        with hosts.network.tap(withdraw), pytest.raises((NegotiationError, StreamReset)):
            async with await a.open_stream(b.local_peer, Q) as stream:
                await works(stream)
        assert await still_serves(a, b)


# --- limits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "scope"),
    [
        (LimitsConfig(streams_outbound_per_connection=3), "streams_outbound_per_connection"),
        (LimitsConfig(streams_outbound_per_protocol=3), "streams_outbound_per_protocol"),
    ],
)
async def test_limits_of_our_own_streams_are_named(limits, scope) -> None:
    async with pair(limits=limits) as (a, b):
        streams = [await a.open_stream(b.local_peer, P) for _ in range(3)]
        with pytest.raises(LimitExceeded) as caught:
            await a.open_stream(b.local_peer, P)
        assert (caught.value.scope, caught.value.limit) == (scope, 3)
        await streams.pop().aclose()
        streams.append(await a.open_stream(b.local_peer, P))
        for stream in streams:
            assert await works(stream)
            await stream.aclose()


@pytest.mark.parametrize(
    ("limits", "scope"),
    [
        (LimitsConfig(streams_inbound=3), "streams_inbound"),
        (LimitsConfig(streams_inbound_per_connection=3), "streams_inbound_per_connection"),
        (LimitsConfig(streams_inbound_per_protocol=3), "streams_inbound_per_protocol"),
        (LimitsConfig(protocols=((P, 3),)), "streams_inbound_per_protocol"),
    ],
)
async def test_streams_of_the_peer_above_a_limit_are_reset_with_0x1002(limits, scope) -> None:
    async with pair(limits=limits) as (a, b):
        a.peerstore.set_protocols(b.local_peer, [P])
        streams = [await a.open_stream(b.local_peer, P) for _ in range(4)]
        for stream in streams[:3]:
            assert await works(stream)
        with pytest.raises(StreamReset) as caught:
            await works(streams[3])
        assert caught.value.code == 0x1002
        assert b.swarm.scopes.refusals()[scope] == 1
        for stream in streams:
            await stream.aclose()
        await settled()
        async with await a.open_stream(b.local_peer, P) as stream:
            assert await works(stream)


# --- X4: handlers -----------------------------------------------------------------------------------------------------


async def raises(stream: Stream) -> None:
    raise KeyError("a bug of the application's")


async def reads_and_raises(stream: Stream) -> None:
    await stream.receive_some()
    raise KeyError("a bug of the application's")


async def raises_late(stream: Stream) -> None:
    await stream.send_all(b"half an ans")
    raise KeyError("a bug of the application's")


async def raises_a_group(stream: Stream) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(raises, stream)
        nursery.start_soon(trio.sleep_forever)


async def gives_up(stream: Stream) -> None:
    raise trio.TooSlowError


async def resets(stream: Stream) -> None:
    stream.reset(7)


async def opens_a_missing_file(stream: Stream) -> None:
    raise FileNotFoundError("nothing there")


@pytest.mark.parametrize("handler", [raises, raises_late, raises_a_group, gives_up, resets, opens_a_missing_file])
async def test_x4_a_handler_that_raises_resets_its_stream_only(handler, expected_bugs) -> None:
    async with contained() as (a, b):
        b.handle(P, handler)
        b.handle(Q, echo)
        async with await a.open_stream(b.local_peer, Q) as other:
            assert await works(other)
            with pytest.raises((StreamReset, NegotiationError)):
                async with await a.open_stream(b.local_peer, P) as stream:
                    while await stream.receive_some():
                        pass
            assert await works(other)
        assert await still_serves(a, b)
        is_bug = handler in (raises, raises_late, raises_a_group)
        assert b.containment.bugs == ({"KeyError": 1} if is_bug else {})
        assert [type(bug) for bug in expected_bugs] == ([KeyError] if is_bug else [])


async def closes_twice(stream: Stream) -> None:
    await stream.aclose()
    await stream.aclose()
    stream.reset()


async def returns(stream: Stream) -> None:
    await stream.send_all(b"")


@pytest.mark.parametrize("handler", [closes_twice, returns])
async def test_x4_a_handler_that_ends_in_order_closes_its_stream(handler) -> None:
    async with contained() as (a, b):
        b.handle(P, handler)
        async with await a.open_stream(b.local_peer, P) as stream:
            assert await stream.receive_some() == b""
        assert await still_serves(a, b)
        assert not b.containment.bugs and not b.containment.expected


async def test_x4_a_handler_that_hangs_keeps_nobody_up() -> None:
    async def hangs(stream: Stream) -> None:
        await trio.sleep_forever()

    async with contained() as (a, b):
        b.handle(P, hangs)
        streams = [await a.open_stream(b.local_peer, P) for _ in range(20)]
        assert await still_serves(a, b)
        for stream in streams:
            stream.reset()


async def test_x4_ten_thousand_tasks_of_a_handler() -> None:
    async def spawns(stream: Stream) -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(10_000):
                nursery.start_soon(trio.sleep_forever)

    async with contained() as (a, b):
        b.handle(P, spawns)
        async with await a.open_stream(b.local_peer, P):
            await settled()
            assert trio.lowlevel.current_statistics().tasks_living > 10_000
            assert await still_serves(a, b)
            await a.disconnect(b.local_peer)
        await trio.sleep(6)
        assert trio.lowlevel.current_statistics().tasks_living < 100


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
async def test_x4_what_must_end_the_program_passes(error) -> None:
    async def ends(stream: Stream) -> None:
        await stream.receive_some()
        raise error

    network = MemoryNetwork()
    async with open_node(network, "a") as a:
        with pytest.raises(error):
            async with open_node(network, "b") as b:
                b.handle(P, ends)
                await a.connect(b.addrs[0])
                stream = await a.open_stream(b.local_peer, P)
                await stream.send_all(b"now")
                await trio.sleep_forever()


async def test_strict_containment_raises_bugs_again(expected_bugs) -> None:
    with pytest.raises(KeyError):
        async with memory_network(2, defaults=(), connect="full") as (a, b):
            b.handle(P, reads_and_raises)
            stream = await a.open_stream(b.local_peer, P)
            await stream.send_all(b"now")
            await trio.sleep_forever()


# --- the end ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["closed by the peer", "broken", "closed here", "aborted here"])
async def test_handlers_when_their_connection_ends(how) -> None:
    """They see their streams end and get ``close_grace`` to finish; when it was us who closed, they are cancelled."""
    ends: dict[str, float] = {}

    async def reads(stream: Stream) -> None:
        try:
            while await stream.receive_some():
                pass
        except ConnectionClosed:
            ends["told"] = trio.current_time()
            await trio.sleep(1)
            ends["done"] = trio.current_time()

    async def waits(stream: Stream) -> None:
        try:
            await trio.sleep_forever()
        finally:
            ends["cancelled"] = trio.current_time()

    async with pair(close_grace=4) as hosts:
        a, b = hosts
        b.handle(Q, reads)
        b.handle("/waits", waits)
        for protocol in (Q, "/waits"):
            await a.open_stream(b.local_peer, protocol)
        await settled()
        [conn] = b.connections()
        now = trio.current_time()
        with b.subscribe(ConnectionEnded) as events:
            if how == "closed by the peer":
                await a.disconnect(b.local_peer)
            elif how == "broken":
                hosts.network.kill(hosts.node(a))
            elif how == "closed here":
                await b.disconnect(a.local_peer)
            else:
                conn.abort()  # type: ignore[attr-defined]
            event = await events.receive()
        assert event.connection is conn
        assert not b.connections()  # at once, whatever handlers do
        await trio.sleep(10)
        if "here" in how:
            assert event.reason == how
            assert ends == pytest.approx({"told": now, "cancelled": now}) or ends == pytest.approx({"cancelled": now})
        else:
            assert ends == pytest.approx({"told": now, "done": now + 1, "cancelled": now + 4})
        assert not b.swarm.scopes.usage()["connections"]


async def test_a_handler_may_close_its_own_connection() -> None:
    async def leaves(stream: Stream) -> None:
        await stream.connection.aclose()

    async with pair() as (a, b):
        b.handle(Q, leaves)
        a.peerstore.set_protocols(b.local_peer, [Q])
        with pytest.raises((ConnectionClosed, StreamReset)):
            async with await a.open_stream(b.local_peer, Q) as stream:
                await stream.receive_some()
        await settled()
        assert not a.connections() and not b.connections()


async def test_closing_twice_and_streams_on_what_is_closed() -> None:
    async with pair() as (a, _):
        [conn] = a.connections()
        await conn.aclose()
        await conn.aclose()
        with pytest.raises(ConnectionClosed):
            await conn.open_stream(P)
        assert not a.swarm.scopes.usage()["streams_outbound_per_connection"]
