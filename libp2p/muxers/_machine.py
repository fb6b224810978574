"""What a muxer machine looks like from outside, and two small parts that all of them share.

A muxer machine is one connection's multiplexing without any input or output: bytes of the peer go in, events come out;
commands of the owner go in, bytes for the peer come out. It knows no clock: ``now`` is a parameter, in seconds of any
clock that only moves forward.

Rules for the owner:

* ``receive_data`` and ``handle_timeout`` raise :class:`~libp2p.errors.RemoteProtocolError` only. The machine is dead
  then. It may have queued a last word for the peer: take :meth:`MuxMachine.data_to_send` once more, send it if that
  works at once, and drop the connection.
* Commands raise :class:`~libp2p.errors.LocalProtocolError` only, and then have changed nothing. On a stream that is
  gone, ``send_data`` and ``send_eof`` raise; the others do nothing, because the peer may end a stream at any moment.
* Events are a history, in order: when the first of a list is handled, the machine is past the last. A stream that has
  just got credit may be gone by a reset further down the list.
* After any call there may be output (:attr:`MuxMachine.has_output`). Take it only when the last output is on its way:
  the bound on queued replies works only while replies wait in the machine.
* A stream's state is freed when the peer has finished, ``send_eof`` and ``forget`` were called, or either side reset
  it. Its id then means nothing here any more.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from ..abc import Buffer

JOIN_BELOW = 16 * 1024
"""Payloads shorter than this are copied next to their headers, longer ones stay where they are. Copying 16 KiB costs
about as much as handling one more buffer in the layers below."""

RESOURCE_LIMIT = 0x1002
"""Stream error code: a limit was reached (libp2p connections specification, error codes)."""
SHUTDOWN = 0x1007
"""Stream error code: the connection is being shut down."""


# --- events: mutable for speed (a frozen dataclass costs three times as much), never changed by convention ------------


@dataclass(slots=True)
class StreamOpened:
    """The peer opened a stream."""

    stream_id: int


@dataclass(slots=True)
class DataReceived:
    """Bytes arrived on a stream: part of a frame or all of it, never empty."""

    stream_id: int
    data: bytes


@dataclass(slots=True)
class EofReceived:
    """The peer will send no more on this stream."""

    stream_id: int


@dataclass(slots=True)
class ResetReceived:
    """A stream ended at once, in both directions; its state is gone.

    ``remote`` is False when this machine ended it to keep a limit; the peer has been told with ``code``.
    """

    stream_id: int
    code: int
    remote: bool = True


@dataclass(slots=True)
class CreditReceived:
    """The send credit of a stream was 0 and is more now."""

    stream_id: int


@dataclass(slots=True)
class OpenCredit:
    """``can_open`` was False and is True again."""


@dataclass(slots=True)
class PongReceived:
    """The peer answered a ping after ``rtt`` seconds."""

    rtt: float


@dataclass(slots=True)
class GoAwayReceived:
    """The peer takes and opens no more streams. Streams that are open go on."""

    code: int


MuxEvent: TypeAlias = (
    StreamOpened
    | DataReceived
    | EofReceived
    | ResetReceived
    | CreditReceived
    | OpenCredit
    | PongReceived
    | GoAwayReceived
)


class MuxMachine(Protocol):
    """One connection's streams, without input and output."""

    # --- inputs from the world ---

    def receive_data(self, data: bytes | memoryview, now: float) -> list[MuxEvent]:
        """Take bytes of the peer, in pieces of any size, and say what they mean.

        ``bytes`` that lie wholly inside one payload come out again uncopied, as the very same object.

        Raises:
            RemoteProtocolError: the peer broke the rules; the machine is dead.
        """
        ...

    def handle_timeout(self, now: float) -> list[MuxEvent]:
        """Do what is due. Harmless when nothing is.

        Raises:
            RemoteProtocolError: the peer does not answer; the machine is dead.
        """
        ...

    def next_timeout(self) -> float | None:
        """When to call :meth:`handle_timeout`, or None. It may have moved on by then; 0.0 means at once."""
        ...

    # --- commands ---

    @property
    def can_open(self) -> bool:
        """Whether :meth:`open_stream` would succeed. Look again after ``reset`` and ``forget``: no event tells."""
        ...

    @property
    def refusal(self) -> str | None:
        """Why :meth:`open_stream` would raise, one of the ``REFUSED_`` texts, or None."""
        ...

    def open_stream(self) -> int:
        """Open a stream and return its id. The peer learns with the first frame; see :meth:`announce`."""
        ...

    def announce(self, stream_id: int) -> None:
        """Tell the peer about a stream opened here now, if no frame has."""
        ...

    def acknowledge(self, stream_id: int) -> None:
        """Tell the peer that its stream was accepted now, if no frame has."""
        ...

    def send_credit(self, stream_id: int) -> int:
        """How many bytes :meth:`send_data` takes now; 0 for a stream that is gone or finished here."""
        ...

    def send_data(self, stream_id: int, data: Buffer) -> None:
        """Queue ``data``, at most :meth:`send_credit` bytes. It is not copied: leave it alone until it is drained."""
        ...

    def send_eof(self, stream_id: int) -> None:
        """Finish sending on a stream."""
        ...

    def reset(self, stream_id: int, code: int = 0) -> None:
        """End a stream in both directions at once."""
        ...

    def consumed(self, stream_id: int, n: int, now: float) -> bool:
        """The application took ``n`` of the bytes delivered. True when the peer gets more credit for it."""
        ...

    def forget(self, stream_id: int, now: float) -> None:
        """Nothing more will be consumed: the stream is closed for reading.

        What was delivered and not consumed counts as discarded, and the peer gets its credit back, so that a blocked
        sender moves and can learn. What it may have had under way is discarded too; when it sends yet more, it is
        told by a reset. No data or end is reported for the stream any more, and no reset either once
        :meth:`send_eof` was called.
        """
        ...

    def ping(self, now: float) -> None:
        """Measure the round trip, unless that is under way."""
        ...

    def go_away(self, code: int = 0) -> None:
        """Tell the peer to open no more streams, and open none here. Streams that are open go on. Idempotent."""
        ...

    # --- outputs ---

    def data_to_send(self) -> list[Buffer]:
        """Take everything queued, in order. Payloads of ``JOIN_BELOW`` and more are separate, the rest is joined."""
        ...

    @property
    def has_output(self) -> bool:
        """Whether :meth:`data_to_send` would return anything."""
        ...

    # --- getters ---

    @property
    def going_away(self) -> bool:
        """Whether either side said that it goes away, or the machine is dead."""
        ...

    @property
    def stream_count(self) -> int:
        """Streams that still have state here, including those that only wait for the peer to finish."""
        ...

    @property
    def inbound_count(self) -> int:
        """Streams of the peer that are in use here: not yet both finished and forgotten."""
        ...

    @property
    def outbound_count(self) -> int:
        """Streams opened here that are in use here: not yet both finished and forgotten."""
        ...

    @property
    def buffered(self) -> int:
        """Bytes delivered and not consumed, over all streams."""
        ...

    @property
    def pause_above(self) -> int:
        """Above so many :attr:`buffered` bytes the owner reads no more for a moment, so that readers catch up."""
        ...


REFUSED_DEAD = "the connection is dead"
REFUSED_GOING_AWAY = "the connection is going away"
REFUSED_EXHAUSTED = "all stream ids of the connection are used up"
REFUSED_STREAMS = "too many streams are open"
REFUSED_BACKLOG = "too many streams wait for the peer to accept them"
"""The only refusal that is worth waiting for: :class:`OpenCredit` tells when it is over."""


class Outbox:
    """Frames on their way out, in order.

    ``small`` holds pieces that are to be joined: append headers and short payloads there.
    """

    __slots__ = ("_ready", "small")

    def __init__(self) -> None:
        self.small: list[Buffer] = []
        self._ready: list[Buffer] = []

    def append_large(self, payload: Buffer) -> None:
        """Queue a payload that is worth its own buffer, behind all that is queued."""
        if self.small:
            self._ready.append(b"".join(self.small))
            self.small.clear()
        self._ready.append(payload)

    def drain(self) -> list[Buffer]:
        """Take everything."""
        ready = self._ready
        if self.small:
            ready.append(b"".join(self.small))
            self.small.clear()
        if ready:
            self._ready = []
        return ready

    def __bool__(self) -> bool:
        return bool(self.small) or bool(self._ready)
