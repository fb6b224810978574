"""TLS 1.3 as libp2p uses it inside QUIC: both ends show one certificate, and nothing else is negotiable.

The engine's own TLS knows clients without certificates only, because browsers are. This context replaces what differs:

* *Server.* It answers a ClientHello with a CertificateRequest, and takes no Finished before a Certificate and a
  CertificateVerify. The keys for 1-RTT packets of the client are made from its Finished, so no stream can exist before.
* *Client.* It gives up on a server that does not ask for its certificate: whoever does not ask cannot know who we are.
* *Both.* Exactly one certificate, checked by :mod:`libp2p.crypto.certificate`; compressed ones are refused. No session
  tickets, no resumption, no early data, no server name. A ticket of the peer is read past.

:func:`self_test` runs a handshake in memory and proves that an end without a certificate is refused; the transport runs
it before it opens a socket, so that an engine whose insides have changed makes QUIC unavailable instead of insecure.

Pure; the wall clock is an argument. Specifications: libp2p/specs tls and quic; RFC 8446; RFC 9001.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from qh3 import tls
from qh3._hazmat import Buffer, EcPrivateKey, X25519KeyExchange, X25519ML768KeyExchange

from ...crypto.certificate import HostCertificate, make_certificate, verify_certificate
from ...crypto.keys import PrivateKey, PublicKey
from ...errors import PeerIdMismatch, SecurityError
from ...peer_id import PeerId

ALPN = "libp2p"
MAX_MESSAGE = 64 * 1024
"""Longest handshake message taken, in bytes; a certificate is bounded more tightly when it is read."""

_CLIENT_CONTEXT = b"TLS 1.3, client CertificateVerify"
_SERVER_CONTEXT = b"TLS 1.3, server CertificateVerify"
_HASHES: dict[int, hashes.HashAlgorithm] = {
    tls.SignatureAlgorithm.ECDSA_SECP256R1_SHA256: hashes.SHA256(),
    tls.SignatureAlgorithm.ECDSA_SECP384R1_SHA384: hashes.SHA384(),
    tls.SignatureAlgorithm.ECDSA_SECP521R1_SHA512: hashes.SHA512(),
    tls.SignatureAlgorithm.RSA_PSS_RSAE_SHA256: hashes.SHA256(),
    tls.SignatureAlgorithm.RSA_PSS_RSAE_SHA384: hashes.SHA384(),
    tls.SignatureAlgorithm.RSA_PSS_RSAE_SHA512: hashes.SHA512(),
}
_CURVES: dict[int, str] = {
    tls.SignatureAlgorithm.ECDSA_SECP256R1_SHA256: "secp256r1",
    tls.SignatureAlgorithm.ECDSA_SECP384R1_SHA384: "secp384r1",
    tls.SignatureAlgorithm.ECDSA_SECP521R1_SHA512: "secp521r1",
}
_SIGNATURES = [*_CURVES, tls.SignatureAlgorithm.ED25519, *(found for found in _HASHES if found not in _CURVES)]
"""What a peer may sign its handshake with: what TLS 1.3 knows and certificates of libp2p use."""
_CIPHERS = [
    tls.CipherSuite.AES_128_GCM_SHA256,
    tls.CipherSuite.AES_256_GCM_SHA384,
    tls.CipherSuite.CHACHA20_POLY1305_SHA256,
]
_GROUPS = [tls.Group.X25519ML768, tls.Group.X25519]


class AlertCertificateRequired(tls.Alert):
    """The peer proved no identity."""

    description = tls.AlertDescription.certificate_required


class AlertNoApplicationProtocol(tls.Alert):
    """The client does not offer libp2p."""

    description = tls.AlertDescription.no_application_protocol


@dataclass(frozen=True, slots=True)
class Outside:
    """What connections need from the world, as functions, so that tests decide.

    Attributes:
        wall_clock: seconds since 1970, for the validity of certificates.
        entropy: so many random bytes, fit for secrets.
        processor: seconds that this thread has kept a processor busy.
        stopwatch: seconds that have passed; cheap to look at.
    """

    wall_clock: Callable[[], float]
    entropy: Callable[[int], bytes]
    processor: Callable[[], float]
    stopwatch: Callable[[], float]


@dataclass(frozen=True, slots=True)
class TlsIdentity:
    """This host's certificate in the forms that the engine wants."""

    certificate: bytes
    """In PEM."""
    private_key: bytes
    """In PEM, PKCS #8."""

    @classmethod
    def make(cls, key: PrivateKey, now: float) -> TlsIdentity:
        """A fresh certificate that ``key`` vouches for. ``now`` in seconds since 1970."""
        return cls.of(make_certificate(key, now=now))

    @classmethod
    def of(cls, host: HostCertificate) -> TlsIdentity:
        """The forms of ``host``."""
        private_key = host.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return cls(host.certificate.public_bytes(Encoding.PEM), private_key)


