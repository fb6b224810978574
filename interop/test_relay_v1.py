"""Circuit relay v1 with js-libp2p 0.30, of 2021, in all three places. Time here is real.

``cell`` is (the peer, the three places, nothing), as in the suite for version 2.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import product

import pytest
import trio

import libp2p
from libp2p.muxers.mplex import Mplex
from libp2p.protocols.relay import RelayClient, RelayLimits, RelayV1
from libp2p.security.noise import Noise
from libp2p.transports.tcp import Tcp

from .conftest import get_features
from .peer import features, start_peer
from .relays import OURS, Party, They, We

OLD = "js030"

pytestmark = pytest.mark.real_clock


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every arrangement that has this library in one place; no others when js is not wanted."""
    if "cell" not in metafunc.fixturenames:
        return
    parties = (OURS, OLD) if "js" in get_features(metafunc.config) else (OURS,)
    absent = pytest.mark.skip(reason="not built: its toolchain is absent, see above")
    cells = []
    for places in product(parties, repeat=3):
        text = ">".join(places)
        if OURS in places:
            marks = [absent] if OLD in places and features(OLD) is None else []
            cells.append(pytest.param((OLD if OLD in places else OURS, text, ""), id=text, marks=marks))
    metafunc.parametrize("cell", cells)


@asynccontextmanager
async def party(name: str, *, serves: bool) -> AsyncIterator[Party]:
    """Run somebody."""
    if name == OURS:
        client = RelayClient()
        async with libp2p.open_host(
            listen=["/ip4/127.0.0.1/tcp/0"],
            transports=[Tcp()],
            security=[Noise],
            muxers=[Mplex()],
            services=[client, RelayV1(client, limits=RelayLimits() if serves else None)],
        ) as host:
            yield We(host, limited=False)
    else:
        async with start_peer(name, relay="server" if serves else "client") as peer:
            yield They(peer)


async def test_circuit(cell: tuple[str, str, str]) -> None:
    """The one asks whether the relay is one and stays, the other dials, and they talk in both directions."""
    dialing, relaying, listening = cell[1].split(">")
    with trio.fail_after(60):
        async with (
            party(relaying, serves=True) as relay,
            party(listening, serves=False) as listener,
            party(dialing, serves=False) as dialer,
        ):
            await listener.reserve(relay.addr)
            await dialer.dial(f"{relay.addr}/p2p-circuit/p2p/{listener.peer_id}")
            await dialer.ping(listener.peer_id)
            await listener.ping(dialer.peer_id)
            await dialer.identify(listener.peer_id)
            await listener.identify(dialer.peer_id)
