"""WebSocket frames around a stream of bytes. Pure.

Theory of operation. To libp2p a WebSocket is a stream of bytes; where frames and messages end means nothing. So nothing
is ever collected: payload is handed on as it comes in, however large its frame claims to be, and a frame that goes out
only says how many bytes follow, not which. That makes sending safe to interrupt. When the stream below took part of a
frame, the machine remembers how many bytes it still owes, and the next data, whatever it is, fills them:

    encode(data) → what to write ──▶ the stream below takes some of it ──▶ wrote(count) → how much of data that was

| ``_owed`` | ``_rest`` | where the output stands |
| --- | --- | --- |
| 0 | empty | between frames: control frames may go out, data opens a frame |
| any | some | inside a control frame or the head of a data frame; ``_rest`` comes first |
| > 0 | empty | inside the payload of a data frame |

Input is unframed in place: the caller's buffer of frames becomes a buffer of payload.

Of control frames at most one answer waits, that to the last ping (RFC 6455, section 5.5.3), so that nobody can make
output pile up.

Source: RFC 6455; libp2p/specs websockets (binary frames only).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TypeAlias

from ...abc import Buffer
from ...errors import LocalProtocolError, RemoteProtocolError

MAX_FRAME_OUT = 0xFFFF
"""Payload bytes of one frame we send: moderate, because others collect whole frames, and what two bytes can tell."""
MAX_FRAME_IN = 1024 * 1024
"""Payload bytes that a peer's frame may claim (case T7). No memory depends on it: payload is never collected."""
MAX_CONTROL = 125
"""Payload bytes of a control frame (RFC 6455, section 5.5)."""
MAX_EMPTY_FRAMES = 1000
"""Frames without payload for us, in one read, before the peer counts as a flooder."""
CLOSE_NORMAL = 1000
CLOSE_PROTOCOL_ERROR = 1002

