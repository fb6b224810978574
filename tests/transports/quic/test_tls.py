"""The handshake: who gets through, and every way in which it must not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from qh3 import tls
from qh3._hazmat import Buffer

from libp2p.crypto.certificate import HostCertificate, make_certificate
from libp2p.errors import PeerIdMismatch, SecurityError
from libp2p.transports.quic import _tls
from libp2p.transports.quic._tls import (
    MAX_MESSAGE,
    AlertCertificateRequired,
    AlertNoApplicationProtocol,
    MutualContext,
    TlsIdentity,
    self_test,
)
from tests.transports.quic.pairs import WALL, identity, outside, peer

Flight = dict[tls.Epoch, bytes]
KEY, OURS = identity(1)
THEIR_KEY, THEIRS = identity(2)


def context(
    kind: type[MutualContext] = MutualContext, *, client: bool, shown: TlsIdentity | None = None
) -> MutualContext:
    return kind(shown or (OURS if client else THEIRS), is_client=client, expected=None, outside=outside())


def step(end: MutualContext, arrived: Flight) -> Flight:
    buffers = {epoch: Buffer(capacity=16384) for epoch in tls.Epoch}
    for epoch, data in arrived.items():
        end.handle_message(data, buffers, epoch)
    return {epoch: buf.data for epoch, buf in buffers.items() if buf.data}


def shake_hands(client: MutualContext, server: MutualContext) -> None:
    """A whole handshake; whatever either end has against it is raised."""
    step(server, step(client, step(server, step(client, {tls.Epoch.INITIAL: b""}))))


def messages(data: bytes) -> list[bytes]:
    found = []
    while data:
        size = 4 + int.from_bytes(data[1:4], "big")
        found.append(data[:size])
        data = data[size:]
    return found


def test_both_prove_who_they_are() -> None:
    """Q2, T2, T3: and nobody before the handshake is complete."""
    client, server = context(client=True), context(client=False)
    assert client.proved_key is None and server.proved_key is None
    shake_hands(client, server)
    assert (client.proved_key, server.proved_key) == (THEIR_KEY.public_key, KEY.public_key)
    assert client.alpn_negotiated == server.alpn_negotiated == "libp2p"
    assert not client.session_resumed and not client.early_data_accepted


def test_hello_has_no_name_and_nothing_of_browsers() -> None:
    """T10; Q8: the hybrid key share makes it longer than a packet."""
    [message] = messages(step(context(client=True), {tls.Epoch.INITIAL: b""})[tls.Epoch.INITIAL])
    hello = tls.pull_client_hello(Buffer(data=message))
    assert hello.server_name is None and hello.pre_shared_key is None and not hello.early_data
    assert hello.supported_versions == [tls.TLS_VERSION_1_3] and hello.alpn_protocols == ["libp2p"]
    assert tls.ExtensionType.ENCRYPTED_CLIENT_HELLO not in dict(hello.other_extensions)
    assert len(message) > 1200


@pytest.mark.parametrize("group", [tls.Group.X25519ML768, tls.Group.X25519])
def test_key_exchanges(group: tls.Group, monkeypatch: pytest.MonkeyPatch) -> None:
    """T13: each alone."""
    push = tls.push_client_hello

    def one_share(buf: Buffer, hello: tls.ClientHello) -> None:
        push(buf, replace(hello, key_share=[share for share in hello.key_share or [] if share[0] == group]))

    monkeypatch.setattr(tls, "push_client_hello", one_share)
    client, server = context(client=True), context(client=False)
    shake_hands(client, server)
    assert client.proved_key is not None and server.proved_key is not None


Change = Callable[[tls.ClientHello], tls.ClientHello]


@pytest.mark.parametrize(
    ("change", "alert"),
    [
        (lambda hello: replace(hello, alpn_protocols=["h3"]), AlertNoApplicationProtocol),
        (lambda hello: replace(hello, alpn_protocols=None), AlertNoApplicationProtocol),
        (lambda hello: replace(hello, key_share=[(0x0017, bytes(65))]), tls.AlertHandshakeFailure),
        (lambda hello: replace(hello, key_share=[]), tls.AlertHandshakeFailure),
        (lambda hello: replace(hello, cipher_suites=[0x1399]), tls.AlertHandshakeFailure),
        (lambda hello: replace(hello, signature_algorithms=[0x0804]), tls.AlertHandshakeFailure),
        (lambda hello: replace(hello, supported_versions=[0x0303]), tls.AlertProtocolVersion),
        (lambda hello: replace(hello, legacy_compression_methods=[1]), tls.AlertIllegalParameter),
    ],
)
def test_hellos_that_are_refused(change: Change, alert: type[tls.Alert], monkeypatch: pytest.MonkeyPatch) -> None:
    """T1, T9, and what else is not negotiable."""
    push = tls.push_client_hello
    monkeypatch.setattr(tls, "push_client_hello", lambda buf, hello: push(buf, change(hello)))
    with pytest.raises(alert):
        shake_hands(context(client=True), context(client=False))


# --- certificates


class Chain(MutualContext):
    """Shows its certificate twice."""

    def _client_handle_finished(self, input_buf: Buffer, output_buf: Buffer) -> None:
        assert self.certificate is not None
        self.certificate_chain = [self.certificate]
        super()._client_handle_finished(input_buf, output_buf)


class Nothing(MutualContext):
    """Answers with a Certificate without certificates, as TLS allows."""

    def _client_handle_finished(self, input_buf: Buffer, output_buf: Buffer) -> None:
        self.certificate = self.certificate_private_key = None
        super()._client_handle_finished(input_buf, output_buf)


class Borrowed(MutualContext):
    """Shows somebody else's certificate, of which it has no key."""

    def _client_handle_finished(self, input_buf: Buffer, output_buf: Buffer) -> None:
        self.certificate = tls.load_pem_x509_certificates(THEIRS.certificate)[0]
        super()._client_handle_finished(input_buf, output_buf)


