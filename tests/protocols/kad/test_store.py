"""Stores of the DHT: requirements KD11 and KD12, cases K2, K3, X7 and X11."""

from __future__ import annotations

import hashlib
import os
import random
import sqlite3
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import trio

from libp2p.errors import StoreCorrupt, StoreLocked, StoreUnwritable, StoreVersionMismatch
from libp2p.peer_id import PeerId
from libp2p.protocols.kad import MemoryStore, Store, StoreBusy, StoreConfig
from libp2p.protocols.kad._keyspace import point_of
from libp2p.protocols.kad.sqlite import MAX_WAITING, SqliteStore

CHILD = Path(__file__).with_name("_store_child.py")
NOW = 1_800_000_000.0


def peer(number: int) -> PeerId:
    return PeerId.from_bytes(b"\x12\x20" + hashlib.sha256(number.to_bytes(8, "big")).digest())


LOCAL = peer(0)
OpenStore = Callable[..., Store]


class Flushing(SqliteStore):
    """Writes at once, so that what a test sees comes from the file."""

    def _admit(self) -> None:
        while self._next_batch():
            self._written(self._write(self._writing))
        super()._admit()

    def expire(self, now: float) -> None:
        super().expire(now)
        while self._next_batch():
            self._written(self._write(self._writing))


@pytest.fixture(params=["memory", "file", "file at once"])
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenStore]:
    opened: list[Store] = []

    def open_(**bounds: int) -> Store:
        config = StoreConfig(**bounds)
        if request.param == "memory":
            store: Store = MemoryStore(LOCAL, config)
        else:
            kind = Flushing if request.param == "file at once" else SqliteStore
            store = kind(tmp_path / "dht.db", LOCAL, config, clock=lambda: NOW)
        opened.append(store)
        return store

    yield open_
    for store in opened:
        store.close()


def add(store: Store, key: bytes, number: int, *, expires: float = NOW + 100, addrs_expire: float = NOW + 50) -> bool:
    return store.add_provider(key, peer(number), [b"\x04\x01\x02\x03\x04"], addrs_expire=addrs_expire, expires=expires)


def settle(store: Store) -> None:
    """Have everything on disk, where there is one."""
    if isinstance(store, SqliteStore):
        while store._next_batch():
            store._written(store._write(store._writing))


async def test_values(open_store: OpenStore) -> None:
    """KD12."""
    store = open_store()
    assert store.value(b"k", NOW) is None
    assert store.put_value(b"k", b"old", now=NOW - 5, expires=NOW + 50)
    assert store.put_value(b"k", b"new", now=NOW, expires=NOW + 100)
    settle(store)
    held = store.value(b"k", NOW)
    assert held is not None
    assert (held.value, held.received, held.expires) == (b"new", NOW, NOW + 100)
    assert store.value(b"k", NOW + 100) is None
    store.expire(NOW + 100)
    settle(store)
    assert store.value(b"k", NOW) is None


async def test_providers(open_store: OpenStore) -> None:
    """KD11: addresses end before the provider does."""
    store = open_store()
    assert store.providers(b"k", NOW) == []
    add(store, b"k", 1)
    add(store, b"k", 2, expires=NOW + 10, addrs_expire=NOW)
    settle(store)
    found = {each.peer: each for each in store.providers(b"k", NOW)}
    assert found[peer(1)].addrs == (b"\x04\x01\x02\x03\x04",)
    assert found[peer(2)].addrs == ()
    assert [each.peer for each in store.providers(b"k", NOW + 10)] == [peer(1)]
    add(store, b"k", 2)  # announced again
    store.expire(NOW + 10)
    settle(store)
    assert len(store.providers(b"k", NOW)) == 2
    store.expire(NOW + 100)
    settle(store)
    assert store.providers(b"k", NOW) == []


async def test_k2_the_farthest_value_has_to_go(open_store: OpenStore) -> None:
    """K2: by number and by bytes."""
    store = open_store(records=10, record_bytes=1000)
    keys = [b"key %d" % number for number in range(40)]
    for key in keys:
        store.put_value(key, b"v", now=NOW, expires=NOW + 100)
        settle(store)
    nearest = sorted(keys, key=lambda key: point_of(key) ^ point_of(bytes(LOCAL)))
    assert {key for key in keys if store.value(key, NOW)} == set(nearest[:10])
    assert not store.put_value(nearest[20], b"v", now=NOW, expires=NOW + 100)
    store.put_value(nearest[0], bytes(960), now=NOW, expires=NOW + 100)
    settle(store)
    assert store.value(nearest[0], NOW) is not None
    assert store.value(nearest[9], NOW) is None


async def test_k3_the_farthest_key_has_to_go(open_store: OpenStore) -> None:
    """K3."""
    store = open_store(provider_keys=10)
    keys = [b"key %d" % number for number in range(30)]
    for key in keys:
        add(store, key, 1)
        add(store, key, 2)
        settle(store)
    nearest = sorted(keys, key=lambda key: point_of(key) ^ point_of(bytes(LOCAL)))
    assert {key for key in keys if store.providers(key, NOW)} == set(nearest[:10])
    assert not add(store, nearest[15], 1)


