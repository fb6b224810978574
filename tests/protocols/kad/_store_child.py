"""A process that fills a store of the DHT until it is killed. Its only argument is a folder.

Every round puts one value and one provider under the same key; ``begun`` tells which rounds were complete in memory,
and when. A value says its own round, and so does the address of a provider, so that a reader can check every row.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import trio

from libp2p.addressing import parse
from libp2p.peer_id import PeerId
from libp2p.protocols.kad import StoreBusy, StoreConfig
from libp2p.protocols.kad.sqlite import SqliteStore

LOCAL = PeerId.from_bytes(b"\x12\x20" + bytes(32))
CONFIG = StoreConfig(records=50, provider_keys=50, providers_per_key=3)
KEYS = 80


async def work(folder: Path, seconds: float) -> None:
    store = SqliteStore(folder / "dht.db", LOCAL, CONFIG)
    print("running", flush=True)
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        end = trio.current_time() + seconds
        with (folder / "begun").open("a", buffering=1) as log:
            round_ = 0
            while trio.current_time() < end:
                round_ += 1
                try:
                    change(store, round_)
                except StoreBusy:
                    await trio.sleep(0.01)
                log.write(f"{round_} {time.monotonic()}\n")
                await trio.sleep(0.001)
        nursery.cancel_scope.cancel()
    store.close()


def change(store: SqliteStore, round_: int) -> None:
    key, now = b"key %d" % (round_ % KEYS), time.time()
    peer = PeerId.from_bytes(b"\x12\x20" + (round_ % 7).to_bytes(32, "big"))
    addr = parse(f"/ip4/1.2.3.4/tcp/{round_ % 60_000 + 1}").to_bytes()
    store.put_value(key, b"%d" % round_ * 100, now=now, expires=now + 3600)
    store.add_provider(key, peer, [addr], addrs_expire=now + 60, expires=now + 3600)
    if round_ % 50 == 0:
        store.expire(now)


if __name__ == "__main__":
    trio.run(work, Path(sys.argv[1]), float(sys.argv[2]))
