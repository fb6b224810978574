"""Records of an established TLS connection, by OpenSSL over buffers in memory.

    write:    payload ─ OpenSSL ─▶ its output buffer ─▶ kernel
    receive:  kernel ─▶ shared buffer ─▶ OpenSSL's input buffer ─▶ payload

OpenSSL's buffers grow and never shrink, so they are filled and emptied in pieces of :data:`PIECE`. A record holds 16
KiB; what one read brought in is handed on joined, because each chunk costs the muxer more than its copy.

Like Noise's, these methods try the stream below first and wait only when it says so, and no ``await`` lies between
encrypting and handing over what was encrypted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import cast

import trio
from OpenSSL import SSL
from trio.abc import Stream as ByteStream

from ...abc import Buffer, DirectStream, SecureStream
from ...errors import SecurityError

RECEIVE_SIZE = 256 * 1024
"""Bytes asked of the stream below at a time."""
PIECE = 64 * 1024
"""Bytes given to OpenSSL at a time, in either direction."""
MAX_PLAINTEXT = 16 * 1024
"""Most content of a record (RFC 8446 section 5.1)."""
RECORD_OVERHEAD = 22
"""What a record adds to its content: header, type and tag."""
JOIN_BELOW = 16 * 1024
"""Buffers smaller than this are joined with their neighbours."""
CHECKPOINT_EVERY = 8
"""Receives without a pause before other tasks get a turn."""
MAX_SILENT = 64 * 1024
"""Bytes without any content that a peer may send between two with content: empty records, key updates, tickets."""
MAX_ANSWERS = 16 * 1024
"""Bytes that a peer may make OpenSSL answer, by asking for new keys, while nothing of ours is sent."""
CLOSE_GRACE = 1.0
"""Seconds that the farewell may take over a stream that cannot take it at once."""

_OUTPUT_SIZE = PIECE + JOIN_BELOW + 1024


def take_output(connection: SSL.Connection) -> bytes:
    """What OpenSSL wants to send; drains."""
    parts: list[bytes] = []
    try:
        while not parts or len(parts[-1]) == _OUTPUT_SIZE:
            parts.append(connection.bio_read(_OUTPUT_SIZE))
    except SSL.WantReadError:
        pass
    return parts[0] if len(parts) == 1 else b"".join(parts)


def explain(error: SSL.Error) -> str:
    """OpenSSL's reason, in its own words."""
    queue = cast("list[tuple[str, str, str]]", error.args[0] if error.args and isinstance(error.args[0], list) else [])
    return "; ".join(reason for _, _, reason in queue) or "TLS failed"


