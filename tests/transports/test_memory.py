"""The network in memory: time, chance, and faults. What it has in common with other transports is tested elsewhere."""

from __future__ import annotations

import math

import pytest
import trio
from trio.testing import check_half_closeable_stream, wait_all_tasks_blocked

from libp2p.addressing import parse
from libp2p.errors import TransportError
from libp2p.testing.conformance.stream import receive_all, receive_exactly
from libp2p.transports.memory import Link, Memory, MemoryConnection, MemoryNetwork, MemoryStream, Wire


async def _pair(network: MemoryNetwork, a: Memory | None = None, b: Memory | None = None):
    """A connection between two nodes: both streams and what is between them."""
    a, b = a or Memory(network), b or Memory(network)
    listener = await b.listen(parse("/memory/0"))
    ours = await a.dial(listener.addresses[0], peer=None)
    theirs = await listener.accept()
    await listener.aclose()
    assert isinstance(ours.stream, MemoryStream)
    assert isinstance(theirs.stream, MemoryStream)
    return ours.stream, theirs.stream, network.connections[-1]


async def _elapsed(what) -> float:
    before = trio.current_time()
    await what
    return trio.current_time() - before


# --- as a stream ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "link",
    [
        {},
        {"latency": 0.05},
        {"latency": 0.02, "jitter": 0.1, "rate": 1e6, "loss": 0.1},
        {"buffer": 3000},
        {"jitter": 0.01, "buffer": 10_000},
    ],
    ids=str,
)
async def test_half_closeable(link) -> None:
    async def make() -> tuple[MemoryStream, MemoryStream]:
        one, other, _ = await _pair(MemoryNetwork(3, **link))
        return one, other

    async def clogged() -> tuple[MemoryStream, MemoryStream]:
        one, other = await make()
        for stream in (one, other):
            with pytest.raises(trio.WouldBlock):
                while True:
                    stream.send_nowait(bytes(1000))
        return one, other

    await check_half_closeable_stream(make, clogged)


async def test_after_send_eof_only_reading_goes_on() -> None:
    one, other, _ = await _pair(MemoryNetwork())
    await one.send_eof()
    with pytest.raises(trio.ClosedResourceError):
        one.send_nowait(b"x")
    with pytest.raises(trio.ClosedResourceError):
        await one.wait_writable()
    assert await other.receive_some() == b""
    await other.send_all(b"back")
    assert await one.receive_some() == b"back"


async def test_only_one_task_waits() -> None:
    one, other, _ = await _pair(MemoryNetwork(buffer=1))
    one.send_nowait(b"x")
    async with trio.open_nursery() as nursery:
        for wait in (one.wait_writable, one.wait_readable):
            nursery.start_soon(wait)
            await wait_all_tasks_blocked()
            with pytest.raises(trio.BusyResourceError):
                await wait()
        nursery.cancel_scope.cancel()
    assert (await other.receive_some(), one.closed) == (b"x", False)
    assert "open" in repr(one)


async def test_closing_wakes_waiting_tasks() -> None:
    one, _, _ = await _pair(MemoryNetwork(buffer=1))
    one.send_nowait(b"x")

    async def expect_closed(wait) -> None:
        with pytest.raises(trio.ClosedResourceError):
            await wait()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(expect_closed, one.wait_readable)
        nursery.start_soon(expect_closed, one.wait_writable)
        await wait_all_tasks_blocked()
        await one.aclose()


# --- time -------------------------------------------------------------------------------------------------------------


async def test_without_delay_there_are_no_timers() -> None:
    one, other, _ = await _pair(MemoryNetwork())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(other.receive_some)
        await wait_all_tasks_blocked()
        assert trio.lowlevel.current_statistics().seconds_to_next_deadline == math.inf
        await one.send_all(b"x")


async def test_latency_is_exact() -> None:
    network = MemoryNetwork(latency=0.25)
    before = trio.current_time()
    one, other, _ = await _pair(network)
    assert trio.current_time() - before == pytest.approx(0.5), "a dial is one round trip"
    await one.send_all(b"ping")
    assert await _elapsed(other.receive_some()) == pytest.approx(0.25)
    await other.send_all(b"pong")
    await trio.sleep(0.1)
    assert await _elapsed(one.receive_some()) == pytest.approx(0.15)
    await one.aclose()
    assert await _elapsed(other.receive_some()) == pytest.approx(0.25), "the end takes as long as bytes do"


