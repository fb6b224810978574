"""Echo: a protocol of your own in one function.

python examples/echo.py                                serves, and prints its address
python examples/echo.py /ip4/127.0.0.1/tcp/4001/p2p/…  sends a line to that address
"""

import sys

import trio

import libp2p

ECHO = "/echo/1.0.0"


async def echo(stream: libp2p.Stream) -> None:
    async for chunk in stream:
        await stream.send_all(chunk)


async def serve() -> None:
    async with libp2p.open_host(listen=["/ip4/127.0.0.1/tcp/0"]) as host:
        host.handle(ECHO, echo)
        print(host.addrs[0], flush=True)
        await trio.sleep_forever()


async def send(addr: str, line: bytes) -> None:
    async with libp2p.open_host() as host, await host.open_stream(addr, ECHO) as stream:
        await stream.send_eof(line)
        print(b"".join([chunk async for chunk in stream]).decode())


if __name__ == "__main__":
    try:
        trio.run(send, sys.argv[1], b"hello over libp2p") if sys.argv[1:] else trio.run(serve)
    except KeyboardInterrupt:
        sys.exit(130)
