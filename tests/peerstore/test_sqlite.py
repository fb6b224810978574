"""The peerstore on disk: case X11, and X7 for its clocks."""

from __future__ import annotations

import math
import random
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import trio

import libp2p
from libp2p.addressing import parse
from libp2p.crypto.keys import KeyType, generate
from libp2p.errors import (
    Libp2pError,
    ServiceError,
    StoreCorrupt,
    StoreError,
    StoreLocked,
    StoreUnwritable,
    StoreVersionMismatch,
)
from libp2p.peer_id import PeerId
from libp2p.peerstore import PeerstoreConfig
from libp2p.peerstore.sqlite import SqlitePeerstore
from libp2p.records.peer_record import PeerRecord

KEY = generate()
PEER = PeerId.from_key(KEY.public_key)
HASHED_KEY = generate(KeyType.ECDSA)
HASHED = PeerId.from_key(HASHED_KEY.public_key)
A, B, C = (parse(f"/ip4/1.2.3.4/tcp/{port}") for port in (1, 2, 3))
CHILD = Path(__file__).with_name("_store_child.py")


def peer(number: int) -> PeerId:
    return PeerId.from_bytes(b"\x12\x20" + number.to_bytes(32, "big"))


class Clocks:
    """A monotonic and a wall clock. A restart moves only the second on."""

    def __init__(self) -> None:
        self.monotonic = 500.0
        self.wall = 1_800_000_000.0

    def pass_(self, seconds: float) -> None:
        self.monotonic += seconds
        self.wall += seconds

    def restart(self, seconds: float = 0.0) -> None:
        self.monotonic = 7.0
        self.wall += seconds


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "peers.db"


@pytest.fixture
def open_store(path: Path, clocks: Clocks) -> Callable[..., SqlitePeerstore]:
    def open_(config: PeerstoreConfig | None = None) -> SqlitePeerstore:
        return SqlitePeerstore(path, config, clock=lambda: clocks.monotonic, wall_clock=lambda: clocks.wall)

    return open_


OpenStore = Callable[..., SqlitePeerstore]


# --- what comes back --------------------------------------------------------------------------------------------------


def test_everything_comes_back_after_a_restart(open_store: OpenStore, clocks: Clocks) -> None:
    sealed = PeerRecord(peer=HASHED, seq=2**64 - 1, addrs=(A, B)).seal(HASHED_KEY)
    store = open_store()
    store.add_envelope(sealed, ttl=1000)
    store.add_addrs(HASHED, [C], ttl=500)
    store.add_addrs(PEER, [A], ttl=math.inf)
    store.set_protocols(HASHED, ["/a", "/b"])
    store.set_metadata(HASHED, "agent_version", 'quotes " and ünicode')
    store.close()

    clocks.restart(seconds=100)
    store = open_store()
    assert list(store.addrs(HASHED)) == [A, B, C]
    assert list(store.certified_addrs(HASHED)) == [A, B]
    assert store.envelope(HASHED) == sealed
    assert store.key(HASHED) == HASHED_KEY.public_key
    assert store.protocols(HASHED) == {"/a", "/b"}
    assert store.metadata(HASHED) == {"agent_version": 'quotes " and ünicode'}
    assert list(store.addrs(PEER)) == [A]
    assert not store.add_envelope(PeerRecord(peer=HASHED, seq=7, addrs=(C,)).seal(HASHED_KEY), ttl=10)
    clocks.pass_(401)
    assert list(store.addrs(HASHED)) == [A, B]
    clocks.pass_(500)
    assert list(store.addrs(HASHED)) == []
    assert store.envelope(HASHED) is None
    assert str(store.addrs(PEER)[0]) == "/ip4/1.2.3.4/tcp/1", "it prints"
    store.close()


