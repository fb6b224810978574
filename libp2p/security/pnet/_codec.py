"""The file of a pre-shared key: a line that says what it is, a line with its encoding, and 32 bytes.

    /key/swarm/psk/1.0.0/
    /base16/
    27c9…

Other encodings are ``/base64/`` and ``/bin/``, where the bytes follow as they are.

Specification: libp2p/specs pnet/Private-Networks-PSK-V1.md.
"""

from __future__ import annotations

import base64
import binascii

from ...errors import DecodeError

HEADER = b"/key/swarm/psk/1.0.0/"
KEY_SIZE = 32
MAX_FILE = 1024
"""Longest key file read, in bytes."""


def decode_key_file(data: bytes) -> bytes:
    """The key in a key file.

    Raises:
        DecodeError: it is none; the text does not hold the key.
    """
    header, _, rest = data.partition(b"\n")
    encoding, _, body = rest.partition(b"\n")
    if len(data) > MAX_FILE or header.rstrip(b"\r") != HEADER:
        raise DecodeError(f"a pre-shared key begins with the line {HEADER.decode()}")
    try:
        key = _decoded(encoding.rstrip(b"\r"), body)
    except ValueError:
        raise DecodeError("a pre-shared key is not in the encoding that its file names") from None
    if key is None:
        raise DecodeError(f"a pre-shared key is in base16, base64 or bin, not {encoding[:20]!r}")
    if len(key) != KEY_SIZE:
        raise DecodeError(f"a pre-shared key has {KEY_SIZE} bytes, not {len(key)}")
    return key


def _decoded(encoding: bytes, body: bytes) -> bytes | None:
    """The bytes of ``body``; None for an unknown encoding. Raises ValueError."""
    match encoding:
        case b"/base16/":
            return binascii.unhexlify(body.strip())
        case b"/base64/":
            return base64.b64decode(body.strip(), validate=True)
        case b"/bin/":
            # As it is; but editors like to end the last line, and no key is longer for it.
            return body[:KEY_SIZE] if body[KEY_SIZE:] in (b"\n", b"\r\n") else body
        case _:
            return None


def encode_key_file(key: bytes) -> bytes:
    """A key file in base16, which every implementation reads."""
    return b"\n".join((HEADER, b"/base16/", key.hex().encode(), b""))
