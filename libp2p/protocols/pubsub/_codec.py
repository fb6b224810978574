"""The wire format of pubsub: RPCs, and the messages in them. Pure.

Theory of operation. This is written by hand rather than with generated code, for two reasons. A message is signed and
forwarded as bytes: what arrived is what is verified and what leaves again, so a message keeps its ``raw`` bytes and is
never encoded a second time. And decoding must not cost more than the bytes did: entries are counted while the outer
level is walked, before anything is made of them (case G1), and a length is compared with what is there before it is
used.

Control entries and fields of extensions are carried as bytes for the router that understands them; concatenated
encodings of a protobuf message are the encoding of both together, so they can be collected by joining.

Source: libp2p/specs pubsub; ``proto/pubsub.proto``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from ...errors import DecodeError
from ...peer_id import PeerId
from ...wire import proto, varint

MessageId: TypeAlias = bytes
"""What tells messages apart: any bytes, at most :data:`MAX_ID_SIZE`."""
MAX_ID_SIZE = 256
"""Bytes of an id (ours). Ids are remembered by the hundred thousand, and peers choose those they speak of."""

SIGNATURE_PREFIX = b"libp2p-pubsub:"
_MAX_VARINT_LENGTH = 10  # of protobuf, which has 64 bits

# RPC
_SUBSCRIPTIONS, _PUBLISH, _CONTROL = 1, 2, 3
_ONE_MESSAGE = bytes((_PUBLISH << 3 | proto.BYTES,))
# SubOpts
_SUBSCRIBE, _TOPIC_ID, _REQUESTS_PARTIAL, _SUPPORTS_PARTIAL = 1, 2, 3, 4
# Message
_FROM, _DATA, _SEQNO, _TOPIC, _SIGNATURE, _KEY = 1, 2, 3, 4, 5, 6


@dataclass(frozen=True, slots=True, kw_only=True)
class RpcLimits:
    """What one RPC may hold; more is refused before it is decoded."""

    size: int = 1024 * 1024
    """Bytes of an RPC (specs; go, nim)."""
    entries: int = 5000
    """Subscriptions, messages and control entries, together (js; case G1)."""
    control_size: int = 512 * 1024
    """Bytes of control entries. go puts up to 5,000 ids into one IHAVE, some 240 kB of them, and the IHAVEs of several
    topics into one RPC. Control entries stay bytes here; whoever decodes them stops at a number of ids (case G1)."""

    def __post_init__(self) -> None:
        if min(self.size, self.entries, self.control_size) < 1:
            raise ValueError("limits of an RPC must be positive")


@dataclass(frozen=True, slots=True)
class Subscription:
    """A peer's announcement that it wants the messages of a topic, or no longer does.

    Attributes:
        requests_partial: it wants parts instead of whole messages (gossipsub 1.3).
        supports_partial: it can send parts.
    """

    topic: str
    subscribe: bool
    requests_partial: bool = False
    supports_partial: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Rpc:
    """What peers send each other.

    Attributes:
        publish: messages, encoded.
        control: control entries, encoded; empty for none.
        extensions: all other fields, encoded with their tags.
    """

    subscriptions: tuple[Subscription, ...] = ()
    publish: tuple[bytes, ...] = ()
    control: bytes = b""
    extensions: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A message of a topic.

    Attributes:
        id: what tells it apart from others of its topic.
        topic: where it was published.
        data: what was published.
        author: who says to have published it. Proved only where the signature policy has it verified.
        seqno: the author's number for it: eight bytes, big endian, growing.
        signature: the author's.
        key: the author's serialized public key, where its id does not hold it.
        received_from: the peer it came from: the author, or whoever forwarded it.
        raw: the message as it is on the wire.
    """

    id: MessageId
    topic: str
    data: bytes = field(repr=False)
    author: PeerId | None = None
    seqno: bytes | None = None
    signature: bytes | None = field(default=None, repr=False)
    key: bytes | None = field(default=None, repr=False)
    received_from: PeerId
    raw: bytes = field(repr=False)


def default_message_id(author: bytes | None, seqno: bytes | None, data: bytes) -> MessageId:
    """Return author and sequence number where both are given (specs), otherwise SHA-256 of the data (js)."""
    if author and seqno:
        return author + seqno
    return hashlib.sha256(data).digest()


# --- RPCs -------------------------------------------------------------------------------------------------------------


