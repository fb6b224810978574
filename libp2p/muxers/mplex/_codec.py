"""The mplex frame header: two unsigned varints (mplex specification, "Message format").

| field | meaning |
| --- | --- |
| header | stream id << 3, plus the flag below |
| length | bytes that follow, at most 1 MiB |

| flag | name | sent by |
| --- | --- | --- |
| 0 | NewStream | the initiator of the stream; what follows is a name |
| 1, 2 | MessageReceiver, MessageInitiator | the side in the name |
| 3, 4 | CloseReceiver, CloseInitiator | the side in the name |
| 5, 6 | ResetReceiver, ResetInitiator | the side in the name |

Both sides number their streams on their own, so the same id may stand for two streams. A *key* tells them apart:
id * 2, plus 1 for streams opened here. A peer's frame with an odd flag is from the receiver of a stream, which is one
of ours; so the key of an incoming frame is id * 2 + (flag & 1).
"""

from __future__ import annotations

from ...wire import varint

NEW_STREAM = 0
MESSAGE_RECEIVER = 1
MESSAGE_INITIATOR = 2
CLOSE_RECEIVER = 3
CLOSE_INITIATOR = 4
RESET_RECEIVER = 5
RESET_INITIATOR = 6

MAX_MESSAGE = 1024 * 1024
"""Longest payload ("Message format")."""
MAX_ID = (1 << 60) - 1
"""Largest stream id: the header is a varint of 63 bits, of which 3 are the flag."""


def encode_head(key: int, flag: int) -> bytes:
    """The first varint of a frame we send about the stream ``key``; ``flag`` in its receiver form, or NEW_STREAM."""
    if flag:
        flag += key & 1
    return varint.encode((key >> 1) << 3 | flag)


def decode_header(data: bytes, pos: int) -> tuple[int, int, int] | None:
    """Read a header of ``data`` at ``pos``: its first varint, the length, and where the payload begins.

    Returns None when more bytes are needed.

    Raises:
        DecodeError: a varint is malformed; the header has more than 63 bits.
    """
    head = varint.try_decode(data, pos)
    if head is None:
        return None
    length = varint.try_decode(data, head[1])
    if length is None:
        return None
    return head[0], length[0], length[1]