async def test_k3_the_providers_nearest_to_a_key_stay(open_store: OpenStore) -> None:
    """K3: ten thousand on one key."""
    store = open_store(providers_per_key=20)
    for number in range(1, 301):
        add(store, b"k", number)
        if number % 100 == 0:
            settle(store)
    nearest = sorted([peer(number) for number in range(1, 301)], key=lambda p: point_of(bytes(p)) ^ point_of(b"k"))
    assert [each.peer for each in store.providers(b"k", NOW)] == nearest[:20]


async def test_many_steps_leave_the_counts_right(open_store: OpenStore) -> None:
    rng, store, model = (
        random.Random(1),
        open_store(records=1000, provider_keys=1000),
        dict[bytes, tuple[bytes, float]](),
    )
    for step in range(400):
        now, key = NOW + step, b"key %d" % rng.randrange(30)
        match rng.randrange(4):
            case 0 | 1:
                value = b"%d" % step
                store.put_value(key, value, now=now, expires=now + 50)
                model[key] = (value, now + 50)
            case 2:
                add(store, key, rng.randrange(1, 5), expires=now + rng.randrange(1, 60))
            case _:
                store.expire(now)
                settle(store)
        held, expected = store.value(key, now), model.get(key)
        assert (held and held.value) == (expected[0] if expected and expected[1] > now else None)
    settle(store)
    if isinstance(store, SqliteStore):
        assert store._totals == store._count()


@pytest.mark.bar_n
@pytest.mark.limit(600)
def test_k3_a_flood_of_announcements_takes_little_memory() -> None:
    """K3: 32 MiB at most."""
    store = MemoryStore(LOCAL)
    tracemalloc.start()
    try:
        for number in range(40_000):
            add(store, b"%d" % number, 1)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak <= 32 * 2**20
    assert len(store._providers) == store.config.provider_keys


@pytest.mark.parametrize("name", ["records", "record_bytes", "provider_keys", "providers_per_key"])
def test_bounds_are_positive(name: str) -> None:
    with pytest.raises(ValueError, match="positive"):
        StoreConfig(**{name: 0})


# --- the file ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "dht.db"


async def test_it_survives_a_restart(path: Path) -> None:
    store = SqliteStore(path, LOCAL, clock=lambda: NOW)
    store.put_value(b"k", b"v", now=NOW, expires=NOW + 100)
    add(store, b"c", 1)
    store.close()
    store.close()
    store = SqliteStore(path, LOCAL, clock=lambda: NOW)
    held = store.value(b"k", NOW)
    assert held is not None
    assert held.value == b"v"
    assert [each.peer for each in store.providers(b"c", NOW)] == [peer(1)]
    store.close()


async def test_x7_a_clock_that_was_set_back(path: Path) -> None:
    """X7: what came in the future came now."""
    store = SqliteStore(path, LOCAL, clock=lambda: NOW)
    store.put_value(b"k", b"v", now=NOW, expires=NOW + 100)
    store.add_provider(b"c", peer(1), [b"a"], addrs_expire=NOW + 50, expires=NOW + 100)
    store.close()
    back = NOW - 1_000_000
    store = SqliteStore(path, LOCAL, clock=lambda: back)
    value, (provider,) = store.value(b"k", back), store.providers(b"c", back)
    assert value is not None
    assert value.expires == provider.expires == back + 100
    assert (provider.addrs, store.providers(b"c", back + 51)[0].addrs) == ((b"a",), ())
    assert not store.providers(b"c", back + 101)
    store.expire(back + 101)
    store.close()
    assert not sqlite3.connect(path).execute("SELECT 1 FROM providers UNION SELECT 1 FROM records").fetchall()


async def test_x11_two_hosts_on_one_store(path: Path) -> None:
    """X11."""
    store = SqliteStore(path, LOCAL)
    with pytest.raises(StoreLocked) as caught:
        SqliteStore(path, LOCAL)
    assert caught.value.path == str(path)
    store.close()
    SqliteStore(path, LOCAL).close()


def test_x11_what_is_no_store(path: Path, tmp_path: Path) -> None:
    """X11."""
    path.write_bytes(b"something else, and long enough to be looked at by SQLite as a file of its own" * 100)
    with pytest.raises(StoreCorrupt):
        SqliteStore(path, LOCAL)
    with pytest.raises(StoreUnwritable):
        SqliteStore(tmp_path / "none" / "dht.db", LOCAL)
    other = tmp_path / "other.db"
    SqliteStore(other, LOCAL).close()
    db = sqlite3.connect(other)
    db.execute("PRAGMA user_version = 99")
    db.commit()
    db.close()
    with pytest.raises(StoreVersionMismatch):
        SqliteStore(other, LOCAL)


