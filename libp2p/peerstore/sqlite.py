"""The peerstore that survives restarts: the memory one, with a SQLite file behind it.

Theory of operation. Everything is answered from memory. A change marks its peer dirty; ``run`` writes dirty peers,
whole and in batches of one transaction each, in a thread, half a second later. So a crash at any moment loses at most
what changed since the last flush, and never leaves half a peer (case X11). At start the whole file is read.

The file belongs to this process until it is closed (:mod:`libp2p._util.database`).

Time. Memory counts in monotonic seconds, which mean nothing to the next process, so the file has wall-clock times: when
a peer was saved, and when its addresses and record end. What is left of a life at start is never more than it was when
it was saved; a clock that was set back makes nothing immortal (case X7).

Trouble. What is wrong with the file when it is opened is raised, as a typed error: the user can act. A disk that fails
later is logged and counted, and tried again; a host without a disk is better than no host.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from os import PathLike, fspath
from typing import Any

import trio

from .._util.database import open_database, translated
from ..addressing import parse
from ..crypto.keys import unmarshal_public_key
from ..errors import StoreError
from ..peer_id import PeerId
from ._entry import Entry, Held, PeerstoreConfig, Record
from ._memory import MemoryPeerstore

_log = logging.getLogger("libp2p.peerstore")

SCHEMA_VERSION = 1
"""What this code reads and writes, as SQLite's ``user_version``."""
_APPLICATION_ID = 0x6C703270
"""``lp2p``: tells our files from other SQLite files."""
_BATCH = 500
"""Peers in one transaction: about 10 ms to prepare."""
_MAX_PAUSE = 60.0
"""Longest pause between two tries on a failing disk."""
_SCHEMA = """
CREATE TABLE peers (
    peer BLOB PRIMARY KEY, saved REAL NOT NULL, known INTEGER NOT NULL, key BLOB, protocols TEXT NOT NULL,
    metadata TEXT NOT NULL, envelope BLOB, seq BLOB, record_expires REAL
) WITHOUT ROWID;
CREATE TABLE addrs (
    peer BLOB NOT NULL, addr BLOB NOT NULL, expires REAL NOT NULL, certified INTEGER NOT NULL,
    PRIMARY KEY (peer, addr)
) WITHOUT ROWID;
"""

_PeerRow = tuple[bytes, float, int, bytes | None, str, str, bytes | None, bytes | None, float | None]
_AddrRow = tuple[bytes, bytes, float, int]
_Rows = list[tuple[bytes, _PeerRow | None, list[_AddrRow]]]
"""Peer, its row (None: it is gone), and the rows of its addresses."""


