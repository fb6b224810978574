"""Messages of AutoNAT, versions 1 and 2. Pure.

Addresses that cannot be read keep their place in a request, as None: answers name an address by its place. Numbers that
are not known here stay numbers.

Source: libp2p/specs autonat/autonat-v1 and autonat-v2.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from google.protobuf.message import DecodeError as ProtobufError
from google.protobuf.message import Message as ProtobufMessage
from multiaddr import Multiaddr

from ...addressing import parse
from ...errors import DecodeError
from ...pb import autonat_pb2 as pb
from ...peer_id import PeerId

MAX_MESSAGE = 8192
"""Longest message read, in bytes (go ``maxMsgSize``, js). Sent are shorter ones: rust reads 4104."""
MAX_ADDRS = 50
"""Addresses of a request that are looked at (go ``maxPeerAddresses``)."""
DATA_CHUNK = 4000
"""Bytes in one message of dial data (go; the specification allows 4096, and the message must not be longer either)."""

MessageT = TypeVar("MessageT", bound=ProtobufMessage)


class Status1(enum.IntEnum):
    """How a server of version 1 answers."""

    OK = 0
    E_DIAL_ERROR = 100
    E_DIAL_REFUSED = 101
    E_BAD_REQUEST = 200
    E_INTERNAL_ERROR = 300


class ResponseStatus(enum.IntEnum):
    """Whether a server of version 2 did what it was asked for."""

    E_INTERNAL_ERROR = 0
    E_REQUEST_REJECTED = 100
    E_DIAL_REFUSED = 101
    OK = 200


class DialStatus(enum.IntEnum):
    """How the dial of a server of version 2 went."""

    UNUSED = 0
    E_DIAL_ERROR = 100
    E_DIAL_BACK_ERROR = 101
    OK = 200


# --- version 1 --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Dial:
    """A request of version 1.

    Attributes:
        peer: who asks, as it says; None when it does not.
        addrs: where it thinks it can be reached, as far as they can be read.
    """

    peer: PeerId | None = None
    addrs: tuple[Multiaddr, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DialResult:
    """An answer of version 1.

    Attributes:
        status: one of :class:`Status1`, or a number that is not known here.
        text: why, for people.
        addr: where the server has reached the asker.
    """

    status: int
    text: str = ""
    addr: Multiaddr | None = None


def encode_dial(dial: Dial) -> bytes:
    """Return the request as a message of version 1."""
    out = pb.Message1(type=0)
    out.dial.peer.addrs.extend(addr.to_bytes() for addr in dial.addrs)
    if dial.peer is not None:
        out.dial.peer.id = bytes(dial.peer)
    return _serialized(out)


def encode_result(result: DialResult) -> bytes:
    """Return the answer as a message of version 1."""
    out = pb.Message1(type=1)
    out.dialResponse.status = result.status
    if result.text:
        out.dialResponse.statusText = result.text
    if result.addr is not None:
        out.dialResponse.addr = result.addr.to_bytes()
    return _serialized(out)


def decode_dial(data: bytes) -> Dial:
    """Return the request in a message of version 1.

    Raises:
        DecodeError: it does not parse, is no request, or does not say about whom.
    """
    message = _parsed(pb.Message1(), data)
    if message.type != 0 or not message.dial.HasField("peer"):
        raise DecodeError("an AutoNAT message that asks for no dial")
    peer = message.dial.peer
    return Dial(
        peer=PeerId.from_bytes(peer.id) if peer.HasField("id") else None,
        addrs=tuple(addr for addr in _addrs(peer.addrs) if addr is not None),
    )


def decode_result(data: bytes) -> DialResult:
    """Return the answer in a message of version 1.

    Raises:
        DecodeError: it does not parse, or is no answer.
    """
    message = _parsed(pb.Message1(), data)
    if message.type != 1 or not message.HasField("dialResponse"):
        raise DecodeError("an AutoNAT message that is no answer")
    found = message.dialResponse
    text = found.statusText if isinstance(found.statusText, str) else ""  # what is no UTF-8 comes as bytes
    return DialResult(status=found.status, text=text, addr=_addrs([found.addr])[0])


# --- version 2 --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class DialRequest:
    """What a client asks.

    Attributes:
        addrs: the most important first; None for one that cannot be read.
        nonce: 64 bits, by which the client knows the dial.
    """

    addrs: tuple[Multiaddr | None, ...]
    nonce: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DialDataRequest:
    """What a server wants before it dials.

    Attributes:
        index: the place in the request of the address that it would dial.
        size: bytes.
    """

    index: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DialData:
    """Some of it.

    Attributes:
        size: bytes of data in this message; what they are does not matter.
    """

    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DialResponse:
    """What came of a request.

    Attributes:
        status: one of :class:`ResponseStatus`, or a number that is not known here.
        index: the place in the request of the address that was dialled.
        dial: one of :class:`DialStatus`, or a number that is not known here.
    """

    status: int
    index: int = 0
    dial: int = DialStatus.UNUSED


Message: TypeAlias = DialRequest | DialDataRequest | DialData | DialResponse


def encode(message: Message) -> bytes:
    """Return ``message`` as a message of version 2, without the fields that are zero."""
    out = pb.Message2()
    if isinstance(message, DialRequest):
        out.dialRequest.nonce = message.nonce
        out.dialRequest.addrs.extend(addr.to_bytes() for addr in message.addrs if addr is not None)
    elif isinstance(message, DialDataRequest):
        out.dialDataRequest.numBytes = message.size
        if message.index:
            out.dialDataRequest.addrIdx = message.index
    elif isinstance(message, DialData):
        out.dialDataResponse.data = bytes(message.size)
    else:
        out.dialResponse.SetInParent()
        for name, value in (("status", message.status), ("addrIdx", message.index), ("dialStatus", message.dial)):
            if value:
                setattr(out.dialResponse, name, value)
    return _serialized(out)


def decode(data: bytes) -> Message:
    """Return the message of version 2 in ``data``.

    Raises:
        DecodeError: it does not parse, or is of no known kind.
    """
    message = _parsed(pb.Message2(), data)
    kind = message.WhichOneof("msg")
    if kind == "dialRequest":
        return DialRequest(addrs=tuple(_addrs(message.dialRequest.addrs)), nonce=message.dialRequest.nonce)
    if kind == "dialDataRequest":
        return DialDataRequest(index=message.dialDataRequest.addrIdx, size=message.dialDataRequest.numBytes)
    if kind == "dialDataResponse":
        return DialData(size=len(message.dialDataResponse.data))
    if kind == "dialResponse":
        found = message.dialResponse
        return DialResponse(status=found.status, index=found.addrIdx, dial=found.dialStatus)
    raise DecodeError("an AutoNAT message of no known kind")


def encode_dial_back(nonce: int) -> bytes:
    """Return what the server says on the connection that it was asked for."""
    return _serialized(pb.DialBack(nonce=nonce))


def decode_dial_back(data: bytes) -> int:
    """Return the nonce.

    Raises:
        DecodeError: it does not parse.
    """
    nonce: int = _parsed(pb.DialBack(), data).nonce
    return nonce


DIAL_BACK_OK = b""
"""The answer to a dial back: a ``DialBackResponse`` whose status is zero, which is left out."""


def _serialized(message: ProtobufMessage) -> bytes:
    encoded: bytes = message.SerializeToString(deterministic=True)
    return encoded


def _parsed(message: MessageT, data: bytes) -> MessageT:
    try:
        message.ParseFromString(data)
    except (ProtobufError, UnicodeDecodeError) as exc:
        raise DecodeError("not an AutoNAT message") from exc
    return message


def _addrs(values: Iterable[bytes]) -> list[Multiaddr | None]:
    return [_addr(value) for value in list(values)[:MAX_ADDRS]]


def _addr(value: bytes) -> Multiaddr | None:
    try:
        return parse(value)
    except DecodeError:
        return None
