"""IPNS records: a name that is a key says what it stands for, with a sequence number and an end.

What counts is the signed document, a small CBOR map. The fields of version 1 that may stand beside it are not signed as
a whole, so they only have to say the same.

Source: specs.ipfs.tech, "IPNS Record and Protocol".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime

from ..crypto.keys import PrivateKey, PublicKey, unmarshal_public_key
from ..errors import DecodeError
from ..peer_id import PeerId
from ..wire import proto

MAX_SIZE = 10 * 1024
"""Bytes of a record (specification)."""
SIGNATURE_DOMAIN = b"ipns-signature:"
"""What is signed begins with it (specification)."""

_VALUE, _SIGNATURE_V1, _VALIDITY_TYPE, _VALIDITY, _SEQUENCE, _TTL, _PUBLIC_KEY, _SIGNATURE_V2, _DATA = range(1, 10)
_MAX_FIELDS = 32
_MAX_ENTRIES = 32
_MAX_UINT64 = (1 << 64) - 1
_EOL = 0
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d)")


@dataclass(frozen=True, slots=True, kw_only=True)
class IpnsRecord:
    """What a name stands for.

    Attributes:
        name: the peer id of the key that signed it.
        value: a path, as ``b"/ipfs/..."``.
        sequence: grows with every change.
        validity: when it ends, in RFC 3339, as it was signed.
        ttl: nanoseconds for which it may be cached.
    """

    name: PeerId
    value: bytes
    sequence: int
    validity: str
    ttl: int = 0

    @property
    def expires(self) -> float:
        """When it ends, in seconds since 1970."""
        return _parse_time(self.validity)

    def seal(self, key: PrivateKey) -> bytes:
        """Return the record signed with ``key``, serialized, in version 2.

        Raises:
            ValueError: ``key`` is not the key of ``name``, or the record would be refused by others.
        """
        if not self.name.matches(key.public_key):
            raise ValueError(f"a record of {self.name} must be signed with its own key")
        if not (0 <= self.sequence <= _MAX_UINT64 and 0 <= self.ttl <= _MAX_UINT64):
            raise ValueError("sequence and ttl must fit into 64 bits")
        _parse_time(self.validity)
        data = _encode_document(self)
        sealed = b"" if self.name.public_key() else proto.write_bytes(_PUBLIC_KEY, key.public_key.marshal())
        sealed += proto.write_bytes(_SIGNATURE_V2, key.sign(SIGNATURE_DOMAIN + data)) + proto.write_bytes(_DATA, data)
        if len(sealed) > MAX_SIZE:
            raise ValueError(f"a record of {len(sealed)} bytes is above the limit of {MAX_SIZE}")
        return sealed


def rfc3339(seconds: float) -> str:
    """Return ``seconds`` since 1970 as records say them."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")


def open_record(sealed: bytes, name: PeerId) -> IpnsRecord:
    """Return the record in ``sealed``, whose signature is right. Whether it has ended is for the caller to look at.

    Raises:
        DecodeError: it does not parse, is not signed by the key of ``name``, or says two different things.
    """
    if len(sealed) > MAX_SIZE:
        raise DecodeError(f"a record of {len(sealed)} bytes is above the limit of {MAX_SIZE}")
    fields = {field.number: field for field in proto.read(sealed, _MAX_FIELDS)}
    if _SIGNATURE_V2 not in fields or _DATA not in fields:
        raise DecodeError("a record without a signature of version 2")
    data = fields[_DATA].as_bytes()
    key = _key(name, fields[_PUBLIC_KEY].as_bytes() if _PUBLIC_KEY in fields else None)
    if not key.verify(SIGNATURE_DOMAIN + data, fields[_SIGNATURE_V2].as_bytes()):
        raise DecodeError("a wrong signature")
    document = _decode_document(data)
    record = IpnsRecord(
        name=name,
        value=_bytes(document, "Value"),
        sequence=_uint(document, "Sequence"),
        validity=_bytes(document, "Validity").decode("ascii", "replace"),
        ttl=_uint(document, "TTL"),
    )
    if _uint(document, "ValidityType") != _EOL:
        raise DecodeError("a record that ends otherwise than at a time")
    _parse_time(record.validity)
    _check_version_1(fields, record)
    return record


def _key(name: PeerId, given: bytes | None) -> PublicKey:
    """The key of ``name``, which holds it, or which ``given`` has to fit."""
    held = name.public_key()
    if held is not None:
        return held
    if given is None:
        raise DecodeError("a record without its key")
    key = unmarshal_public_key(given)
    if not name.matches(key):
        raise DecodeError("the key of another name")
    return key


