"""Records of TLS 1.3 once the handshake is done, by their document. Pure.

OpenSSL shakes hands and is let go: what it agreed on are two secrets, from which the keys of both directions are made
here. So each record is encrypted once into the send buffer and decrypted once out of the receive buffer, as in Noise,
where OpenSSL's buffers in memory took two more copies and a good part of the time, and an idle connection keeps two
keys instead of all that OpenSSL remembers. It is the way of the kernels that carry TLS.

A record is a header and an encrypted content, behind which stand its kind and perhaps zeros as padding. Besides data,
peers send tickets, which are of no use to anybody here, new keys, and alerts.

Source: RFC 8446 sections 4.6, 5, 6, 7.1 to 7.3.
"""

from __future__ import annotations

import hmac
import struct
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from ...errors import SecurityError

ALERT, HANDSHAKE, APPLICATION_DATA = 21, 22, 23
"""Kinds of content. What is encrypted is APPLICATION_DATA on the outside."""
NEW_SESSION_TICKET, KEY_UPDATE = 4, 24
"""Kinds of handshake messages."""
CLOSE_NOTIFY, USER_CANCELED = 0, 90
"""Alerts that are no errors."""
FAREWELL = bytes((1, CLOSE_NOTIFY))
"""The content of the last record."""
NEW_KEY = bytes((KEY_UPDATE, 0, 0, 1, 0))
"""The message that ours are the last bytes under the old key; it asks for nothing."""

HEADER_SIZE = 5
"""Bytes: kind, two of a version that nobody looks at, length."""
TAG_SIZE = 16
MAX_PLAINTEXT = 16 * 1024
"""Most content of a record, in bytes."""
OVERHEAD = HEADER_SIZE + 1 + TAG_SIZE
"""Bytes that a record adds to its content."""
MAX_CIPHERTEXT = MAX_PLAINTEXT + 256
"""Longest record behind its header, in bytes."""
MAX_RECORDS = 1 << 24
"""Records under one key; the document allows AES 2 ** 24.5 full ones (section 5.5)."""
MAX_MESSAGE = 32 * 1024
"""Longest handshake message, in bytes (ours): tickets with certificates in them take one or two thousand."""
MAX_SILENT = 32
"""Records without data that a peer may send between two with data (ours; go: 16): tickets, new keys, nothing."""
MAX_MESSAGES = 32
"""Handshake messages that may come at a time (ours), whatever comes between them: a new key takes 30 µs, and a mebibyte
may hold twenty thousand of them, or a quarter of a million tickets."""

_SECRET_LABELS = (b"CLIENT_TRAFFIC_SECRET_0", b"SERVER_TRAFFIC_SECRET_0")
_ALERTS = {
    10: "unexpected message",
    20: "bad record mac",
    22: "record overflow",
    40: "handshake failure",
    42: "bad certificate",
    43: "unsupported certificate",
    44: "certificate revoked",
    45: "certificate expired",
    46: "certificate unknown",
    47: "illegal parameter",
    48: "unknown ca",
    49: "access denied",
    50: "decode error",
    51: "decrypt error",
    70: "protocol version",
    71: "insufficient security",
    80: "internal error",
    109: "missing extension",
    116: "certificate required",
    120: "no application protocol",
}
_pack_header = struct.Struct(">BHH").pack
_VERSION = 0x0303


class Suite(NamedTuple):
    """A cipher suite: its cipher, the size of the cipher's key in bytes, and its hash."""

    aead: type[AESGCM | ChaCha20Poly1305]
    key_size: int
    digest: str


SUITES = {
    "TLS_AES_128_GCM_SHA256": Suite(AESGCM, 16, "sha256"),
    "TLS_AES_256_GCM_SHA384": Suite(AESGCM, 32, "sha384"),
    "TLS_CHACHA20_POLY1305_SHA256": Suite(ChaCha20Poly1305, 32, "sha256"),
}
"""By the names that the document and OpenSSL give them."""


