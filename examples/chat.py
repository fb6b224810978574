"""Chat in a room: every line goes to everybody, whoever they are connected to.

python examples/chat.py                                           opens the room, and prints its address
python examples/chat.py --name ada /ip4/127.0.0.1/tcp/4001/p2p/…  joins
"""

import argparse
import os
import sys

import trio

import libp2p
from libp2p.protocols.pubsub import Pubsub, TopicPeerJoined

ROOM = "chat-example"


async def print_messages(pubsub: Pubsub) -> None:
    async with pubsub.subscribe(ROOM) as messages:
        async for message in messages:
            text = message.data.decode(errors="replace")
            print(text if text.isprintable() else repr(text), flush=True)


async def print_arrivals(host: libp2p.Host) -> None:
    with host.subscribe(TopicPeerJoined) as events:
        async for event in events:
            print(f"{event.peer.short()} is here", flush=True)


async def main(name: str, addr: str | None) -> None:
    pubsub = Pubsub()
    async with libp2p.open_host(listen=["/ip4/127.0.0.1/tcp/0"], services=[pubsub]) as host:
        print(f"join with: python examples/chat.py --name <you> {host.addrs[0]}", flush=True)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(print_messages, pubsub)
            nursery.start_soon(print_arrivals, host)
            if addr is not None:
                await host.connect(addr)
            # A thread waits for the keyboard, so that the node goes on while nobody types.
            while typed := await trio.to_thread.run_sync(os.read, 0, 4096, abandon_on_cancel=True):
                await pubsub.publish(ROOM, f"{name}: ".encode() + typed.strip())
            nursery.cancel_scope.cancel()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", default="host")
    parser.add_argument("addr", nargs="?")
    options = parser.parse_args()
    try:
        trio.run(main, options.name, options.addr)
    except* KeyboardInterrupt:
        sys.exit(130)
