"""The handshake, by OpenSSL over buffers in memory.

OpenSSL proves that the other side holds the key of the certificate it sent. Everything else about the certificate is
checked by :mod:`libp2p.crypto.certificate`: OpenSSL's own verification, which wants an authority and refuses critical
extensions that it does not know, is told to accept all. So between the end of OpenSSL's handshake and
:meth:`Engine._identify` nobody is known yet. In that gap nothing is sent and nothing is read: the dialer's last
message, which says who dialled, waits until the listener turned out to be the right one, and a connection object
comes into being only afterwards.

Muxers are agreed by ALPN. The client lists those it speaks and then ``libp2p``; the server takes the first it knows.
``libp2p`` leaves the choice to a multistream round.

With the handshake OpenSSL's part is over: see :mod:`libp2p.security.tls._records`. So it gets one record at a time, and
none behind the last of the handshake. What it wants to say of its own accord then are tickets; they are not sent.

Nothing of a session outlives it: there is no early data, and no session is kept to be resumed.

Specification: libp2p/specs tls/tls.md, connections/inlined-muxer-negotiation.md; RFC 8446.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

import trio
from OpenSSL import SSL, crypto
from trio.abc import Stream as ByteStream

from ...abc import Direction, ProtocolId, SecureChannel
from ...crypto.certificate import make_certificate, verify_certificate
from ...crypto.keys import PrivateKey, PublicKey
from ...errors import PeerIdMismatch, SecurityError
from ...peer_id import PeerId
from ._records import SUITES, Incoming, RecordSplitter, SessionSecrets
from ._stream import Scratch, TlsStream

NO_MUXER = b"libp2p"
"""The ALPN protocol of a peer that negotiates the muxer later."""
MAX_HANDSHAKE = 256 * 1024
"""Bytes of a handshake read before giving up; OpenSSL refuses a ClientHello or certificates above 128 KiB."""
MAX_HANDSHAKE_RECORDS = 256
"""Records of a handshake read before giving up, for the same reason: each costs a call of OpenSSL."""
CIPHERS = b"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
"""The order of the specification of TLS 1.3 and of go; the first is also the fastest."""

_READ_SIZE = 65536


class Engine:
    """What the TLS connections of a host have in common: its certificate, and large buffers.

    Args:
        key: the identity key.
        muxers: muxers to offer, best first.
        clock: seconds since 1970.
    """

    def __init__(self, key: PrivateKey, muxers: Sequence[ProtocolId], clock: Callable[[], float]) -> None:
        self._clock = clock
        self._offered = [*(muxer.encode() for muxer in muxers), NO_MUXER]
        self._context = self._make_context(key)
        self._scratch = Scratch()

    def _make_context(self, key: PrivateKey) -> SSL.Context:
        own = make_certificate(key, now=self._clock())
        context = SSL.Context(SSL.TLS_METHOD)
        context.set_min_proto_version(SSL.TLS1_3_VERSION)
        context.set_tls13_ciphersuites(CIPHERS)
        context.use_certificate(own.certificate)
        context.use_privatekey(own.private_key)
        context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT, _accept_for_now)
        context.set_options(SSL.OP_NO_TICKET)
        context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
        context.set_alpn_protos(self._offered)
        context.set_alpn_select_callback(self._select)
        context.set_keylog_callback(_note_secret)
        return context

    def _select(self, _: SSL.Connection, offered: list[bytes]) -> bytes:
        """The server's choice: the first of the client's that we speak too."""
        for protocol in offered:
            if protocol in self._offered:
                return protocol
        # OpenSSL tells the client why, and pyOpenSSL raises this out of the handshake.
        raise SecurityError(f"no ALPN protocol in common with {_names(offered[:8])}")

    async def handshake(
        self, stream: ByteStream, *, direction: Direction, peer: PeerId | None, initial: bytes
    ) -> SecureChannel:
        """Run the handshake; see :class:`libp2p.abc.SecurityProtocol`."""
        connection, secrets = SSL.Connection(self._context), SessionSecrets()
        connection.set_app_data(secrets)
        dials = direction is Direction.OUTBOUND
        if dials:
            connection.set_connect_state()
        else:
            connection.set_accept_state()
        left = await _finish(connection, stream, initial)
        key = self._identify(connection, direction)
        actual = PeerId.from_key(key)
        if peer is not None and actual != peer:
            raise PeerIdMismatch(peer, actual)
        muxer = self._agreed_muxer(connection)
        if dials:
            await stream.send_all(_take_output(connection))
        client, server = secrets.keys(SUITES[cast("str", connection.get_cipher_name())])
        secured = TlsStream(
            stream,
            send=client if dials else server,
            receive=Incoming(server if dials else client, from_server=dials),
            scratch=self._scratch,
            initial=left,
        )
        return SecureChannel(stream=secured, remote_peer=actual, remote_key=key, muxer=muxer)

    def _identify(self, connection: SSL.Connection, direction: Direction) -> PublicKey:
        """Who is at the other end. Raises SecurityError; nobody is trusted by default."""
        certificate = connection.get_peer_certificate()
        if certificate is None:
            raise SecurityError("the peer has no certificate")
        # OpenSSL's chain holds the peer's own certificate on the client's side, and not on the server's.
        others = len(connection.get_peer_cert_chain() or ()) - (direction is Direction.OUTBOUND)
        if others:
            raise SecurityError(f"the peer sent {others + 1} certificates instead of one")
        return verify_certificate(crypto.dump_certificate(crypto.FILETYPE_ASN1, certificate), now=self._clock())

    def _agreed_muxer(self, connection: SSL.Connection) -> ProtocolId | None:
        agreed = connection.get_alpn_proto_negotiated()
        if agreed not in self._offered:
            raise SecurityError(f"the peer chose {_names([agreed])}, which was not offered" if agreed else "no ALPN")
        return None if agreed == NO_MUXER else agreed.decode()


def _accept_for_now(*_: object) -> bool:
    """The verdict on the certificate is not OpenSSL's; see the theory above."""
    return True