@pytest.mark.parametrize(
    ("kind", "alert"),
    [
        (_tls._Anonymous, AlertCertificateRequired),
        (Nothing, AlertCertificateRequired),
        (Chain, tls.AlertBadCertificate),
        (Borrowed, tls.AlertDecryptError),
    ],
)
def test_clients_that_prove_nothing(kind: type[MutualContext], alert: type[tls.Alert]) -> None:
    """S3: no certificate, none in it, two, another's. T2."""
    server = context(client=False)
    with pytest.raises(alert):
        shake_hands(context(kind, client=True), server)
    assert server.proved_key is None


def made(*, extension: bool = True, now: float = WALL) -> TlsIdentity:
    """A certificate like ours, with something wrong."""
    host = make_certificate(KEY, now=now)
    if extension:
        return TlsIdentity.of(host)
    name = x509.Name([])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(host.private_key.public_key())
        .serial_number(1)
        .not_valid_before(host.certificate.not_valid_before_utc)
        .not_valid_after(host.certificate.not_valid_after_utc)
        .sign(host.private_key, hashes.SHA256())
    )
    return TlsIdentity.of(HostCertificate(certificate, host.private_key))


@pytest.mark.parametrize("client", [True, False])
@pytest.mark.parametrize("wrong", [made(extension=False), made(now=WALL + 1e6)], ids=["no extension", "early"])
def test_certificates_that_do_not_hold(wrong: TlsIdentity, client: bool) -> None:
    """S4: on both sides, with the reason at hand."""
    ends = {side: context(client=side, shown=wrong if side is client else None) for side in (True, False)}
    with pytest.raises(tls.AlertBadCertificate):
        shake_hands(ends[True], ends[False])
    judge = ends[not client]
    assert isinstance(judge.failure, SecurityError) and judge.proved_key is None


def test_another_peer_answers() -> None:
    """T11, S1: seen before the client shows its own certificate."""
    client = MutualContext(OURS, is_client=True, expected=peer(1), outside=outside())
    server = context(client=False)
    with pytest.raises(tls.AlertBadCertificate):
        shake_hands(client, server)
    assert isinstance(client.failure, PeerIdMismatch)
    assert (client.failure.expected, client.failure.actual) == (peer(1), peer(2))
    assert server.remote_key is None


# --- the order of messages


