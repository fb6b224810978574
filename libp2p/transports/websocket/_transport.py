"""Addresses, dialling and listening of WebSockets, with TLS and without.

A listener must wait for nobody, so what it accepts has not shaken hands yet: that is ``RawConnection.prepare``, which
the swarm awaits within its limits on unfinished connections.
"""

from __future__ import annotations

import os
import ssl
import urllib.parse
from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio
from multiaddr import Multiaddr
from trio.abc import Stream as ByteStream

from ..._util.load import load
from ...abc import DirectStream, Listener, RawConnection, Transport
from ...addressing import Part, canonical_ws, from_parts, host_port, parts
from ...errors import RemoteProtocolError, TransportError
from ...metrics import Metric
from ...peer_id import PeerId
from ..tcp import Tcp
from . import _handshake
from ._machine import Mask, mask
from ._stream import WebSocketStream
from ._tls import TlsStream

HANDSHAKE_TIMEOUT = 10.0
"""Seconds for TLS and the opening handshake together, on both sides (case T7; go has 15)."""

_FAST_MASK = f"{__package__}._fast_mask"


@dataclass(frozen=True, slots=True)
class _Shape:
    """What an address says besides host and port."""

    tcp: Multiaddr
    suffix: tuple[Part, ...]
    tls: bool
    name: str | None
    path: str


def _shape(addr: Multiaddr) -> _Shape | None:
    """Take ``addr`` apart; None when it is no address of a WebSocket with an IP address."""
    found = parts(canonical_ws(addr))
    host = 2 if found[0].name == "ip6zone" else 1
    if len(found) <= host or found[host - 1].name not in ("ip4", "ip6") or found[host].name != "tcp":
        return None
    suffix = found[host + 1 :]
    names = tuple(part.name for part in suffix)
    path = "/"
    if names and names[-1] == "http-path":
        names = names[:-1]
        path += urllib.parse.quote(suffix[-1].value.lstrip(b"/"))
    if names not in (("ws",), ("tls", "ws"), ("tls", "sni", "ws")):
        return None
    name = suffix[1].text if "sni" in names else None
    return _Shape(from_parts(found[: host + 1]), suffix, "tls" in names, name, path)


class WebSocketListener(Listener):
    """A listening socket for WebSockets. Owns it."""

    def __init__(self, below: Listener, suffix: tuple[Part, ...], tls: ssl.SSLContext | None, masker: Mask) -> None:
        self._below = below
        self._suffix = suffix
        self._tls = tls
        self._masker = masker

    @property
    def addresses(self) -> Sequence[Multiaddr]:
        return [from_parts((*parts(addr), *self._suffix)) for addr in self._below.addresses]

    async def accept(self) -> RawConnection:
        """Wait for the next connection; its ``prepare`` is the handshake."""
        raw = await self._below.accept()
        assert isinstance(raw, RawConnection)
        assert isinstance(raw.stream, DirectStream)
        below: DirectStream = raw.stream
        suffix: tuple[Part, ...] = (Part("ws"),)
        if self._tls is not None:
            below = TlsStream(below, self._tls)
            suffix = (Part("tls"), *suffix)
        stream = WebSocketStream(below, client=False, mask=self._masker)
        remote_addr = _with(raw.remote_addr, suffix)

        async def prepare() -> None:
            async with _handshaking(remote_addr):
                stream.begin(await _serve(below))

        return RawConnection(
            stream=stream, local_addr=_with(raw.local_addr, self._suffix), remote_addr=remote_addr, prepare=prepare
        )

    async def aclose(self) -> None:
        """Stop listening."""
        await self._below.aclose()


