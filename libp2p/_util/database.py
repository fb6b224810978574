"""A SQLite file that belongs to one store of one process: opening it, and what can go wrong with it.

WAL mode, in which a kill -9 leaves a consistent state. ``locking_mode=EXCLUSIVE``: the lock is held from opening to
closing, by SQLite itself, so that it works on every platform, between processes and within one, and ends with the
process however that ends. ``synchronous=NORMAL``: losing power may lose the last transactions, but no more.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator

from ..errors import StoreCorrupt, StoreLocked, StoreUnwritable, StoreVersionMismatch


@contextlib.contextmanager
def translated(path: str) -> Iterator[None]:
    """Turn what SQLite raises about the file ``path`` into our errors.

    Raises:
        StoreLocked: somebody else has it open.
        StoreCorrupt: it is damaged, or something else.
        StoreUnwritable: it cannot be opened or written.
    """
    try:
        yield
    except sqlite3.Error as exc:
        code = getattr(exc, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise StoreLocked(path) from exc
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR):
            raise StoreCorrupt(path, str(exc)) from exc
        raise StoreUnwritable(path, str(exc)) from exc
    except UnicodeDecodeError as exc:  # a message of SQLite that quotes a damaged file
        raise StoreCorrupt(path, "the schema is damaged") from exc


def open_database(
    path: str, *, schema: str, application_id: int, version: int, exclusive: bool = True
) -> sqlite3.Connection:
    """Open the file ``path``, which is made when it is not there, and take its lock. To be called in `translated`.

    Text comes back as bytes: what is no UTF-8 must cost only the row it is in. There are no implicit transactions. Any
    thread may use the connection, one at a time.

    Args:
        path: the file.
        schema: the statements that make its tables, each ending in ``;`` and a new line.
        application_id: SQLite's, which tells the files of different stores apart.
        version: what ``schema`` is, as SQLite's ``user_version``.
        exclusive: False leaves it to the caller to see that nobody else has the file, and lets him open it twice.

    Raises:
        StoreCorrupt: it is the file of another program.
        StoreVersionMismatch: its tables are of another version.
    """
    # No timeout: who holds the lock holds it for its life.
    db = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
    try:
        db.text_factory = bytes
        _prepare(db, path, schema, application_id, version, exclusive)
    except BaseException:
        db.close()
        raise
    return db


def _prepare(
    db: sqlite3.Connection, path: str, schema: str, application_id: int, version: int, exclusive: bool
) -> None:
    """Take the lock, and make or check the schema."""
    if exclusive:
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
    db.execute("PRAGMA journal_mode = WAL")
    db.execute("PRAGMA synchronous = NORMAL")
    db.execute("PRAGMA journal_size_limit = 4194304")
    db.execute("BEGIN IMMEDIATE")  # takes the lock, which is then kept
    found = db.execute("PRAGMA user_version").fetchone()[0]
    application = db.execute("PRAGMA application_id").fetchone()[0]
    empty = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0
    if empty and not found and not application:
        for statement in schema.split(";\n"):
            db.execute(statement)
        db.execute(f"PRAGMA user_version = {version}")
        db.execute(f"PRAGMA application_id = {application_id}")
    elif application != application_id:
        raise StoreCorrupt(path, "a database of another program")
    elif found != version:
        raise StoreVersionMismatch(path, found, version)
    db.execute("COMMIT")
    # Costs a tenth of the reading that follows, and finds pages that are missing, which SQLite takes for zeros.
    checked = db.execute("PRAGMA quick_check(1)").fetchone()[0]
    if checked != b"ok":
        raise StoreCorrupt(path, checked.decode("utf-8", "replace"))
