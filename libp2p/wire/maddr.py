"""Multiaddrs between bytes, parts and text.

The binary form is a row of parts, each ``uvarint code ‖ value``, where the value has a fixed size or a uvarint length
before it. The text form is ``/name/value`` for each part.

The package ``multiaddr`` gives us the type everybody passes around, but its constructor takes any bytes unchecked, its
texts fail for names with an underscore, and it misreads ``/ip6zone`` and ``/ipfs``. So bytes and text go through here,
strictly: what :func:`split` or :func:`from_text` accept prints, and what is printed parses to the same bytes.

Sources: multiformats/multiaddr with ``protocols.csv``; the text forms of go-multiaddr.
"""

from __future__ import annotations

import base64
import ipaddress
import re
import urllib.parse
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from ..errors import DecodeError
from . import multihash, varint

MAX_LENGTH = 1024
"""Longest binary address accepted. The longest useful ones, WebTransport through a relay, take about 250 bytes."""
MAX_TEXT_LENGTH = 3 * MAX_LENGTH
"""Longest text accepted."""
MAX_PARTS = 32
"""Most parts accepted in one address; a relayed WebTransport address has about ten."""


class Part(NamedTuple):
    """One part of an address: the protocol's name and the bytes of its value, empty where it takes none."""

    name: str
    value: bytes = b""

    @property
    def text(self) -> str:
        """The value as text, empty where the protocol takes none."""
        return _BY_NAME[self.name].to_text(self.value)


@dataclass(frozen=True, slots=True)
class _Protocol:
    """How the value of one protocol looks: ``size`` in bytes, None for variable, 0 for no value."""

    name: str
    code: int
    size: int | None = 0
    to_text: Callable[[bytes], str] = bytes.decode
    from_text: Callable[[str], bytes] = str.encode
    # Checks a value that arrived as bytes and returns its one true form.
    check: Callable[[bytes], bytes] = bytes


# --- values: each pair of functions raises ValueError only ------------------------------------------------------------


def _ip4_from_text(text: str) -> bytes:
    return ipaddress.IPv4Address(text).packed


def _ip4_to_text(value: bytes) -> str:
    return ".".join(map(str, value))


def _ip6_from_text(text: str) -> bytes:
    if "%" in text:
        raise ValueError("a zone goes before the address, as /ip6zone")
    return ipaddress.IPv6Address(text).packed


def _ip6_to_text(value: bytes) -> str:
    # Python before 3.13 prints mapped addresses as ::ffff:7f00:1.
    if value.startswith(b"\x00" * 10 + b"\xff\xff"):
        return "::ffff:" + _ip4_to_text(value[12:])
    return str(ipaddress.IPv6Address(value))


