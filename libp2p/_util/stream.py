"""The one stream class, from muxer to application; yamux, mplex and QUIC share it.

Reading and writing park the calling task directly (no locks, channels or events: each costs more than the work), so at
most one task reads and one writes; a second one gets ``BusyResourceError``. The reader's task feeds chunks as they
arrive; they are handed to the application uncopied, and the window is given back when the application takes them.

An *optimistic* stream carries an unfinished negotiation: the proposal leaves with the first bytes the application
sends, in one packet, and the listener's answer is checked before the first byte is handed to the application.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from operator import index
from typing import Protocol

import trio
from trio.lowlevel import Abort, RaiseCancelT, checkpoint, current_task, reschedule, wait_task_rescheduled

from ..abc import Buffer, Direction, MuxedStream, Opening, ProtocolId
from ..errors import ConnectionClosed, NegotiationError, RemoteProtocolError, StreamReset
from .turns import Turns

NEGOTIATION_FAILED = 0x1001
"""Stream error code (specs error-codes)."""
TURN_SIZE = 256 * 1024
"""Bytes one stream may write before other streams get their turn."""
SMALL_CHUNK = 4 * 1024
"""Chunks that wait to be read are joined up to this size: each costs its reader a task switch, and each takes some 50
bytes besides its content, which a peer that sends two bytes at a time must not multiply."""


class StreamMachine(Protocol):
    """What a stream asks of its connection's machine directly."""

    def send_credit(self, stream_id: int) -> int:
        """How many bytes may be sent now; 0 for a stream that is gone or finished here."""
        ...


class StreamOwner(Protocol):
    """The connection of a stream, as the stream sees it. No method raises for a stream or connection that is gone."""

    @property
    def machine(self) -> StreamMachine:
        """Where credit is kept."""
        ...

    @property
    def congested(self) -> bool:
        """Whether the connection has too much to send already."""
        ...

    @property
    def turns(self) -> Turns:
        """Where to wait while it has."""
        ...

    def consumed(self, stream: MachineStream, size: int) -> None:
        """The application took ``size`` bytes of ``stream``."""
        ...

    def about_to_read(self, stream: MachineStream) -> None:
        """The application waits for data: what it has said must not wait with it."""
        ...

    def send(self, stream: MachineStream, data: Buffer) -> None:
        """Queue ``data``, which fits the stream's credit, and get it on its way."""
        ...

    def send_now(self, stream: MachineStream, data: bytes) -> None:
        """Queue a few bytes and try to write them, without waiting."""
        ...

    def send_eof(self, stream: MachineStream) -> None:
        """Finish sending, soon."""
        ...

    def close(self, stream: MachineStream, *, send_eof: bool) -> None:
        """The application is done with ``stream``."""
        ...

    def reset(self, stream: MachineStream, code: int) -> None:
        """The application gives ``stream`` up."""
        ...

    def flush_later(self) -> None:
        """Get what is queued on its way, soon."""
        ...

    def pass_turn(self) -> None:
        """Let the next waiting sender go, if it may."""
        ...


