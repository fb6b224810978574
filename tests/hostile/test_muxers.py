"""Cases M9 to M11, on yamux and mplex: slow readers, storms of half-closes and resets, pipes that are always full."""

from __future__ import annotations

import hashlib
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from libp2p.abc import Direction, MuxedConnection, MuxedStream, Stream
from libp2p.errors import ConnectionClosed, Libp2pError, LimitExceeded, StreamReset
from libp2p.host import HostConfig
from libp2p.muxers._connection import MachineConnection
from libp2p.muxers.mplex import Mplex
from libp2p.muxers.yamux import Yamux
from libp2p.swarm import LimitsConfig, SwarmConfig
from libp2p.testing import MemoryNetwork
from libp2p.testing.conformance.muxer import memory_secure_pair
from libp2p.testing.raw import HEADER, Wants, line, mplex, mplex_messages
from libp2p.testing.rig import Budget
from tests.hostile.cases import ends, under_attack

pytestmark = pytest.mark.bar_c

BOTH = pytest.mark.parametrize("muxer", [Yamux, Mplex])


@asynccontextmanager
async def _muxed(muxer: type[Yamux] | type[Mplex], buffer: int) -> AsyncIterator[tuple[MachineConnection, ...]]:
    """Two running muxers over a pipe of that size, and a list of the streams each accepted."""
    async with memory_secure_pair(MemoryNetwork(buffer=buffer)) as pair, trio.open_nursery() as nursery:
        ends = []
        for stream, direction in ((pair.dialer, Direction.OUTBOUND), (pair.listener, Direction.INBOUND)):
            end = muxer().mux(stream, direction=direction)
            assert isinstance(end, MachineConnection)
            end.accepted = []  # type: ignore[attr-defined]
            ends.append(end)
            nursery.start_soon(_run, end)
        await trio.testing.wait_all_tasks_blocked()
        yield tuple(ends)
        nursery.cancel_scope.cancel()


async def _run(end: Any) -> None:
    try:
        await end.run(end.accepted.append)
    except ConnectionClosed:
        pass


# --- M9 ---------------------------------------------------------------------------------------------------------------

MANY = 200
OFFER = 16 * 1024 * 1024
ROOM = 32 * 1024 * 1024


async def test_M9_two_hundred_streams_that_nobody_reads() -> None:
    """What a connection holds is bounded whatever its windows say, writers wait, and a stream that is read moves."""
    limits = LimitsConfig(streams_inbound_per_protocol=512, streams_outbound_per_protocol=512)
    config = HostConfig(swarm=SwarmConfig(limits=limits))
    wake = trio.Event()
    digests: list[bytes] = []

    async def handler(stream: Stream) -> None:
        first = await stream.receive_some(1)
        if first == b"R":
            digest = hashlib.sha256()
            while chunk := await stream.receive_some():
                digest.update(chunk)
            digests.append(digest.digest())
        else:
            await wake.wait()

    async with under_attack(config=config, budget=Budget(memory=150e6, kept=80e6)) as attack:
        attack.victim.handle("/lazy/1", handler)
        canary = attack.hosts[1]
        await attack.victim.connect(canary.addrs[0])
        data = random.Random(9).randbytes(2_000_000)
        sent = 0

        async def offer() -> None:
            nonlocal sent
            try:
                stream = await canary.open_stream(attack.victim.local_peer, "/lazy/1")
                await stream.send_all(b"N")
                for _ in range(OFFER // 65536):
                    await stream.send_all(bytes(65536))
                    sent += 65536
            except (StreamReset, ConnectionClosed):
                pass

        async def read_one() -> float:
            before = trio.current_time()
            async with await canary.open_stream(attack.victim.local_peer, "/lazy/1") as stream:
                await stream.send_all(b"R" + data)
            while not digests:
                await trio.sleep(0.01)
            return trio.current_time() - before

        async with trio.open_nursery() as nursery:
            for _ in range(MANY):
                nursery.start_soon(offer)
            await trio.sleep(5)
            held = [conn.muxed.machine.buffered for conn in attack.victim.connections()]  # type: ignore[attr-defined]
            assert max(held) <= ROOM
            assert sent < MANY * OFFER // 4, "the writers were not held back"
            assert await read_one() <= 1.0
            wake.set()
            nursery.cancel_scope.cancel()
    assert digests == [hashlib.sha256(data).digest()]


async def test_M9_an_mplex_stream_that_nobody_reads_is_given_up() -> None:
    """There is no flow control to hold it back: it is reset when its bound is reached, and the others live."""
    async with _muxed(Mplex, 256 * 1024) as (one, other):
        slow, quick = await one.open_stream(), await one.open_stream()
        with pytest.raises(StreamReset):
            while True:
                await slow.send_all(bytes(65536))
        assert other.machine.buffered <= ROOM
        await quick.send_all(b"alive")
        accepted = other.accepted  # type: ignore[attr-defined]
        while len(accepted) < 2:
            await trio.lowlevel.checkpoint()
        assert await accepted[1].receive_some() == b"alive"


# --- M10 --------------------------------------------------------------------------------------------------------------


class _End:
    """One end of a stream: what was written to it, what was read from it, and how its directions ended."""

    def __init__(self, stream: MuxedStream) -> None:
        self.stream = stream
        self.written = bytearray()
        self.read = bytearray()
        self.eof_sent = self.eof_seen = self.done = False

    async def write(self, size: int) -> None:
        data = random.Random(len(self.written)).randbytes(size)
        with trio.move_on_after(0.5) as scope:
            try:
                await self.stream.send_all(data)
                self.written += data
            except (trio.ClosedResourceError, trio.BrokenResourceError):
                pass
        if scope.cancelled_caught:
            # Some, all or none of it was sent: the stream's content is unknown from here on.
            self.stream.reset()
            self.done = True

    async def receive(self, size: int) -> None:
        with trio.move_on_after(0.5):
            try:
                chunk = await self.stream.receive_some(size)
            except (trio.ClosedResourceError, trio.BrokenResourceError):
                self.done = True
                return
            assert not (self.eof_seen and chunk), "data behind the end"
            self.read += chunk
            self.eof_seen = self.eof_seen or not chunk

    async def end_writing(self) -> None:
        try:
            await self.stream.send_eof()
            self.eof_sent = True
        except (trio.ClosedResourceError, trio.BrokenResourceError):
            pass


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["open", "write", "write", "write", "read", "read", "eof", "close", "reset", "cancel"]),
        st.integers(0, 5),
        st.integers(0, 1),
        st.sampled_from([1, 10, 1000, 20_000, 300_000]),
    ),
    max_size=40,
)


