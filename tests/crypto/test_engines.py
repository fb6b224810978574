"""Whatever library does the arithmetic, the same keys and signatures are accepted (reliability cases S2, S5).

The signatures here are made in plain arithmetic and cover what implementations are known to disagree about: points of
small and of mixed order, encodings that are not the shortest, numbers that are not reduced, lax DER.
"""

from __future__ import annotations

import hashlib
import importlib
import sys
from collections.abc import Iterator
from types import ModuleType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libp2p.crypto import _ed25519_openssl, _engine, _secp256k1_openssl, ed25519, secp256k1
from libp2p.crypto.keys import KeyType, PrivateKey, PublicKey
from libp2p.errors import DecodeError
from tests.crypto.curves import Edwards25519 as Ed
from tests.crypto.curves import Secp256k1 as Bitcoin
from tests.crypto.vectors import private_key


def _load(name: str) -> _engine.Engine | None:
    try:
        return importlib.import_module(f"libp2p.crypto.{name}")
    except ImportError:
        return None


ED25519 = [engine for name in ("_ed25519_openssl", "_ed25519_sodium") if (engine := _load(name))]
SECP256K1 = [engine for name in ("_secp256k1_openssl", "_secp256k1_coincurve") if (engine := _load(name))]
ENGINES: dict[ModuleType, list[_engine.Engine]] = {ed25519: ED25519, secp256k1: SECP256K1}
LONG = 16 * 1024  # where libsodium hands over to OpenSSL

every_type = pytest.mark.parametrize("module", [ed25519, secp256k1], ids=["ED25519", "SECP256K1"])


def by_engine(module: ModuleType) -> Iterator[None]:
    """Makes one engine after the other the one that ``module`` uses."""
    chosen = module._ENGINE
    try:
        for engine in ENGINES[module]:
            module._ENGINE = engine  # type: ignore[attr-defined]
            yield
    finally:
        module._ENGINE = chosen  # type: ignore[attr-defined]


def public_keys(module: ModuleType, raw: bytes) -> list[PublicKey | None]:
    """The key with these bytes by each engine, None where it is refused."""
    found: list[PublicKey | None] = []
    for _ in by_engine(module):
        try:
            found.append(module.decode_public(raw))
        except DecodeError:
            found.append(None)
    return found


def private_keys(module: ModuleType, raw: bytes) -> list[PrivateKey]:
    return [module.decode_private(raw) for _ in by_engine(module)]


def verdict(module: ModuleType, raw: bytes, data: bytes, signature: bytes) -> bool:
    """What all engines agree on; a refused key accepts nothing."""
    found = {key is not None and key.verify(data, signature) for key in public_keys(module, raw)}
    assert len(found) == 1, f"key {raw.hex()} data {data.hex()} signature {signature.hex()}"
    return found.pop()


# --- choosing ---------------------------------------------------------------------------------------------------------


def test_the_fast_engines_are_chosen_where_they_are_there() -> None:
    for module, engines in ENGINES.items():
        assert module._ENGINE is engines[-1]


@pytest.mark.parametrize("package", ["nacl", "coincurve"])
def test_the_fast_engines_are_tested(package: str) -> None:
    pytest.importorskip(package)
    assert len({"nacl": ED25519, "coincurve": SECP256K1}[package]) == 2


def test_without_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("nacl", "nacl.bindings", "coincurve"):
        monkeypatch.setitem(sys.modules, name, None)
    for name in ("_ed25519_sodium", "_secp256k1_coincurve"):
        monkeypatch.delitem(sys.modules, f"libp2p.crypto.{name}", raising=False)
    assert _engine.choose("_ed25519_sodium", "_ed25519_openssl") is _ed25519_openssl
    assert _engine.choose("_secp256k1_coincurve", "_secp256k1_openssl") is _secp256k1_openssl


def test_a_lenient_libsodium_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    bindings = pytest.importorskip("nacl.bindings")
    monkeypatch.delitem(sys.modules, "libp2p.crypto._ed25519_sodium")
    monkeypatch.setattr(bindings, "crypto_sign_open", lambda signed, key: signed[64:])
    assert _engine.choose("_ed25519_sodium", "_ed25519_openssl") is _ed25519_openssl


