"""Executable contracts: what every transport, security protocol, muxer, stream and peerstore must do.

Each is a class of tests for pytest with pytest-trio. Subclass it in your tests, say how to make yours, and pytest runs
all of it::

    class TestMine(TransportConformance):
        def make(self) -> Transport:
            return Mine()

The tests work on any clock. Use a virtual one (pytest-trio's ``autojump_clock``) where no sockets are involved: what
would hang then fails at once.
"""

from .muxer import ConnectionConformance, ConnectionPair, MuxerConformance, SecurePair
from .peerstore import PeerstoreConformance
from .security import SecurityConformance
from .stream import StreamConformance, StreamSource
from .transport import TransportConformance

__all__ = [
    "ConnectionConformance",
    "ConnectionPair",
    "MuxerConformance",
    "PeerstoreConformance",
    "SecurePair",
    "SecurityConformance",
    "StreamConformance",
    "StreamSource",
    "TransportConformance",
]
