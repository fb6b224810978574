"""DNS messages, as far as mDNS needs them. Pure.

Names are tuples of labels in lower case: DNS does not tell cases apart. What is not understood of a record is skipped,
never refused: a network is full of other people's services.

Everything that a packet could make large has a bound, and compressed names may only point backwards, each time further
than the last (RFC 1035, 4.1.4: to a *prior* occurrence), so they come to an end.

Source: RFC 1035, 4.1; RFC 6762, 18; RFC 6763, 6.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import TypeAlias

from ...errors import DecodeError

Name: TypeAlias = tuple[bytes, ...]
"""The labels of a name, without the root's."""

MAX_PACKET = 9000
"""Longest packet read, in bytes (RFC 6762, 17)."""
MAX_SENT = 1400
"""Longest packet sent, in bytes: it fits into one Ethernet frame with whatever is around it (go: 1,500)."""
MAX_QUESTIONS = 64
"""Most questions read of a packet (ours)."""
MAX_RECORDS = 256
"""Most records read of a packet (ours)."""
MAX_LABELS = 4096
"""Most labels and pointers followed in all the names of a packet (ours). Each name ends, but hundreds that all lead
through the same few thousand bytes would take a million steps."""
MAX_STRING = 255
"""Longest string of a TXT record (RFC 1035, 3.3)."""
_MAX_LABEL = 63
_MAX_NAME = 255

A, PTR, TXT, AAAA, SRV, ANY = 1, 12, 16, 28, 33, 255
"""Types of records."""
_IN = 1
_FLUSH = 0x8000
"""In a record: this is all there is of it. In a question: answer to me alone (RFC 6762, 10.2 and 5.4)."""
_RESPONSE, _AUTHORITATIVE = 0x8000, 0x0400
_OPCODE_AND_RCODE = 0x780F
_POINTER = 0xC0

_HEADER = struct.Struct("!6H")
_QUESTION = struct.Struct("!2H")
_RECORD = struct.Struct("!2HIH")
_SRV = struct.Struct("!3H")


@dataclass(frozen=True, slots=True)
class Question:
    """Somebody wants the records of one type, or :data:`ANY`, of a name."""

    name: Name
    type: int


@dataclass(frozen=True, slots=True)
class Ptr:
    """A name that leads to another one."""

    name: Name
    target: Name
    ttl: int


@dataclass(frozen=True, slots=True)
class Txt:
    """Strings under a name, each of at most 255 bytes."""

    name: Name
    strings: tuple[bytes, ...]
    ttl: int


@dataclass(frozen=True, slots=True)
class Srv:
    """Where a service is. Only sent: nobody in libp2p reads it."""

    name: Name
    target: Name
    port: int
    ttl: int


@dataclass(frozen=True, slots=True)
class Address:
    """An IP address of a host. Only sent: nobody in libp2p reads it."""

    name: Name
    ip: IPv4Address | IPv6Address
    ttl: int


Record: TypeAlias = Ptr | Txt | Srv | Address


@dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    """A message.

    Attributes:
        response: whether it answers.
        questions: what it asks.
        records: what it says, in all its sections; of types that are read, PTR and TXT.
    """

    response: bool
    questions: tuple[Question, ...] = ()
    records: tuple[Ptr | Txt, ...] = ()


def name(text: str) -> Name:
    """Return the name that ``text`` spells with dots."""
    return tuple([label.encode().lower() for label in text.split(".") if label])


# --- writing ----------------------------------------------------------------------------------------------------------


def encode_query(questions: Sequence[Question]) -> bytes:
    """Return a query."""
    parts = [_HEADER.pack(0, 0, len(questions), 0, 0, 0)]
    parts += [_encode_name(question.name) + _QUESTION.pack(question.type, _IN) for question in questions]
    return b"".join(parts)


def encode_response(answers: Iterable[Record], additional: Iterable[Record] = ()) -> bytes:
    """Return an answer. Names are not compressed."""
    first, second = [_encode_record(record) for record in answers], [_encode_record(record) for record in additional]
    return b"".join([_HEADER.pack(0, _RESPONSE | _AUTHORITATIVE, 0, len(first), 0, len(second)), *first, *second])


def _encode_name(labels: Name) -> bytes:
    if not all(0 < len(label) <= _MAX_LABEL for label in labels) or sum(map(len, labels)) + len(labels) >= _MAX_NAME:
        raise ValueError("a label of a name is empty or too long, or they are too many")
    return b"".join([bytes((len(label),)) + label for label in labels]) + b"\0"