def test_the_disputed_signature_is_right_up_to_a_point_of_order_8() -> None:
    """What the engine tries at its start is what it says it is."""
    pytest.importorskip("nacl")
    sodium = importlib.import_module("libp2p.crypto._ed25519_sodium")
    key, signature = sodium._DISPUTED_KEY, sodium._DISPUTED
    assert not verdict(ed25519, key, b"", signature)
    h = Ed.challenge(signature[:32], key, b"")
    right = Ed.add(Ed.multiply(h, _decode(key)), _decode(signature[:32]))
    left = Ed.multiply(int.from_bytes(signature[32:], "little"), Ed.BASE)
    assert left != right
    assert Ed.multiply(4, left) != Ed.multiply(4, right)
    assert Ed.multiply(8, left) == Ed.multiply(8, right)


def _decode(raw: bytes) -> tuple[int, int]:
    y, sign = int.from_bytes(raw, "little") & ~(1 << 255), raw[31] >> 7
    x = Ed.x_of(y)
    assert x is not None
    return (x if x & 1 == sign else Ed.P - x), y


# --- both types -------------------------------------------------------------------------------------------------------

KEYS = {ed25519: private_key(KeyType.ED25519), secp256k1: private_key(KeyType.SECP256K1)}


@every_type
@pytest.mark.parametrize("size", [0, 1, 1000, LONG, LONG + 1, 100_000])
def test_s2_each_accepts_what_the_other_signs(module: ModuleType, size: int) -> None:
    data = bytes(size)
    keys = private_keys(module, KEYS[module].raw)
    assert len({key.public_key for key in keys}) == 1
    for key in keys:
        signature = key.sign(data)
        assert verdict(module, key.public_key.raw, data, signature)
        assert not verdict(module, key.public_key.raw, data + b"\x00", signature)
        assert not verdict(module, key.public_key.raw, data, signature[:-1] + bytes((signature[-1] ^ 1,)))


def test_k5_signatures_of_ed25519_do_not_depend_on_the_engine() -> None:
    for size in (0, 1, 32, LONG, LONG + 1):
        assert len({key.sign(bytes(size)) for key in private_keys(ed25519, KEYS[ed25519].raw)}) == 1


@every_type
def test_s2_malformed_signatures(module: ModuleType) -> None:
    raw, signature = KEYS[module].public_key.raw, KEYS[module].sign(b"data")
    for wrong in (b"", b"\x00", signature[:-1], signature + b"\x00", b"\x00" + signature, bytes(64), b"\xff" * 64,
                  signature * 2, bytes(100_000)):  # fmt: skip
        assert not verdict(module, raw, b"data", wrong)


@settings(max_examples=400)
@given(st.data())
def test_s2_any_change_is_refused_by_all(data: st.DataObject) -> None:
    module = data.draw(st.sampled_from([ed25519, secp256k1]))
    message = data.draw(st.binary(max_size=80))
    parts = [KEYS[module].public_key.raw, message, KEYS[module].sign(message)]
    assert verdict(module, parts[0], parts[1], parts[2])
    which = data.draw(st.sampled_from([0, 1, 2] if message else [0, 2]))
    changed = bytearray(parts[which])
    for _ in range(data.draw(st.integers(1, 3))):
        # Not every signature of secp256k1 has the same length.
        changed[data.draw(st.integers(0, 999)) % len(changed)] ^= data.draw(st.integers(1, 255))
    kind = data.draw(st.sampled_from(["bytes", "cut", "longer"]))
    changed = changed[:-1] if kind == "cut" else changed + b"\x00" if kind == "longer" else changed
    before, parts[which] = parts[which], bytes(changed)
    assert verdict(module, parts[0], parts[1], parts[2]) == (before == changed)


@settings(max_examples=300)
@given(st.sampled_from([ed25519, secp256k1]), st.binary(min_size=32, max_size=32), st.sampled_from([b"\x02", b"\x03"]))
def test_s5_any_bytes_are_a_key_for_all_or_for_none(module: ModuleType, raw: bytes, parity: bytes) -> None:
    raw = raw if module is ed25519 else parity + raw
    keys = public_keys(module, raw)
    assert keys.count(keys[0]) == len(keys)
    assert not verdict(module, raw, b"data", KEYS[module].sign(b"data"))


# --- Ed25519 ----------------------------------------------------------------------------------------------------------

