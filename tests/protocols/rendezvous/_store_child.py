"""A process that registers and unregisters until it is killed. Its only argument is a folder.

It writes down what it does: a line with ``>`` before each change, and one with ``<`` once it is said to be on disk. Of
each peer, all changes are made by one task.
"""

from __future__ import annotations

import sys
from pathlib import Path

import trio

from libp2p.peer_id import PeerId
from libp2p.protocols.rendezvous.sqlite import SqliteRegistrations

PEERS = 40


def peer(number: int) -> PeerId:
    return PeerId.from_bytes(b"\x12\x20" + number.to_bytes(32, "big"))


def record(round_: int) -> bytes:
    return f"{round_} ".encode() * (round_ % 50 + 1)


async def work(folder: Path) -> None:
    store = SqliteRegistrations(folder / "registrations.db")
    done = folder / "done"
    first = len(done.read_text().splitlines()) + 1 if done.exists() else 1
    with done.open("a", buffering=1) as log:
        print("running", flush=True)
        async with trio.open_nursery() as nursery:
            for task in range(4):
                nursery.start_soon(change, store, log, first, task)


async def change(store: SqliteRegistrations, log, first: int, task: int) -> None:
    round_ = first * 4 + task
    while True:
        number, kept = round_ % PEERS, round_ % 7
        log.write(f"> {number} {round_ if kept else 0}\n")
        if kept:
            await store.save("n", peer(number), record(round_), 7200)
        else:
            await store.remove("n", peer(number))
        log.write(f"< {number} {round_ if kept else 0}\n")
        round_ += 4


if __name__ == "__main__":
    trio.run(work, Path(sys.argv[1]))
