"""yamux without input and output (yamux specification, ``/yamux/1.0.0``).

Theory of operation
===================

**Receiving.** A connection is a sequence of frames: a header of 12 bytes and, for data frames, a payload. The parser
keeps at most 11 bytes of an incomplete header and never waits for a payload: what has come is delivered, the length
still to come and its stream are remembered. The common frame (data, no flags, all there, on a stream in its plain
state) is handled inside the loop of :meth:`YamuxMachine._parse`; everything else goes through a method.

**Order of checks.** Charge, check the whole header, and only then create state. A violation of the peer raises
``RemoteProtocolError`` out of ``receive_data``; the machine has then queued a GoAway with code 1, has dropped all
streams, and is dead. Events of the same call that came before the violation are lost with the connection.

**Sending.** Frames are queued in order; headers and short payloads are joined when they are drained. The first frame
of a stream carries its SYN or ACK, whatever frame that is. A reset is a window update with RST whose length is the
error code, as go sends it; an end is an empty data frame with FIN.

**A stream's life.** Its ends are in the table of the module ``muxers._table``; the windows are arithmetic (module
``_window``). What yamux adds is the opening:

| opened by | flags to send | unacked | meaning |
| --- | --- | --- | --- |
| us | SYN | yes | the peer does not know it yet: its frames for it are for an unknown stream |
| us | 0 | yes | announced; counts against ``ack_backlog``; any frame of the peer acknowledges |
| us | 0 | no | open |
| peer | ACK | no | open, the acceptance is not said yet |
| peer | 0 | no | open |

**After a local close** (forgotten) data is discarded, and counts as consumed so that a blocked sender moves. What the
peer had credit for at that moment may have been under way and is discarded silently, since a reset could destroy what
the peer has not read of ours; more than that proves it is still writing, and it is told by a reset.

**Frames of unknown streams** are ignored, payload included, as go, rust and js do, and are charged as frames without
progress. Streams that ended here grant the peer some such frames free of charge, for what was under way.

**Ids.** The peer's may be announced out of order (module ``_ids``), so a smaller id is an error only if it was used.
Ours are taken in order at ``open_stream`` and announced by their first frame, as rust does it.

**What costs the peer the connection:** unknown version, type or flag; a session frame on a stream or the reverse; a
stream id of our side or one used before; data beyond the window; credit beyond 2^32-1; too many unanswered pings,
refused streams, resets, or frames without progress; silence after a ping.
"""

from __future__ import annotations

from ...errors import RemoteProtocolError
from .._machine import (
    CreditReceived,
    DataReceived,
    GoAwayReceived,
    MuxEvent,
    PongReceived,
    StreamOpened,
)
from ._codec import (
    ACK,
    ALL_FLAGS,
    DATA,
    FIN,
    GO_AWAY,
    GO_AWAY_INTERNAL_ERROR,
    HEADER,
    HEADER_SIZE,
    INITIAL_WINDOW,
    MAX_U32,
    PING,
    RST,
    SYN,
    WINDOW_UPDATE,
)
from ._config import YamuxConfig
from ._ids import Claim
from ._sender import YamuxSender
from ._window import StreamState

__all__ = ["YamuxConfig", "YamuxMachine"]

SMALL_GRANT = 4096
"""A window update of less than this that raises the credit above the peer's window is a frame without progress. Honest
windows grow by doubling, while small updates give back small messages (js: one for each frame)."""
MAX_UNDER_WAY = 16 * 1024 * 1024
"""Bytes that are taken to be under way when a window grows (ours): the largest window of go and js."""

_pack = HEADER.pack
_unpack = HEADER.unpack_from


