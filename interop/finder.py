"""``python -m interop.finder``: this library as a peer that mDNS finds; as much of CONTRACT.md as that takes."""

from __future__ import annotations

import argparse

import trio

import libp2p
from bench.lines import Results, emit, serve
from libp2p.events import PeerDiscovered
from libp2p.protocols.mdns import Mdns, MdnsConfig


async def main() -> None:
    """Tell of everybody who is heard of, and connect to whom standard input says."""
    parser = argparse.ArgumentParser(prog="python -m interop.finder")
    parser.add_argument("--listen", required=True)
    parser.add_argument("--mdns", choices=["on", "ipv6"], help="both versions of IP with either")
    mdns = Mdns(MdnsConfig(interval=2.0))
    async with (
        libp2p.open_host(listen=[parser.parse_args().listen], services=[mdns]) as host,
        trio.open_nursery() as nursery,
    ):

        async def dial(addr: str) -> Results:
            return {"peer_id": str((await host.connect(addr)).peer)}

        with host.subscribe(PeerDiscovered) as found:

            async def tell() -> None:
                async for event in found:
                    for addr in event.addrs:
                        emit({"event": "discovered", "peer": str(event.peer), "addr": str(addr)})

            nursery.start_soon(tell)
            addrs = [str(addr) for addr in host.addrs]
            version = f"libp2p-trio {libp2p.__version__}"
            emit({"event": "ready", "peer_id": str(host.local_peer), "addrs": addrs, "version": version})
            await serve({"dial": dial})
        nursery.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