def _encode_record(record: Record) -> bytes:
    flush = _FLUSH
    match record:
        case Ptr():
            kind, data = PTR, _encode_name(record.target)
            flush = 0  # others have records of this name, too
        case Txt():
            kind, data = TXT, b"".join([bytes((len(string),)) + string for string in record.strings]) or b"\0"
        case Srv():
            kind, data = SRV, _SRV.pack(0, 0, record.port) + _encode_name(record.target)
        case _:
            kind, data = (A if record.ip.version == 4 else AAAA), record.ip.packed
    return _encode_name(record.name) + _RECORD.pack(kind, _IN | flush, record.ttl, len(data)) + data


# --- reading ----------------------------------------------------------------------------------------------------------


def decode(data: bytes) -> Packet:
    """Return what is in a packet.

    Raises:
        DecodeError: it is malformed, too long, of another kind than a query or an answer, or holds too much.
    """
    if len(data) > MAX_PACKET:
        raise DecodeError(f"a DNS packet of {len(data)} bytes is above the limit of {MAX_PACKET}")
    if len(data) < _HEADER.size:
        raise DecodeError("a truncated DNS packet")
    _, flags, asked, *counts = _HEADER.unpack_from(data)
    if flags & _OPCODE_AND_RCODE:
        raise DecodeError("a DNS packet that is no query and no answer")
    if asked > MAX_QUESTIONS or sum(counts) > MAX_RECORDS:
        raise DecodeError("a DNS packet with too many questions or records")
    reader = _Reader(data)
    questions = [reader.question() for _ in range(asked)]
    records = [reader.record() for _ in range(sum(counts))]
    return Packet(
        response=bool(flags & _RESPONSE),
        questions=tuple(questions),
        records=tuple([record for record in records if record is not None]),
    )


class _Reader:
    """Reads a packet from its header on."""

    __slots__ = ("_data", "_labels", "_offset")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._offset = _HEADER.size
        self._labels = MAX_LABELS

    def question(self) -> Question:
        labels = self._name()
        kind, _ = self._unpack(_QUESTION)
        return Question(labels, kind)

    def record(self) -> Ptr | Txt | None:
        """The next record; None when it is of a type that is not read."""
        labels = self._name()
        kind, group, ttl, size = self._unpack(_RECORD)
        start, end = self._offset, self._offset + size
        if end > len(self._data):
            raise DecodeError("a truncated DNS record")
        record: Ptr | Txt | None = None
        if group & ~_FLUSH == _IN and kind == PTR:
            record = Ptr(labels, self._name(), ttl)
            if self._offset != end:
                raise DecodeError("a DNS record that is not as long as it says")
        elif group & ~_FLUSH == _IN and kind == TXT:
            record = Txt(labels, _strings(self._data[start:end]), ttl)
        self._offset = end
        return record

    def _unpack(self, layout: struct.Struct) -> tuple[int, ...]:
        start = self._offset
        self._offset += layout.size
        if self._offset > len(self._data):
            raise DecodeError("a truncated DNS packet")
        values: tuple[int, ...] = layout.unpack_from(self._data, start)
        return values

    def _name(self) -> Name:
        data, offset = self._data, self._offset
        labels: list[bytes] = []
        room = _MAX_NAME - 1
        earliest = offset  # of all that this name has used
        jumped = False
        while True:
            if offset >= len(data):
                raise DecodeError("a truncated name")
            self._labels -= 1
            if self._labels < 0:
                raise DecodeError("a DNS packet whose names are too many labels")
            size = data[offset]
            if size & _POINTER == _POINTER and offset + 1 < len(data):
                target = (size & ~_POINTER) << 8 | data[offset + 1]
                if target >= earliest:
                    raise DecodeError("a compressed name that does not point backwards")
                if not jumped:
                    self._offset = offset + 2
                    jumped = True
                offset = earliest = target
                continue
            if size > _MAX_LABEL:
                raise DecodeError("a label that is none")
            if not size:
                break
            room -= size + 1
            label = data[offset + 1 : offset + 1 + size]
            if room < 0 or len(label) < size:
                raise DecodeError("a name that is truncated or too long")
            labels.append(label.lower())
            offset += size + 1
        if not jumped:
            self._offset = offset + 1
        return tuple(labels)


def _strings(data: bytes) -> tuple[bytes, ...]:
    found: list[bytes] = []
    offset = 0
    while offset < len(data):
        end = offset + 1 + data[offset]
        if end > len(data):
            raise DecodeError("a truncated string in a TXT record")
        if end > offset + 1:
            found.append(data[offset + 1 : end])
        offset = end
    return tuple(found)
