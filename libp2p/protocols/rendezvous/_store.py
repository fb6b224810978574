"""What a rendezvous point asks of a store behind its memory. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from ...peer_id import PeerId


class StoredRegistration(NamedTuple):
    """A registration as it comes back from a store.

    Attributes:
        record: the peer's signed record, as it arrived.
        left: seconds until it ends.
    """

    namespace: str
    peer: PeerId
    record: bytes
    left: float


class RegistrationStore(Protocol):
    """Where registrations survive a restart; :class:`libp2p.protocols.rendezvous.sqlite.SqliteRegistrations` is one."""

    def load(self) -> Sequence[StoredRegistration]:
        """What was kept and has not ended, the oldest first."""
        ...

    async def save(self, namespace: str, peer: PeerId, record: bytes, ttl: float) -> None:
        """Keep a registration for ``ttl`` seconds from now, in place of an older one. Trouble is the store's own."""
        ...

    async def remove(self, namespace: str, peer: PeerId) -> None:
        """Forget a registration."""
        ...

    async def aclose(self) -> None:
        """Give back files, cancelled or not; idempotent."""
        ...
