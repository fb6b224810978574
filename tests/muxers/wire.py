"""A socket of which everything is known: what was written, in how many writes, what room it has, when it breaks."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
from trio.testing import wait_all_tasks_blocked

from libp2p._util.stream import MachineStream
from libp2p.abc import Buffer, Direction, DirectStream, MuxedStream
from libp2p.muxers._connection import MachineConnection
from libp2p.muxers._machine import MuxMachine
from libp2p.muxers.yamux import YamuxConfig
from libp2p.muxers.yamux._machine import YamuxMachine
from libp2p.security.plaintext import PlaintextStream
from tests.muxers import raw


class Wire(DirectStream):
    """One end of a connection; the test is the other.

    Attributes:
        room: bytes it takes before it blocks.
        writes: what was written, one entry for each call.
        broken: what writing raises, when it does.
    """

    kernel = True

    def __init__(self, room: float = math.inf) -> None:
        self.room = room
        self.writes: list[bytes] = []
        self.broken: Exception | None = None
        self.closed = False
        self._in = bytearray()
        self._eof = False
        self._moved = trio.lowlevel.ParkingLot()

    def feed(self, *frames: bytes) -> None:
        """The peer sends."""
        self._in += b"".join(frames)
        self._moved.unpark_all()

    def hang_up(self) -> None:
        """The peer closes the connection."""
        self._eof = True
        self._moved.unpark_all()

    def make_room(self, room: float = math.inf) -> None:
        """The peer reads."""
        self.room = room
        self._moved.unpark_all()

    @property
    def written(self) -> bytes:
        return b"".join(self.writes)

    @property
    def frames(self) -> list[raw.Frame]:
        """All that was written, as yamux frames."""
        return raw.frames(self.written)

    def _check(self) -> None:
        if self.closed:
            raise trio.ClosedResourceError

    def receive_into_nowait(self, buffer: memoryview) -> int:
        self._check()
        if not self._in and not self._eof:
            raise trio.WouldBlock
        size = min(len(buffer), len(self._in))
        buffer[:size] = self._in[:size]
        del self._in[:size]
        return size

    def send_nowait(self, data: Buffer) -> int:
        self._check()
        if self.broken is not None:
            raise self.broken
        size = int(min(len(data), self.room))
        if not size:
            raise trio.WouldBlock
        self.room -= size
        self.writes.append(bytes(data[:size]))
        return size

    async def wait_readable(self) -> None:
        while not self._in and not self._eof and not self.closed:
            await self._moved.park()

    async def wait_writable(self) -> None:
        while not self.room and not self.closed:
            await self._moved.park()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        raise NotImplementedError

    async def send_all(self, data: Buffer) -> None:
        raise NotImplementedError

    async def wait_send_all_might_not_block(self) -> None:
        raise NotImplementedError

    async def aclose(self) -> None:
        self.closed = True
        self._moved.unpark_all()
        await trio.lowlevel.checkpoint()


class Rig:
    """A yamux connection, running over a wire, and the streams its peer opened."""

    def __init__(
        self, wire: Wire | None = None, machine: MuxMachine | None = None, *, initial: bytes = b"", **config: Any
    ) -> None:
        self.wire = wire or Wire()
        if machine is None:
            machine = YamuxMachine(YamuxConfig(keepalive=None, **config), client=True)
        secure = PlaintextStream(self.wire)
        self.conn = MachineConnection(machine, secure, direction=Direction.OUTBOUND, initial=initial)
        self.accepted: list[MuxedStream] = []
        self.error: BaseException | None = None
        self.ended = trio.Event()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        try:
            await self.conn.run(self.accept, task_status=task_status)
        except Exception as exc:  # noqa: BLE001 - tests look at it
            self.error = exc
        finally:
            self.ended.set()

    def accept(self, stream: MuxedStream) -> None:
        self.accepted.append(stream)


@asynccontextmanager
async def running(rig: Rig | None = None, **config: Any) -> AsyncIterator[Rig]:
    """A connection that runs while the block does, at most 5 s."""
    rig = rig or Rig(**config)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            await nursery.start(rig.run)
            yield rig
            nursery.cancel_scope.cancel()


async def outcome_of(nursery: trio.Nursery, use: Any, *args: Any) -> list[object]:
    """Start ``use`` and wait until it is stuck; its result or exception will be in the list."""
    outcome: list[object] = []

    async def call() -> None:
        try:
            outcome.append(await use(*args))
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            outcome.append(exc)

    nursery.start_soon(call)
    await wait_all_tasks_blocked(0.01)
    return outcome


async def congest(rig: Rig, nursery: trio.Nursery) -> MachineStream:
    """Fill the wire, so that everybody else has to queue."""
    stream = await rig.conn.open_stream()
    nursery.start_soon(stream.send_all, bytes(100_000))
    await wait_all_tasks_blocked(0.01)
    assert rig.conn.congested
    return stream
