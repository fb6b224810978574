"""The library's TLS against a peer with a TLS context of its own, which may hold and do anything."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import trio
from cryptography import x509
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from OpenSSL import SSL
from trio.abc import Stream as ByteStream

from libp2p.abc import Direction, SecureChannel
from libp2p.crypto.certificate import HostCertificate, make_certificate
from libp2p.crypto.keys import PrivateKey
from libp2p.errors import SecurityError
from libp2p.peer_id import PeerId
from libp2p.security.tls import Tls
from libp2p.testing import seeded_key
from tests.crypto.test_certificate import NOW
from tests.security.noise_raw import streams

OURS = seeded_key("ours")
THEIRS = seeded_key("theirs")
YAMUX = "/yamux/1.0.0"
MPLEX = "/mplex/6.7.0"
KEY_UPDATE = b"\x18\0\0\1\1"
"""A handshake message: these keys end here, and I ask you to change yours (RFC 8446, 4.6.3)."""


def raw_context(
    *,
    own: HostCertificate | None = None,
    key: PrivateKey = THEIRS,
    certificate: bytes | None = None,
    private_key: Any = None,
    chain: Sequence[x509.Certificate] = (),
    bare: bool = False,
    alpn: Sequence[bytes] = (b"libp2p",),
    choose: Callable[[list[bytes]], Any] | None = None,
    version: int = SSL.TLS1_3_VERSION,
    suite: bytes = b"TLS_AES_128_GCM_SHA256",
) -> SSL.Context:
    """A context that is right but for what the arguments say.

    Args:
        certificate: in DER, instead of ``own``; with its ``private_key``.
        chain: certificates sent behind the first.
        bare: without any certificate.
        alpn: what a client offers; nothing at all when empty.
        choose: what a server says to an offer; by default its last entry.
        version: the only one.
    """
    context = SSL.Context(SSL.TLS_METHOD)
    context.set_min_proto_version(version)
    context.set_max_proto_version(version)
    context.set_tls13_ciphersuites(suite)
    if not bare:
        made = own or make_certificate(key, now=NOW)
        context.use_certificate(x509.load_der_x509_certificate(certificate) if certificate else made.certificate)
        context.use_privatekey(private_key or made.private_key)
    for extra in chain:
        context.add_extra_chain_cert(extra)
    context.set_verify(SSL.VERIFY_PEER, lambda *_: True)
    if alpn:
        context.set_alpn_protos(list(alpn))
    context.set_alpn_select_callback(lambda _, offered: choose(offered) if choose else offered[-1])
    return context


class RawTls:
    """One end of a TLS connection.

    Attributes:
        connection: OpenSSL's.
        seen: every byte that arrived, as it was on the wire.
        secrets: lines of the key log, by label.
    """

    def __init__(self, stream: ByteStream, context: SSL.Context, *, dialer: bool) -> None:
        self.stream = stream
        self.secrets: dict[str, bytes] = {}
        self.seen = bytearray()
        self.connection = SSL.Connection(context)
        if dialer:
            self.connection.set_connect_state()
        else:
            self.connection.set_accept_state()

    async def handshake(self) -> None:
        """Complete it. Raises SSL.Error, EOFError."""
        while True:
            try:
                self.connection.do_handshake()
            except SSL.WantReadError:
                await self._push()
                await self._pull()
            except SSL.Error:
                await self._push()
                raise
            else:
                await self._push()
                return

    async def send(self, data: bytes) -> None:
        """Send application bytes."""
        self.connection.sendall(data)
        await self._push()

    async def receive(self) -> bytes:
        """The next application bytes. Raises EOFError where the stream ends without TLS's farewell."""
        while True:
            try:
                return self.connection.recv(65536)
            except SSL.ZeroReturnError:
                return b""
            except SSL.WantReadError:
                await self._pull()

    async def close(self) -> None:
        """Say farewell, and close."""
        self.connection.shutdown()
        await self._push()
        await self.stream.aclose()

    async def _push(self) -> None:
        try:
            while True:
                await self.stream.send_all(self.connection.bio_read(65536))
        except SSL.WantReadError:
            pass

    async def _pull(self) -> None:
        data = await self.stream.receive_some(65536)
        if not data:
            raise EOFError
        self.seen += data
        self.connection.bio_write(data)