class TlsStream(SecureStream):
    """An encrypted byte stream over ``raw``, which it owns.

    Args:
        connection: OpenSSL's side of it, after the handshake and after the peer was identified.
        scratch: :data:`RECEIVE_SIZE` bytes that all connections of a host share; nothing awaits while they are in use.
    """

    __slots__ = (
        "_answers",
        "_broken",
        "_chunks",
        "_connection",
        "_direct",
        "_early",
        "_finished",
        "_pending",
        "_raw",
        "_scratch",
        "_silent",
        "_turns",
        "_unchecked",
    )

    def __init__(self, raw: ByteStream, connection: SSL.Connection, *, scratch: memoryview) -> None:
        self._raw = raw
        self._direct = raw if isinstance(raw, DirectStream) else None
        self._connection = connection
        self._scratch = scratch
        self._early = True
        self._finished = False
        self._broken = ""
        self._pending = bytearray()
        self._answers = bytearray()
        self._unchecked = 0
        self._chunks: deque[bytes] = deque()
        self._silent = 0
        self._turns = 0

    @property
    def raw(self) -> ByteStream:
        """The stream below."""
        return self._raw

    @property
    def kernel(self) -> bool:
        return self._direct is not None and self._direct.kernel

    # --- receiving

    async def receive_chunks(self) -> Sequence[bytes]:
        if self._chunks:
            chunks = list(self._chunks)
            self._chunks.clear()
            return chunks
        if self._early:
            # Bytes that came with the last handshake message may hold whole records.
            self._early = False
            if chunks := self._open(memoryview(b"")):
                return chunks
        if self._broken:
            raise SecurityError(self._broken, stage="record")
        if self._finished:
            await trio.lowlevel.checkpoint()
            return ()
        return await (self._receive_direct(self._direct) if self._direct is not None else self._receive_plain())

    async def _receive_direct(self, direct: DirectStream) -> Sequence[bytes]:
        buffer = self._scratch
        while True:
            self._turns += 1
            if self._turns >= CHECKPOINT_EVERY:
                self._turns = 0
                await trio.lowlevel.checkpoint()
            try:
                received = direct.receive_into_nowait(buffer)
            except trio.WouldBlock:
                self._turns = 0
                await direct.wait_readable()
                continue
            if not received:
                raise _cut_off()
            if (chunks := self._open(buffer[:received])) or self._finished:
                return chunks

    async def _receive_plain(self) -> Sequence[bytes]:
        while True:
            data = await self._raw.receive_some(RECEIVE_SIZE)
            if not data:
                raise _cut_off()
            if (chunks := self._open(memoryview(data))) or self._finished:
                return chunks

    def _open(self, data: memoryview) -> list[bytes]:
        """Decrypt every whole record; OpenSSL keeps what is left."""
        chunks: list[bytes] = []
        connection = self._connection
        try:
            for start in range(0, len(data) or 1, PIECE):
                if piece := data[start : start + PIECE]:
                    connection.bio_write(piece)
                try:
                    while True:
                        chunks.append(connection.recv(MAX_PLAINTEXT))
                except SSL.WantReadError:
                    pass
        except SSL.ZeroReturnError:
            self._finished = True
        except SSL.Error as exc:
            self._broken = explain(exc)
        self._count(len(data), bool(chunks))
        if self._broken:
            raise SecurityError(self._broken, stage="record")
        return chunks

    def _count(self, received: int, content: bool) -> None:
        """Bound what a peer can have for nothing."""
        self._silent = 0 if content else self._silent + received
        self._unchecked += received
        if self._unchecked >= PIECE:
            self._unchecked = 0
            self._answers += take_output(self._connection)
        if self._silent > MAX_SILENT or len(self._answers) > MAX_ANSWERS:
            self._broken = self._broken or "the peer sends records without content and without end"

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive up to ``max_bytes``, as in Trio; for negotiations that run before the muxer takes over."""
        await trio.lowlevel.checkpoint()
        if not self._chunks:
            self._chunks.extend(await self.receive_chunks())
        if not self._chunks:
            return b""
        chunk = self._chunks.popleft()
        if max_bytes is not None and len(chunk) > max_bytes:
            self._chunks.appendleft(chunk[max_bytes:])
            chunk = chunk[:max_bytes]
        return chunk

    # --- sending

    def write(self, buffers: Sequence[Buffer]) -> bool:
        if self._pending:
            raise trio.BusyResourceError("flush the last write first")
        small: list[Buffer] = []
        small_size = sealed = 0
        for data in buffers:
            size = len(data)
            if size < JOIN_BELOW:
                small.append(data)
                small_size += size
                if small_size >= JOIN_BELOW:
                    sealed = self._seal(b"".join(small), sealed)
                    small, small_size = [], 0
                continue
            if small:
                sealed = self._seal(b"".join(small), sealed)
                small, small_size = [], 0
            view = memoryview(data)
            for start in range(0, size, PIECE):
                sealed = self._seal(view[start : start + PIECE], sealed)
        if small_size:
            sealed = self._seal(small[0] if len(small) == 1 else b"".join(small), sealed)
        if sealed:
            self._push()
        return not self._pending

    def _seal(self, plaintext: Buffer, sealed: int) -> int:
        """Encrypt one piece into OpenSSL's output buffer; returns how much plaintext is in there now."""
        try:
            self._connection.send(plaintext)
        except SSL.Error as exc:
            raise trio.BrokenResourceError(f"TLS cannot send any more: {explain(exc)}") from exc
        sealed += len(plaintext)
        if sealed < PIECE:
            return sealed
        self._push()
        return 0

    def _push(self) -> None:
        """Give what OpenSSL has encrypted to the kernel; keep what it does not take."""
        output = take_output(self._connection)
        if self._answers:
            output = bytes(self._answers) + output
            self._answers.clear()
        sent = self._send_direct(output)
        if sent < len(output):
            self._pending += memoryview(output)[sent:]

    def _send_direct(self, output: bytes) -> int:
        """Hand the front of ``output`` to the kernel, if that is possible and nothing waits before it."""
        sent = 0
        if self._direct is not None and not self._pending:
            view = memoryview(output)
            try:
                while sent < len(output):
                    sent += self._direct.send_nowait(view[sent:])
            except trio.WouldBlock:
                pass
        return sent

    async def flush(self) -> None:
        """Send what :meth:`write` left behind.

        Over a stream that is not direct, cancelling leaves the connection unusable: part of a record may be out.
        """
        direct = self._direct
        view = memoryview(bytes(self._pending))
        if direct is None:
            await self._raw.send_all(view)
            self._pending.clear()
            return
        sent = 0
        try:
            while sent < len(view):
                try:
                    sent += direct.send_nowait(view[sent:])
                except trio.WouldBlock:
                    await direct.wait_writable()
        finally:
            del self._pending[:sent]

    async def send_all(self, data: Buffer) -> None:
        """Encrypt and send all of ``data``."""
        await trio.lowlevel.checkpoint()
        if not self.write((data,)):
            await self.flush()

    async def wait_send_all_might_not_block(self) -> None:
        """As in Trio."""
        await self._raw.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Say farewell, where that is possible at once or soon, and close the stream below."""
        try:
            await self._say_farewell()
        finally:
            await self._raw.aclose()

    async def _say_farewell(self) -> None:
        if self._pending:
            return  # in the middle of a record; the peer takes it for cut off, as it is
        try:
            self._connection.shutdown()
        except SSL.Error:
            return  # it was broken before
        farewell = bytes(self._answers) + take_output(self._connection)
        try:
            if self._direct is not None:
                self._send_direct(farewell)
            else:
                with trio.move_on_after(CLOSE_GRACE):
                    await self._raw.send_all(farewell)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass


def _cut_off() -> trio.BrokenResourceError:
    # Without TLS's own farewell it may be anybody who ended the connection.
    return trio.BrokenResourceError("the peer's connection ended without a farewell")
