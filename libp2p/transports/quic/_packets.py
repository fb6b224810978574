"""What can be read of QUIC packets without keys, and the two packets a server answers strangers with.

Pure. Specifications: RFC 8999 (what all versions share), RFC 9000 section 17 and 8.1 (version 1, tokens).
"""

from __future__ import annotations

import enum
import hashlib
import hmac
from dataclasses import dataclass

from qh3.quic.packet import encode_quic_retry, encode_quic_version_negotiation

VERSION_1 = 0x00000001
CID_SIZE = 8
"""Bytes of every connection id made here; short headers do not tell, so it must be the same for all."""
MIN_INITIAL = 1200
"""Bytes of the smallest datagram that may begin a connection (RFC 9000, section 14.1)."""
MAX_CID = 20
TOKEN_LIFE = 10.0
"""Seconds that a Retry token is good for."""

_TAG = 16


class PacketKind(enum.Enum):
    """What a packet is, as far as its header tells."""

    INITIAL = 0
    ZERO_RTT = 1
    HANDSHAKE = 2
    RETRY = 3
    ONE_RTT = 4
    VERSION_NEGOTIATION = 5
    UNKNOWN_VERSION = 6


@dataclass(frozen=True, slots=True)
class Header:
    """The readable part of a packet.

    Attributes:
        end: where the packet ends in its datagram.
        token: of an Initial; empty otherwise.
        versions: what a Version Negotiation offers.
    """

    kind: PacketKind
    destination_cid: bytes
    source_cid: bytes
    end: int
    token: bytes = b""
    versions: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Retry:
    """A Retry packet."""

    destination_cid: bytes
    source_cid: bytes
    token: bytes
    tag: bytes


def destination(datagram: bytes) -> bytes | None:
    """The connection id that a datagram is for; None when it is none of QUIC's or too short."""
    if not datagram:
        return None
    if datagram[0] & 0x80:
        if len(datagram) < 7:
            return None
        size = datagram[5]
        return datagram[6 : 6 + size] if size <= MAX_CID and len(datagram) >= 6 + size else None
    return datagram[1 : 1 + CID_SIZE] if datagram[0] & 0x40 and len(datagram) > CID_SIZE else None


def read_header(datagram: bytes, offset: int = 0) -> Header | None:
    """The header of the packet at ``offset``; None when it does not parse."""
    try:
        return _read(datagram, offset)
    except IndexError:
        return None


def _read(data: bytes, start: int) -> Header | None:
    first = data[start]
    if not first & 0x80:
        cid = _take(data, start + 1, CID_SIZE)
        return Header(PacketKind.ONE_RTT, cid, b"", len(data)) if first & 0x40 else None
    version = int.from_bytes(_take(data, start + 1, 4), "big")
    destination_cid, at = _sized(data, start + 5)
    source_cid, at = _sized(data, at)
    if version == 0:
        rest = data[at:]
        versions = tuple(int.from_bytes(rest[i : i + 4], "big") for i in range(0, len(rest) // 4 * 4, 4))
        return Header(PacketKind.VERSION_NEGOTIATION, destination_cid, source_cid, len(data), versions=versions)
    if version != VERSION_1:
        return Header(PacketKind.UNKNOWN_VERSION, destination_cid, source_cid, len(data))
    if not first & 0x40 or max(len(destination_cid), len(source_cid)) > MAX_CID:
        return None
    kind = PacketKind((first & 0x30) >> 4)
    if kind is PacketKind.RETRY:
        return Header(kind, destination_cid, source_cid, len(data))
    token = b""
    if kind is PacketKind.INITIAL:
        size, at = _varint(data, at)
        token, at = _take(data, at, size), at + size
    size, at = _varint(data, at)
    return Header(kind, destination_cid, source_cid, at + size, token) if at + size <= len(data) else None


def _take(data: bytes, at: int, size: int) -> bytes:
    found = data[at : at + size]
    if len(found) < size:
        raise IndexError
    return found


def _sized(data: bytes, at: int) -> tuple[bytes, int]:
    size = data[at]
    return _take(data, at + 1, size), at + 1 + size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    size = 1 << (data[at] >> 6)
    value = int.from_bytes(_take(data, at, size), "big")
    return value & ((1 << (8 * size - 2)) - 1), at + size


def read_retry(datagram: bytes) -> Retry | None:
    """A Retry packet, None when it is none. Its tag is not checked here."""
    header = read_header(datagram)
    if header is None or header.kind is not PacketKind.RETRY:
        return None
    start = 7 + len(header.destination_cid) + len(header.source_cid)
    token, tag = datagram[start:-_TAG], datagram[-_TAG:]
    if len(datagram) < start + _TAG or not token or not header.source_cid:
        return None
    return Retry(header.destination_cid, header.source_cid, token, tag)


def version_negotiation(header: Header) -> bytes:
    """The answer to a packet of a version that is not spoken here."""
    packet: bytes = encode_quic_version_negotiation(header.destination_cid, header.source_cid, [VERSION_1])
    return packet


class Tokens:
    """Makes and checks Retry tokens: who sends one back can receive at the address it sends from.

    A token holds the time it was made and the connection id of the packet that it answers; the rest it vouches for.

    Args:
        secret: at least 32 random bytes.
    """

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

    def retry(self, header: Header, remote: tuple[str, int], cid: bytes, now: float) -> bytes:
        """The Retry packet that answers the Initial with ``header``.

        Args:
            cid: the connection id that the client shall begin again with.
        """
        body = int(now * 1000).to_bytes(8, "big") + header.destination_cid
        token = self._sign(body, remote, cid) + body
        packet: bytes = encode_quic_retry(VERSION_1, cid, header.source_cid, header.destination_cid, token)
        return packet

    def check(self, header: Header, remote: tuple[str, int], now: float) -> bytes | None:
        """The connection id that the Initial with ``header`` began with before its Retry; None for a bad token."""
        tag, body = header.token[:32], header.token[32:]
        if not hmac.compare_digest(tag, self._sign(body, remote, header.destination_cid)):
            return None
        age = now - int.from_bytes(body[:8], "big") / 1000
        return body[8:] if -1.0 <= age <= TOKEN_LIFE else None

    def _sign(self, body: bytes, remote: tuple[str, int], cid: bytes) -> bytes:
        bound = f"{remote[0]} {remote[1]} {cid.hex()} ".encode()
        return hmac.new(self._secret, bound + body, hashlib.sha256).digest()
