"""``python -m interop.reachable``: this library on a host of the NAT bed, to find out whether it can be reached there.

It speaks as much of CONTRACT.md as :mod:`interop.test_reachable` needs, and serves AutoNAT in both versions. With
``--relay server`` it is a relay; with ``--relay client`` it uses relays while it finds that nobody can dial it.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import trio

import libp2p
from libp2p.addressing import is_relay
from libp2p.events import ListenAddrsChanged, PeerIdentified, Reachability, ReachabilityChanged
from libp2p.protocols.autonat import (
    AUTONAT,
    DIAL_REQUEST,
    AutoNat,
    AutoNatConfig,
    AutoNatLimits,
    AutoNatServer,
    ReachabilityConfig,
)
from libp2p.protocols.ping import ping
from libp2p.protocols.relay import RelayClient, RelayServer
from libp2p.transports.tcp import Tcp

QUORUM = ReachabilityConfig(proofs=1, claims=1, denials=1)
LIMITS = AutoNatLimits(dial_timeout=2.0, dial_timeout_1=2.0)
"""Who is not there is not waited for long."""


def _dialer() -> Any:
    return libp2p.open_host(transports=[Tcp()])


class Node:
    """A host, and the commands it obeys."""

    def __init__(self, host: libp2p.Host, autonat: AutoNat) -> None:
        self._host = host
        self._autonat = autonat

    async def dial(self, addr: str) -> dict[str, Any]:
        """Connect, and wait until it is known what the peer serves."""
        with self._host.subscribe(PeerIdentified) as events:
            peer = (await self._host.connect(addr)).peer
            while not {AUTONAT, DIAL_REQUEST} & self._host.peerstore.protocols(peer):
                await events.receive()
        return {}

    async def autonat(self) -> dict[str, Any]:
        """Wait until it is known whether others can dial this host."""
        with self._host.subscribe(ReachabilityChanged) as events:
            while self._autonat.reachability is Reachability.UNKNOWN:
                await events.receive()
        return {"reachability": self._autonat.reachability.value, "addrs": [str(addr) for addr in self._host.addrs]}

    async def check(self, peer: str, addr: str) -> dict[str, Any]:
        """Have ``peer`` try an address."""
        tried = await self._autonat.check(self._host, libp2p.PeerId.parse(peer), libp2p.Multiaddr(addr))
        return {"voice": None if tried is None else tried.voice.value}

    async def relayed(self) -> dict[str, Any]:
        """Wait until it is reached through a relay."""
        with self._host.subscribe(ListenAddrsChanged) as events:
            while not any(map(is_relay, self._host.addrs)):
                await events.receive()
        return {"addrs": [str(addr) for addr in self._host.addrs if is_relay(addr)]}

    async def ping(self, addr: str) -> dict[str, Any]:
        """Reach somebody."""
        return {"rtts_ms": [trip * 1000 for trip in await ping(self._host, addr, count=3)]}


async def serve(listen: str, relay: str) -> None:
    """Obey until standard input ends."""
    autonat = AutoNat(AutoNatConfig(reachability=QUORUM))
    relaying = RelayServer() if relay == "server" else RelayClient(automatic=True)
    services = [autonat, AutoNatServer(_dialer, limits=LIMITS), relaying]
    async with libp2p.open_host(listen=[listen], transports=[Tcp()], services=services) as host:
        addrs = [str(addr) for addr in host.addrs]
        tell(event="ready", peer_id=str(host.local_peer), addrs=addrs, version=libp2p.__version__)
        node = Node(host, autonat)
        async with trio.open_nursery() as nursery:
            async for line in trio.wrap_file(sys.stdin):
                nursery.start_soon(obey, node, json.loads(line))
            nursery.cancel_scope.cancel()


async def obey(node: Node, request: dict[str, Any]) -> None:
    """Do what is asked for, and answer."""
    command, number = request.pop("cmd"), request.pop("id")
    try:
        tell(id=number, ok=True, **await getattr(node, command)(**request))
    except libp2p.Libp2pError as exc:
        tell(id=number, ok=False, error=str(exc))


def tell(**facts: Any) -> None:
    """One line."""
    print(json.dumps(facts), flush=True)


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m interop.reachable")
    parser.add_argument("--listen", required=True)
    parser.add_argument("--relay", choices=["server", "client"], default="client")
    args = parser.parse_args()
    trio.run(serve, args.listen, args.relay)


if __name__ == "__main__":
    main()
