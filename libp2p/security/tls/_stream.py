"""Records of an established TLS connection, by OpenSSL over buffers in memory.

    write:    payload ─ OpenSSL ─▶ its output buffer ─▶ kernel
    receive:  kernel ─▶ shared buffer ─▶ OpenSSL's input buffer ─▶ payload

OpenSSL's buffers grow and never shrink, so they are filled and emptied in pieces of :data:`PIECE`.

A record holds 16 KiB, and each chunk costs the muxer and its stream as much as decrypting one. So the records of a
piece are decrypted side by side into a buffer, and handed on as one. pyOpenSSL makes a buffer for each call and copies
out of it, so ``SSL_read`` and ``BIO_read`` are called by hand, at the binding it is made of. Both together took a fifth
of a receiver's time.

No ``await`` lies between encrypting and handing over what was encrypted, nor while a shared buffer is in use.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from typing import Any, cast

import trio
from cryptography.hazmat.bindings.openssl.binding import Binding
from OpenSSL import SSL
from trio.abc import Stream as ByteStream

from ..._util.heap import keep_freed_memory
from ...abc import Buffer, DirectStream
from ...errors import SecurityError
from .._record_stream import RecordStream

BATCH = 256 * 1024
"""Bytes read from below at a time, and given to the kernel at a time."""
PIECE = 64 * 1024
"""Bytes given to OpenSSL at a time: they stay in the processor's cache from one copy to the next. A connection that
moved as many keeps as many, in either direction."""
MAX_PLAINTEXT = 16 * 1024
"""Most content of a record (RFC 8446 section 5.1)."""
RECORD_HEADER = 5
"""Bytes: type, version, length."""
APPLICATION_DATA = 23
"""What every record is on the outside once the handshake is done."""
MAX_CIPHERTEXT = MAX_PLAINTEXT + 256
"""Longest record (RFC 8446 section 5.2)."""
MAX_SILENT = 64 * 1024
"""Bytes without any content that a peer may send between two with content: empty records, key updates, tickets."""
MAX_ANSWERS = 16 * 1024
"""Bytes that a peer may make OpenSSL answer, by asking for new keys, while nothing of ours is sent."""
MAX_EARLY = 4096
"""More records than can have come with the last handshake message."""
CLOSE_GRACE = 1.0
"""Seconds that the farewell may take over a stream that cannot take it at once."""

_ffi: Any = Binding.ffi
_ssl_read: Any = Binding.lib.SSL_read
_bio_read: Any = Binding.lib.BIO_read


class Scratch:
    """The buffers all connections of a host share.

    Attributes:
        received: what came from below.
        target: for OpenSSL to write to.
        filled: the same memory, to read what it wrote.
    """

    __slots__ = ("filled", "received", "target")

    def __init__(self) -> None:
        keep_freed_memory()
        # Pages take memory when they are first used.
        self.received: memoryview = memoryview(mmap.mmap(-1, BATCH))
        self.target: Any = _ffi.new_allocator(should_clear_after_alloc=False)("char[]", BATCH)
        self.filled: memoryview = memoryview(_ffi.buffer(self.target))


def take_output(connection: SSL.Connection) -> bytes:
    """What OpenSSL wants to send, where it is little; drains."""
    parts: list[bytes] = []
    try:
        while True:
            parts.append(connection.bio_read(MAX_CIPHERTEXT))
    except SSL.WantReadError:
        return b"".join(parts)


def explain(error: SSL.Error) -> str:
    """OpenSSL's reason, in its own words."""
    queue = cast("list[tuple[str, str, str]]", error.args[0] if error.args and isinstance(error.args[0], list) else [])
    return "; ".join(reason for _, _, reason in queue) or "TLS failed"


class RecordCounter:
    """Counts the records that are whole in what the peer has sent.

    So that OpenSSL is asked as often as it has something to give: each time it has not, it raises, which costs as much
    as decrypting a record.
    """

    __slots__ = ("_header", "_left")

    def __init__(self) -> None:
        self._header = b""
        self._left = 0

    def feed(self, data: memoryview) -> int:
        """How many records end within ``data``; one that OpenSSL will not like ends with its header."""
        count, pos, size = 0, 0, len(data)
        while pos < size:
            if not self._left:
                header = data[pos : pos + RECORD_HEADER - len(self._header)]
                pos += len(header)
                self._header = self._header + bytes(header)
                if len(self._header) < RECORD_HEADER:
                    break
                self._left = self._header[3] << 8 | self._header[4]
                count += self._header[0] != APPLICATION_DATA or self._left > MAX_CIPHERTEXT
                self._header = b""
            step = min(self._left, size - pos)
            self._left -= step
            pos += step
            count += not self._left
        return count


