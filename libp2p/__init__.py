"""libp2p for Python, on Trio.

    async with libp2p.open_host(listen=["/ip4/0.0.0.0/tcp/4001"]) as host:
        host.handle("/echo/1.0.0", echo)
        ...

The public names here are all most programs need; the interfaces are in :mod:`libp2p.abc`, errors in
:mod:`libp2p.errors`, events in :mod:`libp2p.events`.
"""

from multiaddr import Multiaddr as Multiaddr

from ._facade import default_security as default_security
from ._facade import default_services as default_services
from ._facade import open_host as open_host
from ._version import __version__ as __version__
from .abc import Connection as Connection
from .abc import Host as Host
from .abc import Service as Service
from .abc import Stream as Stream
from .crypto.keys import KeyType as KeyType
from .crypto.keys import PrivateKey as PrivateKey
from .crypto.keys import PublicKey as PublicKey
from .crypto.keys import generate as generate_key
from .errors import ConnectionClosed as ConnectionClosed
from .errors import DialError as DialError
from .errors import Libp2pError as Libp2pError
from .errors import LimitedConnection as LimitedConnection
from .errors import LimitExceeded as LimitExceeded
from .errors import NegotiationError as NegotiationError
from .errors import StreamReset as StreamReset
from .host import HostConfig as HostConfig
from .peer_id import PeerId as PeerId

__all__ = [
    "Connection",
    "ConnectionClosed",
    "DialError",
    "Host",
    "HostConfig",
    "KeyType",
    "Libp2pError",
    "LimitExceeded",
    "LimitedConnection",
    "Multiaddr",
    "NegotiationError",
    "PeerId",
    "PrivateKey",
    "PublicKey",
    "Service",
    "Stream",
    "StreamReset",
    "__version__",
    "default_security",
    "default_services",
    "generate_key",
    "open_host",
]
