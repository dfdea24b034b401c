"""
Reading the catalog: the standard library and msgspec, nothing that loads slowly.

What answers `why` in a fifth of a second reads through here.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from pathlib import Path
from typing import Any
from urllib.parse import quote

from clewline.errors import Conflict, Fault, NotFound, StoreFull, StoreNewer, StoreReadOnly
from clewline.store.rows import R, count_query, decode, find_query, table

FILE = "catalog.db"
VERSIONS = ("0001", "0002")
"""Every version of the schema, oldest first; the last is ours."""

BUSY_S = 600.0
"""How long a connection waits for another's write before it gives up."""

# What SQLite makes of a quota or a limit on the size of files; a failing disk shows at fsync.
_CANNOT_GROW = (sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE)


class CatalogReader:
    """
    Reads records. Each read sees everything committed before it began.

    May be used from any thread and after a fork; each thread has a connection of
    its own, which lives until the thread ends or `close` is called in it.
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

    def get(self, kind: type[R], *key: Any) -> R | None:
        """Get the record with these keys, in the order of `KEYS`; None when there is none."""
        return get(self._connection(), kind, *key)

    def find(
        self,
        kind: type[R],
        *,
        order: str = "",
        limit: int | None = 50,
        offset: int = 0,
        prefix: dict[str, str] | None = None,
        **equal: Any,
    ) -> list[R]:
        """
        Find records.

        Args:
            kind: The kind of record.
            order: The field to order by, `-field` for descending; the keys by default.
            limit: At most so many; None for all.
            offset: Leave out so many at the start.
            prefix: Field → how its text begins.
            equal: Field → its value; None finds the records without one.

        Raises:
            UsageError: The kind has no such field.
        """
        return find(
            self._connection(),
            kind,
            order=order,
            limit=limit,
            offset=offset,
            prefix=prefix,
            **equal,
        )

    def count(self, kind: type[R], *, prefix: dict[str, str] | None = None, **equal: Any) -> int:
        """Count records; the arguments are those of `find`."""
        return count(self._connection(), kind, prefix=prefix, **equal)

    def data_version(self) -> int:
        """Give a number that changes when another connection has committed; per thread."""
        return int(self._connection().execute("PRAGMA data_version").fetchone()[0])

    def close(self) -> None:
        """Close this thread's connection; the next read opens another."""
        connection = getattr(self._local, "connection", None)
        if connection is not None and self._local.pid == os.getpid():
            connection.close()
        self._local.connection = None

    def _connection(self) -> sqlite3.Connection:
        local = self._local
        connection: sqlite3.Connection | None = getattr(local, "connection", None)
        # SQLite's connections do not survive a fork.
        if connection is None or local.pid != os.getpid():
            connection = connect(self.path)
            version(connection)
            local.connection, local.pid = connection, os.getpid()
        return connection


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
        # only when told that nobody else writes, which is so on such a medium.
        connection = _open(f"{address}&immutable=1")
    return connection


def version(connection: sqlite3.Connection) -> str | None:
    """
    Tell the version of a catalog's schema; None before the first.

    Raises:
        StoreNewer: A newer clewline wrote it.
    """
    path = Path(_file(connection))
    try:
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.OperationalError as error:
        if "no such table" in str(error):
            return None
        raise translated(error, path) from error
    except sqlite3.DatabaseError as error:
        raise translated(error, path) from error
    if row is not None and row[0] not in VERSIONS:
        raise StoreNewer(
            f"The catalog {path} is at version {row[0]}; this clewline knows versions up to "
            f"{VERSIONS[-1]}.",
            "Use the clewline that wrote it, or a newer one.",
        )
    return None if row is None else str(row[0])


def get(connection: sqlite3.Connection, kind: type[R], *key: Any) -> R | None:
    """Get the record with these keys over a connection."""
    try:
        row = _rows(connection, table(kind).by_keys, key)
    except OverflowError:  # a number over 64 bits, which no record bears
        return None
    return decode(kind, row[0]) if row else None


def find(
    connection: sqlite3.Connection,
    kind: type[R],
    *,
    order: str = "",
    limit: int | None = 50,
    offset: int = 0,
    prefix: dict[str, str] | None = None,
    **equal: Any,
) -> list[R]:
    """Find records over a connection; see `CatalogReader.find`."""
    query, values = find_query(
        kind, equal=equal, prefix=prefix, order=order, limit=limit, offset=offset
    )
    return [decode(kind, row) for row in _rows(connection, query, values)]


def count(
    connection: sqlite3.Connection,
    kind: type[R],
    *,
    prefix: dict[str, str] | None = None,
    **equal: Any,
) -> int:
    """Count records over a connection."""
    query, values = count_query(kind, equal=equal, prefix=prefix)
    return int(_rows(connection, query, values)[0][0])


def translated(error: sqlite3.Error, path: Path) -> Exception:
    """Give the error of ours that says what an error of SQLite means."""
    extended = getattr(error, "sqlite_errorcode", 0)
    code = extended & 0xFF  # the primary one
    if code == sqlite3.SQLITE_FULL or extended in _CANNOT_GROW:
        return StoreFull(
            f"The disk under {path} is full; nothing of this write was recorded.",
            "Free some space and run it again.",
        )
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return StoreReadOnly(
            f"The catalog {path} cannot be written: {error}.",
            "Mount the disk writable, or give this user the right to write there.",
        )
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return Conflict(
            f"Another process has held the catalog {path} for {BUSY_S:.0f} s.",
            "`clewline doctor` names it; end it if it hangs.",
        )
    return Fault(
        f"The catalog {path} cannot be used: {error}.",
        "`clewline doctor` checks the store and says how to mend it.",
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


def _rows(connection: sqlite3.Connection, query: str, values: tuple[Any, ...]) -> list[Any]:
    try:
        return connection.execute(query, values).fetchall()
    except sqlite3.DatabaseError as error:
        raise translated(error, Path(_file(connection))) from error


def _file(connection: sqlite3.Connection) -> str:
    return next(
        (row[2] for row in connection.execute("PRAGMA database_list") if row[1] == "main"), FILE
    )


def _is_unwritten_medium(path: Path) -> bool:
    """Whether the file system is read-only and no log of another's writes lies beside it."""
    log = path.with_name(f"{path.name}-wal")
    read_only = bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    return (read_only or not os.access(path.parent, os.W_OK)) and not (
        log.exists() and log.stat().st_size
    )
