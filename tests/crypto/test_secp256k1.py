"""secp256k1 keys (checklist K6)."""

from __future__ import annotations

import hashlib

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from libp2p.crypto import secp256k1
from libp2p.crypto.keys import KeyType
from libp2p.errors import DecodeError
from tests.crypto.curves import Secp256k1
from tests.crypto.vectors import private_key

KEY = private_key(KeyType.SECP256K1)
P, N = Secp256k1.P, Secp256k1.N


def test_k6_sizes() -> None:
    assert len(KEY.raw) == 32
    assert len(KEY.public_key.raw) == 33


def test_k6_signatures_are_what_libsecp256k1_accepts() -> None:
    """Strict DER, and s in the lower half; OpenSSL by itself gives an upper s every second time."""
    for number in range(64):
        data = b"%d" % number
        signature = KEY.sign(data)
        r, s = decode_dss_signature(signature)
        assert 0 < r < N
        assert 0 < s <= N // 2
        assert signature == encode_dss_signature(r, s)
        assert KEY.public_key.verify(data, signature)


def test_s2_the_other_half_is_refused() -> None:
    """As in the Rust and JavaScript implementations: nobody can change a signature of somebody else."""
    r, s = decode_dss_signature(KEY.sign(b"data"))
    assert KEY.public_key.verify(b"data", encode_dss_signature(r, s))
    assert not KEY.public_key.verify(b"data", encode_dss_signature(r, N - s))


def test_k6_the_hash_is_sha_256() -> None:
    """The equation of ECDSA, worked out with the private number: s·k = h + r·d, so h and h' give different s."""
    r, s = decode_dss_signature(KEY.sign(b"data"))
    d = int.from_bytes(KEY.raw, "big")
    h = int.from_bytes(hashlib.sha256(b"data").digest(), "big")
    nonce = (h + r * d) * pow(s, -1, N) % N
    # The point nonce·G, made by the key whose private number the nonce is, has r as its x.
    point = secp256k1.decode_private(nonce.to_bytes(32, "big")).public_key.raw
    assert int.from_bytes(point[1:], "big") % N == r


@pytest.mark.parametrize(
    "signature",
    [
        "3006020100020100",
        "3006020101020100",
        "3006020100020101",
        "30060201ff0201ff",  # negative
        "300702020001020101",  # padded
        "3081060201010201010000",
        "3006020101020101" + "00",
    ],
)
def test_s2_degenerate_signatures(signature: str) -> None:
    assert not KEY.public_key.verify(b"data", bytes.fromhex(signature))


@pytest.mark.parametrize("number", [0, N, N + 1, 2**256 - 1])
def test_k6_private_numbers_outside_of_the_group(number: int) -> None:
    with pytest.raises(DecodeError, match="outside of the group"):
        secp256k1.decode_private(number.to_bytes(32, "big"))


@pytest.mark.parametrize("size", [0, 31, 33, 64])
def test_k6_private_size(size: int) -> None:
    with pytest.raises(DecodeError, match="32 bytes"):
        secp256k1.decode_private(bytes(size))


def not_on_the_curve() -> bytes:
    x = next(x for x in range(1, 100) if pow(x**3 + 7, (P - 1) // 2, P) != 1)
    return b"\x02" + x.to_bytes(32, "big")


@pytest.mark.parametrize(
    "raw",
    [
        not_on_the_curve(),
        b"\x02" + P.to_bytes(32, "big"),  # not reduced
        b"\x03" + b"\xff" * 32,
        b"\x00" * 33,
        b"\x04" + KEY.public_key.raw[1:],
        b"\x06" + KEY.public_key.raw[1:],
        KEY.public_key.raw[1:],
        KEY.public_key.raw + bytes(32),
        b"\x00",
        b"",
    ],
)
def test_s5_points_that_are_none(raw: bytes) -> None:
    with pytest.raises(DecodeError):
        secp256k1.decode_public(raw)


def test_uncompressed_form_is_refused() -> None:
    """One key has one form, and one peer id."""
    x = int.from_bytes(KEY.public_key.raw[1:], "big")
    y = pow(x**3 + 7, (P + 1) // 4, P)
    with pytest.raises(DecodeError, match="33 bytes"):
        secp256k1.decode_public(b"\x04" + x.to_bytes(32, "big") + y.to_bytes(32, "big"))


def test_both_parities_are_read() -> None:
    x = KEY.public_key.raw[1:]
    odd, even = secp256k1.decode_public(b"\x03" + x), secp256k1.decode_public(b"\x02" + x)
    assert odd != even
    assert KEY.public_key in (odd, even)