SECRET, NONCE = 0x1234567890ABCDEF1234567890ABCDEF, 0xFEDCBA0987654321FEDCBA0987654321
KEY_POINT, NONCE_POINT = Ed.multiply(SECRET, Ed.BASE), Ed.multiply(NONCE, Ed.BASE)
MESSAGES = [b"message %d" % number for number in range(8)]
NOT_REDUCED = [y | sign << 255 for y in range(Ed.P, 2**255) for sign in (0, 1)]


def forge(
    key: bytes, r: bytes, data: bytes, *, secret: int, nonce: int, hashed: tuple[bytes, bytes] | None = None
) -> bytes:
    """R and the S for which the equation holds when the points behind ``key`` and ``r`` are secret·B and nonce·B.

    ``hashed``: what the verifier is supposed to hash instead of R and key.
    """
    hashed_r, hashed_key = hashed or (r, key)
    s = (nonce + Ed.challenge(hashed_r, hashed_key, data) * secret) % Ed.L
    return r + s.to_bytes(32, "little")


def test_plain_arithmetic_makes_signatures_that_are_accepted() -> None:
    key, r = Ed.encode(KEY_POINT), Ed.encode(NONCE_POINT)
    for data in MESSAGES:
        assert verdict(ed25519, key, data, forge(key, r, data, secret=SECRET, nonce=NONCE))


def test_s2_mixed_order_is_accepted_when_the_equation_holds_exactly() -> None:
    """Key and R with every part of small order. With the cofactor all of them would be right; without, an eighth."""
    accepted = 0
    for i, of_key in enumerate(Ed.torsion()):
        key = Ed.encode(Ed.add(KEY_POINT, of_key))
        for j, of_r in enumerate(Ed.torsion()):
            r = Ed.encode(Ed.add(NONCE_POINT, of_r))
            for data in MESSAGES:
                # The parts of small order are i and j times one point: they cancel when h·i + j is 0 modulo 8.
                exact = (Ed.challenge(r, key, data) % Ed.L * i + j) % 8 == 0
                signature = forge(key, r, data, secret=SECRET, nonce=NONCE)
                assert verdict(ed25519, key, data, signature) == exact
                accepted += exact
    assert 8 < accepted < 8 * 64 / 4


def test_s2_an_r_of_small_order_is_refused_under_every_key() -> None:
    for of_key in Ed.torsion():
        key = Ed.encode(Ed.add(KEY_POINT, of_key))
        for point in Ed.torsion():
            for sign in (0, 1):
                r = (point[1] | sign << 255).to_bytes(32, "little")
                for data in MESSAGES:
                    assert not verdict(ed25519, key, data, forge(key, r, data, secret=SECRET, nonce=0))


def test_s2_openssl_by_itself_accepts_the_identity_as_r() -> None:
    """Why it is refused before any engine sees it: libsodium does not accept it."""
    key, r = Ed.encode(KEY_POINT), Ed.encode(Ed.IDENTITY)
    signature = forge(key, r, b"data", secret=SECRET, nonce=0)
    assert [engine.load_public(key)(b"data", signature) for engine in ED25519] == [True, False][: len(ED25519)]
    assert not verdict(ed25519, key, b"data", signature)


def test_s2_keys_of_small_order_accept_nothing() -> None:
    for point in Ed.torsion():
        for sign in (0, 1):
            key = (point[1] | sign << 255).to_bytes(32, "little")
            assert public_keys(ed25519, key) == [None] * len(ED25519)
            for r in (Ed.encode(NONCE_POINT), Ed.encode(Ed.IDENTITY)):
                assert not verdict(ed25519, key, b"", forge(key, r, b"", secret=0, nonce=NONCE))


def test_s2_an_r_that_is_not_reduced_is_refused_whatever_is_hashed() -> None:
    key = Ed.encode(KEY_POINT)
    for number in NOT_REDUCED:
        r = number.to_bytes(32, "little")
        reduced = ((number & ~(1 << 255)) % Ed.P | number & 1 << 255).to_bytes(32, "little")
        for hashed in ((r, key), (reduced, key)):
            for nonce in (0, NONCE):
                signature = forge(key, r, b"data", secret=SECRET, nonce=nonce, hashed=hashed)
                assert not verdict(ed25519, key, b"data", signature)


