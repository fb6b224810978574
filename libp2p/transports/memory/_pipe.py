"""One direction of a connection in memory: bytes in order, how long they take, how many may be on their way.

Theory of operation. No task carries the bytes. The sender stamps each piece with the time at which it arrives; the
reader, when it wants a piece whose time has not come, sleeps until then. So a link without delay costs no timer and no
task, and a delayed one costs a timer only while somebody waits. Times of arrival never decrease: the stream stays
reliable and in order, and a loss shows as what TCP makes of it, a pause for everything behind.

| what | who notices |
| --- | --- |
| ``send_eof`` | the reader, behind all data |
| ``close_reader`` | the sender, one latency later; until then its bytes go nowhere |
| ``reset`` | both, at once; data under way is lost |
| ``stall`` | nobody: nothing arrives until ``resume`` |
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import trio
from trio.lowlevel import (
    Abort,
    RaiseCancelT,
    Task,
    current_task,
    current_trio_token,
    reschedule,
    wait_task_rescheduled,
)

from ...abc import Buffer

SEGMENT = 16 * 1024
"""Bytes that a link with a rate or with losses carries as one packet."""
RETRANSMIT = 0.2
"""Seconds at least until a lost packet is sent again (RFC 6298 in Linux's reading); doubled with each further loss."""
MAX_RETRANSMIT = 60.0
"""Ceiling of that doubling (RFC 6298, section 2.5)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """What one direction between two nodes is like.

    Attributes:
        latency: seconds that every byte takes.
        jitter: up to this many seconds more, evenly spread.
        rate: bytes a second, for each connection.
        loss: how likely a packet is lost; it arrives after a retransmission, and so does what follows it.
        buffer: bytes that may be sent and not yet received. It bounds the throughput at ``buffer / latency``, as a
            window does.
    """

    latency: float = 0.0
    jitter: float = 0.0
    rate: float = math.inf
    loss: float = 0.0
    buffer: int = 256 * 1024

    def __post_init__(self) -> None:
        if not (0 <= self.latency < math.inf and 0 <= self.jitter < math.inf):
            raise ValueError("latency and jitter must be finite and not negative")
        if not self.rate > 0 or not 0 <= self.loss < 1:
            raise ValueError("the rate must be positive, and the loss below 1")
        if self.buffer < 1:
            raise ValueError("the buffer must hold at least one byte")

    @property
    def instant(self) -> bool:
        """Whether bytes arrive the moment they are sent."""
        return not (self.latency or self.jitter or self.loss) and self.rate == math.inf

    def retransmissions(self, rng: random.Random) -> float:
        """Seconds that a packet loses to losses."""
        delay, pause = 0.0, max(RETRANSMIT, 2 * (self.latency + self.jitter))
        while self.loss and rng.random() < self.loss:
            delay += pause
            pause = min(2 * pause, MAX_RETRANSMIT)
        return delay


class Pipe:
    """Bytes from one sender to one reader.

    Args:
        link: what the way is like; may be replaced at any time.
        rng: decides about jitter and losses.
        watch: sees every piece as it is sent, and may put another in its place.
    """

    __slots__ = (
        "_arrived_last", "_broken", "_eof", "_free_at", "_pieces", "_read_task", "_reader_gone", "_rng", "_stalled",
        "_watch", "_write_task", "held", "link", "sent",
    )  # fmt: skip

    def __init__(self, link: Link, rng: random.Random, watch: Callable[[bytes], bytes]) -> None:
        self.link: Link = link
        self.sent: int = 0
        self.held: int = 0
        self._rng = rng
        self._watch = watch
        self._pieces: deque[tuple[float, bytes]] = deque()
        self._arrived_last = self._free_at = -math.inf
        self._eof: float | None = None
        self._reader_gone: float | None = None
        self._broken: str | None = None
        self._stalled = False
        self._read_task: Task | None = None
        self._write_task: Task | None = None

    # --- sending

    def send_nowait(self, data: Buffer) -> int:
        """Take the front of ``data``; returns how many bytes. Raises WouldBlock, or BrokenResourceError.

        Whoever sends behind an end that was forced on the pipe sends into nothing.
        """
        self._check_sender()
        ended = self._eof is not None
        room = len(data) if ended else self.link.buffer - self.held
        if room <= 0 and data:
            raise trio.WouldBlock
        taken = min(len(data), room)
        piece = self._watch(bytes(data) if taken == len(data) else bytes(memoryview(data)[:taken]))
        # The watcher may have ended this very connection.
        self._check_sender()
        self.sent += taken
        if piece and not ended:
            self._put(piece)
        return taken

    def _check_sender(self) -> None:
        if self._broken is not None:
            raise trio.BrokenResourceError(self._broken)
        if self._arrived(self._reader_gone):
            raise trio.BrokenResourceError("the other end was closed")

    def _put(self, piece: bytes) -> None:
        self.held += len(piece)
        link = self.link
        if self._reader_gone is not None:
            return  # its way leads nowhere, which the sender has not heard yet
        if link.instant and not self._pieces:
            self._pieces.append((-math.inf, piece))
        elif link.rate == math.inf and not link.loss:
            self._pieces.append((self._arrival(len(piece)), piece))
        else:
            for start in range(0, len(piece), SEGMENT):
                part = piece[start : start + SEGMENT]
                self._pieces.append((self._arrival(len(part)), part))
        self._wake_reader()

    def _arrival(self, size: int) -> float:
        link, now = self.link, trio.current_time()
        self._free_at = max(now, self._free_at) + size / link.rate
        delay = link.latency + link.retransmissions(self._rng)
        if link.jitter:
            delay += self._rng.random() * link.jitter
        self._arrived_last = max(self._arrived_last, self._free_at + delay)
        return self._arrived_last

    def send_eof(self) -> None:
        """Let the reader see the end behind all data."""
        if self._eof is None:
            self._eof = -math.inf if self.link.instant and not self._pieces else self._arrival(0)
            self._wake_reader()

    async def wait_writable(self) -> None:
        """Wait until there is room, or nothing will make any."""
        while self._broken is None and self._eof is None and self.held >= self.link.buffer:
            deadline = self._reader_gone
            if self._arrived(deadline):
                return
            if self._write_task is not None:
                raise trio.BusyResourceError("another task is waiting to send")
            self._write_task = current_task()
            await _park(self._abort_write, deadline)

    def _abort_write(self, _: RaiseCancelT) -> Abort:
        self._write_task = None
        return Abort.SUCCEEDED

    # --- receiving

    def receive_into_nowait(self, buffer: memoryview) -> int:
        """Fill ``buffer`` from its start; 0 at the end. Raises WouldBlock, or BrokenResourceError."""
        filled, room = 0, len(buffer)
        while filled < room:
            try:
                piece = self.take(room - filled)
            except trio.WouldBlock:
                if not filled:
                    raise
                break
            if not piece:
                break
            buffer[filled : filled + len(piece)] = piece
            filled += len(piece)
        return filled

    def take(self, max_bytes: int) -> bytes:
        """The next piece, ``b""`` at the end. Raises WouldBlock, or BrokenResourceError."""
        if self._broken is not None:
            raise trio.BrokenResourceError(self._broken)
        if not self._arrived(self._next_time()):
            raise trio.WouldBlock
        if not self._pieces:
            return b""
        arrival, piece = self._pieces[0]
        if len(piece) > max_bytes:
            self._pieces[0] = (arrival, piece[max_bytes:])
            piece = piece[:max_bytes]
        else:
            self._pieces.popleft()
        self.held -= len(piece)
        self._wake_writer()
        return piece

    def _next_time(self) -> float | None:
        """When the next piece, or the end, arrives; None while nothing is under way."""
        if self._stalled:
            return None
        return self._pieces[0][0] if self._pieces else self._eof

    @staticmethod
    def _arrived(when: float | None) -> bool:
        return when is not None and (when == -math.inf or when <= trio.current_time())

    async def wait_readable(self) -> None:
        """Wait until something has arrived, or nothing will."""
        while self._broken is None and self._reader_gone is None:
            when = self._next_time()
            if self._arrived(when):
                return
            if self._read_task is not None:
                raise trio.BusyResourceError("another task is waiting to receive")
            self._read_task = current_task()
            await _park(self._abort_read, when)

    def _abort_read(self, _: RaiseCancelT) -> Abort:
        self._read_task = None
        return Abort.SUCCEEDED

    # --- ends and faults

    def close_reader(self) -> None:
        """The reader is gone: what is under way is lost, and the sender learns of it."""
        if self._reader_gone is None:
            self._reader_gone = math.inf if self._stalled else self._earliest()
            self._pieces.clear()
            self.held = 0
            self._wake_reader()
            self._wake_writer()

    def close_sender(self) -> None:
        """The sender closed: as an end, and whoever waits to send wakes up."""
        self.send_eof()
        self._wake_writer()

    def reset(self, reason: str) -> None:
        """Break it, for both."""
        if self._broken is None:
            self._broken = reason
            self._pieces.clear()
            self.held = 0
            self._wake_reader()
            self._wake_writer()

    def stall(self) -> None:
        """Let nothing arrive any more."""
        self._stalled = True

    def resume(self) -> None:
        """End a stall. What was under way arrives one latency from now."""
        if self._stalled:
            self._stalled = False
            earliest = self._earliest()
            self._pieces = deque((max(arrival, earliest), piece) for arrival, piece in self._pieces)
            if self._eof is not None:
                self._eof = max(self._eof, earliest)
            if self._reader_gone == math.inf:
                self._reader_gone = earliest
            self._arrived_last = max(self._arrived_last, earliest)
            self._wake_reader()
            self._wake_writer()

    def _earliest(self) -> float:
        return trio.current_time() + self.link.latency if self.link.latency else -math.inf

    def _wake_reader(self) -> None:
        if self._read_task is not None and _in_task(self._wake_reader):
            task, self._read_task = self._read_task, None
            reschedule(task)

    def _wake_writer(self) -> None:
        if self._write_task is not None and _in_task(self._wake_writer):
            task, self._write_task = self._write_task, None
            reschedule(task)


def _in_task(wake: Callable[[], None]) -> bool:
    """Whether some task is running. When none is, ``wake`` is called again from one.

    An instrument may write too, as one may write to a socket from there; but a task that is made runnable when Trio
    has decided how long to wait for events would run only after that.
    """
    try:
        current_task()
    except RuntimeError:
        current_trio_token().run_sync_soon(wake)
        return False
    return True


async def _park(abort: Callable[[RaiseCancelT], Abort], deadline: float | None) -> None:
    if deadline is None:
        await wait_task_rescheduled(abort)
    else:
        with trio.CancelScope(deadline=deadline):
            await wait_task_rescheduled(abort)
