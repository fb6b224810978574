"""IPNS records: requirement KD8."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libp2p.crypto.keys import KeyType, generate
from libp2p.errors import DecodeError
from libp2p.peer_id import PeerId
from libp2p.records.ipns import MAX_SIZE, SIGNATURE_DOMAIN, IpnsRecord, open_record, rfc3339
from libp2p.wire import proto

KEY = generate()
NAME = PeerId.from_key(KEY.public_key)
HASHED_KEY = generate(KeyType.ECDSA)
HASHED = PeerId.from_key(HASHED_KEY.public_key)
UNTIL = "2030-01-01T00:00:00.123456789Z"
RECORD = IpnsRecord(name=NAME, value=b"/ipfs/x", sequence=300, validity=UNTIL, ttl=60 * 10**9)


def signed(data: bytes, *more: bytes) -> bytes:
    """A record with any document, and fields of version 1."""
    signature = KEY.sign(SIGNATURE_DOMAIN + data)
    return b"".join(more) + proto.write_bytes(8, signature) + proto.write_bytes(9, data)


def document(**changes: bytes | None) -> bytes:
    """A document of encoded values; None leaves one out."""
    entries = {
        "TTL": b"\x00",
        "Value": b"\x47/ipfs/x",
        "Sequence": b"\x01",
        "Validity": b"\x58" + bytes((len(UNTIL),)) + UNTIL.encode(),
        "ValidityType": b"\x00",
        **changes,
    }
    kept = {name: value for name, value in entries.items() if value is not None}
    return bytes((0xA0 | len(kept),)) + b"".join(
        [bytes((0x60 | len(name),)) + name.encode() + value for name, value in kept.items()]
    )


def test_round_trip() -> None:
    assert open_record(RECORD.seal(KEY), NAME) == RECORD
    assert RECORD.expires == pytest.approx(1893456000.123456)


@pytest.mark.parametrize("sequence", [0, 23, 24, 255, 256, 65535, 65536, 2**32 - 1, 2**32, 2**64 - 1])
def test_numbers_of_every_size(sequence: int) -> None:
    record = IpnsRecord(name=NAME, value=b"/x", sequence=sequence, validity=UNTIL, ttl=sequence)
    assert open_record(record.seal(KEY), NAME) == record


def test_a_name_that_is_a_hash_brings_its_key() -> None:
    record = IpnsRecord(name=HASHED, value=b"/x", sequence=1, validity=UNTIL)
    sealed = record.seal(HASHED_KEY)
    assert open_record(sealed, HASHED) == record
    fields = [field for field in proto.read(sealed, 10) if field.number != 7]
    without = b"".join([proto.write_bytes(field.number, field.as_bytes()) for field in fields])
    with pytest.raises(DecodeError, match="without its key"):
        open_record(without, HASHED)
    with pytest.raises(DecodeError, match="another name"):
        open_record(proto.write_bytes(7, KEY.public_key.marshal()) + without, HASHED)


def test_other_peoples_records_are_refused() -> None:
    other = generate()
    with pytest.raises(DecodeError, match="signature"):
        open_record(RECORD.seal(KEY), PeerId.from_key(other.public_key))
    with pytest.raises(ValueError, match="own key"):
        RECORD.seal(other)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (document(Value=None), "Value"),
        (document(Sequence=b"\x41x"), "Sequence"),
        (document(Validity=b"\x44soon"), "not a time"),
        (document(Validity=b"\x54" + b"2030-13-01T00:00:00Z"), "not a time"),
        (document(ValidityType=b"\x01"), "otherwise"),
        (document() + b"\x00", "behind"),
        (document()[:-1], "truncated"),
        (b"\xa1\x63TTL\x1b\x00", "truncated"),
        (document(TTL=b"\x58\xff"), "truncated"),
        (document(TTL=b"\x1f"), "DAG-CBOR"),
        (document(TTL=b"\x80"), "belong"),
        (b"\xa1\x00\x00", "belong"),
        (b"\x00", "map"),
        (b"\xb8\xff", "map"),
        (b"", "truncated"),
    ],
)
def test_documents_that_are_refused(data: bytes, why: str) -> None:
    with pytest.raises(DecodeError, match=why):
        open_record(signed(data), NAME)


def test_times_with_a_zone() -> None:
    data = document(Validity=b"\x58\x19" + b"2030-01-01T01:00:00+01:00")
    assert open_record(signed(data), NAME).expires == 1893456000.0
    assert rfc3339(1893456000.5) == "2030-01-01T00:00:00.500000000Z"


def version_1(**changes: bytes | None) -> list[bytes]:
    fields = {
        "value": proto.write_bytes(1, b"/ipfs/x"),
        "signature": proto.write_bytes(2, b"whatever"),
        "type": proto.write_uint(3, 0),
        "validity": proto.write_bytes(4, UNTIL.encode()),
        "sequence": proto.write_uint(5, 1),
        "ttl": proto.write_uint(6, 0),
        **changes,
    }
    return [field for field in fields.values() if field is not None]


def test_fields_of_version_1_must_agree() -> None:
    """Both versions in one record, as other implementations make them."""
    assert open_record(signed(document(), *version_1()), NAME).sequence == 1
    zeros = document(Sequence=b"\x00")
    assert open_record(signed(zeros, *version_1(sequence=None, ttl=None, type=None)), NAME).sequence == 0
    for changes in (
        {"value": proto.write_bytes(1, b"/other")},
        {"value": None},
        {"validity": None},
        {"validity": proto.write_bytes(4, b"2031-01-01T00:00:00Z")},
        {"type": proto.write_uint(3, 1)},
        {"sequence": proto.write_uint(5, 2)},
        {"ttl": proto.write_uint(6, 2)},
    ):
        with pytest.raises(DecodeError, match="something else"):
            open_record(signed(document(), *version_1(**changes)), NAME)


def test_what_is_no_record() -> None:
    with pytest.raises(DecodeError, match="version 2"):
        open_record(b"", NAME)
    with pytest.raises(DecodeError, match="limit"):
        open_record(bytes(MAX_SIZE + 1), NAME)


def test_records_that_would_be_refused_are_not_made() -> None:
    with pytest.raises(ValueError, match="64 bits"):
        IpnsRecord(name=NAME, value=b"/x", sequence=2**64, validity=UNTIL).seal(KEY)
    with pytest.raises(DecodeError, match="time"):
        IpnsRecord(name=NAME, value=b"/x", sequence=1, validity="soon").seal(KEY)
    with pytest.raises(ValueError, match="limit"):
        IpnsRecord(name=NAME, value=bytes(MAX_SIZE), sequence=1, validity=UNTIL).seal(KEY)


@given(st.binary(max_size=200))
def test_garbage(data: bytes) -> None:
    for sealed in (data, signed(data)):
        try:
            open_record(sealed, NAME)
        except DecodeError:
            continue
