"""mplex, ``/mplex/6.7.0``: deprecated, without flow control; for old peers, and only when asked for.

Specification: libp2p/specs mplex/README.md.
"""

from __future__ import annotations

from ...abc import Direction, MuxedConnection, Muxer, ProtocolId, SecureStream
from .._connection import MachineConnection
from ._machine import MplexConfig, MplexMachine

__all__ = ["Mplex", "MplexConfig"]


class Mplex(Muxer):
    """The mplex muxer. A stream whose reader is slow is reset when its bound is reached: offer it after yamux.

    Args:
        config: bounds.
    """

    protocol: ProtocolId = "/mplex/6.7.0"

    def __init__(self, config: MplexConfig | None = None) -> None:
        self._config = config or MplexConfig()

    def mux(self, stream: SecureStream, *, direction: Direction, initial: bytes = b"") -> MuxedConnection:
        """See :class:`libp2p.abc.Muxer`."""
        machine = MplexMachine(self._config)
        return MachineConnection(machine, stream, direction=direction, initial=initial)