def test_what_is_forgotten_or_has_ended_does_not_come_back(open_store: OpenStore, clocks: Clocks) -> None:
    store = open_store()
    for number in range(4):
        store.add_addrs(peer(number), [A], ttl=100 * (number + 1))
    store.close()
    store = open_store()
    store.forget(peer(3))
    store.close()
    clocks.restart(seconds=150)
    store = open_store()
    assert store.peers() == [peer(1), peer(2)]
    store.close()
    with sqlite3.connect(store._path) as db:
        assert db.execute("SELECT count(*) FROM peers").fetchone() == (2,), "ended ones are removed from the file"
        assert db.execute("SELECT count(*) FROM addrs").fetchone() == (2,)
    db.close()


def test_connected_peers_come_back_as_if_they_had_disconnected(open_store: OpenStore, clocks: Clocks) -> None:
    store = open_store()
    store.set_connected(PEER, True)
    store.add_addrs(PEER, [A], ttl=10)
    clocks.pass_(3600)
    store.set_protocols(PEER, ["/a"])
    store.close()
    clocks.restart(seconds=60)
    store = open_store()
    assert list(store.addrs(PEER)) == [A]
    assert not store._entries[PEER].connected
    assert store._entries[PEER].known
    clocks.pass_(900)
    assert list(store.addrs(PEER)) == []
    store.close()


@pytest.mark.bar_c
@pytest.mark.parametrize("step", [-1.0, -3600.0, -10 * 365 * 86400.0])
def test_wall_clock_set_back_makes_nothing_immortal(open_store: OpenStore, clocks: Clocks, step: float) -> None:
    """X7."""
    store = open_store()
    store.add_addrs(PEER, [A], ttl=100)
    store.close()
    clocks.restart(seconds=step)
    store = open_store()
    assert list(store.addrs(PEER)) == [A]
    clocks.pass_(101)
    assert list(store.addrs(PEER)) == []
    store.close()


def test_wall_clock_steps_while_running_move_nothing(open_store: OpenStore, clocks: Clocks) -> None:
    """X7: timers unmoved."""
    store = open_store()
    store.add_addrs(PEER, [A], ttl=100)
    clocks.wall += 10**9
    assert list(store.addrs(PEER)) == [A]
    store.close()


def test_lower_bounds_hold_for_what_is_read(open_store: OpenStore) -> None:
    store = open_store()
    for number in range(3000):
        store.add_addrs(peer(number), [A], ttl=1000)
    store.close()
    store = open_store(PeerstoreConfig(unconnected_peers=10))
    assert len(store.peers()) == 10
    store.close()
    store = open_store()
    assert len(store.peers()) == 10
    store.close()


def test_stranger_that_came_and_went_leaves_nothing_to_write(open_store: OpenStore) -> None:
    store = open_store(PeerstoreConfig(unconnected_peers=5))
    for number in range(100):
        store.add_addrs(peer(number), [A], ttl=1000)
    assert len(store._dirty) == 5
    store.close()


@pytest.mark.limit(120)
def test_ten_thousand_peers_open_in_time(open_store: OpenStore) -> None:
    """X11: opens in 2 s, which is about what parsing its addresses takes; here as a ratio of the two."""
    store = open_store()
    began = time.process_time()
    for number in range(10_000):
        found = [parse(f"/ip4/10.{number % 250}.{number // 250}.{host}/tcp/1") for host in range(4)]
        store.add_addrs(peer(number), found, ttl=1000)
    filled = time.process_time()
    store.close()
    closed = time.process_time()
    store = open_store()
    took = time.process_time() - closed
    assert len(store.peers()) == 10_000
    store.close()
    assert took < 2 * (filled - began)


# --- write-behind -----------------------------------------------------------------------------------------------------


def rows(path: Path) -> int:
    """How many peers another reader would find: in a copy, because the file itself is locked."""
    copy = path.with_name("copy.db")
    for suffix in ("", "-wal"):
        source = path.with_name(path.name + suffix)
        target = copy.with_name(copy.name + suffix)
        target.unlink(missing_ok=True)
        if source.exists():
            shutil.copyfile(source, target)
    db = sqlite3.connect(copy)
    try:
        return int(db.execute("SELECT count(*) FROM peers").fetchone()[0])
    finally:
        db.close()