class TrafficKey:
    """The key of one direction.

    Attributes:
        used: how many records it sealed or opened.
    """

    __slots__ = ("_aead", "_iv", "_secret", "_suite", "used")

    def __init__(self, suite: Suite, secret: bytes) -> None:
        self._suite = suite
        self._use(secret)

    def _use(self, secret: bytes) -> None:
        self._secret = secret
        self._aead = self._suite.aead(self._expand(b"key", self._suite.key_size))
        self._iv = int.from_bytes(self._expand(b"iv", 12), "big")
        self.used = 0

    def _expand(self, label: bytes, size: int) -> bytes:
        # HKDF-Expand-Label without context. No more than one block of it is ever wanted.
        info = struct.pack(">HB", size, 6 + len(label)) + b"tls13 " + label + b"\0"
        return hmac.digest(self._secret, info + b"\x01", self._suite.digest)[:size]

    def renew(self) -> None:
        """Become the key that follows (section 7.2)."""
        self._use(self._expand(b"traffic upd", len(self._secret)))

    def _nonce(self) -> bytes:
        nonce = self._iv ^ self.used
        self.used += 1
        return nonce.to_bytes(12, "big")

    def seal(self, content: memoryview, buffer: memoryview, start: int) -> int:
        """Write ``content``, with its kind behind it, as a record to ``buffer`` at ``start``; returns its end."""
        body, size = start + HEADER_SIZE, len(content) + TAG_SIZE
        buffer[start:body] = header = _pack_header(APPLICATION_DATA, _VERSION, size)
        self._aead.encrypt_into(self._nonce(), content, header, buffer[body : body + size])
        return body + size

    def open(self, record: memoryview, target: memoryview) -> None:
        """Decrypt ``record`` into ``target``, which has the size of what is in it."""
        try:
            self._aead.decrypt_into(self._nonce(), record[HEADER_SIZE:], record[:HEADER_SIZE], target)
        except InvalidTag:
            raise _fault("a record does not authenticate") from None


