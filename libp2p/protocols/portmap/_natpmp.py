"""Messages of the NAT Port Mapping Protocol. Pure.

Source: RFC 6886: 3.2 (external address), 3.3 (mappings), 3.5 (result codes).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address

from ...errors import DecodeError
from ._types import Port, Transport

ADDRESS = 0
RESULTS = {
    1: "unsupported version",
    2: "not authorized: port mapping is switched off",
    3: "network failure: the router has no address itself",
    4: "out of resources",
    5: "unsupported operation",
}
"""Result codes (3.5)."""

_OPCODES = {Transport.UDP: 1, Transport.TCP: 2}
_RESPONSE = 0x80
_request = struct.Struct(">BBxxHHI")
_head = struct.Struct(">BBHI")
_address = struct.Struct(">4s")
_map = struct.Struct(">HHI")


@dataclass(slots=True)
class PmpResponse:
    """A router's answer: to a request for its address with ``external_ip``, to one for a mapping with the rest."""

    opcode: int
    result: int
    epoch: int
    external_ip: str | None = None
    internal_port: int = 0
    external_port: int = 0
    lifetime: int = 0


def opcode_of(port: Port) -> int:
    """The operation that maps ``port``."""
    return _OPCODES[port.transport]


def encode_address_request() -> bytes:
    """Ask for the router's own address."""
    return bytes((0, ADDRESS))


def encode_map(port: Port, *, external_port: int, lifetime: int) -> bytes:
    """Ask for a mapping; to remove it, with a lifetime and an external port of 0."""
    return _request.pack(0, opcode_of(port), port.number, external_port, lifetime)


def decode_response(data: bytes) -> PmpResponse:
    """Read an answer.

    Raises:
        DecodeError: it is none.
    """
    if len(data) < _head.size:
        raise DecodeError(f"a NAT-PMP response of {len(data)} bytes")
    version, opcode, result, epoch = _head.unpack_from(data)
    if version != 0 or not opcode & _RESPONSE:
        raise DecodeError("not a response of NAT-PMP")
    response = PmpResponse(opcode & ~_RESPONSE, result, epoch)
    if result == 0:
        part = _address if response.opcode == ADDRESS else _map
        if len(data) < _head.size + part.size:
            raise DecodeError(f"a NAT-PMP response of {len(data)} bytes")
        fields = part.unpack_from(data, _head.size)
        if response.opcode == ADDRESS:
            response.external_ip = str(IPv4Address(fields[0]))
        else:
            response.internal_port, response.external_port, response.lifetime = fields
    return response