async def test_nothing_is_there_before_its_time() -> None:
    one, other, _ = await _pair(MemoryNetwork(latency=1.0))
    one.send_nowait(b"x")
    buffer = memoryview(bytearray(10))
    await trio.sleep(0.999)
    with pytest.raises(trio.WouldBlock):
        other.receive_into_nowait(buffer)
    await trio.sleep(0.001)
    assert other.receive_into_nowait(buffer) == 1


async def test_rate_bounds_throughput() -> None:
    one, other, _ = await _pair(MemoryNetwork(rate=100_000, buffer=10_000_000))
    await one.send_all(bytes(1_000_000))
    before = trio.current_time()
    first = await other.receive_some()
    assert trio.current_time() - before < 0.2, "the first packet does not wait for the last"
    await receive_exactly(other, 1_000_000 - len(first))
    assert trio.current_time() - before == pytest.approx(10.0)


async def test_buffer_over_latency_bounds_throughput() -> None:
    one, other, _ = await _pair(MemoryNetwork(latency=0.1, buffer=50_000))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(one.send_all, bytes(500_000))
        assert await _elapsed(receive_exactly(other, 500_000)) == pytest.approx(1.0)


async def test_jitter_keeps_the_order() -> None:
    one, other, _ = await _pair(MemoryNetwork(7, latency=0.1, jitter=0.5))
    times = []
    for number in range(50):
        await one.send_all(b"%02d" % number)
    for number in range(50):
        assert await receive_exactly(other, 2) == b"%02d" % number
        times.append(trio.current_time())
    assert times == sorted(times)
    assert 0.1 < times[-1] - times[0] + 0.1 <= 0.6


async def _arrivals(seed: int) -> list[float]:
    one, other, _ = await _pair(MemoryNetwork(seed, latency=0.05, jitter=0.05, loss=0.3))
    began, times = trio.current_time(), []
    for _ in range(30):
        await one.send_all(b"x")
        await other.receive_some()
        times.append(round(trio.current_time() - began, 9))
    return times


async def test_chance_is_seeded() -> None:
    assert await _arrivals(1) == await _arrivals(1)
    assert await _arrivals(1) != await _arrivals(2)


async def test_losses_cost_a_retransmission() -> None:
    times = await _arrivals(4)
    gaps = [later - earlier for earlier, later in zip([0.0, *times], times, strict=False)]
    delayed = [gap for gap in gaps if gap > 0.1]
    assert 3 <= len(delayed) <= 20
    assert min(delayed) >= 0.25, "retransmission timer and latency"


async def test_the_sender_learns_of_a_close_one_latency_later() -> None:
    one, other, _ = await _pair(MemoryNetwork(latency=0.2, buffer=1000))
    await other.aclose()
    await one.send_all(b"into nothing")
    with pytest.raises(trio.BrokenResourceError):
        await one.send_all(bytes(10_000))
    assert await _elapsed(one.receive_some()) == pytest.approx(0.0)


@pytest.mark.parametrize(
    "bad",
    [
        {"latency": -1}, {"latency": math.inf}, {"jitter": math.nan}, {"rate": 0}, {"loss": 1}, {"loss": -0.1},
        {"buffer": 0},
    ],
    ids=str,
)  # fmt: skip
def test_impossible_links(bad) -> None:
    with pytest.raises(ValueError, match="must"):
        Link(**bad)


async def test_instruments_may_write() -> None:
    """As they may to a socket: whoever waits for the bytes runs at once, not after the next timer."""
    one, other, _ = await _pair(MemoryNetwork())

    class Writer(trio.abc.Instrument):
        def before_io_wait(self, timeout: float) -> None:
            trio.lowlevel.remove_instrument(self)
            one.send_nowait(b"from outside")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.sleep, 1000)
        trio.lowlevel.add_instrument(Writer())
        before = trio.current_time()
        assert await other.receive_some() == b"from outside"
        assert trio.current_time() == before
        nursery.cancel_scope.cancel()


# --- links of pairs ---------------------------------------------------------------------------------------------------


async def test_each_pair_has_its_link() -> None:
    network = MemoryNetwork(latency=0.1)
    a, b, c = (Memory(network, name) for name in "abc")
    network.set_link(a, "b", Link(latency=1.0))
    one, other, _ = await _pair(network, a, b)
    await one.send_all(b"x")
    assert await _elapsed(other.receive_some()) == pytest.approx(1.0)
    one, other, _ = await _pair(network, a, c)
    await one.send_all(b"x")
    assert await _elapsed(other.receive_some()) == pytest.approx(0.1)
    network.set_link(c, a, Link(latency=3.0), one_way=True)
    await one.send_all(b"x")
    assert await _elapsed(other.receive_some()) == pytest.approx(0.1)
    await other.send_all(b"x")
    assert await _elapsed(one.receive_some()) == pytest.approx(3.0)
    assert network.link("c", "a").latency == 3.0
    assert len(network.between(a, b)) == len(network.between(c, a)) == 1
    assert network.nodes == ("a", "b", "c")


