"""Length-delimited messages: an unsigned varint with the length, then that many bytes.

Almost every libp2p protocol frames its protobufs like this.
"""

from __future__ import annotations

from ..errors import DecodeError
from . import varint


def frame(message: bytes) -> bytes:
    """Return ``message`` behind its length."""
    return varint.encode(len(message)) + message


class FrameBuffer:
    """Cuts a stream of bytes into length-delimited messages.

    It never holds more than one incomplete message (and whatever came with it in one call), and a length above the
    limit is refused when it is read, before any of its body is kept. Time is linear in the bytes received, however
    small the pieces.

    After a :class:`~libp2p.errors.DecodeError` the stream has lost its frame boundaries: close it.
    """

    __slots__ = ("_buffer", "_max_length")

    def __init__(self, max_length: int) -> None:
        """Start empty.

        Args:
            max_length: the longest message accepted, in bytes, without its length prefix.
        """
        self._buffer = bytearray()
        self._max_length = max_length

    @property
    def buffered(self) -> int:
        """How many bytes are held: an incomplete message, or what a ``limit`` left over."""
        return len(self._buffer)

    def receive_data(self, data: bytes | bytearray | memoryview, limit: int | None = None) -> list[bytes]:
        """Take the next bytes of the stream and return the messages they complete, in order.

        Args:
            data: the bytes, copied where they are kept. May be empty, to go on after ``limit``.
            limit: return at most this many messages and keep the rest of the bytes.

        Raises:
            DecodeError: a message is longer than the limit, or its length is not a valid varint.
        """
        buffer = self._buffer
        buffer += data
        messages: list[bytes] = []
        position = 0
        with memoryview(buffer) as view:
            while limit is None or len(messages) < limit:
                prefix = varint.try_decode(buffer, position)
                if prefix is None:
                    break
                length, start = prefix
                if length > self._max_length:
                    raise DecodeError(f"a message of {length} bytes is above the limit of {self._max_length}")
                if len(buffer) - start < length:
                    break
                position = start + length
                messages.append(bytes(view[start:position]))
        del buffer[:position]
        return messages

    def take_leftover(self) -> bytes:
        """Give back the bytes that are held, for the next protocol on the stream, and forget them."""
        leftover = bytes(self._buffer)
        self._buffer.clear()
        return leftover
