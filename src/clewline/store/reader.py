"""
Reading the catalog: the standard library and msgspec, nothing that loads slowly.

`clewline why` reads through here, to answer within 0.2 s.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from clewline.errors import Conflict, Fault, NotFound, StoreFull, StoreNewer, StoreReadOnly
from clewline.store.disk import disk_error, open_error
from clewline.store.rows import R, UnreadableRecord, decode, table

FILE = "catalog.db"
VERSIONS = ("0001", "0002", "0003")
"""Every version of the schema, oldest first; the last is ours."""

BUSY_S = 600.0
"""How long a connection waits for another's write before it gives up."""

# What SQLite makes of a quota or a limit on the size of files; a failing disk shows at fsync.
_CANNOT_GROW = (sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE)


_inherited: list[sqlite3.Connection] = []


def discard(connection: sqlite3.Connection | None, pid: int) -> None:
    """Close a connection; in a forked child keep it, since even closing it could do damage."""
    if connection is None:
        return
    if pid == os.getpid():
        connection.close()
    else:
        _inherited.append(connection)


class RecordQueries:
    """Reads records over the connection that a subclass gives."""

    def connection(self) -> sqlite3.Connection:
        """Return the connection to read over."""
        raise NotImplementedError

    def get(self, kind: type[R], *key: Any) -> R | None:
        """Get the record with these keys, in the order of `KEYS`; None when there is none."""
        try:
            row = self.rows(table(kind).by_keys, key)
        except OverflowError:  # a number over 64 bits, which no record has
            return None
        return decode(kind, row[0]) if row else None

    def find(
        self,
        kind: type[R],
        *,
        order: str = "",
        limit: int | None = 50,
        offset: int = 0,
        prefix: dict[str, str] | None = None,
        unreadable: list[UnreadableRecord] | None = None,
        **equal: Any,
    ) -> list[R]:
        """
        Find records.

        Args:
            kind: The kind of record.
            order: The field to order by, `-field` for descending; the keys by default.
            limit: How many at most; None for all.
            offset: How many to leave out at the start.
            prefix: Field → how its text begins.
            unreadable: Takes the errors of rows that cannot be read, which are then left out.
            equal: Field → its value; None finds the records without one.

        Raises:
            UsageError: The kind has no such field.
            UnreadableRecord: A row cannot be read, and no list takes its error.
        """
        where, values = table(kind).where(equal, prefix)
        page = f" LIMIT {-1 if limit is None else int(limit)} OFFSET {int(offset)}"
        query = table(kind).select + where + table(kind).order_by(order) + page
        found: list[R] = []
        for row in self.rows(query, values):
            try:
                found.append(decode(kind, row))
            except UnreadableRecord as error:
                if unreadable is None:
                    raise
                unreadable.append(error)
        return found

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Let this thread's reads see one moment, as those of a transaction do."""
        connection = self.connection()
        if connection.in_transaction:
            yield
            return
        connection.execute("BEGIN")
        try:
            yield
        finally:
            connection.execute("ROLLBACK")

    def count(self, kind: type[R], *, prefix: dict[str, str] | None = None, **equal: Any) -> int:
        """Count records; the arguments are those of `find`."""
        where, values = table(kind).where(equal, prefix)
        return int(self.rows(f'SELECT count(*) FROM "{table(kind).name}"{where}', values)[0][0])

    def rows(self, query: str, values: Sequence[Any] = ()) -> list[Any]:
        """Return the rows of a query; for questions that `find` cannot ask."""
        connection = self.connection()
        try:
            return connection.execute(query, values).fetchall()
        except sqlite3.DatabaseError as error:
            raise translated(error, _path_of(connection)) from error


class CatalogReader(RecordQueries):
    """
    Reads records. Each read sees everything that was committed before it began.

    May be used from any thread and after a fork; each thread has a connection of its own, which
    lives until the thread ends or `close` is called in it.
    """

    def __init__(self, path: Path) -> None:
        """
        Open a catalog for reading.

        Raises:
            NotFound: There is no such file.
        """
        if not path.is_file():
            raise NotFound(
                f"There is no catalog at {path}.",
                "`clewline init` makes a project, or completes a clone.",
            )
        self.path = path
        self._local = threading.local()

    def data_version(self) -> tuple[int, int]:
        """
        Return a value that changes when another connection has committed; per thread.

        Raises:
            Fault: The file was deleted.
        """
        connection = self.connection()
        try:
            file = self.path.stat().st_ino
        except FileNotFoundError as error:
            raise Fault(
                f"The catalog {self.path} was deleted while it was in use.",
                "Restore it from a backup, then start this process again.",
            ) from error
        if file != self._local.opened.file:  # another file is there now, such as a restored backup
            self.close()
            connection = self.connection()
        return file, int(connection.execute("PRAGMA data_version").fetchone()[0])

    def close(self) -> None:
        """Close this thread's connection; the next read opens another."""
        self._local.opened = None

    def connection(self) -> sqlite3.Connection:
        """Return this thread's connection, opened when there is none in this process."""
        opened: _Opened | None = getattr(self._local, "opened", None)
        if opened is None or opened.pid != os.getpid():
            file = self.path.stat().st_ino if self.path.exists() else 0
            opened = _Opened(connect(self.path), file)
            schema_version(opened.connection)
            self._local.opened = opened
        return opened.connection


