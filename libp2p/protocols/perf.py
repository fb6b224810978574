"""``/perf/1.0.0``: how fast is the connection to a peer?

The client says in eight bytes how many it wants back, sends as many as it likes and half-closes; the server reads to
the end, sends what was asked for and closes.

A server gives anybody as many bytes as they ask for, so it is for measurements and not among the default services:
``open_host(services=[Perf()])``.

Source: libp2p/specs, perf. The images that libp2p's test plans run under the same id put a second number into the
header; the specification has one, and so have go-libp2p and we.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass

import trio

from .._util.eager import receive_eagerly, send_eagerly
from ..abc import Buffer, Host, ProtocolId, Service, Stream, StreamHandler, Target
from ..errors import RemoteProtocolError

PERF: ProtocolId = "/perf/1.0.0"
"""The protocol id."""
CHUNK = 256 * 1024
"""Bytes given to the stream at a time."""
TURN = 256 * 1024
"""Bytes that are sent without giving other tasks a turn."""
LEAST = 1024
"""What a chunk counts at least towards a turn."""

_header = struct.Struct(">Q")


@dataclass(frozen=True, slots=True, kw_only=True)
class PerfResult:
    """What a measurement found.

    The upload lasts until the server has read it all, which it shows by its first byte or its end; the rest of the time
    is the download's. When nothing was uploaded, all of it is.
    """

    upload_bytes: int
    upload_seconds: float
    download_bytes: int
    download_seconds: float


class Perf(Service):
    """Takes what peers send, and sends what they ask for.

    Args:
        chunk: bytes given to a stream at a time.
    """

    def __init__(self, *, chunk: int = CHUNK) -> None:
        if chunk < 1:
            raise ValueError(f"cannot send in chunks of {chunk}")
        self._chunk = chunk

    @property
    def handlers(self) -> Mapping[ProtocolId, StreamHandler]:
        """The one protocol."""
        return {PERF: self._answer}

    async def _answer(self, stream: Stream) -> None:
        wanted = await _receive_header(stream)
        while await receive_eagerly(stream):
            pass
        await _send(stream, b"", wanted, self._chunk)


async def perf(host: Host, target: Target, *, upload: int, download: int, chunk: int = CHUNK) -> PerfResult:
    """Send bytes to a peer that serves :class:`Perf`, then get bytes from it.

    Args:
        host: the host to measure from.
        target: the peer; dialled when there is no connection.
        upload: bytes to send.
        download: bytes to ask for.
        chunk: bytes given to the stream at a time.

    Raises:
        ValueError: a size is negative or does not fit the protocol, or ``chunk`` is not positive.
        RemoteProtocolError: the peer sent more or less than it was asked for.
        DialError, NegotiationError, LimitExceeded: no stream could be opened.
        StreamReset, ConnectionClosed: the stream ended before all was there.
    """
    if upload < 0 or not 0 <= download < 1 << 64 or chunk < 1:
        raise ValueError(f"cannot upload {upload} and download {download} bytes in chunks of {chunk}")
    async with await host.open_stream(target, PERF) as stream:
        started = trio.current_time()
        await _send(stream, _header.pack(download), upload, chunk)
        await stream.send_eof()
        received = len(data := await stream.receive_some())
        turned = trio.current_time() if upload else started
        while data:
            received += len(data := await receive_eagerly(stream))
            if received > download:
                break
        ended = trio.current_time()
        if received != download:
            raise RemoteProtocolError(f"asked for {download} bytes, the peer sent {received} or more")
    return PerfResult(
        upload_bytes=upload,
        upload_seconds=turned - started,
        download_bytes=download,
        download_seconds=ended - turned,
    )


async def _receive_header(stream: Stream) -> int:
    """How much is asked for. What follows the header in its last chunk is upload, and of no meaning."""
    header = await receive_eagerly(stream)
    while len(header) < _header.size:
        data = await receive_eagerly(stream)
        if not data:
            raise RemoteProtocolError(f"the stream ended within its header of {_header.size} bytes")
        header = header + data
    number: int = _header.unpack_from(header)[0]
    return number


async def _send(stream: Stream, first: bytes, size: int, chunk: int) -> None:
    """Send ``first`` and ``size`` bytes more, of no meaning."""
    blank = bytes(min(size, chunk))
    data: Buffer = first + blank[: max(chunk - len(first), 1)]  # in one piece when they are few
    size -= len(data) - len(first)
    queued = 0  # since others had a turn
    while size:
        queued += max(len(data), LEAST)
        if queued >= TURN or not _sent_now(stream, data):
            await stream.send_all(data)
            queued = 0
        data = blank if size >= chunk else memoryview(blank)[:size]
        size -= len(data)
    await send_eagerly(stream, data)


def _sent_now(stream: Stream, data: Buffer) -> bool:
    try:
        stream.send_nowait(data)
    except trio.WouldBlock:
        return False
    return True
