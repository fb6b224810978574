"""How operations of the DHT fail."""

from __future__ import annotations

from ...errors import ServiceError


class NotFound(ServiceError):
    """Nobody who was asked has a valid value under the key.

    Attributes:
        key: the key.
        asked: how many peers were asked.
    """

    def __init__(self, key: bytes, asked: int) -> None:
        super().__init__(key, asked)
        self.key = key
        self.asked = asked

    def __str__(self) -> str:
        return f"no value under {self.key[:80]!r}: {self.asked} peers were asked"


class NotStored(ServiceError):
    """Nobody took what was to be stored.

    Attributes:
        key: the key.
        reason: why.
    """

    def __init__(self, key: bytes, reason: str) -> None:
        super().__init__(key, reason)
        self.key = key
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.key[:80]!r} is stored nowhere: {self.reason}"


class Ended(ServiceError):
    """A request came while this host is closing."""


class StoreBusy(ServiceError):
    """The disk is slower than what is to be stored comes in; this was not taken."""