@BOTH
@settings(max_examples=150)
@given(STEPS, st.sampled_from([1, 100, 5000, 65_536]))
async def test_M10_storms_of_everything(muxer, steps, buffer) -> None:
    """Bytes stay in order, the end comes once, a reset is seen, nothing waits for ever, and nothing is left."""
    if buffer == 1:
        steps = [(what, which, side, min(size, 1000)) for what, which, side, size in steps]
    with trio.fail_after(600):
        async with _muxed(muxer, buffer) as connections:
            pairs: list[tuple[_End, _End]] = []
            for what, which, side, size in steps:
                if what == "open" or not pairs:
                    pairs.append(await open_pair(connections, side))
                    continue
                pair = pairs[which % len(pairs)]
                await take_step(pair[side], what, size)
                for one, other in (pair, pair[::-1]):
                    assert bytes(other.written).startswith(one.read) or other.done
            for pair in pairs:
                await finish(pair)
            await trio.sleep(2)
            for connection in connections:
                assert connection.end is None
                assert connection.machine.stream_count == connection.machine.buffered == 0, repr(connection)
                assert not connection.streams


async def open_pair(connections: tuple[Any, ...], side: int) -> tuple[_End, _End]:
    ours = await connections[side].open_stream()
    await ours.send_all(b"!")
    accepted = connections[1 - side].accepted
    while not accepted:
        await trio.sleep(0.01)
    theirs = accepted.pop()
    assert await theirs.receive_some() == b"!"
    # The accepting end acknowledges with its first frame.
    await theirs.send_all(b"?")
    assert await ours.receive_some() == b"?"
    return _End(ours), _End(theirs)


async def take_step(end: _End, what: str, size: int) -> None:
    if what == "write":
        await end.write(size)
    elif what == "read":
        await end.receive(size)
    elif what == "eof":
        await end.end_writing()
    elif what == "close":
        await end.stream.aclose()
    elif what == "reset":
        end.stream.reset(size)
    else:
        with trio.CancelScope() as scope:
            scope.cancel()
            try:
                await end.stream.receive_some()
            except (trio.ClosedResourceError, trio.BrokenResourceError):
                pass


async def finish(pair: tuple[_End, _End]) -> None:
    """Read what is left on both sides, and close."""
    for one in pair:
        await one.end_writing()
    for one, other in (pair, pair[::-1]):
        while not one.done and not one.eof_seen:
            before = len(one.read)
            await one.receive(100_000)
            if not one.eof_seen and len(one.read) == before and (other.done or other.stream._closed):  # type: ignore[attr-defined]
                break
        if one.eof_seen and not one.done and not other.done:
            assert one.read == other.written, "the end came before the last byte"
    for one in pair:
        await one.stream.aclose()


# --- M11 --------------------------------------------------------------------------------------------------------------


