"""Noise_XX_25519_ChaChaPoly_SHA256 as libp2p uses it, without I/O.

Three messages, each behind a two-byte length:

    initiator → responder   e
    initiator ← responder   e, ee, s, es, payload
    initiator → responder   s, se, payload

A payload binds the sender's static Noise key to its identity key by a signature. The initiator checks the responder's
payload, and that it is the peer it wants, before it sends message 3; so a stranger never learns who dialled.

Muxers are agreed inside the payloads: the responder lists what it speaks in message 2, and the initiator answers with
exactly the one it chose in message 3. Naming one makes every implementation agree on it, also those that pick by the
other side's order. Two lists without overlap fail, as the specification says; an absent list leaves the choice to a
multistream round.

Specification: libp2p/specs noise/README.md; Noise Protocol Framework revision 34, sections 5 and 7.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from ...crypto.keys import PublicKey, unmarshal_public_key
from ...errors import DecodeError, PeerIdMismatch, SecurityError
from ...peer_id import PeerId
from ._codec import Payload, decode_payload, encode_payload

PROTOCOL_NAME = b"Noise_XX_25519_ChaChaPoly_SHA256"
SIGNATURE_PREFIX = b"noise-libp2p-static-key:"

TAG_SIZE = 16
MAX_RECORD = 65535
"""Longest handshake or transport message, tag included (Noise section 3)."""
MAX_PLAINTEXT = MAX_RECORD - TAG_SIZE
MAX_NONCE = 2**64 - 1
"""The nonce that must never be used (Noise section 5.1)."""

pack_nonce: Callable[[int, int], bytes] = struct.Struct("<IQ").pack
"""``pack_nonce(0, n)``: the 12-byte ChaChaPoly nonce for counter ``n``."""


class CipherState:
    """One direction's key and counter. The data path reads both fields itself; see the stream."""

    __slots__ = ("aead", "nonce")

    def __init__(self, key: bytes) -> None:
        self.aead = ChaCha20Poly1305(key)
        self.nonce = 0


class _SymmetricState:
    """Noise section 5.2: the running hash, the chaining key, and the handshake cipher."""

    __slots__ = ("chaining_key", "cipher", "hash")

    def __init__(self, prologue: bytes) -> None:
        self.hash = self.chaining_key = PROTOCOL_NAME
        self.cipher: CipherState | None = None
        self.mix_hash(prologue)

    def mix_hash(self, data: bytes) -> None:
        self.hash = hashlib.sha256(self.hash + data).digest()

    def mix_key(self, secret: bytes) -> None:
        self.chaining_key, key = _hkdf(self.chaining_key, secret)
        self.cipher = CipherState(key)

    def encrypt(self, plaintext: bytes) -> bytes:
        cipher = self.cipher
        if cipher is None:
            self.mix_hash(plaintext)
            return plaintext
        ciphertext = cipher.aead.encrypt(pack_nonce(0, cipher.nonce), plaintext, self.hash)
        cipher.nonce += 1
        self.mix_hash(ciphertext)
        return ciphertext

    def decrypt(self, ciphertext: bytes) -> bytes:
        cipher = self.cipher
        if cipher is None:
            self.mix_hash(ciphertext)
            return ciphertext
        try:
            plaintext = cipher.aead.decrypt(pack_nonce(0, cipher.nonce), ciphertext, self.hash)
        except InvalidTag:
            raise SecurityError("a handshake message does not authenticate") from None
        cipher.nonce += 1
        self.mix_hash(ciphertext)
        return plaintext

    def split(self) -> tuple[CipherState, CipherState]:
        first, second = _hkdf(self.chaining_key, b"")
        return CipherState(first), CipherState(second)


def _hkdf(chaining_key: bytes, secret: bytes) -> tuple[bytes, bytes]:
    temp = hmac.digest(chaining_key, secret, "sha256")
    first = hmac.digest(temp, b"\x01", "sha256")
    return first, hmac.digest(temp, first + b"\x02", "sha256")


@dataclass(frozen=True, slots=True)
class LocalIdentity:
    """What every handshake of a host has in common: made once, signed once.

    Attributes:
        static: the static Noise key, fresh per host and never the identity key (N6).
        static_public: its 32 public bytes.
        identity_key: the marshalled public identity key.
        signature: the identity key's signature over the static key.
    """

    static: X25519PrivateKey
    static_public: bytes
    identity_key: bytes
    signature: bytes


@dataclass(slots=True)
class HandshakeDone:
    """The other side is who ``peer`` says, and both hold the same keys.

    Attributes:
        muxer: the muxer agreed on, None when that is still to do.
        leftover: bytes that followed the last handshake message: transport records.
    """

    peer: PeerId
    key: PublicKey
    muxer: str | None
    send: CipherState
    receive: CipherState
    leftover: bytes


