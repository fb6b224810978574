"""Look at any libp2p node, written in any language: who is it, and how far away?

python examples/ping.py /ip4/127.0.0.1/tcp/4001/p2p/…
"""

import sys

import trio

import libp2p
from libp2p.protocols.identify import identify
from libp2p.protocols.ping import ping


async def main(addr: str) -> None:
    async with libp2p.open_host() as host:
        connection = await host.connect(addr)
        info = await identify(host, connection.peer)
        print(f"{connection.peer} runs {info.agent_version} and serves {', '.join(sorted(info.protocols))}")
        for seconds in await ping(host, connection.peer, count=3):
            print(f"pong after {seconds * 1000:.2f} ms")


if __name__ == "__main__":
    try:
        trio.run(main, sys.argv[1])
    except libp2p.Libp2pError as exc:
        sys.exit(str(exc))