class _Opened:
    """A connection of one thread, closed when that thread ends or opens another."""

    def __init__(self, connection: sqlite3.Connection, file: int) -> None:
        self.connection = connection
        self.file = file  # the inode of the catalog
        self.pid = os.getpid()

    def __del__(self) -> None:
        discard(self.connection, self.pid)


def connect(path: Path) -> sqlite3.Connection:
    """Open a catalog read-only, also on a medium where nothing at all can be written."""
    address = f"file:{quote(str(path.absolute()))}?mode=ro"
    connection = _open(address)
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.DatabaseError as error:
        connection.close()
        if not (isinstance(error, sqlite3.OperationalError) and _is_unwritten_medium(path)):
            raise translated(error, path) from error
        # Without a place for the shared-memory file SQLite reads a WAL database
        # only when it may assume that nobody else writes, which is so on such a medium.
        connection = _open(f"{address}&immutable=1")
    return connection


def schema_version(connection: sqlite3.Connection) -> str | None:
    """
    Return the version of a catalog's schema; None before the first.

    Raises:
        StoreNewer: A newer clewline wrote it.
    """
    path = _path_of(connection)
    try:
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.DatabaseError as error:
        if "no such table" in str(error):  # SQLite has no code of its own for this
            return None
        raise translated(error, path) from error
    if row is not None and row[0] not in VERSIONS:
        raise StoreNewer(
            f"The catalog {path} is at version {row[0]}; this clewline knows versions up to "
            f"{VERSIONS[-1]}.",
            "Use the clewline that wrote it, or a newer one.",
        )
    return None if row is None else str(row[0])


def require_writable(path: Path) -> None:
    """
    Check that a catalog can be written, or made in its folder.

    Asks for the right without opening the file: closing any descriptor of a file drops the
    POSIX locks that SQLite holds on it in this process.

    Raises:
        StoreReadOnly: Its medium or its permissions forbid it.
    """
    for place in (path, path.parent) if path.exists() else (path.parent,):
        if not os.access(place, os.W_OK):
            read_only = place.exists() and os.statvfs(place).f_flag & os.ST_RDONLY
            raise StoreReadOnly(
                f"The catalog {path} cannot be written: "
                f"{'the file system is read-only' if read_only else 'permission denied'}.",
                "Mount the file system writable, or give this user the right to write there.",
            )


def translated(error: sqlite3.Error, path: Path) -> Exception:
    """Return the error of ours that says what an error of SQLite means."""
    extended = getattr(error, "sqlite_errorcode", 0)
    code = extended & 0xFF  # the primary one
    if code == sqlite3.SQLITE_FULL or extended in _CANNOT_GROW:
        return StoreFull(
            f"The disk under {path} is full; nothing of this write was recorded.",
            "Free some space and run it again.",
        )
    if code == sqlite3.SQLITE_CANTOPEN and path.parent.is_dir():
        return disk_error(open_error(path), path)
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return StoreReadOnly(
            f"The catalog {path} cannot be written: {error}.",
            "Mount the file system writable, or give this user the right to write there.",
        )
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return Conflict(
            f"Another process has held the catalog {path} for {BUSY_S:.0f} s.",
            "`clewline doctor` names it; if it hangs, end it.",
        )
    return Fault(
        f"The catalog {path} cannot be used: {error}.",
        "`clewline doctor` checks the store and says how to fix it.",
    )


def _open(address: str) -> sqlite3.Connection:
    return sqlite3.connect(
        address,
        uri=True,
        timeout=BUSY_S,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=256,
    )


def _path_of(connection: sqlite3.Connection) -> Path:
    databases = connection.execute("PRAGMA database_list")
    return Path(next((row[2] for row in databases if row[1] == "main"), FILE))


def _is_unwritten_medium(path: Path) -> bool:
    """Return whether the file system is read-only and no log of another's writes lies beside."""
    log = path.with_name(f"{path.name}-wal")
    read_only = bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    return (read_only or not os.access(path.parent, os.W_OK)) and not (
        log.exists() and log.stat().st_size
    )
