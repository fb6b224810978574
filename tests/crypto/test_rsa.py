"""RSA keys (checklist K4, K12; reliability case S5)."""

from __future__ import annotations

import functools
import time

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding
from cryptography.hazmat.primitives.asymmetric import rsa as openssl_rsa
from hypothesis import given
from hypothesis import strategies as st

from libp2p.crypto import _codec, _der, rsa
from libp2p.crypto.keys import KeyType, unmarshal_public_key
from libp2p.errors import DecodeError
from tests.crypto.vectors import private_key

KEY = private_key(KeyType.RSA)
# Loading checks that the primes are prime, which takes half a second for the 4096 bits of the vector.
SMALL = rsa.generate(2048)
# 1 in the top bit, odd: good enough where only the size counts.
N_2048 = 2**2047 + 1


def encode(n: int, e: int) -> bytes:
    """The public key with these numbers, good or bad."""
    return rsa._public_der(n, e)


@functools.cache
def openssl_private(raw: bytes = KEY.raw) -> openssl_rsa.RSAPrivateKey:
    """What OpenSSL itself makes of the DER."""
    key = serialization.load_der_private_key(raw, None)
    assert isinstance(key, openssl_rsa.RSAPrivateKey)
    return key


def test_k4_the_der_is_what_openssl_writes() -> None:
    key = openssl_private()
    assert KEY.raw == key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    assert KEY.public_key.raw == key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def test_k4_signatures_are_pkcs1_v1_5_over_sha_256() -> None:
    key = openssl_private()
    signature = key.sign(b"data", padding.PKCS1v15(), hashes.SHA256())
    assert KEY.sign(b"data") == signature
    assert KEY.public_key.verify(b"data", signature)
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
    assert not KEY.public_key.verify(b"data", key.sign(b"data", pss, hashes.SHA256()))
    assert not KEY.public_key.verify(b"data", key.sign(b"data", padding.PKCS1v15(), hashes.SHA1()))


def test_s2_the_signature_as_number_plus_modulus_is_refused() -> None:
    n = openssl_private().public_key().public_numbers().n
    number = int.from_bytes(KEY.sign(b"data"), "big") + n
    assert not KEY.public_key.verify(b"data", number.to_bytes(513, "big"))


@pytest.mark.parametrize("bits", [2048, 3072, 4096, 8192])
def test_k12_accepted_sizes(bits: int) -> None:
    assert rsa.decode_public(encode(2 ** (bits - 1) + 1, 65537)).key_type is KeyType.RSA


@pytest.mark.parametrize("bits", [1, 512, 1024, 2047, 8193, 16384, 65536])
def test_k12_s5_refused_sizes(bits: int) -> None:
    with pytest.raises(DecodeError, match=f"{bits} bits"):
        rsa.decode_public(encode(2 ** (bits - 1) | 1, 65537))


@pytest.mark.parametrize("e", [0, 1, 2, 4, 65536, 2**31, 2**31 + 1, 2**64 + 1, N_2048])
def test_s5_refused_exponents(e: int) -> None:
    with pytest.raises(DecodeError, match="exponent"):
        rsa.decode_public(encode(N_2048, e))


@pytest.mark.parametrize("e", [3, 17, 65537, 2**31 - 1])
def test_accepted_exponents(e: int) -> None:
    assert rsa.decode_public(encode(N_2048, e)).raw == encode(N_2048, e)


def test_s5_even_modulus() -> None:
    with pytest.raises(DecodeError, match="even"):
        rsa.decode_public(encode(N_2048 + 1, 65537))


@pytest.mark.real_clock("measures CPU time")
def test_s5_refused_at_once_and_8192_bits_verify_quickly() -> None:
    largest = _codec.encode(KeyType.RSA, encode(2**130_000 + 1, 2**64 + 1))
    assert 16_000 < len(largest) <= _codec.MAX_LENGTH
    biggest = encode(2**8191 + 1, 2**31 - 1)
    refusals, verifications = [], []
    for _ in range(20):
        start = time.perf_counter()
        with pytest.raises(DecodeError):
            unmarshal_public_key(largest)
        refusals.append(time.perf_counter() - start)
        start = time.perf_counter()
        assert not rsa.decode_public(biggest).verify(b"data", bytes(1023) + b"\x02")
        verifications.append(time.perf_counter() - start)
    assert min(refusals) < 0.001
    assert min(verifications) < 0.005