@BOTH
async def test_M11_everybody_writes_through_a_pipe_that_is_always_full(muxer) -> None:
    """Both sides write on all streams and read them: each virtual second there is progress on every one."""
    received: dict[int, int] = {}

    async def read(number: int, stream: Stream) -> None:
        while chunk := await stream.receive_some():
            received[number] = received.get(number, 0) + len(chunk)

    with trio.fail_after(120):
        async with _muxed(muxer, 1024) as connections, trio.open_nursery() as nursery:
            pairs = [await open_pair(connections, side % 2) for side in range(6)]
            for number, (one, other) in enumerate(pairs):
                nursery.start_soon(_write_for_ever, one.stream)
                nursery.start_soon(_write_for_ever, other.stream)
                nursery.start_soon(read, 2 * number, one.stream)
                nursery.start_soon(read, 2 * number + 1, other.stream)
            for _ in range(3):
                before = dict(received)
                for connection in connections:
                    connection.machine.ping(trio.current_time())
                    connection.flush()
                for _ in range(2000):
                    await trio.lowlevel.checkpoint()
                assert all(received.get(number, 0) > before.get(number, 0) for number in range(12)), received
            nursery.cancel_scope.cancel()


async def _write_for_ever(stream: Stream) -> None:
    while True:
        await stream.send_all(bytes(3000))


@BOTH
async def test_M11_close_while_the_peer_reads_nothing(muxer) -> None:
    """One second at most, and nobody is left waiting."""
    async with memory_secure_pair(MemoryNetwork(buffer=1024)) as pair, trio.open_nursery() as nursery:
        connection: MuxedConnection = muxer().mux(pair.dialer, direction=Direction.OUTBOUND)
        ended: list[str] = []

        async def write() -> None:
            try:
                await _write_for_ever(await connection.open_stream())
            except (Libp2pError, LimitExceeded) as exc:
                ended.append(type(exc).__name__)

        nursery.start_soon(connection.run, lambda stream: stream.reset())
        for _ in range(20):
            nursery.start_soon(write)
        await trio.sleep(1)
        before = trio.current_time()
        await connection.aclose()
        assert trio.current_time() - before <= 1.0
        await trio.sleep(0.1)
        assert ended == ["ConnectionClosed"] * 20


# --- M3, M6, M7 for mplex ---------------------------------------------------------------------------------------------

LIES = {
    "message above 1 MiB": mplex(1, 2, b"x", length=2**20 + 1),
    "length of 2^62": mplex(1, 2, b"x", length=2**62),
    "endless varint": b"\xff" * 20,
    "flag 7": mplex(1, 7),
    "id above 60 bits": mplex(2**60, 0, b"x"),
    "opened twice": mplex(1, 0, b"1") + mplex(1, 0, b"1"),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
async def test_M3_M7_an_mplex_message_that_lies_costs_the_connection(lie) -> None:
    async with under_attack(muxers=[Yamux, Mplex]) as attack:
        peer = await attack.connect(wants=Wants(muxers=("/mplex/6.7.0",)))
        await peer.send(mplex(9, 0, b"9") + mplex(9, 2, HEADER + line("/libp2p-testing/echo/1.0.0")))
        try:
            await peer.send(lie)
        except trio.BrokenResourceError:
            pass
        await ends(peer, 0.05)
        await trio.sleep(0.01)
        assert not attack.victim.connections(attack.opened[0].peer)


async def test_M6_mplex_rapid_reset_and_empty_messages_cost_the_connection() -> None:
    for flood in (mplex(9, 2), mplex(77, 2, b"x"), mplex(5, 0, b"5") + mplex(5, 6)):
        async with under_attack(muxers=[Yamux, Mplex]) as attack:
            peer = await attack.connect(wants=Wants(muxers=("/mplex/6.7.0",)))
            await peer.send(mplex(9, 0, b"9"))
            try:
                for _ in range(10):
                    await peer.send(flood * 1000)
                    await trio.sleep(0.01)
            except trio.BrokenResourceError:
                pass
            await ends(peer, 0.5)
            await trio.sleep(0.01)
            assert not attack.victim.connections(attack.opened[0].peer)


async def test_mplex_is_answered_by_hand() -> None:
    """The second opinion on our messages: an echo over mplex."""
    async with under_attack(muxers=[Yamux, Mplex]) as attack:
        peer = await attack.connect(wants=Wants(muxers=("/mplex/6.7.0",)))
        await peer.send(mplex(5, 0, b"5") + mplex(5, 2, HEADER + line("/libp2p-testing/echo/1.0.0") + b"echo me"))
        got, answer = b"", b""
        with trio.fail_after(1):
            while not answer.endswith(b"echo me"):
                got = got + await peer.receive()
                answer = b"".join(item.payload for item in mplex_messages(got) if (item.stream, item.flag) == (5, 1))
