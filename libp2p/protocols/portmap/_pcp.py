"""Messages of the Port Control Protocol, and its epoch. Pure.

Source: RFC 6887: 7 (header), 7.4 (result codes), 8.5 (epoch), 11 (MAP), 14.1 (ANNOUNCE).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from ...errors import DecodeError
from ._types import Port

VERSION = 2
SERVER_PORT = 5351
"""PCP's and NAT-PMP's (19.1)."""
MAX_PACKET = 1100
"""Bytes (7)."""
ANNOUNCE = 0
MAP = 1
NONCE_SIZE = 12
UNSUPPORTED_VERSION = 1

RESULTS = {
    1: "unsupported version",
    2: "not authorized",
    3: "malformed request",
    4: "unsupported operation",
    5: "unsupported option",
    6: "malformed option",
    7: "network failure",
    8: "no resources",
    9: "unsupported protocol",
    10: "user exceeded quota",
    11: "cannot provide the external port or address",
    12: "address mismatch: there is another NAT between this machine and the router",
    13: "excessive remote peers",
}
"""Result codes (7.4)."""

_RESPONSE = 0x80
_request = struct.Struct(">BBxxI16s")
_response = struct.Struct(">BBxBII12x")
_map = struct.Struct(">12sBxxxHH16s")


@dataclass(slots=True)
class PcpMapping:
    """The part of a response that is about a mapping."""

    nonce: bytes
    protocol: int
    internal_port: int
    external_port: int
    external_ip: str


@dataclass(slots=True)
class PcpResponse:
    """A router's answer."""

    opcode: int
    result: int
    lifetime: int
    epoch: int
    mapping: PcpMapping | None = None


def encode_announce(client: str) -> bytes:
    """Ask for the epoch."""
    return _request.pack(VERSION, ANNOUNCE, 0, _mapped(client))


def encode_map(client: str, port: Port, *, nonce: bytes, external_ip: str, external_port: int, lifetime: int) -> bytes:
    """Ask for a mapping; with a lifetime of 0, to remove it.

    Args:
        client: this machine's IPv4 address.
        port: where it leads.
        nonce: 12 bytes that prove, later on, who asked.
        external_ip: what is liked best, ``0.0.0.0`` for any.
        external_port: likewise, 0 for any.
        lifetime: seconds.
    """
    return _request.pack(VERSION, MAP, lifetime, _mapped(client)) + _map.pack(
        nonce, port.transport.value, port.number, external_port, _mapped(external_ip)
    )


def decode_response(data: bytes) -> PcpResponse:
    """Read an answer. One of another version is a refusal of ours, whatever else it holds.

    Raises:
        DecodeError: it is none.
    """
    if len(data) < 4 or len(data) > MAX_PACKET or not data[1] & _RESPONSE:
        raise DecodeError("not a response of PCP")
    opcode = data[1] & ~_RESPONSE
    if data[0] != VERSION:
        return PcpResponse(opcode, UNSUPPORTED_VERSION, 0, 0)
    if len(data) < _response.size:
        raise DecodeError(f"a PCP response of {len(data)} bytes")
    _, _, result, lifetime, epoch = _response.unpack_from(data)
    response = PcpResponse(opcode, result, lifetime, epoch)
    if opcode == MAP:
        if len(data) < _response.size + _map.size:
            raise DecodeError(f"a PCP response to MAP of {len(data)} bytes")
        nonce, protocol, internal, external, ip = _map.unpack_from(data, _response.size)
        # One of IPv6 is of no use for what was asked: as good as none.
        address = IPv6Address(ip).ipv4_mapped or IPv4Address(0)
        response.mapping = PcpMapping(nonce, protocol, internal, external, str(address))
    return response


def _mapped(ip: str) -> bytes:
    """An IPv4 address as PCP writes it."""
    return bytes(10) + b"\xff\xff" + IPv4Address(ip).packed


class Epoch:
    """A router's clock, which begins anew when the router forgets."""

    def __init__(self) -> None:
        self._last: tuple[float, int] | None = None

    def goes_on(self, epoch: int, now: float) -> bool:
        """Take what a router said; False when it has forgotten what it granted before (8.5)."""
        last, self._last = self._last, (now, epoch)
        if last is None:
            return True
        ours, theirs = now - last[0], epoch - last[1]
        if theirs < -1:
            return False
        return theirs + 2 >= ours - ours / 16 and ours + 2 >= theirs - theirs / 16