class SqlitePeerstore(MemoryPeerstore):
    """A peerstore in a file.

    Opening reads the whole file, which takes a second for ten thousand peers; do it before the host starts. Nothing
    is written before :meth:`run` runs or :meth:`close` is called.

    Args:
        path: the file; made when it is not there. Every host needs its own.
        config: the bounds, in memory and on disk.
        clock: monotonic seconds. Trio's clock by default, so the store is opened inside ``trio.run``.
        wall_clock: seconds since 1970, for what goes to disk.
        flush_interval: seconds between a change and its way to disk.

    Attributes:
        flush_errors: how many tries to write have failed.
        last_error: why the last one failed; None once one succeeded.
        damaged: how many peers in the file could not be read.

    Raises:
        StoreLocked: somebody else has the file open.
        StoreVersionMismatch: another version of this library wrote it.
        StoreCorrupt: it is damaged, or no peerstore.
        StoreUnwritable: it cannot be opened for writing.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        config: PeerstoreConfig | None = None,
        *,
        clock: Callable[[], float] = trio.current_time,
        wall_clock: Callable[[], float] = time.time,
        flush_interval: float = 0.5,
    ) -> None:
        super().__init__(config, clock=clock)
        self.flush_errors: int = 0
        self.last_error: StoreError | None = None
        self.damaged: int = 0
        self._path = fspath(path)
        self._wall_clock = wall_clock
        self._flush_interval = flush_interval
        self._dirty: dict[PeerId, None] = {}
        # Who is in the file. A stranger that came and went between two flushes need not be deleted there, and with
        # that `_dirty` is bounded by what is in memory and in the file.
        self._stored: set[PeerId] = set()
        self._wake = trio.Event()
        self._closed = False
        with translated(self._path):
            self._db = open_database(self._path, schema=_SCHEMA, application_id=_APPLICATION_ID, version=SCHEMA_VERSION)
            try:
                self._load()
            except BaseException:
                self._db.close()
                raise

    # --- life ---------------------------------------------------------------------------------------------------------

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Remove what has ended and write what has changed, until cancelled; then write the rest."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write_behind)
                await super().run(task_status=task_status)
        finally:
            with trio.CancelScope(shield=True):
                await self._flush()

    def close(self) -> None:
        """Write what is left and give the file back. Idempotent."""
        if self._closed:
            return
        self._closed = True
        try:
            while self._dirty:
                self._write(self._take())
        except StoreError as exc:
            self._failed(exc)
        finally:
            self._db.close()

    async def _write_behind(self) -> None:
        pause = self._flush_interval
        while True:
            await self._wake.wait()
            await trio.sleep(pause)
            self._wake = trio.Event()
            await self._flush()
            if self._dirty:
                # Failed. Try again, ever less often, but do not lose what is in memory.
                self._wake.set()
                pause = min(2 * pause, _MAX_PAUSE)
            else:
                pause = self._flush_interval

    async def _flush(self) -> None:
        while self._dirty and not self._closed:
            rows = self._take()
            written = False
            try:
                await trio.to_thread.run_sync(self._write, rows)
                written = True
                self.last_error = None
            except StoreError as exc:
                self._failed(exc)
                return
            finally:
                if not written:
                    for peer, _, _ in rows:
                        self._dirty[PeerId.from_bytes(peer)] = None

    def _failed(self, exc: StoreError) -> None:
        self.flush_errors += 1
        if self.last_error is None or self.last_error.reason != exc.reason:
            _log.error("the peerstore could not be written, and goes on in memory: %s", exc)
        self.last_error = exc

    def _changed(self, peer: PeerId) -> None:
        if peer in self._entries or peer in self._stored:
            self._dirty[peer] = None
            self._wake.set()
        else:
            self._dirty.pop(peer, None)

    # --- writing ------------------------------------------------------------------------------------------------------

    def _take(self) -> _Rows:
        """Turn some dirty peers, which then no longer are, into rows."""
        rows: _Rows = []
        now, wall = self._clock(), self._wall_clock()
        while self._dirty and len(rows) < _BATCH:
            peer = next(iter(self._dirty))
            del self._dirty[peer]
            entry = self._entries.get(peer)
            if entry is None:
                rows.append((bytes(peer), None, []))
                self._stored.discard(peer)
            else:
                rows.append((bytes(peer), *self._render(bytes(peer), entry, wall - now, wall)))
                self._stored.add(peer)
        return rows

    def _render(self, peer: bytes, entry: Entry, offset: float, wall: float) -> tuple[_PeerRow, list[_AddrRow]]:
        # Nothing of a connected peer ends; if this process does, it ends as if the peer had disconnected.
        soonest = wall + self.config.recently_connected if entry.connected else 0.0
        record = entry.record
        row = (
            peer,
            wall,
            int(entry.known),
            None if entry.key is None else entry.key.marshal(),
            json.dumps(sorted(entry.protocols)),
            json.dumps(entry.metadata),
            None if record is None else record.envelope,
            None if record is None else record.seq.to_bytes(8, "big"),
            None if record is None else max(record.expires + offset, soonest),
        )
        addrs = [
            (peer, data, max(held.expires + offset, soonest), int(held.certified)) for data, held in entry.addrs.items()
        ]
        return row, addrs

    def _write(self, rows: _Rows) -> None:
        """One transaction. Runs in a thread, and touches nothing but its argument and the file."""
        with translated(self._path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                for peer, row, addrs in rows:
                    self._db.execute("DELETE FROM addrs WHERE peer = ?", (peer,))
                    if row is None:
                        self._db.execute("DELETE FROM peers WHERE peer = ?", (peer,))
                    else:
                        self._db.execute("INSERT OR REPLACE INTO peers VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
                        self._db.executemany("INSERT INTO addrs VALUES (?, ?, ?, ?)", addrs)
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    # --- reading ------------------------------------------------------------------------------------------------------

    def _load(self) -> None:
        addrs: dict[bytes, list[tuple[bytes, float, int]]] = {}
        for peer, addr, expires, certified in self._db.execute("SELECT peer, addr, expires, certified FROM addrs"):
            addrs.setdefault(peer, []).append((addr, expires, certified))
        now, wall = self._clock(), self._wall_clock()
        damaged: list[Any] = []
        for row in self._db.execute("SELECT * FROM peers ORDER BY saved, peer"):
            try:
                peer = PeerId.from_bytes(row[0])
                entry = self._parse(row, addrs.get(row[0], ()), now, wall)
            except (ValueError, TypeError, AttributeError):
                # SQLite vouches for pages, not for what is in them. DecodeError is a ValueError.
                damaged.append(row[0])
                continue
            self._stored.add(peer)
            self._put(peer, entry)
            if peer not in self._entries:
                self._changed(peer)  # all of it has ended
        self.damaged = len(damaged)
        if damaged:
            _log.warning("%s: %d peers could not be read and are left out", self._path, self.damaged)
            for peer in damaged:
                self._db.execute("DELETE FROM addrs WHERE peer = ?", (peer,))
                self._db.execute("DELETE FROM peers WHERE peer = ?", (peer,))
        self._make_room()

    def _parse(self, row: Any, addrs: Any, now: float, wall: float) -> Entry:
        _, saved, known, key, protocols, metadata, envelope, seq, record_expires = row

        def ends(expires: float) -> float:
            left: float = min(expires - wall, expires - saved)
            return now + left

        entry = Entry(now, known=bool(known))
        for data, expires, certified in addrs:
            if ends(expires) > now:
                entry.addrs[data] = Held(parse(data), ends(expires), bool(certified))
        if key is not None:
            entry.key = unmarshal_public_key(key)
        entry.protocols = frozenset([str(protocol) for protocol in json.loads(protocols)])
        entry.metadata = {str(name): str(value) for name, value in json.loads(metadata).items()}
        if envelope is not None and ends(record_expires) > now:
            # Its signature was checked when it came in; who can change this file can do worse.
            entry.record = Record(bytes(envelope), int.from_bytes(seq, "big"), ends(record_expires))
        return entry
