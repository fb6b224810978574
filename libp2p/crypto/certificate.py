"""Certificates that bind a key of TLS to an identity, for the TLS security protocol and for QUIC.

A libp2p certificate is signed by nobody but itself. What it proves is in one extension: the owner's public key, and
that key's signature over the certificate's own key. Whoever can complete a TLS handshake with the certificate holds the
certificate's key, and the owner of the identity has vouched for it.

So nothing that a web browser looks at matters here, neither names nor issuers, and all of this does: that the
certificate is valid now, that it has signed itself, that it makes no demand (a critical extension) that nobody here
would honour, and that the extension's signature is right. TLS libraries check none or few of these for a certificate
without an authority, so everything is checked here, on the bytes that the peer sent.

Pure; the time is an argument. Importing it costs about 0.1 s, so only those who need certificates do.

Specification: libp2p/specs tls/tls.md; RFC 5280 for the fields.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import ExtensionOID

from ..errors import DecodeError, SecurityError
from ._der import OCTET_STRING, SEQUENCE, read, write
from .keys import PrivateKey, PublicKey, unmarshal_public_key
from .rsa import MAX_BITS, MIN_BITS

SIGNATURE_PREFIX = b"libp2p-tls-handshake:"
"""What is signed begins with it (specs tls)."""
EXTENSION = x509.ObjectIdentifier("1.3.6.1.4.1.53594.1.1")
"""Holds the identity's public key and its signature of the certificate's (specs tls)."""

MAX_CERTIFICATE = 16 * 1024
"""Longest certificate looked at, in bytes; one of an RSA key of 8192 bits takes 3 KiB."""
BACKDATED = timedelta(hours=1)
"""How long before it is made a certificate is valid, for peers whose clocks are late (go)."""
LIFETIME = timedelta(days=36500)
"""How long a certificate is valid: a hundred years (go). It is made anew with every process all the same."""

# What may be marked critical besides our own extension: the two that set no condition but the one checked below.
_UNDERSTOOD = frozenset({EXTENSION, ExtensionOID.BASIC_CONSTRAINTS, ExtensionOID.KEY_USAGE})
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_HASHES = (hashes.SHA256, hashes.SHA384, hashes.SHA512)
# All that cryptography raises for fields of a certificate that are wrong, or of a kind it does not know. The warning is
# about those that it will refuse one day; where warnings are errors, it refuses them now.
_UNREADABLE = (
    ValueError,
    CryptographyDeprecationWarning,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)


@dataclass(frozen=True, slots=True)
class HostCertificate:
    """A certificate and the private key that belongs to it, which is not the identity key."""

    certificate: x509.Certificate
    private_key: ec.EllipticCurvePrivateKey


def make_certificate(key: PrivateKey, *, now: float) -> HostCertificate:
    """Make a certificate with a fresh P-256 key, which the identity ``key`` vouches for.

    Args:
        now: seconds since 1970.
    """
    private_key = ec.generate_private_key(ec.SECP256R1())
    public_key = private_key.public_key()
    signed_key = _extension(key.public_key.marshal(), key.sign(_signed(public_key)))
    made = datetime.fromtimestamp(now, UTC)
    # The name means nothing. It is not empty, because RFC 5280 wants an issuer.
    name = x509.Name([x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "libp2p.io")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(made - BACKDATED)
        .not_valid_after(made + LIFETIME)
        .add_extension(x509.UnrecognizedExtension(EXTENSION, signed_key), critical=False)
        .sign(private_key, hashes.SHA256())
    )
    return HostCertificate(certificate, private_key)


def verify_certificate(data: bytes, *, now: float) -> PublicKey:
    """The identity key that vouches for a peer's certificate.

    That the peer holds the certificate's own key is for the TLS handshake to prove; only both together prove an
    identity. That it sent this one certificate and no other is for the caller to check.

    Args:
        data: the certificate in DER.
        now: seconds since 1970.

    Raises:
        SecurityError: anything at all is wrong with it; the text says what.
    """
    if len(data) > MAX_CERTIFICATE:
        raise SecurityError(f"a certificate of {len(data)} bytes; at most {MAX_CERTIFICATE} are read")
    try:
        certificate = x509.load_der_x509_certificate(data)
        _check_validity(certificate, now)
        public_key = _usable_key(certificate)
        _check_self_signature(certificate)
        extension = _libp2p_extension(certificate)
    except _UNREADABLE as exc:
        raise SecurityError(f"the certificate does not parse: {exc}") from exc
    try:
        key, signature = _signed_key(extension)
    except DecodeError as exc:
        raise SecurityError(f"the certificate's libp2p extension: {exc}") from exc
    if not key.verify(_signed(public_key), signature):
        raise SecurityError("the identity key did not sign the certificate's key")
    return key


def _signed(public_key: ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey) -> bytes:
    """What the identity key signs."""
    return SIGNATURE_PREFIX + public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _check_validity(certificate: x509.Certificate, now: float) -> None:
    if now < certificate.not_valid_before_utc.timestamp():
        raise SecurityError("the certificate is not valid yet")
    if now > certificate.not_valid_after_utc.timestamp():
        raise SecurityError("the certificate has expired")


def _usable_key(
    certificate: x509.Certificate,
) -> ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey:
    """The certificate's key, if it is one that TLS 1.3 can use and that takes no unreasonable time to verify with."""
    key = certificate.public_key()
    if isinstance(key, ec.EllipticCurvePublicKey):
        if isinstance(key.curve, _CURVES):
            return key
    elif isinstance(key, ed25519.Ed25519PublicKey):
        return key
    elif isinstance(key, rsa.RSAPublicKey):
        if MIN_BITS <= key.key_size <= MAX_BITS:
            return key
        raise SecurityError(f"the certificate has an RSA key of {key.key_size} bits, not {MIN_BITS} to {MAX_BITS}")
    raise SecurityError("the certificate has a key of a kind or curve that TLS 1.3 does not use")


