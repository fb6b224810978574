"""Rendezvous messages: what clients and rendezvous points say to each other. Pure.

Written by hand rather than with generated code, so that registrations are counted before anything is made of them: a
mebibyte of empty ones would be half a million objects.

Source: libp2p/specs rendezvous; ``proto/rendezvous.proto``.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from ...errors import DecodeError
from ...wire import proto
from ...wire.proto import Field

MAX_MESSAGE = 1024 * 1024
"""Longest message, in bytes (rust)."""
MAX_REQUEST = 16 * 1024
"""Longest request, in bytes (ours): the longest record, the longest namespace, and room for fields of the future."""
MAX_REGISTRATIONS = 1000
"""Most registrations in one answer (specification)."""
MAX_NAMESPACE = 255
"""Longest namespace, in bytes of UTF-8 (specification)."""
MAX_COOKIE = 512
"""Longest cookie of somebody else that is kept, in bytes (ours): rust's holds a namespace and eight bytes more."""
MAX_TEXT = 256
"""Longest explanation kept, in characters."""
_SPARE_FIELDS = 16
_ITEM_HEAD = 4
"""Bytes in front of a registration in an answer: a tag, and a length of at most three."""

# Message
_TYPE, _REGISTER, _REGISTER_RESPONSE, _UNREGISTER, _DISCOVER, _DISCOVER_RESPONSE = range(1, 7)
# Register; Unregister has the first, Discover the first and two of its own
_NS, _RECORD, _TTL = 1, 2, 3
_LIMIT, _COOKIE = 2, 3
# RegisterResponse
_STATUS, _TEXT, _GRANTED = 1, 2, 3
# DiscoverResponse
_REGISTRATIONS, _NEXT_COOKIE, _FOUND_STATUS, _FOUND_TEXT = 1, 2, 3, 4


class Status(enum.IntEnum):
    """What a rendezvous point makes of a request."""

    OK = 0
    INVALID_NAMESPACE = 100
    INVALID_SIGNED_PEER_RECORD = 101
    INVALID_TTL = 102
    INVALID_COOKIE = 103
    NOT_AUTHORIZED = 200
    INTERNAL_ERROR = 300
    UNAVAILABLE = 400


@dataclass(frozen=True, slots=True, kw_only=True)
class Register:
    """A peer in a namespace: a request to be put there, and an item of what was found.

    Attributes:
        record: the peer's signed record, not opened.
        ttl: seconds it stays; None in a request for the default.
    """

    namespace: str
    record: bytes
    ttl: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RegisterResponse:
    """The answer to :class:`Register`.

    Attributes:
        text: an explanation, for people.
        ttl: seconds the registration stays; 0 when it was refused.
    """

    status: int
    text: str = ""
    ttl: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Unregister:
    """A request to be taken out of a namespace. It is not answered."""

    namespace: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Discover:
    """A question.

    Attributes:
        namespace: empty for all of them.
        limit: most registrations wanted; None for as many as the other side likes.
        cookie: where the last answer ended; empty for the beginning.
    """

    namespace: str = ""
    limit: int | None = None
    cookie: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscoverResponse:
    """The answer to :class:`Discover`.

    Attributes:
        cookie: where this answer ends.
        text: an explanation, for people.
    """

    status: int
    registrations: tuple[Register, ...] = ()
    cookie: bytes = b""
    text: str = ""


Message: TypeAlias = Register | RegisterResponse | Unregister | Discover | DiscoverResponse

_TYPES: dict[type[object], int] = {
    Register: 0,
    RegisterResponse: 1,
    Unregister: 2,
    Discover: 3,
    DiscoverResponse: 4,
}
"""The numbers of MessageType; the body of a message is in the field numbered two more."""


def encode(message: Message) -> bytes:
    """Return ``message`` as it goes over the wire, without its length."""
    kind = _TYPES[type(message)]
    return proto.write_uint(_TYPE, kind) + proto.write_bytes(kind + _REGISTER, _encode_body(message))


def _encode_body(message: Message) -> bytes:
    match message:
        case Register():
            return _encode_register(message)
        case RegisterResponse():
            parts = [proto.write_uint(_STATUS, message.status)]
            if message.text:
                parts.append(proto.write_bytes(_TEXT, message.text.encode()))
            if message.status == Status.OK:
                parts.append(proto.write_uint(_GRANTED, message.ttl))
        case Unregister():
            parts = [proto.write_bytes(_NS, message.namespace.encode())]
        case Discover():
            parts = [proto.write_bytes(_NS, message.namespace.encode())] if message.namespace else []
            if message.limit is not None:
                parts.append(proto.write_uint(_LIMIT, message.limit))
            if message.cookie:
                parts.append(proto.write_bytes(_COOKIE, message.cookie))
        case _:
            parts = [proto.write_bytes(_REGISTRATIONS, _encode_register(item)) for item in message.registrations]
            if message.status == Status.OK:
                # There even when it is empty: rust takes no answer without it.
                parts.append(proto.write_bytes(_NEXT_COOKIE, message.cookie))
            parts.append(proto.write_uint(_FOUND_STATUS, message.status))
            if message.text:
                parts.append(proto.write_bytes(_FOUND_TEXT, message.text.encode()))
    return b"".join(parts)