class MutualContext(tls.Context):
    """One end of one handshake.

    Args:
        identity: what this end shows.
        is_client: whether this end dialled.
        expected: the peer that must answer, None when anyone may.
        outside: what a handshake needs from the world.

    Attributes:
        remote_key: the peer's identity key, once its certificate was read; it is proved when the handshake is complete.
        failure: why the peer was refused, when it was its identity.
    """

    def __init__(self, identity: TlsIdentity, *, is_client: bool, expected: PeerId | None, outside: Outside) -> None:
        super().__init__(  # pyright: ignore[reportUnknownMemberType]
            is_client=is_client, alpn_protocols=[ALPN], cipher_suites=_CIPHERS, verify_mode=0
        )
        private_key = tls.load_pem_private_key(identity.private_key)
        assert isinstance(private_key, EcPrivateKey)
        self.certificate = tls.load_pem_x509_certificates(identity.certificate)[0]
        self.certificate_private_key = private_key
        self._own_certificate = self.certificate.public_bytes()
        self._own_key = private_key
        self._signature_algorithms = [int(algorithm) for algorithm in _SIGNATURES]
        self._supported_groups = list(_GROUPS)
        self._supported_versions = [tls.TLS_VERSION_1_3]
        self._compress_certificate_algorithms = None
        self._expected = expected
        self._outside = outside
        self._verified = False
        self._certificate_key: object = None
        self.remote_key: PublicKey | None = None
        self.failure: SecurityError | None = None

    @property
    def proved_key(self) -> PublicKey | None:
        """The peer's identity key, when the handshake is complete and has proved it; else None."""
        done = self.state in (tls.State.CLIENT_POST_HANDSHAKE, tls.State.SERVER_POST_HANDSHAKE)
        return self.remote_key if done and self._verified else None

    @property
    def _schedule(self) -> tls.KeySchedule:
        """The keys, which exist once both hellos were exchanged."""
        if self.key_schedule is None:
            raise tls.AlertUnexpectedMessage("out of order")
        return self.key_schedule

    # --- both ends

    def handle_message(self, input_data: bytes, output_buf: dict[tls.Epoch, Buffer], epoch: int = -1) -> None:
        """Take bytes of the CRYPTO stream of ``epoch``.

        Raises:
            tls.Alert: the handshake is over.
        """
        if self.state in (tls.State.CLIENT_HANDSHAKE_START, tls.State.SERVER_EXPECT_CLIENT_HELLO):
            super().handle_message(input_data, output_buf, epoch)
            return
        # One message at a time: each must be judged in the state that the one before it has led to.
        pending = self._receive_buffer + input_data
        self._receive_buffer = b""
        while len(pending) >= 4:
            size = 4 + int.from_bytes(pending[1:4], "big")
            if size > MAX_MESSAGE:
                raise tls.AlertDecodeError("a handshake message is too long")
            if len(pending) < size:
                break
            message, pending = pending[:size], pending[size:]
            if self.state == tls.State.SERVER_EXPECT_FINISHED:
                self._take_from_client(message, output_buf, epoch)
            else:
                super().handle_message(message, output_buf, epoch)
        self._receive_buffer = pending

    def _process_certificate(self, certificate: tls.Certificate) -> None:
        """Read the peer's certificate: who it is, and with which key it must sign the handshake."""
        if not certificate.certificates:
            raise AlertCertificateRequired("the peer sent no certificate")
        if len(certificate.certificates) != 1:
            raise tls.AlertBadCertificate("the peer sent more than one certificate")
        data = certificate.certificates[0][0]
        try:
            self.remote_key = verify_certificate(data, now=self._outside.wall_clock())
            actual = PeerId.from_key(self.remote_key)
            if self._expected is not None and actual != self._expected:
                raise PeerIdMismatch(self._expected, actual)
        except SecurityError as exc:
            self.failure = exc
            raise tls.AlertBadCertificate(str(exc)) from exc
        self._certificate_key = x509.load_der_x509_certificate(data).public_key()

    def _check_signature(self, verify: tls.CertificateVerify, context: bytes) -> None:
        """The peer holds the certificate's key."""
        algorithm, signed = verify.algorithm, self._schedule.certificate_verify_data(context)
        key = self._certificate_key
        try:
            if isinstance(key, ec.EllipticCurvePublicKey) and _CURVES.get(algorithm) == key.curve.name:
                key.verify(verify.signature, signed, ec.ECDSA(_HASHES[algorithm]))
            elif isinstance(key, ed25519.Ed25519PublicKey) and algorithm == tls.SignatureAlgorithm.ED25519:
                key.verify(verify.signature, signed)
            elif isinstance(key, rsa.RSAPublicKey) and algorithm in _HASHES and algorithm not in _CURVES:
                digest = _HASHES[algorithm]
                key.verify(verify.signature, signed, padding.PSS(padding.MGF1(digest), digest.digest_size), digest)
            else:
                raise tls.AlertIllegalParameter("the handshake is signed with an algorithm that does not fit its key")
        except InvalidSignature:
            raise tls.AlertDecryptError("the handshake's signature is wrong") from None
        self._verified = True

    # --- the client

    def _client_send_hello(self, output_buf: Buffer) -> None:
        """A ClientHello with what libp2p needs and nothing that only browsers do."""
        self._x25519_kyber_768_private_key = X25519ML768KeyExchange()
        self._x25519_private_key = X25519KeyExchange()
        hello = tls.ClientHello(
            random=self.client_random,
            legacy_session_id=b"",
            cipher_suites=[int(cipher) for cipher in _CIPHERS],
            legacy_compression_methods=[tls.CompressionMethod.NULL],
            alpn_protocols=[ALPN],
            key_share=[
                (tls.Group.X25519ML768, self._x25519_kyber_768_private_key.public_key()),
                (tls.Group.X25519, self._x25519_private_key.public_key()),
            ],
            signature_algorithms=self._signature_algorithms,
            supported_groups=list(_GROUPS),
            supported_versions=[tls.TLS_VERSION_1_3],
            other_extensions=self.handshake_extensions,
        )
        self._key_schedule_proxy = tls.KeyScheduleProxy(_CIPHERS)
        self._key_schedule_proxy.extract(None)
        with tls.push_message(self._key_schedule_proxy, output_buf):
            tls.push_client_hello(output_buf, hello)
        self._set_state(tls.State.CLIENT_EXPECT_SERVER_HELLO)

    def _client_handle_encrypted_extensions(self, input_buf: Buffer) -> None:
        super()._client_handle_encrypted_extensions(input_buf)
        if self.alpn_negotiated != ALPN:
            raise tls.AlertHandshakeFailure("the server did not choose the protocol libp2p")
        if self._alps_negotiated or self.early_data_accepted or self._session_resumed:
            raise tls.AlertUnsupportedExtension("the server accepts what was not offered")

    def _client_handle_compressed_certificate(self, input_buf: Buffer) -> None:
        raise tls.AlertUnexpectedMessage("no compressed certificate was asked for")

    def _client_handle_certificate_request(self, input_buf: Buffer) -> None:
        if self._certificate_request is not None:
            raise tls.AlertUnexpectedMessage("a second certificate request")
        super()._client_handle_certificate_request(input_buf)

    def _client_handle_certificate(self, input_buf: Buffer) -> None:
        if self._certificate_request is None:
            raise tls.AlertHandshakeFailure("the server does not ask who we are")
        super()._client_handle_certificate(input_buf)

    def _client_handle_certificate_verify(self, input_buf: Buffer) -> None:
        self._check_signature(tls.pull_certificate_verify(input_buf), _SERVER_CONTEXT)
        self._schedule.update_hash(input_buf.data)
        self._set_state(tls.State.CLIENT_EXPECT_FINISHED)

    # --- the server

    def _server_handle_hello(
        self, input_buf: Buffer, initial_buf: Buffer, handshake_buf: Buffer, onertt_buf: Buffer
    ) -> None:
        """Answer a ClientHello with the whole flight of the server, CertificateRequest included."""
        hello = tls.pull_client_hello(input_buf)
        cipher = tls.negotiate(_CIPHERS, hello.cipher_suites, tls.AlertHandshakeFailure("no common cipher suite"))
        compression = tls.negotiate(
            [tls.CompressionMethod.NULL],
            hello.legacy_compression_methods,
            tls.AlertIllegalParameter("compression is not optional for the client"),
        )
        signature_algorithm = tls.negotiate(
            [tls.SignatureAlgorithm.ECDSA_SECP256R1_SHA256],
            hello.signature_algorithms,
            tls.AlertHandshakeFailure("no common signature algorithm"),
        )
        version = tls.negotiate([tls.TLS_VERSION_1_3], hello.supported_versions, tls.AlertProtocolVersion("no TLS 1.3"))
        self.alpn_negotiated = tls.negotiate(
            [ALPN], hello.alpn_protocols, AlertNoApplicationProtocol("the client does not speak libp2p")
        )
        self.client_random = hello.random
        self.server_random = self._outside.entropy(32)
        self.legacy_session_id = hello.legacy_session_id
        self.received_extensions = hello.other_extensions
        if self.alpn_cb is not None:
            self.alpn_cb(self.alpn_negotiated)

        group, public_key, shared = _exchange(hello.key_share or [])
        schedule = self.key_schedule = tls.KeySchedule(cipher)
        schedule.extract(None)
        schedule.update_hash(input_buf.data)
        with tls.push_message(schedule, initial_buf):
            tls.push_server_hello(
                initial_buf,
                tls.ServerHello(
                    random=self.server_random,
                    legacy_session_id=hello.legacy_session_id,
                    cipher_suite=cipher,
                    compression_method=compression,
                    key_share=(group, public_key),
                    supported_version=version,
                ),
            )
        schedule.extract(shared)
        self._setup_traffic_protection(tls.Direction.ENCRYPT, tls.Epoch.HANDSHAKE, b"s hs traffic")
        self._setup_traffic_protection(tls.Direction.DECRYPT, tls.Epoch.HANDSHAKE, b"c hs traffic")
        self._push_flight(handshake_buf, signature_algorithm)
        schedule.extract(None)
        self._setup_traffic_protection(tls.Direction.ENCRYPT, tls.Epoch.ONE_RTT, b"s ap traffic")
        self._next_dec_key = schedule.derive_secret(b"c ap traffic")
        self._set_state(tls.State.SERVER_EXPECT_FINISHED)

    def _push_flight(self, buf: Buffer, signature_algorithm: tls.SignatureAlgorithm) -> None:
        """EncryptedExtensions, CertificateRequest, Certificate, CertificateVerify, Finished."""
        schedule = self._schedule
        with tls.push_message(schedule, buf):
            tls.push_encrypted_extensions(
                buf,
                tls.EncryptedExtensions(alpn_protocol=ALPN, other_extensions=self.handshake_extensions),
            )
        with tls.push_message(schedule, buf):
            _push_certificate_request(buf)
        with tls.push_message(schedule, buf):
            tls.push_certificate(buf, tls.Certificate(certificates=[(self._own_certificate, b"")]))
        signature = self._own_key.sign(schedule.certificate_verify_data(_SERVER_CONTEXT))
        with tls.push_message(schedule, buf):
            tls.push_certificate_verify(buf, tls.CertificateVerify(algorithm=signature_algorithm, signature=signature))
        with tls.push_message(schedule, buf):
            tls.push_finished(buf, tls.Finished(verify_data=schedule.finished_verify_data(self._enc_key or b"")))

    def _take_from_client(self, message: bytes, output_buf: dict[tls.Epoch, Buffer], epoch: int) -> None:
        """The client's flight: Certificate, CertificateVerify, Finished, in this order and each once."""
        if epoch != tls.Epoch.HANDSHAKE:
            raise tls.AlertUnexpectedMessage
        buf = Buffer(data=message)
        kind = message[0]
        if kind == tls.HandshakeType.CERTIFICATE and self.remote_key is None:
            self._process_certificate(tls.pull_certificate(buf))
            self._schedule.update_hash(message)
        elif kind == tls.HandshakeType.CERTIFICATE_VERIFY and self.remote_key is not None and not self._verified:
            self._check_signature(tls.pull_certificate_verify(buf), _CLIENT_CONTEXT)
            self._schedule.update_hash(message)
        elif kind == tls.HandshakeType.FINISHED and self._verified:
            self._expected_verify_data = self._schedule.finished_verify_data(self._dec_key or b"")
            self._server_handle_finished(buf, output_buf[tls.Epoch.ONE_RTT])
        elif kind == tls.HandshakeType.FINISHED:
            raise AlertCertificateRequired("the client proved no identity")
        else:
            raise tls.AlertUnexpectedMessage


