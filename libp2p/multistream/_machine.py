"""The two sides of a negotiation, without I/O.

A message is ``uvarint length ‖ text ‖ "\\n"``; the length counts the newline. Both sides send the header
``/multistream/1.0.0`` once. The dialer proposes an id; the listener echoes it, or answers ``na`` and waits for another.

| dialer state | input | next |
| --- | --- | --- |
| proposing | header | proposing (once) |
| proposing | echo of the proposal | agreed |
| proposing | ``na`` | proposing the next id, or failed when there is none |
| proposing | anything else | failed |

| listener state | input | next |
| --- | --- | --- |
| greeting | header | choosing |
| choosing | an id it serves | agreed |
| choosing | another id, or ``ls`` | choosing (answers ``na``) |
| any | anything else, or a limit | failed |

The dialer sends header and proposal at once and never waits for the listener's header, because rust and js listeners
stay silent until they have read ours. The listener sends its header together with its first answer: one packet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from ..errors import LocalProtocolError, NegotiationError, RemoteProtocolError

MULTISTREAM = "/multistream/1.0.0"
"""The version of multistream-select, which both sides say first."""

MAX_LINE = 1024
"""Longest message in bytes, newline included (go and js: 1024)."""
MAX_PROPOSALS = 32
"""Proposals a listener answers before it gives up on the peer."""
MAX_BYTES = 64 * 1024
"""Bytes of messages a listener reads in one negotiation."""

_NA = "na"
_LS = "ls"


@dataclass(slots=True)
class Agreed:
    """Both sides agreed.

    Attributes:
        protocol: the protocol id.
        leftover: bytes of the peer that followed its last message; they belong to the protocol.
    """

    protocol: str
    leftover: bytes


@lru_cache(maxsize=256)
def encode(text: str) -> bytes:
    """One message. Raises LocalProtocolError when ``text`` cannot be one."""
    body = text.encode() + b"\n"
    if len(body) > MAX_LINE or b"\n" in body[:-1]:
        raise LocalProtocolError(f"not a protocol id: {text[:80]!r}")
    length = len(body)
    prefix = bytes([length]) if length < 0x80 else bytes([length & 0x7F | 0x80, length >> 7])
    return prefix + body


_HEADER = encode(MULTISTREAM)
_NA_LINE = encode(_NA)


@lru_cache(maxsize=256)
def _greeting(protocol: str) -> bytes:
    """Header and ``protocol``: what a dialer with one proposal says, and a listener that agrees to the first."""
    return _HEADER + encode(protocol)


def _first_proposal(data: bytes | bytearray) -> str | None:
    """The proposal behind a header, if ``data`` begins with both, whole; else it has to be read line by line."""
    start = len(_HEADER)
    if not data.startswith(_HEADER) or len(data) <= start or not 0 < data[start] < 0x80:
        return None
    end = start + data[start]
    if len(data) <= end or data[end] != 0x0A:
        return None
    try:
        return data[start + 1 : end].decode()
    except UnicodeDecodeError:
        return None


class _Lines:
    """Splits a byte stream into messages; holds at most one incomplete message."""

    __slots__ = ("_buffer", "taken")

    def __init__(self) -> None:
        self._buffer = b""
        self.taken = 0

    def feed(self, data: bytes | bytearray) -> None:
        self._buffer = self._buffer + data if self._buffer else bytes(data)

    def next(self) -> str | None:
        """The next message, or None when it has not arrived whole."""
        buffer = self._buffer
        if not buffer:
            return None
        length, start = buffer[0], 1
        if length >= 0x80:
            if len(buffer) < 2:
                return None
            # Two bytes reach 16383, far above MAX_LINE: a third byte, or a high part of zero, is never valid.
            if buffer[1] >= 0x80 or buffer[1] == 0:
                raise RemoteProtocolError("multistream message with a bad length")
            length, start = (length & 0x7F) | buffer[1] << 7, 2
        if length == 0 or length > MAX_LINE:
            raise RemoteProtocolError(f"multistream message of {length} bytes")
        end = start + length
        if len(buffer) < end:
            return None
        self._buffer = buffer[end:]
        self.taken += end
        if buffer[end - 1] != 0x0A:
            raise RemoteProtocolError("multistream message without a newline")
        try:
            return buffer[start : end - 1].decode()
        except UnicodeDecodeError:
            raise RemoteProtocolError("multistream message is not text") from None

    def take_rest(self) -> bytes:
        rest, self._buffer = self._buffer, b""
        return rest


class Dialer:
    """Proposes ``protocols`` in order until the listener agrees to one."""

    __slots__ = ("_greeted", "_lines", "_next", "_output", "_protocols", "_rejected")

    def __init__(self, protocols: Sequence[str]) -> None:
        if not protocols:
            raise LocalProtocolError("nothing to propose")
        self._protocols = tuple(protocols)
        self._lines: _Lines | None = None
        self._greeted = False
        self._rejected = 0
        self._output = [_greeting(self._protocols[0])]

    @property
    def proposal(self) -> str:
        """The protocol id now under negotiation."""
        return self._protocols[min(self._rejected, len(self._protocols) - 1)]

    def data_to_send(self) -> bytes:
        """Bytes for the listener; drains."""
        output, self._output = self._output, []
        return b"".join(output)

    def receive_data(self, data: bytes | bytearray) -> Agreed | None:
        """Take bytes of the listener.

        Returns:
            The agreement, or None when more bytes are needed.

        Raises:
            NegotiationError: the listener speaks none of the protocols.
            RemoteProtocolError: the listener broke the rules.
        """
        if self._lines is None:
            whole = _greeting(self._protocols[0])
            if data.startswith(whole):  # the usual answer, told without parsing
                return Agreed(self._protocols[0], bytes(data[len(whole) :]))
            self._lines = _Lines()
        self._lines.feed(data)
        while (line := self._lines.next()) is not None:
            if not self._greeted:
                if line != MULTISTREAM:
                    raise RemoteProtocolError(f"expected the multistream header, got {line[:80]!r}")
                self._greeted = True
            elif line == self.proposal:
                return Agreed(line, self._lines.take_rest())
            elif line == _NA:
                self._rejected += 1
                if self._rejected == len(self._protocols):
                    raise NegotiationError(
                        f"the peer speaks none of {', '.join(self._protocols)}", offered=self._protocols
                    )
                self._output.append(encode(self._protocols[self._rejected]))
            else:
                raise RemoteProtocolError(f"answered {line[:80]!r} to {self.proposal!r}")
        return None


class Listener:
    """Answers proposals; agrees to the first one for which ``supports`` is true."""

    __slots__ = ("_greeted", "_lines", "_offered", "_output", "_supports")

    def __init__(self, supports: Callable[[str], bool]) -> None:
        self._supports = supports
        self._lines: _Lines | None = None
        self._greeted = False
        self._offered: list[str] = []
        self._output: list[bytes] = []

    def data_to_send(self) -> bytes:
        """Bytes for the dialer; drains."""
        output, self._output = self._output, []
        return b"".join(output)

    def receive_data(self, data: bytes | bytearray) -> Agreed | None:
        """Take bytes of the dialer.

        Returns:
            The agreement, or None when more bytes are needed.

        Raises:
            NegotiationError: the dialer ran through its allowance without a match.
            RemoteProtocolError: the dialer broke the rules.
        """
        if self._lines is None:
            first = _first_proposal(data)
            if first is not None and first != _LS and self._supports(first):  # the usual case, told without parsing
                whole = _greeting(first)
                self._output.append(whole)
                return Agreed(first, bytes(data[len(whole) :]))
            self._lines = _Lines()
        self._lines.feed(data)
        while (line := self._lines.next()) is not None:
            if not self._greeted:
                if line != MULTISTREAM:
                    raise RemoteProtocolError(f"expected the multistream header, got {line[:80]!r}")
                self._greeted = True
                self._output.append(_HEADER)
                continue
            if line != _LS and self._supports(line):
                self._output.append(encode(line))
                return Agreed(line, self._lines.take_rest())
            # `ls` may be refused (go does): listing what a node serves is identify's business.
            self._offered.append(line[:80])
            self._output.append(_NA_LINE)
            if len(self._offered) >= MAX_PROPOSALS or self._lines.taken > MAX_BYTES:
                raise NegotiationError(
                    f"the peer made {len(self._offered)} proposals without a match", offered=self._offered
                )
        return None

    @property
    def offered(self) -> tuple[str, ...]:
        """What the dialer proposed in vain."""
        return tuple(self._offered)
