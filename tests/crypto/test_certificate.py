"""libp2p certificates: what is made, what is accepted, and everything that is not (T2 to T8, T12, T14)."""

from __future__ import annotations

import functools
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import ExtendedKeyUsageOID
from hypothesis import given
from hypothesis import strategies as st

from libp2p.crypto.certificate import EXTENSION, MAX_CERTIFICATE, make_certificate, verify_certificate
from libp2p.crypto.keys import KeyType, PrivateKey, generate
from libp2p.errors import SecurityError
from libp2p.peer_id import PeerId
from libp2p.testing import seeded_key
from tests.crypto.certificate_vectors import SPEC_CERTIFICATES

NOW = 1_700_000_000.0
DAY = 86_400.0
OURS = seeded_key("certificate")
PREFIX = b"libp2p-tls-handshake:"
UNKNOWN = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), b"x")


def der(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(Encoding.DER)


@functools.cache
def good() -> x509.Certificate:
    return make_certificate(OURS, now=NOW).certificate


def signed_key(key: PrivateKey, public_key, prefix: bytes = PREFIX) -> bytes:
    """The extension's content, written with another hand than the library's."""
    identity = key.public_key.marshal()
    signature = key.sign(prefix + public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    return sequence(identity, signature)


def element(tag: int, body: bytes) -> bytes:
    size = len(body)
    head = (
        bytes((size,)) if size < 128 else b"\x81" + bytes((size,)) if size < 256 else b"\x82" + size.to_bytes(2, "big")
    )
    return bytes((tag,)) + head + body


def sequence(*parts: bytes) -> bytes:
    return element(0x30, b"".join(element(0x04, part) for part in parts))


@functools.cache
def own_key():
    return ec.generate_private_key(ec.SECP256R1())


def build(
    key=None,
    *,
    identity: PrivateKey = OURS,
    extension: bytes | None = None,
    critical: bool = False,
    more: tuple[tuple[x509.ExtensionType, bool], ...] = (),
    begins: float = -DAY,
    ends: float = DAY,
    algorithm=hashes.SHA256(),  # noqa: B008
    subject: str = "a",
    issuer: str = "a",
    without: bool = False,
    signer=None,
) -> bytes:
    """A certificate that is right but for what the arguments say."""
    key = key or own_key()
    at = datetime.fromtimestamp(NOW, UTC)

    def name(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)])

    builder = (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(name(issuer))
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(at + timedelta(seconds=begins))
        .not_valid_after(at + timedelta(seconds=ends))
    )
    for value, is_critical in more:
        builder = builder.add_extension(value, is_critical)
    if not without:
        content = signed_key(identity, key.public_key()) if extension is None else extension
        builder = builder.add_extension(x509.UnrecognizedExtension(EXTENSION, content), critical)
    return der(builder.sign(signer or key, algorithm))


# --- T3, T4: the specification's certificates -------------------------------------------------------------------------


@pytest.mark.parametrize("name", SPEC_CERTIFICATES)
def test_T4_the_certificates_of_the_specification(name) -> None:
    data, peer = SPEC_CERTIFICATES[name]
    if peer is None:
        with pytest.raises(SecurityError, match="did not sign"):
            verify_certificate(data, now=NOW)
    else:
        assert str(PeerId.from_key(verify_certificate(data, now=NOW))) == peer


# --- what we make -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(KeyType), ids=lambda kind: kind.name)
def test_T3_identities_of_all_kinds(kind) -> None:
    identity = generate(kind)
    made = make_certificate(identity, now=NOW).certificate
    assert verify_certificate(der(made), now=NOW) == identity.public_key
    extension = made.extensions.get_extension_for_oid(EXTENSION)
    assert isinstance(extension.value, x509.UnrecognizedExtension)
    assert EXTENSION.dotted_string == "1.3.6.1.4.1.53594.1.1"
    assert identity.public_key.marshal() in extension.value.value


def test_T3_the_extension_is_the_same_by_another_hand() -> None:
    """An identity whose signatures never vary, so that both ways of writing give the same bytes."""
    made = good()
    extension = made.extensions.get_extension_for_oid(EXTENSION).value
    assert isinstance(extension, x509.UnrecognizedExtension)
    assert extension.value == signed_key(OURS, made.public_key())