def test_k2_public_der_in_other_forms() -> None:
    raw = KEY.public_key.raw
    body = raw[4:]
    for wrong in (
        b"\x30\x80" + body + b"\x00\x00",  # indefinite length
        b"\x30\x83\x00" + raw[2:],  # long length
        b"\x30\x84\x00\x00" + raw[2:],
        b"\x31" + raw[1:],
        raw + b"\x00",
        raw[:-1],
        raw[:4] + b"\x30\x0b" + body[2:13] + body[15:],  # no parameters
        raw.replace(b"\x01\x01\x01\x05\x00", b"\x01\x01\x0a\x05\x00"),  # RSASSA-PSS
        raw.replace(b"\x03\x82\x02\x0f\x00", b"\x03\x82\x02\x0f\x01"),  # unused bits
        raw[:19] + b"\x03\x00",
        raw[:19],
        b"",
        b"\x30",
        b"\x30\x00",
    ):
        with pytest.raises(DecodeError):
            rsa.decode_public(wrong)


def test_k2_numbers_in_other_forms() -> None:
    padded = _der.write(0x30, b"\x02\x82\x01\x02\x00\x00" + N_2048.to_bytes(256, "big") + b"\x02\x03\x01\x00\x01")
    negative = _der.write(0x30, b"\x02\x82\x01\x00" + N_2048.to_bytes(256, "big") + b"\x02\x03\x01\x00\x01")
    three = rsa._sequence((N_2048, 65537, 1))
    one = rsa._sequence((N_2048,))
    behind = rsa._sequence((N_2048, 65537)) + b"\x00"
    other = _der.write(0x30, _der.write(0x04, b"x") * 2)
    for numbers in (padded, negative, three, one, behind, other, b""):
        raw = _der.write(0x30, rsa._ALGORITHM + _der.write(0x03, b"\x00" + numbers))
        with pytest.raises(DecodeError):
            rsa.decode_public(raw)
    with pytest.raises(DecodeError):
        rsa.decode_public(_der.write(0x30, rsa._ALGORITHM + _der.write(0x03, b"\x00") + b"\x05\x00"))


def numbers() -> list[int]:
    own = openssl_private(SMALL.raw).private_numbers()
    public = own.public_numbers
    return [0, public.n, public.e, own.d, own.p, own.q, own.dmp1, own.dmq1, own.iqmp]


def test_k4_private_numbers_are_written_in_order() -> None:
    assert rsa._sequence(tuple(numbers())) == SMALL.raw


@pytest.mark.parametrize("index", range(9))
def test_k4_private_numbers_that_do_not_belong_together(index: int) -> None:
    changed = numbers()
    changed[index] += 2
    with pytest.raises(DecodeError):
        rsa.decode_private(rsa._sequence(tuple(changed)))


def test_k12_private_keys_of_refused_sizes() -> None:
    key = openssl_rsa.generate_private_key(65537, 1024)
    with pytest.raises(DecodeError, match="1024 bits"):
        rsa.decode_private(rsa.RsaPrivateKey(key).raw)


def test_k2_private_der_in_other_forms() -> None:
    for wrong in (
        SMALL.raw + b"\x00",
        SMALL.raw[:-1],
        rsa._sequence(tuple(numbers()[:8])),
        b"\x30\x84\x00\x00" + SMALL.raw[2:],
        _der.write(0x30, b"\x02\x02\x00" + SMALL.raw[6:]),  # version in two bytes
        b"",
    ):
        with pytest.raises(DecodeError):
            rsa.decode_private(wrong)


@given(st.lists(st.integers(0, 2**600) | st.integers(0, 300), min_size=1, max_size=9))
def test_der_round_trip(values: list[int]) -> None:
    assert rsa._integers(rsa._sequence(tuple(values)), len(values)) == values


@given(st.integers(0, 554), st.integers(0, 255))
def test_k13_one_changed_byte_gives_a_key_of_the_accepted_kind_or_the_typed_error(position: int, value: int) -> None:
    raw = bytearray(KEY.public_key.raw)
    raw[position % len(raw)] = value
    try:
        key = rsa.decode_public(bytes(raw))
    except DecodeError:
        return
    assert key.raw == raw
