"""Certificates of the web, for tests of secure WebSockets: an authority that nobody knows, and what it signs."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

__all__ = ["WebCertificate", "issue", "tls_pair"]

_AUTHORITY = "an authority of tests"


@dataclass(frozen=True, slots=True, kw_only=True)
class WebCertificate:
    """A server's certificate.

    Attributes:
        server: its key and certificate, as PEM.
        authority: the certificate of who signed it, for clients to trust, as PEM.
    """

    server: bytes
    authority: bytes


def issue(*names: str, days: float = 1.0, clock: Callable[[], float] = time.time) -> WebCertificate:
    """Make an authority, and have it sign a certificate for ``names``.

    Args:
        names: host names and IP addresses.
        days: how long the certificate is valid from now; negative for one that has expired.
        clock: tells what is now.
    """
    now = datetime.datetime.fromtimestamp(clock(), datetime.UTC)
    life = datetime.timedelta(days=abs(days))
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    identifier = x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key())
    authority = (
        _builder(_AUTHORITY, authority_key, now - 2 * life, now + 2 * life)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs=True), critical=True)
        .add_extension(identifier, critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    certificate = (
        _builder("a server of tests", key, now - 2 * life, now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return WebCertificate(server=secret + certificate.public_bytes(pem), authority=authority.public_bytes(pem))


def tls_pair(*names: str, days: float = 1.0) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return the context of a server with a new certificate for ``names``, and that of a client who trusts only it."""
    found = issue(*names, days=days)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:  # Python reads certificates of its own from files only
        path = Path(folder) / "server.pem"
        path.write_bytes(found.server)
        server.load_cert_chain(path)
    return server, ssl.create_default_context(cadata=found.authority.decode())


def _builder(
    name: str, key: ec.EllipticCurvePrivateKey, start: datetime.datetime, end: datetime.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .issuer_name(_name(_AUTHORITY))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
    )


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
