"""From a raw connection to a secured and muxed one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import trio
from multiaddr import Multiaddr
from trio.abc import Stream as ByteStream

from ..abc import (
    Agreement,
    Direction,
    EagerSecurityProtocol,
    MuxedConnection,
    Muxer,
    Protector,
    ProtocolId,
    RawConnection,
    SecureChannel,
    SecureMuxedConnection,
    SecurityProtocol,
)
from ..crypto.keys import PublicKey
from ..errors import NegotiationError, PeerIdMismatch, RemoteProtocolError, SecurityError
from ..multistream import Dialer, Listener, negotiate_inbound, negotiate_outbound
from ..peer_id import PeerId
from ._limits import PendingToken

_READ_SIZE = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Upgraded:
    """A connection that is ready for use: nothing below this type may carry application data.

    Attributes:
        security: the security protocol, or the transport's name for those that bring their own.
        muxer: the muxer, likewise.
        limited: whether a relay bounds its bytes or duration.
    """

    muxed: MuxedConnection
    remote_peer: PeerId
    remote_key: PublicKey
    local_addr: Multiaddr
    remote_addr: Multiaddr
    security: ProtocolId
    muxer: ProtocolId
    limited: bool = False


class Progress:
    """How far a connection attempt has come, for errors and for choosing whom to evict."""

    __slots__ = ("_token", "stage")

    def __init__(self, token: PendingToken | None = None) -> None:
        self.stage = "transport"
        self._token = token

    def reached(self, stage: str) -> None:
        """Enter ``stage``; the one before is done."""
        self.stage = stage
        if self._token is not None:
            self._token.stage += 1


class _Proposal:
    """The proposal of a dialer that has gone on without an answer; an :class:`~libp2p.abc.Opening`."""

    __slots__ = ("_dialer", "_progress", "pending")

    def __init__(self, protocol: ProtocolId, progress: Progress) -> None:
        self._dialer = Dialer((protocol,))
        self._progress = progress
        self.pending = True

    def data_to_send(self) -> bytes:
        return self._dialer.data_to_send()

    def receive_data(self, data: bytes | bytearray) -> Agreement | None:
        agreed = self._dialer.receive_data(data)
        if agreed is not None:
            self.pending = False
            self._progress.reached("security handshake")
        return agreed


class Refused(NegotiationError):
    """The peer does not speak the security protocol that was begun; it may speak another one that is served here.

    Nothing can be agreed on over this connection any more, but perhaps over the next.
    """


class Upgrader:
    """Upgrades connections of one host.

    A dialer sends the first bytes of the handshake along with its proposal, where its first security protocol can do
    that, and saves a round trip. Listeners (go, js, rust, and this) keep what follows a proposal for the handshake; one
    that refuses the proposal takes it for nonsense, though, and the connection is lost. Almost everybody speaks what is
    proposed first; for those who do not, the caller dials again, and then waits for the answers. A listener that finds
    the handshake begun gives both answers in one packet.

    Args:
        security: security protocols, best first.
        muxers: muxers, best first.
        protector: of the private network; None in the public one.
    """

    def __init__(
        self, security: Sequence[SecurityProtocol], muxers: Sequence[Muxer], protector: Protector | None = None
    ) -> None:
        self._protector = protector
        self._security = {protocol.protocol: protocol for protocol in security}
        self._muxers = {muxer.protocol: muxer for muxer in muxers}

    async def upgrade(
        self,
        raw: RawConnection | SecureMuxedConnection,
        *,
        direction: Direction,
        peer: PeerId | None,
        progress: Progress,
        patient: bool = False,
    ) -> Upgraded:
        """Agree on security, prove identities, agree on a muxer. The caller sets the deadline.

        ``raw`` is closed when this raises, cancellation included.

        Args:
            patient: wait until the peer has agreed to a security protocol, and propose others otherwise.

        Raises:
            Refused: not when ``patient``: the peer does not speak the first protocol, or hung up when it was begun.
            TransportError: what the transport itself had to agree on failed.
            NegotiationError: nothing in common.
            PeerIdMismatch: another peer answered.
            SecurityError: the handshake failed.
            trio.BrokenResourceError: the connection was lost.
        """
        if isinstance(raw, SecureMuxedConnection):
            return self._finished(raw, peer)
        try:
            if raw.prepare is not None:
                await raw.prepare()
            channel, security = await self._secure(raw, direction, peer, progress, patient)
            muxer, leftover = await self._choose_muxer(channel, direction, progress)
        except BaseException:
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(raw.stream)
            raise
        return Upgraded(
            muxed=muxer.mux(channel.stream, direction=direction, initial=leftover),
            remote_peer=channel.remote_peer,
            remote_key=channel.remote_key,
            local_addr=raw.local_addr,
            remote_addr=raw.remote_addr,
            security=security,
            muxer=muxer.protocol,
            limited=raw.limited,
        )

    def _finished(self, conn: SecureMuxedConnection, peer: PeerId | None) -> Upgraded:
        if self._protector is not None:
            conn.abort()
            raise SecurityError("this transport cannot be part of a private network", stage="private network")
        if peer is not None and conn.remote_peer != peer:
            conn.abort()
            raise PeerIdMismatch(peer, conn.remote_peer)
        return Upgraded(
            muxed=conn,
            remote_peer=conn.remote_peer,
            remote_key=conn.remote_key,
            local_addr=conn.local_addr,
            remote_addr=conn.remote_addr,
            security="quic",
            muxer="quic",
        )

    async def _secure(
        self, raw: RawConnection, direction: Direction, peer: PeerId | None, progress: Progress, patient: bool
    ) -> tuple[SecureChannel, ProtocolId]:
        stream = raw.stream
        if self._protector is not None:
            progress.reached("private network")
            stream = await self._protector.protect(stream)
        progress.reached("security negotiation")
        first = next(iter(self._security.values()))
        if direction is Direction.OUTBOUND and isinstance(first, EagerSecurityProtocol) and not patient:
            channel, protocol = await self._secure_eagerly(stream, first, peer, progress), first.protocol
        elif direction is Direction.OUTBOUND:
            channel, protocol = await self._secure_outbound(stream, peer, progress)
        else:
            channel, protocol = await self._secure_inbound(stream, peer, progress)
        if peer is not None and channel.remote_peer != peer:
            # Security protocols compare first; this line keeps a careless one from mattering.
            raise PeerIdMismatch(peer, channel.remote_peer)
        return channel, protocol

    async def _secure_eagerly(
        self, stream: ByteStream, security: EagerSecurityProtocol, peer: PeerId | None, progress: Progress
    ) -> SecureChannel:
        """Propose ``security`` and begin it at once."""
        proposal = _Proposal(security.protocol, progress)
        try:
            return await security.secure(
                stream, direction=Direction.OUTBOUND, peer=peer, preface=proposal.data_to_send(), opening=proposal
            )
        except (NegotiationError, RemoteProtocolError, SecurityError, trio.BrokenResourceError) as exc:
            # Bytes that nobody read make a kernel break the connection, and some drop the refusal then: an end without
            # an answer may be one, too.
            if not proposal.pending:
                raise
            if len(self._security) > 1:
                raise Refused(str(exc), offered=(security.protocol,), stage=progress.stage) from exc
            if isinstance(exc, trio.BrokenResourceError):
                raise
            raise NegotiationError(str(exc), offered=(security.protocol,), stage=progress.stage) from exc

    async def _secure_outbound(
        self, stream: ByteStream, peer: PeerId | None, progress: Progress
    ) -> tuple[SecureChannel, ProtocolId]:
        agreed = await negotiate_outbound(stream, tuple(self._security), stage=progress.stage)
        progress.reached("security handshake")
        chosen = self._security[agreed.protocol]
        channel = await chosen.secure(stream, direction=Direction.OUTBOUND, peer=peer, initial=agreed.leftover)
        return channel, agreed.protocol

    async def _secure_inbound(
        self, stream: ByteStream, peer: PeerId | None, progress: Progress
    ) -> tuple[SecureChannel, ProtocolId]:
        listener = Listener(self._security.__contains__)
        try:
            agreed = listener.receive_data(await stream.receive_some(_READ_SIZE))
        except (NegotiationError, RemoteProtocolError) as exc:
            raise NegotiationError(str(exc), offered=listener.offered, stage=progress.stage) from exc
        if agreed is None:
            agreed = await negotiate_inbound(stream, listener, stage=progress.stage)
        progress.reached("security handshake")
        chosen, answer = self._security[agreed.protocol], listener.data_to_send()
        if isinstance(chosen, EagerSecurityProtocol):
            channel = await chosen.secure(
                stream, direction=Direction.INBOUND, peer=peer, initial=agreed.leftover, preface=answer
            )
        else:
            if answer:
                await stream.send_all(answer)
            channel = await chosen.secure(stream, direction=Direction.INBOUND, peer=peer, initial=agreed.leftover)
        return channel, agreed.protocol

    async def _choose_muxer(
        self, channel: SecureChannel, direction: Direction, progress: Progress
    ) -> tuple[Muxer, bytes]:
        progress.reached("muxer negotiation")
        if channel.muxer is not None:
            if channel.muxer not in self._muxers:
                raise SecurityError(f"the handshake chose the muxer {channel.muxer}, which was not offered")
            return self._muxers[channel.muxer], b""
        if direction is Direction.OUTBOUND:
            agreed = await negotiate_outbound(channel.stream, tuple(self._muxers), stage=progress.stage)
        else:
            agreed = await negotiate_inbound(channel.stream, Listener(self._muxers.__contains__), stage=progress.stage)
        return self._muxers[agreed.protocol], agreed.leftover
