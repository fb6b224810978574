"""One question, one answer: a tiny calculator service.

python examples/request_response.py                                  serves, and prints its address
python examples/request_response.py /ip4/127.0.0.1/tcp/4001/p2p/…    asks for 6 * 7
"""

import json
import sys

import trio

import libp2p
from libp2p.protocols.request_response import RequestResponse


async def multiply(peer: libp2p.PeerId, request: bytes) -> bytes:
    factors = json.loads(request)
    return json.dumps(factors[0] * factors[1]).encode()


def calculator() -> RequestResponse:
    return RequestResponse("/example/multiply/1.0.0", multiply)


async def serve() -> None:
    async with libp2p.open_host(listen=["/ip4/127.0.0.1/tcp/0"], services=[calculator()]) as host:
        print(host.addrs[0], flush=True)
        await trio.sleep_forever()


async def ask(addr: str) -> None:
    service = calculator()
    async with libp2p.open_host(services=[service]) as host:
        print("6 * 7 =", json.loads(await service.request(host, addr, json.dumps([6, 7]).encode())))


if __name__ == "__main__":
    try:
        trio.run(*([ask, sys.argv[1]] if sys.argv[1:] else [serve]))
    except KeyboardInterrupt:
        pass