def _check_self_signature(certificate: x509.Certificate) -> None:
    algorithm = certificate.signature_hash_algorithm
    if algorithm is not None and not isinstance(algorithm, _HASHES):  # None: Ed25519 brings its own
        raise SecurityError(f"the certificate is signed over {algorithm.name}")
    try:
        certificate.verify_directly_issued_by(certificate)
    except InvalidSignature:
        raise SecurityError("the certificate did not sign itself") from None


def _libp2p_extension(certificate: x509.Certificate) -> bytes:
    """The content of our extension, once all others are known to demand nothing."""
    if certificate.version is not x509.Version.v3:
        raise SecurityError("the certificate has no extensions")
    found: bytes | None = None
    for extension in certificate.extensions:
        value = extension.value
        if extension.oid == EXTENSION:
            assert isinstance(value, x509.UnrecognizedExtension)
            found = value.value
        elif extension.critical and extension.oid not in _UNDERSTOOD:
            raise SecurityError(f"the certificate has an unknown critical extension: {extension.oid.dotted_string}")
        elif isinstance(value, x509.KeyUsage) and not value.digital_signature:
            raise SecurityError("the certificate's key may not be used for signatures")
    if found is None:
        raise SecurityError("the certificate has no libp2p extension")
    return found


def _signed_key(extension: bytes) -> tuple[PublicKey, bytes]:
    """Read ``SignedKey ::= SEQUENCE { publicKey OCTET STRING, signature OCTET STRING }``."""
    body, _ = read(extension, SEQUENCE)
    key, rest = read(body, OCTET_STRING)
    signature, _ = read(rest, OCTET_STRING)
    if _extension(key, signature) != extension:
        raise DecodeError("it has bytes behind its end, or is not in its shortest form")
    return unmarshal_public_key(key), signature


def _extension(key: bytes, signature: bytes) -> bytes:
    return write(SEQUENCE, write(OCTET_STRING, key) + write(OCTET_STRING, signature))