def _check_version_1(fields: dict[int, proto.Field], record: IpnsRecord) -> None:
    """With fields of version 1 present, they say what the document says (specification, "Record Verification")."""
    if _SIGNATURE_V1 not in fields and _VALUE not in fields:
        return
    agree = (
        _VALUE in fields
        and fields[_VALUE].as_bytes() == record.value
        and _VALIDITY in fields
        and fields[_VALIDITY].as_bytes() == record.validity.encode()
        and (fields[_VALIDITY_TYPE].as_uint() if _VALIDITY_TYPE in fields else _EOL) == _EOL
        and (fields[_SEQUENCE].as_uint() if _SEQUENCE in fields else 0) == record.sequence
        and (fields[_TTL].as_uint() if _TTL in fields else 0) == record.ttl
    )
    if not agree:
        raise DecodeError("the signed part of a record says something else than the other")


def _parse_time(text: str) -> float:
    match = _TIME.fullmatch(text)
    if match is None:
        raise DecodeError(f"not a time: {text[:40]!r}")
    seconds, fraction, zone = match.groups()
    try:
        whole = datetime.fromisoformat(seconds + ("+00:00" if zone == "Z" else zone)).timestamp()
    except (ValueError, OverflowError) as exc:
        raise DecodeError(f"not a time: {text[:40]!r}") from exc
    return whole + (int(fraction) / 10 ** len(fraction) if fraction else 0.0)


# --- the document: a CBOR map from text to bytes and numbers (RFC 8949, in DAG-CBOR's one valid form) -----------------

_UINT, _BYTES, _TEXT, _MAP = 0, 2, 3, 5


def _encode_document(record: IpnsRecord) -> bytes:
    # DAG-CBOR sorts keys by length first.
    entries = (
        ("TTL", _head(_UINT, record.ttl)),
        ("Value", _head(_BYTES, len(record.value)) + record.value),
        ("Sequence", _head(_UINT, record.sequence)),
        ("Validity", _head(_BYTES, len(record.validity)) + record.validity.encode()),
        ("ValidityType", _head(_UINT, _EOL)),
    )
    return _head(_MAP, len(entries)) + b"".join(
        [_head(_TEXT, len(name)) + name.encode() + value for name, value in entries]
    )


def _head(major: int, number: int) -> bytes:
    if number < 24:
        return bytes((major << 5 | number,))
    for code, size in ((24, 1), (25, 2), (26, 4)):
        if number < 1 << 8 * size:
            return bytes((major << 5 | code,)) + number.to_bytes(size, "big")
    return bytes((major << 5 | 27,)) + number.to_bytes(8, "big")


def _decode_document(data: bytes) -> dict[str, int | bytes]:
    major, count, offset = _read_head(data, 0)
    if major != _MAP or count > _MAX_ENTRIES:
        raise DecodeError("the signed part of a record is no map")
    document: dict[str, int | bytes] = {}
    for _ in range(count):
        name, offset = _read_item(data, offset, _TEXT)
        value, offset = _read_item(data, offset)
        assert isinstance(name, bytes)  # it is text
        document[name.decode("utf-8", "replace")] = value
    if offset != len(data):
        raise DecodeError("bytes behind the signed part of a record")
    return document


def _read_item(data: bytes, offset: int, wanted: int | None = None) -> tuple[int | bytes, int]:
    major, number, offset = _read_head(data, offset)
    if major not in (_UINT, _BYTES, _TEXT) or wanted not in (None, major):
        raise DecodeError("something in the signed part of a record that does not belong there")
    if major == _UINT:
        return number, offset
    if offset + number > len(data):
        raise DecodeError("the signed part of a record is truncated")
    return data[offset : offset + number], offset + number


def _read_head(data: bytes, offset: int) -> tuple[int, int, int]:
    if offset >= len(data):
        raise DecodeError("the signed part of a record is truncated")
    major, info = data[offset] >> 5, data[offset] & 31
    offset += 1
    if info < 24:
        return major, info, offset
    if info > 27:
        raise DecodeError("a length of a kind that DAG-CBOR does not have")
    size = 1 << (info - 24)
    if offset + size > len(data):
        raise DecodeError("the signed part of a record is truncated")
    return major, int.from_bytes(data[offset : offset + size], "big"), offset + size


def _bytes(document: dict[str, int | bytes], name: str) -> bytes:
    value = document.get(name)
    if not isinstance(value, bytes):
        raise DecodeError(f"a record without {name}")
    return value


def _uint(document: dict[str, int | bytes], name: str) -> int:
    value = document.get(name)
    if not isinstance(value, int):
        raise DecodeError(f"a record without {name}")
    return value
