"""A store of the DHT in a file: values and providers that survive restarts, as many as the disk holds.

Theory of operation. Nothing is read into memory at start; what is asked for is looked up, by an index, in some ten
microseconds. Changes wait in memory, where answers see them, and are written in a thread, one transaction for all that
has gathered. When the disk is slower than the peers that bring changes, no more than ``MAX_WAITING`` wait, and what
comes then is refused with :class:`StoreBusy` (case K3). A crash loses what waited, and never leaves half a change.

The file. WAL mode, in which a kill -9 leaves a consistent state, and in which the reader never waits for the writer. A
second file, ``.lock``, is locked by SQLite for as long as the store is open: it tells a second host that it is one too
many, on every platform, and is free when the process ends, however it ends.

Quotas. Each row has its distance from this host, and an index over that, so that the farthest is found at once; ends
are found by an index, too. Nothing is ever searched through.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from os import PathLike, fspath

import trio

from ..._util.database import open_database, translated
from ...errors import StoreError
from ...peer_id import PeerId
from ...wire.framing import FrameBuffer, frame
from ._errors import StoreBusy
from ._keyspace import point_of
from ._store import Store, StoreConfig, StoredProvider, StoredValue

__all__ = ["MAX_WAITING", "SCHEMA_VERSION", "SqliteStore"]

_log = logging.getLogger("libp2p.kad")

SCHEMA_VERSION = 2
"""What this code reads and writes, as SQLite's ``user_version``."""
MAX_WAITING = 256
"""Changes that wait for the disk (case K3)."""
_APPLICATION_ID = 0x6C706B64
"""``lpkd``: tells our files from other SQLite files."""
_FLUSH_INTERVAL = 0.05
"""Seconds between a change and its way to disk, so that one transaction takes many."""
_PAUSE = 1.0
"""Seconds between two tries on a failing disk."""
_EXPIRED_AT_ONCE = 1000
"""Rows of a kind that are removed in one look at what has ended."""
_MAX_ADDR = 1024
_SCHEMA = """
CREATE TABLE records (
    key BLOB PRIMARY KEY, distance BLOB NOT NULL, value BLOB NOT NULL, received REAL NOT NULL, expires REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX records_by_distance ON records (distance);
CREATE INDEX records_by_end ON records (expires);
CREATE TABLE content (key BLOB PRIMARY KEY, distance BLOB NOT NULL) WITHOUT ROWID;
CREATE INDEX content_by_distance ON content (distance);
CREATE TABLE providers (
    key BLOB NOT NULL, peer BLOB NOT NULL, distance BLOB NOT NULL, addrs BLOB NOT NULL, received REAL NOT NULL,
    addrs_expire REAL NOT NULL, expires REAL NOT NULL, PRIMARY KEY (key, peer)
) WITHOUT ROWID;
CREATE INDEX providers_by_end ON providers (expires);
"""


@dataclass(slots=True)
class _Provider:
    addrs: tuple[bytes, ...]
    received: float
    addrs_expire: float
    expires: float


@dataclass(slots=True)
class _Batch:
    """Changes on their way to disk."""

    values: dict[bytes, StoredValue] = field(default_factory=dict[bytes, StoredValue])
    providers: dict[bytes, dict[PeerId, _Provider]] = field(default_factory=dict[bytes, dict[PeerId, _Provider]])
    count: int = 0
    expired: float | None = None

    def __bool__(self) -> bool:
        return self.count > 0 or self.expired is not None


@dataclass(slots=True)
class _Totals:
    """What is in the file, and from where on newcomers are too far away: None while there is room."""

    records: int = 0
    record_bytes: int = 0
    content: int = 0
    records_edge: bytes | None = None
    content_edge: bytes | None = None


