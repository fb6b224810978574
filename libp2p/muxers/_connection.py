"""Drives any muxer machine over a secure stream: one reader, one writer that mostly sleeps, few copies.

    socket ─▶ reader ─▶ decrypt ─▶ machine.receive_data ─▶ events ─▶ stream chunks ─▶ unpark the stream's reader
    socket ◀─ whoever queued ◀─ encrypt ◀─ machine.data_to_send ◀─ commands from any task

*Flushing.* Large payloads are written by the task that queued them, at once, without a task switch. Small ones wait for
the end of the tick, or for their task to wait for an answer, whichever comes first: so a request with its half-close,
or an answer with its close, is one packet, and so are a hundred small messages of a hundred tasks. No ``await`` lies
between taking bytes from the machine and handing them to the kernel (or to the secure stream's own tail), so a
cancelled task never leaves half a record on the wire.

*Congestion.* When the kernel takes no more, the secure stream keeps the tail, the writer task wakes to finish it, and
senders queue up in order of arrival until it has. Each wakes the next when it has had its turn.

*The reader never waits for a writer*: replies are queued in the machine, which bounds them.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable

import trio
from trio.lowlevel import Abort, RaiseCancelT, checkpoint, current_task, reschedule, wait_task_rescheduled

from .._util.contain import capture
from .._util.early_ends import EarlyEnds
from .._util.stream import MachineStream
from .._util.tick import TickEnd, acquire, release
from .._util.turns import Turns
from ..abc import Buffer, Direction, MuxedConnection, MuxedStream, SecureStream
from ..errors import ConnectionClosed, LimitExceeded, LocalProtocolError, RemoteProtocolError, SecurityError
from ._machine import (
    REFUSED_BACKLOG,
    REFUSED_STREAMS,
    CreditReceived,
    DataReceived,
    EofReceived,
    GoAwayReceived,
    MuxEvent,
    MuxMachine,
    OpenCredit,
    PongReceived,
    ResetReceived,
    StreamOpened,
)

CLOSE_GRACE = 1.0
"""Seconds that a close may spend on getting the farewell out; it never waits for the peer."""
CATCH_UP = 5.0
"""Seconds the socket is left alone while readers are far behind (go-mplex gives them as long)."""
COPY_BELOW = 16 * 1024
"""Payloads that their owner may change are copied when they are smaller, and else written before it runs again."""
FLUSH_AT = 256 * 1024
"""Queued bytes that wait no longer: as many as one call of the kernel takes well."""
FLUSH_AFTER = 16
"""Queued sends that wait no longer: the peer shall work on them while others are prepared."""
TURN = 1024
"""Chunks and events of the peer that are worked on before other tasks get a turn: each costs 1 to 3 µs however small it
is, and a single read may bring some 50,000."""


class MachineConnection(MuxedConnection):
    """A muxed connection made of a machine and a secure stream, which it owns."""

    def __init__(
        self, machine: MuxMachine, stream: SecureStream, *, direction: Direction, initial: bytes = b""
    ) -> None:
        self.machine = machine
        self.congested = False
        self.rtt: float | None = None
        self._secure = stream
        self._direction = direction
        self._initial = initial
        self._streams: dict[int, MachineStream] = {}
        self._accept: Callable[[MuxedStream], None] | None = None
        self._scope = trio.CancelScope()
        self._started = False
        self._tick_end: TickEnd | None = None
        self._dirty = False
        self._queued = self._sends = 0
        self._write_error: Exception | None = None
        self._farewell_waits = False
        self._end: ConnectionClosed | None = None
        self._error: RemoteProtocolError | ConnectionClosed | None = None
        self._goodbye_code = 0
        self._writer: trio.lowlevel.Task | None = None
        self._paused: trio.lowlevel.Task | None = None
        self._impatient = False
        self.turns: Turns = Turns()
        self._openers: list[trio.lowlevel.Task] = []
        self._early_ends = EarlyEnds()

    def __repr__(self) -> str:
        state = f"ended: {self._end}" if self._end else "congested" if self.congested else "up"
        return f"<{type(self).__name__} {self._direction.value} {len(self._streams)} streams, {state}>"

    @property
    def streams(self) -> tuple[MachineStream, ...]:
        """Streams that are in use here."""
        return tuple(self._streams.values())

    @property
    def end(self) -> ConnectionClosed | None:
        """Why the connection is over; None while it is not."""
        return self._end

    # --- life

    async def run(
        self, accept: Callable[[MuxedStream], None], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        if self._started:
            raise RuntimeError("a connection runs once")
        self._started = True
        self._accept = accept
        self._tick_end = acquire() if self._secure.kernel else None
        try:
            with self._scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._guarded, self._write_loop)
                    task_status.started()
                    await self._guarded(self._read_loop)
                    nursery.cancel_scope.cancel()
        finally:
            self._lose("the connection was cancelled")
            if self._tick_end is not None:
                release(self._tick_end)
            with trio.CancelScope(shield=True):
                await self._close_secure()
        if self._error is not None:
            raise self._error

    async def _close_secure(self) -> None:
        if self._farewell_waits:
            try:
                with trio.move_on_after(CLOSE_GRACE):
                    await self._secure.flush()
            except (trio.BrokenResourceError, trio.ClosedResourceError, OSError):
                pass
        await trio.aclose_forcefully(self._secure)

    async def _guarded(self, loop: Callable[[], Awaitable[None]]) -> None:
        """Run one of the two loops; whatever ends it ends the connection."""
        try:
            await loop()
        except RemoteProtocolError as exc:
            self._say_farewell()
            if self._end is None:
                self._error = exc
                self._lose(str(exc))
        except SecurityError as exc:
            self._lose_by(ConnectionClosed(str(exc), remote=True))
        except (trio.BrokenResourceError, trio.ClosedResourceError, OSError) as exc:
            self._lose_by(ConnectionClosed(_why(exc), remote=True))

    async def _read_loop(self) -> None:
        machine, secure = self.machine, self._secure
        if self._initial:
            self._dispatch(machine.receive_data(self._initial, trio.current_time()))
            self._initial = b""
            self.flush()
        work = 0
        while chunks := await secure.receive_chunks():
            now = trio.current_time()
            for chunk in chunks:
                events = machine.receive_data(chunk, now)
                self._dispatch(events)
                work += 1 + len(events)
                if work >= TURN:
                    work = 0
                    await checkpoint()
            if machine.has_output:
                self.flush()
            if machine.buffered > machine.pause_above:
                await self._let_readers_catch_up()
        self._lose("the peer closed the connection", code=self._goodbye_code, remote=True)

    async def _let_readers_catch_up(self) -> None:
        """Read nothing while applications are far behind, but not for ever: what they never read costs them."""
        if self._impatient:
            return
        self._impatient = True
        with trio.move_on_after(CATCH_UP):
            self._paused = current_task()
            await wait_task_rescheduled(self._abort_pause)

    def _abort_pause(self, _: RaiseCancelT) -> Abort:
        self._paused = None
        return Abort.SUCCEEDED

    def _caught_up(self) -> None:
        """Applications took something: go on reading once they have taken most of it."""
        if self.machine.buffered <= self.machine.pause_above // 2:
            self._impatient = False
            if self._paused is not None:
                reschedule(self._paused)
                self._paused = None

    async def _write_loop(self) -> None:
        """Finish what the kernel did not take, and keep the machine's time."""
        machine = self.machine
        while True:
            if self._write_error is not None:
                raise self._write_error
            if self._farewell_waits:
                return  # run has the last word
            if self.congested:
                await self._secure.flush()
                self.congested = False
                self.flush()
                self.pass_turn()
                continue
            deadline = machine.next_timeout()
            with trio.CancelScope(deadline=math.inf if deadline is None else deadline):
                self._writer = current_task()
                await wait_task_rescheduled(self._abort_writer)
            now = trio.current_time()
            if deadline is not None and now >= deadline:
                self._dispatch(machine.handle_timeout(now))
                self.flush()

    def _abort_writer(self, _: RaiseCancelT) -> Abort:
        self._writer = None
        return Abort.SUCCEEDED

    def _dispatch(self, events: list[MuxEvent]) -> None:
        if not self._early_ends.awake and any(isinstance(event, DataReceived | StreamOpened) for event in events):
            self._wake_up()
        streams = self._streams
        for event in events:
            if isinstance(event, DataReceived):
                stream = streams.get(event.stream_id)
                if stream is not None:
                    stream.feed(event.data)
            elif isinstance(event, StreamOpened):
                self._accept_stream(event.stream_id)
            elif isinstance(event, EofReceived):
                stream = streams.get(event.stream_id)
                if stream is not None:
                    stream.feed_eof()
            elif isinstance(event, CreditReceived):
                stream = streams.get(event.stream_id)
                if stream is not None:
                    stream.credit_arrived()
            elif isinstance(event, ResetReceived):
                self._early_ends.drop(event.stream_id)
                stream = streams.pop(event.stream_id, None)
                if stream is not None:
                    stream.fail_reset(event.code, event.remote)
            elif isinstance(event, OpenCredit):
                self._wake_openers()
            elif isinstance(event, PongReceived):
                self.rtt = event.rtt
            elif isinstance(event, GoAwayReceived):
                self._goodbye_code = event.code
                self._wake_openers()

    def _accept_stream(self, stream_id: int) -> None:
        assert self._accept is not None
        if self._end is not None:
            return  # lost by an event before this one: nobody would ever end the stream
        stream = self._streams[stream_id] = MachineStream(self, stream_id, Direction.INBOUND)
        self._accept(stream)

    # --- opening

    @property
    def can_open(self) -> bool:
        return self._end is None and self.machine.can_open

    async def open_stream(self) -> MachineStream:
        """Open a stream; the peer learns of it with the first bytes. Waits while too many are unacknowledged.

        Not a checkpoint when nothing is in the way: the first use of the stream is one.
        """
        while True:
            if self._end is not None:
                # Looked at first: a machine whose connection was lost may know nothing of it.
                raise ConnectionClosed(self._end.reason, code=self._end.code, remote=self._end.remote)
            try:
                stream_id = self.machine.open_stream()
            except LocalProtocolError:
                await self._wait_to_open()
                continue
            stream = self._streams[stream_id] = MachineStream(self, stream_id, Direction.OUTBOUND)
            return stream

    async def _wait_to_open(self) -> None:
        """Wait for what forbids another stream to pass, or raise when that is not worth waiting for."""
        refusal = self.machine.refusal
        if refusal == REFUSED_STREAMS:
            raise LimitExceeded("streams_per_connection", self.machine.outbound_count)
        if refusal == REFUSED_BACKLOG:
            await self._wait_for_backlog()
        else:
            raise ConnectionClosed(str(refusal), code=self._goodbye_code, remote=self._goodbye_code != 0)

    async def _wait_for_backlog(self) -> None:
        task = current_task()
        self._openers.append(task)

        def abort(_: RaiseCancelT) -> Abort:
            self._openers.remove(task)
            return Abort.SUCCEEDED

        await wait_task_rescheduled(abort)

    def _made_room(self) -> None:
        if self._impatient:
            self._caught_up()
        if self._openers and self.machine.can_open:
            self._wake_openers()

    def _wake_openers(self) -> None:
        openers, self._openers = self._openers, []
        for task in openers:
            reschedule(task)

    # --- called by streams

    def consumed(self, stream: MachineStream, size: int) -> None:
        """The application took ``size`` bytes of ``stream``."""
        if self._end is None:
            if self.machine.consumed(stream.id, size, trio.current_time()):
                self.flush_later()
            if self._impatient:
                self._caught_up()

    def about_to_read(self, stream: MachineStream) -> None:
        """The application waits for data: what it has said, and that its stream was accepted, must not wait with it."""
        if self._end is None:
            if stream.direction is Direction.INBOUND:
                self.machine.acknowledge(stream.id)
            if self.machine.has_output:
                self.flush()

    def send(self, stream: MachineStream, data: Buffer) -> None:
        """Queue ``data``, which fits the stream's credit, and get it on its way; the caller has a checkpoint."""
        size = len(data)
        if type(data) is bytes or (type(data) is memoryview and type(data.obj) is bytes):
            self._queued += size
        elif size < COPY_BELOW:
            data = bytes(data)  # it leaves later, when its owner may have changed it
            self._queued += size
        else:
            self._queued = FLUSH_AT
        self._sends += 1
        self.machine.send_data(stream.id, data)
        if self._queued < FLUSH_AT and self._sends < FLUSH_AFTER:
            self.flush_later()
        else:
            self.flush()

    def send_now(self, stream: MachineStream, data: bytes) -> None:
        """Queue a few bytes and try to write them, without waiting. For negotiations."""
        if self._end is None:
            self.machine.send_data(stream.id, data)
            self.flush()

    def send_eof(self, stream: MachineStream) -> None:
        """The application has sent all it wants to."""
        if not self._early_ends.delay(stream, closed=False):
            self.machine.send_eof(stream.id)
            self.flush_later()

    def close(self, stream: MachineStream, *, send_eof: bool) -> None:
        """The application is done with ``stream``."""
        self._streams.pop(stream.id, None)
        if self._end is None:
            if self._early_ends.delay(stream, closed=True):
                return
            if send_eof:
                self.machine.send_eof(stream.id)
            self.machine.forget(stream.id, trio.current_time())
            self._made_room()

    def _wake_up(self) -> None:
        """Send the ends that waited."""
        for stream_id, closed in self._early_ends.wake().items():
            self.machine.send_eof(stream_id)
            if closed:
                self.machine.forget(stream_id, trio.current_time())
        self._made_room()

    def reset(self, stream: MachineStream, code: int) -> None:
        """The application gives ``stream`` up."""
        self._streams.pop(stream.id, None)
        self._early_ends.drop(stream.id)
        if self._end is None:
            self.machine.reset(stream.id, code)
            self.flush()
            self._made_room()

    def flush_later(self) -> None:
        """Write at the end of the tick, where that is possible; now, where only the writer task can write."""
        if self._tick_end is None:
            self.flush()
        elif not self._dirty and self.machine.has_output:
            self._dirty = True
            self._tick_end.add(self)

    def tick_ended(self, token: trio.lowlevel.TrioToken) -> None:
        """Write what was queued. No task is running: whom this wakes is woken through ``token``."""
        self._dirty = False
        if self.congested or self._end is not None or not self.machine.has_output:
            return
        # Trio would remove the instrument, and nobody's writes would leave any more: the writer raises it instead.
        self._write_error = capture(self._write)
        if self.congested or self._write_error is not None:
            token.run_sync_soon(self._wake_writer)

    def flush(self) -> None:
        """Write what the machine has queued, as far as the kernel takes it. Never raises, never waits."""
        if self.congested or self._end is not None or not self.machine.has_output:
            return
        try:
            self._write()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as exc:
            self._lose_by(ConnectionClosed(_why(exc), remote=True))
        if self.congested:
            self._wake_writer()

    def _write(self) -> None:
        self._queued = self._sends = 0
        try:
            self.congested = not self._secure.write(self.machine.data_to_send())
        except LocalProtocolError as exc:
            raise trio.BrokenResourceError(str(exc)) from exc

    def _wake_writer(self) -> None:
        if self._writer is not None:
            reschedule(self._writer)
            self._writer = None

    def pass_turn(self) -> None:
        """Let the next waiting sender go, unless the kernel is full again."""
        if self.turns and not self.congested:
            self.turns.pass_on()

    # --- the end

    def abort(self, code: int = 0) -> None:
        if self._end is None:
            self.machine.go_away(code)
            self._say_farewell()
        self._lose("the connection was aborted", code=code)

    def _say_farewell(self) -> None:
        """Give what the machine has queued one chance. What only a task can write, ``run`` writes before it closes."""
        if not self.congested:
            self.flush()
            self._farewell_waits = self.congested and not self._secure.kernel

    async def aclose(self) -> None:
        """Tell the peer and close. Takes at most :data:`CLOSE_GRACE` seconds, whatever the peer does."""
        if self._end is None:
            self._wake_up()
            self.machine.go_away(0)
            self.flush()
            try:
                with trio.move_on_after(CLOSE_GRACE):
                    while self._started and self.congested and self._end is None:
                        await self.turns.wait(current_task())
            finally:
                self._lose("the connection was closed")
        if self._started:
            await checkpoint()
        else:
            await self._secure.aclose()

    def _lose(self, reason: str, *, code: int = 0, remote: bool = False) -> None:
        """End the connection for everybody who uses it. The first reason stays."""
        if self._end is not None:
            return
        self._end = ConnectionClosed(reason, code=code, remote=remote)
        streams = self.streams
        self._streams.clear()
        for stream in streams:
            stream.fail_connection(reason, code, remote)
        self._wake_openers()
        self.turns.end()
        self._scope.cancel()

    def _lose_by(self, error: ConnectionClosed) -> None:
        if self._end is None:
            self._error = error
            self._lose(error.reason, code=error.code, remote=error.remote)


def _why(exc: Exception) -> str:
    cause = exc.__cause__
    return str(cause) if isinstance(cause, OSError) else str(exc) or type(exc).__name__
