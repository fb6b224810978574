"""What is known about peers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import trio

if TYPE_CHECKING:
    from multiaddr import Multiaddr

    from ..crypto.keys import PublicKey
    from ..peer_id import PeerId
    from ._bytes import ProtocolId


class Peerstore(Protocol):
    """What is known about peers. Synchronous: its answers are needed inside decisions."""

    def addrs(self, peer: PeerId) -> Sequence[Multiaddr]:
        """Unexpired addresses, best first."""
        ...

    def add_addrs(self, peer: PeerId, addrs: Iterable[Multiaddr], *, ttl: float) -> None:
        """Remember ``addrs`` for ``ttl`` seconds; a longer remaining life is kept."""
        ...

    def set_addrs(self, peer: PeerId, addrs: Iterable[Multiaddr], *, ttl: float) -> None:
        """Replace all addresses of ``peer``."""
        ...

    def key(self, peer: PeerId) -> PublicKey | None:
        """The public key, from the id itself where it holds one."""
        ...

    def add_key(self, peer: PeerId, key: PublicKey) -> None:
        """Remember a key; ValueError when it does not belong to ``peer``."""
        ...

    def protocols(self, peer: PeerId) -> frozenset[ProtocolId]:
        """The protocol ids the peer said it serves."""
        ...

    def set_protocols(self, peer: PeerId, protocols: Iterable[ProtocolId]) -> None:
        """Replace the protocol ids of ``peer``."""
        ...

    def metadata(self, peer: PeerId) -> Mapping[str, str]:
        """Small facts, for example ``agent_version``."""
        ...

    def set_metadata(self, peer: PeerId, key: str, value: str) -> None:
        """Remember a small fact."""
        ...

    def add_envelope(self, envelope: bytes, *, ttl: float) -> bool:
        """Take a signed peer record. False when it is older than the one held.

        Raises:
            DecodeError: it does not parse, its signature is wrong, or its signer is not its subject.
        """
        ...

    def envelope(self, peer: PeerId) -> bytes | None:
        """The newest signed peer record of ``peer``, as it arrived."""
        ...

    def peers(self) -> Sequence[PeerId]:
        """All peers something is known about."""
        ...

    def set_connected(self, peer: PeerId, connected: bool) -> None:
        """Tell whether ``peer`` is connected; connected peers are never evicted."""
        ...

    def forget(self, peer: PeerId) -> None:
        """Drop all that is known about ``peer``."""
        ...

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Expire, and persist where there is a disk; writes what is left when cancelled."""
        ...

    def close(self) -> None:
        """Give back files; idempotent."""
        ...