@pytest.mark.real_clock("a thread writes to a disk")
async def test_changes_are_on_disk_within_a_second_without_closing(path: Path) -> None:
    store = SqlitePeerstore(path, flush_interval=0.05)
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        for number in range(1200):  # more than one batch
            store.add_addrs(peer(number), [A], ttl=1000)
        with trio.fail_after(5):
            while rows(path) < 1200:
                await trio.sleep(0.02)
        for number in range(1200):
            store.forget(peer(number))
        with trio.fail_after(5):
            while rows(path):
                await trio.sleep(0.02)  # real time: changes before, during and after a write
        nursery.cancel_scope.cancel()
    store.close()


@pytest.mark.real_clock("a thread writes to a disk")
async def test_cancelled_run_writes_what_is_left(path: Path) -> None:
    store = SqlitePeerstore(path)
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        store.add_addrs(PEER, [A], ttl=1000)
        nursery.cancel_scope.cancel()
    assert not store._dirty
    assert rows(path) == 1
    store.close()


@pytest.mark.real_clock("a thread writes to a disk")
async def test_cancelled_before_the_thread_starts_loses_nothing(path: Path) -> None:
    store = SqlitePeerstore(path)
    store.add_addrs(PEER, [A], ttl=1000)
    with trio.CancelScope() as scope:
        scope.cancel()
        await store._flush()
    assert list(store._dirty) == [PEER]
    store.close()
    store = SqlitePeerstore(path)
    assert list(store.addrs(PEER)) == [A]
    store.close()


