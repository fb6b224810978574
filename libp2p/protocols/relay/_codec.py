"""Messages of circuit relay version 2: hop, stop, and the voucher of a reservation. Pure.

A message's type is written even when it is zero, because readers elsewhere require it, and taken as zero when it is
missing, because writers elsewhere leave it out. Numbers of peers are clamped here: nothing behind this file sees a
duration or an amount that its field cannot mean.

Source: libp2p/specs relay/circuit-v2.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from google.protobuf.message import DecodeError as ProtobufError
from google.protobuf.message import Message
from multiaddr import Multiaddr

from ...addressing import parse
from ...crypto.keys import PrivateKey
from ...errors import DecodeError
from ...pb import relay_pb2 as pb
from ...peer_id import PeerId
from ...records.envelope import Envelope
from ._v1 import StatusV1

MAX_MESSAGE = 4096
"""Longest message sent or read, in bytes (go ``maxMessageSize``, js, rust)."""
MAX_ADDRS = 32
"""Most addresses of a relay that are read or sent (ours)."""
VOUCHER_DOMAIN = "libp2p-relay-rsvp"
VOUCHER_TYPE = b"\x03\x02"
"""Multicodec libp2p-relay-rsvp, 0x0302, as two bytes."""

MessageT = TypeVar("MessageT", bound=Message)


class Status(enum.IntEnum):
    """How a relay, or a destination, answers."""

    OK = 100
    RESERVATION_REFUSED = 200
    RESOURCE_LIMIT_EXCEEDED = 201
    PERMISSION_DENIED = 202
    CONNECTION_FAILED = 203
    NO_RESERVATION = 204
    MALFORMED_MESSAGE = 400
    UNEXPECTED_MESSAGE = 401


class HopType(enum.IntEnum):
    """What a hop message is."""

    RESERVE = 0
    CONNECT = 1
    STATUS = 2


class StopType(enum.IntEnum):
    """What a stop message is."""

    CONNECT = 0
    STATUS = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitLimit:
    """What a relay lets through one circuit.

    Attributes:
        duration: seconds; None for as long as it likes.
        data: bytes, each way; None for as many as it likes.
    """

    duration: int | None = None
    data: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ReservationMessage:
    """What a relay grants.

    Attributes:
        expire: when it ends, in seconds since 1970, as the relay says.
        addrs: the relay's addresses, each ending in its ``/p2p``.
        voucher: a sealed :class:`Voucher`; None when the relay gave none.
    """

    expire: int
    addrs: tuple[Multiaddr, ...] = ()
    voucher: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HopMessage:
    """A message between a relay and whoever asks it for something.

    Attributes:
        peer: of a CONNECT, who to reach.
        reservation: of the answer to a RESERVE.
        limit: of an answer, what a circuit may carry; None when a circuit has no limits.
        status: of a STATUS; a number that is not known here stays a number.
    """

    type: HopType
    peer: PeerId | None = None
    reservation: ReservationMessage | None = None
    limit: CircuitLimit | None = None
    status: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StopMessage:
    """A message between a relay and the destination of a circuit.

    Attributes:
        peer: of a CONNECT, who wants to connect.
        limit: of a CONNECT, what the circuit may carry; None when it has no limits.
        status: of a STATUS.
    """

    type: StopType
    peer: PeerId | None = None
    limit: CircuitLimit | None = None
    status: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Voucher:
    """A relay's signed word that a peer has a reservation with it.

    Attributes:
        expiration: seconds since 1970.
    """

    relay: PeerId
    peer: PeerId
    expiration: int

    def seal(self, key: PrivateKey) -> bytes:
        """Return the voucher in an envelope signed with ``key``, which must be the relay's."""
        message = pb.Voucher(relay=bytes(self.relay), peer=bytes(self.peer), expiration=self.expiration)
        return Envelope.seal(key, VOUCHER_DOMAIN, VOUCHER_TYPE, message.SerializeToString()).marshal()

    @classmethod
    def open(cls, data: bytes) -> Voucher:
        """Return the voucher in a serialized envelope, after checking that the relay it names signed it.

        Raises:
            DecodeError: it does not parse, its signature is wrong, or somebody else than the relay signed it.
        """
        envelope = Envelope.open(data, VOUCHER_DOMAIN, payload_type=VOUCHER_TYPE, max_length=MAX_MESSAGE)
        message = _parsed(pb.Voucher(), envelope.payload)
        voucher = cls(
            relay=PeerId.from_bytes(message.relay),
            peer=PeerId.from_bytes(message.peer),
            expiration=message.expiration,
        )
        if voucher.relay != envelope.signer:
            raise DecodeError("a voucher that was not signed by the relay it names")
        return voucher


