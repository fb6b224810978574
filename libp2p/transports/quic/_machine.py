"""One QUIC connection's streams and time, as a muxer sees them: what the engine reports is turned into decisions here.

*Credit and memory.* The engine gives the peer credit when stream data is taken from it, and has one queue for all
streams. So data is taken freely only while applications have less than :data:`RECEIVE_BUFFER` bytes unread on the
connection; above, it stays in the engine, whose windows bound it, until somebody reads. That holds a slow reader's peer
back, as it should, and with it all other streams, which must not be: so every now and then, from half a second to
:data:`MAX_HOLD` seconds apart, everything that waits is taken all the same, at the price of one window of the slow
stream. What nobody reads for a minute and a half, under pressure, comes to :data:`RECEIVE_LIMIT`, and the stream with
most of it is reset.

*Ends of a stream.* QUIC ends the two directions of a stream apart. A reset that arrives ends both here; a reset made
here sends both frames. A STOP_SENDING that arrives ends only writing, because go sends one with every orderly close.
A stream that the application has closed goes on discarding for a while, because a peer that is in the middle of
answering a negotiation takes a STOP_SENDING for a failure (rust does); then one is sent, and the peer's side ends by
itself, whatever its application does.

Pure. Specifications: RFC 9000 sections 2 to 4; libp2p/specs quic.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

from ..._util.rate import Budget
from ...abc import Buffer
from ._engine import EXCESSIVE_WORK, Address, Engine

RECEIVE_BUFFER = 2 * 1024 * 1024
"""Bytes that the applications of one connection may leave unread before nothing more is taken."""
RECEIVE_LIMIT = 24 * 1024 * 1024
"""Bytes unread on one connection at which a stream is given up."""
MIN_HOLD = 0.5
"""Seconds that nothing more is taken, at first."""
MAX_HOLD = 5.0
"""The same in the end, when nothing is read."""
STREAM_SEND_BUFFER = 512 * 1024
"""Bytes of one stream that wait to be sent."""
CONNECTION_SEND_BUFFER = 2 * 1024 * 1024
"""The same of all streams of a connection."""
HANDSHAKE_TIMEOUT = 10.0
"""Seconds that a handshake may take, whatever arrives meanwhile."""
MAX_KEEP_ALIVE = 15.0
"""Seconds of silence after which the peer is asked for a sign of life (go)."""
KEEP_ALIVE_SHARE = 0.45
"""And no more than this part of the shorter idle timeout: rust gives up after 10 s."""
MIN_KEEP_ALIVE = 1.0
"""And no less than this, whatever the peer says: it could have a ping sent every half of a millisecond."""
LINGER = 5.0
"""Seconds that what arrives on a closed stream is discarded before the peer is asked to stop."""
LINGER_BYTES = 16 * 1024
"""Bytes of it that are."""
MAX_OWED = 512
"""Streams that were given up here and that the peer does not end, though it was asked to; more end the connection. The
engine cannot forget them."""
MAX_RESETS = 1000
"""Streams that the peer may open and reset within :data:`RESET_PERIOD` (rapid reset, CVE-2023-44487), as with the other
muxers: each costs a handler its beginning, and one that does not look at its stream lives on. Answers to resets of ours
do not count."""
RESET_PERIOD = 10.0
"""Seconds; see :data:`MAX_RESETS`."""
RESOURCE_LIMIT = 0x1002
"""Stream error code (libp2p connections specification, error codes)."""


# --- events: mutable for speed, never changed by convention -----------------------------------------------------------


@dataclass(slots=True)
class Opened:
    """The peer opened a stream."""

    stream_id: int


@dataclass(slots=True)
class Data:
    """Bytes arrived, at least one."""

    stream_id: int
    data: bytes


@dataclass(slots=True)
class Eof:
    """The peer sends no more."""

    stream_id: int


@dataclass(slots=True)
class Reset:
    """A stream is over in both directions: by the peer, or by a limit here."""

    stream_id: int
    code: int
    remote: bool


@dataclass(slots=True)
class Stopped:
    """The peer reads no more of a stream."""

    stream_id: int
    code: int


@dataclass(slots=True)
class CanOpen:
    """The peer allows more streams."""


@dataclass(slots=True)
class CidIssued:
    """The peer may use another connection id from now on."""

    cid: bytes


@dataclass(slots=True)
class CidRetired:
    """It does not use this one any more."""

    cid: bytes


@dataclass(slots=True)
class Ready:
    """The handshake is complete, and the peer has proved who it is."""


@dataclass(slots=True)
class Ended:
    """The connection is over.

    Attributes:
        remote: whether the peer ended it.
        broken: whether that is because the peer broke the rules.
    """

    reason: str
    code: int = 0
    remote: bool = False
    broken: bool = False


MachineEvent: TypeAlias = Opened | Data | Eof | Reset | Stopped | CanOpen | CidIssued | CidRetired | Ready | Ended


@dataclass(slots=True)
class _State:
    """A stream in the engine.

    ``reading``: the application still wants data. ``writing``: it may still send. ``peer_finished``: no more will come.
    ``freed``: the engine has forgotten the stream; only what is unread of it keeps it here.
    """

    unread: int = 0
    reading: bool = True
    writing: bool = True
    peer_finished: bool = False
    freed: bool = False
    discarded: int = 0


class QuicMachine:
    """The streams of one connection.

    Args:
        engine: the connection, which the machine drives from now on.
        now: seconds, of the clock that all methods are told.
    """

    def __init__(self, engine: Engine, now: float) -> None:
        self.engine = engine
        self.ended: bool = False
        self._streams: dict[int, _State] = {}
        self._queued: dict[int, int] = {}
        self._lingering: dict[int, float] = {}
        self._owed: set[int] = set()
        self._unread = 0
        self._peer_bit = 1 if engine.is_client else 0
        self._next_peer_id = self._peer_bit
        self._skipped: set[int] = set()
        self._resets = Budget(MAX_RESETS / RESET_PERIOD, MAX_RESETS)
        self._started = now
        self._heard = now
        self._hold = 0.0
        self._hold_until = now
        self._keep_alive = MAX_KEEP_ALIVE

    # --- inputs from the world

    def receive(self, datagrams: Iterable[bytes], remote: Address, now: float) -> None:
        """Take datagrams; what they mean, :meth:`events` says."""
        self._heard = now
        self.engine.receive(datagrams, remote, now)

    def receive_segments(self, data: bytes, size: int, remote: Address, now: float) -> None:
        """Take datagrams that the kernel has joined."""
        self._heard = now
        self.engine.receive_segments(data, size, remote, now)

    def handle_timeout(self, now: float) -> list[MachineEvent]:
        """Do what is due."""
        due = self.engine.next_timeout()
        if due is not None and due <= now:
            self.engine.handle_timeout(now)
        if self.ended:
            return []
        if not self.engine.authenticated:
            return self._give_up_handshake() if self._started + HANDSHAKE_TIMEOUT <= now else []
        if self._heard + self._keep_alive <= now:
            self._heard = now
            self.engine.ping()
        for stream_id in [found for found, due in self._lingering.items() if due <= now]:
            self._stop_lingering(stream_id, stop=True)
        return []

    def _give_up_handshake(self) -> list[MachineEvent]:
        self.close(0, "")
        return [Ended("the handshake took too long")]

    def next_timeout(self) -> float | None:
        """When to call :meth:`handle_timeout`, or None."""
        due = self.engine.next_timeout()
        if self.ended:
            return due
        ready = self.engine.authenticated
        found = self._heard + self._keep_alive if ready else self._started + HANDSHAKE_TIMEOUT
        if self.paused:
            found = min(found, self._hold_until)
        if self._lingering:
            found = min(found, next(iter(self._lingering.values())))
        return found if due is None else min(found, due)

    @property
    def paused(self) -> bool:
        """Whether applications have so much unread that more is taken only now and then."""
        return self._unread > RECEIVE_BUFFER

    def events(self, now: float) -> list[MachineEvent]:
        """What has happened, in order. Look again when :attr:`paused` is over, and when time comes."""
        found: list[MachineEvent] = []
        held = self.paused
        if held and now < self._hold_until:
            return found
        # The peer gets its credit only when datagrams are sent, so this ends, whatever it does.
        while (held or not self.paused) and (event := self.engine.next_event()) is not None:
            name = event[0]
            if name == "stream_data":
                self._on_data(event[1], event[2], event[3], found)
            elif name == "stream_reset":
                self._on_reset(event[1], event[2], now, found)
            elif name == "stop_sending":
                self._on_stop(event[1], event[2], found)
            elif name == "stream_finished":
                self._drop(event[1])
            else:
                self._on_connection(name, event, found)
                if name == "handshake_complete":
                    break  # streams wait until somebody takes them
        if self._unread > RECEIVE_LIMIT:
            self._give_up_on_largest(found)
        if len(self._owed) > MAX_OWED:
            self._give_up(found, "the peer does not end its streams")
        if self.paused:
            self._hold = min(max(2 * self._hold, MIN_HOLD), MAX_HOLD)
            self._hold_until = now + self._hold
        return found

    def _give_up_on_largest(self, found: list[MachineEvent]) -> None:
        """Nobody reads, and the peer goes on: the stream with most unread ends."""
        stream_id = max(self._streams, key=lambda stream_id: self._streams[stream_id].unread)
        self.reset(stream_id, RESOURCE_LIMIT)
        found.append(Reset(stream_id, RESOURCE_LIMIT, remote=False))

    def _on_connection(self, name: str, event: tuple[object, ...], found: list[MachineEvent]) -> None:
        match event:
            case ("streams_available", False, _):
                if CanOpen() not in found[-1:]:
                    found.append(CanOpen())
            case ("connection_id_issued", bytes(cid)):
                found.append(CidIssued(cid))
            case ("connection_id_retired", bytes(cid)):
                found.append(CidRetired(cid))
            case ("handshake_complete",):
                timeout = self.engine.idle_timeout
                self._keep_alive = max(MIN_KEEP_ALIVE, min(MAX_KEEP_ALIVE, KEEP_ALIVE_SHARE * timeout))
                found.append(Ready())
            case ("handshake_failed", int(code), str(reason)):
                self._end(found, Ended(f"the handshake failed: {reason}", code))
            case ("protocol_error", int(code), _, str(reason)):
                self._end(found, Ended(f"the peer broke the rules of QUIC: {reason}", code, broken=True))
            case ("peer_closed", application, int(code), _, bytes(reason)):
                text = reason.decode("utf-8", "replace") or "the peer closed the connection"
                self._end(found, Ended(text if application else f"the peer gave up: {text}", code, remote=True))
            case ("connection_terminated", int(code), _, bytes(reason)):
                self._end(
                    found, Ended(reason.decode("utf-8", "replace") or "the connection was lost", code, remote=True)
                )
            case _:
                pass  # credit, paths, blocked peers: the engine has done what is needed

    def _end(self, found: list[MachineEvent], ended: Ended) -> None:
        if not self.ended:
            self.ended = True
            found.append(ended)

    def _give_up(self, found: list[MachineEvent], reason: str) -> None:
        """The peer costs too much."""
        self._end(found, Ended(reason, EXCESSIVE_WORK, broken=True))
        self.close(EXCESSIVE_WORK, "")

    def _stream(self, stream_id: int, found: list[MachineEvent]) -> _State | None:
        """The stream an event is about, which may be new; None when it is long gone."""
        state = self._streams.get(stream_id)
        if state is None and stream_id & 1 == self._peer_bit and self._is_new(stream_id):
            state = self._streams[stream_id] = _State()
            found.append(Opened(stream_id))
        return state

    def _is_new(self, stream_id: int) -> bool:
        """Whether the peer opens ``stream_id`` only now. The engine knows finished streams for a while only."""
        if stream_id < self._next_peer_id:
            known = stream_id not in self._skipped
            self._skipped.discard(stream_id)
            return not known
        self._skipped.update(range(self._next_peer_id, stream_id, 4))  # at most as many as may be open
        self._next_peer_id = stream_id + 4
        return True

    def _on_data(self, stream_id: int, data: bytes, fin: bool, found: list[MachineEvent]) -> None:
        state = self._stream(stream_id, found)
        if state is None:
            return
        if fin:
            state.peer_finished = True
            self._owed.discard(stream_id)
        if not state.reading:
            state.discarded += len(data)
            if fin or state.discarded > LINGER_BYTES:
                self._stop_lingering(stream_id, stop=not fin)
            return
        if data:
            state.unread += len(data)
            self._unread += len(data)
            found.append(Data(stream_id, data))
        if fin:
            found.append(Eof(stream_id))

    def _on_reset(self, stream_id: int, code: int, now: float, found: list[MachineEvent]) -> None:
        state = self._stream(stream_id, found)
        if state is None or state.peer_finished:
            return  # what has arrived whole stays whole
        state.peer_finished = True
        self._owed.discard(stream_id)
        self._lingering.pop(stream_id, None)
        if state.reading:
            if state.writing:
                self._stop_writing(stream_id, state, code)
            self._discard(stream_id, state)
            found.append(Reset(stream_id, code, remote=True))
            if stream_id & 1 == self._peer_bit and not self._resets.charge(now):
                self._give_up(found, "the peer opens and resets too many streams")

    def _on_stop(self, stream_id: int, code: int, found: list[MachineEvent]) -> None:
        state = self._stream(stream_id, found)
        self.engine.forget(stream_id)
        if state is not None and state.writing:
            # The engine has answered with a reset of what was not sent.
            state.writing = False
            self._queued.pop(stream_id, None)
            found.append(Stopped(stream_id, code))

    def _drop(self, stream_id: int) -> None:
        """The engine has forgotten the stream. What is unread of it stays counted until it is read."""
        self.engine.forget(stream_id)
        state = self._streams.get(stream_id)
        if state is not None:
            state.writing = False
            state.freed = True
            self._lingering.pop(stream_id, None)
            self._queued.pop(stream_id, None)
            self._owed.discard(stream_id)
            self._release(stream_id, state)

    def _release(self, stream_id: int, state: _State) -> None:
        if state.freed and not state.unread:
            del self._streams[stream_id]

    # --- commands

    @property
    def can_open(self) -> bool:
        """Whether the peer allows another stream now."""
        return not self.ended and self.engine.can_open

    def open_stream(self) -> int:
        """Open a stream, which :attr:`can_open` allows. The peer learns of it with the first bytes."""
        stream_id = self.engine.open_stream()
        self._streams[stream_id] = _State()
        return stream_id

    def send_credit(self, stream_id: int) -> int:
        """How many bytes :meth:`send_data` should be given now."""
        return max(0, STREAM_SEND_BUFFER - self._queued.get(stream_id, 0))

    @property
    def congested(self) -> bool:
        """Whether so much waits to be sent, or something for so long, that nobody should add to it."""
        return sum(self._queued.values()) >= CONNECTION_SEND_BUFFER or self.engine.needs_calm

    def send_data(self, stream_id: int, data: Buffer) -> None:
        """Queue ``data``, which is copied."""
        state = self._streams.get(stream_id)
        if state is not None and state.writing and self.engine.send(stream_id, data):
            self._queued[stream_id] = self._queued.get(stream_id, 0) + len(data)

    def send_eof(self, stream_id: int) -> None:
        """Finish sending."""
        state = self._streams.get(stream_id)
        if state is not None and state.writing:
            state.writing = False
            self.engine.finish(stream_id)

    def reset(self, stream_id: int, code: int) -> None:
        """End a stream in both directions."""
        state = self._streams.get(stream_id)
        if state is not None:
            if not state.freed:
                self._stop_writing(stream_id, state, code)
            if state.reading:
                if not state.peer_finished:
                    self._stop(stream_id, code)
                self._discard(stream_id, state)

    def consumed(self, stream_id: int, size: int) -> None:
        """The application took so many bytes."""
        self._unread -= size
        self._hold = 0.0
        state = self._streams.get(stream_id)
        if state is not None:
            state.unread -= size
            self._release(stream_id, state)

    def forget(self, stream_id: int, now: float) -> None:
        """The application reads no more; what it had not read is discarded."""
        state = self._streams.get(stream_id)
        if state is not None and state.reading:
            if not state.peer_finished:
                self._lingering[stream_id] = now + LINGER
            self._discard(stream_id, state)

    def _stop_lingering(self, stream_id: int, *, stop: bool) -> None:
        if self._lingering.pop(stream_id, None) is not None and stop:
            self._stop(stream_id, 0)

    def _stop(self, stream_id: int, code: int) -> None:
        """Ask the peer to end its side, which it owes us from now on."""
        self.engine.stop(stream_id, code)
        self._owed.add(stream_id)

    def _stop_writing(self, stream_id: int, state: _State, code: int) -> None:
        state.writing = False
        self._queued.pop(stream_id, None)
        self.engine.reset(stream_id, code)

    def _discard(self, stream_id: int, state: _State) -> None:
        state.reading = False
        self._unread -= state.unread
        state.unread = 0
        self._release(stream_id, state)

    def close(self, code: int, reason: str) -> None:
        """End the connection and tell the peer."""
        self.ended = True
        self.engine.close(code, reason)

    # --- outputs

    def transmit(self, now: float) -> list[tuple[bytes, Address]]:
        """Datagrams to send now, with their destinations."""
        return self.engine.transmit(now)

    def credited(self) -> list[int]:
        """Streams whose send buffer was full before the last :meth:`transmit` and is not any more."""
        found: list[int] = []
        for stream_id, before in tuple(self._queued.items()):
            left = self.engine.unsent(stream_id)
            if left:
                self._queued[stream_id] = left
            else:
                del self._queued[stream_id]
            if before >= STREAM_SEND_BUFFER > left:
                found.append(stream_id)
        return found

    # --- getters

    @property
    def in_use(self) -> dict[str, int]:
        """What is kept, by name; all 0 when every stream has ended."""
        return {"streams": len(self._streams), "unread": self._unread, "queued": sum(self._queued.values())}
