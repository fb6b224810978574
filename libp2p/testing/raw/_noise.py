"""``Noise_XX_25519_ChaChaPoly_SHA256``, token by token, as in sections 5 and 7 of the Noise specification.

Written from the pattern's text rather than message by message, to be as unlike the library's as it can be.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from ._encoding import pb

PATTERN: tuple[tuple[str, ...], ...] = (("e",), ("e", "ee", "s", "es"), ("s", "se"))
"""XX: what each message carries and mixes."""

DOMAIN = b"noise-libp2p-static-key:"


class Identity:
    """An Ed25519 identity from a seed of any kind."""

    def __init__(self, seed: object) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(hashlib.sha256(repr(seed).encode()).digest())
        self.public: bytes = pb(1, 1) + pb(2, self._key.public_key().public_bytes_raw())
        """The public key message."""
        self.peer: bytes = bytes((0, len(self.public))) + self.public
        """The binary peer id: an identity multihash of the key message."""

    def sign(self, data: bytes) -> bytes:
        """A signature."""
        return self._key.sign(data)


def handshake_payload(
    identity: Identity, static_public: bytes, *, muxers: Sequence[str] = (), signature: bytes | None = None,
    key: bytes | None = None, extra: bytes = b"",
) -> bytes:  # fmt: skip
    """The payload that proves ``static_public`` to be ``identity``'s, or does not.

    Args:
        muxers: the list of the early negotiation.
        signature: instead of the right one.
        key: instead of the right key message.
        extra: protobuf fields behind the others.
    """
    proof = identity.sign(DOMAIN + static_public) if signature is None else signature
    extensions = b"".join(pb(2, muxer) for muxer in muxers)
    fields = pb(1, identity.public if key is None else key) + pb(2, proof)
    return fields + (pb(4, extensions) if muxers else b"") + extra


class NoiseXX:
    """One side. Messages alternate: the initiator writes the first one.

    Args:
        initiator: which side.
        static: 32 secret bytes; fresh by default.
        ephemeral: likewise.
        prologue: what both sides must agree on.
    """

    def __init__(
        self, *, initiator: bool, static: bytes | None = None, ephemeral: bytes | None = None, prologue: bytes = b""
    ) -> None:
        self.initiator = initiator
        self.s: X25519PrivateKey = _secret(static)
        self.e: X25519PrivateKey = _secret(ephemeral)
        self.rs: X25519PublicKey | None = None
        self.re: X25519PublicKey | None = None
        name = b"Noise_XX_25519_ChaChaPoly_SHA256"
        self.h: bytes = name.ljust(32, b"\0") if len(name) <= 32 else hashlib.sha256(name).digest()
        self.ck: bytes = self.h
        self.key: bytes | None = None
        self.n: int = 0
        self._mix_hash(prologue)
        self._messages = list(PATTERN)
        self.keys: tuple[bytes, bytes] | None = None
        """The keys of the initiator's and the responder's records, when the handshake is done."""
        self.nonces: list[int] = [0, 0]

    @property
    def static_public(self) -> bytes:
        """Our static key."""
        return self.s.public_key().public_bytes_raw()

    # --- the handshake

    def write(self, payload: bytes = b"", *, raw_static: bytes | None = None) -> bytes:
        """The next message. ``raw_static`` travels in place of our static key."""
        out: list[bytes] = []
        for token in self._messages.pop(0):
            if token == "e":
                public = self.e.public_key().public_bytes_raw()
                self._mix_hash(public)
                out.append(public)
            elif token == "s":
                out.append(self._encrypt(self.static_public if raw_static is None else raw_static))
            else:
                self._mix_dh(token)
        out.append(self._encrypt(payload))
        self._finish()
        return b"".join(out)

    def read(self, message: bytes) -> bytes:
        """Take the other side's message; returns its payload. Raises InvalidTag."""
        for token in self._messages.pop(0):
            if token == "e":
                self.re, message = X25519PublicKey.from_public_bytes(message[:32]), message[32:]
                self._mix_hash(self.re.public_bytes_raw())
            elif token == "s":
                size = 32 if self.key is None else 48
                self.rs = X25519PublicKey.from_public_bytes(self._decrypt(message[:size]))
                message = message[size:]
            else:
                self._mix_dh(token)
        payload = self._decrypt(message)
        self._finish()
        return payload

    def _mix_dh(self, token: str) -> None:
        """``ee``, ``es``, ``se``: the first letter is the initiator's key, the second the responder's."""
        ours = token if self.initiator else token[::-1]
        public = self.re if ours[1] == "e" else self.rs
        assert public is not None
        self._mix_key((self.e if ours[0] == "e" else self.s).exchange(public))

    def _finish(self) -> None:
        if not self._messages:
            first, second = self._derive(b"")
            self.keys = (first, second)

    def _mix_hash(self, data: bytes) -> None:
        self.h = hashlib.sha256(self.h + data).digest()

    def _derive(self, secret: bytes) -> tuple[bytes, bytes]:
        # Noise's HKDF is RFC 5869 with the chaining key as salt and no info.
        both = HKDF(SHA256(), 64, salt=self.ck, info=b"").derive(secret) if secret else _hkdf_of_nothing(self.ck)
        return both[:32], both[32:]

    def _mix_key(self, secret: bytes) -> None:
        self.ck, self.key = self._derive(secret)
        self.n = 0

    def _encrypt(self, data: bytes) -> bytes:
        if self.key is not None:
            data = ChaCha20Poly1305(self.key).encrypt(_nonce(self.n), data, self.h)
            self.n += 1
        self._mix_hash(data)
        return data

    def _decrypt(self, data: bytes) -> bytes:
        if self.key is None:
            self._mix_hash(data)
            return data
        plain = ChaCha20Poly1305(self.key).decrypt(_nonce(self.n), data, self.h)
        self.n += 1
        self._mix_hash(data)
        return plain

    # --- records

    def seal(self, data: bytes, *, nonce: int | None = None) -> bytes:
        """A record with its length in front."""
        mine = 0 if self.initiator else 1
        if nonce is None:
            nonce = self.nonces[mine]
            self.nonces[mine] += 1
        assert self.keys is not None
        return frame(ChaCha20Poly1305(self.keys[mine]).encrypt(_nonce(nonce), data, None))

    def open(self, record: bytes) -> bytes:
        """The bytes of a record, which is given without its length. Raises InvalidTag."""
        theirs = 1 if self.initiator else 0
        assert self.keys is not None
        plain = ChaCha20Poly1305(self.keys[theirs]).decrypt(_nonce(self.nonces[theirs]), record, None)
        self.nonces[theirs] += 1
        return plain


def frame(message: bytes) -> bytes:
    """A message behind its length."""
    return len(message).to_bytes(2, "big") + message


def _secret(given: bytes | None) -> X25519PrivateKey:
    return X25519PrivateKey.generate() if given is None else X25519PrivateKey.from_private_bytes(given)


def _nonce(number: int) -> bytes:
    return bytes(4) + number.to_bytes(8, "little")


def _hkdf_of_nothing(salt: bytes) -> bytes:
    return HKDF(SHA256(), 64, salt=salt, info=b"").derive(b"")