def test_T5_T8_T12_our_certificate_says_no_more_than_it_must() -> None:
    made = good()
    assert [extension.oid for extension in made.extensions] == [EXTENSION], "no extended key usage, above all"
    assert not made.extensions[0].critical
    assert made.version is x509.Version.v3
    assert made.issuer == made.subject
    assert isinstance(made.public_key(), ec.EllipticCurvePublicKey)
    assert b"\xa1" not in der(made)[:4], "no unique identifiers"
    assert made.not_valid_before_utc.timestamp() == NOW - 3600
    assert made.not_valid_after_utc.timestamp() > NOW + 90 * 365 * DAY


def test_T14_every_certificate_has_a_key_of_its_own() -> None:
    first, second = (make_certificate(OURS, now=NOW) for _ in range(2))
    assert first.certificate.public_key() != second.certificate.public_key()
    assert first.certificate.serial_number != second.certificate.serial_number
    assert first.private_key.public_key() == first.certificate.public_key()


# --- what we accept ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "arguments"),
    [
        ("the plain one", {}),
        ("T5 critical", {"critical": True}),
        ("T6 an unknown extension", {"more": ((UNKNOWN, False),)}),
        ("constraints of an authority", {"more": ((x509.BasicConstraints(ca=True, path_length=None), True),)}),
        ("key usage", {"more": ((x509.KeyUsage(True, *[False] * 8), True),)}),
        ("extended key usage", {"more": ((x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), False),)}),
        ("SHA-384", {"algorithm": hashes.SHA384()}),
        ("a year", {"begins": -365 * DAY, "ends": 365 * DAY}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_accepted(what, arguments) -> None:
    assert verify_certificate(build(**arguments), now=NOW) == OURS.public_key


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP384R1()),
        ec.generate_private_key(ec.SECP521R1()),
        ed25519.Ed25519PrivateKey.generate(),
        rsa.generate_private_key(65537, 2048),
    ],
    ids=["P-384", "P-521", "Ed25519", "RSA-2048"],
)
def test_T7_keys_that_TLS_can_use(key) -> None:
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    assert verify_certificate(build(key, algorithm=algorithm), now=NOW) == OURS.public_key


def test_T2_valid_to_the_second() -> None:
    data = build(begins=0, ends=10)
    for at in (NOW, NOW + 5, NOW + 10):
        verify_certificate(data, now=at)
    with pytest.raises(SecurityError, match="not valid yet"):
        verify_certificate(data, now=NOW - 1)
    with pytest.raises(SecurityError, match="expired"):
        verify_certificate(data, now=NOW + 11)


# --- what we refuse ---------------------------------------------------------------------------------------------------


def _name_constraints() -> x509.NameConstraints:
    return x509.NameConstraints([x509.DNSName("example.org")], None)