class Incoming:
    """What a peer sends.

    Args:
        from_server: whether the peer is the server; only servers send tickets.

    Attributes:
        ended: it said farewell. What comes behind that does not count.
        asked: it asked for a new key of ours. Whoever answers clears it.
        opened: how many records there were in the last call of :meth:`open`.
    """

    __slots__ = ("_from_server", "_key", "_message", "_messages", "_silent", "asked", "ended", "opened")

    def __init__(self, key: TrafficKey, *, from_server: bool) -> None:
        self._key = key
        self._from_server = from_server
        self._message = bytearray()
        self._messages = 0
        self._silent = 0
        self.asked = False
        self.ended = False
        self.opened = 0

    def open(self, buffer: memoryview, end: int, target: memoryview) -> tuple[list[bytes], int]:
        """Decrypt every whole record in ``buffer[:end]``, by way of ``target``.

        Records hold 16 KiB, and each chunk costs the muxer and its stream as much as decrypting one; so those that fit
        into ``target`` side by side are handed on as one.

        Returns:
            The data, and where the first record begins that is not whole.

        Raises:
            SecurityError: the peer broke the rules, or somebody else did, or it said why it is leaving.
        """
        chunks: list[bytes] = []
        start = filled = opened = self._messages = 0
        while end - start >= HEADER_SIZE and not self.ended:
            kind, size = buffer[start], buffer[start + 3] << 8 | buffer[start + 4]
            if kind != APPLICATION_DATA or not TAG_SIZE < size <= MAX_CIPHERTEXT:
                raise _fault(f"a record of kind {kind} and {size} bytes")
            stop = start + HEADER_SIZE + size
            if stop > end:
                break
            if filled + size - TAG_SIZE > len(target):
                chunks.append(bytes(target[:filled]))
                filled = 0
            inner = target[filled : filled + size - TAG_SIZE]
            self._key.open(buffer[start:stop], inner)
            start = stop
            opened += 1
            data = size - TAG_SIZE - 1
            if inner[data] == APPLICATION_DATA and 0 < data <= MAX_PLAINTEXT and not self._message:
                self._silent = 0
                filled += data
            else:
                filled += self._take(bytes(inner))
        if filled:
            chunks.append(bytes(target[:filled]))
        self.opened = opened
        return chunks, start

    def _take(self, inner: bytes) -> int:
        """Act on a record that is not plain data; returns how many bytes of data it begins with."""
        unpadded = inner.rstrip(b"\0")
        if not unpadded or len(unpadded) > MAX_PLAINTEXT + 1:
            raise _fault("a record of nothing, or of too much")
        content, kind = unpadded[:-1], unpadded[-1]
        if kind == APPLICATION_DATA and content and not self._message:
            self._silent = 0
            return len(content)
        self._silent += 1
        if self._silent > MAX_SILENT:
            raise _fault("the peer sends records without data and without end")
        if kind == HANDSHAKE and content:
            self._read_messages(content)
        elif self._message or kind not in (ALERT, APPLICATION_DATA):
            raise _fault(f"a record of kind {kind} where none may be")
        elif kind == ALERT:
            self._read_alert(content)
        return 0

    def _read_messages(self, content: bytes) -> None:
        message = self._message
        message += content
        while len(message) >= 4:
            kind, size = message[0], int.from_bytes(message[1:4], "big")
            if size > MAX_MESSAGE:
                raise _fault(f"a handshake message of {size} bytes")
            if len(message) < 4 + size:
                break
            self._messages += 1
            if self._messages > MAX_MESSAGES:
                raise _fault("the peer sends handshake messages without end")
            body = bytes(message[4 : 4 + size])
            del message[: 4 + size]
            if kind == KEY_UPDATE and body in (b"\x00", b"\x01") and not message:
                self._key.renew()
                self.asked = self.asked or body == b"\x01"
            elif kind != NEW_SESSION_TICKET or not self._from_server:
                raise _fault(f"a handshake message of kind {kind}, which may not come now")

    def _read_alert(self, content: bytes) -> None:
        if len(content) != 2:
            raise _fault("an alert that is none")
        number = content[1]
        if number == CLOSE_NOTIFY:
            self.ended = True
        elif number != USER_CANCELED:
            raise _fault(f"the peer says: {_ALERTS.get(number, f'alert {number}')}")


class RecordSplitter:
    """Cuts what a peer sends where records end.

    Attributes:
        count: how many records have begun.
    """

    __slots__ = ("_header", "_left", "count")

    def __init__(self) -> None:
        self._header = b""
        self._left = 0
        self.count = 0

    def split(self, data: bytes) -> tuple[bytes, bytes]:
        """The front of ``data`` that belongs to one record, which need not be whole, and the rest."""
        end = 0
        if not self._left:
            end = HEADER_SIZE - len(self._header)
            self._header = self._header + data[:end]
            if len(self._header) < HEADER_SIZE:
                return data, b""
            self._left = int.from_bytes(self._header[3:], "big")
            self._header = b""
            self.count += 1
        body = data[end : end + self._left]
        self._left -= len(body)
        end += len(body)
        return data[:end], data[end:]


class SessionSecrets:
    """What OpenSSL tells of a session's secrets, in lines of the format that key logs have."""

    __slots__ = ("_secrets",)

    def __init__(self) -> None:
        self._secrets: dict[bytes, bytes] = {}

    def note(self, line: bytes) -> None:
        """Take in a line: what it is, whose, and its value."""
        label, _, secret = line.split()
        self._secrets[label] = bytes.fromhex(secret.decode())

    def keys(self, suite: Suite) -> tuple[TrafficKey, TrafficKey]:
        """The client's key and the server's, once the handshake is done."""
        client, server = (TrafficKey(suite, self._secrets[label]) for label in _SECRET_LABELS)
        return client, server


def _fault(what: str) -> SecurityError:
    return SecurityError(what, stage="record")
