"""Noise: mutual authentication and encryption (``/noise``).

Specification: libp2p/specs noise/README.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import trio
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from trio.abc import Stream as ByteStream

from ...abc import Direction, DirectStream, EagerSecurityProtocol, Opening, ProtocolId, SecureChannel
from ...crypto.keys import PrivateKey
from ...errors import SecurityError
from ...peer_id import PeerId
from ._machine import SIGNATURE_PREFIX, Handshake, HandshakeDone, LocalIdentity
from ._stream import NoiseStream, Scratch

__all__ = ["Noise"]

_READ_SIZE = 65536


class Noise(EagerSecurityProtocol):
    """The Noise security protocol of one host.

    Args:
        key: the host's identity key.
        muxers: muxers to agree on inside the handshake, best first; empty to leave that to a multistream round.
        prologue: bytes both sides must hold in common; empty on all transports but WebRTC.
    """

    protocol: ProtocolId = "/noise"

    def __init__(self, key: PrivateKey, muxers: Sequence[ProtocolId] = (), *, prologue: bytes = b"") -> None:
        static = X25519PrivateKey.generate()
        public = static.public_key().public_bytes_raw()
        self._local = LocalIdentity(
            static=static,
            static_public=public,
            identity_key=key.public_key.marshal(),
            signature=key.sign(SIGNATURE_PREFIX + public),
        )
        self._muxers = tuple(muxers)
        self._prologue = prologue
        self._scratch = Scratch()

    async def secure(
        self,
        stream: ByteStream,
        *,
        direction: Direction,
        peer: PeerId | None,
        initial: bytes = b"",
        preface: bytes = b"",
        opening: Opening | None = None,
    ) -> SecureChannel:
        """Run the handshake; see :class:`libp2p.abc.EagerSecurityProtocol`."""
        handshake = Handshake(
            self._local,
            initiator=direction is Direction.OUTBOUND,
            ephemeral=X25519PrivateKey.generate(),
            muxers=self._muxers,
            expected=peer,
            prologue=self._prologue,
        )
        done: HandshakeDone | None = handshake.receive_data(initial) if initial else None
        while done is None:
            if output := preface + handshake.data_to_send():
                await _send(stream, output)
                preface = b""
            data = await stream.receive_some(_READ_SIZE)
            if not data:
                raise SecurityError("the peer closed the connection during the handshake")
            if opening is not None:
                agreed = opening.receive_data(data)
                if agreed is None:
                    continue
                opening, data = None, agreed.leftover
            done = handshake.receive_data(data)
        if output := handshake.data_to_send():
            await _send(stream, output)
        secured = NoiseStream(
            stream, send=done.send, receive=done.receive, scratch=self._scratch, initial=done.leftover
        )
        return SecureChannel(stream=secured, remote_peer=done.peer, remote_key=done.key, muxer=done.muxer)


async def _send(stream: ByteStream, data: bytes) -> None:
    """Send a message of the handshake: without a task switch where possible, since what follows is one."""
    if isinstance(stream, DirectStream):
        try:
            data = data[stream.send_nowait(data) :]
        except trio.WouldBlock:
            pass
    if data:
        await stream.send_all(data)
