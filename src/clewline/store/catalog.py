"""
The catalog: records in SQLite, written in transactions, read without waiting.

Reading goes through `store.reader` and loads nothing slow; SQLAlchemy is loaded
by the first write.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clewline.errors import Conflict, NotFound, StoreReadOnly
from clewline.store import locks, reader
from clewline.store.disk import disk_errors
from clewline.store.edges import require_forward
from clewline.store.reader import BUSY_S, CatalogReader, translated
from clewline.store.records import Edge, Record, StepRun
from clewline.store.rows import R, encode, key_of, named
from clewline.store.uses import uses_of

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine


class Transaction:
    """
    Reads and writes that happen together or not at all.

    Between its beginning and its end nobody else writes, so that what it read
    still holds when it writes. For one thread, inside its `with` only.
    """

    def __init__(self, connection: Connection, raw: sqlite3.Connection) -> None:
        self._connection, self._raw = connection, raw

    def get(self, kind: type[R], *key: Any) -> R | None:
        """Get the record with these keys; None when there is none."""
        return reader.get(self._raw, kind, *key)

    def find(self, kind: type[R], **how: Any) -> list[R]:
        """Find records; see `CatalogReader.find`."""
        return reader.find(self._raw, kind, **how)

    def count(self, kind: type[R], **how: Any) -> int:
        """Count records; see `CatalogReader.count`."""
        return reader.count(self._raw, kind, **how)

    def add(self, *records: Record) -> None:
        """
        Insert records.

        Raises:
            Conflict: The keys are taken.
        """
        from clewline.store import schema

        for kind, group in groupby(records, type):
            self._write(schema.add(kind), list(group))

    def replace(self, *records: Record) -> None:
        """Insert records, or replace those with the same keys."""
        from clewline.store import schema

        for kind, group in groupby(records, type):
            self._write(schema.replace(kind), list(group))

    def record(self, *records: Record) -> None:
        """
        Insert records; keys that are taken are replaced where the kind may change.

        Artifacts, edges and seen files say the same however often they are said.
        A model version, revision or link of the chain never changes: the same
        one again is nothing new, another one is refused.

        Raises:
            Conflict: A record that never changes is there with other content.
        """
        from clewline.store import schema

        for kind, group in groupby(records, type):
            fixed = kind not in schema.MUTABLE and kind not in schema.FIRST_COUNTS
            fresh = [item for item in group if not (fixed and self._is_there(item))]
            self._write(schema.put(kind), fresh)

    def _is_there(self, record: Record) -> bool:
        there = self.get(type(record), *key_of(record))
        # Rows compare where records do not: NaN is not equal to itself.
        if there is not None and encode(there) != encode(record):
            raise _taken(record)
        return there is not None

    def _write(self, statement: Any, records: Sequence[Record]) -> None:
        if not records:
            return
        for record in records:
            if isinstance(record, Edge):
                require_forward(record)
        from sqlalchemy.exc import IntegrityError

        try:
            self._connection.execute(statement, [encode(record) for record in records])
        except IntegrityError as error:
            taken = next((record for record in records if self._holds_key(record)), records[0])
            raise _taken(taken) from error
        uses = [use for record in records if isinstance(record, StepRun) for use in uses_of(record)]
        if uses:
            self.record(*uses)

    def _holds_key(self, record: Record) -> bool:
        return self.get(type(record), *key_of(record)) is not None


class Catalog:
    """
    Records, behind one writer at a time and any number of readers.

    Thread-safe, and safe between processes: a writer waits for the other, for as
    long as ten minutes, and never shows "database is locked". What a finished
    transaction wrote is durable. Fit to be shared by a whole process.
    """

    def __init__(
        self, path: Path, lock: Path, *, before_write: Callable[[], None] | None = None
    ) -> None:
        """
        Open a catalog that is at the newest version of its schema.

        Args:
            path: The SQLite file.
            lock: The file of the writers' lock.
            before_write: Called before a transaction begins; it settles what was promised earlier.
        """
        self.path = path
        self.reader = CatalogReader(path)
        self._lock = lock
        self._before_write = before_write
        self._mutex = threading.Lock()
        self._writing: int | None = None  # the thread inside a transaction
        self._engine: Engine | None = None
        self._pid = os.getpid()

    def get(self, kind: type[R], *key: Any) -> R | None:
        """Get the record with these keys, in the order of `KEYS`; None when there is none."""
        return self.reader.get(kind, *key)

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
        """Find records; see `CatalogReader.find`."""
        return self.reader.find(
            kind, order=order, limit=limit, offset=offset, prefix=prefix, **equal
        )

    def count(self, kind: type[R], *, prefix: dict[str, str] | None = None, **equal: Any) -> int:
        """Count records; see `CatalogReader.count`."""
        return self.reader.count(kind, prefix=prefix, **equal)

    @contextmanager
    def transaction(self, *, settle: bool = True) -> Iterator[Transaction]:
        """
        Read, then write, as one: all of it is durable at the end, or none of it happened.

        Args:
            settle: First wait for what this process's recorders still hold.

        Raises:
            Conflict: Keys are taken, or another process held the catalog for ten minutes.
            NotFound: A record refers to one that is not there.
            StoreFull: The disk is full; nothing was recorded.
            StoreReadOnly: The catalog cannot be written.
        """
        if settle and self._before_write is not None:
            self._before_write()
        with self._turn(), self._errors(), self._begin() as connection:
            yield Transaction(connection, _raw(connection))

    def close(self) -> None:
        """Close the writing connection and this thread's reading one."""
        self.reader.close()
        if self._engine is not None and self._pid == os.getpid():
            self._engine.dispose()
        self._engine = None

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """Wait for the other threads, then for the other processes."""
        # SQLite's own waiting polls and is unfair, and before 3.51.3 two processes
        # that reset the write-ahead log at once could damage it: so one at a time.
        me = threading.get_ident()
        if self._writing == me:
            raise RuntimeError("a transaction inside a transaction of the same thread")
        with self._mutex, locks.hold(self._lock, timeout_s=BUSY_S):
            self._writing = me
            try:
                yield
            finally:
                self._writing = None

    @contextmanager
    def _begin(self) -> Iterator[Connection]:
        with self._connected().begin() as connection:
            yield connection

    @contextmanager
    def _errors(self) -> Iterator[None]:
        from sqlalchemy.exc import DBAPIError, IntegrityError

        try:
            with disk_errors(self.path):
                yield
        except IntegrityError as error:
            raise NotFound(
                f"A record refers to one that is not in the catalog: {error.orig}.",
                "Record what it refers to first, or in the same call.",
            ) from error
        except DBAPIError as error:
            if isinstance(error.orig, sqlite3.Error):
                raise translated(error.orig, self.path) from error
            raise
        except sqlite3.Error as error:
            raise translated(error, self.path) from error

    def _connected(self) -> Engine:
        if self._engine is None or self._pid != os.getpid():
            self._engine, self._pid = engine(self.path), os.getpid()
        return self._engine


def engine(path: Path) -> Engine:
    """Make the SQLAlchemy engine of a catalog file: one connection, transactions that write."""
    from sqlalchemy import create_engine, event
    from sqlalchemy.pool import StaticPool

    made = create_engine("sqlite://", creator=lambda: _connect(path), poolclass=StaticPool)

    def begin(connection: Connection) -> None:
        # A transaction that begins as a reader cannot always become a writer.
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    event.listen(made, "begin", begin)
    return made


def _connect(path: Path) -> sqlite3.Connection:
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise StoreReadOnly(
            f"The catalog {path} cannot be written.",
            "Mount the disk writable, or give this user the right to write there.",
        )
    connection = sqlite3.connect(
        path, timeout=BUSY_S, isolation_level=None, check_same_thread=False
    )
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
    return connection


def _raw(connection: Connection) -> sqlite3.Connection:
    raw = connection.connection.driver_connection
    if not isinstance(raw, sqlite3.Connection):
        raise TypeError(f"expected a connection of sqlite3, got {raw!r}")
    return raw


def _taken(record: Record) -> Conflict:
    return Conflict(
        f"{named(record)} is recorded already, with other content, and never changes.",
        "Take the next number, or read the one that is there.",
    )
