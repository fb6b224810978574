"""The streams of a muxed connection, their counts, and the budgets the peer lives on. Pure; for muxer machines only.

Everything here is the same for all muxers: which streams there are and which of them linger, what is buffered, what a
peer may cost, where the current payload goes, and what it means to be dead. A machine adds its frames.

A stream's life, the same for all muxers:

| fin_sent | fin_received | forgotten | meaning |
| --- | --- | --- | --- |
| no | no | no | open |
| yes | no | no | half-closed here: still read |
| no | yes | no | half-closed there: still written, what is buffered is read |
| yes | yes | no | finished; what is buffered is still read |
| no | any | yes | closed for reading, still written |
| yes | no | yes | *lingering*: nobody uses it here, the peer owes its end; not counted as in use |
| yes | yes | yes | freed |

Reset by either side: freed at once, from every state.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from operator import attrgetter
from typing import Generic, TypeVar

from .._util.rate import Budget
from ..errors import LocalProtocolError, RemoteProtocolError
from ._machine import (
    REFUSED_DEAD,
    REFUSED_EXHAUSTED,
    REFUSED_GOING_AWAY,
    REFUSED_STREAMS,
    RESOURCE_LIMIT,
    SHUTDOWN,
    DataReceived,
    EofReceived,
    MuxEvent,
    OpenCredit,
    Outbox,
    ResetReceived,
)

LATE_FRAME = 32
"""What a late frame costs at least of the allowance for late bytes."""
LATE_AFTER_RESET = 8 * LATE_FRAME
"""Frames without data the peer may have had under way for a stream reset here: ACK, updates, FIN, RST."""
LATE_AFTER_END = 2 * LATE_FRAME
"""The same for a stream that ended in order: a window update for data that was read late."""
MAX_LATE = 64 * 1024 * 1024
"""Ceiling of the allowance."""
REFUSALS_PER_SECOND = 1_000
"""Streams that may be refused in the long run; see ``max_refusals``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MuxLimits:
    """What every muxer machine bounds. Sizes in bytes, times in seconds."""

    max_buffered: int = 32 * 1024 * 1024
    """Bytes delivered and not consumed, over all streams. Above it, the stream that holds most is reset."""
    pause_above: int = 16 * 1024 * 1024
    """Bytes delivered and not consumed above which the owner reads no more for a moment."""
    max_frame: int = 256 * 1024
    """Payload of the data frames sent: a stream's turn, so that it costs one header. Go sends 65524, rust takes 1 MiB.
    Large payloads are encrypted and delivered record by record, so that the size costs no copy."""
    max_inbound: int = 256
    """Streams of the peer in use at once. More are refused with a reset, one by one (go, js)."""
    max_outbound: int = 512
    """Own streams in use at once."""
    max_streams: int = 512
    """Streams in use at once up to which own ones are opened: a rust peer ends the connection at its 513th."""
    max_lingering: int = 512
    """Streams finished and forgotten here whose end the peer owes. Above it, the oldest is reset."""
    max_refusals: int = 16_384
    """Streams refused at once, then 1,000 a second. Many, because an honest peer cannot know our limits; bounded,
    because each refusal is a reply that waits to be sent."""
    max_resets: int = 1_000
    """Streams the peer opens and resets within ``reset_period`` (rapid reset, CVE-2023-44487)."""
    reset_period: float = 10.0
    """See ``max_resets``."""
    max_idle_frames: int = 1_000
    """Frames a second that bring nothing: empty data, pings, unasked pongs, updates without credit, frames of unknown
    streams. Twice as many may come at once."""

    def __post_init__(self) -> None:
        for name in MuxLimits.__slots__:
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive")


class StreamEntry:
    """One stream. The legal combinations of its flags are in the table above."""

    __slots__ = ("buffered", "drain", "fin_received", "fin_sent", "forgotten", "id", "inbound", "plain")

    def __init__(self, stream_id: int, *, inbound: bool, plain: bool) -> None:
        self.id = stream_id
        self.inbound = inbound
        self.plain = plain
        """Its data needs no thought: the peer knows the stream, has not finished, and somebody reads here."""
        self.buffered = 0
        """Bytes delivered and not consumed."""
        self.drain = 0
        """Bytes the peer may send, after the stream was forgotten, before it is told by a reset."""
        self.fin_sent = False
        self.fin_received = False
        self.forgotten = False


