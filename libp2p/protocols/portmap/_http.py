"""As much of HTTP as a router's answers take. Pure.

Source: RFC 9112. Answers are read from a stranger: head and body are bounded, and what does not fit is an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from ...errors import DecodeError

MAX_HEAD = 16 * 1024
"""Bytes of status and headers."""
MAX_BODY = 256 * 1024
"""Bytes of a body; descriptions of routers have some 10 KiB."""

_MAX_SIZE_LINE = 256
_END = b"\r\n\r\n"
_STATUS = re.compile(rb"HTTP/1\.\d (\d{3})(?: [^\r\n]*)?")
_SIZE = re.compile(rb"[0-9a-fA-F]{1,8}")


@dataclass(slots=True)
class Response:
    """An answer.

    Attributes:
        headers: by name in lower case; of several of one name the last.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = b""


def parse_head(data: bytes) -> Response:
    """Read a status line and headers, up to the empty line or the end.

    Raises:
        DecodeError: it is none.
    """
    first, *lines = data.partition(_END)[0].split(b"\r\n")
    match = _STATUS.fullmatch(first)
    if match is None:
        raise DecodeError("not an answer of HTTP")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        if colon:
            headers[name.decode("latin-1").strip().lower()] = value.decode("latin-1").strip()
    return Response(int(match[1]), headers)


class ResponseReader:
    """Puts one answer together."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._joined = bytearray()  # what chunks had in them
        self._head: Response | None = None

    def receive_data(self, data: bytes) -> Response | None:
        """Take bytes; the answer once it is whole.

        Raises:
            DecodeError: it is none, or too long.
        """
        self._buffer += data
        if self._head is None:
            end = self._buffer.find(_END)
            if end < 0:
                if len(self._buffer) > MAX_HEAD:
                    raise DecodeError("a head of HTTP that does not end")
                return None
            self._head = parse_head(bytes(self._buffer[:end]))
            del self._buffer[: end + len(_END)]
        if len(self._buffer) + len(self._joined) > MAX_BODY:
            raise DecodeError("a body of HTTP that is too long")
        body = self._take_chunks() if _is_chunked(self._head) else self._take_counted(self._head)
        if body is None:
            return None
        self._head.body = body
        return self._head

    def receive_eof(self) -> Response:
        """The sender is done; the answer.

        Raises:
            DecodeError: it is not whole.
        """
        head = self._head
        if head is None or "content-length" in head.headers or _is_chunked(head):
            raise DecodeError("an answer of HTTP that was cut short")
        head.body = bytes(self._buffer)
        return head

    def _take_counted(self, head: Response) -> bytes | None:
        length = head.headers.get("content-length")
        if length is None:
            return None  # it lasts to the end
        if not length.isascii() or not length.isdigit() or len(length) > 8 or int(length) > MAX_BODY:
            raise DecodeError("a body of HTTP of a length that is none")
        return bytes(self._buffer[: int(length)]) if len(self._buffer) >= int(length) else None

    def _take_chunks(self) -> bytes | None:
        while (end := self._buffer.find(b"\r\n", 0, _MAX_SIZE_LINE)) >= 0:
            size_text = bytes(self._buffer[:end]).partition(b";")[0].strip()
            if _SIZE.fullmatch(size_text) is None:
                raise DecodeError("a chunk of HTTP of a length that is none")
            size = int(size_text, 16)
            if size == 0:
                return bytes(self._joined)
            if end + 2 + size + 2 > len(self._buffer):
                return None
            self._joined += self._buffer[end + 2 : end + 2 + size]
            del self._buffer[: end + 2 + size + 2]
        if len(self._buffer) >= _MAX_SIZE_LINE:
            raise DecodeError("a chunk of HTTP of a length that is none")
        return None


def _is_chunked(head: Response) -> bool:
    return head.headers.get("transfer-encoding", "").lower() == "chunked"
