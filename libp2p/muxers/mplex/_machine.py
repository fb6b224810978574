"""mplex without input and output (mplex specification, ``/mplex/6.7.0``).

Theory of operation
===================

mplex has frames and streams, and nothing else: no flow control, no ping, no farewell. What the other muxers get from
those has to come from bounds here:

* Above ``pause_above`` the owner leaves the socket alone for a moment, so that a reader that is merely slower than
  the network loses nothing. That holds up the other streams, too, so it has an end: a stream nobody reads is reset
  when it holds ``max_stream_buffered``. All streams together have ``max_buffered``.
* ``send_credit`` is one message, always. How fast to send is up to the socket's back-pressure.
* ``ping`` and ``go_away`` put nothing on the wire; there are no timeouts. A dead peer is noticed by others.

**Streams** are told apart by a key, see the codec; the key is the ``stream_id`` of this machine. NewStream is queued
when a stream is opened. An id may be used again once its stream is gone. States are in the table of the module
``muxers._table``, with Close for *fin*; a Reset of either side frees at once.

**After a local close** data is discarded, up to ``max_drain``; more shows that the peer is still writing and did not
take the hint, and it is told by a reset.

**Frames of unknown streams** are ignored, payload included, and charged as frames without progress, except what a
stream that was reset or refused here may have had under way.

**What costs the peer the connection:** a malformed varint; a flag above 6; a message above 1 MiB; NewStream with an id
that is in use; too many refused streams, resets, or frames without progress.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...errors import DecodeError, LocalProtocolError, RemoteProtocolError
from ...wire import varint
from .._machine import JOIN_BELOW, DataReceived, MuxEvent, StreamOpened
from .._table import MuxLimits, StreamEntry, StreamTable
from ._codec import (
    CLOSE_INITIATOR,
    CLOSE_RECEIVER,
    MAX_ID,
    MAX_MESSAGE,
    MESSAGE_INITIATOR,
    MESSAGE_RECEIVER,
    NEW_STREAM,
    RESET_INITIATOR,
    RESET_RECEIVER,
    decode_header,
    encode_head,
)

if TYPE_CHECKING:
    from ...abc import Buffer

__all__ = ["MplexConfig", "MplexMachine"]


@dataclass(frozen=True, slots=True, kw_only=True)
class MplexConfig(MuxLimits):
    """Bounds of one mplex connection. Sizes in bytes."""

    max_stream_buffered: int = 4 * 1024 * 1024
    """Bytes delivered and not consumed on one stream; above it, the stream is reset. It is four of the longest
    messages, and the window an honest yamux stream would have earned."""
    pause_above: int = 1024 * 1024
    """Without flow control a fast sender is ahead of any reader; this much ahead, and the socket holds it back."""
    max_drain: int = 256 * 1024
    """Bytes that may come for a stream closed here before the peer is told by a reset: yamux's first window."""

    def __post_init__(self) -> None:
        MuxLimits.__post_init__(self)
        if self.max_frame > MAX_MESSAGE:
            raise ValueError("max_frame is at most 1 MiB")
        if not self.max_stream_buffered > 0:
            raise ValueError("max_stream_buffered must be positive")
        if not self.max_drain >= 0:
            raise ValueError("max_drain must not be negative")


class MplexStream(StreamEntry):
    """One stream."""

    __slots__ = ("head",)

    def __init__(self, key: int, *, inbound: bool) -> None:
        super().__init__(key, inbound=inbound, plain=True)
        self.head = encode_head(key, MESSAGE_RECEIVER)
        """The first varint of our messages on it."""