EntryT = TypeVar("EntryT", bound=StreamEntry)

_held = attrgetter("buffered")


class StreamTable(ABC, Generic[EntryT]):
    """Streams by id, and all that is counted over them."""

    __slots__ = (
        "_body",
        "_buffered",
        "_failure",
        "_fin",
        "_full",
        "_idle",
        "_inbound",
        "_late",
        "_left",
        "_limits",
        "_lingering",
        "_local_gone",
        "_max_held",
        "_max_id",
        "_next_id",
        "_now",
        "_out",
        "_outbound",
        "_partial",
        "_refusals",
        "_refused",
        "_remote_gone",
        "_resets",
        "_streams",
    )

    def __init__(self, limits: MuxLimits, *, first_id: int, max_id: int, max_held: int) -> None:
        self._limits = limits
        self._out = Outbox()
        # The parser's place in the bytes of the peer.
        self._partial = b""  # the start of a header
        self._left = 0  # payload bytes to come of the current frame,
        self._body: EntryT | None = None  # the stream that takes them, None to discard them,
        self._fin: EntryT | None = None  # and the stream that ends behind them
        # Streams.
        self._streams: dict[int, EntryT] = {}
        self._lingering: dict[int, None] = {}  # finished and forgotten here, oldest first
        self._next_id = first_id
        self._max_id = max_id
        self._max_held = max_held
        self._inbound = self._outbound = 0  # in use: without the lingering
        self._buffered = 0
        self._full = False  # open_stream was refused: an OpenCredit is owed
        # The connection.
        self._failure: str | None = None
        self._local_gone = self._remote_gone = False
        self._now = 0.0
        # What the peer may cost.
        self._refused = 0  # refusals queued since the last drain
        self._late = 0  # bytes that may still come for streams that are gone
        self._idle = Budget(limits.max_idle_frames, limits.max_idle_frames * 2)
        self._resets = Budget(limits.max_resets / limits.reset_period, limits.max_resets)
        self._refusals = Budget(REFUSALS_PER_SECOND, limits.max_refusals)

    # --- what a machine adds ------------------------------------------------------------------------------------------

    @abstractmethod
    def _parse(self, data: bytes, events: list[MuxEvent]) -> None:
        """Read frames."""

    @abstractmethod
    def _new_entry(self, stream_id: int, *, inbound: bool) -> EntryT:
        """State of a new stream."""

    @abstractmethod
    def _queue_reset(self, stream_id: int, code: int) -> None:
        """Queue the frame that resets a stream."""

    @abstractmethod
    def _late_bytes(self, stream: EntryT) -> int:
        """How much data the peer may have under way for ``stream``."""

    @abstractmethod
    def _late_for_new(self) -> int:
        """How much data may be under way for a stream the peer has just opened."""

    def _known(self, stream: EntryT) -> bool:
        """Whether the peer was told about ``stream``."""
        return True

    def _crowded(self) -> str | None:
        """The limit that forbids another own stream for the time being."""
        limits = self._limits
        if self._outbound >= limits.max_outbound or len(self._streams) - len(self._lingering) >= limits.max_streams:
            return REFUSED_STREAMS
        return None

    # --- inputs -------------------------------------------------------------------------------------------------------

    def receive_data(self, data: bytes | memoryview, now: float) -> list[MuxEvent]:
        """Take bytes of the peer. See :meth:`MuxMachine.receive_data`."""
        self._check_alive()
        if type(data) is not bytes:
            data = bytes(data)
        self._now = now
        events: list[MuxEvent] = []
        try:
            self._parse(data, events)
        except RemoteProtocolError as exc:
            self._fail(str(exc))
            raise
        if self._full and self.can_open:
            self._full = False
            events.append(OpenCredit())
        return events

    def _check_alive(self) -> None:
        if self._failure is not None:
            raise RemoteProtocolError(f"the connection is dead: {self._failure}")

    def _fail(self, reason: str) -> None:
        """The machine is dead."""
        self._failure = reason
        self._streams.clear()
        self._lingering.clear()
        self._inbound = self._outbound = self._buffered = 0

    # --- payloads ---

    def _more_body(self, data: bytes, pos: int, events: list[MuxEvent]) -> int:
        """Take what is there of the current payload; return where what follows begins."""
        left = self._left
        stop = pos + left
        if stop > len(data):
            stop = len(data)
        taken = stop - pos
        self._left = left - taken
        stream = self._body
        if stream is not None and taken:
            stream.buffered += taken
            self._buffered += taken
            # A chunk that is all payload goes on as it is; a slice of all of it might be a copy.
            events.append(DataReceived(stream.id, data if taken == len(data) else data[pos:stop]))
            if self._buffered > self._limits.max_buffered or stream.buffered > self._max_held:
                self._shed(stream, events)
        if taken == left:
            self._body = None
            stream = self._fin
            if stream is not None:
                self._fin = None
                self._on_fin(stream, events)
        return stop

    def _on_fin(self, stream: EntryT, events: list[MuxEvent]) -> None:
        """The peer has finished ``stream``."""
        if stream.fin_received:
            self._charge("a second end of a stream")
            return
        stream.fin_received = True
        stream.plain = False
        if not stream.forgotten:
            events.append(EofReceived(stream.id))
        elif stream.fin_sent:
            self._free(stream, LATE_AFTER_END)

    def _shed(self, stream: EntryT, events: list[MuxEvent]) -> None:
        """``stream`` overflowed its own bound or that of all: reset it, or the one that holds most.

        Not simply the one that brought the last drop: a stream that is read holds little and should live.
        """
        if stream.buffered <= self._max_held:
            stream = max(self._streams.values(), key=_held)
        self._end(stream, RESOURCE_LIMIT, events)

    # --- getters ------------------------------------------------------------------------------------------------------

    @property
    def refusal(self) -> str | None:
        """Why ``open_stream`` would raise, or None."""
        if self._failure is not None:
            return REFUSED_DEAD
        if self._local_gone or self._remote_gone:
            return REFUSED_GOING_AWAY
        if self._next_id > self._max_id:
            return REFUSED_EXHAUSTED
        return self._crowded()

    @property
    def can_open(self) -> bool:
        """Whether ``open_stream`` would succeed."""
        return self.refusal is None

    @property
    def going_away(self) -> bool:
        """Whether either side said that it goes away, or the machine is dead."""
        return self._local_gone or self._remote_gone or self._failure is not None

    @property
    def stream_count(self) -> int:
        """Streams in the table, lingering ones included."""
        return len(self._streams)

    @property
    def inbound_count(self) -> int:
        """Streams of the peer in use here."""
        return self._inbound

    @property
    def outbound_count(self) -> int:
        """Own streams in use here."""
        return self._outbound

    @property
    def buffered(self) -> int:
        """Bytes delivered and not consumed."""
        return self._buffered

    @property
    def pause_above(self) -> int:
        """See :attr:`MuxMachine.pause_above`."""
        return self._limits.pause_above

    @property
    def has_output(self) -> bool:
        """Whether anything is queued."""
        return bool(self._out)

    # --- entries ------------------------------------------------------------------------------------------------------

    def _add_own(self) -> EntryT:
        refusal = self.refusal
        if refusal is not None:
            self._full = True
            raise LocalProtocolError(refusal)
        if len(self._streams) >= self._limits.max_streams:
            self._evict()
        stream_id = self._next_id
        self._next_id += 2
        self._outbound += 1
        return self._add(stream_id, inbound=False)

    def _add_inbound(self, stream_id: int) -> EntryT | None:
        """A new stream of the peer; None when it is refused."""
        if self._local_gone or self._inbound >= self._limits.max_inbound:
            self._refuse(stream_id)
            return None
        self._inbound += 1
        return self._add(stream_id, inbound=True)

    def _add(self, stream_id: int, *, inbound: bool) -> EntryT:
        stream = self._streams[stream_id] = self._new_entry(stream_id, inbound=inbound)
        return stream

    def _free(self, stream: EntryT, late: int = 0) -> None:
        """Drop all state of ``stream``. ``late`` bytes may still come for it."""
        del self._streams[stream.id]
        if stream.id in self._lingering:
            del self._lingering[stream.id]
        else:
            self._leave(stream)
        self._buffered -= stream.buffered
        stream.buffered = 0
        if self._body is stream:
            self._body = None
        if self._fin is stream:
            self._fin = None
        self._late = min(self._late + late, MAX_LATE)

    def _leave(self, stream: EntryT) -> None:
        if stream.inbound:
            self._inbound -= 1
        else:
            self._outbound -= 1

    def _settle(self, stream: EntryT) -> None:
        """After ``fin_sent`` or ``forgotten`` became true: free the stream, or let it linger."""
        if not (stream.fin_sent and stream.forgotten):
            return
        if stream.fin_received:
            self._free(stream, LATE_AFTER_END)
            return
        self._leave(stream)
        self._lingering[stream.id] = None
        if len(self._lingering) > self._limits.max_lingering:
            self._evict()

    def _evict(self) -> None:
        """Reset the stream that waits longest for the peer to finish. There is one: callers made sure."""
        self._tell_reset(self._streams[next(iter(self._lingering))], 0)

    def _tell_reset(self, stream: EntryT, code: int) -> None:
        """Reset ``stream``, and tell the peer if it knows the stream."""
        if self._known(stream):
            self._queue_reset(stream.id, code)
        self._free(stream, self._late_bytes(stream) + LATE_AFTER_RESET)

    def _end(self, stream: EntryT, code: int, events: list[MuxEvent]) -> None:
        """Reset ``stream`` on our own account, and tell both sides."""
        self._tell_reset(stream, code)
        if not (stream.forgotten and stream.fin_sent):
            events.append(ResetReceived(stream.id, code, remote=False))

    def _on_reset(self, stream: EntryT, code: int, events: list[MuxEvent]) -> None:
        """The peer has reset ``stream``."""
        if stream.inbound:
            self._count_reset()
        self._free(stream)
        if not (stream.forgotten and stream.fin_sent):
            events.append(ResetReceived(stream.id, code))

    def _take_off(self, stream: EntryT) -> int:
        """``stream`` is closed for reading. Return how many bytes are discarded by that."""
        discarded = stream.buffered
        if self._body is stream:
            discarded += self._left
            self._body = None
        self._buffered -= stream.buffered
        stream.buffered = 0
        stream.forgotten = True
        stream.plain = False
        return discarded

    def _why_not_sendable(self, stream_id: int) -> str:
        if self._failure is not None:
            return f"the connection is dead: {self._failure}"
        if stream_id in self._streams:
            return f"stream {stream_id} is finished for sending"
        return f"there is no stream {stream_id}"

    # --- budgets ------------------------------------------------------------------------------------------------------

    def _charge(self, what: str) -> None:
        """Count a frame without progress."""
        if not self._idle.charge(self._now):
            raise RemoteProtocolError(f"too many frames without progress; the last was {what}")

    def _count_reset(self) -> None:
        if not self._resets.charge(self._now):
            raise RemoteProtocolError("too many streams opened and reset")

    def _on_late(self, length: int) -> None:
        """A frame of a stream that is not in the table, with ``length`` bytes of payload."""
        cost = max(length, LATE_FRAME)
        if cost <= self._late:
            self._late -= cost
        else:
            self._charge("of an unknown stream")

    def _refuse(self, stream_id: int) -> None:
        """Answer a stream of the peer with a reset, without creating it."""
        if self._refused >= self._limits.max_refusals or not self._refusals.charge(self._now):
            raise RemoteProtocolError("too many streams opened beyond the limit")
        self._refused += 1
        self._queue_reset(stream_id, SHUTDOWN if self._local_gone else RESOURCE_LIMIT)
        self._late = min(self._late + self._late_for_new() + LATE_AFTER_RESET, MAX_LATE)