@pytest.mark.real_clock("a thread writes to a disk")
async def test_changes_during_a_write_are_written_next(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = SqlitePeerstore(path, flush_interval=0.01)
    write = store._write

    def slow(taken: object) -> None:
        time.sleep(0.05)  # real time: a slow disk
        write(taken)  # type: ignore[arg-type]

    monkeypatch.setattr(store, "_write", slow)
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        for number in range(10):
            store.add_addrs(peer(number), [A], ttl=1000)
            store.set_metadata(peer(0), "last", str(number))
            await trio.sleep(0.02)  # real time: changes before, during and after a write
        nursery.cancel_scope.cancel()
    store.close()
    store = SqlitePeerstore(path)
    assert len(store.peers()) == 10
    assert store.metadata(peer(0)) == {"last": "9"}
    store.close()


# --- two at once ------------------------------------------------------------------------------------------------------


def test_second_opener_in_this_process_gets_store_locked(open_store: OpenStore, path: Path) -> None:
    """X11: two hosts on one store."""
    store = open_store()
    with pytest.raises(StoreLocked) as caught:
        open_store()
    assert caught.value.path == str(path)
    store.add_addrs(PEER, [A], ttl=100)
    with pytest.raises(StoreLocked):
        open_store()
    store.close()
    store = open_store()
    assert list(store.addrs(PEER)) == [A]
    store.close()


def start_child(folder: Path, seconds: float) -> subprocess.Popen[bytes]:
    # It must find the libp2p that we have found.
    root = str(Path(libp2p.__file__).parents[1])
    command = [sys.executable, str(CHILD), str(folder), str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, cwd=root, env={"PYTHONPATH": root})


@pytest.mark.bar_c
@pytest.mark.sockets
@pytest.mark.parametrize("loops", [4, pytest.param(500, marks=[pytest.mark.bar_n, pytest.mark.limit(3600)])])
async def test_killed_at_random_moments_loses_at_most_the_last_flush(tmp_path: Path, loops: int) -> None:
    """X11: kill -9; opens in 2 s, nothing corrupt, at most the last second lost; the lock goes with the process."""
    rng = random.Random(11)
    path = tmp_path / "peers.db"
    survived = 0
    for loop in range(loops):
        child = start_child(tmp_path, 60)
        assert child.stdout is not None
        if loop % 4 == 2:
            await trio.sleep(rng.uniform(0.1, 0.8))  # real time: perhaps while it starts
        else:
            assert await trio.to_thread.run_sync(child.stdout.readline) == b"running\n"
            with pytest.raises(StoreLocked):
                SqlitePeerstore(path)
            await trio.sleep(1.5 if loop % 4 == 3 else rng.uniform(0.02, 0.4))  # real time: any moment
        child.kill()
        killed = time.monotonic()
        child.wait()
        child.stdout.close()
        survived = _check_after_kill(path, killed, survived)


def _check_after_kill(path: Path, killed: float, survived: int) -> int:
    """Returns the newest round in the file, which must be there the next time."""
    began = time.process_time()
    store = SqlitePeerstore(path)
    assert time.process_time() - began < 2
    assert store.damaged == 0
    newest = 0
    for each in store.peers():
        round_ = int(store.metadata(each)["round"])
        newest = max(newest, round_)
        ports = {round_ % 65_000 + 1, round_ % 65_000 + 2}
        assert set(store.addrs(each)) == {parse(f"/ip4/1.2.3.4/tcp/{port}") for port in ports}, "half a change-set"
        assert store.protocols(each) == {f"/{round_}"}
        assert store._entries[each].known
    store.close()
    log = path.with_name("begun")
    lines = [line.split() for line in (log.read_text() if log.exists() else "").splitlines()]
    log.unlink(missing_ok=True)  # what was lost now, and may be, is not to be found the next time
    long_done = [int(line[0]) for line in lines if len(line) == 2 and float(line[1]) < killed - 1]
    assert newest >= max(long_done, default=survived), "more than the last flush was lost"
    return newest


# --- trouble ----------------------------------------------------------------------------------------------------------


def test_errors_are_in_the_tree() -> None:
    assert issubclass(StoreError, ServiceError)
    assert issubclass(StoreError, Libp2pError)


def test_torn_file_is_a_typed_error(open_store: OpenStore, path: Path) -> None:
    store = open_store()
    for number in range(500):
        store.add_addrs(peer(number), [A, B, C], ttl=1000)
    store.close()
    whole = path.read_bytes()
    outcomes = []
    for length in range(0, len(whole), 4096 - 7):
        path.write_bytes(whole[:length])
        try:
            open_store().close()
            outcomes.append("opened")
        except StoreCorrupt as exc:
            assert str(path) in str(exc)
            outcomes.append("corrupt")
    assert outcomes[0] == "opened", "an empty file is a new one"
    assert set(outcomes[1:]) == {"corrupt"}


def test_file_with_flipped_bytes_never_raises_anything_else(open_store: OpenStore, path: Path) -> None:
    """Fuzz target: on-disk store files."""
    store = open_store()
    sealed = PeerRecord(peer=HASHED, seq=3, addrs=(A, B)).seal(HASHED_KEY)
    store.add_envelope(sealed, ttl=1000)
    for number in range(60):
        store.add_addrs(peer(number), [A, B, C], ttl=1000)
        store.set_protocols(peer(number), ["/a"])
    store.close()
    whole = path.read_bytes()
    rng = random.Random(21)
    for _ in range(150):
        broken = bytearray(whole)
        for _ in range(rng.choice([1, 1, 5, 50])):
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        path.write_bytes(broken)
        for leftover in ("-wal", "-shm", "-journal"):
            path.with_name(path.name + leftover).unlink(missing_ok=True)
        try:
            store = open_store()
        except StoreError:
            continue
        for each in store.peers():
            [str(addr) for addr in store.addrs(each)]
            store.key(each)
        store.close()


def test_rows_that_make_no_sense_are_left_out_counted_and_removed(
    open_store: OpenStore, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = open_store()
    for number in range(9):
        store.add_addrs(peer(number), [A], ttl=1000)
        store.set_protocols(peer(number), ["/a"])
    store.close()
    damage = [
        ("UPDATE peers SET protocols = '{' WHERE peer = ?", 0),
        ("UPDATE peers SET protocols = '5' WHERE peer = ?", 1),
        ("UPDATE peers SET metadata = '[1]' WHERE peer = ?", 2),
        ("UPDATE peers SET key = x'00' WHERE peer = ?", 3),
        ("UPDATE addrs SET addr = x'ffff' WHERE peer = ?", 4),
        ("UPDATE addrs SET expires = 'soon' WHERE peer = ?", 5),
        ("UPDATE peers SET envelope = x'00', seq = NULL WHERE peer = ?", 6),
        ("UPDATE peers SET peer = x'1234' WHERE peer = ?", 7),
    ]
    db = sqlite3.connect(path, isolation_level=None)
    for statement, number in damage:
        db.execute(statement, (bytes(peer(number)),))
    db.close()
    store = open_store()
    assert store.peers() == [peer(8)]
    assert store.damaged == 8
    assert "8 peers could not be read" in caplog.text
    store.close()
    store = open_store()
    assert store.damaged == 0
    store.close()


def test_other_files_are_not_touched(path: Path, open_store: OpenStore) -> None:
    path.write_text("Dear diary, " * 1000)
    with pytest.raises(StoreCorrupt):
        open_store()
    assert path.read_text() == "Dear diary, " * 1000
    path.unlink()
    db = sqlite3.connect(path)
    db.execute("CREATE TABLE mine (x)")
    db.commit()
    db.close()
    with pytest.raises(StoreCorrupt, match="another program"):
        open_store()


@pytest.mark.parametrize("version", [0, 2, 99])
def test_another_schema_is_a_typed_error(open_store: OpenStore, path: Path, version: int) -> None:
    """X11: older schema."""
    open_store().close()
    db = sqlite3.connect(path, isolation_level=None)
    db.execute(f"PRAGMA user_version = {version}")
    db.close()
    with pytest.raises(StoreVersionMismatch) as caught:
        open_store()
    assert (caught.value.found, caught.value.expected) == (version, 1)
    with pytest.raises(StoreVersionMismatch):  # and the failed opening holds no lock
        open_store()


def test_missing_folder_is_a_typed_error(tmp_path: Path) -> None:
    with pytest.raises(StoreUnwritable, match="unable to open"):
        SqlitePeerstore(tmp_path / "nowhere" / "peers.db", clock=lambda: 0.0)


@pytest.mark.real_clock("a thread writes to a disk")
@pytest.mark.parametrize("trouble", ["full", "read-only"])
async def test_failing_disk_is_logged_and_counted_and_does_not_end_the_host(
    path: Path, trouble: str, caplog: pytest.LogCaptureFixture
) -> None:
    """X11: read-only or full disk."""
    store = SqlitePeerstore(path, flush_interval=0.01)
    if trouble == "full":
        store._db.execute("PRAGMA max_page_count = 4")
    else:
        store._db.execute("PRAGMA query_only = ON")
    async with trio.open_nursery() as nursery:
        await nursery.start(store.run)
        for number in range(200):
            store.add_addrs(peer(number), [A, B, C], ttl=1000)
        with trio.fail_after(5):
            while store.flush_errors < 3:
                await trio.sleep(0.01)
        assert isinstance(store.last_error, StoreUnwritable)
        assert list(store.addrs(peer(7))) == [A, B, C], "memory goes on"
        assert caplog.text.count("goes on in memory") == 1, "once, not with every try"
        store._db.execute("PRAGMA max_page_count = 1000000")
        store._db.execute("PRAGMA query_only = OFF")
        with trio.fail_after(5):
            while store._dirty or store.last_error is not None:
                await trio.sleep(0.01)
        nursery.cancel_scope.cancel()
    store.close()
    store = SqlitePeerstore(path)
    assert len(store.peers()) == 200
    store.close()


def test_closing_with_a_failing_disk_does_not_raise(open_store: OpenStore) -> None:
    store = open_store()
    store._db.execute("PRAGMA query_only = ON")
    store.add_addrs(PEER, [A], ttl=100)
    store.close()
    assert store.flush_errors == 1
    store = open_store()
    assert store.peers() == []
    store.close()
