"""A connection as protocols see it, and what supervises it.

``run`` is the whole life: it drives the muxer, and every inbound stream gets a task that negotiates, checks budgets and
runs the handler. Nothing that happens in there reaches another connection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import trio
from multiaddr import Multiaddr

from .._util.contain import Containment
from .._util.once import Once
from ..abc import (
    Connection,
    Direction,
    MuxedConnection,
    MuxedStream,
    Peerstore,
    ProtocolId,
    Stream,
    StreamHandler,
)
from ..crypto.keys import PublicKey
from ..errors import LimitedConnection, LimitExceeded, NegotiationError, RemoteProtocolError
from ..multistream import Agreed, Dialer, Listener, negotiate_inbound, negotiate_outbound
from ..peer_id import PeerId
from ._limits import Scopes, StreamToken, Token
from ._upgrade import Upgraded

NEGOTIATION_FAILED = 0x1001
RESOURCE_LIMIT = 0x1002
"""Stream error codes of libp2p (specs error-codes)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Handler:
    """Who serves a protocol.

    Attributes:
        allow_limited: whether it may run over a relayed connection with limits.
    """

    serve: StreamHandler
    allow_limited: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamConfig:
    """How the streams of a connection are opened and ended.

    Attributes:
        open_timeout: seconds until a stream of ours must be agreed on (go and js: 10).
        accept_timeout: seconds until the peer must have said what a stream of its is for.
        close_grace: seconds that handlers may go on after their connection ended.
    """

    open_timeout: float = 10.0
    accept_timeout: float = 10.0
    close_grace: float = 5.0