class SqliteStore(Store):
    """A store in a file.

    Give the service ``functools.partial(SqliteStore, path)``. Nothing is written before :meth:`run` runs or
    :meth:`close` is called.

    Args:
        path: the file; made when it is not there. Every host needs its own.
        local: this host, for what is far. A file is for one host: distances are in it.
        config: the bounds.
        clock: wall clock in seconds since 1970.

    Attributes:
        evicted: how many keys had to go, or were not taken, because others are nearer.
        shed: how many changes were refused because too many waited.
        flush_errors: how many tries to write have failed.
        last_error: why the last one failed; None once one succeeded.

    Raises:
        StoreLocked: somebody else has the file open.
        StoreVersionMismatch: another version of this library wrote it.
        StoreCorrupt: it is damaged, or no store of the DHT.
        StoreUnwritable: it cannot be opened for writing.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        local: PeerId,
        config: StoreConfig | None = None,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.config: StoreConfig = config or StoreConfig()
        self.evicted: int = 0
        self.shed: int = 0
        self.flush_errors: int = 0
        self.last_error: StoreError | None = None
        self._path = fspath(path)
        self._local = point_of(bytes(local))
        self._clock = clock
        self._waiting = _Batch()
        self._writing = _Batch()
        self._wake = trio.Event()
        self._closed = False
        self._open: list[sqlite3.Connection] = []
        try:
            self._lock = self._connect(f"{self._path}.lock", "", exclusive=True)
            self._writer = self._connect(self._path, _SCHEMA, exclusive=False)
            self._reader = self._connect(self._path, _SCHEMA, exclusive=False)
            with translated(self._path):
                self._move_to(clock())
                self._totals = self._count()
        except BaseException:
            self._disconnect()
            raise

    def _connect(self, path: str, schema: str, *, exclusive: bool) -> sqlite3.Connection:
        with translated(self._path):
            db = open_database(
                path, schema=schema, application_id=_APPLICATION_ID, version=SCHEMA_VERSION, exclusive=exclusive
            )
        self._open.append(db)
        return db

    def _disconnect(self) -> None:
        while self._open:
            self._open.pop().close()

    def _move_to(self, now: float) -> None:
        """A clock that was set back must make nothing immortal: what came in the future came now (case X7)."""
        for table, ends in (("records", ("expires",)), ("providers", ("addrs_expire", "expires"))):
            moved = ", ".join([f"{end} = {end} - received + :now" for end in ends])
            self._writer.execute(f"UPDATE {table} SET {moved}, received = :now WHERE received > :now", {"now": now})

    def _count(self) -> _Totals:
        db, totals = self._reader, _Totals()
        row = db.execute("SELECT count(*), coalesce(sum(length(key) + length(value)), 0) FROM records").fetchone()
        totals.records, totals.record_bytes = row
        totals.content = db.execute("SELECT count(*) FROM content").fetchone()[0]
        self._find_edges(db, totals)
        return totals

    def _find_edges(self, db: sqlite3.Connection, totals: _Totals) -> None:
        config = self.config
        full = totals.records >= config.records or totals.record_bytes >= config.record_bytes
        totals.records_edge = _edge(db, "records") if full else None
        totals.content_edge = _edge(db, "content") if totals.content >= config.provider_keys else None

    def _distance(self, key: bytes) -> bytes:
        return (point_of(key) ^ self._local).to_bytes(32, "big")

    # --- values -------------------------------------------------------------------------------------------------------

    def value(self, key: bytes, now: float) -> StoredValue | None:
        held = self._waiting.values.get(key) or self._writing.values.get(key)
        if held is None:
            with translated(self._path):
                query = "SELECT value, received, expires FROM records WHERE key = ?"
                row = self._reader.execute(query, (key,)).fetchone()
            held = None if row is None else StoredValue(*row)
        return held if held is not None and held.expires > now else None

    def put_value(self, key: bytes, value: bytes, *, now: float, expires: float) -> bool:
        edge = self._totals.records_edge
        if edge is not None and self._distance(key) > edge:
            self.evicted += 1
            return False
        self._admit()
        self._waiting.values[key] = StoredValue(value, now, expires)
        return True

    # --- providers ----------------------------------------------------------------------------------------------------

    def providers(self, key: bytes, now: float) -> Sequence[StoredProvider]:
        found: dict[PeerId, _Provider] = {}
        with translated(self._path):
            query = "SELECT peer, addrs, received, addrs_expire, expires FROM providers WHERE key = ?"
            for peer, addrs, *times in self._reader.execute(query, (key,)):
                found[PeerId.from_bytes(peer)] = _Provider(_unpack(addrs), *times)
        for batch in (self._writing, self._waiting):
            found.update(batch.providers.get(key, {}))
        point = point_of(key)
        nearest = sorted(found.items(), key=lambda item: point_of(bytes(item[0])) ^ point)
        return [
            StoredProvider(peer, held.addrs if held.addrs_expire > now else (), held.expires)
            for peer, held in nearest[: self.config.providers_per_key]
            if held.expires > now
        ]

    def add_provider(
        self, key: bytes, peer: PeerId, addrs: Sequence[bytes], *, addrs_expire: float, expires: float
    ) -> bool:
        edge = self._totals.content_edge
        if edge is not None and self._distance(key) > edge:
            self.evicted += 1
            return False
        self._admit()
        held = _Provider(tuple(addrs), self._clock(), addrs_expire, expires)
        self._waiting.providers.setdefault(key, {})[peer] = held
        return True

    def _admit(self) -> None:
        if self._waiting.count >= MAX_WAITING:
            self.shed += 1
            raise StoreBusy("the disk is slower than what is to be stored")
        self._waiting.count += 1
        self._wake.set()

    # --- life ---------------------------------------------------------------------------------------------------------

    def expire(self, now: float) -> None:
        self._waiting.expired = now
        self._wake.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        task_status.started()
        try:
            while True:
                await self._wake.wait()
                await trio.sleep(_FLUSH_INTERVAL)
                self._wake = trio.Event()
                if not await self._flush():
                    self._wake.set()
                    await trio.sleep(_PAUSE)
        finally:
            with trio.CancelScope(shield=True):
                await self._flush()

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            while self._next_batch():
                self._written(self._write(self._writing))
        except StoreError as exc:
            self._failed(exc)
        finally:
            self._disconnect()

    async def _flush(self) -> bool:
        """Write all that waits; False when the disk does not take it."""
        while not self._closed and self._next_batch():
            try:
                self._written(await trio.to_thread.run_sync(self._write, self._writing))
            except StoreError as exc:
                self._failed(exc)
                return False
        return True

    def _next_batch(self) -> bool:
        """Have something in ``_writing``, unless all is written. A batch that failed is tried again."""
        if not self._writing:
            self._writing, self._waiting = self._waiting, _Batch()
        return bool(self._writing)

    def _written(self, result: tuple[_Totals, int]) -> None:
        self._totals, evicted = result
        self.evicted += evicted
        self._writing = _Batch()
        self.last_error = None

    def _failed(self, exc: StoreError) -> None:
        self.flush_errors += 1
        if self.last_error is None or self.last_error.reason != exc.reason:
            _log.error("the store of the DHT could not be written: %s", exc)
        self.last_error = exc

    # --- writing; in a thread, one at a time --------------------------------------------------------------------------

    def _write(self, batch: _Batch) -> tuple[_Totals, int]:
        """One transaction. Touches nothing but its argument, the file, and its counts, which it returns anew."""
        db, old = self._writer, self._totals
        totals = _Totals(old.records, old.record_bytes, old.content)
        with translated(self._path):
            db.execute("BEGIN IMMEDIATE")
            try:
                if batch.expired is not None:
                    _expire(db, batch.expired, totals)
                for key, held in batch.values.items():
                    _forget_value(db, key, totals)
                    row = (key, self._distance(key), held.value, held.received, held.expires)
                    db.execute("INSERT INTO records VALUES (?, ?, ?, ?, ?)", row)
                    totals.records += 1
                    totals.record_bytes += len(key) + len(held.value)
                for key, providers in batch.providers.items():
                    self._write_providers(db, key, providers, totals)
                evicted = self._make_room(db, totals)
                self._find_edges(db, totals)
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                raise
        return totals, evicted

    def _write_providers(
        self, db: sqlite3.Connection, key: bytes, providers: dict[PeerId, _Provider], totals: _Totals
    ) -> None:
        point = point_of(key)
        totals.content += db.execute("INSERT OR IGNORE INTO content VALUES (?, ?)", (key, self._distance(key))).rowcount
        for peer, held in providers.items():
            distance = (point_of(bytes(peer)) ^ point).to_bytes(32, "big")
            times = (held.received, held.addrs_expire, held.expires)
            row = (key, bytes(peer), distance, _pack(held.addrs), *times)
            db.execute("INSERT OR REPLACE INTO providers VALUES (?, ?, ?, ?, ?, ?, ?)", row)
        too_many = "SELECT peer FROM providers WHERE key = ? ORDER BY distance LIMIT -1 OFFSET ?"
        for (peer,) in db.execute(too_many, (key, self.config.providers_per_key)).fetchall():
            db.execute("DELETE FROM providers WHERE key = ? AND peer = ?", (key, peer))

    def _make_room(self, db: sqlite3.Connection, totals: _Totals) -> int:
        evicted = 0
        while totals.records > self.config.records or totals.record_bytes > self.config.record_bytes:
            _forget_value(db, _farthest(db, "records"), totals)
            evicted += 1
        while totals.content > self.config.provider_keys:
            key = _farthest(db, "content")
            db.execute("DELETE FROM providers WHERE key = ?", (key,))
            db.execute("DELETE FROM content WHERE key = ?", (key,))
            totals.content -= 1
            evicted += 1
        return evicted


def _edge(db: sqlite3.Connection, table: str) -> bytes | None:
    row = db.execute(f"SELECT distance FROM {table} ORDER BY distance DESC LIMIT 1").fetchone()
    return None if row is None else row[0]


def _farthest(db: sqlite3.Connection, table: str) -> bytes:
    key: bytes = db.execute(f"SELECT key FROM {table} ORDER BY distance DESC LIMIT 1").fetchone()[0]
    return key


def _forget_value(db: sqlite3.Connection, key: bytes, totals: _Totals) -> None:
    row = db.execute("SELECT length(value) FROM records WHERE key = ?", (key,)).fetchone()
    if row is not None:
        db.execute("DELETE FROM records WHERE key = ?", (key,))
        totals.records -= 1
        totals.record_bytes -= len(key) + row[0]


def _expire(db: sqlite3.Connection, now: float, totals: _Totals) -> None:
    """Remove some of what has ended; the next look removes more."""
    limit = (now, _EXPIRED_AT_ONCE)
    for (key,) in db.execute("SELECT key FROM records WHERE expires <= ? LIMIT ?", limit).fetchall():
        _forget_value(db, key, totals)
    ended = db.execute("SELECT key, peer FROM providers WHERE expires <= ? LIMIT ?", limit).fetchall()
    db.executemany("DELETE FROM providers WHERE key = ? AND peer = ?", ended)
    for key in dict.fromkeys([key for key, _ in ended]):
        none_left = "DELETE FROM content WHERE key = ? AND NOT EXISTS (SELECT 1 FROM providers WHERE key = ?)"
        totals.content -= db.execute(none_left, (key, key)).rowcount


def _pack(addrs: Sequence[bytes]) -> bytes:
    return b"".join([frame(addr) for addr in addrs])


def _unpack(packed: bytes) -> tuple[bytes, ...]:
    return tuple(FrameBuffer(_MAX_ADDR).receive_data(packed))
