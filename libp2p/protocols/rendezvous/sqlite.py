"""A rendezvous point's registrations in a file, so that they survive its restart.

Theory of operation. The point answers from memory; a file is read once, when it is opened. A registration is on its way
to disk before it is answered, so whoever was told that it is registered still is after a kill -9. Those that arrive
while a transaction is being written share the next one. What has ended goes with the next transaction.

Time. A file has wall-clock times: when a registration was saved, and when it ends. What is left of a life at start is
never more than it was when it was saved; a clock that was set back makes nothing immortal (case X7).

Trouble. What is wrong with the file when it is opened is raised. A disk that fails later is logged and counted, and the
point goes on in memory.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from os import PathLike, fspath

import trio

from ..._util.database import open_database, translated
from ...errors import DecodeError, StoreError
from ...peer_id import PeerId
from ._store import StoredRegistration

_log = logging.getLogger("libp2p.rendezvous")

SCHEMA_VERSION = 1
"""What this code reads and writes, as SQLite's ``user_version``."""
_APPLICATION_ID = 0x6C703272
"""``lp2r``: tells our files from other SQLite files."""
_SCHEMA = """
CREATE TABLE registrations (
    namespace BLOB NOT NULL, peer BLOB NOT NULL, record BLOB NOT NULL, saved REAL NOT NULL, expires REAL NOT NULL,
    PRIMARY KEY (namespace, peer)
) WITHOUT ROWID;
CREATE INDEX by_end ON registrations (expires);
"""

_Key = tuple[bytes, bytes]
_Change = tuple[bytes, float, float] | None
"""Record, when it was saved and when it ends; None: it is gone."""


class SqliteRegistrations:
    """A file of registrations, for a :class:`~libp2p.protocols.rendezvous.RendezvousPoint`, which closes it.

    Args:
        path: the file; made when it is not there. Every point needs its own.
        wall_clock: seconds since 1970.

    Attributes:
        write_errors: how many transactions have failed.
        damaged: how many rows of the file could not be read.

    Raises:
        StoreLocked: somebody else has the file open.
        StoreVersionMismatch: another version of this library wrote it.
        StoreCorrupt: it is damaged, or no file of registrations.
        StoreUnwritable: it cannot be opened for writing.
    """

    def __init__(self, path: str | PathLike[str], *, wall_clock: Callable[[], float] = time.time) -> None:
        self.write_errors: int = 0
        self.damaged: int = 0
        self._path = fspath(path)
        self._clock = wall_clock
        # What is to be written: at most one entry for each request that is being served.
        self._pending: dict[_Key, _Change] = {}
        self._lock = trio.Lock()
        self._closed = False
        with translated(self._path):
            self._db = open_database(self._path, schema=_SCHEMA, application_id=_APPLICATION_ID, version=SCHEMA_VERSION)

    def load(self) -> Sequence[StoredRegistration]:
        """What is in the file and has not ended, in the order in which it was saved. Rows that make no sense are left
        out.

        Raises:
            StoreCorrupt: the file is damaged.
        """
        wall = self._clock()
        found: list[StoredRegistration] = []
        with translated(self._path):
            rows = self._db.execute(
                "SELECT namespace, peer, record, saved, expires FROM registrations ORDER BY saved, namespace, peer"
            ).fetchall()
        for namespace, peer, record, saved, expires in rows:
            try:
                left = min(expires - wall, expires - saved)
                row = StoredRegistration(namespace.decode(), PeerId.from_bytes(peer), bytes(record), left)
            except (DecodeError, UnicodeDecodeError, TypeError, AttributeError):
                # SQLite vouches for pages, not for what is in them.
                self.damaged += 1
                continue
            if left > 0:
                found.append(row)
        if self.damaged:
            _log.warning("%s: %d registrations could not be read and are left out", self._path, self.damaged)
        return found

    async def save(self, namespace: str, peer: PeerId, record: bytes, ttl: float) -> None:
        """Keep a registration for ``ttl`` seconds from now. Returns when it is written, or could not be."""
        wall = self._clock()
        await self._change((namespace.encode(), bytes(peer)), (record, wall, wall + ttl))

    async def remove(self, namespace: str, peer: PeerId) -> None:
        """Forget a registration. Returns when that is written, or could not be."""
        await self._change((namespace.encode(), bytes(peer)), None)

    async def aclose(self) -> None:
        """Give the file back, once what is being written is written. Idempotent."""
        with trio.CancelScope(shield=True):
            async with self._lock:
                self._closed = True
                self._db.close()

    async def _change(self, key: _Key, change: _Change) -> None:
        self._pending[key] = change
        # Cancelled or not, what memory says must come to disk.
        with trio.CancelScope(shield=True):
            async with self._lock:
                if key not in self._pending or self._closed:
                    return  # somebody has taken it along
                changes, self._pending = self._pending, {}
                try:
                    await trio.to_thread.run_sync(self._write, changes)
                except StoreError as exc:
                    self.write_errors += 1
                    _log.error("registrations could not be written, and are kept in memory only: %s", exc)

    def _write(self, changes: dict[_Key, _Change]) -> None:
        """One transaction. Runs in a thread, and touches nothing but its argument and the file."""
        with translated(self._path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                self._db.execute("DELETE FROM registrations WHERE expires <= ?", (self._clock(),))
                for (namespace, peer), change in changes.items():
                    if change is None:
                        self._db.execute(
                            "DELETE FROM registrations WHERE namespace = ? AND peer = ?", (namespace, peer)
                        )
                    else:
                        self._db.execute(
                            "INSERT OR REPLACE INTO registrations VALUES (?, ?, ?, ?, ?)", (namespace, peer, *change)
                        )
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise
