"""TLS of the web below a WebSocket, by Python's ``ssl`` over buffers in memory.

Trio's ``SSLStream`` switches tasks for every record of 16 KiB, which costs more than decrypting it, and whoever uses it
has to wait. Here nobody has to:

    send:     data ─ OpenSSL ─▶ its output ─▶ the stream below
    receive:  the stream below ─▶ the caller's buffer ─▶ OpenSSL's input ─▶ the caller's buffer

*What the stream below does not take* is encrypted and cannot be taken back. All of the data but its last byte counts as
taken then, and whoever sends comes back with that byte, as :meth:`~libp2p.abc.DirectStream.send_nowait` obliges him to,
until everything is out.

What a certificate must be is up to the context.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import cast

import trio

from ...abc import Buffer, DirectStream
from ._layer import RECEIVE_SIZE, LayerStream

MAX_SILENT = 64 * 1024
"""Bytes without any content that a peer may send between two with content: empty records, key updates, tickets."""
MAX_ANSWERS = 16 * 1024
"""Bytes that a peer may make OpenSSL answer, by asking for new keys, while nothing of ours is sent."""


class TlsStream(LayerStream):
    """TLS over ``raw``, which it owns.

    Args:
        server_name: whom a client wants to talk to; None for a server.
    """

    __slots__ = ("_broken", "_ended", "_incoming", "_outgoing", "_read", "_silent", "_tls", "_unread", "_unsent")

    def __init__(self, raw: DirectStream, context: ssl.SSLContext, *, server_name: str | None = None) -> None:
        super().__init__(raw)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(
            self._incoming, self._outgoing, server_side=server_name is None, server_hostname=server_name
        )
        self._read = cast("Callable[[int, memoryview], int]", self._tls.read)  # its stubs know bytearrays only
        self._unread = True  # something may come with the end of the handshake
        self._unsent = memoryview(b"")
        self._silent = 0
        self._ended = False
        self._broken: ssl.SSLError | None = None

    async def shake_hands(self) -> None:
        """Run the handshake.

        Raises:
            trio.BrokenResourceError: it failed; the cause is the error of ``ssl``.
        """
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                await self._raw.send_all(self._outgoing.read())
                self._take(await self._raw.receive_some(RECEIVE_SIZE))
            except ssl.SSLError as exc:
                try:
                    await self._raw.send_all(self._outgoing.read())  # an alert, which says why
                except trio.BrokenResourceError:
                    pass
                raise trio.BrokenResourceError("TLS failed") from exc
            else:
                await self._raw.send_all(self._outgoing.read())
                return

    def _take(self, received: Buffer) -> None:
        if len(received):
            self._incoming.write(received)
        else:
            self._incoming.write_eof()
        self._unread = True

    # --- receiving

    async def wait_readable(self) -> None:
        if self._unread:
            await trio.lowlevel.checkpoint()
        else:
            await self._raw.wait_readable()

    def receive_into_nowait(self, buffer: memoryview) -> int:
        self._check_open()
        filled = self._decrypt(buffer)
        if not filled and not self._ended:
            received = self._raw.receive_into_nowait(buffer)
            self._take(buffer[:received])
            filled = self._decrypt(buffer)
            self._silent = 0 if filled else self._silent + received
            if self._silent > MAX_SILENT or self._outgoing.pending > MAX_ANSWERS:
                self._ended, self._broken = True, ssl.SSLError("records without content and without end")
        if not filled and self._broken is not None:
            raise trio.BrokenResourceError(f"TLS failed: {self._broken}") from self._broken
        if not filled and not self._ended:
            raise trio.WouldBlock  # there was no whole record, or none for us. One read, one turn.
        return filled

    def _decrypt(self, buffer: memoryview) -> int:
        """Fill ``buffer`` with what OpenSSL has got, and note why there is no more."""
        filled = 0
        try:
            while self._unread and filled < len(buffer):
                size = self._read(len(buffer) - filled, buffer[filled:])
                filled += size
                if not size:
                    self._unread, self._ended = False, True
        except ssl.SSLWantReadError:
            self._unread = False
        except ssl.SSLError as exc:
            self._unread, self._ended = False, True
            # An end without TLS's own farewell is usual on the web; what runs inside knows whether it is one.
            self._broken = None if isinstance(exc, ssl.SSLEOFError) else exc
        return filled

    # --- sending

    def send_nowait(self, data: Buffer) -> int:
        self._check_open()
        if not len(data):
            return 0
        taken = 1  # the byte that was kept back
        if not self._unsent:
            taken = len(data)
            try:
                self._tls.write(data)
            except ssl.SSLError as exc:
                raise trio.BrokenResourceError(f"TLS failed: {exc}") from exc
            self._unsent = memoryview(self._outgoing.read())
        try:
            self._unsent = self._unsent[self._raw.send_nowait(self._unsent) :]
        except trio.WouldBlock:
            pass
        taken -= bool(self._unsent)
        if not taken:
            raise trio.WouldBlock
        return taken

    async def aclose(self) -> None:
        """Say farewell if there is room for it, and close. Does not wait."""
        if not self._closed:
            self._closed = True
            if not self._unsent:
                try:
                    self._tls.unwrap()
                except ssl.SSLError:
                    pass  # the peer's is not waited for; before the end of the handshake there is none
                try:
                    self._raw.send_nowait(self._outgoing.read())
                except (trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
                    pass
        await self._raw.aclose()