def test_names_are_unique() -> None:
    network = MemoryNetwork()
    assert Memory(network).name == "node-1"
    with pytest.raises(ValueError, match="node-1"):
        Memory(network, "node-1")


# --- faults -----------------------------------------------------------------------------------------------------------


async def test_a_silent_cut_stalls_and_heals() -> None:
    network = MemoryNetwork(latency=0.1)
    a, b = Memory(network), Memory(network)
    one, other, _ = await _pair(network, a, b)
    await one.send_all(b"under way")
    network.cut(a, b)
    await one.send_all(b" and later")
    await one.aclose()
    with trio.move_on_after(1000) as scope:
        await other.receive_some()
    assert scope.cancelled_caught
    network.heal(b)
    before = trio.current_time()
    assert await receive_all(other) == b"under way and later"
    assert trio.current_time() - before == pytest.approx(0.1)


async def test_a_silent_cut_hides_a_close() -> None:
    network = MemoryNetwork()
    a, b = Memory(network), Memory(network)
    one, other, _ = await _pair(network, a, b)
    network.cut(a, b)
    await other.aclose()
    await one.send_all(b"not told yet")
    network.heal(a, b)
    with pytest.raises(trio.BrokenResourceError):
        await one.send_all(b"x")


async def test_a_silent_cut_one_way() -> None:
    network = MemoryNetwork()
    a, b = Memory(network), Memory(network)
    one, other, _ = await _pair(network, a, b)
    network.cut(a, b, one_way=True)
    await one.send_all(b"lost")
    await other.send_all(b"fine")
    assert await one.receive_some() == b"fine"
    with trio.move_on_after(10) as scope:
        await other.receive_some()
    assert scope.cancelled_caught


async def test_a_hard_cut_resets_and_refuses() -> None:
    network = MemoryNetwork()
    a, b = Memory(network), Memory(network)
    one, other, _ = await _pair(network, a, b)
    await one.send_all(b"lost")
    network.cut(a, b, hard=True)
    for use in (other.receive_some, lambda: one.send_all(b"x")):
        with pytest.raises(trio.BrokenResourceError):
            await use()
    listener = await b.listen(parse("/memory/77"))
    with pytest.raises(TransportError, match="cut"):
        await a.dial(parse("/memory/77"), peer=None)
    network.heal()
    await (await a.dial(parse("/memory/77"), peer=None)).stream.aclose()
    await listener.aclose()


async def test_dials_wait_for_a_silent_cut_to_heal() -> None:
    network = MemoryNetwork()
    a, b = Memory(network), Memory(network)
    listener = await b.listen(parse("/memory/77"))
    network.cut(a, b)
    with trio.move_on_after(100) as scope:
        await a.dial(parse("/memory/77"), peer=None)
    assert scope.cancelled_caught
    async with trio.open_nursery() as nursery:
        dialed = []

        async def dial() -> None:
            dialed.append(await a.dial(parse("/memory/77"), peer=None))

        nursery.start_soon(dial)
        await wait_all_tasks_blocked()
        assert not dialed
        network.heal(a, b)
    assert dialed
    await listener.aclose()


async def test_partition_separates_groups_only() -> None:
    network = MemoryNetwork()
    a, b, c = Memory(network), Memory(network), Memory(network)
    same = await _pair(network, a, b)
    apart = await _pair(network, a, c)
    network.partition([a, b], [c], hard=True)
    await same[0].send_all(b"x")
    assert await same[1].receive_some() == b"x"
    with pytest.raises(trio.BrokenResourceError):
        await apart[0].send_all(b"x")


async def test_kill_resets_the_connections_of_a_node_or_pair() -> None:
    network = MemoryNetwork()
    a, b, c = Memory(network), Memory(network), Memory(network)
    pairs = [await _pair(network, a, b), await _pair(network, a, c), await _pair(network, b, c)]
    assert network.kill(a, c) == 1
    with pytest.raises(trio.BrokenResourceError):
        await pairs[1][0].receive_some()
    await pairs[0][0].send_all(b"x")
    assert network.kill(b) == 2
    for pair in (pairs[0], pairs[2]):
        with pytest.raises(trio.BrokenResourceError, match="reset"):
            await pair[1].receive_some()
    for one, other, connection in pairs:
        assert connection.open
        await one.aclose()
        await other.aclose()
        assert not connection.open
    assert not network.connections


