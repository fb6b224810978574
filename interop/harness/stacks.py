"""The transports, security protocols and muxers that tests ask for by name.

What is not installed is missing from :func:`available`, and asking for it is an error that says so.
"""

from __future__ import annotations

import importlib
import ssl
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import libp2p
from libp2p.abc import Service
from libp2p.addressing import Scope, scope, split_peer
from libp2p.swarm import SwarmConfig
from libp2p.testing.certificates import issue
from libp2p.transports.tcp import Tcp
from libp2p.transports.websocket import WebSocket, insecure_client_tls

from .contract import Contract, ContractError

TRANSPORTS = {
    "tcp": "libp2p.transports.tcp:Tcp",
    "ws": "libp2p.transports.websocket:WebSocket",
    "wss": "libp2p.transports.websocket:WebSocket",
    "quic-v1": "libp2p.transports.quic:Quic",
}
SECURITY = {"noise": "libp2p.security.noise:Noise", "tls": "libp2p.security.tls:Tls"}
MUXERS = {"yamux": "libp2p.muxers.yamux:Yamux", "mplex": "libp2p.muxers.mplex:Mplex"}
STANDALONE = ("quic-v1",)
"""Transports with security and muxer of their own."""

_LISTEN = {
    "tcp": "/ip4/{ip}/tcp/0",
    "ws": "/ip4/{ip}/tcp/0/ws",
    "wss": "/ip4/{ip}/tcp/0/tls/ws",
    "quic-v1": "/ip4/{ip}/udp/0/quic-v1",
}


def available() -> list[tuple[str, str | None, str | None]]:
    """Every combination of names that this installation can play."""
    found: list[tuple[str, str | None, str | None]] = []
    for transport in filter(lambda name: _find(TRANSPORTS, name) is not None, TRANSPORTS):
        if transport in STANDALONE:
            found.append((transport, None, None))
            continue
        for security in filter(lambda name: _find(SECURITY, name) is not None, SECURITY):
            found += [(transport, security, muxer) for muxer in MUXERS]
    return found


def _find(table: dict[str, str], name: str) -> Any:
    module, _, attribute = table[name].partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except ImportError:
        return None


def _get(table: dict[str, str], what: str, name: str | None) -> Any:
    found = _find(table, name) if name in table else None
    if found is None:
        raise ContractError(f"there is no {what} {name!r} here")
    return found


@asynccontextmanager
async def open_stack(contract: Contract, *services: Service, punching: bool = False) -> AsyncIterator[libp2p.Host]:
    """The host that ``contract`` asks for.

    Args:
        punching: listen in every role, dial from there, and believe that private addresses are of others: the internet
            of the hole-punch suite has no public ones.

    Raises:
        ContractError: a part of it is not here.
    """
    standalone = contract.transport in STANDALONE
    transport = _get(TRANSPORTS, "transport", contract.transport)
    if contract.transport == "wss":
        transport = _web_tls()
    elif contract.transport == "tcp":
        transport = Tcp(reuse_port=punching)
    elif not standalone:  # those that are make their certificate with the host's key: the class itself is given
        transport = transport()
    async with libp2p.open_host(
        listen=[_LISTEN[contract.transport].format(ip=contract.ip)] if punching or not contract.dialer else [],
        transports=[transport],
        security=None if standalone else [_get(SECURITY, "security protocol", contract.security)],
        muxers=None if standalone else [_get(MUXERS, "muxer", contract.muxer)()],
        services=services,
        config=libp2p.HostConfig(swarm=SwarmConfig(allow_private=punching)),
    ) as host:
        yield host


def _web_tls() -> WebSocket:
    """The suites have no authority: listeners sign for themselves, and dialers take anything."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "server.pem"
        path.write_bytes(issue("localhost").server)
        server.load_cert_chain(path)
    return WebSocket(server_tls=server, client_tls=insecure_client_tls())


def address_for_others(host: libp2p.Host) -> str:
    """The address to tell the dialer: one that is not of this machine alone, if there is any."""
    addrs: Sequence[libp2p.Multiaddr] = host.addrs
    best = [addr for addr in addrs if scope(split_peer(addr)[0]) is not Scope.LOOPBACK]
    return str((best or addrs)[0])
