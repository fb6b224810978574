"""Registrations on disk: cases X11 and, for the clock, X7."""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import trio

from libp2p.errors import StoreCorrupt, StoreLocked, StoreUnwritable, StoreVersionMismatch
from libp2p.protocols.rendezvous import RendezvousPoint, discover, register
from libp2p.protocols.rendezvous.sqlite import SqliteRegistrations
from libp2p.testing import memory_network
from tests.protocols.rendezvous._store_child import peer, record

ROOT = Path(__file__).resolve().parents[3]
CHILD = [sys.executable, "-m", "tests.protocols.rendezvous._store_child"]


class Wall:
    """A wall clock."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "registrations.db"


@pytest.fixture
def wall() -> Wall:
    return Wall()


def rows(store: SqliteRegistrations) -> list[tuple[object, ...]]:
    return [tuple(row) for row in store.load()]


async def test_everything_comes_back_in_order(path: Path, wall: Wall) -> None:
    store = SqliteRegistrations(path, wall_clock=wall)
    assert rows(store) == []
    for number in (3, 1, 2):
        await store.save("ä", peer(number), b"record", 100.0)
        wall.now += 1
    await store.save("b", peer(3), b"x", 50.0)
    await store.save("b", peer(3), b"y", 100.0)
    await store.remove("ä", peer(1))
    await store.remove("ä", peer(9))
    await store.aclose()
    await store.aclose()
    store = SqliteRegistrations(path, wall_clock=wall)
    assert rows(store) == [
        ("ä", peer(3), b"record", 97.0),
        ("ä", peer(2), b"record", 99.0),
        ("b", peer(3), b"y", 100.0),
    ]
    await store.aclose()


async def test_what_has_ended_does_not_come_back_and_leaves_the_file(path: Path, wall: Wall) -> None:
    store = SqliteRegistrations(path, wall_clock=wall)
    await store.save("a", peer(1), b"", 10.0)
    await store.save("a", peer(2), b"", 20.0)
    wall.now += 10
    assert [row[1] for row in rows(store)] == [peer(2)]
    await store.save("a", peer(3), b"", 20.0)
    await store.aclose()
    with sqlite3.connect(path) as db:
        assert db.execute("SELECT count(*) FROM registrations").fetchone() == (2,)
    db.close()


@pytest.mark.parametrize("step", [-3600.0, -10 * 365 * 86400.0])
async def test_x7_a_clock_set_back_makes_nothing_immortal(path: Path, wall: Wall, step: float) -> None:
    store = SqliteRegistrations(path, wall_clock=wall)
    await store.save("a", peer(1), b"", 100.0)
    wall.now += step
    assert rows(store) == [("a", peer(1), b"", 100.0)]
    await store.aclose()


async def test_many_at_once_share_transactions(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = SqliteRegistrations(path)
    written: list[int] = []
    write = store._write

    def counted(changes: Any) -> None:
        written.append(len(changes))
        write(changes)

    monkeypatch.setattr(store, "_write", counted)
    async with trio.open_nursery() as nursery:
        for number in range(100):
            nursery.start_soon(store.save, "a", peer(number), b"", 100.0)
    assert (sum(written), len(written) < 10, len(rows(store))) == (100, True, 100)
    await store.aclose()


async def test_cancelled_while_it_waits_it_is_written_all_the_same(path: Path) -> None:
    store = SqliteRegistrations(path)
    with trio.CancelScope() as scope:
        scope.cancel()
        await store.save("a", peer(1), b"", 100.0)
    assert len(rows(store)) == 1
    await store.aclose()
    await store.save("a", peer(2), b"", 100.0)  # too late, and harmless


@pytest.mark.real_clock("a thread writes")
async def test_a_point_remembers_across_restarts(path: Path) -> None:
    async with memory_network(2, connect="full") as (point, a):
        for _ in range(2):
            service = RendezvousPoint(store=SqliteRegistrations(path))
            async with trio.open_nursery() as nursery:
                with point.handle(*next(iter(service.handlers.items()))):
                    await nursery.start(service.run, point)
                    if not service.registrations:
                        await register(a, point.local_peer, "chess")
                    assert [found.peer for found in (await discover(a, point.local_peer)).peers] == [a.local_peer]
                    nursery.cancel_scope.cancel()


async def test_x11_two_on_one_file(path: Path) -> None:
    store = SqliteRegistrations(path)
    with pytest.raises(StoreLocked):
        SqliteRegistrations(path)
    await store.aclose()
    await SqliteRegistrations(path).aclose()


async def test_x11_files_of_others_and_other_versions(path: Path, tmp_path: Path) -> None:
    await SqliteRegistrations(path).aclose()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 77")
    db.close()
    with pytest.raises(StoreVersionMismatch):
        SqliteRegistrations(path)
    other = tmp_path / "other.db"
    with sqlite3.connect(other) as db:
        db.execute("CREATE TABLE t (x)")
    db.close()
    with pytest.raises(StoreCorrupt):
        SqliteRegistrations(other)
    other.write_bytes(b"not a database at all" * 100)
    with pytest.raises(StoreCorrupt):
        SqliteRegistrations(other)
    with pytest.raises(StoreUnwritable):
        SqliteRegistrations(tmp_path / "missing" / "file")


async def test_x11_rows_that_make_no_sense_are_left_out(path: Path) -> None:
    store = SqliteRegistrations(path)
    await store.save("a", peer(1), b"", 100.0)
    await store.aclose()
    with sqlite3.connect(path) as db:
        for row in (
            (b"\xff", bytes(peer(1)), b"", 0.0, 1e11),
            (b"a", b"no peer", b"", 0.0, 1e11),
            (b"b", bytes(peer(1)), b"", "then", 1e11),
            (b"c", bytes(peer(1)), 7.5, 0.0, 1e11),
        ):
            db.execute("INSERT INTO registrations VALUES (?, ?, ?, ?, ?)", row)
    db.close()
    store = SqliteRegistrations(path)
    assert [row[:2] for row in rows(store)] == [("a", peer(1))]
    assert store.damaged == 4
    await store.aclose()


async def test_a_disk_that_fails_is_counted_and_does_not_end_the_point(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = SqliteRegistrations(path)

    def fail(changes: object) -> None:
        raise StoreUnwritable(str(path), "disk full")

    with monkeypatch.context() as patch:
        patch.setattr(store, "_write", fail)
        await store.save("a", peer(1), b"", 100.0)
    assert (store.write_errors, rows(store)) == (1, [])
    assert "disk full" in caplog.text
    await store.save("a", peer(2), b"", 100.0)
    assert [row[1] for row in rows(store)] == [peer(2)]
    await store.aclose()


async def test_a_transaction_that_fails_is_taken_back(path: Path) -> None:
    store = SqliteRegistrations(path)
    await store.save("a", peer(1), b"", 100.0)
    with pytest.raises(StoreCorrupt):
        store._write({(b"a", bytes(peer(2))): (b"", 0.0, 1e11), (b"a", b"x"): (object(), 0.0, 1e11)})  # type: ignore[dict-item]
    assert [row[1] for row in rows(store)] == [peer(1)]
    await store.save("a", peer(3), b"", 100.0)
    await store.aclose()


@pytest.mark.limit(3600)
@pytest.mark.real_clock("kills processes")
@pytest.mark.parametrize("loops", [4, pytest.param(500, marks=pytest.mark.bar_n)])
async def test_x11_killed_at_random_moments_loses_nothing_it_has_said(tmp_path: Path, loops: int) -> None:
    rng = random.Random(loops)
    for _ in range(loops):
        child = subprocess.Popen(CHILD + [str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE, text=True)  # noqa: ASYNC220 - nothing else is going on
        assert child.stdout is not None
        assert child.stdout.readline() == "running\n"
        await trio.sleep(rng.uniform(0.0, 0.05))  # real time: any moment
        child.kill()
        child.wait()
        child.stdout.close()
        await _check(tmp_path)


async def _check(folder: Path) -> None:
    began = time.process_time()
    store = SqliteRegistrations(folder / "registrations.db")
    found = {row.peer: row.record for row in store.load()}
    assert store.damaged == 0
    assert time.process_time() - began < 2
    await store.aclose()
    # Of each peer, the last change that was said to be on disk is there, or one that was begun after it.
    possible: dict[int, set[int]] = {}
    for line in (folder / "done").read_text().splitlines():
        words = line.split()
        if len(words) == 3:  # the last line may be torn
            number, round_ = int(words[1]), int(words[2])
            if words[0] == "<":
                possible[number] = {round_}
            else:
                possible.setdefault(number, {0}).add(round_)
    for number, rounds in possible.items():
        held = found.get(peer(number), b"0")
        assert int(held.split()[0]) in rounds
        assert held in (b"0", record(int(held.split()[0])))
