"""Public and private keys, whatever their type.

A key is used through :class:`PublicKey` and :class:`PrivateKey`. The four types are in modules of their own, which are
loaded when the first key of that type turns up: a node that meets only Ed25519 keys never loads RSA.

Decoding is strict. A key has one serialized form, and with it one peer id; data of any other form is refused, as is
whatever cannot be a key: RSA moduli outside of 2048 to 8192 bits, points that are not on the curve.

Source: libp2p/specs, peer-ids.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import hmac
import importlib
from abc import ABC, abstractmethod
from typing import ClassVar, Protocol, cast

from ..errors import DecodeError
from . import _codec


class KeyType(enum.IntEnum):
    """The key types and their numbers on the wire."""

    RSA = 0
    ED25519 = 1
    SECP256K1 = 2
    ECDSA = 3


class PublicKey(ABC):
    """A public key. Immutable; equal and hashed by its serialized form.

    Attributes:
        key_type: which of the four types it is.
    """

    __slots__ = ("_marshalled", "_raw")

    key_type: ClassVar[KeyType]

    def __init__(self, raw: bytes) -> None:
        """Only for subclasses, which have checked ``raw``; everybody else calls :func:`unmarshal_public_key`."""
        self._raw = raw
        self._marshalled = _codec.encode(self.key_type, raw)

    @property
    def raw(self) -> bytes:
        """The key's bytes in the form of its type: a curve point, or DER."""
        return self._raw

    def marshal(self) -> bytes:
        """Return the serialized form, which peer ids are made from."""
        return self._marshalled

    @abstractmethod
    def verify(self, data: bytes, signature: bytes) -> bool:
        """Whether ``signature`` over ``data`` was made with the private key that belongs to this key.

        False for every other signature, however malformed; it raises nothing.
        """

    def __eq__(self, other: object) -> bool:
        if isinstance(other, PublicKey):
            return self._marshalled == other._marshalled
        return NotImplemented

    def __hash__(self) -> int:
        return hash(self._marshalled)

    def __repr__(self) -> str:
        # A digest, because the ends of DER keys are all alike.
        return f"<PublicKey {self.key_type.name} {hashlib.sha256(self._marshalled).hexdigest()[:16]}>"

    def __reduce__(self) -> tuple[object, tuple[bytes]]:
        return unmarshal_public_key, (self._marshalled,)


class PrivateKey(ABC):
    """A private key. Immutable; equal when the secrets are equal. Its ``repr`` shows only the public half.

    Attributes:
        key_type: which of the four types it is.
    """

    __slots__ = ("_public_key", "_raw")

    key_type: ClassVar[KeyType]

    def __init__(self, raw: bytes, public_key: PublicKey) -> None:
        """Only for subclasses; everybody else calls :func:`generate` or :func:`unmarshal_private_key`."""
        self._raw = raw
        self._public_key = public_key

    @property
    def public_key(self) -> PublicKey:
        """The public half."""
        return self._public_key

    @property
    def raw(self) -> bytes:
        """The secret bytes in the form of the key's type."""
        return self._raw

    def marshal(self) -> bytes:
        """Return the serialized form. It is the secret: keep it where nobody else can read it."""
        return _codec.encode(self.key_type, self._raw)

    @abstractmethod
    def sign(self, data: bytes) -> bytes:
        """Return a signature over ``data``, which ``public_key.verify`` accepts."""

    def __eq__(self, other: object) -> bool:
        if isinstance(other, PrivateKey):
            return hmac.compare_digest(self.marshal(), other.marshal())
        return NotImplemented

    def __hash__(self) -> int:
        return hash(self._public_key)

    def __repr__(self) -> str:
        return f"<PrivateKey of {self._public_key!r}>"

    def __reduce__(self) -> str:
        raise TypeError("a private key is not copied by accident; marshal it on purpose")


class _KeyModule(Protocol):
    """What the module of one key type offers."""

    def decode_public(self, raw: bytes) -> PublicKey: ...

    def decode_private(self, raw: bytes) -> PrivateKey: ...

    def generate(self, bits: int) -> PrivateKey: ...


@functools.cache
def _module(key_type: KeyType) -> _KeyModule:
    # The modules import this one for the two base classes, so this one can only reach them by name. It also keeps
    # about 10 ms of OpenSSL bindings out of the start of a program that uses one key type.
    return cast("_KeyModule", importlib.import_module(f".{key_type.name.lower()}", __package__))


def unmarshal_public_key(data: bytes) -> PublicKey:
    """Return the public key with this serialized form.

    Raises:
        DecodeError: ``data`` is no serialized key of a known type in its one valid form, is longer than 16 KiB, or
            does not hold a usable key of its type.
    """
    key_type, raw = _codec.decode(data)
    return _module(_known(key_type)).decode_public(raw)


def unmarshal_private_key(data: bytes) -> PrivateKey:
    """Return the private key with this serialized form.

    Raises:
        DecodeError: as for :func:`unmarshal_public_key`; also when the halves of the key do not belong together.
    """
    key_type, raw = _codec.decode(data)
    return _module(_known(key_type)).decode_private(raw)


def generate(key_type: KeyType = KeyType.ED25519, *, bits: int = 2048) -> PrivateKey:
    """Return a new private key from the system's randomness.

    Args:
        key_type: Ed25519 is what other implementations default to; it is fast, and its peer ids hold the key.
        bits: size of an RSA key, 2048 to 8192; ignored for other types. Generating one takes 0.1 to many seconds of
            CPU time.

    Raises:
        ValueError: ``bits`` out of range.
    """
    return _module(key_type).generate(bits)


def _known(number: int) -> KeyType:
    try:
        return KeyType(number)
    except ValueError as exc:
        raise DecodeError(f"unknown key type {number}") from exc
