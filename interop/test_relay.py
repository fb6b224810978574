"""Circuit relay v2 with real peers in all three places: the relay, whoever reserves, whoever dials. Time here is real.

Every arrangement has this library in at least one place. ``cell`` is (a peer, the three places, the transport). Over
QUIC, those with two other implementations are of the nightly tier.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import product
from typing import Any

import pytest
import trio

import libp2p
from libp2p.abc import Transport, TransportFactory
from libp2p.protocols.relay import RelayClient, RelayServer
from libp2p.transports.quic import Quic
from libp2p.transports.tcp import Tcp

from .conftest import get_features
from .ours import ECHO
from .peer import start_peer
from .relays import OURS, Party, They, We

NATIVE = ("go", "js", "rust")
LISTEN = {"tcp": "/ip4/127.0.0.1/tcp/0", "quic-v1": "/ip4/127.0.0.1/udp/0/quic-v1"}
LIMIT = 128 * 1024
"""Bytes each way that all four let through one circuit by default."""

pytestmark = pytest.mark.real_clock


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    found = get_features(metafunc.config)
    parties = [OURS, *(name for name in NATIVE if name in found)]
    if metafunc.definition.name == "test_cut":
        arrangements: list[tuple[str, ...]] = [(name, OURS, OURS) for name in parties]
    else:
        arrangements = [places for places in product(parties, repeat=3) if OURS in places]
    metafunc.parametrize(
        "cell", [_cell(places, transport, found) for transport, places in product(LISTEN, arrangements)]
    )


def _cell(places: tuple[str, ...], transport: str, found: dict[str, Any]) -> Any:
    others = [name for name in places if name != OURS]
    absent = [name for name in others if found[name] is None]
    marks = [pytest.mark.skip(reason="not built: its toolchain is absent, see above")] if absent else []
    if transport != "tcp" and len(set(others)) > 1:
        marks.append(pytest.mark.bar_n)
    relay, listener, dialer = places
    text = f"{dialer}>{relay}>{listener}"
    return pytest.param((others[0] if others else OURS, text, transport), id=f"{text}-{transport}", marks=marks)


@asynccontextmanager
async def party(name: str, relay: str, transport: str) -> AsyncIterator[Party]:
    """Run somebody with ``--relay``, or the services that are the same."""
    if name == OURS:
        service = RelayServer() if relay == "server" else RelayClient()
        made: list[Transport | TransportFactory] = [Tcp()] if transport == "tcp" else [Quic]
        async with libp2p.open_host(listen=[LISTEN[transport]], transports=made, services=[service]) as host:
            yield We(host, limited=True)
    else:
        async with start_peer(name, relay=relay, pubsub="none", transport=transport) as peer:
            yield They(peer, transport)


@asynccontextmanager
async def connected(cell: tuple[str, str, str]) -> AsyncIterator[tuple[Party, Party]]:
    """The dialer and the listener, connected through the relay."""
    dialing, relaying, listening = cell[1].split(">")
    transport = cell[2]
    with trio.fail_after(90):
        async with (
            party(relaying, "server", transport) as relay,
            party(listening, "client", transport) as listener,
            party(dialing, "client", transport) as dialer,
        ):
            await listener.reserve(relay.addr)
            await dialer.dial(f"{relay.addr}/p2p-circuit/p2p/{listener.peer_id}")
            yield dialer, listener


async def test_circuit(cell: tuple[str, str, str]) -> None:
    """A reservation, a circuit, and the two talk over it in both directions."""
    async with connected(cell) as (dialer, listener):
        await dialer.ping(listener.peer_id)
        await listener.ping(dialer.peer_id)
        await listener.identify(dialer.peer_id)
        if not cell[1].startswith("js>") or not cell[1].endswith(">rust"):
            # rust tells js that it sees it at /p2p/RELAY/p2p-circuit, as in the specification. js throws the whole
            # answer away for it: its AddressManager.addObservedAddr wants a host in every address.
            await dialer.identify(listener.peer_id)


async def _echo(stream: libp2p.Stream) -> None:
    async for chunk in stream:
        await stream.send_all(chunk)


async def test_cut(cell: tuple[str, str, str]) -> None:
    """The relay cuts the circuit when it has carried what it may; the hosts live on."""
    async with connected(cell) as (dialer, listener):
        assert isinstance(dialer, We) and isinstance(listener, We)
        peer = listener.host.local_peer
        with listener.host.handle(ECHO, _echo, allow_limited=True):
            with pytest.raises((libp2p.StreamReset, libp2p.ConnectionClosed)):
                async with await dialer.host.open_stream(peer, ECHO, allow_limited=True) as stream:
                    await stream.send_all(bytes(2 * LIMIT))
                    await stream.send_eof()
                    async for _ in stream:
                        pass
            while dialer.host.connections(peer):
                await trio.sleep(0.05)
            assert dialer.host.connections() and listener.host.connections()
