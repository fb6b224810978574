"""Peer ids: who a peer is, derived from its public key.

A peer id is the multihash of the peer's serialized public key. Keys of up to 42 bytes (Ed25519, secp256k1) are
embedded as they are, longer ones (RSA, ECDSA) are hashed with sha2-256.

Source: libp2p/specs, peer-ids.
"""

from __future__ import annotations

import functools

from .crypto.keys import PublicKey, unmarshal_public_key
from .wire import multihash


@functools.total_ordering
class PeerId:
    """The identity of a peer: an immutable value, equal and hashed by its bytes.

    Make one with :meth:`from_key`, :meth:`from_bytes` or :meth:`parse`. ``str()`` is the usual base 58 text
    (``12D3KooW…``, ``Qm…``), ``bytes()`` the multihash. Ids are ordered by their bytes.
    """

    __slots__ = ("_bytes", "_text")

    _bytes: bytes
    _text: str | None

    def __init__(self) -> None:
        raise TypeError("use PeerId.from_key, PeerId.from_bytes or PeerId.parse")

    @classmethod
    def from_key(cls, key: PublicKey) -> PeerId:
        """Return the id of the peer whose public key is ``key``."""
        marshalled = key.marshal()
        if len(marshalled) <= multihash.MAX_IDENTITY_LENGTH:
            return cls._make(multihash.identity(marshalled))
        return cls._make(multihash.sha2_256(marshalled))

    @classmethod
    def from_bytes(cls, data: bytes) -> PeerId:
        """Return the id with these bytes, a multihash.

        An identity multihash may hold anything: whether it is a key shows in :meth:`public_key`.

        Raises:
            DecodeError: ``data`` is not an identity multihash of 1 to 42 bytes nor a sha2-256 multihash.
        """
        multihash.check_peer_multihash(data)
        return cls._make(bytes(data))

    @classmethod
    def parse(cls, text: str) -> PeerId:
        """Return the id written as ``text``.

        Accepts base 58 (``12D3KooW…``, ``Qm…``), a CID of version 1 in base 32, 36, 58 or 16 (``b…``, ``k…``, ``z…``,
        ``f…``), and each of these behind ``/p2p/`` or ``/ipfs/``.

        Raises:
            DecodeError: it is none of these, or a CID of something else than a key.
        """
        if text.startswith(("/p2p/", "/ipfs/")):
            text = text[text.index("/", 1) + 1 :]
        if text.startswith(("1", "Qm")):
            return cls.from_bytes(multihash.decode_base58(text))
        return cls.from_bytes(multihash.from_cid(multihash.decode_multibase(text)))

    @classmethod
    def _make(cls, data: bytes) -> PeerId:
        self = object.__new__(cls)
        object.__setattr__(self, "_bytes", data)
        object.__setattr__(self, "_text", None)
        return self

    def to_cid(self, base: str = "base32") -> str:
        """Return the id as a CID of version 1.

        Args:
            base: ``"base32"``; ``"base36"`` fits into one DNS label; ``"base58btc"`` and ``"base16"`` work too.

        Raises:
            ValueError: an unknown base.
        """
        return multihash.encode_multibase(base, multihash.to_cid(self._bytes))

    def public_key(self) -> PublicKey | None:
        """Return the public key the id holds, or None when it holds only a hash of it.

        Raises:
            DecodeError: what the id holds is not a public key; nobody can prove to be this peer.
        """
        if self._bytes[0] != multihash.IDENTITY:
            return None
        return unmarshal_public_key(self._bytes[2:])

    def matches(self, key: PublicKey) -> bool:
        """Whether this is the id of the peer whose public key is ``key``."""
        return self._bytes == PeerId.from_key(key)._bytes

    def short(self) -> str:
        """Return the last characters of the text, enough to tell peers apart in a log: ``…Umo7R3pq``.

        The first characters are no use: they are alike in all ids of one key type.
        """
        return "…" + str(self)[-8:]

    def __str__(self) -> str:
        text = self._text
        if text is None:
            text = multihash.encode_base58(self._bytes)
            object.__setattr__(self, "_text", text)
        return text

    def __repr__(self) -> str:
        return f"<PeerId {self.short()}>"

    def __bytes__(self) -> bytes:
        return self._bytes

    def __hash__(self) -> int:
        return hash(self._bytes)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, PeerId):
            return self._bytes == other._bytes
        return NotImplemented

    def __lt__(self, other: object) -> bool:
        if isinstance(other, PeerId):
            return self._bytes < other._bytes
        return NotImplemented

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("a PeerId does not change")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("a PeerId does not change")

    def __reduce__(self) -> tuple[object, tuple[bytes]]:
        # Pickle and copy would otherwise set the slots one by one.
        return PeerId.from_bytes, (self._bytes,)
