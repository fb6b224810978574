"""Ed25519 keys (checklist K5)."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from libp2p.crypto import ed25519
from libp2p.crypto.keys import KeyType
from libp2p.errors import DecodeError
from tests.crypto.vectors import private_key

KEY = private_key(KeyType.ED25519)
SEED, POINT = KEY.raw[:32], KEY.raw[32:]

P = 2**255 - 19
D = -121665 * pow(121666, -1, P) % P


def add(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
    """The sum of two points of the curve (RFC 8032, section 5.1.4)."""
    (x1, y1), (x2, y2) = a, b
    product = D * x1 * x2 * y1 * y2
    return (x1 * y2 + x2 * y1) * pow(1 + product, -1, P) % P, (y1 * y2 + x1 * x2) * pow(1 - product, -1, P) % P


def root(square: int) -> int | None:
    """A square root modulo P, where there is one."""
    x = pow(square, (P + 3) // 8, P)
    if x * x % P != square:
        x = x * pow(2, (P - 1) // 4, P) % P
    return x if x * x % P == square else None


def x_of(y: int) -> int | None:
    """An x for this y, where the curve has such a point."""
    return root((y * y - 1) * pow(D * y * y + 1, -1, P) % P)


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


def small_order_points() -> set[tuple[int, int]]:
    """All points P with 8 P = 0: multiples of one of order 8, found by multiplying points by the big prime."""
    prime = 2**252 + 27742317777372353535851937790883648493
    for y in range(2, 1000):
        x = x_of(y)
        if x is None:
            continue
        torsion, point, rest = (0, 1), (x, y), prime
        while rest:
            if rest & 1:
                torsion = add(torsion, point)
            point, rest = add(point, point), rest >> 1
        found, step = {torsion}, torsion
        for _ in range(8):
            step = add(step, torsion)
            found.add(step)
        if len(found) == 8:
            return found
    raise AssertionError("no point of order 8")


def test_s2_points_of_small_order_are_refused() -> None:
    points = small_order_points()
    assert len(points) == 8
    for x, y in points:
        for sign in (x & 1, 1 - (x & 1)):
            with pytest.raises(DecodeError, match="proves nothing"):
                ed25519.decode_public((y | sign << 255).to_bytes(32, "little"))


def test_s2_why_they_are_refused() -> None:
    """Under the identity as public key, S·B = R + h·A holds for any message when R = S·B."""
    key = Ed25519PublicKey.from_public_bytes(b"\x01" + bytes(31))
    base_point = (4 * pow(5, -1, P) % P).to_bytes(32, "little")
    key.verify(base_point + b"\x01" + bytes(31), b"any message")
    with pytest.raises(DecodeError):
        ed25519.decode_public(b"\x01" + bytes(31))


@pytest.mark.parametrize("y", [P, P + 1, P + 18, 2**255 - 1])
def test_k2_numbers_that_are_not_reduced(y: int) -> None:
    for sign in (0, 1):
        with pytest.raises(DecodeError):
            ed25519.decode_public((y | sign << 255).to_bytes(32, "little"))


def test_s5_a_point_that_is_not_on_the_curve_verifies_nothing() -> None:
    y = next(y for y in range(2, 100) if x_of(y) is None)
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
    order = 2**252 + 27742317777372353535851937790883648493
    number = int.from_bytes(signature[32:], "little") + order
    assert not KEY.public_key.verify(b"data", signature[:32] + number.to_bytes(32, "little"))