def _exchange(shares: list[tuple[int, bytes]]) -> tuple[tls.Group, bytes, bytes]:
    """Take part in the key exchange that suits both: the group, our share, and the secret."""
    offered = dict(shares)
    if tls.Group.X25519ML768 in offered:
        hybrid = X25519ML768KeyExchange()
        secret = hybrid.exchange(offered[tls.Group.X25519ML768])
        return tls.Group.X25519ML768, hybrid.shared_ciphertext(), secret
    if tls.Group.X25519 in offered:
        exchange = X25519KeyExchange()
        return tls.Group.X25519, exchange.public_key(), exchange.exchange(offered[tls.Group.X25519])
    # A second ClientHello could bring one (HelloRetryRequest), which the engine cannot do; every peer offers X25519.
    raise tls.AlertHandshakeFailure("no key share of a common group")


def _push_certificate_request(buf: Buffer) -> None:
    """RFC 8446, section 4.3.2: no context, and the signatures we can check."""
    buf.push_uint8(tls.HandshakeType.CERTIFICATE_REQUEST)
    with tls.push_block(buf, 3):
        tls.push_opaque(buf, 1, b"")
        with tls.push_block(buf, 2), tls.push_extension(buf, tls.ExtensionType.SIGNATURE_ALGORITHMS):
            tls.push_list(buf, 2, buf.push_uint16, [int(algorithm) for algorithm in _SIGNATURES])


