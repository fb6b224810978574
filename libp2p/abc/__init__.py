"""The interfaces between the layers. No implementation.

Bytes flow: transport → security → muxer → stream. A transport returns bytes (:class:`RawConnection`) or a finished
connection (:class:`SecureMuxedConnection`); a security protocol turns bytes into a :class:`SecureStream`; a muxer turns
that into a :class:`MuxedConnection`; everybody above sees :class:`Stream`, :class:`Connection` and :class:`Host`.

Rules that hold for all of them: only what may block is ``async``, and it is a checkpoint; ``aclose`` always closes, and
when cancelled it closes without manners; whatever has a life has ``run``, which only its owner calls.
"""

from ._bytes import Buffer, Direction, DirectStream, ProtocolId, RawConnection
from ._connections import Connection, MuxedConnection, Muxer, SecureMuxedConnection
from ._host import EventT, Host, Network, Target
from ._peerstore import Peerstore
from ._security import EagerSecurityProtocol, Protector, SecureChannel, SecureStream, SecurityFactory, SecurityProtocol
from ._services import Discovery, Routing, Service
from ._streams import Agreement, MuxedStream, Opening, Stream, StreamHandler
from ._transports import Listener, Resolver, Transport, TransportFactory

__all__ = [
    "Agreement",
    "Buffer",
    "Connection",
    "DirectStream",
    "Direction",
    "Discovery",
    "EagerSecurityProtocol",
    "EventT",
    "Host",
    "Listener",
    "MuxedConnection",
    "MuxedStream",
    "Muxer",
    "Network",
    "Opening",
    "Peerstore",
    "Protector",
    "ProtocolId",
    "RawConnection",
    "Resolver",
    "Routing",
    "SecureChannel",
    "SecureMuxedConnection",
    "SecureStream",
    "SecurityFactory",
    "SecurityProtocol",
    "Service",
    "Stream",
    "StreamHandler",
    "Target",
    "Transport",
    "TransportFactory",
]
