"""``open_host`` with defaults for everything: what most programs use."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractAsyncContextManager

from multiaddr import Multiaddr

from .abc import Host, Muxer, Peerstore, Resolver, Routing, SecurityFactory, Service, Transport, TransportFactory
from .crypto.keys import PrivateKey, generate
from .host import HostConfig
from .host import open_host as open_host_from_parts
from .muxers.yamux import Yamux
from .peerstore import MemoryPeerstore
from .protocols.identify import Identify
from .protocols.ping import Ping
from .security.noise import Noise
from .security.pnet import PreSharedKey
from .security.tls import Tls
from .security.tls import installed as tls_installed
from .swarm import Gater
from .transports.dns import DnsResolver
from .transports.quic import Quic
from .transports.tcp import Tcp
from .transports.websocket import WebSocket


def default_services() -> list[Service]:
    """What every host serves: identify and ping."""
    return [Identify(), Ping()]


def default_security() -> list[SecurityFactory]:
    """What proves identities: Noise, and TLS where the extra ``tls`` is installed."""
    return [Noise, Tls] if tls_installed() else [Noise]


def _default_transports(psk: PreSharedKey | None, *, reuse_port: bool) -> list[Transport | TransportFactory]:
    """TCP, WebSocket, and QUIC unless the host is in a private network, which QUIC cannot be part of."""
    tcp = Tcp(reuse_port=reuse_port)
    return [tcp, WebSocket()] if psk is not None else [Quic, tcp, WebSocket()]


def _check_slips(listen: object, key: object, services: Sequence[object]) -> None:
    """Say what is wrong where the caller sees it: inside, each of these comes out as something else."""
    if isinstance(listen, str | Multiaddr):
        raise TypeError(f"listen is a list of addresses: listen=[{str(listen)!r}]")
    if not isinstance(key, PrivateKey | None):
        raise TypeError("key is a PrivateKey; libp2p.crypto.key_file.load_or_create reads one from a file")
    for service in services:
        if isinstance(service, type):
            raise TypeError(f"a service is an object: services=[{service.__name__}(...)]")


def open_host(
    *,
    listen: Iterable[Multiaddr | str] = (),
    key: PrivateKey | None = None,
    services: Sequence[Service] = (),
    transports: Sequence[Transport | TransportFactory] | None = None,
    security: Sequence[SecurityFactory] | None = None,
    muxers: Sequence[Muxer] | None = None,
    peerstore: Peerstore | None = None,
    resolver: Resolver | None = None,
    gater: Gater | None = None,
    psk: PreSharedKey | None = None,
    routing: Routing | None = None,
    config: HostConfig | None = None,
) -> AbstractAsyncContextManager[Host]:
    """Run a host while the ``async with`` block is open.

    When the block is entered the host is listening; when it is left nothing of it is running.

    Args:
        listen: addresses to listen on, for example ``/ip4/0.0.0.0/tcp/4001``; port 0 takes a free one. None: dial only.
        key: the identity; by default a new Ed25519 key. :func:`libp2p.crypto.key_file.load_or_create` keeps one.
        services: run besides :func:`default_services`; a service of a default's class takes its place.
        transports: by default QUIC (for which the extra ``quic`` is needed; not with ``psk``), TCP and WebSocket; to
            listen with TLS, a ``WebSocket`` with a certificate. Those that prove identities themselves, as
            :class:`libp2p.transports.quic.Quic`, are given as their class: the host makes them with its key.
        security: best first; by default :func:`default_security`. :class:`libp2p.security.plaintext.Plaintext` must be
            asked for.
        muxers: best first; by default yamux.
        peerstore: by default in memory; it is closed with the host.
        resolver: by default the system's resolver, and dnspython for ``/dnsaddr``.
        gater: allows everything by default.
        psk: the key of the private network to be in; none: the public one.
        routing: is asked where a peer is when a peer id is to be reached and no address of it works; for example the
            :class:`~libp2p.protocols.kad.Kademlia` that is also among ``services``.
        config: timeouts and limits.

    Raises:
        TypeError: one address instead of a list of them, a service's class instead of a service, text instead of a key.
        PrivateNetworkRequired: a private network is required and there is no key, or a transport cannot be part of one.
        TransportError: a listen address cannot be bound.
        StoreLocked: the peerstore's file is in use.
    """
    _check_slips(listen, key, services)
    defaults = [
        default for default in default_services() if not any(isinstance(given, type(default)) for given in services)
    ]
    reuse_port = any(service.reuses_ports for service in services)
    return open_host_from_parts(
        key=key if key is not None else generate(),
        listen=listen,
        services=[*defaults, *services],
        transports=transports if transports is not None else _default_transports(psk, reuse_port=reuse_port),
        security=security if security is not None else default_security(),
        muxers=muxers if muxers is not None else [Yamux()],
        peerstore=peerstore if peerstore is not None else MemoryPeerstore(),
        resolver=resolver if resolver is not None else DnsResolver(),
        gater=gater if gater is not None else Gater(),
        config=config if config is not None else HostConfig(),
        protector=psk,
        routing=routing,
    )