def _number(bits: int) -> tuple[Callable[[bytes], str], Callable[[str], bytes]]:
    def from_text(text: str) -> bytes:
        # int() alone would take signs, spaces, underscores and the digits of other scripts.
        if not re.fullmatch("[0-9]{1,20}", text):
            raise ValueError("not a decimal number")
        try:
            return int(text).to_bytes(bits // 8, "big")
        except OverflowError as exc:
            raise ValueError(f"above {2**bits - 1}") from exc

    return (lambda value: str(int.from_bytes(value, "big"))), from_text


def _check_name(value: bytes) -> bytes:
    """Host names and zones: no character that would break the text of the address, or a line of a log."""
    text = value.decode("utf-8")
    if not 0 < len(value) <= 255 or not text.isprintable() or " " in text or "/" in text:
        raise ValueError("not a name")
    return value


def _name_from_text(text: str) -> bytes:
    return _check_name(text.encode("utf-8"))


def _check_path(value: bytes) -> bytes:
    """Paths of sockets: the slash at the front belongs to the value, one at the end does not."""
    value = b"/" + value.strip(b"/")
    if len(value) == 1 or not value.decode("utf-8").isprintable():
        raise ValueError("not a path")
    return value


def _path_from_text(text: str) -> bytes:
    return _check_path(text.encode("utf-8"))


def _path_to_text(value: bytes) -> str:
    # The text of the address already has a slash here.
    return value[1:].decode("utf-8")


def _check_http_path(value: bytes) -> bytes:
    if not value.decode("utf-8"):
        raise ValueError("an empty path")
    return value


def _http_path_from_text(text: str) -> bytes:
    return _check_http_path(urllib.parse.unquote_to_bytes(text))


def _http_path_to_text(value: bytes) -> str:
    return urllib.parse.quote(value, safe="")


def _check_p2p(value: bytes) -> bytes:
    # The package multiaddr writes the CID where the specification asks for the multihash.
    if value[:1] == b"\x01":
        value = multihash.from_cid(value)
    multihash.check_peer_multihash(value)
    return value


def _p2p_from_text(text: str) -> bytes:
    if text.startswith(("1", "Qm")):
        return _check_p2p(multihash.decode_base58(text))
    return _check_p2p(multihash.from_cid(multihash.decode_multibase(text)))


def _check_certhash(value: bytes) -> bytes:
    multihash.decode(value)
    return value


def _certhash_from_text(text: str) -> bytes:
    return _check_certhash(multihash.decode_multibase(text))


def _certhash_to_text(value: bytes) -> str:
    return multihash.encode_multibase("base64url", value)


def _onion_from_text(text: str) -> bytes:
    host, _, port = text.partition(":")
    return _check_onion(base64.b32decode(host.upper()) + _PORT[1](port))


def _onion_to_text(value: bytes) -> str:
    return base64.b32encode(value[:-2]).decode("ascii").lower() + ":" + _PORT[0](value[-2:])


def _check_onion(value: bytes) -> bytes:
    if value[-2:] == b"\x00\x00":
        raise ValueError("port 0")
    return value


def _garlic32_from_text(text: str) -> bytes:
    return _check_garlic32(multihash.decode_multibase("b" + text))


def _garlic32_to_text(value: bytes) -> str:
    return multihash.encode_multibase("base32", value)[1:]


def _check_garlic32(value: bytes) -> bytes:
    if len(value) != 32 and len(value) < 35:
        raise ValueError("not an I2P address")
    return value


def _garlic64_from_text(text: str) -> bytes:
    return _check_garlic64(base64.b64decode(text, b"-~", validate=True))


def _garlic64_to_text(value: bytes) -> str:
    return base64.b64encode(value, b"-~").decode("ascii")


def _check_garlic64(value: bytes) -> bytes:
    if len(value) < 386:
        raise ValueError("not an I2P destination")
    return value


# --- the table --------------------------------------------------------------------------------------------------------

_PORT = _number(16)
_NAME = (bytes.decode, _name_from_text, _check_name)
_ONION = (_onion_to_text, _onion_from_text, _check_onion)

_PROTOCOLS = (
    _Protocol("ip4", 4, 4, _ip4_to_text, _ip4_from_text),
    _Protocol("tcp", 6, 2, *_PORT),
    _Protocol("dccp", 33, 2, *_PORT),
    _Protocol("ip6", 41, 16, _ip6_to_text, _ip6_from_text),
    _Protocol("ip6zone", 42, None, *_NAME),
    _Protocol("ipcidr", 43, 1, *_number(8)),
    _Protocol("dns", 53, None, *_NAME),
    _Protocol("dns4", 54, None, *_NAME),
    _Protocol("dns6", 55, None, *_NAME),
    _Protocol("dnsaddr", 56, None, *_NAME),
    _Protocol("sctp", 132, 2, *_PORT),
    _Protocol("udp", 273, 2, *_PORT),
    _Protocol("p2p-webrtc-star", 275),
    _Protocol("p2p-webrtc-direct", 276),
    _Protocol("webrtc-direct", 280),
    _Protocol("webrtc", 281),
    _Protocol("p2p-circuit", 290),
    _Protocol("udt", 301),
    _Protocol("utp", 302),
    _Protocol("unix", 400, None, _path_to_text, _path_from_text, _check_path),
    _Protocol("p2p", 421, None, multihash.encode_base58, _p2p_from_text, _check_p2p),
    _Protocol("https", 443),
    _Protocol("onion", 444, 12, *_ONION),
    _Protocol("onion3", 445, 37, *_ONION),
    _Protocol("garlic64", 446, None, _garlic64_to_text, _garlic64_from_text, _check_garlic64),
    _Protocol("garlic32", 447, None, _garlic32_to_text, _garlic32_from_text, _check_garlic32),
    _Protocol("tls", 448),
    _Protocol("sni", 449, None, *_NAME),
    _Protocol("noise", 454),
    _Protocol("quic", 460),
    _Protocol("quic-v1", 461),
    _Protocol("webtransport", 465),
    _Protocol("certhash", 466, None, _certhash_to_text, _certhash_from_text, _check_certhash),
    _Protocol("ws", 477),
    _Protocol("wss", 478),
    _Protocol("p2p-websocket-star", 479),
    _Protocol("http", 480),
    _Protocol("http-path", 481, None, _http_path_to_text, _http_path_from_text, _check_http_path),
    _Protocol("memory", 777, 8, *_number(64)),
)
_BY_CODE = {protocol.code: protocol for protocol in _PROTOCOLS}
_BY_NAME = {protocol.name: protocol for protocol in _PROTOCOLS}
_HEAD = {protocol.name: varint.encode(protocol.code) for protocol in _PROTOCOLS}
# The old spelling of the same code (libp2p/specs addressing).
_ALIASES = {"ipfs": "p2p"}


# --- addresses --------------------------------------------------------------------------------------------------------


def split(data: bytes) -> tuple[Part, ...]:
    """Return the parts of a binary address.

    Raises:
        DecodeError: an unknown protocol, a value that is truncated or not one of its protocol, too many parts, or an
            address above :data:`MAX_LENGTH`.
    """
    if len(data) > MAX_LENGTH:
        raise DecodeError(f"an address of {len(data)} bytes is above the limit of {MAX_LENGTH}")
    parts: list[Part] = []
    offset = 0
    while offset < len(data):
        code, offset = varint.decode(data, offset)
        protocol = _BY_CODE.get(code)
        if protocol is None:
            raise DecodeError(f"unknown protocol code {code} in an address")
        size = protocol.size
        if size is None:
            size, offset = varint.decode(data, offset)
        value = data[offset : offset + size]
        if len(value) != size:
            raise DecodeError(f"the value of /{protocol.name} in an address is truncated")
        offset += size
        if len(parts) == MAX_PARTS:
            raise DecodeError(f"an address of more than {MAX_PARTS} parts")
        if parts and parts[-1].name == "unix":
            # As text it would be read as the end of the path.
            raise DecodeError("an address that goes on behind /unix")
        parts.append(Part(protocol.name, _checked(protocol, value)))
    return tuple(parts)


def join(parts: Iterable[Part]) -> bytes:
    """Return the binary address made of ``parts``, whose values are taken as they are.

    Raises:
        ValueError: an unknown protocol name, or a value whose size is not that of its protocol.
    """
    out = bytearray()
    for name, value in parts:
        protocol = _BY_NAME.get(name)
        if protocol is None or len(value) != (len(value) if protocol.size is None else protocol.size):
            raise ValueError(f"no part of an address: {name!r} with {len(value)} bytes")
        out += _HEAD[name]
        if protocol.size is None:
            out += varint.encode(len(value))
        out += value
    return bytes(out)


def to_text(parts: Iterable[Part]) -> str:
    """Return the text of an address with these parts. They must come from :func:`split` or :func:`from_text`."""
    pieces: list[str] = []
    for part in parts:
        protocol = _BY_NAME[part.name]
        pieces.append("/" + part.name)
        if protocol.size != 0:
            pieces.append("/" + protocol.to_text(part.value))
    return "".join(pieces)


def from_text(text: str) -> tuple[Part, ...]:
    """Return the parts of an address in text form. Slashes at the end are ignored, ``/ipfs`` is read as ``/p2p``.

    Raises:
        DecodeError: it does not start with a slash, names an unknown protocol, misses a value, or has a value that is
            not one of its protocol; or it is too long or has too many parts.
    """
    if len(text) > MAX_TEXT_LENGTH:
        raise DecodeError(f"an address of {len(text)} characters is above the limit of {MAX_TEXT_LENGTH}")
    if not text.startswith("/"):
        raise DecodeError(f"an address starts with a slash, as /ip4/192.0.2.7/tcp/4001, not {text[:80]!r}")
    words = text.rstrip("/").split("/")
    parts: list[Part] = []
    position = 1
    while position < len(words):
        if len(parts) == MAX_PARTS:
            raise DecodeError(f"an address of more than {MAX_PARTS} parts")
        part, position = _part_from_text(words, position)
        parts.append(part)
    return tuple(parts)


def _part_from_text(words: list[str], position: int) -> tuple[Part, int]:
    name = _ALIASES.get(words[position], words[position])
    protocol = _BY_NAME.get(name)
    if protocol is None:
        raise DecodeError(f"unknown protocol {name[:80]!r} in an address")
    position += 1
    if protocol.size == 0:
        return Part(name), position
    if position == len(words):
        raise DecodeError(f"/{name} has no value in an address")
    # A path has slashes of its own, so it takes the rest.
    end = len(words) if name == "unix" else position + 1
    word = "/".join(words[position:end])
    try:
        value = protocol.from_text(word)
        if protocol.size is not None and len(value) != protocol.size:
            raise ValueError(f"{len(value)} bytes, not {protocol.size}")
    except ValueError as exc:
        raise DecodeError(f"{word[:80]!r} is no value of /{name}: {exc}") from exc
    return Part(name, value), end


def _checked(protocol: _Protocol, value: bytes) -> bytes:
    try:
        return protocol.check(value)
    except ValueError as exc:
        raise DecodeError(f"bad value of /{protocol.name} in an address: {exc}") from exc
