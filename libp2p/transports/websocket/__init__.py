"""WebSocket: ``/ip4/…/tcp/…/ws``, and with TLS ``/tls/ws`` or ``/wss``. What browsers can speak.

The bytes of a libp2p connection travel as binary messages; security and muxer run inside, also over TLS. TLS here is
the web's: a server shows a certificate of a usual authority, and a client verifies its name.

A WebSocket listener has a port of its own; it does not share one with plain TCP.

Specifications: libp2p/specs websockets, RFC 6455.
"""

from ._machine import MAX_FRAME_IN, MAX_FRAME_OUT
from ._stream import WebSocketStream
from ._transport import HANDSHAKE_TIMEOUT, WebSocket, WebSocketListener, insecure_client_tls

__all__ = [
    "HANDSHAKE_TIMEOUT",
    "MAX_FRAME_IN",
    "MAX_FRAME_OUT",
    "WebSocket",
    "WebSocketListener",
    "WebSocketStream",
    "insecure_client_tls",
]
