"""A byte stream of a private network: every byte of the stream below, encrypted with a key that all members have.

Each side begins with 24 random bytes, and everything behind them is XSalsa20 with those as nonce. Ours are sent at
once and theirs are awaited only when something is read: a side that waited for the other's first byte before its own
would wait for ever for one that does the same.

There is no proof and no integrity in this: whoever lacks the key sees noise and says noise, and whatever is changed on
the way is changed. The security protocol above finds both out.

*Positions.* A byte can be encrypted once only, at its place in the stream. What was encrypted and not taken by the
kernel is kept, and stands in for the bytes that the caller will offer again, as
:meth:`~libp2p.abc.DirectStream.send_nowait` obliges it to.
"""

from __future__ import annotations

import trio
from trio.abc import Stream as ByteStream

from ..._util.conflict import ConflictGuard
from ...abc import Buffer, DirectStream
from ...errors import SecurityError
from ._salsa20 import NONCE_SIZE, Cipher, xsalsa20

PIECE = 64 * 1024
"""Most bytes encrypted at a time: what the kernel does not take of them is kept."""


class PskStream(ByteStream):
    """The stream of a private network over ``raw``, which it owns.

    Args:
        nonce: ours, which was sent.
    """

    def __init__(self, raw: ByteStream, key: bytes, nonce: bytes) -> None:
        self._raw = raw
        self._key = key
        self._out = xsalsa20(key, nonce)
        self._in: Cipher | None = None
        self._their_nonce = bytearray()
        self._sending = ConflictGuard("another task is sending on this stream")
        self._receiving = ConflictGuard("another task is receiving from this stream")

    @property
    def raw(self) -> ByteStream:
        """The stream below."""
        return self._raw

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """As in Trio."""
        with self._receiving:
            cipher = self._in or await self._receive_nonce()
            return _bytes(cipher.encrypt(bytes(await self._raw.receive_some(max_bytes)))) if cipher else b""

    async def _receive_nonce(self) -> Cipher | None:
        """Their cipher, once their nonce is there; None when the stream ends first."""
        while len(self._their_nonce) < NONCE_SIZE:
            # No byte more: what follows belongs to the caller, and to its limit.
            data = await self._raw.receive_some(NONCE_SIZE - len(self._their_nonce))
            if not data:
                self._ended_early()
                return None
            self._their_nonce += data
        self._in = xsalsa20(self._key, bytes(self._their_nonce))
        return self._in

    def _ended_early(self) -> None:
        if self._their_nonce:
            raise SecurityError("the stream ended inside the nonce of the private network", stage="private network")

    async def send_all(self, data: Buffer) -> None:
        """As in Trio. Cancelling leaves the stream unusable for sending: nobody knows what of it was sent."""
        with self._sending:
            await self._raw.send_all(_bytes(self._out.encrypt(bytes(data))))

    async def wait_send_all_might_not_block(self) -> None:
        """As in Trio."""
        with self._sending:
            await self._raw.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Close the stream below."""
        await self._raw.aclose()


class DirectPskStream(PskStream, DirectStream):
    """The same over a stream that can be used without a task switch."""

    def __init__(self, raw: DirectStream, key: bytes, nonce: bytes) -> None:
        super().__init__(raw, key, nonce)
        self._direct = raw
        self._ahead = memoryview(b"")

    @property
    def kernel(self) -> bool:
        return self._direct.kernel

    def receive_into_nowait(self, buffer: memoryview) -> int:
        while (cipher := self._in) is None:
            nonce = memoryview(bytearray(NONCE_SIZE - len(self._their_nonce)))
            received = self._direct.receive_into_nowait(nonce)
            if not received:
                self._ended_early()
                return 0
            self._their_nonce += nonce[:received]
            if len(self._their_nonce) == NONCE_SIZE:
                self._in = xsalsa20(self._key, bytes(self._their_nonce))
        received = self._direct.receive_into_nowait(buffer)
        cipher.encrypt(buffer[:received], output=buffer[:received])
        return received

    def send_nowait(self, data: Buffer) -> int:
        if not self._ahead:
            self._ahead = memoryview(_bytes(self._out.encrypt(memoryview(data)[:PIECE])))
        sent = self._direct.send_nowait(self._ahead[: len(data)])
        self._ahead = self._ahead[sent:]
        return sent

    async def send_all(self, data: Buffer) -> None:
        """As in Trio. Cancelling leaves the stream unusable for sending: nobody knows what of it was sent."""
        with self._sending:
            await trio.lowlevel.checkpoint()
            view = memoryview(data)
            while view:
                try:
                    view = view[self.send_nowait(view) :]
                except trio.WouldBlock:
                    await self._direct.wait_writable()

    async def wait_readable(self) -> None:
        await self._direct.wait_readable()

    async def wait_writable(self) -> None:
        await self._direct.wait_writable()


def _bytes(data: bytes | None) -> bytes:
    assert data is not None  # it is when no place for it was given
    return data
