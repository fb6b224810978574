"""The opening handshake: one HTTP request, one answer. Pure.

This reads the little of HTTP that RFC 6455 needs and refuses everything else: a body, a folded line, an extension.
Neither a subprotocol nor an origin is asked for: other implementations send none, browsers any.

Source: RFC 6455, section 4; RFC 9112 for the syntax.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping

from ...errors import RemoteProtocolError

MAX_HEAD = 8 * 1024
"""Bytes of a request or an answer (case T7)."""
END_OF_HEAD = b"\r\n\r\n"
REFUSAL = (
    b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: 31\r\n\r\n"
    b"This is a WebSocket of libp2p.\n"
)
"""What whoever asks for something else is told."""

KEY_SIZE = 16
_VERSION = "13"
_SALT = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def request(host: str, path: str, nonce: bytes) -> bytes:
    """Return the request of a client.

    Args:
        host: name or IP address and port, as in a URL.
        path: begins with a slash; percent-encoded.
        nonce: 16 random bytes.
    """
    return (
        f"GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {base64.b64encode(nonce).decode()}\r\nSec-WebSocket-Version: {_VERSION}\r\n\r\n"
    ).encode("ascii")


def answer(head: bytes) -> bytes:
    """Return the answer of a server to the request with this head.

    Raises:
        RemoteProtocolError: it does not ask for a WebSocket; :data:`REFUSAL` is the answer.
    """
    line, headers = _parse(head)
    if not re.fullmatch(r"GET [!-~]+ HTTP/1\.1", line):
        raise RemoteProtocolError(f"not a request for a WebSocket: {line[:80]!r}")
    _check_upgrade(headers)
    if headers.keys() & {"content-length", "transfer-encoding"}:
        raise RemoteProtocolError("a request with a body")
    if headers.get("sec-websocket-version") != _VERSION:
        raise RemoteProtocolError("another version of WebSocket than 13")
    if "host" not in headers:
        raise RemoteProtocolError("a request without a host")
    key = headers.get("sec-websocket-key", "")
    try:
        valid = len(base64.b64decode(key, validate=True)) == KEY_SIZE
    except ValueError:  # not base64, or not even ASCII
        valid = False
    if not valid:
        raise RemoteProtocolError("a request without a proper key")
    return (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {_accept(key)}\r\n\r\n"
    ).encode("ascii")


def check_answer(head: bytes, nonce: bytes) -> None:
    """Check the answer of a server to the request with this nonce.

    Raises:
        RemoteProtocolError: it did not agree, or agreed to something else.
    """
    line, headers = _parse(head)
    if not re.fullmatch(r"HTTP/1\.1 101( .*)?", line):
        raise RemoteProtocolError(f"the server did not agree: {line[:80]!r}")
    _check_upgrade(headers)
    if headers.get("sec-websocket-accept") != _accept(base64.b64encode(nonce).decode()):
        raise RemoteProtocolError("the server answered another request")
    if headers.keys() & {"sec-websocket-extensions", "sec-websocket-protocol"}:
        raise RemoteProtocolError("the server chose what was not offered")


def _parse(head: bytes) -> tuple[str, Mapping[str, str]]:
    """The first line and the headers, names in lower case, repeated ones joined by commas."""
    first, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not _TOKEN.fullmatch(name):
            raise RemoteProtocolError(f"not a header: {line[:80]!r}")
        name, value = name.lower(), value.strip(" \t")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return first, headers


def _check_upgrade(headers: Mapping[str, str]) -> None:
    for name, wanted in (("connection", "upgrade"), ("upgrade", "websocket")):
        if wanted not in [token.strip().lower() for token in headers.get(name, "").split(",")]:
            raise RemoteProtocolError(f"no upgrade to a WebSocket: {name} is {headers.get(name, '')[:80]!r}")


def _accept(key: str) -> str:
    return base64.b64encode(hashlib.sha1(key.encode() + _SALT, usedforsecurity=False).digest()).decode()
