"""Certificates of the web, for tests of secure WebSockets: what an authority would sign, signed by itself."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

__all__ = ["self_signed", "tls_pair"]


def self_signed(*names: str, days: float = 1.0, clock: Callable[[], float] = time.time) -> tuple[bytes, bytes]:
    """Return a certificate for ``names`` and its key, both as PEM.

    Args:
        names: host names and IP addresses.
        days: how long it is valid from now; negative for one that has expired.
        clock: tells what is now.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test")])
    now = datetime.datetime.fromtimestamp(clock(), datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=abs(days) + 1))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM), key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def tls_pair(*names: str, days: float = 1.0) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return the context of a server with a new certificate for ``names``, and that of a client who trusts only it."""
    certificate, key = self_signed(*names, days=days)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:  # Python reads certificates of its own from files only
        path = Path(folder) / "both.pem"
        path.write_bytes(key + certificate)
        server.load_cert_chain(path)
    return server, ssl.create_default_context(cadata=certificate.decode())


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