# --- the self-test ----------------------------------------------------------------------------------------------------


def self_test(identity: TlsIdentity, key: PublicKey, outside: Outside) -> None:
    """Prove that this context authenticates both ends, with the engine that is installed.

    Args:
        identity: this host's own certificate, shown to itself.
        key: the identity key it stands for.

    Raises:
        SecurityError: it does not; QUIC must not be used.
    """
    try:
        ends = _shake_hands(identity, outside, anonymous=False)
        proved = [end.proved_key for end in ends]
        anonymous = _shake_hands(identity, outside, anonymous=True)[1].proved_key
    except (tls.Alert, LookupError, TypeError, ValueError, AttributeError, AssertionError) as exc:
        raise SecurityError(f"the QUIC engine fails its self-test: {exc!r}") from exc
    if proved != [key, key] or anonymous is not None:
        raise SecurityError("the QUIC engine fails its self-test: it does not authenticate both ends")


class _Anonymous(MutualContext):
    """A client that shows no certificate."""

    def _client_handle_finished(self, input_buf: Buffer, output_buf: Buffer) -> None:
        self._certificate_request = None
        super()._client_handle_finished(input_buf, output_buf)


def _shake_hands(identity: TlsIdentity, outside: Outside, *, anonymous: bool) -> tuple[MutualContext, MutualContext]:
    """A handshake in memory. With ``anonymous``, the alert of the server is expected."""
    kind = _Anonymous if anonymous else MutualContext
    client = kind(identity, is_client=True, expected=None, outside=outside)
    server = MutualContext(identity, is_client=False, expected=None, outside=outside)
    hello = _step(client, {tls.Epoch.INITIAL: b""})
    flight = _step(server, hello)
    answer = _step(client, flight)
    try:
        _step(server, answer)
    except AlertCertificateRequired:
        if not anonymous:
            raise
    return client, server


def _step(end: MutualContext, arrived: dict[tls.Epoch, bytes]) -> dict[tls.Epoch, bytes]:
    buffers = {epoch: Buffer(capacity=16384) for epoch in tls.Epoch}
    for epoch, data in arrived.items():
        end.handle_message(data, buffers, epoch)
    return {epoch: buf.data for epoch, buf in buffers.items() if buf.data}
