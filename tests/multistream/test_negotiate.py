"""multistream-select over streams: listeners that talk first or wait, late answers, silence (M2, M4, M7 to M9)."""

from __future__ import annotations

import pytest
import trio
from trio.testing import memory_stream_pair

from libp2p.abc import Stream
from libp2p.errors import NegotiationError
from libp2p.multistream import Listener, negotiate_inbound, negotiate_outbound
from libp2p.testing import memory_network
from libp2p.testing.flaky import Dribble
from libp2p.testing.raw import HEADER, NA, line, read_line


async def _outbound(listener, *protocols: str):
    """What ``negotiate_outbound`` returns or raises when ``listener`` is at the other end."""
    ours, theirs = memory_stream_pair()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(listener, theirs)
        try:
            return await negotiate_outbound(ours, protocols, stage="testing")
        except NegotiationError as exc:
            return exc
        finally:
            nursery.cancel_scope.cancel()


async def test_M2_a_listener_that_waits_for_our_header() -> None:
    """As rust and js."""

    async def listener(stream) -> None:
        assert await read_line(stream) == "/multistream/1.0.0"
        proposal = await read_line(stream)
        await stream.send_all(HEADER + line(proposal) + b"rest")

    agreed = await _outbound(listener, "/a/1")
    assert (agreed.protocol, agreed.leftover) == ("/a/1", b"rest")


async def test_M2_a_listener_that_talks_first() -> None:
    """As go."""

    async def listener(stream) -> None:
        await stream.send_all(HEADER)
        assert await read_line(stream) == "/multistream/1.0.0"
        assert await read_line(stream) == "/a/1"
        await stream.send_all(NA)
        assert await read_line(stream) == "/b/1"
        await stream.send_all(line("/b/1"))

    agreed = await _outbound(listener, "/a/1", "/b/1")
    assert agreed.protocol == "/b/1"


async def test_a_listener_that_closes_or_breaks_the_rules() -> None:
    async def closes(stream) -> None:
        await read_line(stream)
        await stream.aclose()

    async def babbles(stream) -> None:
        await stream.send_all(b"HTTP/1.1 400 Bad Request\r\n" + b"Header: value\r\n" * 9)

    async def refuses(stream) -> None:
        await stream.send_all(HEADER + NA)

    for listener in (closes, babbles, refuses):
        error = await _outbound(listener, "/a/1")
        assert isinstance(error, NegotiationError)
        assert error.stage == "testing"
        assert error.offered == ("/a/1",)


async def test_inbound_over_a_stream_that_dribbles() -> None:
    ours, theirs = memory_stream_pair()
    await theirs.send_all(HEADER + line("/x/1") + line("/a/1") + b"payload")
    agreed = await negotiate_inbound(Dribble(ours), Listener({"/a/1"}.__contains__), stage="testing")
    assert agreed.protocol == "/a/1"
    assert agreed.leftover + await ours.receive_some() == b"payload"
    assert await theirs.receive_some() == HEADER + NA + line("/a/1")


async def test_inbound_that_comes_to_nothing_says_na() -> None:
    ours, theirs = memory_stream_pair()
    await theirs.send_all(HEADER + line("/x/1") * 32)
    with pytest.raises(NegotiationError, match="32 proposals"):
        await negotiate_inbound(ours, Listener(set[str]().__contains__), stage="testing")
    assert (await theirs.receive_some()).endswith(NA)


# --- on the streams of hosts ------------------------------------------------------------------------------------------


async def _echo(stream: Stream) -> None:
    async for chunk in stream:
        await stream.send_all(chunk)


async def test_M7_hosts_deliver_what_is_sent_with_the_proposal() -> None:
    async with memory_network(2, connect="full") as (a, b):
        b.handle("/echo/1", _echo)
        a.peerstore.set_protocols(b.local_peer, ["/echo/1"])
        for payload in (b"x", HEADER + line("/echo/1"), NA * 10):
            async with await a.open_stream(b.local_peer, "/echo/1") as stream:
                await stream.send_all(payload)
                await stream.send_eof()
                assert b"".join([bytes(chunk) async for chunk in stream]) == payload


async def test_M8_a_late_refusal_fails_the_first_read() -> None:
    async with memory_network(2, connect="full") as (a, b):
        a.peerstore.set_protocols(b.local_peer, ["/gone/1"])
        stream = await a.open_stream(b.local_peer, "/gone/1")
        assert stream.protocol == "/gone/1"
        await stream.send_all(b"optimistic")
        for _ in range(2):
            with pytest.raises(NegotiationError) as caught:
                await stream.receive_some()
            assert caught.value.offered == ("/gone/1",)
        with pytest.raises(NegotiationError):
            await stream.send_all(b"more")
        await stream.aclose()


async def test_M8_an_optimistic_stream_that_only_sends_reaches_its_handler() -> None:
    received = []

    async def handler(stream: Stream) -> None:
        received.append(b"".join([bytes(chunk) async for chunk in stream]))

    async with memory_network(2, connect="full") as (a, b):
        b.handle("/sink/1", handler)
        a.peerstore.set_protocols(b.local_peer, ["/sink/1"])
        for payload in (b"said", b""):
            async with await a.open_stream(b.local_peer, "/sink/1") as stream:
                await stream.send_all(payload)
            await trio.sleep(1)
    assert received == [b"said", b""]


async def test_M9_a_silent_peer_is_given_up() -> None:
    async with memory_network(2, connect="full") as hosts:
        a, b = hosts
        hosts.network.cut(hosts.node(0), hosts.node(1))
        before = trio.current_time()
        with pytest.raises(NegotiationError, match="within 10 s"):
            await a.open_stream(b.local_peer, "/never/1")
        assert trio.current_time() - before == pytest.approx(10.0)
        hosts.network.heal()


async def test_M4_a_refused_stream_is_gone_on_both_sides() -> None:
    async with memory_network(2, connect="full") as (a, b):
        await trio.sleep(1)
        with pytest.raises(NegotiationError) as caught:
            await a.open_stream(b.local_peer, "/x/1", "/y/1")
        assert caught.value.offered == ("/x/1", "/y/1")
        await trio.sleep(1)
        for host in (a, b):
            assert host.swarm.scopes.usage()["streams_inbound_per_connection"] == 0
            assert host.swarm.scopes.usage()["streams_outbound_per_connection"] == 0