class YamuxMachine(YamuxSender):
    """One side of a yamux connection; implements :class:`libp2p.muxers._machine.MuxMachine`.

    Args:
        config: the bounds.
        client: whether this side dialled; its streams get odd ids.
    """

    __slots__ = ()

    # --- inputs from the world ----------------------------------------------------------------------------------------

    def handle_timeout(self, now: float) -> list[MuxEvent]:
        """Ping a silent peer, or give up on it. See :meth:`MuxMachine.handle_timeout`."""
        self._check_alive()
        self._now = now
        if self._heard is None:
            self._heard = now
        due = self.next_timeout()
        if due is None or now < due:
            return []
        if self._ping_sent is None:
            self.ping(now)
        elif self._heard > self._ping_sent:
            self._ping_sent = None  # alive, if not polite; the round trip stays unknown
        else:
            self._fail("it does not answer", GO_AWAY_INTERNAL_ERROR)
            raise RemoteProtocolError(f"the peer does not answer: silent for {now - self._heard:.0f} s")
        return []

    def next_timeout(self) -> float | None:
        """When a ping or its deadline is due. See :meth:`MuxMachine.next_timeout`."""
        if self._failure is not None:
            return None
        if self._ping_sent is not None:
            return self._ping_sent + self._config.ping_timeout
        if self._config.keepalive is None:
            return None
        return 0.0 if self._heard is None else self._heard + self._config.keepalive

    def _parse(self, data: bytes, events: list[MuxEvent]) -> None:
        self._heard = self._now
        pos = self._more_body(data, 0, events) if self._left else 0
        if self._partial:
            data = self._partial + data[pos:]
            self._partial = b""
            pos = 0
        get = self._streams.get
        max_buffered = self._limits.max_buffered
        size = len(data)
        last = size - HEADER_SIZE
        while pos <= last:
            kind, flags, stream_id, length = _unpack(data, pos)
            pos += HEADER_SIZE
            stream = get(stream_id)
            if kind == DATA:
                stop = pos + length
                if stream is None or flags or not stream.plain or stop > size or not length:
                    pos = self._on_data(data, pos, stream, flags, stream_id, length, events)
                    continue
                if length > stream.recv_window:
                    raise RemoteProtocolError(f"{length} bytes on stream {stream_id}, window {stream.recv_window}")
                stream.recv_window -= length
                stream.buffered += length
                self._buffered += length
                events.append(DataReceived(stream_id, data[pos:stop]))
                pos = stop
                if self._buffered > max_buffered:
                    self._shed(stream, events)
            elif kind == WINDOW_UPDATE:
                if stream is None or flags or stream.unacked or not length:
                    self._on_window_update(stream, flags, stream_id, length, events)
                else:
                    self._credit(stream, length, events)
            elif kind == PING:
                self._on_ping(flags, stream_id, length, events)
            elif kind == GO_AWAY:
                self._on_go_away(flags, stream_id, length, events)
            else:
                raise RemoteProtocolError(f"unknown version {kind >> 8} or frame type {kind & 0xFF}")
        if pos < size:
            self._partial = data[pos:]

    # --- data ---

    def _on_data(
        self, data: bytes, pos: int, stream: StreamState | None, flags: int, stream_id: int, length: int,
        events: list[MuxEvent],
    ) -> int:  # fmt: skip
        """Handle a data frame whose payload begins at ``pos``; return where what follows begins."""
        if flags == FIN and not length and stream is not None and not stream.unacked:
            self._on_fin(stream, events)  # as below, for the frame that ends most streams
            return pos
        if stream is not None and stream.flags & SYN:
            stream = None  # not announced yet: the peer cannot know it
        if stream is not None:
            window = stream.recv_window
        else:
            window = INITIAL_WINDOW if flags & SYN else self._config.max_window
        if length > window:
            raise RemoteProtocolError(f"{length} bytes on stream {stream_id}, window {window}")
        if flags or stream is None:
            stream = self._on_flags(stream, flags, stream_id, length, 0, events)
        self._left = length
        self._body = self._fin = None
        if stream is not None:
            self._body = self._accept(stream, flags, length, events)
            if flags & FIN and stream.id in self._streams:
                self._fin = stream
        return self._more_body(data, pos, events)

    def _accept(self, stream: StreamState, flags: int, length: int, events: list[MuxEvent]) -> StreamState | None:
        """Account for a payload. Return the stream if it takes the bytes, None if they are discarded."""
        stream.recv_window -= length
        if stream.unacked:
            self._acknowledged(stream)
        elif not length and not flags & (SYN | FIN):
            self._charge("empty data")
        if not length:
            return None
        if stream.fin_received:
            self._charge("data behind the end of a stream")
            return None
        if not stream.forgotten:
            return stream
        if length > stream.drain:
            self._end(stream, 0, events)
            return None
        stream.drain -= length
        self._discarded(stream, length)
        return None

    # --- flags ---

    def _on_flags(
        self, stream: StreamState | None, flags: int, stream_id: int, payload: int, code: int, events: list[MuxEvent]
    ) -> StreamState | None:
        """Handle flags, except FIN, and unknown ids. Return the stream the rest of the frame is for, if any."""
        if flags & ~ALL_FLAGS:
            raise RemoteProtocolError(f"unknown flags {flags:#06x}")
        if not stream_id:
            raise RemoteProtocolError("a stream's frame with stream id 0")
        if flags & SYN:
            return self._on_syn(stream, flags, stream_id, events)
        if stream is None:
            self._on_late(payload)
            return None
        if flags & RST:
            self._on_reset(stream, code, events)
            return None
        return stream

    def _on_syn(
        self, stream: StreamState | None, flags: int, stream_id: int, events: list[MuxEvent]
    ) -> StreamState | None:
        if stream_id & 1 == self._next_id & 1:
            raise RemoteProtocolError(f"stream {stream_id} has an id of this side")
        if stream is not None:
            raise RemoteProtocolError(f"stream {stream_id} is opened twice")
        claim = self._peer_ids.claim(stream_id)
        if claim is Claim.USED:
            raise RemoteProtocolError(f"stream id {stream_id} is used again")
        if flags & RST:
            self._count_reset()
            return None
        if claim is Claim.UNKNOWN:
            self._refuse(stream_id)
            return None
        stream = self._add_inbound(stream_id)
        if stream is not None:
            events.append(StreamOpened(stream_id))
        return stream

    # --- credit ---

    def _on_window_update(
        self, stream: StreamState | None, flags: int, stream_id: int, length: int, events: list[MuxEvent]
    ) -> None:
        if stream is not None and stream.flags & SYN:
            stream = None
        if flags or stream is None:
            stream = self._on_flags(stream, flags, stream_id, 0, length, events)
        if stream is None:
            return
        if stream.unacked:
            self._acknowledged(stream)
        elif not length and not flags & (SYN | FIN):
            self._charge("a window update of 0")
        if length:
            self._credit(stream, length, events)
        if flags & FIN:
            self._on_fin(stream, events)

    def _credit(self, stream: StreamState, delta: int, events: list[MuxEvent]) -> None:
        credit = stream.send_window + delta
        if credit > MAX_U32:
            raise RemoteProtocolError(f"credit of stream {stream.id} above 2^32-1")
        if delta >= SMALL_GRANT:
            # How much of it gives back and how much is new is not said: what is under way may still be given back.
            stream.send_peak = min(stream.send_peak + delta, credit + MAX_UNDER_WAY, MAX_U32)
        elif credit > stream.send_peak:
            stream.send_peak = credit
            self._charge("a window that grows by little")
        stream.send_window = credit
        if credit == delta and not stream.fin_sent:
            events.append(CreditReceived(stream.id))

    def _acknowledged(self, stream: StreamState) -> None:
        """The peer has reacted to a stream of ours."""
        stream.unacked = False
        stream.plain = not stream.forgotten
        self._unacked -= 1

    # --- session frames ---

    def _on_ping(self, flags: int, stream_id: int, value: int, events: list[MuxEvent]) -> None:
        self._check_session(flags, stream_id)
        if flags & SYN:
            self._charge("a ping")
            if self._pongs >= self._config.max_pongs:
                raise RemoteProtocolError("too many pings")
            self._pongs += 1
            self._out.small.append(_pack(PING, ACK, 0, value))
        elif self._ping_sent is not None and value == self._ping_value:
            rtt = max(self._now - self._ping_sent, 0.0)
            self._ping_sent = None
            self._rtt_time = self._now
            self._tuner.measured(rtt)
            events.append(PongReceived(rtt))
        else:
            self._charge("a pong nobody asked for")

    def _on_go_away(self, flags: int, stream_id: int, code: int, events: list[MuxEvent]) -> None:
        self._check_session(flags, stream_id)
        if self._remote_gone:
            self._charge("a second go away")
            return
        self._remote_gone = True
        events.append(GoAwayReceived(code))

    def _check_session(self, flags: int, stream_id: int) -> None:
        if stream_id or flags & ~ALL_FLAGS:
            raise RemoteProtocolError(f"a session frame with stream id {stream_id} and flags {flags:#06x}")
