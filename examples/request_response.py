"""One question, one answer: a tiny calculator.

python examples/request_response.py                                serves, and prints its address
python examples/request_response.py /ip4/127.0.0.1/tcp/4001/p2p/…  asks for 6 * 7
"""

import json
import sys

import trio

import libp2p
from libp2p.protocols.request_response import RequestResponse

MULTIPLY = "/example/multiply/1.0.0"


async def multiply(peer: libp2p.PeerId, request: bytes) -> bytes:
    a, b = json.loads(request)
    return json.dumps(a * b).encode()


async def serve() -> None:
    calculator = RequestResponse(MULTIPLY, multiply, max_request=1000)
    async with libp2p.open_host(listen=["/ip4/127.0.0.1/tcp/0"], services=[calculator]) as host:
        print(host.addrs[0], flush=True)
        await trio.sleep_forever()


async def ask(addr: str) -> None:
    async with libp2p.open_host() as host:
        answer = await RequestResponse(MULTIPLY).request(host, addr, json.dumps([6, 7]).encode())
        print("6 * 7 =", json.loads(answer))


if __name__ == "__main__":
    try:
        trio.run(ask, sys.argv[1]) if sys.argv[1:] else trio.run(serve)
    except KeyboardInterrupt:
        sys.exit(130)
