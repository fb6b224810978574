"""``python -m interop.holepunch.node ROLE ...``: one of the three nodes. What it has to tell are lines of JSON.

``relay`` is the bootstrap node: a relay, and a server of the DHT. ``listener`` is reached through it. ``dialer`` looks
the listener up by its peer id, connects, and tells what it got how soon; again and again, each time as somebody new.
"""

from __future__ import annotations

import argparse
import json
import math
from typing import Any

import trio

import libp2p
from libp2p.abc import Connection
from libp2p.addressing import is_relay
from libp2p.events import ConnectionOpened, HolePunchEnded
from libp2p.protocols.dcutr import Dcutr
from libp2p.protocols.kad import KadConfig, Kademlia, Mode
from libp2p.protocols.ping import ping
from libp2p.protocols.relay import RelayClient, RelayLimits, RelayServer
from libp2p.swarm import LimitsConfig, SwarmConfig

PATIENCE = 30.0
"""Seconds until a dialer gives up waiting for a direct connection: longer than three tries take (go: 21)."""
CONFIG = libp2p.HostConfig(
    swarm=SwarmConfig(
        limits=LimitsConfig(connections_per_ip=1000, connection_rate_per_ip=100, connection_burst_per_ip=1000)
    )
)
"""Many dialers come from behind one NAT here, one after the other."""


def tell(**facts: Any) -> None:
    """One line."""
    print(json.dumps(facts), flush=True)


async def relay(listen: list[str]) -> None:
    """Serve until killed."""
    limits = RelayLimits(reservations=64, circuits_per_peer=64)
    services = [RelayServer(limits), Kademlia(KadConfig(mode=Mode.SERVER))]
    async with libp2p.open_host(listen=listen, services=services, config=CONFIG) as host:
        tell(peer=str(host.local_peer), addrs=[str(addr) for addr in host.addrs])
        await trio.sleep_forever()


async def listener(listen: list[str], bootstrap: str) -> None:
    """Be reached through the relay, until killed."""
    kademlia = Kademlia(KadConfig(mode=Mode.CLIENT), bootstrap=[bootstrap])
    async with libp2p.open_host(listen=listen, services=[RelayClient(), Dcutr(), kademlia], config=CONFIG) as host:
        await host.listen(f"{bootstrap}/p2p-circuit")
        await trio.sleep(1)  # identify tells the bootstrap node
        tell(peer=str(host.local_peer))
        with host.subscribe(HolePunchEnded) as ended:
            async for event in ended:
                tell(peer=str(event.peer), tries=event.tries, direct=event.connection is not None, reason=event.reason)


async def dial(listen: list[str], bootstrap: str, target: str, patience: float) -> None:
    """Connect once."""
    kademlia = Kademlia(KadConfig(mode=Mode.CLIENT), bootstrap=[bootstrap])
    services = [RelayClient(), Dcutr(), kademlia]
    async with libp2p.open_host(listen=listen, services=services, routing=kademlia, config=CONFIG) as host:
        await host.connect(bootstrap)
        began = trio.current_time()
        with host.subscribe(ConnectionOpened) as opened:
            peer = (await host.connect(target)).peer
            relayed = trio.current_time() - began
            direct = math.nan
            with trio.move_on_after(patience):
                while not any(map(_is_direct, host.connections(peer))):
                    await opened.receive()
                direct = trio.current_time() - began
        [round_trip] = await ping(host, peer)
        [best, *_] = host.connections(peer)
        assert _is_direct(best) == (not math.isnan(direct))
        tell(
            relayed=relayed, direct=None if math.isnan(direct) else direct, ping=round_trip, over=str(best.remote_addr)
        )


def _is_direct(connection: Connection) -> bool:
    return not is_relay(connection.remote_addr)


async def dialer(listen: list[str], bootstrap: str, target: str, runs: int, patience: float) -> None:
    """Connect ``runs`` times."""
    for _ in range(runs):
        try:
            await dial(listen, bootstrap, target, patience)
        except libp2p.Libp2pError as exc:
            tell(error=str(exc))


def main() -> None:
    """Play a role."""
    parser = argparse.ArgumentParser(prog="python -m interop.holepunch.node")
    parser.add_argument("role", choices=["relay", "listener", "dialer"])
    parser.add_argument("--listen", action="append", default=[])
    parser.add_argument("--bootstrap")
    parser.add_argument("--target")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--patience", type=float, default=PATIENCE)
    args = parser.parse_args()
    if args.role == "relay":
        trio.run(relay, args.listen)
    elif args.role == "listener":
        trio.run(listener, args.listen, args.bootstrap)
    else:
        trio.run(dialer, args.listen, args.bootstrap, args.target, args.runs, args.patience)


if __name__ == "__main__":
    main()