def decode_rpc(data: bytes, limits: RpcLimits) -> Rpc:
    """Return the RPC in ``data``. Its messages are not looked at.

    Subscriptions to topics that are empty or not UTF-8 are left out.

    Raises:
        DecodeError: it is malformed, or more than ``limits`` allow.
    """
    if len(data) > limits.size:
        raise DecodeError(f"an RPC of {len(data)} bytes is above the limit of {limits.size}")
    subscriptions: list[tuple[int, int]] = []
    publish: list[bytes] = []
    control: list[bytes] = []
    extensions: list[bytes] = []
    entries = 0
    for tag, begin, start, stop in walk(data, 0, len(data)):
        entries += 1
        if tag == _PUBLISH << 3 | proto.BYTES:
            publish.append(data[start:stop])
        elif tag == _SUBSCRIPTIONS << 3 | proto.BYTES:
            subscriptions.append((start, stop))
        elif tag == _CONTROL << 3 | proto.BYTES:
            control.append(data[start:stop])
            entries += _count(data, start, stop, limits.entries - entries)
        else:
            extensions.append(data[begin:stop])
        if entries > limits.entries:
            raise DecodeError(f"an RPC with more than {limits.entries} entries")
    if sum(map(len, control)) > limits.control_size:
        raise DecodeError(f"an RPC with more than {limits.control_size} bytes of control entries")
    decoded = [_decode_subscription(data, start, stop) for start, stop in subscriptions]
    return Rpc(
        subscriptions=tuple([subscription for subscription in decoded if subscription is not None]),
        publish=tuple(publish),
        control=b"".join(control),
        extensions=b"".join(extensions),
    )


def decode_rpcs(frames: Iterable[bytes], limits: RpcLimits) -> Iterator[Rpc]:
    """The RPCs in ``frames``. Those in a row that hold one message and nothing else, as most do, come as one RPC.

    Raises:
        DecodeError: as :func:`decode_rpc`, after the RPCs before the bad one were returned.
    """
    messages: list[bytes] = []
    for data in frames:
        raw = _only_message(data) if len(data) <= limits.size else None
        if raw is not None:
            messages.append(raw)
        if messages and (raw is None or len(messages) == limits.entries):
            yield Rpc(publish=tuple(messages))
            messages = []
        if raw is None:
            yield decode_rpc(data, limits)
    if messages:
        yield Rpc(publish=tuple(messages))


def _only_message(data: bytes) -> bytes | None:
    """The message in an RPC that holds nothing else. None for other RPCs, malformed ones among them."""
    if data[:1] != _ONE_MESSAGE:
        return None
    try:
        size, start = _varint(data, 1, len(data))
    except DecodeError:
        return None
    return data[start:] if start + size == len(data) else None


def _count(data: bytes, start: int, stop: int, limit: int) -> int:
    """How many entries a control message has; at most a little more than ``limit``."""
    count = 0
    for _ in walk(data, start, stop):
        count += 1
        if count > limit:
            break
    return count


def _decode_subscription(data: bytes, start: int, stop: int) -> Subscription | None:
    flags = {_SUBSCRIBE: False, _REQUESTS_PARTIAL: False, _SUPPORTS_PARTIAL: False}
    topic: str | None = None
    for tag, _, value_start, value_stop in walk(data, start, stop):
        number = tag >> 3
        if tag == _TOPIC_ID << 3 | proto.BYTES:
            topic = read_text(data[value_start:value_stop])
        elif number in flags and tag & 7 == proto.VARINT:
            flags[number] = any(byte & 0x7F for byte in data[value_start:value_stop])
    if not topic:
        return None
    return Subscription(topic, flags[_SUBSCRIBE], flags[_REQUESTS_PARTIAL], flags[_SUPPORTS_PARTIAL])


def encode_subscription(subscription: Subscription) -> bytes:
    """Return ``subscription`` as a field of an RPC."""
    body = proto.write_uint(_SUBSCRIBE, subscription.subscribe)
    body += proto.write_bytes(_TOPIC_ID, subscription.topic.encode())
    if subscription.requests_partial:
        body += proto.write_uint(_REQUESTS_PARTIAL, 1)
    if subscription.supports_partial:
        body += proto.write_uint(_SUPPORTS_PARTIAL, 1)
    return proto.write_bytes(_SUBSCRIPTIONS, body)


def encode_publish(raw: bytes) -> bytes:
    """Return an encoded message as a field of an RPC."""
    return proto.write_bytes(_PUBLISH, raw)


def frame_publish(raw: bytes) -> bytes:
    """Return an RPC with nothing but an encoded message, behind its length: what is sent to everybody alike."""
    head = _ONE_MESSAGE + varint.encode(len(raw))
    return b"".join((varint.encode(len(head) + len(raw)), head, raw))


def encode_control(control: bytes) -> bytes:
    """Return encoded control entries as a field of an RPC."""
    return proto.write_bytes(_CONTROL, control)


def encode_rpc(rpc: Rpc) -> bytes:
    """Return ``rpc`` encoded."""
    parts = [encode_subscription(subscription) for subscription in rpc.subscriptions]
    parts += [encode_publish(raw) for raw in rpc.publish]
    if rpc.control:
        parts.append(encode_control(rpc.control))
    parts.append(rpc.extensions)
    return b"".join(parts)


# --- messages ---------------------------------------------------------------------------------------------------------