def _encode_register(message: Register) -> bytes:
    parts = [proto.write_bytes(_NS, message.namespace.encode()), proto.write_bytes(_RECORD, message.record)]
    if message.ttl is not None:
        parts.append(proto.write_uint(_TTL, message.ttl))
    return b"".join(parts)


def decode(data: bytes) -> Message:
    """Return the message in ``data``.

    Of fields that are there twice the last counts. A message without a type is a :class:`Register`: zero is left out
    by newer versions of protobuf (js). Nothing is said yet about whether names, times and records are any
    good.

    Raises:
        DecodeError: it is malformed, of an unknown type, has no body, too many registrations, or text that is none.
    """
    kind = 0
    bodies: dict[int, bytes] = {}
    for field in proto.read(data, _SPARE_FIELDS):
        if field.number == _TYPE:
            kind = field.as_uint()
        elif _REGISTER <= field.number <= _DISCOVER_RESPONSE:
            bodies[field.number] = field.as_bytes()
    body = bodies.get(kind + _REGISTER)
    if body is None:
        raise DecodeError(f"a rendezvous message of type {kind} without its body")
    return _DECODERS[kind + _REGISTER](body)


def _fields(body: bytes) -> dict[int, Field]:
    return {field.number: field for field in proto.read(body, _SPARE_FIELDS)}


def _text(field: Field | None) -> str:
    if field is None:
        return ""
    try:
        return field.as_bytes().decode()
    except UnicodeDecodeError as exc:
        raise DecodeError("a rendezvous message with text that is none") from exc


def _bytes(field: Field | None) -> bytes:
    return b"" if field is None else field.as_bytes()


def _uint(field: Field | None) -> int | None:
    return None if field is None else field.as_uint()


def _decode_register(body: bytes) -> Register:
    found = _fields(body)
    return Register(namespace=_text(found.get(_NS)), record=_bytes(found.get(_RECORD)), ttl=_uint(found.get(_TTL)))


def _decode_register_response(body: bytes) -> RegisterResponse:
    found = _fields(body)
    return RegisterResponse(
        status=_status(found.get(_STATUS)),
        text=_printable(found.get(_TEXT)),
        ttl=_uint(found.get(_GRANTED)) or 0,
    )


def _decode_unregister(body: bytes) -> Unregister:
    return Unregister(namespace=_text(_fields(body).get(_NS)))


def _decode_discover(body: bytes) -> Discover:
    found = _fields(body)
    return Discover(namespace=_text(found.get(_NS)), limit=_uint(found.get(_LIMIT)), cookie=_bytes(found.get(_COOKIE)))


def _decode_discover_response(body: bytes) -> DiscoverResponse:
    single: dict[int, Field] = {}
    registrations: list[bytes] = []
    for field in proto.read(body, MAX_REGISTRATIONS + _SPARE_FIELDS):
        if field.number == _REGISTRATIONS:
            registrations.append(field.as_bytes())
        else:
            single[field.number] = field
    if len(registrations) > MAX_REGISTRATIONS:
        raise DecodeError(f"an answer with more than {MAX_REGISTRATIONS} registrations")
    cookie = _bytes(single.get(_NEXT_COOKIE))
    if len(cookie) > MAX_COOKIE:
        raise DecodeError(f"a cookie of {len(cookie)} bytes is above the limit of {MAX_COOKIE}")
    return DiscoverResponse(
        status=_status(single.get(_FOUND_STATUS)),
        registrations=tuple([_decode_register(item) for item in registrations]),
        cookie=cookie,
        text=_printable(single.get(_FOUND_TEXT)),
    )


def _status(field: Field | None) -> int:
    # proto2: what is not there is the first of the enumeration.
    return _uint(field) or Status.OK


def _printable(field: Field | None) -> str:
    """It ends up in errors and on terminals: no control characters, and not a book."""
    text = _bytes(field).decode("utf-8", "replace")[:MAX_TEXT]
    return "".join([char if char.isprintable() else "?" for char in text])


_DECODERS: dict[int, Callable[[bytes], Message]] = {
    _REGISTER: _decode_register,
    _REGISTER_RESPONSE: _decode_register_response,
    _UNREGISTER: _decode_unregister,
    _DISCOVER: _decode_discover,
    _DISCOVER_RESPONSE: _decode_discover_response,
}


def fitting(registrations: Sequence[Register], room: int) -> tuple[Register, ...]:
    """Those first ``registrations`` that fit into ``room`` bytes of an answer."""
    for count, registration in enumerate(registrations):
        room -= len(_encode_register(registration)) + _ITEM_HEAD
        if room < 0:
            return tuple(registrations[:count])
    return tuple(registrations)
