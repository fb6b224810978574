"""A process that changes a peerstore until it is killed. Its only argument is a folder.

It writes down what it knows to be true: ``begun`` holds one line per round, with the monotonic time at which the round
was complete in memory. Every round touches ten peers, each in one change-set that a reader can check: peer ``n`` of
round ``r`` has the addresses ``r`` and ``r + 1``, the protocol ``/r`` and the fact ``round = r``.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import trio

from libp2p.addressing import parse
from libp2p.peer_id import PeerId
from libp2p.peerstore.sqlite import SqlitePeerstore

PEERS = 40


def peer(number: int) -> PeerId:
    return PeerId.from_bytes(b"\x12\x20" + number.to_bytes(32, "big"))


async def work(folder: Path, seconds: float) -> None:
    store = SqlitePeerstore(folder / "peers.db", flush_interval=0.05)
    first = max((int(store.metadata(each).get("round", 0)) for each in store.peers()), default=0) + 1
    with (folder / "begun").open("a", buffering=1) as log:
        async with trio.open_nursery() as nursery:
            await nursery.start(store.run)
            print("running", flush=True)
            end = trio.current_time() + seconds
            round_ = first
            while trio.current_time() < end:
                for number in range(round_ % 4, PEERS, 4):
                    change(store, peer(number), round_)
                log.write(f"{round_} {time.monotonic()}\n")
                await trio.sleep(0.002)
                round_ += 1
            nursery.cancel_scope.cancel()
    store.close()


def change(store: SqlitePeerstore, each: PeerId, round_: int) -> None:
    if round_ % 97 == 0:
        store.forget(each)
    found = [parse(f"/ip4/1.2.3.4/tcp/{port}") for port in (round_ % 65_000 + 1, round_ % 65_000 + 2)]
    store.set_addrs(each, found, ttl=3600)
    store.set_protocols(each, [f"/{round_}"])
    store.set_metadata(each, "round", str(round_))
    store.set_connected(each, bool(round_ % 3))


if __name__ == "__main__":
    trio.run(work, Path(sys.argv[1]), float(sys.argv[2]))
