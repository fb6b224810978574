"""Chat in a room: every line goes to everybody, whoever they are connected to.

python examples/chat.py                                          opens the room, and prints its address
python examples/chat.py --name ada /ip4/127.0.0.1/tcp/4001/p2p/… joins
"""

import argparse

import trio

import libp2p
from libp2p.protocols.pubsub import Floodsub, Pubsub

ROOM = "chat-example"


async def print_messages(pubsub: Pubsub, me: libp2p.PeerId) -> None:
    async with pubsub.subscribe(ROOM) as messages:
        async for message in messages:
            if message.author != me:
                print(message.data.decode(errors="replace"), flush=True)


async def main(name: str, addr: str | None) -> None:
    pubsub = Pubsub(Floodsub())
    async with libp2p.open_host(listen=["/ip4/127.0.0.1/tcp/0"], services=[pubsub]) as host:
        print(f"join with: python examples/chat.py --name <you> {host.addrs[0]}", flush=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(print_messages, pubsub, host.local_peer)
            if addr is not None:
                await host.connect(addr)
            # A thread waits for the keyboard, so that the node goes on while nobody types.
            while line := await trio.to_thread.run_sync(read_line, abandon_on_cancel=True):
                await pubsub.publish(ROOM, f"{name}: {line}".encode())
            nursery.cancel_scope.cancel()


def read_line() -> str:
    try:
        return input() or " "
    except EOFError:
        return ""


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default="host")
    parser.add_argument("addr", nargs="?")
    options = parser.parse_args()
    try:
        trio.run(main, options.name, options.addr)
    except KeyboardInterrupt:
        pass
