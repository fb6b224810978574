"""QUIC version 1: ``/ip4/…/udp/…/quic-v1`` and ``/ip6/…/udp/…/quic-v1``.

QUIC brings its own security (TLS 1.3 with certificates on both sides) and its own streams, so what this transport makes
needs no upgrade. One UDP socket serves a listen address and all dials that fit it: others see a host dial from where it
listens, which is what hole punching and observed addresses need.

Give the class itself to :func:`libp2p.open_host`, which makes it with the host's key::

    async with libp2p.open_host(listen=["/ip4/0.0.0.0/udp/4001/quic-v1"], transports=[Tcp(), Quic]) as host: ...

Needs the extra ``quic``. Specifications: libp2p/specs quic; RFC 9000.
"""

from __future__ import annotations

try:
    import qh3 as _engine_package
except ImportError as _missing:
    raise ImportError("QUIC needs an extra package: pip install 'libp2p-trio[quic]'") from _missing

from ._transport import Quic, QuicListener

__all__ = ["Quic", "QuicListener"]

del _engine_package