@pytest.mark.real_clock("a thread writes to a disk")
async def test_changes_are_written_while_it_runs(path: Path) -> None:
    store = SqliteStore(path, LOCAL)
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        now = time.time()
        store.put_value(b"k", b"v", now=now, expires=now + 100)
        with trio.fail_after(30):
            while store._waiting or store._writing:
                await trio.sleep(0.01)
        assert store._totals.records == 1
        store.put_value(b"l", b"v", now=now, expires=now + 100)
        nursery.cancel_scope.cancel()
    assert store._totals.records == 2  # cancelling writes what is left
    store.close()


@pytest.mark.real_clock("a thread writes to a disk")
async def test_k3_a_slow_disk_sheds_and_still_answers(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """K3: 256 changes wait, no more; nobody waits for the disk."""
    store, now = SqliteStore(path, LOCAL), time.time()
    gate = trio.Event()
    write = store._write

    def slow(batch: object) -> object:
        trio.from_thread.run(gate.wait)
        return write(batch)  # type: ignore[arg-type]

    monkeypatch.setattr(store, "_write", slow)
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        store.put_value(b"first", b"v", now=now, expires=now + 100)
        with trio.fail_after(30):
            while not store._writing:
                await trio.sleep(0.01)
        for number in range(MAX_WAITING):
            add(store, b"key %d" % number, 1, expires=now + 100)
        with pytest.raises(StoreBusy):
            add(store, b"one more", 1, expires=now + 100)
        assert store.shed == 1
        assert store.value(b"first", now) is not None
        assert len(store.providers(b"key 7", now)) == 1
        gate.set()
        with trio.fail_after(30):
            while store._waiting or store._writing:
                await trio.sleep(0.01)
        add(store, b"one more", 1, expires=now + 100)
        nursery.cancel_scope.cancel()
    store.close()


@pytest.mark.real_clock("a thread writes to a disk")
async def test_k2_a_full_disk_is_counted_and_tried_again(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """K2."""
    monkeypatch.setattr("libp2p.protocols.kad.sqlite._PAUSE", 0.01)
    store, now = SqliteStore(path, LOCAL), time.time()
    pages = store._writer.execute("PRAGMA page_count").fetchone()[0]
    store._writer.execute(f"PRAGMA max_page_count = {pages}")
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        store.put_value(b"k", bytes(60_000), now=now, expires=now + 100)
        with trio.fail_after(30):
            while not store.flush_errors:
                await trio.sleep(0.01)
        assert isinstance(store.last_error, StoreUnwritable)
        held = store.value(b"k", now)
        assert held is not None
        assert len(held.value) == 60_000
        store._writer.execute(f"PRAGMA max_page_count = {pages + 1000}")
        with trio.fail_after(30):
            while store._writing:
                await trio.sleep(0.01)
        assert store.last_error is None
        nursery.cancel_scope.cancel()
    store.close()


def kill_and_check(folder: Path, delay: float) -> None:
    """Let a process change a store, kill it, and see that what is in the file is whole."""
    command = [sys.executable, str(CHILD), str(folder), "60"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(delay)  # real time: a process of its own is to be killed at any moment
        finally:
            process.kill()
    killed = time.monotonic()
    store = SqliteStore(folder / "dht.db", LOCAL_OF_CHILD, StoreConfig(records=50, provider_keys=50))
    try:
        assert store._totals == store._count()
        rows = store._reader.execute("SELECT key, value FROM records").fetchall()
        assert len(rows) <= 50
        rounds = [int(value[: len(value) // 100]) for _, value in rows]
        assert all(value == b"%d" % round_ * 100 and key == b"key %d" % (round_ % 80) for (key, value), round_ in
                   zip(rows, rounds, strict=True))  # fmt: skip
        begun = [line.split() for line in (folder / "begun").read_text().splitlines() if line.count(" ") == 1]
        old = [int(round_) for round_, when in begun if float(when) < killed - 2]
        if old and rows:
            assert max(rounds) >= max(old) - 80
        orphans = "SELECT count(*) FROM providers WHERE key NOT IN (SELECT key FROM content)"
        assert store._reader.execute(orphans).fetchone()[0] == 0
    finally:
        store.close()


LOCAL_OF_CHILD = PeerId.from_bytes(b"\x12\x20" + bytes(32))


@pytest.mark.bar_c
@pytest.mark.limit(240)
@pytest.mark.real_clock("kills processes")
def test_x11_kill_9(tmp_path: Path) -> None:
    """X11."""
    rng = random.Random(11)
    for _ in range(2):
        kill_and_check(tmp_path, rng.uniform(0.1, 0.6))


@pytest.mark.bar_n
@pytest.mark.limit(3600)
@pytest.mark.real_clock("kills processes")
def test_x11_kill_9_many_times(tmp_path: Path) -> None:
    """X11: 500 loops."""
    rng = random.Random(11)
    for number in range(500):
        (tmp_path / "begun").unlink(missing_ok=True)
        if number % 25 == 0:
            (tmp_path / "dht.db").unlink(missing_ok=True)
        kill_and_check(tmp_path, rng.uniform(0.0, 0.5))
