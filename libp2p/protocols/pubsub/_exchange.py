"""Connecting to peers that the router wants, or that others proposed."""

from __future__ import annotations

from collections.abc import Callable

import trio

from ...abc import Host
from ...errors import DecodeError, Libp2pError
from ...peer_id import PeerId
from ...records.peer_record import open_peer_record

MAX_CONNECTS = 16
"""Attempts under way; what is wanted meanwhile is dropped and counted."""
CONNECT_TIMEOUT = 10.0
"""Seconds for one attempt."""
_RECORD_TTL = 3600.0
"""Seconds that the addresses of a proposed peer are remembered (go keeps them for an hour at most, too)."""


class Connector:
    """Connects to peers in the background.

    Args:
        count: called with the name of what happened.
    """

    def __init__(self, count: Callable[[str], None]) -> None:
        self._count = count
        self._under_way: set[PeerId] = set()

    def want(self, nursery: trio.Nursery, host: Host, peer: PeerId, record: bytes) -> None:
        """Try to connect to ``peer``; its address is in ``record``, or known already."""
        if peer in self._under_way or peer == host.local_peer:
            return
        if len(self._under_way) >= MAX_CONNECTS:
            self._count("connects_left_out")
            return
        if record and not self._remember(host, peer, record):
            self._count("bad_peer_record")
            return
        self._under_way.add(peer)
        nursery.start_soon(self._connect, host, peer)

    def _remember(self, host: Host, peer: PeerId, record: bytes) -> bool:
        """Take a signed record, if it is about ``peer``."""
        try:
            if open_peer_record(record).peer != peer:
                return False
            host.peerstore.add_envelope(record, ttl=_RECORD_TTL)
        except DecodeError:
            return False
        return True

    async def _connect(self, host: Host, peer: PeerId) -> None:
        try:
            with trio.move_on_after(CONNECT_TIMEOUT):
                await host.connect(peer)
                self._count("connected_to_wanted")
        except Libp2pError:
            self._count("connects_failed")
        finally:
            self._under_way.discard(peer)