class MplexMachine(StreamTable[MplexStream]):
    """One side of an mplex connection; implements :class:`libp2p.muxers._machine.MuxMachine`. Both sides are alike."""

    __slots__ = ("_config",)

    def __init__(self, config: MplexConfig) -> None:
        super().__init__(config, first_id=1, max_id=MAX_ID << 1 | 1, max_held=config.max_stream_buffered)
        self._config = config

    # --- inputs from the world ----------------------------------------------------------------------------------------

    def handle_timeout(self, now: float) -> list[MuxEvent]:
        """Nothing ever is due. See :meth:`MuxMachine.handle_timeout`."""
        self._check_alive()
        return []

    def next_timeout(self) -> float | None:
        """None. See :meth:`MuxMachine.next_timeout`."""
        return None

    def _parse(self, data: bytes, events: list[MuxEvent]) -> None:
        pos = self._more_body(data, 0, events) if self._left else 0
        if self._partial:
            data = self._partial + data[pos:]
            self._partial = b""
            pos = 0
        get = self._streams.get
        max_buffered, max_held = self._limits.max_buffered, self._max_held
        size = len(data)
        while pos < size:
            try:
                header = decode_header(data, pos)
            except DecodeError as exc:
                raise RemoteProtocolError(f"malformed frame header: {exc}") from exc
            if header is None:
                self._partial = data[pos:]
                return
            head, length, pos = header
            flag = head & 7
            key = head >> 3 << 1 | head & 1
            stream = get(key)
            stop = pos + length
            # Flags 1 and 2 are messages.
            if stream is None or not 0 < flag < 3 or not stream.plain or stop > size or not length:
                pos = self._on_frame(data, pos, stream, flag, key, length, events)
                continue
            if length > MAX_MESSAGE:
                raise RemoteProtocolError(f"a message of {length} bytes")
            stream.buffered += length
            self._buffered += length
            events.append(DataReceived(key, data[pos:stop]))
            pos = stop
            if self._buffered > max_buffered or stream.buffered > max_held:
                self._shed(stream, events)

    def _on_frame(
        self, data: bytes, pos: int, stream: MplexStream | None, flag: int, key: int, length: int,
        events: list[MuxEvent],
    ) -> int:  # fmt: skip
        """Handle a frame whose payload begins at ``pos``; return where what follows begins."""
        if length > MAX_MESSAGE:
            raise RemoteProtocolError(f"a message of {length} bytes")
        self._left = length
        self._body = None
        if flag == NEW_STREAM:
            if stream is not None:
                raise RemoteProtocolError(f"stream {key >> 1} is opened twice")
            if self._add_inbound(key) is not None:
                events.append(StreamOpened(key))
        elif flag > RESET_INITIATOR:
            raise RemoteProtocolError(f"unknown flag {flag}")
        elif stream is None:
            self._on_late(length)
        elif flag <= MESSAGE_INITIATOR:
            self._body = self._accept(stream, length, events)
        elif flag <= CLOSE_INITIATOR:
            self._on_fin(stream, events)
        else:
            self._on_reset(stream, 0, events)
        return self._more_body(data, pos, events)

    def _accept(self, stream: MplexStream, length: int, events: list[MuxEvent]) -> MplexStream | None:
        """Return the stream if it takes the bytes, None if they are discarded."""
        if not length:
            self._charge("an empty message")
        elif stream.fin_received:
            self._charge("a message behind the end of a stream")
        elif not stream.forgotten:
            return stream
        elif length > stream.drain:
            self._end(stream, 0, events)
        else:
            stream.drain -= length
        return None

    # --- commands -----------------------------------------------------------------------------------------------------

    def open_stream(self) -> int:
        """Queue NewStream, named by its number as go does it. See :meth:`MuxMachine.open_stream`."""
        stream = self._add_own()
        name = str(stream.id >> 1).encode()
        self._out.small.append(encode_head(stream.id, NEW_STREAM) + varint.encode(len(name)) + name)
        return stream.id

    def announce(self, stream_id: int) -> None:
        """Nothing: the peer knows. See :meth:`MuxMachine.announce`."""

    def acknowledge(self, stream_id: int) -> None:
        """Nothing: mplex does not acknowledge. See :meth:`MuxMachine.acknowledge`."""

    def send_credit(self, stream_id: int) -> int:
        """One message. See :meth:`MuxMachine.send_credit`."""
        stream = self._streams.get(stream_id)
        return 0 if stream is None or stream.fin_sent else MAX_MESSAGE

    def send_data(self, stream_id: int, data: Buffer) -> None:
        """Queue data. See :meth:`MuxMachine.send_data`."""
        stream = self._streams.get(stream_id)
        if stream is None or stream.fin_sent:
            raise LocalProtocolError(self._why_not_sendable(stream_id))
        size = len(data)
        if size > MAX_MESSAGE:
            raise LocalProtocolError(f"{size} bytes on stream {stream_id}, credit {MAX_MESSAGE}")
        out, most = self._out, self._limits.max_frame
        view = data if size <= most else memoryview(data)
        for start in range(0, size, most):
            piece = view if size <= most else view[start : start + most]
            length = len(piece)
            out.small.append(stream.head + varint.encode(length))
            if length < JOIN_BELOW:
                out.small.append(piece)
            else:
                out.append_large(piece)

    def send_eof(self, stream_id: int) -> None:
        """Send Close. See :meth:`MuxMachine.send_eof`."""
        stream = self._streams.get(stream_id)
        if stream is None or stream.fin_sent:
            raise LocalProtocolError(self._why_not_sendable(stream_id))
        self._out.small.append(encode_head(stream_id, CLOSE_RECEIVER) + b"\0")
        stream.fin_sent = True
        self._settle(stream)

    def reset(self, stream_id: int, code: int = 0) -> None:
        """Send Reset; mplex has no place for ``code``. See :meth:`MuxMachine.reset`."""
        stream = self._streams.get(stream_id)
        if stream is not None:
            self._tell_reset(stream, code)

    def consumed(self, stream_id: int, n: int, now: float) -> bool:
        """Make room. Never sends anything. See :meth:`MuxMachine.consumed`."""
        stream = self._streams.get(stream_id)
        if stream is None or stream.forgotten:
            return False
        if not 0 <= n <= stream.buffered:
            raise LocalProtocolError(f"{n} bytes consumed of {stream.buffered} on stream {stream_id}")
        stream.buffered -= n
        self._buffered -= n
        return False

    def forget(self, stream_id: int, now: float) -> None:
        """Close for reading. See :meth:`MuxMachine.forget`."""
        stream = self._streams.get(stream_id)
        if stream is None or stream.forgotten:
            return
        self._take_off(stream)
        stream.drain = self._config.max_drain
        self._settle(stream)

    def ping(self, now: float) -> None:
        """Nothing: mplex has no ping. See :meth:`MuxMachine.ping`."""

    def go_away(self, code: int = 0) -> None:
        """Open no more streams and refuse those of the peer, without a word. See :meth:`MuxMachine.go_away`."""
        self._local_gone = True

    # --- outputs ------------------------------------------------------------------------------------------------------

    def data_to_send(self) -> list[Buffer]:
        """Take what is queued. See :meth:`MuxMachine.data_to_send`."""
        self._refused = 0
        return self._out.drain()

    # --- what the table asks for --------------------------------------------------------------------------------------

    def _new_entry(self, stream_id: int, *, inbound: bool) -> MplexStream:
        return MplexStream(stream_id, inbound=inbound)

    def _queue_reset(self, stream_id: int, code: int) -> None:
        self._out.small.append(encode_head(stream_id, RESET_RECEIVER) + b"\0")

    def _late_bytes(self, stream: MplexStream) -> int:
        return self._config.max_stream_buffered

    def _late_for_new(self) -> int:
        return self._config.max_stream_buffered