class SwarmConnection(Connection):
    """One connection of the swarm.

    Attributes:
        security: the security protocol in use.
        muxer: the muxer in use.
        muxed: the muxed connection below.
        opened_at: when it came up, in seconds of Trio's clock.
        reason: what ended it, for people.
    """

    __slots__ = (
        "_closing",
        "_config",
        "_containment",
        "_direction",
        "_handlers",
        "_limited",
        "_local_addr",
        "_nursery",
        "_over",
        "_peer",
        "_peer_key",
        "_peerstore",
        "_remote_addr",
        "_remote_key",
        "_scopes",
        "_stream_count",
        "muxed",
        "muxer",
        "opened_at",
        "reason",
        "security",
    )

    security: ProtocolId
    muxer: ProtocolId
    muxed: MuxedConnection

    def __init__(
        self,
        upgraded: Upgraded,
        *,
        direction: Direction,
        opened_at: float,
        handlers: Mapping[ProtocolId, Handler],
        peerstore: Peerstore,
        scopes: Scopes,
        containment: Containment,
        config: StreamConfig,
    ) -> None:
        self._peer = upgraded.remote_peer
        self._peer_key = bytes(upgraded.remote_peer)  # hashed many times for each stream
        self._remote_key = upgraded.remote_key
        self._direction = direction
        self._local_addr = upgraded.local_addr
        self._remote_addr = upgraded.remote_addr
        self._limited = upgraded.limited
        self.security = upgraded.security
        self.muxer = upgraded.muxer
        self.muxed = upgraded.muxed
        self.opened_at = opened_at
        self._handlers = handlers
        self._peerstore = peerstore
        self._scopes = scopes
        self._containment = containment
        self._config = config
        self._nursery: trio.Nursery | None = None
        self._closing = False
        self._over = Once()
        self._stream_count = 0
        self.reason = "closed"

    def __repr__(self) -> str:
        return f"<Connection {self._direction.value} {self._peer.short()} {self._remote_addr}>"

    @property
    def peer(self) -> PeerId:
        return self._peer

    @property
    def remote_key(self) -> PublicKey:
        return self._remote_key

    @property
    def direction(self) -> Direction:
        return self._direction

    @property
    def local_addr(self) -> Multiaddr:
        return self._local_addr

    @property
    def remote_addr(self) -> Multiaddr:
        return self._remote_addr

    @property
    def limited(self) -> bool:
        return self._limited

    @property
    def stream_count(self) -> int:
        return self._stream_count

    # --- life

    async def run(self, token: Token, ended: Callable[[SwarmConnection], None]) -> None:
        """Drive the connection until it ends. Expected errors stay inside.

        Args:
            token: what the connection was charged for; released when nothing of it runs any more.
            ended: called when the connection is over, while handlers may still be finishing.
        """
        failure: Exception | None = None
        with token, self._containment.contain("connection to", self._peer):
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                try:
                    await self.muxed.run(self._accept)
                except (RemoteProtocolError, trio.BrokenResourceError) as exc:
                    # Raised below: here it would cancel the handlers before they see what happened to their streams.
                    self.reason = str(exc)
                    failure = exc
                finally:
                    self._over.set()
                    ended(self)
                    # Handlers see their streams end; those that wait for something else get a moment, then the axe.
                    grace = 0.0 if self._closing else self._config.close_grace
                    nursery.cancel_scope.deadline = min(nursery.cancel_scope.deadline, trio.current_time() + grace)
            if failure is not None:
                raise failure

    async def aclose(self) -> None:
        """Close it, telling the peer. Handlers are cancelled."""
        self._closing = True
        self.reason = "closed here"
        await self.muxed.aclose()
        await self._over.wait()

    def abort(self, code: int = 0) -> None:
        """End it at once."""
        self._closing = True
        self.reason = "aborted here"
        self.muxed.abort(code)

    # --- streams the peer opens

    def _accept(self, stream: MuxedStream) -> None:
        assert self._nursery is not None
        try:
            token = self._scopes.reserve_stream(self, self._peer_key, inbound=True)
        except LimitExceeded:
            stream.reset(RESOURCE_LIMIT)
            return
        self._adopt(stream, token)
        self._nursery.start_soon(self._serve, stream, token)

    def _adopt(self, stream: MuxedStream, token: StreamToken) -> None:
        stream.connection = self
        self._stream_count += 1
        stream.on_end = partial(self._release, token)

    def _release(self, token: StreamToken) -> None:
        self._stream_count -= 1
        token.release()

    async def _serve(self, stream: MuxedStream, token: StreamToken) -> None:
        with self._containment.contain("stream from", self._peer):
            try:
                agreed = await self._agree(stream)
                stream.protocol = agreed.protocol
                self._scopes.assign_protocol(token, agreed.protocol)
                handler = self._handlers.get(agreed.protocol)
                if handler is None:
                    raise NegotiationError(f"{agreed.protocol} was withdrawn while it was being agreed on")
            except NegotiationError:
                stream.reset(NEGOTIATION_FAILED)
                raise
            except LimitExceeded:
                stream.reset(RESOURCE_LIMIT)
                raise
            except trio.TooSlowError as exc:
                stream.reset(NEGOTIATION_FAILED)
                raise NegotiationError("the peer did not say what its stream is for") from exc
            except BaseException:
                stream.reset()
                raise
            async with stream:
                await handler.serve(stream)

    async def _agree(self, stream: MuxedStream) -> Agreed:
        """Answer the peer's proposals. Without a task switch when they came with the stream's first packet."""
        listener = Listener(self._serves)
        agreed: Agreed | None = None
        try:
            agreed = listener.receive_data(stream.receive_nowait())
        except trio.WouldBlock:
            pass
        except RemoteProtocolError as exc:
            raise NegotiationError(str(exc)) from exc
        if agreed is None:
            with trio.fail_after(self._config.accept_timeout):
                agreed = await negotiate_inbound(stream, listener, stage="protocol negotiation")
            stream.unread(agreed.leftover)
        elif agreed.leftover:
            # The dialer went on without waiting for the answer, so the answer may wait for the handler's first bytes.
            stream.send_with_next(listener.data_to_send())
            stream.unread(agreed.leftover)
        else:
            stream.send_now(listener.data_to_send())
        return agreed

    def _serves(self, protocol: ProtocolId) -> bool:
        handler = self._handlers.get(protocol)
        return handler is not None and (handler.allow_limited or not self._limited)

    # --- streams we open

    async def open_stream(self, *protocols: ProtocolId, allow_limited: bool = False) -> Stream:
        """Open a stream; see :class:`libp2p.abc.Connection`.

        When the peer is known to serve one of ``protocols``, the stream is returned without waiting for its answer;
        the proposal leaves with the first bytes that are sent, and the answer is checked before the first read returns.
        """
        if not protocols:
            raise ValueError("name at least one protocol")
        if not isinstance(protocols[0], str):
            raise TypeError(
                f"protocols are named one by one, as text: open_stream(peer, '/a', '/b'), not {protocols[0]!r}"
            )
        if self._limited and not allow_limited:
            raise LimitedConnection(self.peer)
        token = self._scopes.reserve_stream(self, self._peer_key, inbound=False, protocol=protocols[0])
        try:
            stream = await self._open_muxed()
        except BaseException:
            token.release()
            raise
        self._adopt(stream, token)
        try:
            known = self._peerstore.protocols(self._peer)
            chosen = next((protocol for protocol in protocols if protocol in known), None)
            if chosen is not None:
                stream.begin_optimistic(Dialer((chosen,)), chosen)
                await trio.lowlevel.checkpoint()
            else:
                with trio.fail_after(self._config.open_timeout):
                    agreed = await negotiate_outbound(stream, protocols, stage="protocol negotiation")
                stream.protocol = agreed.protocol
                stream.unread(agreed.leftover)
        except trio.TooSlowError as exc:
            stream.reset()
            raise NegotiationError(
                f"no answer to {', '.join(protocols)} within {self._config.open_timeout:g} s",
                offered=protocols,
                peer=self._peer,
            ) from exc
        except NegotiationError as exc:
            stream.reset()
            exc.peer = self._peer
            raise
        except BaseException:
            stream.reset()
            raise
        return stream

    async def _open_muxed(self) -> MuxedStream:
        muxed = self.muxed
        if muxed.can_open:
            return await muxed.open_stream()
        try:
            with trio.fail_after(self._config.open_timeout):
                return await muxed.open_stream()
        except trio.TooSlowError as exc:
            raise LimitExceeded("unacknowledged_streams", self._stream_count) from exc