async def test_one_connection_stalls_resumes_and_ends() -> None:
    one, other, connection = await _pair(MemoryNetwork())
    connection.stall(dialer=True)
    await one.send_all(b"held")
    with trio.move_on_after(5) as scope:
        await other.receive_some()
    assert scope.cancelled_caught
    connection.resume()
    assert await other.receive_some() == b"held"
    connection.end(dialer=True)
    await one.send_all(b"into nothing" * 100_000)
    assert await other.receive_some() == b""
    await other.send_all(b"back")
    assert await one.receive_some() == b"back"


# --- taps -------------------------------------------------------------------------------------------------------------


async def test_a_tap_sees_everything() -> None:
    network = MemoryNetwork()
    a, b = Memory(network, "a"), Memory(network, "b")
    one, other, connection = await _pair(network, a, b)
    seen: list[tuple[str, str, int, bytes]] = []

    def tap(wire: Wire, data: bytes) -> None:
        assert isinstance(wire.connection, MemoryConnection)
        seen.append((wire.source, wire.target, wire.sent, data))

    with network.tap(tap):
        await one.send_all(b"there")
        await one.send_all(b"!")
        await other.send_all(b"back")
    await one.send_all(b"unseen")
    assert seen == [("a", "b", 0, b"there"), ("a", "b", 5, b"!"), ("b", "a", 0, b"back")]
    assert (connection.sent(dialer=True), connection.sent(dialer=False)) == (12, 4)
    assert "a" in repr(connection)
    await other.receive_some()


async def test_a_tap_may_change_drop_and_break() -> None:
    network = MemoryNetwork()
    one, other, _ = await _pair(network)
    with network.tap(lambda wire, data: data.upper() if data != b"drop" else b""):
        await one.send_all(b"drop")
        await one.send_all(b"loud")
    assert await other.receive_some() == b"LOUD"

    def kill(wire: Wire, data: bytes) -> bytes | None:
        wire.connection.kill()
        return None

    with network.tap(kill), pytest.raises(trio.BrokenResourceError):
        await one.send_all(b"x")


# --- listening and dialling -------------------------------------------------------------------------------------------


async def test_zero_takes_a_free_address() -> None:
    network = MemoryNetwork()
    node = Memory(network)
    fixed = await node.listen(parse("/memory/2"))
    found = [await node.listen(parse("/memory/0")) for _ in range(3)]
    assert len({listener.addresses[0] for listener in (fixed, *found)}) == 4
    assert len(network.listening) == 4
    for listener in (fixed, *found):
        await listener.aclose()
    assert not network.listening


async def test_a_full_backlog_refuses() -> None:
    network = MemoryNetwork()
    node = Memory(network)
    listener = await node.listen(parse("/memory/5"))
    for _ in range(1024):
        await node.dial(parse("/memory/5"), peer=None)
    with pytest.raises(TransportError, match="refused"):
        await node.dial(parse("/memory/5"), peer=None)
    await listener.accept()
    last = await node.dial(parse("/memory/5"), peer=None)
    await listener.aclose()
    with pytest.raises(trio.BrokenResourceError):
        await last.stream.send_all(b"nobody accepted it")


async def test_a_dial_cancelled_half_way_leaves_nothing() -> None:
    network = MemoryNetwork(latency=1.0)
    a, b = Memory(network), Memory(network)
    listener = await b.listen(parse("/memory/5"))
    with trio.move_on_after(1.5):
        await a.dial(parse("/memory/5"), peer=None)
    accepted = await listener.accept()
    assert await accepted.stream.receive_some() == b""
    await accepted.stream.aclose()
    await listener.aclose()
    assert not network.connections


async def test_nodes_with_addresses() -> None:
    network = MemoryNetwork()
    a, b = Memory(network, ip="10.0.0.1"), Memory(network, ip="2001:db8::2")
    assert not a.can_listen(parse("/ip4/10.0.0.2/tcp/1"))
    assert a.can_dial(parse("/ip4/10.0.0.2/tcp/1"))
    assert not Memory(network).can_dial(parse("/ip4/10.0.0.2/tcp/1"))
    listener = await b.listen(parse("/ip6/::/tcp/4001"))
    assert listener.addresses == (parse("/ip6/2001:db8::2/tcp/4001"),)
    ours = await a.dial(listener.addresses[0], peer=None)
    theirs = await listener.accept()
    assert str(theirs.remote_addr).startswith("/ip4/10.0.0.1/tcp/4")
    assert ours.local_addr == theirs.remote_addr
    await listener.aclose()
