"""Plaintext 2.0 (``/plaintext/2.0.0``): says who it is and proves nothing. For tests; never a default.

Specification: libp2p/specs plaintext/README.md.
"""

from __future__ import annotations

from collections.abc import Sequence

from trio.abc import Stream as ByteStream

from ...abc import Direction, ProtocolId, SecureChannel, SecurityProtocol
from ...crypto.keys import PrivateKey
from ...errors import DecodeError, PeerIdMismatch, SecurityError
from ...peer_id import PeerId
from ...wire.framing import FrameBuffer
from ._codec import MAX_EXCHANGE, decode_exchange, encode_exchange
from ._stream import PlaintextStream

__all__ = ["Plaintext", "PlaintextStream"]


class Plaintext(SecurityProtocol):
    """The plaintext protocol of one host. Anybody on the path can read, change, and claim to be anyone."""

    protocol: ProtocolId = "/plaintext/2.0.0"

    def __init__(self, key: PrivateKey, muxers: Sequence[ProtocolId] = ()) -> None:
        del muxers  # plaintext has no early negotiation; the parameter is every security protocol's
        self._exchange = encode_exchange(key.public_key)

    async def secure(
        self, stream: ByteStream, *, direction: Direction, peer: PeerId | None, initial: bytes = b""
    ) -> SecureChannel:
        """Exchange keys; see :class:`libp2p.abc.SecurityProtocol`."""
        frames = FrameBuffer(MAX_EXCHANGE)
        await stream.send_all(self._exchange)
        try:
            messages = frames.receive_data(initial, limit=1)
            while not messages:
                data = await stream.receive_some(MAX_EXCHANGE)
                if not data:
                    raise SecurityError("the peer closed the connection during the exchange")
                messages = frames.receive_data(data, limit=1)
            actual, key = decode_exchange(messages[0])
        except DecodeError as exc:
            raise SecurityError(f"the peer's exchange: {exc}") from exc
        if peer is not None and actual != peer:
            raise PeerIdMismatch(peer, actual)
        secured = PlaintextStream(stream, initial=frames.take_leftover())
        return SecureChannel(stream=secured, remote_peer=actual, remote_key=key)
