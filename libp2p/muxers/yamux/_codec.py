"""The yamux frame header: 12 bytes, big endian (yamux specification, "Framing").

| bytes | field | meaning |
| --- | --- | --- |
| 0 | version | 0 |
| 1 | type | 0 data, 1 window update, 2 ping, 3 go away |
| 2-3 | flags | 1 SYN, 2 ACK, 4 FIN, 8 RST |
| 4-7 | stream id | 0 for ping and go away; odd ids are the client's, even ids the server's |
| 8-11 | length | data: size; window update: credit, or the error code with RST; ping: opaque; go away: code |

Version and type are handled as one number here: with the only version being 0, that number is the type, and one
comparison checks both.
"""

from __future__ import annotations

import struct

HEADER = struct.Struct(">HHII")
"""Version and type, flags, stream id, length."""
HEADER_SIZE = HEADER.size

DATA = 0
WINDOW_UPDATE = 1
PING = 2
GO_AWAY = 3

SYN = 1
ACK = 2
FIN = 4
RST = 8
ALL_FLAGS = SYN | ACK | FIN | RST

GO_AWAY_NORMAL = 0
GO_AWAY_PROTOCOL_ERROR = 1
GO_AWAY_INTERNAL_ERROR = 2

INITIAL_WINDOW = 256 * 1024
"""Credit each side has on each new stream, before any window update ("Flow Control")."""
MAX_U32 = 0xFFFF_FFFF
"""The largest stream id, code and credit: the fields have 32 bits."""

_pack = HEADER.pack


def pack_header(kind: int, flags: int, stream_id: int, length: int) -> bytes:
    """The 12 bytes of a frame header."""
    return _pack(kind, flags, stream_id, length)


def unpack_header(data: bytes) -> tuple[int, int, int, int]:
    """Version and type as one number, flags, stream id and length from the first 12 bytes of ``data``."""
    return HEADER.unpack_from(data)
