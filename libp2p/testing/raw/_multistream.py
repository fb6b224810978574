"""multistream-select: lines behind their length."""

from __future__ import annotations

import trio

from ._encoding import uvarint


def line(text: str | bytes) -> bytes:
    """A message with its newline, of any length."""
    body = (text.encode() if isinstance(text, str) else text) + b"\n"
    return uvarint(len(body)) + body


HEADER = line("/multistream/1.0.0")
"""What both sides say first."""
NA = line("na")
"""The answer to a protocol that is not served."""


async def read_line(stream: trio.abc.ReceiveStream) -> str:
    """The next message, byte by byte, so that nothing behind it is taken. Raises EOFError at the end."""
    length = shift = 0
    while True:
        byte = await stream.receive_some(1)
        if not byte:
            raise EOFError("the stream ended")
        length += byte[0] % 128 << shift
        shift += 7
        if byte[0] < 128:
            break
    body = b""
    while len(body) < length:
        chunk = await stream.receive_some(length - len(body))
        if not chunk:
            raise EOFError("the stream ended inside a message")
        body = body + chunk
    assert body.endswith(b"\n"), f"no newline: {body!r}"
    return body[:-1].decode()


def read_lines(data: bytes) -> list[str]:
    """All messages in ``data``, which must be whole."""
    found: list[str] = []
    while data:
        length, shift, index = 0, 0, 0
        while True:
            length += data[index] % 128 << shift
            shift, index = shift + 7, index + 1
            if data[index - 1] < 128:
                break
        body, data = data[index : index + length], data[index + length :]
        assert len(body) == length, "cut short"
        assert body.endswith(b"\n"), "no newline"
        found.append(body[:-1].decode())
    return found
