"""A peer that speaks by hand, from the raw connection to the muxer's frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import trio
from trio.abc import Stream as ByteStream

from ._multistream import HEADER, line, read_line
from ._muxers import YamuxFrame, yamux_frames
from ._noise import Identity, NoiseXX, frame, handshake_payload

YAMUX = "/yamux/1.0.0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wants:
    """What a :class:`RawPeer` says in its handshake, where that differs from what is right.

    Attributes:
        muxers: its early list; empty to negotiate the muxer by multistream.
        muxer: what it then proposes.
        payload: the whole handshake payload.
        signature: the signature in the payload.
        key: the key message in the payload.
        extra: further protobuf fields of the payload.
        security: the security protocol it proposes.
    """

    muxers: Sequence[str] = ()
    muxer: str = YAMUX
    payload: bytes | None = None
    signature: bytes | None = None
    key: bytes | None = None
    extra: bytes = b""
    security: str = "/noise"


class RawPeer:
    """One end of a raw connection.

    Args:
        stream: the raw connection, which stays the caller's.
        identity: who it says it is; made from ``"raw"`` by default.
        dialer: whether it is the one that dialled.

    Attributes:
        remote_payload: what the node said in its handshake.
    """

    def __init__(self, stream: ByteStream, *, identity: Identity | None = None, dialer: bool = True) -> None:
        self.stream = stream
        self.identity: Identity = identity or Identity("raw")
        self.dialer = dialer
        self.noise: NoiseXX = NoiseXX(initiator=dialer)
        self.remote_payload: bytes = b""
        self._plain = b""
        self._frames: list[YamuxFrame] = []

    # --- step by step

    async def propose(self, protocol: str) -> str:
        """Agree on the raw connection, as a dialer; returns the answer."""
        await self.stream.send_all(HEADER + line(protocol))
        assert await read_line(self.stream) == "/multistream/1.0.0"
        return await read_line(self.stream)

    async def answer(self, *protocols: str) -> str:
        """Agree on the raw connection, as a listener; returns the protocol."""
        assert await read_line(self.stream) == "/multistream/1.0.0"
        await self.stream.send_all(HEADER)
        while (proposal := await read_line(self.stream)) not in protocols:
            await self.stream.send_all(line("na"))
        await self.stream.send_all(line(proposal))
        return proposal

    async def handshake(self, wants: Wants | None = None) -> None:
        """Run Noise, whatever ``wants`` makes of it. Raises EOFError when the node ends it."""
        wants = wants or Wants()
        if self.dialer:
            await self.send_message(self.noise.write())
            self.remote_payload = self.noise.read(await self.read_message())
            await self.send_message(self.noise.write(self.payload(wants)))
        else:
            self.noise.read(await self.read_message())
            await self.send_message(self.noise.write(self.payload(wants)))
            self.remote_payload = self.noise.read(await self.read_message())

    def payload(self, wants: Wants) -> bytes:
        """The payload that ``wants`` describes."""
        if wants.payload is not None:
            return wants.payload
        return handshake_payload(
            self.identity,
            self.noise.static_public,
            muxers=wants.muxers,
            signature=wants.signature,
            key=wants.key,
            extra=wants.extra,
        )

    async def connect(self, wants: Wants | None = None) -> None:
        """Everything up to the muxer."""
        wants = wants or Wants()
        if self.dialer:
            answer = await self.propose(wants.security)
            assert answer == wants.security, answer
        else:
            await self.answer(wants.security)
        await self.handshake(wants)
        if not wants.muxers:
            await self._agree_on_muxer(wants.muxer)

    async def _agree_on_muxer(self, muxer: str) -> None:
        if self.dialer:
            await self.send(HEADER + line(muxer))
            await self._skip(HEADER + line(muxer))
        else:
            await self._skip(HEADER + line(muxer))
            await self.send(HEADER + line(muxer))

    async def _skip(self, expected: bytes) -> None:
        while len(self._plain) < len(expected):
            self._plain = self._plain + await self.receive()
        assert self._plain.startswith(expected), self._plain
        self._plain = self._plain[len(expected) :]

    # --- messages and records

    async def send_message(self, message: bytes) -> None:
        """Send one handshake message behind its length."""
        await self.stream.send_all(frame(message))

    async def read_message(self) -> bytes:
        """One message or record, without its length. Raises EOFError."""
        size = int.from_bytes(await self._exactly(2), "big")
        return await self._exactly(size)

    async def _exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            chunk = await self.stream.receive_some(size - len(data))
            if not chunk:
                raise EOFError("the node closed the connection")
            data += chunk
        return bytes(data)

    async def send(self, data: bytes) -> None:
        """Send ``data`` in records."""
        pieces = [data[start : start + 65519] for start in range(0, len(data), 65519)]
        await self.stream.send_all(b"".join(map(self.noise.seal, pieces)))

    async def receive(self) -> bytes:
        """The bytes of the next record. Raises EOFError."""
        return self.noise.open(await self.read_message())

    # --- yamux

    async def next_frame(self) -> YamuxFrame:
        """The next frame of the node. Raises EOFError."""
        while not self._frames:
            found = list(yamux_frames(self._plain))
            if found:
                self._frames = found
                used = sum(12 + len(item.payload) for item in found)
                self._plain = self._plain[used:]
            else:
                self._plain = self._plain + await self.receive()
        return self._frames.pop(0)

    async def frames_until_end(self) -> list[YamuxFrame]:
        """Every frame up to the end of the connection, however it ends."""
        found: list[YamuxFrame] = []
        try:
            while True:
                found.append(await self.next_frame())
        except (EOFError, trio.BrokenResourceError):
            return found