def _note_secret(connection: SSL.Connection, line: bytes) -> None:
    cast("SessionSecrets", connection.get_app_data()).note(line)


async def _finish(connection: SSL.Connection, stream: ByteStream, initial: bytes) -> bytes:
    """Exchange messages until OpenSSL is satisfied.

    What it wants to send last is left in its buffer. Returns what came behind the peer's last message.
    """
    data, received, records = initial, len(initial), RecordSplitter()
    while not await _advance(connection, stream):
        if not data:
            if output := _take_output(connection):
                await stream.send_all(output)
            data = bytes(await stream.receive_some(_READ_SIZE))
            if not data:
                raise SecurityError("the peer closed the connection during the handshake")
            received += len(data)
        if received > MAX_HANDSHAKE or records.count > MAX_HANDSHAKE_RECORDS:
            raise SecurityError(
                f"the peer's handshake is longer than {MAX_HANDSHAKE} bytes or {MAX_HANDSHAKE_RECORDS} records"
            )
        record, data = records.split(data)
        connection.bio_write(record)
    return data


async def _advance(connection: SSL.Connection, stream: ByteStream) -> bool:
    """Let OpenSSL go on with what it was given; returns whether it is done."""
    try:
        connection.do_handshake()
    except SSL.WantReadError:
        return False
    except (SSL.Error, SecurityError) as exc:
        await _send_alert(connection, stream)
        if isinstance(exc, SecurityError):
            raise
        raise SecurityError(_explain(exc)) from exc
    return True


async def _send_alert(connection: SSL.Connection, stream: ByteStream) -> None:
    """Tell the peer why, if it still listens."""
    if output := _take_output(connection):
        try:
            await stream.send_all(output)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass


def _take_output(connection: SSL.Connection) -> bytes:
    """What OpenSSL wants to send; drains."""
    parts: list[bytes] = []
    try:
        while True:
            parts.append(connection.bio_read(_READ_SIZE))
    except SSL.WantReadError:
        return b"".join(parts)


def _explain(error: SSL.Error) -> str:
    """OpenSSL's reason, in its own words."""
    queue = cast("list[tuple[str, str, str]]", error.args[0] if error.args and isinstance(error.args[0], list) else [])
    return "; ".join(reason for _, _, reason in queue) or "TLS failed"


def _names(protocols: Sequence[bytes]) -> str:
    return ", ".join(protocol.decode("ascii", "backslashreplace") for protocol in protocols) or "nothing"
