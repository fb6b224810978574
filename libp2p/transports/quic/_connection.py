"""QUIC as a muxed connection: carries between a machine, its endpoint, and the streams that applications hold.

It has no task of its own for input, output or time: the endpoint feeds it, and sends what it has to send. ``run`` waits
for the end. Small writes are joined as in the other muxers: they leave at the end of the tick, or when their task
waits for an answer, whichever comes first.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import trio
from multiaddr import Multiaddr
from trio.lowlevel import checkpoint

from ..._util.contain import capture
from ..._util.early_ends import EarlyEnds
from ..._util.stream import MachineStream
from ..._util.tick import TickEnd, acquire, release
from ..._util.turns import Turns
from ...abc import Buffer, Direction, MuxedStream, SecureMuxedConnection
from ...crypto.keys import PublicKey
from ...errors import ConnectionClosed, RemoteProtocolError
from ...peer_id import PeerId
from ._engine import Address
from ._machine import (
    CanOpen,
    CidIssued,
    CidRetired,
    Data,
    Ended,
    Eof,
    MachineEvent,
    Opened,
    QuicMachine,
    Ready,
    Reset,
    Stopped,
)

if TYPE_CHECKING:
    from ._endpoint import Endpoint

CLOSE_GRACE = 1.0
"""Seconds that closing may take."""


class QuicConnection(SecureMuxedConnection):
    """One connection, dialled or accepted; made by its endpoint.

    Attributes:
        machine: its streams.
        turns: tasks that wait to send.
    """

    remote_peer: PeerId
    remote_key: PublicKey
    local_addr: Multiaddr
    remote_addr: Multiaddr

    def __init__(
        self,
        endpoint: Endpoint,
        machine: QuicMachine,
        *,
        direction: Direction,
        local_addr: Multiaddr,
        remote_addr: Multiaddr,
    ) -> None:
        self.machine = machine
        self.local_addr = local_addr
        self.remote_addr = remote_addr
        self._endpoint = endpoint
        self._direction = direction
        self._streams: dict[int, MachineStream] = {}
        self._accept: Callable[[MuxedStream], None] | None = None
        self._started = False
        self._tick_end: TickEnd | None = None
        self._dirty = False
        self._end: ConnectionClosed | None = None
        self._error: Exception | None = None
        self._over = trio.Event()
        self._ready = trio.Event()
        self.turns: Turns = Turns()
        self._openers = trio.lowlevel.ParkingLot()
        self._closing = False
        self._settling = trio.lowlevel.ParkingLot()
        self._early_ends = EarlyEnds()

    def __repr__(self) -> str:
        state = f"ended: {self._end}" if self._end else "up" if self._ready.is_set() else "in handshake"
        return f"<QuicConnection {self._direction.value} {self.remote_addr} {len(self._streams)} streams, {state}>"

    @property
    def rtt(self) -> float | None:
        """Seconds of a round trip, None before the first was measured."""
        return self.machine.engine.rtt

    @property
    def end(self) -> ConnectionClosed | None:
        """Why the connection is over; None while it is not."""
        return self._end

    @property
    def is_ready(self) -> bool:
        """Whether the handshake is complete."""
        return self._ready.is_set()

    async def wait_ready(self) -> None:
        """Wait until the handshake is over. See :attr:`end` for whether it failed."""
        await self._ready.wait()

    # --- life

    async def run(
        self, accept: Callable[[MuxedStream], None], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        if self._started:
            raise RuntimeError("a connection runs once")
        self._started = True
        self._accept = accept
        self._tick_end = acquire() if self._endpoint.kernel else None
        try:
            self.advance()
            task_status.started()
            await self._over.wait()
        finally:
            self._finish(0, "the connection was cancelled")
            if self._tick_end is not None:
                release(self._tick_end)
                self._tick_end = None
        if self._error is not None:
            raise self._error

    # --- called by the endpoint

    def receive(self, datagrams: list[bytes], remote: Address) -> None:
        """Datagrams arrived. Call :meth:`advance` when no more are there for the moment."""
        self.machine.receive(datagrams, remote, trio.current_time())

    def receive_segments(self, data: bytes, size: int, remote: Address) -> None:
        """Datagrams arrived, joined."""
        self.machine.receive_segments(data, size, remote, trio.current_time())

    def advance(self) -> None:
        """Act on what has happened, and send what follows from it."""
        engine = self.machine.engine
        all_sent = engine.repeats and not engine.waiting
        if engine.repeats:
            self._endpoint.transmit(self)
        if not self._ready.is_set() or self._started or self._end is not None:
            self._dispatch(self.machine.events(trio.current_time()))
        if all_sent:  # each look uses up what pacing allows, and then asks for another one
            self._after_transmit()
        else:
            self.flush()

    def handle_timeout(self, now: float) -> None:
        """Time has come."""
        self._dispatch(self.machine.handle_timeout(now))
        self.advance()

    def fail(self, error: Exception) -> None:
        """A bug, or the operating system, ended it: whoever runs the connection is told."""
        if self._end is None:
            self._error = error
            self._lose(Ended(str(error) or type(error).__name__))

    def _dispatch(self, events: list[MachineEvent]) -> None:
        if not self._early_ends.awake and any(isinstance(event, Data | Opened) for event in events):
            self._wake_up()
        streams = self._streams
        for event in events:
            if isinstance(event, Data):
                stream = streams.get(event.stream_id)
                if stream is not None:
                    stream.feed(event.data)
            elif isinstance(event, Opened):
                self._accept_stream(event.stream_id)
            elif isinstance(event, Eof):
                stream = streams.get(event.stream_id)
                if stream is not None:
                    stream.feed_eof()
            elif isinstance(event, Reset):
                self._early_ends.drop(event.stream_id)
                stream = streams.pop(event.stream_id, None)
                if stream is not None:
                    stream.fail_reset(event.code, event.remote)
            elif isinstance(event, Stopped):
                stream = streams.get(event.stream_id)
                if stream is not None:
                    stream.stop_writing(event.code)
            elif isinstance(event, CanOpen):
                self._openers.unpark_all()
            elif isinstance(event, CidIssued):
                self._endpoint.add_cid(event.cid, self)
            elif isinstance(event, CidRetired):
                self._endpoint.remove_cid(event.cid)
            elif isinstance(event, Ready):
                self._on_ready()
            else:
                self._on_ended(event)

    def _on_ready(self) -> None:
        key = self.machine.engine.remote_key
        assert key is not None
        self.remote_key = key
        self.remote_peer = PeerId.from_key(key)
        self._ready.set()
        self._endpoint.on_ready(self)

    def _on_ended(self, ended: Ended) -> None:
        if self._end is None:
            if ended.broken:
                self._error = RemoteProtocolError(ended.reason)
            elif not ended.remote or ended.code:
                self._error = ConnectionClosed(ended.reason, code=ended.code, remote=ended.remote)
        self._lose(ended)

    def _accept_stream(self, stream_id: int) -> None:
        if self._end is None:
            assert self._accept is not None
            stream = self._streams[stream_id] = MachineStream(self, stream_id, Direction.INBOUND)
            self._accept(stream)

    # --- opening

    @property
    def can_open(self) -> bool:
        return self._end is None and self.machine.can_open

    async def open_stream(self) -> MachineStream:
        """Open a stream; the peer learns of it with the first bytes. Waits while the peer allows no more."""
        while True:
            if self._end is not None:
                raise ConnectionClosed(self._end.reason, code=self._end.code, remote=self._end.remote)
            if self.machine.can_open:
                break
            await self._openers.park()
        stream_id = self.machine.open_stream()
        stream = self._streams[stream_id] = MachineStream(self, stream_id, Direction.OUTBOUND)
        return stream

    # --- called by streams

    @property
    def congested(self) -> bool:
        """Whether too much waits to be sent, or nothing more shall be."""
        return self._end is None and (self._closing or self.machine.congested)

    def consumed(self, stream: MachineStream, size: int) -> None:
        """The application took ``size`` bytes of ``stream``."""
        was_paused = self.machine.paused
        self.machine.consumed(stream.id, size)
        if was_paused and not self.machine.paused and self._end is None:
            self._dispatch(self.machine.events(trio.current_time()))
            self.flush_later()

    def about_to_read(self, stream: MachineStream) -> None:
        """The application waits for data: what it has said must not wait with it."""
        if self._dirty:
            self.flush()

    def send(self, stream: MachineStream, data: Buffer) -> None:
        """Queue ``data`` and get it on its way."""
        self.machine.send_data(stream.id, data)
        self.flush_later()

    def send_now(self, stream: MachineStream, data: bytes) -> None:
        """Queue a few bytes and send them. For negotiations."""
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
        if self._end is None and not self._early_ends.delay(stream, closed=True):
            if send_eof:
                self.machine.send_eof(stream.id)
            self._let_go(stream.id)

    def _wake_up(self) -> None:
        """Send the ends that waited."""
        for stream_id, closed in self._early_ends.wake().items():
            self.machine.send_eof(stream_id)
            if closed:
                self._let_go(stream_id)
        self.flush_later()

    def reset(self, stream: MachineStream, code: int) -> None:
        """The application gives ``stream`` up."""
        self._streams.pop(stream.id, None)
        self._early_ends.drop(stream.id)
        if self._end is None:
            self.machine.reset(stream.id, code)
            self._let_go(stream.id)
            self.flush()

    def _let_go(self, stream_id: int) -> None:
        was_paused = self.machine.paused
        self.machine.forget(stream_id, trio.current_time())
        if was_paused and not self.machine.paused:
            self._dispatch(self.machine.events(trio.current_time()))

    # --- sending

    def flush_later(self) -> None:
        """Send what is queued at the end of the tick."""
        if self._tick_end is None:
            self.flush()
        elif not self._dirty:
            self._dirty = True
            self._tick_end.add(self)

    def tick_ended(self, token: trio.lowlevel.TrioToken) -> None:
        """Send what was queued. No task is running, and Trio has decided how long to wait: the rest is done by it."""
        if self._dirty and self._end is None:
            self._dirty = False
            # Trio would remove the instrument, and nobody's writes would leave any more.
            token.run_sync_soon(self._after_tick, capture(partial(self._endpoint.transmit, self)))

    def _after_tick(self, error: Exception | None) -> None:
        error = error or capture(self._after_transmit)  # here it would end all of Trio
        if error is not None:
            self.fail(error)

    def flush(self) -> None:
        """Send what the machine has, as far as the network takes it. Never waits."""
        self._dirty = False
        self._endpoint.transmit(self)
        self._after_transmit()

    def _after_transmit(self) -> None:
        """Whoever waited for room may go on, and there may be a new time to wake up at."""
        for stream_id in self.machine.credited():
            stream = self._streams.get(stream_id)
            if stream is not None:
                stream.credit_arrived()
        self.pass_turn()
        self._settling.unpark_all()
        self._endpoint.schedule(self)

    def pass_turn(self) -> None:
        """Let the next waiting sender go, unless too much waits to be sent."""
        if self.turns and not self.congested:
            self.turns.pass_on()

    # --- the end

    def abort(self, code: int = 0) -> None:
        self._finish(code, "the connection was aborted")

    async def aclose(self) -> None:
        """Tell the peer and close, once it has what it was sent: it forgets what it has not read when it is told, and
        nothing is sent again afterwards. Takes at most :data:`CLOSE_GRACE` seconds, whatever the peer does."""
        try:
            if self._end is None and self._ready.is_set():
                self._closing = True
                self._wake_up()
                with trio.move_on_after(CLOSE_GRACE):
                    while self._end is None and not self.machine.engine.settled:
                        await self._settling.park()
        finally:
            self._finish(0, "the connection was closed")
        await checkpoint()

    def _finish(self, code: int, reason: str) -> None:
        if self._end is None:
            self.machine.close(code, "")
            self._lose(Ended(reason, code))

    def _lose(self, ended: Ended) -> None:
        """End the connection for everybody who uses it. The first reason stays."""
        if self._end is not None:
            return
        self._end = ConnectionClosed(ended.reason, code=ended.code, remote=ended.remote)
        streams = tuple(self._streams.values())
        self._streams.clear()
        for stream in streams:
            stream.fail_connection(ended.reason, ended.code, ended.remote)
        self._openers.unpark_all()
        self.turns.end()
        self._over.set()
        self._ready.set()
        self._error = self._error or capture(self.flush)  # whatever goes wrong with the farewell, this is the end
        self._endpoint.on_ended(self)
