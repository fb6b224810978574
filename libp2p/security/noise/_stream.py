"""Transport records: a two-byte length, then up to 65519 bytes of plaintext and a 16-byte tag.

This is the hottest file of the library, and shaped by measurements. One call of the cipher costs 1.5 µs whatever
its size, so small buffers are joined into one record. Copying 64 KiB costs as much as a tenth of encrypting it, so
large buffers are encrypted where they lie, straight into the send buffer, and each received record is decrypted into a
fresh ``bytes`` that is handed on as it is. How both directions try the socket first is in
:class:`~libp2p.security._record_stream.RecordStream`.

The two large buffers belong to the host's :class:`Noise` object and serve all its connections: nothing awaits while
they are in use. A connection keeps only what it cannot finish: the front of an incomplete record, and the tail the
kernel did not take.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from trio.abc import Stream as ByteStream

from ..._util.heap import keep_freed_memory
from ...abc import Buffer
from ...errors import LocalProtocolError, SecurityError
from .._sealed_stream import RECEIVE_SIZE, SealedStream
from ._machine import MAX_NONCE, MAX_PLAINTEXT, MAX_RECORD, TAG_SIZE, CipherState, pack_nonce

SEND_RECORDS = 8
"""Full records handed to the socket at a time."""
JOIN_BELOW = 16 * 1024
"""Buffers smaller than this are joined with their neighbours into one record."""
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


class NoiseStream(SealedStream):
    """An encrypted byte stream over ``raw``, which it owns."""

    __slots__ = ("_aead_in", "_aead_out", "_empty", "_nonce_in", "_nonce_out", "_scratch")

    def __init__(
        self, raw: ByteStream, *, send: CipherState, receive: CipherState, scratch: Scratch, initial: bytes = b""
    ) -> None:
        super().__init__(raw, scratch.receive, initial)
        self._aead_out, self._nonce_out = send.aead, send.nonce
        self._aead_in, self._nonce_in = receive.aead, receive.nonce
        self._scratch = scratch
        self._empty = 0

    # --- receiving

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
        self._opened = nonce - self._nonce_in
        self._count_empty(self._opened, chunks)
        self._nonce_in = nonce
        return chunks

    def _count_empty(self, records: int, chunks: list[bytes]) -> None:
        self._empty = 0 if chunks else self._empty + records
        if self._empty > MAX_EMPTY_RECORDS or records - len(chunks) > MAX_EMPTY_RECORDS:
            raise SecurityError("the peer sends empty records without end", stage="record")

    def _check_end(self) -> None:
        if self._left:
            raise SecurityError("the stream ended inside a record", stage="record")

    # --- sending

    def write(self, buffers: Sequence[Buffer]) -> bool:
        self._check_flushed()
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
            self._push(self._scratch.send[:used])
        return not self._pending

    def _seal(self, plaintext: Buffer, used: int) -> int:
        """Append one record to the send buffer; returns the new fill."""
        buffer = self._scratch.send
        size = len(plaintext) + TAG_SIZE
        if used + 2 + size > len(buffer):
            self._push(buffer[:used])
            used = 0
        if self._nonce_out >= MAX_NONCE:
            raise LocalProtocolError("all nonces of this connection are used up")
        _pack_length(buffer, used, size)
        start = used + 2
        self._aead_out.encrypt_into(pack_nonce(0, self._nonce_out), plaintext, None, buffer[start : start + size])
        self._nonce_out += 1
        return start + size