def encode_hop(message: HopMessage) -> bytes:
    """Return the serialized ``message``."""
    out = pb.HopMessage()
    if message.reservation is not None:
        granted = message.reservation
        out.reservation.expire = granted.expire
        out.reservation.addrs.extend(addr.to_bytes() for addr in granted.addrs[:MAX_ADDRS])
        if granted.voucher is not None:
            out.reservation.voucher = granted.voucher
    return _encode(out, message)


def decode_hop(data: bytes) -> HopMessage:
    """Return the hop message in ``data``. Addresses that cannot be read are left out.

    Raises:
        DecodeError: it does not parse, or is of no known type.
    """
    message = _parsed(pb.HopMessage(), data)
    return HopMessage(
        type=_kind(HopType, message.type),
        peer=_peer(message.peer) if message.HasField("peer") else None,
        reservation=_reservation(message.reservation) if message.HasField("reservation") else None,
        limit=_limit_from_wire(message.limit) if message.HasField("limit") else None,
        status=message.status if message.HasField("status") else None,
    )


def decode_hop_answer(data: bytes) -> HopMessage:
    """Return the STATUS in ``data``; see :func:`decode_hop`.

    Raises:
        DecodeError: it does not parse, or is something else.
    """
    message = decode_hop(data)
    if message.type is not HopType.STATUS:
        raise DecodeError(f"it answered with a {message.type.name}")
    return message


def encode_stop(message: StopMessage) -> bytes:
    """Return the serialized ``message``."""
    return _encode(pb.StopMessage(), message)


def decode_stop(data: bytes) -> StopMessage:
    """Return the stop message in ``data``.

    Raises:
        DecodeError: it does not parse, or is of no known type.
    """
    message = _parsed(pb.StopMessage(), data)
    return StopMessage(
        type=_kind(StopType, message.type),
        peer=_peer(message.peer) if message.HasField("peer") else None,
        limit=_limit_from_wire(message.limit) if message.HasField("limit") else None,
        status=message.status if message.HasField("status") else None,
    )


def status_name(status: int | None) -> str:
    """What a relay answered, of either version, for people."""
    names = {known.value: known.name for known in (*StatusV1, *Status)}
    return "without a status" if status is None else names.get(status, f"status {status}")


KindT = TypeVar("KindT", bound=enum.IntEnum)


def _kind(kinds: type[KindT], value: int) -> KindT:
    try:
        return kinds(value)
    except ValueError as exc:
        raise DecodeError(f"a relay message of the unknown type {value}") from exc


def _parsed(message: MessageT, data: bytes) -> MessageT:
    try:
        message.ParseFromString(data)
    except ProtobufError as exc:
        raise DecodeError("not a relay message") from exc
    return message


def _encode(out: pb.HopMessage | pb.StopMessage, message: HopMessage | StopMessage) -> bytes:
    """Put in what both kinds of messages have."""
    out.type = message.type
    if message.peer is not None:
        out.peer.id = bytes(message.peer)
    if message.limit is not None:
        out.limit.CopyFrom(_limit_to_wire(message.limit))
    if message.status is not None:
        out.status = message.status
    encoded: bytes = out.SerializeToString()
    return encoded


def _peer(message: pb.Peer) -> PeerId:
    return PeerId.from_bytes(message.id)


def _reservation(message: pb.Reservation) -> ReservationMessage:
    return ReservationMessage(
        expire=message.expire,
        addrs=tuple(_addrs(message.addrs)),
        voucher=message.voucher if message.HasField("voucher") else None,
    )


def _addrs(values: Iterable[bytes]) -> list[Multiaddr]:
    found: dict[Multiaddr, None] = {}
    for value in list(values)[:MAX_ADDRS]:
        try:
            found[parse(value)] = None
        except DecodeError:
            continue  # one address of a kind not known here must not cost the others
    return list(found)


def _limit_to_wire(limit: CircuitLimit) -> pb.Limit:
    return pb.Limit(duration=limit.duration or 0, data=limit.data or 0)


def _limit_from_wire(message: pb.Limit) -> CircuitLimit:
    """Zero means as much as it likes; that there is a limit at all makes a connection a limited one."""
    return CircuitLimit(duration=message.duration or None, data=message.data or None)
