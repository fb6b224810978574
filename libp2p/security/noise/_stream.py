"""Transport records: a two-byte length, then up to 65519 bytes of plaintext and a 16-byte tag.

This is the hottest file of the library, and shaped by three measurements. One call of the cipher costs 1.5 µs whatever
its size, so small buffers are joined into one record. Copying 64 KiB costs as much as a tenth of encrypting it, so
large buffers are encrypted where they lie, straight into the send buffer, and each received record is decrypted into a
fresh ``bytes`` that is handed on as it is. A task switch costs 5 to 11 µs, so both directions try the socket first and
wait only when it says so.

The two large buffers belong to the host's :class:`Noise` object and serve all its connections: nothing awaits while
they are in use. A connection keeps only what it cannot finish: the front of an incomplete record, and the tail the
kernel did not take.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Sequence

import trio
from cryptography.exceptions import InvalidTag
from trio.abc import Stream as ByteStream

from ..._util.heap import keep_freed_memory
from ...abc import Buffer, DirectStream, SecureStream
from ...errors import LocalProtocolError, SecurityError
from ._machine import MAX_NONCE, MAX_PLAINTEXT, MAX_RECORD, TAG_SIZE, CipherState, pack_nonce

RECEIVE_SIZE = 1024 * 1024
"""Bytes asked of the socket at a time; 256 KiB cost a sixth more than 1 MiB, and 16 KiB two to three times as much."""
PLAIN_RECEIVE_SIZE = 256 * 1024
"""The same of a stream that makes a new ``bytes`` of this size each time."""
SEND_RECORDS = 8
"""Full records handed to the socket at a time."""
JOIN_BELOW = 16 * 1024
"""Buffers smaller than this are joined with their neighbours into one record."""
CHECKPOINT_EVERY = 8
"""Receives without a pause before other tasks get a turn."""
DRAINED_BELOW = 4096
"""A receive that brings less was all there was: to try again at once would be a call of the kernel for nothing."""
MAX_EMPTY_RECORDS = 1000
"""Records without content that a peer may send between two with content."""

_FULL_RECORD = 2 + MAX_RECORD
_pack_length = struct.Struct(">H").pack_into


class Scratch:
    """The buffers all connections of a host share."""

    __slots__ = ("receive", "send")

    def __init__(self) -> None:
        keep_freed_memory()
        # Pages of an anonymous mapping take memory when they are first used; a bytearray is zeroed, so all of it would.
        self.receive = memoryview(mmap.mmap(-1, RECEIVE_SIZE + _FULL_RECORD))
        self.send = memoryview(mmap.mmap(-1, SEND_RECORDS * _FULL_RECORD))


class NoiseStream(SecureStream):
    """An encrypted byte stream over ``raw``, which it owns."""

    __slots__ = (
        "_aead_in",
        "_aead_out",
        "_chunks",
        "_direct",
        "_drained",
        "_early",
        "_empty",
        "_left",
        "_nonce_in",
        "_nonce_out",
        "_pending",
        "_raw",
        "_scratch",
        "_turns",
    )

    def __init__(
        self, raw: ByteStream, *, send: CipherState, receive: CipherState, scratch: Scratch, initial: bytes = b""
    ) -> None:
        self._raw = raw
        self._direct = raw if isinstance(raw, DirectStream) else None
        self._aead_out, self._nonce_out = send.aead, send.nonce
        self._aead_in, self._nonce_in = receive.aead, receive.nonce
        self._scratch = scratch
        self._left = initial
        self._early = bool(initial)
        self._pending = bytearray()
        self._chunks: list[bytes] = []
        self._turns = 0
        self._drained = False
        self._empty = 0

    @property
    def raw(self) -> ByteStream:
        """The stream below."""
        return self._raw

    # --- receiving

    @property
    def kernel(self) -> bool:
        return self._direct is not None and self._direct.kernel

    async def receive_chunks(self) -> Sequence[bytes]:
        if self._chunks:
            chunks, self._chunks = self._chunks, []
            return chunks
        if self._early:
            # Bytes that came with the last handshake message may hold whole records.
            self._early = False
            buffer = memoryview(self._left)
            if chunks := self._open(buffer, len(buffer)):
                return chunks
        return await (self._receive_direct(self._direct) if self._direct is not None else self._receive_plain())

    async def _receive_direct(self, direct: DirectStream) -> Sequence[bytes]:
        buffer = self._scratch.receive
        while True:
            self._turns += 1
            if self._turns >= CHECKPOINT_EVERY:
                self._turns = 0
                await trio.lowlevel.checkpoint()
            have = len(self._left)
            if self._drained:
                self._turns = 0
                await direct.wait_readable()
            try:
                received = direct.receive_into_nowait(buffer[have : have + RECEIVE_SIZE])
            except trio.WouldBlock:
                self._drained = True
                continue
            self._drained = received < DRAINED_BELOW
            if not received:
                return self._end()
            if have:
                buffer[:have] = self._left
            if chunks := self._open(buffer, have + received):
                return chunks

    async def _receive_plain(self) -> Sequence[bytes]:
        while True:
            data = await self._raw.receive_some(PLAIN_RECEIVE_SIZE)
            if not data:
                return self._end()
            if self._left:
                data = self._left + data
            if chunks := self._open(memoryview(data), len(data)):
                return chunks

    def _open(self, buffer: memoryview, end: int) -> list[bytes]:
        """Decrypt every whole record in ``buffer[:end]`` and keep what is left."""
        chunks: list[bytes] = []
        decrypt, nonce, start = self._aead_in.decrypt, self._nonce_in, 0
        try:
            while end - start >= 2:
                stop = start + 2 + (buffer[start] << 8 | buffer[start + 1])
                if stop > end:
                    break
                if nonce >= MAX_NONCE:
                    raise SecurityError("the peer used up all nonces", stage="record")
                chunk = decrypt(pack_nonce(0, nonce), buffer[start + 2 : stop], None)
                nonce += 1
                start = stop
                if chunk:
                    chunks.append(chunk)
        except (InvalidTag, ValueError):
            raise SecurityError("a record does not authenticate", stage="record") from None
        self._left = bytes(buffer[start:end]) if start < end else b""
        self._count_empty(nonce - self._nonce_in, chunks)
        self._nonce_in = nonce
        return chunks

    def _count_empty(self, records: int, chunks: list[bytes]) -> None:
        self._empty = 0 if chunks else self._empty + records
        if self._empty > MAX_EMPTY_RECORDS or records - len(chunks) > MAX_EMPTY_RECORDS:
            raise SecurityError("the peer sends empty records without end", stage="record")

    def _end(self) -> Sequence[bytes]:
        if self._left:
            raise SecurityError("the stream ended inside a record", stage="record")
        return ()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Receive up to ``max_bytes``, as in Trio; for negotiations that run before the muxer takes over."""
        await trio.lowlevel.checkpoint()
        if not self._chunks:
            self._chunks.extend(await self.receive_chunks())
        if not self._chunks:
            return b""
        chunk = self._chunks.pop(0)
        if max_bytes is not None and len(chunk) > max_bytes:
            self._chunks.insert(0, chunk[max_bytes:])
            chunk = chunk[:max_bytes]
        return chunk

    # --- sending

    def write(self, buffers: Sequence[Buffer]) -> bool:
        if self._pending:
            raise trio.BusyResourceError("flush the last write first")
        small: list[Buffer] = []
        small_size = used = 0
        for data in buffers:
            size = len(data)
            if size < JOIN_BELOW:
                if small_size + size > MAX_PLAINTEXT:
                    used = self._seal(b"".join(small), used)
                    small, small_size = [], 0
                small.append(data)
                small_size += size
                continue
            if small:
                used = self._seal(b"".join(small), used)
                small, small_size = [], 0
            if size <= MAX_PLAINTEXT:
                used = self._seal(data, used)
                continue
            view = memoryview(data)
            for start in range(0, size, MAX_PLAINTEXT):
                piece = view[start : start + MAX_PLAINTEXT]
                if len(piece) < JOIN_BELOW:
                    small.append(piece)
                    small_size = len(piece)
                else:
                    used = self._seal(piece, used)
        if small:
            used = self._seal(small[0] if len(small) == 1 else b"".join(small), used)
        if used:
            self._push(used)
        return not self._pending

    def _seal(self, plaintext: Buffer, used: int) -> int:
        """Append one record to the send buffer; returns the new fill."""
        buffer = self._scratch.send
        size = len(plaintext) + TAG_SIZE
        if used + 2 + size > len(buffer):
            self._push(used)
            used = 0
        if self._nonce_out >= MAX_NONCE:
            raise LocalProtocolError("all nonces of this connection are used up")
        _pack_length(buffer, used, size)
        start = used + 2
        self._aead_out.encrypt_into(pack_nonce(0, self._nonce_out), plaintext, None, buffer[start : start + size])
        self._nonce_out += 1
        return start + size

    def _push(self, used: int) -> None:
        """Give ``used`` bytes of the send buffer to the kernel; keep what it does not take."""
        buffer = self._scratch.send
        sent = 0
        if self._direct is not None and not self._pending:
            try:
                while sent < used:
                    sent += self._direct.send_nowait(buffer[sent:used])
            except trio.WouldBlock:
                pass
        if sent < used:
            self._pending += buffer[sent:used]

    async def flush(self) -> None:
        """Send what :meth:`write` left behind.

        Over a stream that is not direct, cancelling leaves the connection unusable: part of a record may be out.
        """
        direct = self._direct
        if direct is None:
            pending, self._pending = self._pending, bytearray()
            await self._raw.send_all(memoryview(pending))
            return
        sent = 0
        try:
            # The tail is at most a few hundred KiB, sent in as few steps as the kernel allows.
            view = memoryview(bytes(self._pending))
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
        """Close the stream below; Noise has no farewell of its own."""
        await self._raw.aclose()
