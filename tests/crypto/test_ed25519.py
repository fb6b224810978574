"""Ed25519 keys (checklist K5)."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from libp2p.crypto import ed25519
from libp2p.crypto.keys import KeyType
from libp2p.errors import DecodeError
from tests.crypto.curves import Edwards25519 as Ed
from tests.crypto.vectors import private_key

KEY = private_key(KeyType.ED25519)
SEED, POINT = KEY.raw[:32], KEY.raw[32:]

P = Ed.P


def test_k5_both_private_forms_are_read_and_one_is_written() -> None:
    assert ed25519.decode_private(SEED + POINT).raw == SEED + POINT
    assert ed25519.decode_private(SEED + POINT + POINT).raw == SEED + POINT
    assert KEY.public_key.raw == POINT


@pytest.mark.parametrize(
    "raw",
    [
        SEED + bytes(32),
        SEED + SEED,
        SEED + POINT + bytes(32),
        SEED + bytes(32) + POINT,
        bytes(32) + POINT,
        SEED,
        SEED + POINT[:-1],
        SEED + POINT + b"\x00",
        b"",
    ],
)
def test_k5_halves_that_do_not_belong_together(raw: bytes) -> None:
    with pytest.raises(DecodeError):
        ed25519.decode_private(raw)


def test_s2_points_of_small_order_are_refused() -> None:
    for x, y in Ed.torsion():
        for sign in (x & 1, 1 - (x & 1)):
            with pytest.raises(DecodeError, match="proves nothing"):
                ed25519.decode_public((y | sign << 255).to_bytes(32, "little"))


def test_s2_why_they_are_refused() -> None:
    """Under the identity as public key, S·B = R + h·A holds for any message when R = S·B."""
    key = Ed25519PublicKey.from_public_bytes(b"\x01" + bytes(31))
    base_point = Ed.encode(Ed.BASE)
    key.verify(base_point + b"\x01" + bytes(31), b"any message")
    with pytest.raises(DecodeError):
        ed25519.decode_public(b"\x01" + bytes(31))


@pytest.mark.parametrize("y", [P, P + 1, P + 18, 2**255 - 1])
def test_k2_numbers_that_are_not_reduced(y: int) -> None:
    for sign in (0, 1):
        with pytest.raises(DecodeError):
            ed25519.decode_public((y | sign << 255).to_bytes(32, "little"))


def test_s5_a_point_that_is_not_on_the_curve_verifies_nothing() -> None:
    y = next(y for y in range(2, 100) if Ed.x_of(y) is None)
    key = ed25519.decode_public(y.to_bytes(32, "little"))
    assert not key.verify(b"data", KEY.sign(b"data"))
    assert not key.verify(b"data", bytes(64))


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_public_size(size: int) -> None:
    with pytest.raises(DecodeError, match="32 bytes"):
        ed25519.decode_public(POINT.ljust(size, b"\x01")[:size])


def test_rfc_8032_vector() -> None:
    """RFC 8032, section 7.1, test 2."""
    seed = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
    point = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
    signature = bytes.fromhex(
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )
    key = ed25519.decode_private(seed + point)
    assert key.sign(b"\x72") == signature
    assert key.public_key.verify(b"\x72", signature)


def test_s2_the_other_form_of_a_signature_is_refused() -> None:
    """S + L verifies as S does where the check of RFC 8032, section 5.1.7, is left out."""
    signature = KEY.sign(b"data")
    number = int.from_bytes(signature[32:], "little") + Ed.L
    assert not KEY.public_key.verify(b"data", signature[:32] + number.to_bytes(32, "little"))
