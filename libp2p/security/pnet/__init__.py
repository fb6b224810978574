"""Private networks: only who holds a pre-shared key can talk to their members (PSK v1).

The key encrypts everything below the security protocol, which runs unchanged inside. Whoever has another key, or none,
cannot even negotiate. It is a fence, not an identity: all members have the same key.

Needs pycryptodome, which the extra ``pnet`` installs.

Specification: libp2p/specs pnet/Private-Networks-PSK-V1.md.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
from pathlib import Path
from typing import Any

from trio.abc import Stream as ByteStream

from ...abc import DirectStream, Protector
from ...errors import DecodeError
from ._codec import KEY_SIZE, MAX_FILE, decode_key_file, encode_key_file

__all__ = ["PreSharedKey"]

_NONCE_SIZE = 24


class PreSharedKey(Protector):
    """The key of a private network. Immutable; its ``repr`` does not show it.

    Args:
        key: 32 secret bytes.

    Raises:
        ValueError: not 32 bytes.
        ImportError: the extra ``pnet`` is not installed.
    """

    __slots__ = ("_key", "_streams")

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_SIZE:
            raise ValueError(f"a pre-shared key has {KEY_SIZE} bytes, not {len(key)}")
        if importlib.util.find_spec("Crypto") is None:
            raise ImportError("private networks need an extra: pip install 'libp2p-trio[pnet]'")
        self._key = bytes(key)
        # By name, so that nobody else needs the extra; it takes a few milliseconds.
        self._streams: Any = importlib.import_module("._stream", __package__)

    @classmethod
    def generate(cls) -> PreSharedKey:
        """A new key from the system's randomness."""
        return cls(os.urandom(KEY_SIZE))

    @classmethod
    def parse(cls, data: bytes | str) -> PreSharedKey:
        """Read the content of a key file, in base16, base64 or as bytes.

        Raises:
            DecodeError: it is none; the text does not hold the key.
        """
        return cls(decode_key_file(data.encode() if isinstance(data, str) else data))

    @classmethod
    def load(cls, path: Path | str) -> PreSharedKey:
        """Read a key file.

        Raises:
            DecodeError: the file does not hold a key.
            OSError: it cannot be read.
        """
        try:
            with Path(path).open("rb") as file:
                return cls.parse(file.read(MAX_FILE + 1))
        except DecodeError as exc:
            raise DecodeError(f"{path}: {exc}") from exc

    @property
    def fingerprint(self) -> bytes:
        """16 bytes that tell networks apart and the key to nobody, as in the name under which mDNS asks (kubo).

        Encrypted before it is hashed, so that no function of the key alone is published.
        """
        salsa: Any = importlib.import_module("Crypto.Cipher.Salsa20")
        encrypted: bytes = salsa.new(self._key, nonce=b"finprint").encrypt(bytes(64))
        return hashlib.shake_128(encrypted).digest(16)

    def to_file(self) -> bytes:
        """The content of a key file. It is the secret: keep it where nobody else can read it."""
        return encode_key_file(self._key)

    async def protect(self, stream: ByteStream) -> ByteStream:
        """Begin the private network's encryption; see :class:`libp2p.abc.Protector`."""
        nonce = os.urandom(_NONCE_SIZE)
        await stream.send_all(nonce)
        kind = self._streams.DirectPskStream if isinstance(stream, DirectStream) else self._streams.PskStream
        protected: ByteStream = kind(stream, self._key, nonce)
        return protected

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PreSharedKey) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        return "<PreSharedKey>"