_CONTINUATION, _TEXT, _BINARY, _CLOSE, _PING, _PONG = 0, 1, 2, 8, 9, 10
_FINAL, _RESERVED, _MASKED = 0x80, 0x70, 0x80
_MASK_SIZE = 4
_MASK_PIECE = 16 * 1024
_MASK_SHORT = 8 * 1024
_ONES = int.from_bytes(b"\1\0\0\0" * (_MASK_PIECE // _MASK_SIZE), "little")
"""Times a key, that is the key repeated."""


def mask(data: Buffer, key: bytes) -> bytes:
    """Return ``data`` exclusive-or ``key`` repeated; the inverse of itself.

    Long integers do it at 400 to 600 MB/s, in pieces that fit the processor's cache. ``_fast_mask`` is quicker.
    """
    size = len(data)
    if size <= _MASK_SHORT:
        pad = int.from_bytes((key * (size // _MASK_SIZE + 1))[:size], "little")
        return (int.from_bytes(data, "little") ^ pad).to_bytes(size, "little")
    pad = int.from_bytes(key, "little") * _ONES
    view = memoryview(data)
    pieces = [
        (int.from_bytes(view[start : start + _MASK_PIECE], "little") ^ pad).to_bytes(_MASK_PIECE, "little")
        for start in range(0, size, _MASK_PIECE)
    ]
    pieces[-1] = pieces[-1][: (size - 1) % _MASK_PIECE + 1]
    return b"".join(pieces)


Mask: TypeAlias = Callable[[Buffer, bytes], bytes]

_HEAD_SIZE = tuple(
    2 + {126: 2, 127: 8}.get(second & ~_MASKED, 0) + (_MASK_SIZE if second & _MASKED else 0) for second in range(256)
)
"""Bytes of a frame's head, by its second byte."""
_LONGEST_HEAD = max(_HEAD_SIZE)


class Frames:
    """The framing of one side.

    Args:
        client: whether this side dialled; what clients send is masked.
        make_key: returns four unpredictable bytes.
        mask: does what :func:`mask` does.
    """

    __slots__ = (
        "_answer", "_client", "_close_sent", "_control", "_control_kind", "_head", "_in_message",
        "_key_in", "_key_out", "_left", "_make_key", "_mask", "_offered", "_owed", "_rest", "closed", "empty", "error",
    )  # fmt: skip

    def __init__(self, *, client: bool, make_key: Callable[[], bytes], mask: Mask = mask) -> None:
        self.closed: bool = False
        """Whether the peer said that nothing more will come."""
        self.error: str | None = None
        """Which rule the peer broke; the machine is dead then."""
        self.empty: int = 0
        """How many frames of the last read had no payload for us."""
        self._client = client
        self._make_key = make_key
        self._mask = mask
        # input
        self._head = bytearray()
        self._left = 0
        self._key_in = b""
        self._control: bytearray | None = None
        self._control_kind = 0
        self._in_message = False
        # output
        self._answer = b""
        self._close_sent = False
        self._rest = b""
        self._owed = 0
        self._key_out = b""
        # what encode returned last, but for the payload: the head, the answer in it, owed bytes, the key
        self._offered = (b"", b"", 0, b"")

    # --- input

    def unframe(self, buffer: memoryview, size: int) -> int:
        """Turn the first ``size`` bytes of ``buffer``, which came in, into the payload they hold.

        Returns:
            How many bytes of payload there are, from the start of ``buffer``. Behind the peer's close frame there are
            none, whatever follows it.

        Raises:
            RemoteProtocolError: the peer broke the rules; the machine is dead, and can only say so.
        """
        if self.error is not None:
            raise RemoteProtocolError(self.error)
        read = written = 0
        self.empty = 0
        try:
            while read < size and not self.closed:
                if not self._left:
                    read += self._take_head(buffer[read : min(read + _LONGEST_HEAD, size)])
                    continue
                count = min(self._left, size - read)
                data: Buffer = buffer[read : read + count]
                if key := self._key_in:
                    data = self._mask(data, key)
                self._left -= count
                if self._left:
                    self._key_in = _turned(key, count)
                if self._control is not None:
                    self._take_control(data)
                else:
                    if key or written != read:
                        buffer[written : written + count] = data
                    written += count
                read += count
        except RemoteProtocolError as exc:
            self.fail(str(exc))
            raise
        return written

    def fail(self, error: str) -> None:
        """The peer broke a rule; the machine is dead, and can only say so."""
        self.error = error
        self.close(CLOSE_PROTOCOL_ERROR)

    @property
    def at_border(self) -> bool:
        """Whether the input stands between two frames, where it may end."""
        return self.closed or not (self._left or self._head)

    def _take_head(self, data: memoryview) -> int:
        """Go on reading the head of a frame; returns how many bytes belong to it."""
        head = self._head
        if not head and len(data) == _LONGEST_HEAD:  # the usual case: all of it is there
            size = _HEAD_SIZE[data[1]]
            self._begin(bytes(data[:size]))
            return size
        used = max(2 - len(head), 0)
        head += data[:used]
        if len(head) < 2:
            return len(data)
        missing = _HEAD_SIZE[head[1]] - len(head)
        head += data[used : used + missing]
        used = min(used + missing, len(data))
        if len(head) == _HEAD_SIZE[head[1]]:
            self._begin(bytes(head))
            head.clear()
        return used

    def _begin(self, head: bytes) -> None:
        first, second = head[0], head[1]
        if (second >= _MASKED) is self._client:
            raise RemoteProtocolError("a masked frame of a server" if self._client else "an unmasked frame of a client")
        size = self._payload_size(head)
        if first != _FINAL | _BINARY or self._in_message:
            self._begin_unusual(first, size)
        if not size or self._control is not None:
            self.empty += 1
            if self.empty > MAX_EMPTY_FRAMES:
                raise RemoteProtocolError("a flood of frames without payload")
        self._left = size
        self._key_in = head[-_MASK_SIZE:] if second & _MASKED else b""
        if self._control is not None and not size:
            self._take_control(b"")

    def _begin_unusual(self, first: int, size: int) -> None:
        """Begin a frame that is no whole binary message."""
        kind, final = first & 0x0F, bool(first & _FINAL)
        if first & _RESERVED:
            raise RemoteProtocolError("a frame with reserved bits, though no extension was agreed on")
        if kind in (_CLOSE, _PING, _PONG):
            if size > MAX_CONTROL or not final:
                raise RemoteProtocolError("a control frame that is too long, or in pieces")
            self._control, self._control_kind = bytearray(), kind
        elif kind not in (_CONTINUATION, _BINARY):
            raise RemoteProtocolError("a text frame" if kind == _TEXT else f"a frame of the unknown kind {kind}")
        elif (kind == _CONTINUATION) is not self._in_message:
            raise RemoteProtocolError("a message inside a message" if self._in_message else "a piece of no message")
        else:
            self._in_message = not final

    @staticmethod
    def _payload_size(head: bytes) -> int:
        short = head[1] & ~_MASKED
        if short < 126:
            return short
        size = int.from_bytes(head[2:4] if short == 126 else head[2:10], "big")
        if size < (126 if short == 126 else 1 << 16):
            raise RemoteProtocolError("the length of a frame is not in its shortest form")
        if size > MAX_FRAME_IN:
            raise RemoteProtocolError(f"a frame of {size} bytes is above the limit of {MAX_FRAME_IN}")
        return size

    def _take_control(self, data: Buffer) -> None:
        assert self._control is not None
        self._control += data
        if self._left:
            return
        payload, self._control = bytes(self._control), None
        if self._control_kind == _PING:
            if not self._close_sent:
                self._answer = self._control_frame(_PONG, payload)
        elif self._control_kind == _CLOSE:
            if len(payload) == 1:
                raise RemoteProtocolError("a close frame with half a code")
            self.closed = True
            # The peer's code goes back without its reason, which is for people.
            self.close(int.from_bytes(payload[:2], "big"))

    # --- output

    @property
    def finished(self) -> bool:
        """Whether no more data may be sent, because a close frame was."""
        return self._close_sent

    @property
    def has_answer(self) -> bool:
        """Whether a control frame waits and may go out now: ``encode(b"")`` has it."""
        return bool(self._answer) and not self._owed

    def close(self, code: int = CLOSE_NORMAL) -> None:
        """Queue a close frame; no data can be sent from now on. Idempotent.

        Args:
            code: why (RFC 6455, section 7.4); 0 to give no reason.
        """
        if not self._close_sent:
            self._close_sent = True
            self._answer = self._control_frame(_CLOSE, code.to_bytes(2, "big") if code else b"")

    def encode(self, data: Buffer) -> bytes:
        """Return what to write next for the front of ``data``; empty when there is nothing to say.

        It is offered, not sent: :meth:`wrote` tells what became of it, and whoever does not call that may offer other
        data. What is returned covers at most :data:`MAX_FRAME_OUT` bytes of ``data``.

        Raises:
            LocalProtocolError: there is data, and a close frame was sent.
        """
        size = min(len(data), MAX_FRAME_OUT)
        if size and self.finished:
            raise LocalProtocolError("data behind a close frame")
        head, answer, owed, key = self._rest, b"", self._owed, self._key_out
        if not owed:
            answer = self._answer
            head += answer
            if size:
                owed, key = size, self._make_key() if self._client else b""
                head += _data_head(size, key)
        self._offered = (head, answer, owed, key)
        size = min(size, owed)
        if not size:
            return head
        payload = data if size == len(data) else memoryview(data)[:size]
        return b"".join((head, self._mask(payload, key) if key else payload))

    def wrote(self, count: int) -> int:
        """Take note that ``count`` bytes of what :meth:`encode` returned last are on their way.

        Returns:
            How many bytes of the data they hold.
        """
        if not count:
            return 0
        head, answer, owed, key = self._offered
        if answer is self._answer:  # and not a newer one
            self._answer = b""
        payload = max(count - len(head), 0)
        self._rest = head[count:]
        self._owed = owed - payload
        self._key_out = _turned(key, payload)
        return payload

    def _control_frame(self, kind: int, payload: bytes) -> bytes:
        key = self._make_key() if self._client else b""
        return (
            bytes((_FINAL | kind, len(payload) | (_MASKED if key else 0)))
            + key
            + (self._mask(payload, key) if key else payload)
        )


def _data_head(size: int, key: bytes) -> bytes:
    masked = _MASKED if key else 0
    if size < 126:
        return bytes((_FINAL | _BINARY, masked | size)) + key
    return struct.pack(">BBH", _FINAL | _BINARY, masked | 126, size) + key


def _turned(key: bytes, count: int) -> bytes:
    """``key`` as it applies ``count`` bytes further on."""
    count %= _MASK_SIZE
    return key[count:] + key[:count]
