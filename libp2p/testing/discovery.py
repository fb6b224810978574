"""Discovery without a network: a board on which all hosts of a test put up their names.

::

    board = Noticeboard()
    services = [board.reader, ...]  # one for each host
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio

from ..abc import Host, Service
from ..peer_id import PeerId

__all__ = ["BoardReader", "Noticeboard"]

_ADDRESS_TTL = 600.0
_BUFFER = 16


class Noticeboard:
    """Who advertises what.

    Attributes:
        notices: the hosts under each name, in the order they came.
    """

    def __init__(self) -> None:
        self.notices: dict[str, dict[PeerId, Host]] = {}

    def reader(self) -> BoardReader:
        """The service with which one host uses the board."""
        return BoardReader(self)


class BoardReader(Service):
    """A :class:`~libp2p.abc.Discovery` that knows what is on the board. Made by :meth:`Noticeboard.reader`.

    Attributes:
        looks: how often this host asked who is there.
    """

    def __init__(self, board: Noticeboard) -> None:
        self._board = board
        self._host: Host | None = None
        self.looks: int = 0

    async def run(self, host: Host, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Know the host."""
        self._host = host
        task_status.started()

    def _running(self) -> Host:
        if self._host is None:
            raise RuntimeError("the board's reader is not running: give it to the host")
        return self._host

    @asynccontextmanager
    async def advertise(self, name: str, /) -> AsyncIterator[None]:
        """See :class:`~libp2p.abc.Discovery`."""
        host, hosts = self._running(), self._board.notices.setdefault(_checked(name), {})
        hosts[host.local_peer] = host
        try:
            yield
        finally:
            del hosts[host.local_peer]

    @asynccontextmanager
    async def find_peers(self, name: str, /) -> AsyncIterator[trio.abc.ReceiveChannel[PeerId]]:
        """See :class:`~libp2p.abc.Discovery`. The channel ends with who is there now."""
        host = self._running()
        self.looks += 1
        found = self._board.notices.get(_checked(name), {})
        sender, receiver = trio.open_memory_channel[PeerId](max(_BUFFER, len(found)))
        with sender, receiver:
            for peer, other in found.items():
                if peer != host.local_peer:
                    host.peerstore.add_addrs(peer, other.listen_addrs(), ttl=_ADDRESS_TTL)
                    sender.send_nowait(peer)
            sender.close()
            yield receiver


def _checked(name: str) -> str:
    if not name:
        raise ValueError("a name must not be empty")
    return name