def client_flight() -> tuple[MutualContext, list[bytes]]:
    """A server that waits for its client's flight, and that flight."""
    client, server = context(client=True), context(client=False)
    flight = step(client, step(server, step(client, {tls.Epoch.INITIAL: b""})))
    return server, messages(flight[tls.Epoch.HANDSHAKE])


def test_the_clients_flight_in_any_other_order() -> None:
    """Each message once and in its place, whatever is left out or said twice."""
    for order in ((0, 0), (1,), (2,), (0, 2), (1, 2), (0, 1, 1), (0, 1, 0), (0, 1, 2, 2)):
        server, flight = client_flight()
        with pytest.raises(tls.Alert):
            step(server, {tls.Epoch.HANDSHAKE: b"".join(flight[index] for index in order)})
        assert server.proved_key is None or order == (0, 1, 2, 2)


def test_the_clients_flight_in_pieces() -> None:
    server, flight = client_flight()
    for byte in b"".join(flight):
        step(server, {tls.Epoch.HANDSHAKE: bytes([byte])})
    assert server.proved_key == KEY.public_key


def test_the_clients_flight_altered() -> None:
    """Any byte of it: nobody gets through."""
    _, flight = client_flight()
    whole = b"".join(flight)
    for at in range(0, len(whole), 7):
        server, flight = client_flight()
        broken = bytearray(b"".join(flight))
        broken[at] ^= 1 << at % 8
        with pytest.raises((tls.Alert, ValueError, LookupError, AssertionError)):
            step(server, {tls.Epoch.HANDSHAKE: bytes(broken)})
            raise AssertionError("waits for the rest of a message whose length was altered")
        assert server.proved_key is None


def test_the_clients_flight_too_early() -> None:
    """Only protected by the keys of the handshake."""
    server, flight = client_flight()
    with pytest.raises(tls.AlertUnexpectedMessage):
        step(server, {tls.Epoch.INITIAL: flight[0]})


def test_extra_bytes_in_a_message() -> None:
    server, flight = client_flight()
    step(server, {tls.Epoch.HANDSHAKE: flight[0] + flight[1]})
    longer = bytes([flight[2][0]]) + (len(flight[2]) - 3).to_bytes(3, "big") + flight[2][4:] + b"x"
    with pytest.raises(tls.Alert):
        step(server, {tls.Epoch.HANDSHAKE: longer})


def test_a_message_without_end() -> None:
    server, _ = client_flight()
    with pytest.raises(tls.AlertDecodeError):
        step(server, {tls.Epoch.HANDSHAKE: b"\x0b" + MAX_MESSAGE.to_bytes(3, "big")})


def server_flight() -> tuple[MutualContext, bytes, list[bytes]]:
    """A client that waits for its server's flight, and that flight."""
    client, server = context(client=True), context(client=False)
    flight = step(server, step(client, {tls.Epoch.INITIAL: b""}))
    return client, flight[tls.Epoch.INITIAL], messages(flight[tls.Epoch.HANDSHAKE])


@pytest.mark.parametrize("order", [(0, 2, 3, 4), (0, 1, 1), (0, 1, 3), (1,), (0, 1, 2, 4)])
def test_the_servers_flight_in_any_other_order(order: tuple[int, ...]) -> None:
    """Above all without CertificateRequest: who does not ask cannot know who we are."""
    client, hello, flight = server_flight()
    step(client, {tls.Epoch.INITIAL: hello})
    with pytest.raises(tls.Alert):
        step(client, {tls.Epoch.HANDSHAKE: b"".join(flight[index] for index in order)})
    assert client.proved_key is None


def test_compressed_certificates_are_refused() -> None:
    client, hello, flight = server_flight()
    step(client, {tls.Epoch.INITIAL: hello})
    with pytest.raises(tls.AlertUnexpectedMessage):
        step(client, {tls.Epoch.HANDSHAKE: flight[0] + flight[1] + b"\x19" + flight[2][1:]})