class MachineStream(MuxedStream):
    """A stream of a connection that a machine decides about; made by the connection only."""

    __slots__ = (
        "__weakref__",
        "_busy_reading",
        "_busy_writing",
        "_chunks",
        "_closed",
        "_eof",
        "_failure",
        "_mux",
        "_offset",
        "_opening",
        "_prefix",
        "_read_task",
        "_sent_eof",
        "_stopped",
        "_unread",
        "_write_task",
        "id",
    )

    on_end: Callable[[], None] | None

    def __init__(self, mux: StreamOwner, stream_id: int, direction: Direction) -> None:
        self._mux = mux
        self.id: int = stream_id
        self.direction = direction
        self.protocol = None
        self._chunks: deque[bytes] = deque()
        self._offset = 0
        self._unread = 0
        self._opening: Opening | None = None
        self._prefix = b""
        self._read_task: trio.lowlevel.Task | None = None
        self._write_task: trio.lowlevel.Task | None = None
        self._busy_reading = self._busy_writing = False
        self._eof = self._sent_eof = self._closed = False
        self._failure: Callable[[], Exception] | None = None
        self._stopped: int | None = None
        self.on_end = None

    def __repr__(self) -> str:
        state = "closed" if self._closed else "failed" if self._failure else "open"
        return f"<Stream {self.id} {self.protocol or 'not negotiated'} {state}>"

    # --- reading

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive at least one byte, ``b""`` at the end of the stream; see :class:`libp2p.abc.Stream`.

        Without ``max_bytes`` the result is one chunk as it arrived, at most 64 KiB or so.
        """
        if max_bytes is not None and index(max_bytes) < 1:
            raise ValueError("max_bytes must be at least 1")
        if self._busy_reading:
            raise trio.BusyResourceError("another task is reading from this stream")
        if self._closed:
            raise trio.ClosedResourceError("this stream is closed")
        self._busy_reading = True
        try:
            if self._opening is not None:
                await self._finish_opening()
            elif self._chunks or self._eof or self._failure is not None:
                await checkpoint()
            if not self._chunks and not await self._wait_for_chunk():
                return b""
        finally:
            self._busy_reading = False
        chunk = self._next_chunk(max_bytes)
        self._consumed(len(chunk))
        return chunk

    def _consumed(self, size: int) -> None:
        """Give back window for what the application took, once for each byte."""
        if self._unread:
            again = min(size, self._unread)
            self._unread -= again
            size -= again
        if size:
            self._mux.consumed(self, size)

    async def _wait_for_chunk(self) -> bool:
        """Wait until there is one. False at the end of the stream."""
        while True:
            if self._closed:
                raise trio.ClosedResourceError("this stream was closed while it was being read")
            if self._chunks:
                return True
            if self._eof:
                return False
            if self._failure is not None:
                raise self._failure()
            if self._prefix:
                self._send_prefix()
            self._mux.about_to_read(self)
            if self._failure is not None:
                continue  # the write found the connection lost: nobody would wake this task any more
            self._read_task = current_task()
            await wait_task_rescheduled(self._abort_read)

    def _abort_read(self, _: RaiseCancelT) -> Abort:
        self._read_task = None
        return Abort.SUCCEEDED

    def _next_chunk(self, max_bytes: int | None) -> bytes:
        """Take the front chunk, or ``max_bytes`` of it."""
        chunks = self._chunks
        chunk = chunks[0]
        start = self._offset
        if max_bytes is not None and start + max_bytes < len(chunk):
            self._offset = start + max_bytes
            return chunk[start : self._offset]
        chunks.popleft()
        self._offset = 0
        return chunk[start:] if start else chunk

    def receive_nowait(self) -> bytes:
        """The next chunk, or the end, or ``trio.WouldBlock``; see :class:`libp2p.abc.Stream`."""
        if self._busy_reading:
            raise trio.BusyResourceError("another task is reading from this stream")
        if self._closed:
            raise trio.ClosedResourceError("this stream is closed")
        if self._opening is not None:
            raise trio.WouldBlock
        if self._chunks:
            chunk = self._next_chunk(None)
            self._consumed(len(chunk))
            return chunk
        if self._eof:
            return b""
        if self._failure is not None:
            raise self._failure()
        raise trio.WouldBlock

    # --- negotiation

    @property
    def optimistic(self) -> bool:
        """Whether it is used before the listener's answer was looked at."""
        return self._opening is not None

    def begin_optimistic(self, opening: Opening, protocol: ProtocolId) -> None:
        """Use ``protocol`` as if it were agreed; the listener's answer is checked on the first read."""
        self._opening = opening
        self._prefix = opening.data_to_send()
        self.protocol = protocol

    def send_now(self, data: bytes) -> None:
        """Queue a few bytes and try to write them, without waiting."""
        self._mux.send_now(self, data)

    def send_with_next(self, data: bytes) -> None:
        """Send ``data`` with the first bytes of the application, or before it waits for input, or when it closes."""
        self._prefix = data

    def unread(self, data: bytes) -> None:
        """Put bytes that were received back in front of what is read next."""
        if data:
            if self._offset:
                self._chunks[0] = self._chunks[0][self._offset :]
                self._offset = 0
            self._chunks.appendleft(data)
            self._unread += len(data)

    async def _finish_opening(self) -> None:
        """Take the listener's answer. A checkpoint."""
        opening = self._opening
        assert opening is not None
        failure = "the peer closed the stream while negotiating"
        try:
            if self._chunks or self._eof or self._failure is not None:
                await checkpoint()
            while self._chunks or await self._wait_for_chunk():
                chunk = self._chunks.popleft()
                agreed = opening.receive_data(chunk)
                self._consumed(len(chunk))
                if agreed is not None:
                    self._opening = None
                    self.unread(agreed.leftover)
                    return
        except StreamReset as exc:
            # An optimistic stream is for a protocol the peer is known to serve, so a reset is most likely its handler's
            # (rust's resets before the answer is flushed). Only go says by a code that it refuses the protocol.
            if exc.code != NEGOTIATION_FAILED:
                raise
            failure = "the peer reset the stream while negotiating"
        except (NegotiationError, RemoteProtocolError) as exc:
            failure = str(exc)
        offered = (self.protocol or "",)
        if self._failure is None:
            self._mux.reset(self, 0)
        self._chunks.clear()
        self._eof = False
        self._failure = lambda: NegotiationError(failure, offered=offered)
        self._ended()
        raise self._failure()

    def _send_prefix(self) -> None:
        prefix, self._prefix = self._prefix, b""
        self._mux.send_now(self, prefix)

    # --- writing

    async def send_all(self, data: Buffer) -> None:
        """Send ``data``; returns when all of it is queued to the kernel or behind at most one tick's work.

        Waits while the peer's window is empty or the connection is congested. Cancelled: some, all or none was sent;
        the connection is unharmed.
        """
        self._start_writing()
        mux = self._mux
        try:
            if not data and not self._prefix:
                await checkpoint()
                return
            while True:
                credit = 0 if mux.congested else mux.machine.send_credit(self.id)
                if not credit:
                    credit = await self._wait_for_credit()
                if self._prefix:
                    # Not before the wait: cancelled there, the stream must still begin with its negotiation.
                    prefix, self._prefix = self._prefix, b""
                    data = prefix + data
                size = len(data)
                turn = min(credit, size, TURN_SIZE)
                if turn == size:
                    mux.send(self, data)
                    await checkpoint()
                    return
                view = memoryview(data)
                mux.send(self, view[:turn])
                await checkpoint()
                self._check_writable()
                data = view[turn:]
                mux.pass_turn()
        finally:
            self._busy_writing = False
            mux.pass_turn()

    def send_nowait(self, data: Buffer) -> None:
        """Queue all of ``data``, or raise ``trio.WouldBlock``; see :class:`libp2p.abc.Stream`."""
        if self._busy_writing:
            raise trio.BusyResourceError("another task is writing to this stream")
        self._check_writable()
        mux = self._mux
        if self._prefix:
            data = self._prefix + data
        if mux.congested or mux.machine.send_credit(self.id) < len(data):
            raise trio.WouldBlock
        self._prefix = b""
        if data:
            mux.send(self, data)

    def _start_writing(self) -> None:
        if self._busy_writing:
            raise trio.BusyResourceError("another task is writing to this stream")
        self._check_writable()
        self._busy_writing = True

    def _check_writable(self) -> None:
        if self._closed or self._sent_eof:
            raise trio.ClosedResourceError("this stream is closed for writing")
        if self._failure is not None:
            raise self._failure()
        if self._stopped is not None:
            raise StreamReset(code=self._stopped)

    async def _wait_for_credit(self) -> int:
        """Bytes that may be sent now, at least 1; waits for the window and for the connection's outbox."""
        mux = self._mux
        while True:
            self._check_writable()
            if mux.congested:
                await mux.turns.wait(self)
                continue
            if credit := mux.machine.send_credit(self.id):
                return credit
            mux.pass_turn()
            self._write_task = current_task()
            await wait_task_rescheduled(self._abort_write)

    def _abort_write(self, _: RaiseCancelT) -> Abort:
        self._write_task = None
        return Abort.SUCCEEDED

    async def wait_send_all_might_not_block(self) -> None:
        """As in Trio."""
        self._start_writing()
        try:
            await checkpoint()
            await self._wait_for_credit()
        finally:
            self._busy_writing = False
            self._mux.pass_turn()

    async def send_eof(self, last: Buffer = b"") -> None:
        """Send ``last``, then half-close; see :class:`libp2p.abc.Stream`."""
        if last:
            try:
                self.send_nowait(last)
            except trio.WouldBlock:
                await self.send_all(last)
        if self._busy_writing:
            raise trio.BusyResourceError("another task is writing to this stream")
        if not self._sent_eof:
            if self._stopped is None:  # a peer that reads no more will not miss it
                self._check_writable()
            if self._prefix:
                self._send_prefix()
            self._sent_eof = True
            self._mux.send_eof(self)
        elif self._closed:
            raise trio.ClosedResourceError("this stream is closed")
        await checkpoint()

    # --- the end

    def reset(self, code: int = 0) -> None:
        """End both directions and tell the peer. Synchronous, idempotent."""
        if not self._closed:
            self._close()
            if self._failure is None:
                self._mux.reset(self, code)

    def close(self) -> None:
        """Send what is queued and FIN, and stop reading. Does not wait for the peer.

        When another task is in the middle of ``send_all`` the stream is reset instead: half a message must not look
        whole.
        """
        if self._closed:
            return
        if self._busy_writing:
            self.reset()
            return
        if self._prefix and self._failure is None:
            self._send_prefix()
        self._close()
        if self._failure is None:
            self._mux.close(self, send_eof=not self._sent_eof)
            self._sent_eof = True
            self._mux.flush_later()

    async def aclose(self) -> None:
        """:meth:`close`, and a checkpoint."""
        self.close()
        await checkpoint()

    def _close(self) -> None:
        self._closed = True
        self._chunks.clear()
        self._ended()

    # --- called by the connection

    def feed(self, data: bytes) -> None:
        """Data arrived."""
        chunks = self._chunks
        if chunks and len(chunks[-1]) + len(data) <= SMALL_CHUNK:
            chunks[-1] = chunks[-1] + data
        else:
            chunks.append(data)
        task = self._read_task
        if task is not None:
            self._read_task = None
            reschedule(task)

    def feed_eof(self) -> None:
        """The peer half-closed."""
        self._eof = True
        task = self._read_task
        if task is not None:
            self._read_task = None
            reschedule(task)

    def credit_arrived(self) -> None:
        """The window reopened."""
        task = self._write_task
        if task is not None:
            self._write_task = None
            reschedule(task)

    def fail_reset(self, code: int, remote: bool) -> None:
        """The stream was reset, by the peer or by a limit here: data that was not read is lost."""
        self._chunks.clear()
        self._eof = False
        self._failure = lambda: StreamReset(code=code, remote=remote)
        self._ended()

    def stop_writing(self, code: int) -> None:
        """The peer reads no more, and may go on writing."""
        self._stopped = code
        self.credit_arrived()
        self._mux.turns.leave(self)

    def fail_connection(self, reason: str, code: int, remote: bool) -> None:
        """The connection is gone: what arrived, data and the end of the stream, can still be read."""
        if self._failure is None:
            self._failure = lambda: ConnectionClosed(reason, code=code, remote=remote)
        self._ended()

    def _ended(self) -> None:
        self._wake()
        if self.on_end is not None:
            on_end, self.on_end = self.on_end, None
            on_end()

    def _wake(self) -> None:
        for task in (self._read_task, self._write_task):
            if task is not None:
                reschedule(task)
        self._read_task = self._write_task = None
        self._mux.turns.leave(self)
