"""Cases X3 and X4: nothing outlives its host, and an application's mistakes stay with the stream they were made on."""

from __future__ import annotations

import gc
import weakref

import pytest
import trio

from libp2p._util.stream import MachineStream
from libp2p.abc import Stream, StreamHandler
from libp2p.errors import ConnectionClosed, NegotiationError, StreamReset
from libp2p.host import RunningHost
from libp2p.muxers._connection import MachineConnection
from libp2p.protocols.ping import ping
from libp2p.swarm._connection import SwarmConnection
from libp2p.swarm._limits import Token
from libp2p.testing import MemoryNetwork, memory_network, open_memory_host

pytestmark = pytest.mark.bar_c

# --- X3 ---------------------------------------------------------------------------------------------------------------

KINDS = (RunningHost, SwarmConnection, MachineConnection, MachineStream, Token)


def _alive() -> dict[str, int]:
    gc.collect()
    found = dict.fromkeys((kind.__name__ for kind in KINDS), 0)
    for thing in gc.get_objects():
        for kind in KINDS:
            if isinstance(thing, kind):
                found[kind.__name__] += 1
    return found


async def _live_a_life() -> None:
    """Connections that end in every way, streams that end in every way."""

    async def echo(stream: Stream) -> None:
        async for chunk in stream:
            await stream.send_all(chunk)

    async with memory_network(4, connect="full") as hosts:
        for host in hosts:
            host.handle("/echo/1", echo)
        for a in hosts:
            for b in hosts:
                if a is not b:
                    await ping(a, b.local_peer)
                    async with await a.open_stream(b.local_peer, "/echo/1") as stream:
                        await stream.send_all(b"x" * 100_000)
                    (await a.open_stream(b.local_peer, "/echo/1")).reset()
        hosts.network.kill(hosts.node(0), hosts.node(1))
        await hosts[2].disconnect(hosts[3].local_peer)
        with pytest.raises(NegotiationError):
            await hosts[0].open_stream(hosts[2].local_peer, "/nobody/1")
        await trio.sleep(5)


async def test_X3_no_object_outlives_its_host() -> None:
    """Hosts, connections, streams and tokens: all are gone, without a cycle's help where it matters."""
    before = _alive()
    await _live_a_life()
    await trio.sleep(1)
    assert _alive() == before


async def test_X3_an_ended_connection_is_freed_while_its_host_lives() -> None:
    async with memory_network(2) as (a, b):
        refs = []

        async def connect_and_end() -> None:
            connection = await a.connect(b.addrs[0])
            async with await connection.open_stream("/ipfs/ping/1.0.0") as stream:
                refs.extend([weakref.ref(stream), weakref.ref(connection.muxed)])  # type: ignore[attr-defined]
            await connection.aclose()

        for _ in range(5):
            await connect_and_end()
            await trio.sleep(10)
        gc.collect()
        alive = [ref() for ref in refs if ref() is not None]
        # Whoever listens to events still holds the last one, and that names its connection.
        assert len(alive) <= 1, alive


# --- X4 ---------------------------------------------------------------------------------------------------------------


async def _raises(stream: Stream) -> None:
    await stream.receive_some()
    raise ZeroDivisionError("a mistake of the application")


async def _raises_group(stream: Stream) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_raises, stream)
        nursery.start_soon(trio.sleep_forever)


async def _closes_twice(stream: Stream) -> None:
    await stream.receive_some()
    await stream.aclose()
    await stream.aclose()
    stream.reset()
    await stream.send_all(b"on a closed stream")


async def _cancels_its_elders(stream: Stream) -> None:
    await stream.receive_some()
    nursery = trio.lowlevel.current_task().parent_nursery
    assert nursery is not None
    nursery.cancel_scope.cancel()
    await trio.sleep_forever()


async def _spawns(stream: Stream) -> None:
    await stream.receive_some()
    async with trio.open_nursery() as nursery:
        for _ in range(10_000):
            nursery.start_soon(trio.sleep_forever)
        await trio.sleep(1)
        raise ZeroDivisionError


async def _abuses_its_stream(stream: Stream) -> None:
    await stream.receive_some()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.receive_some)
        nursery.start_soon(stream.receive_some)


HANDLERS: list[StreamHandler] = [
    _raises, _raises_group, _closes_twice, _cancels_its_elders, _spawns, _abuses_its_stream,
]  # fmt: skip


@pytest.mark.parametrize("handler", HANDLERS, ids=lambda handler: handler.__name__.strip("_"))
async def test_X4_a_bad_handler_harms_its_stream(handler, expected_bugs) -> None:
    """The peer sees a reset, or the end of the connection; the host serves everybody as before."""
    network = MemoryNetwork()
    async with (
        open_memory_host(network, strict=False) as host,
        open_memory_host(network) as victim,
        open_memory_host(network) as bystander,
    ):
        host.handle("/bad/1", handler)
        await bystander.connect(host.addrs[0])
        stream = await victim.open_stream(host.addrs[0], "/bad/1")
        await stream.send_all(b"go")
        with pytest.raises((StreamReset, ConnectionClosed)), trio.fail_after(10):
            while await stream.receive_some():
                pass
            # Closing twice ends the stream in order before the mistake is made.
            raise StreamReset
        assert len(await ping(bystander, host.local_peer, count=3)) == 3
        assert len(bystander.connections(host.local_peer)) == 1
        await trio.sleep(10)
        assert len(await ping(victim, host.addrs[0], count=3)) == 3
        await stream.aclose()


async def test_X4_a_handler_that_hangs_ends_with_its_connection() -> None:
    """It may hang as long as it likes; then it has its moment of grace."""
    state: list[object] = []

    async def hangs(stream: Stream) -> None:
        state.append("hangs")
        try:
            await trio.sleep_forever()
        finally:
            state.append(trio.current_time())

    async with memory_network(2) as (a, b):
        b.handle("/hang/1", hangs)
        stream = await a.open_stream(b.addrs[0], "/hang/1")
        await stream.send_all(b"x")
        await trio.sleep(1000)
        assert state == ["hangs"]
        ended = trio.current_time()
        await a.disconnect(b.local_peer)
        await trio.sleep(60)
        assert isinstance(state[1], float)
        assert state[1] - ended <= 5.1
        await stream.aclose()


async def test_X4_a_busy_handler_only_takes_time() -> None:
    """A handler that never lets go of the processor is late with everything, and nothing breaks."""

    async def busy(stream: Stream) -> None:
        sum(range(2_000_000))
        await stream.send_all(b"done")

    async with memory_network(2) as (a, b):
        b.handle("/busy/1", busy)
        async with await a.open_stream(b.addrs[0], "/busy/1") as stream:
            await stream.send_eof()
            assert await stream.receive_some() == b"done"
        await ping(a, b.local_peer)


class _Strange(BaseException):
    """Not an Exception, as those of some libraries that mean to end a task."""


async def test_X4_a_handler_that_raises_a_base_exception(expected_bugs) -> None:
    """Only Cancelled, KeyboardInterrupt and SystemExit should pass the boundary of a handler."""

    async def handler(stream: Stream) -> None:
        await stream.receive_some()
        raise _Strange

    network = MemoryNetwork()
    async with open_memory_host(network) as asking, open_memory_host(network, strict=False) as host:
        host.handle("/strange/1", handler)
        stream = await asking.open_stream(host.addrs[0], "/strange/1")
        await stream.send_all(b"go")
        await trio.sleep(1)
        await ping(asking, host.addrs[0])
        await stream.aclose()
