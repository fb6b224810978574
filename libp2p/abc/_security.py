"""Identities: who is at the other end of a stream of bytes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias

from trio.abc import Stream as ByteStream

if TYPE_CHECKING:
    from ..crypto.keys import PrivateKey, PublicKey
    from ..peer_id import PeerId
    from ._bytes import Buffer, Direction, ProtocolId
    from ._streams import Opening


class SecureStream(ByteStream, ABC):
    """The byte stream between a security protocol and a muxer.

    Besides the plain stream methods, which the muxer negotiation uses, it takes and gives bytes in batches. A muxer's
    reader calls only :meth:`receive_chunks`; its writers call :meth:`write` and, when that returns False,
    :meth:`flush` before the next ``write``.
    """

    __slots__ = ()

    @property
    @abstractmethod
    def kernel(self) -> bool:
        """Whether :meth:`write` hands bytes straight to the kernel; see :class:`DirectStream`."""

    @abstractmethod
    async def receive_chunks(self) -> Sequence[bytes]:
        """Wait for at least one chunk and return all that are there, in order. Empty at the end of the stream.

        Not always a checkpoint: it returns at once while bytes are there, and checkpoints every few calls.

        Raises:
            SecurityError: a record does not authenticate; the stream is dead.
            trio.BrokenResourceError: the connection is lost.
        """

    @abstractmethod
    def write(self, buffers: Sequence[Buffer]) -> bool:
        """Take all of ``buffers`` as one write; the memory may be reused when this returns.

        Returns:
            True when everything is on its way; False when some waits here for :meth:`flush`.

        Raises:
            trio.BusyResourceError: the last write was not flushed yet.
            trio.BrokenResourceError: the connection is lost.
        """

    @abstractmethod
    async def flush(self) -> None:
        """Wait until what :meth:`write` left behind is on its way.

        Cancelling may leave part of a record on the wire: only who ends the connection anyway cancels it.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class SecureChannel:
    """A stream whose other end has proved who it is."""

    stream: SecureStream
    remote_peer: PeerId
    remote_key: PublicKey
    muxer: ProtocolId | None = None
    """The muxer agreed on inside the handshake, or None when it is still to be negotiated."""


class SecurityProtocol(Protocol):
    """Proves identities over a raw stream."""

    protocol: ProtocolId

    async def secure(
        self, stream: ByteStream, *, direction: Direction, peer: PeerId | None, initial: bytes = b""
    ) -> SecureChannel:
        """Run the handshake.

        Args:
            stream: the raw stream; owned by the result on success, closed by the caller on failure.
            direction: OUTBOUND for the initiator.
            peer: the peer that must answer, None when anyone may.
            initial: bytes of the peer that were already read from ``stream``.

        Raises:
            PeerIdMismatch: somebody else answered; nothing was sent beyond the handshake.
            SecurityError: the handshake failed.
            trio.BrokenResourceError: the connection was lost.
        """
        ...


class EagerSecurityProtocol(SecurityProtocol):
    """A security protocol that can begin before the peer has agreed to it, which saves a round trip.

    Only for protocols in which the dialer speaks first, and says nothing secret by that.
    """

    @abstractmethod
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
        """As :meth:`SecurityProtocol.secure`.

        Args:
            preface: what the negotiation has still to say: it leaves in one packet with the handshake's first bytes,
                or before the handshake waits for the peer's, whichever comes first.
            opening: takes what the peer sends until it has agreed; what follows belongs to the handshake.

        Raises:
            NegotiationError, RemoteProtocolError: by ``opening``: the peer does not agree.
        """


class Protector(Protocol):
    """The encryption of a private network, between a transport and the security protocol."""

    async def protect(self, stream: ByteStream) -> ByteStream:
        """Wrap ``stream`` before anything is said on it; the result owns it, and is direct where it is.

        Raises:
            trio.BrokenResourceError: the connection was lost.
        """
        ...


SecurityFactory: TypeAlias = "Callable[[PrivateKey, Sequence[ProtocolId]], SecurityProtocol]"
"""Makes a host's security protocol from its key and the muxers to agree on early; the class ``Noise`` is one."""
