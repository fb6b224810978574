"""Signed envelopes (checklist E1 to E3, E7; reliability cases S2, S8)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libp2p.crypto.keys import KeyType, generate
from libp2p.errors import DecodeError
from libp2p.pb import envelope_pb2
from libp2p.peer_id import PeerId
from libp2p.records.envelope import MAX_LENGTH, Envelope
from libp2p.wire import varint
from tests.crypto.vectors import VECTORS, private_key

KEYS = {key_type: private_key(key_type) for key_type in KeyType}
KEY = KEYS[KeyType.ED25519]
DOMAIN = "libp2p-testing"
TYPE = b"\x03\x01"

every_type = pytest.mark.parametrize("key_type", KeyType, ids=lambda key_type: key_type.name)


def sealed(payload: bytes = b"payload", payload_type: bytes = TYPE, domain: str = DOMAIN) -> bytes:
    return Envelope.seal(KEY, domain, payload_type, payload).marshal()


def field(number: int, value: bytes) -> bytes:
    return varint.encode(number << 3 | 2) + varint.encode(len(value)) + value


@every_type
def test_e1_e3_seal_and_open(key_type: KeyType) -> None:
    data = Envelope.seal(KEYS[key_type], DOMAIN, TYPE, b"payload").marshal()
    envelope = Envelope.open(data, DOMAIN)
    assert envelope.public_key == KEYS[key_type].public_key
    assert envelope.signer == PeerId.from_key(KEYS[key_type].public_key)
    assert (envelope.payload_type, envelope.payload) == (TYPE, b"payload")
    assert envelope.marshal() == data
    assert Envelope.open(data, DOMAIN, payload_type=TYPE) == envelope


def test_e1_the_bytes() -> None:
    envelope = Envelope.open(sealed(), DOMAIN)
    assert sealed() == (
        field(1, VECTORS[KeyType.ED25519].public) + field(2, TYPE) + field(3, b"payload") + field(5, envelope.signature)
    )


@every_type
def test_e1_protobuf_agrees(key_type: KeyType) -> None:
    data = Envelope.seal(KEYS[key_type], DOMAIN, TYPE, b"payload").marshal()
    message = envelope_pb2.Envelope.FromString(data)
    assert message.public_key.SerializeToString(deterministic=True) == VECTORS[key_type].public
    assert (message.payload_type, message.payload) == (TYPE, b"payload")
    assert message.SerializeToString(deterministic=True) == data


def test_e2_the_signed_bytes() -> None:
    """Recomputed by hand: each of the three behind its length as varint."""
    payload = bytes(200)
    signed = bytes((14,)) + b"libp2p-testing" + b"\x02\x03\x01" + b"\xc8\x01" + payload
    envelope = Envelope.open(sealed(payload), DOMAIN)
    assert envelope.signature == KEY.sign(signed)
    assert KEY.public_key.verify(signed, envelope.signature)


@pytest.mark.parametrize("domain", ["libp2p-testinG", "libp2p-testin", "libp2p-testing ", "libp2p-relay-rsvp", ""])
def test_e3_s8_other_domain(domain: str) -> None:
    with pytest.raises(DecodeError, match="signature"):
        Envelope.open(sealed(), domain)


def test_s2_no_domain_at_all() -> None:
    signature = KEY.sign(varint.encode(2) + TYPE + varint.encode(7) + b"payload")
    data = Envelope(public_key=KEY.public_key, payload_type=TYPE, payload=b"payload", signature=signature).marshal()
    with pytest.raises(DecodeError, match="signature"):
        Envelope.open(data, DOMAIN)


def test_e2_bytes_cannot_move_between_domain_type_and_payload() -> None:
    envelope = Envelope.seal(KEY, "ab", b"cd", b"ef")
    for domain, payload_type, payload in (("abc", b"d", b"ef"), ("a", b"bcd", b"ef"), ("ab", b"cde", b"f")):
        moved = Envelope(
            public_key=KEY.public_key, payload_type=payload_type, payload=payload, signature=envelope.signature
        )
        with pytest.raises(DecodeError):
            Envelope.open(moved.marshal(), domain)


def test_s8_other_payload_type() -> None:
    with pytest.raises(DecodeError, match="type 0302, not 0301"):
        Envelope.open(sealed(payload_type=b"\x03\x02"), DOMAIN, payload_type=TYPE)
    assert Envelope.open(sealed(payload_type=b"\x03\x02"), DOMAIN).payload_type == b"\x03\x02"


@every_type
def test_s2_key_of_somebody_else(key_type: KeyType) -> None:
    envelope = Envelope.seal(KEYS[key_type], DOMAIN, TYPE, b"payload")
    for other in (generate(), *KEYS.values()):
        if other != KEYS[key_type]:
            claimed = Envelope(
                public_key=other.public_key, payload_type=TYPE, payload=b"payload", signature=envelope.signature
            )
            with pytest.raises(DecodeError, match="signature"):
                Envelope.open(claimed.marshal(), DOMAIN)


def test_s2_every_changed_byte_is_refused() -> None:
    data = sealed()
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 0x04
        with pytest.raises(DecodeError):
            Envelope.open(bytes(changed), DOMAIN)


def test_k13_every_truncation_is_refused() -> None:
    data = sealed()
    for size in range(len(data)):
        with pytest.raises(DecodeError):
            Envelope.open(data[:size], DOMAIN)


def test_e1_missing_and_repeated_fields() -> None:
    public, payload_type, payload, signature = (
        field(1, VECTORS[KeyType.ED25519].public),
        field(2, TYPE),
        field(3, b"payload"),
        field(5, Envelope.open(sealed(), DOMAIN).signature),
    )
    assert Envelope.open(signature + payload + payload_type + public, DOMAIN).payload == b"payload"
    for data in (
        payload_type + payload + signature,
        public + payload + signature,
        public + payload_type + signature,
        public + payload_type + payload,
        public + public + payload_type + payload + signature,
        public + payload_type + field(3, b"other") + payload + signature,
        public + payload_type + payload + signature + signature,
        b"\x08\x01" + payload_type + payload + signature,
    ):
        with pytest.raises(DecodeError):
            Envelope.open(data, DOMAIN)


def test_unknown_fields_are_skipped_up_to_a_number() -> None:
    assert Envelope.open(sealed() + field(4, b"draft") + field(9, b"") + b"\x50\x01", DOMAIN).payload == b"payload"
    with pytest.raises(DecodeError, match="too many"):
        Envelope.open(sealed() + b"".join(field(number, b"") for number in range(6, 100)), DOMAIN)


def test_empty_payload() -> None:
    assert Envelope.open(sealed(b""), DOMAIN).payload == b""
    assert envelope_pb2.Envelope.FromString(sealed(b"")).SerializeToString() == sealed(b"")


def test_s8_length_limit() -> None:
    space = MAX_LENGTH - len(sealed(bytes(7000))) + 7000
    assert len(sealed(bytes(space))) == MAX_LENGTH
    assert Envelope.open(sealed(bytes(space)), DOMAIN).payload == bytes(space)
    with pytest.raises(DecodeError, match="8193 bytes is above the limit of 8192"):
        Envelope.open(sealed(bytes(space + 1)), DOMAIN)
    assert Envelope.open(sealed(bytes(space + 1)), DOMAIN, max_length=MAX_LENGTH + 1).payload == bytes(space + 1)


@pytest.mark.parametrize(("domain", "payload_type"), [("", TYPE), (DOMAIN, b"")])
def test_sealing_for_no_purpose_is_a_callers_mistake(domain: str, payload_type: bytes) -> None:
    with pytest.raises(ValueError, match="needs a domain"):
        Envelope.seal(KEY, domain, payload_type, b"")


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_k13_any_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(DecodeError):
        Envelope.open(data, DOMAIN)


@settings(max_examples=50)
@given(st.text("abc-é", min_size=1, max_size=200), st.binary(min_size=1, max_size=200), st.binary(max_size=2000))
def test_round_trip(domain: str, payload_type: bytes, payload: bytes) -> None:
    envelope = Envelope.seal(KEY, domain, payload_type, payload)
    assert Envelope.open(envelope.marshal(), domain) == envelope


def test_a_signature_is_checked_once_and_a_wrong_one_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[bytes] = []
    verify = type(KEY.public_key).verify

    def counting(self: object, data: bytes, signature: bytes) -> bool:
        checked.append(data)
        return verify(KEY.public_key, data, signature)

    monkeypatch.setattr(type(KEY.public_key), "verify", counting)
    data = sealed(b"seen for the first time by this test")
    for _ in range(3):
        assert Envelope.open(bytearray(data), DOMAIN).payload == Envelope.open(data, DOMAIN).payload  # type: ignore[arg-type]
    assert len(checked) == 1
    # For another purpose, of another type, or with another last byte it is another envelope.
    wrong = data[:-1] + bytes((data[-1] ^ 1,))
    for _ in range(2):
        with pytest.raises(DecodeError):
            Envelope.open(data, "another-domain")
        with pytest.raises(DecodeError):
            Envelope.open(wrong, DOMAIN)
        with pytest.raises(DecodeError):
            Envelope.open(data, DOMAIN, payload_type=b"\x09")
        with pytest.raises(DecodeError):
            Envelope.open(data, DOMAIN, max_length=len(data) - 1)
    assert len(checked) == 5
