"""As much of a Redis client as the test programs need: RESP2 over a Trio stream, one command at a time.

Source: the Redis serialization protocol specification, version 2.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeAlias

import trio

Reply: TypeAlias = "bytes | int | list[Reply] | None"

MAX_REPLY = 64 * 1024
"""Bytes of one line or string: all that is ever asked for are addresses."""


class RedisError(Exception):
    """The server refused a command, or did not speak Redis."""


class Redis:
    """A connection to a server."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._buffer = bytearray()

    async def __call__(self, *command: str) -> Reply:
        """Send a command and wait for its reply.

        Raises:
            RedisError: the server says that something is wrong.
        """
        words = [word.encode() for word in command]
        parts = [b"*%d\r\n" % len(words), *(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)]
        await self._stream.send_all(b"".join(parts))
        return await self._reply()

    async def _reply(self) -> Reply:
        line = await self._line()
        kind, rest = line[:1], line[1:]
        if kind == b"+":
            return rest
        if kind == b"-":
            raise RedisError(rest.decode("utf-8", "replace"))
        if kind not in (b":", b"$", b"*"):
            raise RedisError(f"not a reply: {line[:40]!r}")
        number = int(rest)
        if kind == b":":
            return number
        if number < 0:
            return None
        if number > MAX_REPLY:
            raise RedisError(f"a reply of {number} is too long")
        if kind == b"*":
            return [await self._reply() for _ in range(number)]
        while len(self._buffer) < number + 2:
            await self._more()
        data = bytes(self._buffer[:number])
        del self._buffer[: number + 2]
        return data

    async def _line(self) -> bytes:
        while b"\r\n" not in self._buffer:
            if len(self._buffer) > MAX_REPLY:
                raise RedisError("a line that does not end")
            await self._more()
        line, _, rest = bytes(self._buffer).partition(b"\r\n")
        self._buffer[:] = rest
        return line

    async def _more(self) -> None:
        data = await self._stream.receive_some()
        if not data:
            raise RedisError("the server closed the connection")
        self._buffer += data


@asynccontextmanager
async def connect(host: str, port: int) -> AsyncIterator[Redis]:
    """Connect; the server may still be starting, so a refusal is tried again until the caller's deadline."""
    while True:
        try:
            stream = await trio.open_tcp_stream(host, port)
            break
        except OSError:
            await trio.sleep(0.1)
    async with stream:
        yield Redis(stream)


async def publish(redis: Redis, key: str, value: str, *, as_list: bool) -> None:
    """Leave ``value`` for the other side, in the form it looks for."""
    await redis("DEL", key)
    await redis(*(("RPUSH", key, value) if as_list else ("SET", key, value)))


async def fetch(redis: Redis, key: str) -> str:
    """Wait for what the other side leaves, a list or a string: implementations differ."""
    while True:
        kind = await redis("TYPE", key)
        if kind == b"list":
            found = await redis("LINDEX", key, "0")
        elif kind == b"string":
            found = await redis("GET", key)
        else:
            found = None
        if isinstance(found, bytes):
            return found.decode()
        await trio.sleep(0.02)


async def fetch_list(redis: Redis, key: str) -> str:
    """The same where a proxy knows lists only (legacy tests)."""
    while True:
        found = await redis("BLPOP", key, "10")
        if isinstance(found, list) and len(found) == 2 and isinstance(found[1], bytes):
            return found[1].decode()
