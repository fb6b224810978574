"""From a raw connection to a secured and muxed one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import trio
from multiaddr import Multiaddr

from ..abc import (
    Direction,
    MuxedConnection,
    Muxer,
    ProtocolId,
    RawConnection,
    SecureChannel,
    SecureMuxedConnection,
    SecurityProtocol,
)
from ..crypto.keys import PublicKey
from ..errors import PeerIdMismatch, SecurityError
from ..multistream import Listener, negotiate_inbound, negotiate_outbound
from ..peer_id import PeerId
from ._limits import PendingToken


@dataclass(frozen=True, slots=True, kw_only=True)
class Upgraded:
    """A connection that is ready for use: nothing below this type may carry application data.

    Attributes:
        security: the security protocol, or the transport's name for those that bring their own.
        muxer: the muxer, likewise.
    """

    muxed: MuxedConnection
    remote_peer: PeerId
    remote_key: PublicKey
    local_addr: Multiaddr
    remote_addr: Multiaddr
    security: ProtocolId
    muxer: ProtocolId


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


class Upgrader:
    """Upgrades connections of one host.

    Args:
        security: security protocols, best first.
        muxers: muxers, best first.
    """

    def __init__(self, security: Sequence[SecurityProtocol], muxers: Sequence[Muxer]) -> None:
        self._security = {protocol.protocol: protocol for protocol in security}
        self._muxers = {muxer.protocol: muxer for muxer in muxers}

    async def upgrade(
        self,
        raw: RawConnection | SecureMuxedConnection,
        *,
        direction: Direction,
        peer: PeerId | None,
        progress: Progress,
    ) -> Upgraded:
        """Agree on security, prove identities, agree on a muxer. The caller sets the deadline.

        ``raw`` is closed when this raises, cancellation included.

        Raises:
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
            channel, security = await self._secure(raw, direction, peer, progress)
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
        )

    def _finished(self, conn: SecureMuxedConnection, peer: PeerId | None) -> Upgraded:
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
        self, raw: RawConnection, direction: Direction, peer: PeerId | None, progress: Progress
    ) -> tuple[SecureChannel, ProtocolId]:
        progress.reached("security negotiation")
        if direction is Direction.OUTBOUND:
            agreed = await negotiate_outbound(raw.stream, tuple(self._security), stage=progress.stage)
        else:
            agreed = await negotiate_inbound(raw.stream, Listener(self._security.__contains__), stage=progress.stage)
        progress.reached("security handshake")
        channel = await self._security[agreed.protocol].secure(
            raw.stream, direction=direction, peer=peer, initial=agreed.leftover
        )
        if peer is not None and channel.remote_peer != peer:
            # Security protocols compare first; this line keeps a careless one from mattering.
            raise PeerIdMismatch(peer, channel.remote_peer)
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
