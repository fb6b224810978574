"""Packets made by hand, with checksums that are added up anew."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address

from libp2p.testing.nat import Endpoint


def end(text: str) -> Endpoint:
    ip, _, port = text.partition(":")
    return Endpoint(IPv4Address(ip), int(port or 0))


def summed(data: bytes) -> int:
    """The Internet checksum (RFC 1071); zero of what contains its own."""
    padded = data + bytes(len(data) % 2)
    total = sum([int.from_bytes(padded[at : at + 2], "big") for at in range(0, len(padded), 2)])
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def ipv4(protocol: int, source: Endpoint, target: Endpoint, inside: bytes, options: bytes = b"") -> bytes:
    head = struct.pack(
        ">BBHHHBBH4s4s",
        *(0x45 + len(options) // 4, 0, 20 + len(options) + len(inside), 1, 0x4000, 64, protocol, 0),
        *(source.ip.packed, target.ip.packed),
    )
    head += options
    return head[:10] + struct.pack(">H", summed(head)) + head[12:] + inside


def _pseudo(protocol: int, source: Endpoint, target: Endpoint, inside: bytes) -> bytes:
    return source.ip.packed + target.ip.packed + struct.pack(">HH", protocol, len(inside)) + inside


def udp(source: str, target: str, data: bytes = b"data!", *, checksum: bool = True, options: bytes = b"") -> bytes:
    ours, theirs = end(source), end(target)
    inside = struct.pack(">HHHH", ours.port, theirs.port, 8 + len(data), 0) + data
    if checksum:
        inside = inside[:6] + struct.pack(">H", summed(_pseudo(17, ours, theirs, inside))) + inside[8:]
    return ipv4(17, ours, theirs, inside, options)


def tcp(source: str, target: str, flags: int = 0x02, data: bytes = b"") -> bytes:
    ours, theirs = end(source), end(target)
    inside = struct.pack(">HHIIBBHHH", ours.port, theirs.port, 1, 0, 0x50, flags, 1000, 0, 0) + data
    inside = inside[:16] + struct.pack(">H", summed(_pseudo(6, ours, theirs, inside))) + inside[18:]
    return ipv4(6, ours, theirs, inside)


def echo(source: str, target: str, number: int, *, reply: bool = False) -> bytes:
    inside = struct.pack(">BBHHH", 0 if reply else 8, 0, 0, number, 1) + b"ping"
    inside = inside[:2] + struct.pack(">H", summed(inside)) + inside[4:]
    return ipv4(1, end(source), end(target), inside)


def is_sound(packet: bytes) -> bool:
    """Whether all checksums of ``packet`` are right."""
    start = 4 * (packet[0] & 0x0F)
    inside, protocol = packet[start:], packet[9]
    if summed(packet[:start]):
        return False
    if protocol == 1:
        return not summed(inside)
    if protocol == 17 and inside[6:8] == b"\0\0":
        return True
    source, target = (Endpoint(IPv4Address(packet[at : at + 4]), 0) for at in (12, 16))
    return not summed(_pseudo(protocol, source, target, inside))
