"""Messages of circuit relay version 1. Pure.

Source: libp2p/specs relay/circuit-v1.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from google.protobuf.message import DecodeError as ProtobufError

from ....abc import ProtocolId
from ....addressing import Part, from_parts, parse
from ....errors import DecodeError
from ....pb import relay_v1_pb2 as pb
from ....peer_id import PeerId

RELAY_V1: ProtocolId = "/libp2p/circuit/relay/0.1.0"
"""The protocol id of circuit relay 1."""
MAX_ADDR = 1024
"""Longest address in a message, in bytes (specification)."""


class StatusV1(enum.IntEnum):
    """How a relay of version 1 (200 and more), or a destination (300 and more), answers."""

    SUCCESS = 100
    HOP_SRC_ADDR_TOO_LONG = 220
    HOP_DST_ADDR_TOO_LONG = 221
    HOP_SRC_MULTIADDR_INVALID = 250
    HOP_DST_MULTIADDR_INVALID = 251
    HOP_NO_CONN_TO_DST = 260
    HOP_CANT_DIAL_DST = 261
    """Of relays that dial, as ours does not."""
    HOP_CANT_OPEN_DST_STREAM = 262
    HOP_CANT_SPEAK_RELAY = 270
    HOP_CANT_RELAY_TO_SELF = 280
    HOP_BACKOFF = 290
    STOP_SRC_ADDR_TOO_LONG = 320
    STOP_DST_ADDR_TOO_LONG = 321
    STOP_SRC_MULTIADDR_INVALID = 350
    STOP_DST_MULTIADDR_INVALID = 351
    STOP_RELAY_REFUSED = 390
    MALFORMED_MESSAGE = 400


class Kind(enum.IntEnum):
    """What a message is."""

    HOP = 1
    STOP = 2
    STATUS = 3
    CAN_HOP = 4


class BadPeer(DecodeError):
    """An end of a circuit is not described as it must be.

    Attributes:
        status: what to answer.
    """

    def __init__(self, status: StatusV1) -> None:
        super().__init__(status.name)
        self.status = status


@dataclass(frozen=True, slots=True)
class End:
    """One end of a circuit, as somebody describes it. Nothing in it is checked; :meth:`read` does.

    Attributes:
        peer: its peer id, as bytes; empty when there is none.
        addrs: its addresses, as bytes.
    """

    peer: bytes = b""
    addrs: tuple[bytes, ...] = ()

    def read(self, *, too_long: StatusV1, invalid: StatusV1) -> PeerId:
        """Return whose end it is, after checking what is said about it.

        Raises:
            BadPeer: with ``too_long`` or ``invalid``.
        """
        if any(len(addr) > MAX_ADDR for addr in self.addrs):
            raise BadPeer(too_long)
        try:
            for addr in self.addrs:
                parse(addr)
            return PeerId.from_bytes(self.peer)
        except DecodeError as exc:
            raise BadPeer(invalid) from exc


@dataclass(frozen=True, slots=True, kw_only=True)
class MessageV1:
    """All there is in version 1.

    Attributes:
        source: of a HOP and a STOP, who wants to connect.
        destination: of a HOP and a STOP, who to reach.
        status: of a STATUS; a number that is not known here stays a number.
    """

    kind: Kind
    source: End = End()
    destination: End = End()
    status: int | None = None


def encode(message: MessageV1) -> bytes:
    """Return the serialized ``message``."""
    out = pb.CircuitRelay(type=message.kind)
    for end, into in ((message.source, out.src_peer), (message.destination, out.dst_peer)):
        if end.peer:
            into.id = end.peer
            into.addrs.extend(end.addrs)
    if message.status is not None:
        out.code = message.status
    encoded: bytes = out.SerializeToString()
    return encoded


def decode(data: bytes) -> MessageV1:
    """Return the message in ``data``.

    Raises:
        DecodeError: it does not parse, or is of no known type.
    """
    message = pb.CircuitRelay()
    try:
        message.ParseFromString(data)
        kind = Kind(message.type)
    except (ProtobufError, ValueError) as exc:
        raise DecodeError("not a message of relay version 1") from exc
    return MessageV1(
        kind=kind,
        source=End(message.src_peer.id, tuple(message.src_peer.addrs)),
        destination=End(message.dst_peer.id, tuple(message.dst_peer.addrs)),
        status=message.code if message.HasField("code") else None,
    )


def decode_answer(data: bytes) -> int | None:
    """Return the status in ``data``, None where it has none.

    Raises:
        DecodeError: it does not parse, or is no STATUS.
    """
    message = decode(data)
    if message.kind is not Kind.STATUS:
        raise DecodeError(f"it answered with a {message.kind.name}")
    return message.status


def hop(source: PeerId, destination: PeerId) -> MessageV1:
    """The request to be connected with ``destination``."""
    return MessageV1(kind=Kind.HOP, source=_end(source), destination=_end(destination))


def _end(peer: PeerId) -> End:
    # With an address, because js reads the first without looking whether there is one.
    return End(bytes(peer), (from_parts((Part("p2p", bytes(peer)),)).to_bytes(),))
