"""Single messages on a stream that afterwards carries a circuit: not a byte more than the message may be read."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from ...abc import Stream
from ...errors import DecodeError, RemoteProtocolError
from ...wire import varint
from ...wire.framing import frame
from ._codec import MAX_MESSAGE

AnswerT = TypeVar("AnswerT")
_PREFIX_LENGTH = len(varint.encode(MAX_MESSAGE))


async def ask(stream: Stream, request: bytes, read: Callable[[bytes], AnswerT]) -> AnswerT:
    """Send ``request`` and return what ``read`` makes of the message that comes back. Resets the stream when none does.

    Args:
        read: raises DecodeError when the message is no answer.

    Raises:
        RemoteProtocolError: the answer broke the rules.
        StreamReset, ConnectionClosed: the stream ended before the answer was complete.
    """
    try:
        await send_message(stream, request)
        return read(await receive_message(stream))
    except DecodeError as exc:
        stream.reset()
        raise RemoteProtocolError(f"relay: {exc}") from exc
    except BaseException:
        stream.reset()
        raise


async def send_message(stream: Stream, message: bytes) -> None:
    """Send ``message`` behind its length."""
    await stream.send_all(frame(message))


async def receive_message(stream: Stream) -> bytes:
    """Read one message, and nothing of what follows it.

    Raises:
        RemoteProtocolError: it is too long, or the stream ends before it does.
        StreamReset, ConnectionClosed: the stream was lost.
    """
    prefix = bytearray()
    while (decoded := _try_decode(prefix)) is None:
        if len(prefix) == _PREFIX_LENGTH:
            raise RemoteProtocolError(f"a relay message is above the limit of {MAX_MESSAGE} bytes")
        prefix += await _receive(stream, 1)
    if decoded > MAX_MESSAGE:
        raise RemoteProtocolError(f"a relay message of {decoded} bytes is above the limit of {MAX_MESSAGE}")
    message = bytearray()
    while len(message) < decoded:
        message += await _receive(stream, decoded - len(message))
    return bytes(message)


def _try_decode(prefix: bytearray) -> int | None:
    try:
        found = varint.try_decode(prefix, 0)
    except DecodeError as exc:
        raise RemoteProtocolError(f"relay: {exc}") from exc
    return None if found is None else found[0]


async def _receive(stream: Stream, size: int) -> bytes | bytearray:
    chunk = await stream.receive_some(size)
    if not chunk:
        raise RemoteProtocolError("the peer ended the stream before its message was complete")
    return chunk
