"""QUIC version 1: ``/ip4/…/udp/…/quic-v1`` and ``/ip6/…/udp/…/quic-v1``.

QUIC brings its own security (TLS 1.3 with certificates on both sides) and its own streams, so what this transport makes
needs no upgrade. One UDP socket serves a listen address and all dials that fit it: others see a host dial from where it
listens, which is what hole punching and observed addresses need.

Needs qh3, which the extra ``quic`` installs. It takes 0.1 to 0.2 s to import, so it is loaded when QUIC is first used,
outside of the event loop. Specifications: libp2p/specs quic; RFC 9000.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

import trio
from multiaddr import Multiaddr

from ...abc import Listener, SecureMuxedConnection, Transport
from ...addressing import names
from ...crypto.keys import PrivateKey
from ...errors import TransportError
from ...peer_id import PeerId

if TYPE_CHECKING:
    from ._transport import QuicTransport

__all__ = ["Quic", "installed"]

_TRANSPORT = f"{__name__}._transport"
_SHAPES = (("ip4", "udp", "quic-v1"), ("ip6", "udp", "quic-v1"))


def installed() -> bool:
    """Whether qh3 is there, without loading it."""
    return importlib.util.find_spec("qh3") is not None


class Quic(Transport):
    """QUIC for one host. :func:`libp2p.open_host` uses it by default; when told of transports, give it the class.

    Without the extra ``quic``, dials and listening fail, and their error says so.

    Args:
        key: the host's identity key; it vouches for a certificate that is made anew for each transport.
    """

    brings_security = True

    def __init__(self, key: PrivateKey) -> None:
        self._key = key
        self._nursery: trio.Nursery | None = None
        self._transport: QuicTransport | None = None
        self._loading = trio.Lock()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Run the sockets; they all close when this ends."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                task_status.started()
                await trio.sleep_forever()
        finally:
            self._nursery = None
            self._transport = None

    def can_dial(self, addr: Multiaddr) -> bool:
        return names(addr) in _SHAPES

    def can_listen(self, addr: Multiaddr) -> bool:
        return self.can_dial(addr)

    async def dial(self, addr: Multiaddr, *, peer: PeerId | None) -> SecureMuxedConnection:
        """Connect to ``addr``, from a listening socket where one fits.

        Raises:
            PeerIdMismatch, SecurityError: the peer is not who it should be.
            SecurityError: the installed engine does not authenticate both ends.
            TransportError: it did not work, and why.
        """
        return await (await self._load(addr)).dial(addr, peer=peer)

    async def punch(self, addr: Multiaddr, *, peer: PeerId) -> SecureMuxedConnection:
        """Open a way for what comes from ``addr``, until cancelled; the connection arrives at the listener.

        Raises:
            TransportError: no listening socket can reach it.
        """
        return await (await self._load(addr)).punch(addr, peer=peer)

    async def listen(self, addr: Multiaddr) -> Listener:
        """Listen on ``addr``.

        Raises:
            SecurityError: the installed engine does not authenticate both ends.
            TransportError: it cannot be bound, or the extra is not installed.
        """
        return await (await self._load(addr)).listen(addr)

    async def _load(self, addr: Multiaddr) -> QuicTransport:
        async with self._loading:
            transport = self._transport
            if transport is None:
                if self._nursery is None:
                    raise RuntimeError("the transport is not running")
                if not installed():
                    raise TransportError(addr, "QUIC needs an extra: pip install 'libp2p-trio[quic]'")
                module = await _load_module()
                transport = module.QuicTransport(self._key)
                await self._nursery.start(transport.run)
                self._transport = transport
            return transport


async def _load_module() -> Any:
    """The module with the engine."""
    if hasattr(trio.lowlevel.current_clock(), "autojump_threshold"):
        return importlib.import_module(_TRANSPORT)  # such a clock jumps while a thread works
    return await trio.to_thread.run_sync(importlib.import_module, _TRANSPORT)