REFUSED = {
    "T6 an unknown critical extension": (
        lambda: build(more=((UNKNOWN, True),)),
        "unknown critical extension: 1.2.3",
    ),
    "T6 a known critical extension that nobody honours": (
        lambda: build(more=((_name_constraints(), True),)),
        "unknown critical extension",
    ),
    "key usage without signatures": (
        lambda: build(more=((x509.KeyUsage(False, False, True, *[False] * 6), True),)),
        "may not be used for signatures",
    ),
    "no extension": (lambda: build(without=True), "no libp2p extension"),
    "another extension": (
        lambda: build(
            without=True,
            more=((x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.53594.1.2"), b"x"), False),),
        ),
        "no libp2p extension",
    ),
    "empty extension": (lambda: build(extension=b""), "no DER element"),
    "extension cut": (lambda: build(extension=signed_key(OURS, own_key().public_key())[:-1]), "truncated"),
    "bytes behind it": (lambda: build(extension=signed_key(OURS, own_key().public_key()) + b"\0"), "bytes behind"),
    "only a key": (lambda: build(extension=sequence(OURS.public_key.marshal())), "no DER element"),
    "three parts": (lambda: build(extension=sequence(OURS.public_key.marshal(), b"s", b"x")), "bytes behind"),
    "no known key": (lambda: build(extension=sequence(b"\x08\x09\x12\x01x", b"s")), "unknown key type"),
    "empty key and signature": (lambda: build(extension=sequence(b"", b"")), "libp2p extension"),
    "T4 signed by another": (
        lambda: build(extension=sequence(OURS.public_key.marshal(), seeded_key("x").sign(PREFIX))),
        "did not sign",
    ),
    "T4 another prefix": (
        lambda: build(extension=signed_key(OURS, own_key().public_key(), b"noise-libp2p-static-key:")),
        "did not sign",
    ),
    "T4 no prefix": (lambda: build(extension=signed_key(OURS, own_key().public_key(), b"")), "did not sign"),
    "T4 another certificate's key": (
        lambda: build(extension=signed_key(OURS, ec.generate_private_key(ec.SECP256R1()).public_key())),
        "did not sign",
    ),
    "T7 signed by another key": (
        lambda: build(signer=ec.generate_private_key(ec.SECP256R1())),
        "did not sign itself",
    ),
    "another issuer": (lambda: build(issuer="b"), "does not parse"),
    "T2 expired": (lambda: build(ends=-1), "expired"),
    "T2 not valid yet": (lambda: build(begins=1), "not valid yet"),
    "RSA-1024": (lambda: build(rsa.generate_private_key(65537, 1024)), "1024 bits"),
    "P-224": (lambda: build(ec.generate_private_key(ec.SECP224R1())), "kind or curve"),
    "secp256k1": (lambda: build(ec.generate_private_key(ec.SECP256K1())), "kind or curve"),
    "DSA": (lambda: build(dsa.generate_private_key(1024)), "kind or curve"),
    "Ed448": (lambda: build(ed448.Ed448PrivateKey.generate(), algorithm=None), "kind or curve"),
    "SHA-224": (lambda: build(algorithm=hashes.SHA224()), "signed over sha224"),
    "64 KiB": (
        lambda: build(
            more=((x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3"), bytes(65_000)), False),),
        ),
        f"at most {MAX_CERTIFICATE}",
    ),
    "empty": (lambda: b"", "does not parse"),
    "bytes behind the certificate": (lambda: build() + b"\0", "does not parse"),
    "half": (lambda: build()[:200], "does not parse"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_S4_refused_with_a_reason(what) -> None:
    make, reason = REFUSED[what]
    with pytest.raises(SecurityError, match=reason) as caught:
        verify_certificate(make(), now=NOW)
    assert caught.value.stage == "security handshake"


def test_T8_a_certificate_of_version_1_has_no_extensions() -> None:
    """Made by hand, since nobody offers to make one: without the version field, signed again."""
    key = own_key()
    plain = x509.load_der_x509_certificate(build(without=True))
    version, fields = plain.tbs_certificate_bytes[3:8], plain.tbs_certificate_bytes[8:]
    assert version == b"\xa0\x03\x02\x01\x02"
    old = element(0x30, fields)
    signature = element(0x03, b"\0" + key.sign(old, ec.ECDSA(hashes.SHA256())))
    data = element(0x30, old + element(0x30, bytes.fromhex("06082a8648ce3d040302")) + signature)
    with pytest.raises(SecurityError, match="no extensions"):
        verify_certificate(data, now=NOW)


@pytest.mark.parametrize("name", ["Ed25519", "ECDSA", "secp256k1"])
def test_S2_no_byte_can_be_changed(name) -> None:
    """Everything is under one of the two signatures, or is one of them."""
    data = SPEC_CERTIFICATES[name][0]
    for at in range(len(data)):
        changed = data[:at] + bytes((data[at] ^ 1 << at % 8,)) + data[at + 1 :]
        with pytest.raises(SecurityError):
            verify_certificate(changed, now=NOW)


@given(st.binary(max_size=600))
def test_fuzz_bytes_are_a_certificate_or_a_security_error(data) -> None:
    with pytest.raises(SecurityError):
        verify_certificate(data, now=NOW)


@given(st.data())
def test_fuzz_changed_certificates_are_refused(data) -> None:
    """Cut out, put in, repeat, replace: whatever is done to a good one, nothing but a security error comes of it."""
    original = der(good())
    begin = data.draw(st.integers(0, len(original)))
    end = data.draw(st.integers(begin, min(len(original), begin + 40)))
    piece = data.draw(st.one_of(st.binary(max_size=40), st.just(original[begin:end] * 2)))
    changed = original[:begin] + piece + original[end:]
    if changed != original:
        with pytest.raises(SecurityError):
            verify_certificate(changed, now=NOW)


@given(st.binary(max_size=300))
def test_fuzz_extensions_are_right_or_a_security_error(content) -> None:
    """Signed by a certificate that is right in everything else."""
    with pytest.raises(SecurityError):
        verify_certificate(build(extension=content), now=NOW)