class TlsStream(RecordStream):
    """An encrypted byte stream over ``raw``, which it owns.

    Args:
        connection: OpenSSL's side of it, after the handshake and after the peer was identified.
        counter: has seen all the peer sent so far.
        scratch: the host's.
    """

    __slots__ = (
        "_answers",
        "_broken",
        "_connection",
        "_counter",
        "_early",
        "_finished",
        "_scratch",
        "_silent",
        "_unchecked",
    )

    def __init__(
        self, raw: ByteStream, connection: SSL.Connection, counter: RecordCounter, *, scratch: Scratch
    ) -> None:
        super().__init__(raw)
        self._connection = connection
        self._counter = counter
        self._scratch = scratch
        self._early = True
        self._finished = False
        self._broken = ""
        self._answers = bytearray()
        self._unchecked = 0
        self._silent = 0

    # --- receiving

    async def _receive(self) -> Sequence[bytes]:
        if self._early:
            # Bytes that came with the last handshake message may hold whole records.
            self._early = False
            if chunks := self._open(memoryview(b""), MAX_EARLY):
                return chunks
        if self._broken:
            raise SecurityError(self._broken, stage="record")
        if self._finished:
            await trio.lowlevel.checkpoint()
            return ()
        return await (self._receive_direct(self._direct) if self._direct is not None else self._receive_plain())

    async def _receive_direct(self, direct: DirectStream) -> Sequence[bytes]:
        while True:
            buffer = self._scratch.received
            received = await self._receive_into(direct, buffer)
            if not received:
                raise _cut_off()
            if (chunks := self._open(buffer[:received])) or self._finished:
                return chunks

    async def _receive_plain(self) -> Sequence[bytes]:
        while True:
            data = await self._raw.receive_some(BATCH)
            if not data:
                raise _cut_off()
            if (chunks := self._open(memoryview(data))) or self._finished:
                return chunks

    def _open(self, data: memoryview, early: int = 0) -> list[bytes]:
        """Decrypt every whole record, ``early`` of them that are there already; OpenSSL keeps what is left."""
        chunks: list[bytes] = []
        for start in range(0, len(data) or 1, PIECE):
            piece = data[start : start + PIECE]
            if size := self._decrypt(piece, early + self._counter.feed(piece)):
                chunks.append(bytes(self._scratch.filled[:size]))
            if self._broken or self._finished:
                break
        self._count(len(data), bool(chunks))
        if self._broken:
            raise SecurityError(self._broken, stage="record")
        return chunks

    def _decrypt(self, piece: memoryview, records: int) -> int:
        """Decrypt up to ``records`` into the shared buffer; returns how many bytes they hold."""
        connection, target, filled = self._connection, self._scratch.target, 0
        try:
            if piece:
                connection.bio_write(piece)
            for _ in range(records):
                assert filled <= BATCH - MAX_PLAINTEXT
                size: int = _ssl_read(connection._ssl, target + filled, MAX_PLAINTEXT)
                if size <= 0:
                    connection._raise_ssl_error(connection._ssl, size)
                filled += size
        except SSL.WantReadError:
            pass  # a record that was not data
        except SSL.ZeroReturnError:
            self._finished = True
        except SSL.Error as exc:
            self._broken = explain(exc)
        return filled

    def _count(self, received: int, content: bool) -> None:
        """Bound what a peer can have for nothing."""
        self._silent = 0 if content else self._silent + received
        self._unchecked += received
        if self._unchecked >= PIECE:
            self._unchecked = 0
            self._answers += take_output(self._connection)
        if self._silent > MAX_SILENT or len(self._answers) > MAX_ANSWERS:
            self._broken = self._broken or "the peer sends records without content and without end"

    # --- sending

    def write(self, buffers: Sequence[Buffer]) -> bool:
        self._check_flushed()
        # Joined, though it copies: a record more costs both sides more than that.
        view = memoryview(buffers[0] if len(buffers) == 1 else b"".join(buffers))
        if self._answers:
            self._push(memoryview(bytes(self._answers)))
            self._answers.clear()
        filled = 0
        for start in range(0, len(view), PIECE):
            try:
                self._connection.send(view[start : start + PIECE])
            except SSL.Error as exc:
                raise trio.BrokenResourceError(f"TLS cannot send any more: {explain(exc)}") from exc
            filled = self._collect(filled)
        self._push(self._scratch.filled[:filled])
        return not self._pending

    def _collect(self, filled: int) -> int:
        """Move what OpenSSL has encrypted to the shared buffer, and on when that is full; returns its new fill."""
        scratch = self._scratch
        while (size := _bio_read(self._connection._from_ssl, scratch.target + filled, BATCH - filled)) > 0:
            filled += size
            if filled == BATCH:
                self._push(scratch.filled)
                filled = 0
        return filled

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
                self._send_now(memoryview(farewell))
            else:
                with trio.move_on_after(CLOSE_GRACE):
                    await self._raw.send_all(farewell)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass


def _cut_off() -> trio.BrokenResourceError:
    # Without TLS's own farewell it may be anybody who ended the connection.
    return trio.BrokenResourceError("the peer's connection ended without a farewell")
