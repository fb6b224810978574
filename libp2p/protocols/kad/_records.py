"""What a value may be, by the namespace of its key, and which of several is the best. Pure.

A key is ``/namespace/rest``. A key of another form, and one of a namespace nobody here has rules for, is refused, by
whoever stores as by whoever looks it up: what cannot be checked is somebody else's disk for rent (case K2).

Source: libp2p/specs kad-dht, "Entry validation".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from ...crypto.keys import unmarshal_public_key
from ...errors import DecodeError, ServiceError
from ...peer_id import PeerId
from ...records.ipns import IpnsRecord, open_record

MAX_VALUE = 64 * 1024
"""Bytes of a value (rust)."""
MAX_KEY = 1024
"""Bytes of the key of a value (ours)."""


class InvalidRecord(ServiceError):
    """A value is not one that may stand under its key.

    Attributes:
        key: the key.
        reason: what is wrong.
    """

    def __init__(self, key: bytes, reason: str) -> None:
        super().__init__(key, reason)
        self.key = key
        self.reason = reason

    def __str__(self) -> str:
        return f"the value under {self.key[:80]!r} is refused: {self.reason}"


class Validator(Protocol):
    """The rules of a namespace. Both methods must come to the same result everywhere, and must not block."""

    def validate(self, key: bytes, value: bytes, now: float) -> None:
        """Check ``value``.

        Args:
            key: the whole key, ``/namespace/rest``.
            value: at most 64 KiB from anybody.
            now: the time, in seconds since 1970.

        Raises:
            InvalidRecord, DecodeError: it must not be stored or used.
        """
        ...

    def select(self, key: bytes, values: Sequence[bytes], now: float) -> int:
        """Which of ``values``, all valid and at least one, is the best: its index. The first of equals."""
        ...


class PublicKeyValidator:
    """``/pk/<peer id>``: the peer's public key, serialized."""

    def validate(self, key: bytes, value: bytes, now: float) -> None:
        """The key belongs to the peer."""
        peer = PeerId.from_bytes(_rest(key))
        if not peer.matches(unmarshal_public_key(value)):
            raise InvalidRecord(key, "the public key of another peer")

    def select(self, key: bytes, values: Sequence[bytes], now: float) -> int:
        """They are all alike."""
        return 0


class IpnsValidator:
    """``/ipns/<peer id>``: an IPNS record, the newest that has not ended."""

    def validate(self, key: bytes, value: bytes, now: float) -> None:
        """Signed by the name's key, and not ended."""
        if open_record(value, PeerId.from_bytes(_rest(key))).expires <= now:
            raise InvalidRecord(key, "it has ended")

    def select(self, key: bytes, values: Sequence[bytes], now: float) -> int:
        """The highest sequence number, then the latest end, then the greater bytes."""
        name = PeerId.from_bytes(_rest(key))
        records: list[IpnsRecord] = [open_record(value, name) for value in values]
        return max(range(len(values)), key=lambda i: (records[i].sequence, records[i].expires, values[i]))


class AnyValue:
    """Takes every value, and of several the first: for tests and for networks whose members trust each other."""

    def validate(self, key: bytes, value: bytes, now: float) -> None:
        """Everything is valid."""

    def select(self, key: bytes, values: Sequence[bytes], now: float) -> int:
        """The first."""
        return 0


def public_validators() -> dict[str, Validator]:
    """The namespaces of the public network: ``pk`` and ``ipns``."""
    return {"pk": PublicKeyValidator(), "ipns": IpnsValidator()}


class Namespaces:
    """The namespaces a node knows.

    Args:
        validators: the rules, by namespace without slashes.
    """

    def __init__(self, validators: Mapping[str, Validator]) -> None:
        if any(not name or "/" in name for name in validators):
            raise ValueError("a namespace is a word without slashes")
        self._validators = {name.encode(): validator for name, validator in validators.items()}

    def of(self, key: bytes) -> Validator:
        """The rules for ``key``.

        Raises:
            InvalidRecord: its form is wrong, it is too long, or nobody here knows its namespace.
        """
        if len(key) > MAX_KEY:
            raise InvalidRecord(key, f"a key of {len(key)} bytes is above the limit of {MAX_KEY}")
        parts = key.split(b"/", 2)
        if len(parts) != 3 or parts[0] or not parts[2]:
            raise InvalidRecord(key, "a key must be /namespace/rest")
        validator = self._validators.get(parts[1])
        if validator is None:
            raise InvalidRecord(key, "nobody here has rules for its namespace")
        return validator

    def validate(self, key: bytes, value: bytes, now: float) -> None:
        """Check ``value``.

        Raises:
            InvalidRecord: it is refused.
        """
        validator = self.of(key)
        if len(value) > MAX_VALUE:
            raise InvalidRecord(key, f"a value of {len(value)} bytes is above the limit of {MAX_VALUE}")
        try:
            validator.validate(key, value, now)
        except DecodeError as exc:
            raise InvalidRecord(key, str(exc)) from exc

    def is_valid(self, key: bytes, value: bytes, now: float) -> bool:
        """Whether :meth:`validate` takes ``value``: what was valid when it came may have ended."""
        try:
            self.validate(key, value, now)
        except InvalidRecord:
            return False
        return True

    def better(self, key: bytes, value: bytes, held: bytes, now: float) -> bool:
        """Whether ``value`` is to take the place of ``held``; both are valid."""
        return value != held and self.of(key).select(key, (held, value), now) == 1


def _rest(key: bytes) -> bytes:
    return key.split(b"/", 2)[2]
