"""What the owner of a yamux connection commands, and the frames that follow from it. Pure.

The sending half of :class:`~libp2p.muxers.yamux._machine.YamuxMachine`, whose module has the theory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...errors import LocalProtocolError
from .._machine import JOIN_BELOW, REFUSED_BACKLOG
from .._table import StreamTable
from ._codec import (
    DATA,
    FIN,
    GO_AWAY,
    GO_AWAY_PROTOCOL_ERROR,
    HEADER,
    INITIAL_WINDOW,
    MAX_U32,
    PING,
    RST,
    SYN,
    WINDOW_UPDATE,
)
from ._config import YamuxConfig
from ._ids import PeerIds
from ._window import StreamState, WindowTuner

if TYPE_CHECKING:
    from ...abc import Buffer

_pack = HEADER.pack


class YamuxSender(StreamTable[StreamState]):
    """Commands and outputs of a yamux machine."""

    __slots__ = (
        "_config",
        "_heard",
        "_peer_ids",
        "_ping_sent",
        "_ping_value",
        "_pongs",
        "_rtt_time",
        "_tuner",
        "_unacked",
    )

    def __init__(self, config: YamuxConfig, *, client: bool) -> None:
        super().__init__(config, first_id=1 if client else 2, max_id=MAX_U32, max_held=MAX_U32)
        self._config = config
        self._peer_ids = PeerIds(2 if client else 1)
        self._tuner = WindowTuner(config)
        self._unacked = 0
        self._heard: float | None = None  # when the peer gave the last sign of life
        self._ping_sent: float | None = None  # when the ping under way was sent
        self._ping_value = 0
        self._rtt_time = 0.0
        self._pongs = 0  # queued since the last drain

    # --- commands -----------------------------------------------------------------------------------------------------

    def open_stream(self) -> int:
        """Take the next id. See :meth:`MuxMachine.open_stream`."""
        stream = self._add_own()
        if stream.returned:
            self._give_back(stream)
        return stream.id

    def announce(self, stream_id: int) -> None:
        """Send the SYN now. See :meth:`MuxMachine.announce`."""
        stream = self._streams.get(stream_id)
        if stream is not None and stream.flags:
            self._give_back(stream)

    def acknowledge(self, stream_id: int) -> None:
        """Send the ACK now: like SYN, it rides on the first frame. See :meth:`MuxMachine.acknowledge`."""
        self.announce(stream_id)

    def send_credit(self, stream_id: int) -> int:
        """Bytes that may be sent now. See :meth:`MuxMachine.send_credit`."""
        stream = self._streams.get(stream_id)
        return 0 if stream is None or stream.fin_sent else stream.send_window

    def send_data(self, stream_id: int, data: Buffer) -> None:
        """Queue data. See :meth:`MuxMachine.send_data`."""
        stream = self._streams.get(stream_id)
        if stream is None or stream.fin_sent:
            raise LocalProtocolError(self._why_not_sendable(stream_id))
        size = len(data)
        if size > stream.send_window:
            raise LocalProtocolError(f"{size} bytes on stream {stream_id}, credit {stream.send_window}")
        if not size:
            return
        stream.send_window -= size
        flags = self._take_flags(stream) if stream.flags else 0
        if size < JOIN_BELOW and size <= self._config.max_frame:
            small = self._out.small
            small.append(_pack(DATA, flags, stream_id, size))
            small.append(data)
        else:
            self._send_large(stream_id, flags, data)

    def _send_large(self, stream_id: int, flags: int, data: Buffer) -> None:
        out, most, size = self._out, self._config.max_frame, len(data)
        view = data if size <= most else memoryview(data)
        for start in range(0, size, most):
            piece = view[start : start + most]
            out.small.append(_pack(DATA, flags, stream_id, len(piece)))
            if len(piece) < JOIN_BELOW:
                out.small.append(piece)
            else:
                out.append_large(piece)
            flags = 0

    def send_eof(self, stream_id: int) -> None:
        """Send FIN. See :meth:`MuxMachine.send_eof`."""
        stream = self._streams.get(stream_id)
        if stream is None or stream.fin_sent:
            raise LocalProtocolError(self._why_not_sendable(stream_id))
        flags = self._take_flags(stream) if stream.flags else 0
        self._out.small.append(_pack(DATA, flags | FIN, stream_id, 0))
        stream.fin_sent = True
        self._settle(stream)

    def reset(self, stream_id: int, code: int = 0) -> None:
        """Send RST, with the code as its length. See :meth:`MuxMachine.reset`."""
        if not 0 <= code <= MAX_U32:
            raise LocalProtocolError(f"{code} is not a 32-bit error code")
        stream = self._streams.get(stream_id)
        if stream is not None:
            self._tell_reset(stream, code)

    def consumed(self, stream_id: int, n: int, now: float) -> bool:
        """Give credit back when half the window was consumed. See :meth:`MuxMachine.consumed`."""
        stream = self._streams.get(stream_id)
        if stream is None or stream.forgotten:
            return False
        if not 0 <= n <= stream.buffered:
            raise LocalProtocolError(f"{n} bytes consumed of {stream.buffered} on stream {stream_id}")
        stream.buffered -= n
        self._buffered -= n
        stream.returned += n
        if stream.epoch < 0:
            stream.epoch = now
        if stream.returned * 2 < stream.window or stream.fin_received:
            return False
        if not self._tuner.rtt or now - self._rtt_time > self._config.rtt_interval:
            self.ping(now)
        stream.returned += self._tuner.grow(stream, now, self._buffered)
        self._give_back(stream)
        return True

    def forget(self, stream_id: int, now: float) -> None:
        """Close for reading. See :meth:`MuxMachine.forget`."""
        stream = self._streams.get(stream_id)
        if stream is None or stream.forgotten:
            return
        stream.drain = stream.recv_window
        self._discarded(stream, self._take_off(stream))
        self._settle(stream)

    def ping(self, now: float) -> None:
        """Send a ping unless one is under way. See :meth:`MuxMachine.ping`."""
        if self._ping_sent is None and self._failure is None:
            self._ping_sent = now
            self._ping_value = self._ping_value + 1 & MAX_U32
            self._out.small.append(_pack(PING, SYN, 0, self._ping_value))

    def go_away(self, code: int = 0) -> None:
        """Send GoAway, once. See :meth:`MuxMachine.go_away`."""
        if not 0 <= code <= MAX_U32:
            raise LocalProtocolError(f"{code} is not a 32-bit error code")
        if not self._local_gone and self._failure is None:
            self._local_gone = True
            self._out.small.append(_pack(GO_AWAY, 0, 0, code))

    # --- outputs ------------------------------------------------------------------------------------------------------

    def data_to_send(self) -> list[Buffer]:
        """Take what is queued. See :meth:`MuxMachine.data_to_send`."""
        self._pongs = self._refused = 0
        return self._out.drain()

    # --- what the table asks for --------------------------------------------------------------------------------------

    def _new_entry(self, stream_id: int, *, inbound: bool) -> StreamState:
        if not inbound:
            self._unacked += 1
        return StreamState(stream_id, inbound=inbound, window=self._config.initial_window)

    def _free(self, stream: StreamState, late: int = 0) -> None:
        super()._free(stream, late)
        if stream.unacked:
            self._unacked -= 1
        if stream.window != self._config.initial_window:
            self._tuner.release(stream)

    def _fail(self, reason: str, code: int = GO_AWAY_PROTOCOL_ERROR) -> None:
        super()._fail(reason)
        self._unacked = 0
        self._out.small.append(_pack(GO_AWAY, 0, 0, code))

    def _crowded(self) -> str | None:
        return super()._crowded() or (REFUSED_BACKLOG if self._unacked >= self._config.ack_backlog else None)

    def _known(self, stream: StreamState) -> bool:
        return not stream.flags & SYN

    def _queue_reset(self, stream_id: int, code: int) -> None:
        self._out.small.append(_pack(WINDOW_UPDATE, RST, stream_id, code))

    def _late_bytes(self, stream: StreamState) -> int:
        return stream.recv_window

    def _late_for_new(self) -> int:
        return INITIAL_WINDOW

    # --- frames -------------------------------------------------------------------------------------------------------

    def _take_flags(self, stream: StreamState) -> int:
        """SYN or ACK for the first frame of ``stream``. A window above the default goes ahead in a frame of its own."""
        if self._config.initial_window > INITIAL_WINDOW:
            self._give_back(stream)
        flags = stream.flags
        stream.flags = 0
        return flags

    def _give_back(self, stream: StreamState) -> None:
        """Queue a window update with all credit the peer has coming."""
        credit = stream.returned
        stream.returned = 0
        stream.recv_window += credit
        flags = stream.flags
        stream.flags = 0
        self._out.small.append(_pack(WINDOW_UPDATE, flags, stream.id, credit))

    def _discarded(self, stream: StreamState, n: int) -> None:
        """``n`` bytes for a forgotten stream went nowhere: as if consumed, but windows do not grow for that."""
        stream.returned += n
        if stream.returned * 2 >= stream.window and not stream.fin_received:
            self._give_back(stream)