def decode_message(raw: bytes, received_from: PeerId) -> Message:
    """Return the message in ``raw``, with its default id.

    Of several topics, which old implementations send, the last counts.

    Raises:
        DecodeError: it is malformed, has no topic or none in UTF-8, or its author is no peer id.
    """
    fields: dict[int, bytes] = {}
    for tag, _, start, stop in walk(raw, 0, len(raw)):
        if tag & 7 == proto.BYTES:
            fields[tag >> 3] = raw[start:stop]
    topic = read_text(fields.get(_TOPIC, b""))
    if not topic:
        raise DecodeError("a message without a topic, or with one that is not UTF-8")
    author, seqno, data = fields.get(_FROM), fields.get(_SEQNO), fields.get(_DATA, b"")
    return Message(
        id=default_message_id(author, seqno, data),
        topic=topic,
        data=data,
        author=PeerId.from_bytes(author) if author is not None else None,
        seqno=seqno,
        signature=fields.get(_SIGNATURE),
        key=fields.get(_KEY),
        received_from=received_from,
        raw=raw,
    )


def encode_message(
    *,
    topic: str,
    data: bytes,
    author: bytes | None = None,
    seqno: bytes | None = None,
    signature: bytes | None = None,
    key: bytes | None = None,
) -> bytes:
    """Return a message encoded, in the field order that all implementations use."""
    fields = (
        (_FROM, author),
        (_DATA, data),
        (_SEQNO, seqno),
        (_TOPIC, topic.encode()),
        (_SIGNATURE, signature),
        (_KEY, key),
    )
    return b"".join([proto.write_bytes(number, value) for number, value in fields if value is not None])


def encode_proof(signature: bytes, key: bytes | None) -> bytes:
    """Return the fields that make an encoded message, of which they are the last two, a signed one."""
    proof = proto.write_bytes(_SIGNATURE, signature)
    return proof if key is None else proof + proto.write_bytes(_KEY, key)


def signed_bytes(raw: bytes) -> bytes:
    """Return what the signature of the encoded message ``raw`` is over: itself without signature and key (PS6)."""
    parts = [SIGNATURE_PREFIX]
    for tag, begin, _, stop in walk(raw, 0, len(raw)):
        if tag >> 3 not in (_SIGNATURE, _KEY):
            parts.append(raw[begin:stop])
    return b"".join(parts)


# --- fields -----------------------------------------------------------------------------------------------------------


def walk(data: bytes, position: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """The fields between ``position`` and ``end``: tag, where the field begins, where its value starts and stops.

    Raises:
        DecodeError: they are malformed.
    """
    while position < end:
        begin = position
        tag = data[position]
        position += 1
        # Inline what nearly all fields are, one byte of tag and one of length: a call for each would double the time.
        if not 8 <= tag < 0x80:
            tag, position = _varint(data, begin, end)
            if not 8 <= tag < 1 << 32:
                raise DecodeError(f"field tag {tag} is out of range")
        wire_type = tag & 7
        if wire_type == proto.BYTES:
            if position < end and data[position] < 0x80:
                start = position + 1
                position = start + data[position]
            else:
                size, start = _varint(data, position, end)
                position = start + size
        elif wire_type == proto.VARINT:
            start = position
            _, position = _varint(data, position, end)
        elif wire_type in (proto.FIXED64, proto.FIXED32):
            start = position
            position += 8 if wire_type == proto.FIXED64 else 4
        else:
            raise DecodeError(f"wire type {wire_type} is not known")
        if position > end:
            raise DecodeError("a field is truncated")
        yield tag, begin, start, position


def _varint(data: bytes, position: int, end: int) -> tuple[int, int]:
    """A varint of protobuf, which need not be in shortest form, and where it ends."""
    # One byte, or two: nearly all lengths, and half the time of the loop.
    if position < end and data[position] < 0x80:
        return data[position], position + 1
    if position + 1 < end and data[position + 1] < 0x80:
        return data[position] & 0x7F | data[position + 1] << 7, position + 2
    value = shift = 0
    for index in range(position, min(end, position + _MAX_VARINT_LENGTH)):
        byte = data[index]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, index + 1
        shift += 7
    raise DecodeError("a number is truncated or too long")


def read_number(data: bytes, start: int, stop: int) -> int:
    """The value of a varint field that :func:`walk` found between ``start`` and ``stop``."""
    return _varint(data, start, stop)[0]


def read_text(value: bytes) -> str | None:
    """``value`` as UTF-8; None when it is not."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None


def rpc_overhead(size: int) -> int:
    """Bytes that an RPC adds to a single message of ``size`` bytes."""
    return 1 + len(varint.encode(size))


def pack(parts: Sequence[bytes], *, size: int, count: int) -> Iterator[bytes]:
    """Join encoded fields to RPCs of at most ``size`` bytes and ``count`` fields; longer fields go alone."""
    batch: list[bytes] = []
    room = size
    for part in parts:
        if batch and (len(part) > room or len(batch) == count):
            yield b"".join(batch)
            batch, room = [], size
        batch.append(part)
        room -= len(part)
    if batch:
        yield b"".join(batch)