class WebSocket(Transport):
    """``/ip4/…/tcp/…/ws``, ``/tls/ws`` (also spelled ``/wss``) and ``/tls/sni/NAME/ws``; to dial, with ``/http-path``.

    Args:
        server_tls: the certificate to listen with TLS, a usual one of the web; without it only ``/ws`` is listened on.
        client_tls: how servers are verified. By default as browsers do: a certificate of an authority that the system
            trusts, for the address's name (``/sni``, or the ``/dns`` it was resolved from) or its IP.
            :func:`insecure_client_tls` verifies nothing.
        below: what carries it, a transport of ``/ip4/…/tcp/…`` that makes direct streams; by default TCP.
    """

    def __init__(
        self,
        *,
        server_tls: ssl.SSLContext | None = None,
        client_tls: ssl.SSLContext | None = None,
        below: Transport | None = None,
    ) -> None:
        self._server_tls = server_tls
        self._client_tls = client_tls
        self._below = below or Tcp()
        self._masker: Mask | None = None

    def can_dial(self, addr: Multiaddr) -> bool:
        return _shape(addr) is not None

    def can_listen(self, addr: Multiaddr) -> bool:
        shape = _shape(addr)
        return shape is not None and shape.path == "/"

    async def dial(self, addr: Multiaddr, *, peer: PeerId | None) -> RawConnection:
        shape = _shape(addr)
        assert shape is not None
        target = host_port(shape.tcp)
        assert target is not None
        name, port = _as_asked_for(addr, shape.name or target[0].partition("%")[0]), target[1]
        masker = await self._load_masker()
        try:
            raw = await self._below.dial(shape.tcp, peer=peer)
        except TransportError as exc:
            raise TransportError(addr, exc.reason) from exc
        assert isinstance(raw, RawConnection)
        assert isinstance(raw.stream, DirectStream)
        try:
            below: DirectStream = raw.stream
            suffix: tuple[Part, ...] = (Part("ws"),)
            if shape.tls:
                below = TlsStream(below, await self._verifier(), server_name=name)
                suffix = (Part("tls"), *suffix)
            stream = WebSocketStream(below, client=True, mask=masker)
            async with _handshaking(addr):
                stream.begin(await _ask(below, f"[{name}]:{port}" if ":" in name else f"{name}:{port}", shape.path))
        except BaseException:
            with trio.CancelScope(shield=True):
                await trio.aclose_forcefully(raw.stream)
            raise
        return RawConnection(stream=stream, local_addr=_with(raw.local_addr, suffix), remote_addr=addr)

    async def _load_masker(self) -> Mask:
        masker = self._masker
        if masker is None:
            try:
                masker = (await load(_FAST_MASK)).mask
            except ImportError:
                masker = mask
            self._masker = masker
        return masker

    async def _verifier(self) -> ssl.SSLContext:
        if self._client_tls is None:
            # Reading the system's authorities takes up to a tenth of a second.
            self._client_tls = await trio.to_thread.run_sync(_default_client_tls)
        return self._client_tls

    async def listen(self, addr: Multiaddr) -> WebSocketListener:
        shape = _shape(addr)
        assert shape is not None
        if shape.tls and self._server_tls is None:
            raise TransportError(addr, "listening with TLS needs a certificate: WebSocket(server_tls=...)")
        masker = await self._load_masker()
        try:
            below = await self._below.listen(shape.tcp)
        except TransportError as exc:
            raise TransportError(addr, exc.reason) from exc
        return WebSocketListener(below, shape.suffix, self._server_tls if shape.tls else None, masker)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Whatever the transport below does."""
        await self._below.run(task_status=task_status)

    def measure(self) -> Iterable[Metric]:
        """What the transport below has counted."""
        return self._below.measure()


def _as_asked_for(addr: Multiaddr, name: str) -> str:
    """``name`` as TLS and HTTP want it, in ASCII. Addresses come from anybody, so it may be none."""
    try:
        return name.encode("idna").decode("ascii")
    except UnicodeError as exc:
        raise TransportError(addr, f"no server is called {name[:80]!r}") from exc


def _default_client_tls() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def insecure_client_tls() -> ssl.SSLContext:
    """Return a context that takes any certificate, for tests: whoever stands in between can then be the server.

    Noise still proves the peer's identity; what is lost is that nobody else sees which peers talk.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["http/1.1"])
    return context


def _with(addr: Multiaddr, suffix: tuple[Part, ...]) -> Multiaddr:
    return from_parts((*parts(addr), *suffix))


# --- the handshake ----------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _handshaking(addr: Multiaddr) -> AsyncIterator[None]:
    """Bound the handshake and name its errors."""
    try:
        with trio.move_on_after(HANDSHAKE_TIMEOUT) as scope:
            yield
    except (trio.BrokenResourceError, trio.ClosedResourceError, RemoteProtocolError) as exc:
        raise TransportError(addr, _reason(exc)) from exc
    if scope.cancelled_caught:
        raise TransportError(addr, f"no WebSocket handshake within {HANDSHAKE_TIMEOUT:g} s")


def _reason(exc: Exception) -> str:
    cause = exc.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return f"the server's certificate: {cause.verify_message}"
    if isinstance(cause, ssl.SSLError):
        return f"TLS: {cause.reason or cause}"
    return str(exc) or str(cause) or "the connection was lost"


async def _ask(below: ByteStream, host: str, path: str) -> bytes:
    """The client's side. Returns what the server said behind its answer."""
    await _shake_tls(below)
    nonce = os.urandom(_handshake.KEY_SIZE)
    await below.send_all(_handshake.request(host, path, nonce))
    head, early = await _read_head(below)
    _handshake.check_answer(head, nonce)
    return early


async def _serve(below: ByteStream) -> bytes:
    """The server's side. Returns what the client said behind its request."""
    await _shake_tls(below)
    head, early = await _read_head(below)
    try:
        answer = _handshake.answer(head)
    except RemoteProtocolError:
        await below.send_all(_handshake.REFUSAL)
        raise
    await below.send_all(answer)
    return early


async def _shake_tls(below: ByteStream) -> None:
    if isinstance(below, TlsStream):
        await below.shake_hands()


async def _read_head(below: ByteStream) -> tuple[bytes, bytes]:
    data = bytearray()
    while (end := data.find(_handshake.END_OF_HEAD)) < 0:
        if len(data) >= _handshake.MAX_HEAD:
            raise RemoteProtocolError(f"more than {_handshake.MAX_HEAD} bytes of HTTP")
        received = await below.receive_some(_handshake.MAX_HEAD - len(data))
        if not received:
            raise RemoteProtocolError("the connection ended in the handshake")
        data += received
    end += len(_handshake.END_OF_HEAD)
    return bytes(data[:end]), bytes(data[end:])
