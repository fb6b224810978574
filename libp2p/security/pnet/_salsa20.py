"""XSalsa20: Salsa20 with a nonce of 24 bytes, whose first 16 go into the key.

Pure. The stream itself is pycryptodome's Salsa20, which keeps its position between calls of any size. What no package
at hand offers is the key's derivation, HSalsa20: once for each direction of a connection, a tenth of a millisecond.

Specification: D. J. Bernstein, "Extending the Salsa20 nonce", section 2; Salsa20 specification, sections 3 to 9.
"""

from __future__ import annotations

import struct
from typing import Protocol

from Crypto.Cipher import Salsa20

NONCE_SIZE = 24

_CONSTANTS = struct.unpack("<4I", b"expand 32-byte k")
_ROUNDS = 20
_MASK = 0xFFFFFFFF
# The quarter rounds of a double round: columns, then rows (section 6).
_QUARTERS = (
    *((0, 4, 8, 12), (5, 9, 13, 1), (10, 14, 2, 6), (15, 3, 7, 11)),
    *((0, 1, 2, 3), (5, 6, 7, 4), (10, 11, 8, 9), (15, 12, 13, 14)),
)


class Cipher(Protocol):
    """A running stream cipher; encrypting and decrypting are the same."""

    def encrypt(self, plaintext: bytes | memoryview, output: memoryview | None = None) -> bytes | None:
        """The next bytes. Into ``output``, which may be ``plaintext``, or returned when there is none."""
        ...


def xsalsa20(key: bytes, nonce: bytes) -> Cipher:
    """The stream of a 32-byte ``key`` and a 24-byte ``nonce``, at its beginning."""
    cipher: Cipher = Salsa20.new(hsalsa20(key, nonce[:16]), nonce[16:])
    return cipher


def hsalsa20(key: bytes, nonce: bytes) -> bytes:
    """The 32-byte key made of a 32-byte key and 16 bytes of nonce."""
    c, k, n = _CONSTANTS, struct.unpack("<8I", key), struct.unpack("<4I", nonce)
    x = [c[0], *k[:4], c[1], *n, c[2], *k[4:], c[3]]
    for _ in range(_ROUNDS // 2):
        for a, b, c_, d in _QUARTERS:
            x[b] ^= _rotated(x[a] + x[d], 7)
            x[c_] ^= _rotated(x[b] + x[a], 9)
            x[d] ^= _rotated(x[c_] + x[b], 13)
            x[a] ^= _rotated(x[d] + x[c_], 18)
    return struct.pack("<8I", *(x[index] for index in (0, 5, 10, 15, 6, 7, 8, 9)))


def _rotated(word: int, by: int) -> int:
    word &= _MASK
    return (word << by | word >> 32 - by) & _MASK
