"""IPv4 packets as a NAT sees them: who to whom, and how to say so otherwise. Pure.

TCP, UDP, and ICMP echo, in which the identifier takes the part of the ports. Everything else, fragments included, is no
packet here: these NATs drop it.
"""

from __future__ import annotations

import enum
import struct
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import NamedTuple

_U16 = struct.Struct(">H")
_MORE_FRAGMENTS_OR_OFFSET = 0x3FFF
_ECHO_REPLY, _ECHO = 0, 8
_FIN_OR_RST = 0x05


class Protocol(enum.IntEnum):
    """What is inside (IANA protocol numbers)."""

    ICMP = 1
    TCP = 6
    UDP = 17


class Endpoint(NamedTuple):
    """An address and a port; for ICMP an identifier, or 0 at the end that has none."""

    ip: IPv4Address
    port: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """Who sends what to whom.

    Attributes:
        ends: whether the packet ends a TCP connection, in order or not.
    """

    protocol: Protocol
    source: Endpoint
    target: Endpoint
    ends: bool = False


_SIZES = {Protocol.ICMP: 8, Protocol.TCP: 20, Protocol.UDP: 8}
_CHECKSUMS = {Protocol.ICMP: 2, Protocol.TCP: 16, Protocol.UDP: 6}


def read(packet: bytes) -> Flow | None:
    """Return the flow of ``packet``; None when it is none of those that are carried."""
    if len(packet) < 20 or packet[0] >> 4 != 4:
        return None
    start = 4 * (packet[0] & 0x0F)
    if start < 20 or packet[9] not in _SIZES or _U16.unpack_from(packet, 6)[0] & _MORE_FRAGMENTS_OR_OFFSET:
        return None
    protocol = Protocol(packet[9])
    if len(packet) < start + _SIZES[protocol]:
        return None
    source, target = IPv4Address(packet[12:16]), IPv4Address(packet[16:20])
    if protocol is Protocol.ICMP:
        if packet[start] not in (_ECHO, _ECHO_REPLY):
            return None
        (number,) = _U16.unpack_from(packet, start + 4)
        ours, theirs = (number, 0) if packet[start] == _ECHO else (0, number)
        return Flow(protocol=protocol, source=Endpoint(source, ours), target=Endpoint(target, theirs))
    ports = struct.unpack_from(">HH", packet, start)
    ends = protocol is Protocol.TCP and bool(packet[start + 13] & _FIN_OR_RST)
    return Flow(protocol=protocol, source=Endpoint(source, ports[0]), target=Endpoint(target, ports[1]), ends=ends)


def rewrite(packet: bytes, flow: Flow, *, source: Endpoint | None = None, target: Endpoint | None = None) -> bytes:
    """Return ``packet``, whose flow is ``flow``, with another source or target, and checksums that fit."""
    changed = bytearray(packet)
    start = 4 * (packet[0] & 0x0F)
    checksum = start + _CHECKSUMS[flow.protocol]
    for old, new, ip_at, port_at in ((flow.source, source, 12, start), (flow.target, target, 16, start + 2)):
        if new is None:
            continue
        before, after = old.ip.packed, new.ip.packed
        changed[ip_at : ip_at + 4] = after
        _adjust(changed, 10, before, after)
        ports = _U16.pack(old.port), _U16.pack(new.port)
        if flow.protocol is Protocol.ICMP:
            if old.port:
                changed[start + 4 : start + 6] = ports[1]
                _adjust(changed, checksum, *ports)  # it has no addresses in its checksum
            continue
        changed[port_at : port_at + 2] = ports[1]
        if flow.protocol is Protocol.TCP or any(changed[checksum : checksum + 2]):  # UDP may have none
            _adjust(changed, checksum, before + ports[0], after + ports[1])
    return bytes(changed)


def _adjust(packet: bytearray, at: int, before: bytes, after: bytes) -> None:
    """Put into the checksum at ``at`` what a change of the words ``before`` makes (RFC 1624)."""
    total = ~_U16.unpack_from(packet, at)[0] & 0xFFFF
    total += sum(~word & 0xFFFF for (word,) in _U16.iter_unpack(before))
    total += sum(word for (word,) in _U16.iter_unpack(after))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    _U16.pack_into(packet, at, ~total & 0xFFFF)
