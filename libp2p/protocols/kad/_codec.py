"""Messages of the DHT. Pure.

One message type serves all requests and answers. Reading is lenient about single peers (an id that is none is left out)
and strict about amounts; addresses stay bytes until somebody dials them. Nothing here believes a word of it.

Source: libp2p/specs kad-dht, "RPC messages".
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from google.protobuf.message import DecodeError as ProtobufError

from ...errors import DecodeError
from ...pb.kad_pb2 import Message as Pb
from ...peer_id import PeerId
from ...wire import proto

MAX_REQUEST = 72 * 1024
"""Bytes of a request that is read: a record of 64 KiB and what goes with it (case K1)."""
MAX_PLAIN_REQUEST = 64 * 1024
"""Bytes of a request that carries no record (case K1)."""
MAX_ANSWER = 4 * 1024 * 1024
"""Bytes of an answer that is read (go)."""
MAX_SENT = 16 * 1024
"""Bytes of an answer that is sent, its record not counted: rust reads no longer messages."""
MAX_PEERS = 20
"""Closer peers of an answer that are used (case K1)."""
MAX_PROVIDERS = 100
"""Providers of an answer that are used (ours)."""
MAX_ADDRS = 32
"""Addresses of a peer that are used (case K1)."""
SENT_ADDRS = 8
"""Addresses of a peer that are sent (ours)."""
SENT_ADDR_BYTES = 700
"""Bytes of these, so that twenty peers fit and none can crowd out the others (ours)."""
MAX_ADDR = 1024
"""Bytes of an address that is used."""
MAX_ADDR_BYTES = 32 * 1024
"""Bytes of the addresses of all closer peers, and of all providers, that are used (ours): to read them takes time."""

_LARGE = 16 * 1024
_MAX_FIELDS = 10_000
_TYPE, _KEY, _RECORD, _CLOSER, _PROVIDERS = 1, 2, 3, 8, 9
_PEER_ID, _PEER_ADDR = 1, 2
_RECORD_KEY, _RECORD_VALUE, _RECORD_TIME = 1, 2, 5


class MessageType(enum.IntEnum):
    """What a message asks, or answers."""

    PUT_VALUE = 0
    GET_VALUE = 1
    ADD_PROVIDER = 2
    GET_PROVIDERS = 3
    FIND_NODE = 4
    PING = 5


@dataclass(frozen=True, slots=True)
class PeerInfo:
    """A peer and where it is said to be.

    Attributes:
        addrs: binary multiaddrs; those from the wire may be nonsense.
    """

    peer: PeerId
    addrs: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A value under its key.

    Attributes:
        received: when the peer that sends it got it, in RFC 3339; empty when it does not say.
    """

    key: bytes
    value: bytes
    received: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """A request or an answer.

    Attributes:
        closer: peers nearer to the key.
        providers: peers that have what the key stands for.
    """

    type: MessageType
    key: bytes = b""
    record: Record | None = None
    closer: tuple[PeerInfo, ...] = ()
    providers: tuple[PeerInfo, ...] = ()


def decode(data: bytes) -> Message:
    """Return the message in ``data``.

    Raises:
        DecodeError: it is no message of a known type, or has too many fields.
    """
    if len(data) > _LARGE:
        # Millions of empty peers would take a hundred times their bytes in memory: count before parsing.
        for _ in proto.read(data, _MAX_FIELDS):
            pass
    message = Pb()
    try:
        message.ParseFromString(data)
        kind = MessageType(message.type)
    except (ProtobufError, ValueError, UnicodeDecodeError) as exc:
        raise DecodeError("not a message of the DHT") from exc
    record = None
    if message.HasField("record"):
        found = message.record
        time = found.timeReceived if isinstance(found.timeReceived, str) else ""
        record = Record(key=found.key, value=found.value, received=time)
    return Message(
        type=kind,
        key=message.key,
        record=record,
        closer=tuple(_peers(message.closerPeers, MAX_PEERS)) if message.closerPeers else (),
        providers=tuple(_peers(message.providerPeers, MAX_PROVIDERS)) if message.providerPeers else (),
    )


def _peers(found: Iterable[Pb.Peer], limit: int) -> Iterator[PeerInfo]:
    room = MAX_ADDR_BYTES
    for each in found:
        if not limit:
            break
        try:
            peer = PeerId.from_bytes(each.id)
        except DecodeError:
            continue
        limit -= 1
        addrs: list[bytes] = []
        for addr in each.addrs[:MAX_ADDRS]:
            if len(addr) <= min(MAX_ADDR, room):
                room -= len(addr)
                addrs.append(addr)
        yield PeerInfo(peer, tuple(addrs))


def encode(message: Message) -> bytes:
    """Return ``message`` as bytes.

    Providers and then closer peers that do not fit into :data:`MAX_SENT` are left out; addresses as :func:`sent`.
    """
    parts = [proto.write_uint(_TYPE, message.type)]
    if message.key:
        parts.append(proto.write_bytes(_KEY, message.key))
    if message.record is not None:
        parts.append(proto.write_bytes(_RECORD, _encode_record(message.record)))
    room = MAX_SENT - sum([len(part) for part in parts if len(part) < MAX_SENT])
    for number, peers in ((_PROVIDERS, message.providers), (_CLOSER, message.closer)):
        for peer in peers:
            part = encode_peer(number, peer)
            if len(part) > room:
                break
            room -= len(part)
            parts.append(part)
    return b"".join(parts)


def encode_closer_peers(closer: Iterable[bytes], room: int) -> bytes:
    """Return closer peers, given as :func:`encode_closer` made them, as the end of a message.

    Args:
        room: bytes they may take; what does not fit is left out.
    """
    parts: list[bytes] = []
    for part in closer:
        room -= len(part)
        if room < 0:
            break
        parts.append(part)
    return b"".join(parts)


def encode_closer(peer: PeerInfo) -> bytes:
    """Return ``peer`` as a closer peer of a message, to be kept: the same peers are in most answers."""
    return encode_peer(_CLOSER, peer)


def encode_peer(number: int, peer: PeerInfo) -> bytes:
    """Return ``peer`` as field ``number`` of a message.

    Whether we are connected to it is not said: nobody uses it, and 0 is what it then means.
    """
    inner = proto.write_bytes(_PEER_ID, bytes(peer.peer))
    inner += b"".join([proto.write_bytes(_PEER_ADDR, addr) for addr in sent(peer.addrs)])
    return proto.write_bytes(number, inner)


def sent(addrs: Iterable[bytes]) -> tuple[bytes, ...]:
    """Those of ``addrs``, a peer's, that are sent: the first that keep to the bounds."""
    found: list[bytes] = []
    room = SENT_ADDR_BYTES
    for addr in addrs:
        if len(found) < SENT_ADDRS and len(addr) <= room:
            room -= len(addr)
            found.append(addr)
    return tuple(found)


def _encode_record(record: Record) -> bytes:
    encoded = proto.write_bytes(_RECORD_KEY, record.key) + proto.write_bytes(_RECORD_VALUE, record.value)
    if record.received:
        encoded += proto.write_bytes(_RECORD_TIME, record.received.encode())
    return encoded