@pytest.mark.parametrize(
    "change",
    [
        lambda found: replace(found, alpn_protocol="h3"),
        lambda found: replace(found, early_data=True),
        lambda found: replace(found, other_extensions=[(tls.ExtensionType.APPLICATION_SETTINGS, b"")]),
    ],
)
def test_a_server_that_accepts_what_was_not_offered(
    change: Callable[[tls.EncryptedExtensions], tls.EncryptedExtensions], monkeypatch: pytest.MonkeyPatch
) -> None:
    push = tls.push_encrypted_extensions
    monkeypatch.setattr(tls, "push_encrypted_extensions", lambda buf, found: push(buf, change(found)))
    with pytest.raises(tls.Alert):
        shake_hands(context(client=True), context(client=False))


def test_tickets_are_read_past() -> None:
    """go sends one with every handshake."""
    client, server = context(client=True), context(client=False)
    shake_hands(client, server)
    buf = Buffer(capacity=1000)
    tls.push_new_session_ticket(
        buf, tls.NewSessionTicket(ticket_lifetime=1, ticket_age_add=1, ticket_nonce=b"", ticket=bytes(64))
    )
    assert step(client, {tls.Epoch.ONE_RTT: buf.data}) == {}
    assert client.proved_key == THEIR_KEY.public_key


# --- signatures


def test_signatures_of_all_kinds_of_keys() -> None:
    """T7: those of TLS 1.3, each with its own algorithm only."""
    server, _ = client_flight()
    signed = server._schedule.certificate_verify_data(b"x")
    p256, p384 = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP384R1())
    ed, rsa_key = ed25519.Ed25519PrivateKey.generate(), rsa.generate_private_key(65537, 2048)
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
    good: list[tuple[ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey, int, bytes]] = [
        (p256, 0x0403, p256.sign(signed, ec.ECDSA(hashes.SHA256()))),
        (p384, 0x0503, p384.sign(signed, ec.ECDSA(hashes.SHA384()))),
        (ed, 0x0807, ed.sign(signed)),
        (rsa_key, 0x0804, rsa_key.sign(signed, pss, hashes.SHA256())),
    ]
    for key, algorithm, signature in good:
        server._certificate_key = key.public_key()
        server._verified = False
        server._check_signature(tls.CertificateVerify(algorithm=algorithm, signature=signature), b"x")
        assert server._verified
        with pytest.raises(tls.AlertDecryptError):
            server._check_signature(tls.CertificateVerify(algorithm=algorithm, signature=signature[:-1] + b"?"), b"x")
        for other in (0x0401, 0x0804, 0x0807, 0x0603):
            if other != algorithm:
                with pytest.raises(tls.Alert):
                    server._check_signature(tls.CertificateVerify(algorithm=other, signature=signature), b"x")


def test_no_keys_before_the_hellos() -> None:
    with pytest.raises(tls.AlertUnexpectedMessage):
        _ = context(client=True)._schedule


# --- the self-test


def test_self_test_passes() -> None:
    self_test(OURS, KEY.public_key, outside())


def test_self_test_knows_another_identity() -> None:
    with pytest.raises(SecurityError, match="authenticate"):
        self_test(OURS, THEIR_KEY.public_key, outside())


def refuse(*args: object) -> None:
    raise AlertCertificateRequired


def test_self_test_fails_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever changes in the engine: no request, no check, another shape."""
    for name, replacement in (
        ("_push_certificate_request", lambda buf: None),
        ("_exchange", None),
        ("verify_certificate", lambda data, now: THEIR_KEY.public_key),
    ):
        with monkeypatch.context() as patch, pytest.raises(SecurityError, match="self-test"):
            patch.setattr(_tls, name, replacement)
            self_test(OURS, KEY.public_key, outside())
    with monkeypatch.context() as patch, pytest.raises(SecurityError, match="self-test"):
        # A server that refuses everybody.
        patch.setattr(MutualContext, "_take_from_client", refuse)
        self_test(OURS, KEY.public_key, outside())
    with monkeypatch.context() as patch, pytest.raises(SecurityError, match="self-test"):
        # A server that takes any Finished.
        patch.setattr(MutualContext, "_take_from_client", lambda self, message, buffers, epoch: None)
        self_test(OURS, KEY.public_key, outside())


def test_certificates_are_made_anew() -> None:
    """T14: not the host's key, and another one each time."""
    one, other = TlsIdentity.make(KEY, WALL), TlsIdentity.make(KEY, WALL)
    assert one.certificate != other.certificate and one.private_key != other.private_key