@dataclass
class Met:
    """How a handshake went."""

    raw: RawTls
    channel: SecureChannel | None = None
    error: Exception | None = None
    raw_error: Exception | None = None
    secrets: dict[str, bytes] = field(default_factory=dict)


@asynccontextmanager
async def met(
    role: Direction,
    context: SSL.Context | None = None,
    *,
    key: PrivateKey = OURS,
    muxers: tuple[str, ...] = (),
    peer: PeerId | None = None,
    now: float = NOW,
    wrap: Callable[[ByteStream], ByteStream] = lambda stream: stream,
    act: Callable[[RawTls], Awaitable[None]] | None = None,
) -> AsyncIterator[Met]:
    """Let the library, in ``role``, meet a raw peer; like the swarm, it closes its stream when it fails.

    Args:
        now: the library's wall clock.
        wrap: put around the library's stream.
        act: what the raw peer does, instead of its handshake.
    """
    context = context or raw_context()
    secrets: dict[str, bytes] = {}

    def log(_: SSL.Connection, line: bytes) -> None:
        label, _random, secret = line.decode().split()
        secrets[label] = bytes.fromhex(secret)

    context.set_keylog_callback(log)
    async with streams() as (ours, theirs):
        raw = RawTls(theirs, context, dialer=role is Direction.INBOUND)
        result = Met(raw, secrets=secrets)
        stream = wrap(ours)

        async def secure() -> None:
            try:
                tls = Tls(key, muxers, clock=lambda: now)
                result.channel = await tls.secure(stream, direction=role, peer=peer)
            except (SecurityError, trio.BrokenResourceError) as exc:
                result.error = exc
                await stream.aclose()

        async def speak() -> None:
            try:
                await (raw.handshake() if act is None else act(raw))
            except (EOFError, trio.BrokenResourceError, SSL.Error) as exc:
                result.raw_error = exc

        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(secure)
                nursery.start_soon(speak)
            yield result


class Sealer:
    """Makes records of TLS 1.3 from a traffic secret, for those that no library would send (RFC 8446, 5.2 and 7.3).

    Args:
        sequence: the number of the first record.
    """

    def __init__(self, secret: bytes, sequence: int = 0) -> None:
        self._use(secret, sequence)

    def _use(self, secret: bytes, sequence: int) -> None:
        self._next = _expand(secret, b"traffic upd", 32)
        self._aead = AESGCM(_expand(secret, b"key", 16))
        self._iv = _expand(secret, b"iv", 12)
        self._sequence = sequence

    def seal(self, content: bytes, kind: int = 23) -> bytes:
        """A record of ``content``; 21 is an alert, 22 a handshake message, 23 data."""
        head = b"\x17\x03\x03" + (len(content) + 17).to_bytes(2, "big")
        nonce = int.from_bytes(self._iv, "big") ^ self._sequence
        self._sequence += 1
        return head + self._aead.encrypt(nonce.to_bytes(12, "big"), content + bytes((kind,)), head)

    def rekey(self, before: bytes = b"") -> bytes:
        """A record that announces new keys, which are those of the next record, and asks the other end for new ones.

        Args:
            before: handshake messages in the same record.
        """
        record = self.seal(before + KEY_UPDATE, 22)
        self._use(self._next, 0)
        return record


def _expand(secret: bytes, label: bytes, size: int) -> bytes:
    label = b"tls13 " + label
    info = size.to_bytes(2, "big") + bytes((len(label),)) + label + b"\0"
    return HKDFExpand(SHA256(), size, info).derive(secret)
