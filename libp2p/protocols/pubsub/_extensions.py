"""Extensions of gossipsub 1.3 on the wire: what a peer says of itself, and the messages of extensions. Pure.

Extensions are not negotiated. Each side says once, in the first RPC of its stream, which ones it knows; one is active
between two peers when both know it. What is not known here is left alone.

Source: libp2p/specs gossipsub v1.3, partial messages, test extension; ``proto/pubsub.proto``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from ...errors import DecodeError
from ...wire import proto, varint
from ._codec import read_number, read_text, walk

_CONTROL_EXTENSIONS = 6
_PARTIAL = 10
_TEST = 6492434
_TOPIC, _GROUP, _PARTS, _METADATA = 1, 2, 3, 4
_MAX_FIELDS = 64
"""Fields looked at in one message of an extension, or in what a peer says of itself (ours; case G1)."""


@dataclass(frozen=True, slots=True)
class Extensions:
    """What one side knows.

    Attributes:
        partial: messages in parts.
        test: the extension that only shows that extensions work.
    """

    partial: bool = False
    test: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PartialRpc:
    """Parts of a message, or what somebody has and wants of it, or both.

    Attributes:
        topic: the topic.
        group: what all parts of one message have in common.
        parts: some of them, as the application encodes them; empty for none.
        metadata: what the sender has and wants, as the application encodes it; empty when it does not say.
    """

    topic: str
    group: bytes
    parts: bytes = field(default=b"", repr=False)
    metadata: bytes = field(default=b"", repr=False)


def _fields(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Tag, start and end of the value of each field."""
    for count, (tag, _, start, stop) in enumerate(walk(data, 0, len(data))):
        if count == _MAX_FIELDS:
            raise DecodeError(f"an extension's message with more than {_MAX_FIELDS} fields")
        yield tag, start, stop


def _number(number: int, value: int) -> bytes:
    return varint.encode(number << 3 | proto.VARINT) + varint.encode(value)


def encode_extensions(extensions: Extensions) -> bytes:
    """Return a control entry that says what this side knows."""
    body = b""
    if extensions.partial:
        body += _number(_PARTIAL, 1)
    if extensions.test:
        body += _number(_TEST, 1)
    return proto.write_bytes(_CONTROL_EXTENSIONS, body)


def decode_extensions(data: bytes) -> Extensions:
    """Return what the body of such an entry says.

    Raises:
        DecodeError: it is malformed.
    """
    said = {
        tag >> 3: read_number(data, start, stop) != 0 for tag, start, stop in _fields(data) if tag & 7 == proto.VARINT
    }
    return Extensions(partial=said.get(_PARTIAL, False), test=said.get(_TEST, False))


TEST_RPC = varint.encode(_TEST << 3 | proto.BYTES) + b"\x00"
"""The message of the test extension, as a field of an RPC."""


def encode_partial(rpc: PartialRpc) -> bytes:
    """Return ``rpc`` as a field of an RPC, which may have one of them."""
    body = proto.write_bytes(_TOPIC, rpc.topic.encode()) + proto.write_bytes(_GROUP, rpc.group)
    if rpc.parts:
        body += proto.write_bytes(_PARTS, rpc.parts)
    if rpc.metadata:
        body += proto.write_bytes(_METADATA, rpc.metadata)
    return proto.write_bytes(_PARTIAL, body)


def decode_messages(data: bytes) -> tuple[PartialRpc | None, bool]:
    """Return the messages of extensions among the fields ``data`` of an RPC: parts, and whether the test's is there.

    Parts without a topic, or with one that is not UTF-8, are left out.

    Raises:
        DecodeError: it is malformed.
    """
    partial: list[bytes] = []
    test = False
    for tag, _, start, stop in walk(data, 0, len(data)):
        if tag == _PARTIAL << 3 | proto.BYTES:
            # A field that comes twice is the two of them joined (protobuf); once, for there may be thousands.
            partial.append(data[start:stop])
        elif tag == _TEST << 3 | proto.BYTES:
            test = True
    return _decode_partial(b"".join(partial)) if partial else None, test


def _decode_partial(data: bytes) -> PartialRpc | None:
    fields = {tag >> 3: data[start:stop] for tag, start, stop in _fields(data) if tag & 7 == proto.BYTES}
    topic = read_text(fields.get(_TOPIC, b""))
    if not topic:
        return None
    return PartialRpc(
        topic=topic,
        group=fields.get(_GROUP, b""),
        parts=fields.get(_PARTS, b""),
        metadata=fields.get(_METADATA, b""),
    )
