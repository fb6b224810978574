"""yamux, ``/yamux/1.0.0``: streams with flow control over one connection.

Specification: libp2p/specs yamux/README.md.
"""

from __future__ import annotations

from ...abc import Direction, MuxedConnection, Muxer, ProtocolId, SecureStream
from .._connection import MachineConnection
from ._config import YamuxConfig
from ._machine import YamuxMachine

__all__ = ["Yamux", "YamuxConfig"]


class Yamux(Muxer):
    """The yamux muxer.

    Args:
        config: bounds and times.
    """

    protocol: ProtocolId = "/yamux/1.0.0"

    def __init__(self, config: YamuxConfig | None = None) -> None:
        self._config = config or YamuxConfig()

    def mux(self, stream: SecureStream, *, direction: Direction, initial: bytes = b"") -> MuxedConnection:
        """See :class:`libp2p.abc.Muxer`."""
        machine = YamuxMachine(self._config, client=direction is Direction.OUTBOUND)
        return MachineConnection(machine, stream, direction=direction, initial=initial)
