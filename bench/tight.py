"""A tight loop of publishing: ``python -m bench.tight [--messages 100000]``.

One host publishes 100 bytes again and again without a pause; another, in the same process, subscribes, over TCP, Noise
and yamux. All must arrive, and memory must not grow with their number: what is remembered of messages has bounds.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time

import trio

from libp2p.protocols.pubsub import Messages, Pubsub

from .ours_peer import open_host

SIZE = 100
TOPIC = "tight"
LISTEN = "/ip4/127.0.0.1/tcp/0"


def peak() -> float:
    """The most memory this process has had in use, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


async def receive(messages: Messages, count: int) -> None:
    """Take ``count`` messages, and tell now and then how memory is."""
    step = max(count // 10, 1)
    for number in range(count):
        await messages.receive()
        if number % step == 0:
            print(f"{number:>9} received, peak memory {peak():.0f} MiB", flush=True)


async def main(count: int) -> int:
    """Returns the exit code."""
    here, there = Pubsub(), Pubsub()
    async with (
        open_host("tcp", here, listen=LISTEN) as publisher,
        open_host("tcp", there, listen=LISTEN) as subscriber,
        there.subscribe(TOPIC) as messages,
    ):
        await publisher.connect(str(subscriber.addrs[0]))
        await here.wait_for_peers(TOPIC)
        started = time.perf_counter()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive, messages, count)
            for _ in range(count):
                await here.publish(TOPIC, bytes(SIZE), require_peers=True)
        seconds = time.perf_counter() - started
        lost = messages.lost + here.metrics().get("dropped_outbound", 0)
    print(f"{count} of {count} received, {lost} lost; {count / seconds:.0f} a second; peak memory {peak():.0f} MiB")
    return 1 if lost else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.tight", description="Publish in a tight loop.")
    parser.add_argument("--messages", type=int, default=100_000)
    sys.exit(trio.run(main, parser.parse_args().messages))