class Handshake:
    """One side of a handshake. After an exception it is dead.

    Args:
        initiator: whether this side dialled.
        ephemeral: a key for this handshake alone.
        muxers: muxers to offer, best first; empty for no early negotiation.
        expected: the only peer to accept; None for any.
    """

    def __init__(
        self,
        local: LocalIdentity,
        *,
        initiator: bool,
        ephemeral: X25519PrivateKey,
        muxers: Sequence[str] = (),
        expected: PeerId | None = None,
        prologue: bytes = b"",
    ) -> None:
        self._local = local
        self._initiator = initiator
        self._ephemeral = ephemeral
        self._muxers = tuple(muxers)
        self._expected = expected
        self._symmetric = _SymmetricState(prologue)
        self._remote_ephemeral: X25519PublicKey | None = None
        self._remote: tuple[PeerId, PublicKey] | None = None
        self._muxer: str | None = None
        self._buffer = bytearray()
        self._output = b""
        if initiator:
            self._send_first()

    def data_to_send(self) -> bytes:
        """Bytes for the other side; drains."""
        output, self._output = self._output, b""
        return output

    def receive_data(self, data: bytes | bytearray) -> HandshakeDone | None:
        """Take bytes of the other side.

        Returns:
            The result when the handshake is complete; what it still has to send is in :meth:`data_to_send`.

        Raises:
            PeerIdMismatch: it is not the peer that was expected.
            SecurityError: anything else that is wrong.
        """
        buffer = self._buffer
        buffer += data
        while len(buffer) >= 2:
            end = 2 + (buffer[0] << 8 | buffer[1])
            if len(buffer) < end:
                return None
            message = bytes(buffer[2:end])
            del buffer[:end]
            if self._initiator:
                self._receive_second(message)
                self._send_third()
                return self._finish()
            if self._remote_ephemeral is None:
                self._receive_first(message)
                self._send_second()
            else:
                self._receive_third(message)
                return self._finish()
        return None

    # --- messages

    def _send_first(self) -> None:
        public = self._ephemeral.public_key().public_bytes_raw()
        self._symmetric.mix_hash(public)
        self._put(public + self._symmetric.encrypt(b""))

    def _receive_first(self, message: bytes) -> None:
        if len(message) < 32:
            raise SecurityError("the first handshake message is too short")
        self._remote_ephemeral = self._read_ephemeral(message[:32])
        # Whatever follows is an unencrypted payload; the specification leaves it empty and nothing here reads it.
        self._symmetric.decrypt(message[32:])

    def _send_second(self) -> None:
        symmetric, remote = self._symmetric, self._remote_ephemeral
        assert remote is not None
        public = self._ephemeral.public_key().public_bytes_raw()
        symmetric.mix_hash(public)
        symmetric.mix_key(_exchange(self._ephemeral, remote))
        static = symmetric.encrypt(self._local.static_public)
        symmetric.mix_key(_exchange(self._local.static, remote))
        self._put(public + static + symmetric.encrypt(self._payload(self._muxers)))

    def _receive_second(self, message: bytes) -> None:
        if len(message) < 32 + 48 + TAG_SIZE:
            raise SecurityError("the second handshake message is too short")
        symmetric = self._symmetric
        self._remote_ephemeral = self._read_ephemeral(message[:32])
        symmetric.mix_key(_exchange(self._ephemeral, self._remote_ephemeral))
        static = symmetric.decrypt(message[32:80])
        symmetric.mix_key(_exchange(self._ephemeral, X25519PublicKey.from_public_bytes(static)))
        payload = self._accept(static, symmetric.decrypt(message[80:]))
        self._choose_muxer(preferred=self._muxers, other=payload.muxers)

    def _send_third(self) -> None:
        symmetric, remote = self._symmetric, self._remote_ephemeral
        assert remote is not None
        static = symmetric.encrypt(self._local.static_public)
        symmetric.mix_key(_exchange(self._local.static, remote))
        chosen = (self._muxer,) if self._muxer is not None else ()
        self._put(static + symmetric.encrypt(self._payload(chosen)))

    def _receive_third(self, message: bytes) -> None:
        if len(message) < 48 + TAG_SIZE:
            raise SecurityError("the third handshake message is too short")
        symmetric = self._symmetric
        static = symmetric.decrypt(message[:48])
        symmetric.mix_key(_exchange(self._ephemeral, X25519PublicKey.from_public_bytes(static)))
        payload = self._accept(static, symmetric.decrypt(message[48:]))
        self._choose_muxer(preferred=payload.muxers, other=self._muxers)

    # --- parts

    def _put(self, message: bytes) -> None:
        self._output += len(message).to_bytes(2, "big") + message

    def _payload(self, muxers: Sequence[str]) -> bytes:
        return encode_payload(self._local.identity_key, self._local.signature, muxers)

    def _read_ephemeral(self, public: bytes) -> X25519PublicKey:
        self._symmetric.mix_hash(public)
        return X25519PublicKey.from_public_bytes(public)

    def _accept(self, static: bytes, data: bytes) -> Payload:
        """Check the identity: is it the wanted one, and does it own the static key?"""
        try:
            payload = decode_payload(data)
            key = unmarshal_public_key(payload.identity_key)
        except DecodeError as exc:
            raise SecurityError(f"the peer's handshake payload: {exc}") from exc
        peer = PeerId.from_key(key)
        if not key.verify(SIGNATURE_PREFIX + static, payload.identity_sig):
            raise SecurityError(f"{peer} did not sign its Noise key")
        if self._expected is not None and peer != self._expected:
            raise PeerIdMismatch(self._expected, peer)
        self._remote = (peer, key)
        return payload

    def _choose_muxer(self, *, preferred: Sequence[str], other: Sequence[str]) -> None:
        if not preferred or not other:
            return
        self._muxer = next((muxer for muxer in preferred if muxer in other), None)
        if self._muxer is None:
            raise SecurityError(f"no muxer in common: {', '.join(preferred)} and {', '.join(other)}")

    def _finish(self) -> HandshakeDone:
        assert self._remote is not None
        first, second = self._symmetric.split()
        send, receive = (first, second) if self._initiator else (second, first)
        peer, key = self._remote
        return HandshakeDone(peer, key, self._muxer, send, receive, bytes(self._buffer))


def _exchange(private: X25519PrivateKey, public: X25519PublicKey) -> bytes:
    try:
        return private.exchange(public)
    except ValueError:
        # An all-zero result: the peer sent a point of small order.
        raise SecurityError("the peer sent a weak Diffie-Hellman key") from None