def test_s2_a_key_that_is_not_reduced_is_refused_whatever_is_hashed() -> None:
    r = Ed.encode(NONCE_POINT)
    for number in NOT_REDUCED:
        key = number.to_bytes(32, "little")
        reduced = ((number & ~(1 << 255)) % Ed.P | number & 1 << 255).to_bytes(32, "little")
        assert public_keys(ed25519, key) == [None] * len(ED25519)
        for hashed in ((r, key), (r, reduced)):
            assert not verdict(ed25519, key, b"", forge(key, r, b"", secret=0, nonce=NONCE, hashed=hashed))


def test_s2_an_s_that_is_not_reduced_is_refused() -> None:
    key, r = Ed.encode(KEY_POINT), Ed.encode(NONCE_POINT)
    signature = forge(key, r, b"data", secret=SECRET, nonce=NONCE)
    s = int.from_bytes(signature[32:], "little")
    assert verdict(ed25519, key, b"data", signature)
    for times in range(1, (2**256 - 1 - s) // Ed.L + 1):
        assert not verdict(ed25519, key, b"data", r + (s + times * Ed.L).to_bytes(32, "little"))
    for bit in range(252, 256):
        assert not verdict(ed25519, key, b"data", r + (s ^ 1 << bit).to_bytes(32, "little"))


def test_s5_points_that_are_not_on_the_curve() -> None:
    off = next(y for y in range(2, 100) if Ed.x_of(y) is None).to_bytes(32, "little")
    key, r = Ed.encode(KEY_POINT), Ed.encode(NONCE_POINT)
    assert not verdict(ed25519, off, b"data", forge(off, r, b"data", secret=SECRET, nonce=NONCE))
    assert not verdict(ed25519, key, b"data", forge(key, off, b"data", secret=SECRET, nonce=NONCE))


# --- secp256k1 --------------------------------------------------------------------------------------------------------


def integer(number: int, *, pad: int = 0) -> bytes:
    """An INTEGER in DER, ``pad`` bytes longer than it should be."""
    body = bytes(pad) + number.to_bytes(number.bit_length() // 8 + 1, "big")
    return b"\x02" + length(len(body)) + body


def length(size: int) -> bytes:
    if size < 0x80:
        return bytes((size,))
    body = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((0x80 | len(body),)) + body


def sequence(body: bytes) -> bytes:
    return b"\x30" + length(len(body)) + body


def der(r: int, s: int) -> bytes:
    return sequence(integer(r) + integer(s))


def key_for(r: int, s: int, data: bytes, x: int | None = None) -> bytes:
    """The public key under which (r, s) is right for ``data``: Q = (s·R - h·G) / r, where ``x`` is that of R."""
    point = Bitcoin.lift(r if x is None else x)
    assert point is not None
    inverse = pow(r, -1, Bitcoin.N)
    key = Bitcoin.add(
        Bitcoin.multiply(s * inverse % Bitcoin.N, point),
        Bitcoin.multiply(-Bitcoin.challenge(data) * inverse % Bitcoin.N, Bitcoin.BASE),
    )
    assert key is not None
    return Bitcoin.encode(key)


R = next(x for x in range(2**255, 2**256) if Bitcoin.lift(x))
S = 2**200 + 1
SMALL_R = next(x for x in range(1, 100) if Bitcoin.lift(x))


@pytest.mark.parametrize("r", [R, SMALL_R])
@pytest.mark.parametrize("s", [1, 0x7F, 0x80, S, Bitcoin.N // 2 - 1, Bitcoin.N // 2])
def test_s2_every_low_s_is_accepted_and_its_other_half_refused(r: int, s: int) -> None:
    key = key_for(r, s, b"data")
    assert verdict(secp256k1, key, b"data", der(r, s))
    assert not verdict(secp256k1, key, b"data", der(r, Bitcoin.N - s))


@pytest.mark.parametrize("s", [Bitcoin.N // 2 + 1, Bitcoin.N - 1])
def test_s2_a_high_s_is_refused_from_the_first(s: int) -> None:
    assert not verdict(secp256k1, key_for(R, s, b"data"), b"data", der(R, s))


def test_s2_an_x_above_the_order_is_reduced() -> None:
    """The x of R may lie between the order and the size of the field; r is then x - n, and x itself is refused."""
    x = next(x for x in range(Bitcoin.N + 1, Bitcoin.P) if Bitcoin.lift(x))
    key = key_for(x - Bitcoin.N, S, b"data", x)
    assert verdict(secp256k1, key, b"data", der(x - Bitcoin.N, S))
    assert not verdict(secp256k1, key, b"data", der(x, S))


def test_s2_numbers_out_of_range() -> None:
    n, key = Bitcoin.N, key_for(SMALL_R, S, b"data")
    for r, s in ((0, S), (SMALL_R, 0), (0, 0), (n, S), (SMALL_R, n), (SMALL_R + n, S), (SMALL_R, S + n), (n, n),
                 (Bitcoin.P, S), (2**256 - 1, S), (SMALL_R, 2**256 - 1), (SMALL_R + 2**256, S), (SMALL_R, S + 2**256),
                 (SMALL_R, S + 2**512), (SMALL_R + (n << 2000), S), (SMALL_R, S + (n << 100_000))):  # fmt: skip
        assert not verdict(secp256k1, key, b"data", der(r, s))


def test_s2_a_sum_at_infinity_is_refused() -> None:
    """The key is -(h/r)·G, so h/s·G + r/s·Q is the point at infinity, which has no x."""
    point = Bitcoin.multiply(-Bitcoin.challenge(b"data") * pow(R, -1, Bitcoin.N) % Bitcoin.N, Bitcoin.BASE)
    assert point is not None
    assert not verdict(secp256k1, Bitcoin.encode(point), b"data", der(R, S))


def test_s2_der_has_one_form() -> None:
    key = key_for(R, S, b"data")
    r, s = integer(R), integer(S)
    assert verdict(secp256k1, key, b"data", sequence(r + s))
    body = r + s
    negative_r = b"\x02" + bytes((len(r) - 3,)) + r[3:]  # without the zero in front
    for wrong in (
        b"\x30\x81" + bytes((len(body),)) + body,  # lengths in more bytes than they need
        b"\x30\x82\x00" + bytes((len(body),)) + body,
        b"\x30\x84\x00\x00\x00" + bytes((len(body),)) + body,
        b"\x30\x80" + body + b"\x00\x00",  # of no definite length
        b"\x30\xff" + body,
        b"\x30\x00" + body,
        sequence(b"\x02\x81" + r[1:] + s),
        sequence(r + b"\x02\x81" + s[1:]),
        sequence(b"\x02\x80" + r[2:] + b"\x00\x00" + s),
        sequence(integer(R, pad=1) + s),  # zeros in front
        sequence(r + integer(S, pad=1)),
        sequence(r + integer(S, pad=200)),
        sequence(negative_r + s),
        sequence(r + b"\x02\x01\xff"),
        sequence(b"\x02\x00" + s),  # empty
        sequence(r + b"\x02\x00"),
        sequence(b""),
        sequence(r),  # fewer and more than two
        sequence(body + b"\x02\x01\x01"),
        sequence(body + b"\x00"),
        sequence(body + b"\x05\x00"),
        sequence(body) + b"\x00",
        sequence(body) + b"\x05\x00",
        sequence(body)[:-1],
        b"\x31" + sequence(body)[1:],  # other tags
        b"\x10" + sequence(body)[1:],
        sequence(b"\x03" + r[1:] + s),
        sequence(r + b"\x03" + s[1:]),
        sequence(b"\x22" + r[1:] + s),
        sequence(b"\x1f\x02" + r[1:] + s),
        sequence(sequence(body)),
        R.to_bytes(32, "big") + S.to_bytes(32, "big"),  # not DER at all
        body,
    ):
        assert not verdict(secp256k1, key, b"data", wrong), wrong.hex()


def test_s2_the_hash_is_of_all_the_data() -> None:
    digest = hashlib.sha256(b"data").digest()
    key = key_for(R, S, b"data")
    assert not verdict(secp256k1, key, digest, der(R, S))


@settings(max_examples=60)
@given(st.integers(1, Bitcoin.N - 1), st.binary(max_size=60))
def test_s2_any_s(s: int, data: bytes) -> None:
    assert verdict(secp256k1, key_for(R, s, data), data, der(R, s)) == (s <= Bitcoin.N // 2)


@settings(max_examples=300)
@given(st.binary(max_size=90))
def test_s2_any_bytes_are_no_signature(signature: bytes) -> None:
    for module, key in KEYS.items():
        assert not verdict(module, key.public_key.raw, b"data", signature)
