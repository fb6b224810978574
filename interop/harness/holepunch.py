"""``python -m interop.harness.holepunch``: the relay of a hole-punch test, or one of the two behind NATs."""

from __future__ import annotations

import os

import trio

from libp2p.abc import Host
from libp2p.addressing import is_relay
from libp2p.events import ConnectionOpened, PeerIdentified
from libp2p.peer_id import PeerId
from libp2p.protocols.dcutr import Dcutr
from libp2p.protocols.ping import ping
from libp2p.protocols.relay import RelayClient, RelayServer

from . import report, resp
from .contract import Contract, Role, read
from .program import main
from .stacks import address_for_others, open_stack

RELAY = "relay_multiaddr"
LISTENER_ID = "listener_peer_id"


async def run(contract: Contract) -> None:
    """Play one part. The relay and the listener wait until they are killed."""
    services = [RelayServer()] if contract.role is Role.RELAY else [RelayClient(), Dcutr()]
    async with (
        open_stack(contract, *services, punching=True) as host,
        resp.connect(*contract.redis) as redis,
    ):
        if contract.role is Role.RELAY:
            await resp.publish(redis, contract.key(RELAY), address_for_others(host), as_list=False)
            await trio.sleep_forever()
        relay = await resp.fetch(redis, contract.key(RELAY))
        await be_seen(host, relay)
        if contract.role is Role.LISTENER:
            await host.listen(f"{relay}/p2p-circuit")
            await resp.publish(redis, contract.key(LISTENER_ID), str(host.local_peer), as_list=False)
            await trio.sleep_forever()
        peer = PeerId.parse(await resp.fetch(redis, contract.key(LISTENER_ID)))
        taken = await connect_directly(host, f"{relay}/p2p-circuit/p2p/{peer}", peer)
        (rtt,) = await ping(host, peer)
        print(report.latency(taken + rtt, rtt, legacy=False), flush=True)


async def be_seen(host: Host, relay: str) -> None:
    """Connect to the relay, and wait until it has said where it sees this host."""
    with host.subscribe(PeerIdentified) as identified:
        peer = (await host.connect(relay)).peer
        while (await identified.receive()).peer != peer:
            continue


async def connect_directly(host: Host, circuit: str, peer: PeerId) -> float:
    """Connect through the relay, and wait until there is a direct connection. Returns the seconds of both."""
    started = trio.current_time()
    with host.subscribe(ConnectionOpened) as opened:
        await host.connect(circuit)
        while all(is_relay(connection.remote_addr) for connection in host.connections(peer)):
            await opened.receive()
    return trio.current_time() - started


if __name__ == "__main__":
    main(run, read, os.environ)
