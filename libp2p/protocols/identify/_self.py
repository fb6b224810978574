"""What this host says about itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from multiaddr import Multiaddr

from ...abc import Connection, Host
from ...addressing import split_peer
from ...records.peer_record import MAX_ADDRS, PeerRecord
from ._addresses import as_observed, is_here, without_loopback
from ._codec import IdentifyInfo, encode


class SelfDescription:
    """Makes the identify messages of a host. The signed record in them is made anew only when the addresses change.

    Args:
        agent_version: what this software calls itself.
        protocol_version: the family of protocols.
        clock: wall clock in seconds, from which the first sequence number is taken.
    """

    def __init__(self, *, agent_version: str, protocol_version: str, clock: Callable[[], float]) -> None:
        self._agent_version = agent_version
        self._protocol_version = protocol_version
        self._clock = clock
        self._seq = 0
        self._record: tuple[tuple[Multiaddr, ...], bytes] | None = None

    def message_for(self, host: Host, connection: Connection) -> bytes:
        """The message for the peer at the other end of ``connection``."""
        own = [split_peer(addr)[0] for addr in host.addrs]
        remote = connection.remote_addr
        elsewhere = without_loopback(own)
        # One record for everybody: two of one sequence number would contradict each other wherever they meet. It
        # lists loopback addresses only when there are no others, and then it is for peers on this machine.
        record = self._sealed(host, elsewhere or own) if elsewhere or is_here(remote) else None
        return encode(
            IdentifyInfo(
                public_key=host.private_key.public_key.marshal(),
                listen_addrs=tuple(own) if is_here(remote) else elsewhere,
                protocols=tuple(host.protocols),
                observed_addr=as_observed(remote),
                protocol_version=self._protocol_version,
                agent_version=self._agent_version,
                signed_peer_record=record,
            )
        )

    def _sealed(self, host: Host, addrs: Sequence[Multiaddr]) -> bytes | None:
        listed = tuple(addrs[:MAX_ADDRS])
        if not listed:
            return None
        if self._record is None or self._record[0] != listed:
            # Time makes it grow across restarts (E8), the sum when the clock steps back or is coarse.
            self._seq = max(self._seq + 1, int(self._clock() * 1_000_000_000))
            record = PeerRecord(peer=host.local_peer, seq=self._seq, addrs=listed)
            self._record = (listed, record.seal(host.private_key))
        return self._record[1]
