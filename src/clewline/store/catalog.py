"""
The catalog: records in SQLite, written in transactions, read without waiting.

Reading goes through `store.reader` and loads nothing slow; the first write loads SQLAlchemy.
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

from clewline.errors import Conflict, NotFound
from clewline.store.disk import disk_errors
from clewline.store.edges import artifact_uses, require_forward
from clewline.store.locks import hold_lock
from clewline.store.reader import (
    BUSY_S,
    CatalogReader,
    RecordQueries,
    require_writable,
    translated,
)
from clewline.store.records import Edge, Record, StepRun
from clewline.store.rows import describe, encode, key_of

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine


class Transaction(RecordQueries):
    """
    Reads and writes that happen together or not at all.

    Between its beginning and its end nobody else writes, so that what it read still holds when
    it writes. For one thread, inside its `with` only.
    """

    def __init__(self, connection: Connection) -> None:
        self._writer = connection
        raw = connection.connection.driver_connection
        assert isinstance(raw, sqlite3.Connection)
        self._raw = raw

    def connection(self) -> sqlite3.Connection:
        """Return the connection of the transaction."""
        return self._raw

    def add(self, *records: Record) -> None:
        """
        Insert records.

        Raises:
            Conflict: The keys are taken.
        """
        from clewline.store import schema

        for kind, group in groupby(records, type):
            self._write(schema.insert_new(kind), list(group))

    def replace(self, *records: Record) -> None:
        """Insert records, or replace those with the same keys."""
        from clewline.store import schema

        for kind, group in groupby(records, type):
            self._write(schema.insert_or_replace(kind), list(group))

    def record(self, *records: Record) -> None:
        """
        Insert records; keys that are taken are replaced where the kind may change.

        Artifacts, edges and seen files say the same however often they are said. A model
        version, revision or link of the chain never changes: the same one again is nothing new,
        another one is refused.

        Raises:
            Conflict: A record that never changes is there with other content.
        """
        from clewline.store import schema

        for kind, group in groupby(records, type):
            fresh = [
                record
                for record in group
                if record.ON_CONFLICT != "refuse" or not self._is_there(record)
            ]
            self._write(schema.insert_as_kind(kind), fresh)

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
            self._writer.execute(statement, [encode(record) for record in records])
        except IntegrityError as error:
            taken = (each for each in records if self.get(type(each), *key_of(each)) is not None)
            raise _taken(next(taken, records[0])) from error
        steps = [record for record in records if isinstance(record, StepRun)]
        self.record(*(use for step in steps for use in artifact_uses(step)))


class Catalog(RecordQueries):
    """
    Records, behind one writer at a time and any number of readers.

    Thread-safe, and safe between processes: a writer waits for the other, for as long as ten
    minutes, and never shows "database is locked". What a finished transaction wrote is durable.
    Fit to be shared by a whole process.
    """

    def __init__(
        self, path: Path, lock: Path, *, before_write: Callable[[], None] | None = None
    ) -> None:
        """
        Open a catalog that is at the newest version of its schema.

        Args:
            path: The SQLite file.
            lock: The file of the writers' lock.
            before_write: Called before a transaction begins, to write what waits to be written.
        """
        self.path = path
        self.reader = CatalogReader(path)
        self._lock = lock
        self._before_write = before_write
        self._mutex = threading.Lock()
        self._writing: int | None = None  # the thread inside a transaction
        self._engine: Engine | None = None
        self._pid = os.getpid()

    def connection(self) -> sqlite3.Connection:
        """Return this thread's reading connection."""
        return self.reader.connection()

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
        if self._writing == threading.get_ident():
            raise RuntimeError("a transaction inside a transaction of the same thread")
        # SQLite's own waiting polls and is unfair, and before 3.51.3 two processes
        # that reset the write-ahead log at once could damage it: so one at a time.
        with self._mutex, hold_lock(self._lock, timeout_s=BUSY_S), self._errors():
            if self._engine is None or self._pid != os.getpid():
                self._engine, self._pid = engine(self.path), os.getpid()
            self._writing = threading.get_ident()
            try:
                with self._engine.begin() as connection:
                    yield Transaction(connection)
            finally:
                self._writing = None

    def close(self) -> None:
        """Close the writing connection and this thread's reading one."""
        self.reader.close()
        if self._engine is not None and self._pid == os.getpid():
            self._engine.dispose()
        self._engine = None

    @contextmanager
    def _errors(self) -> Iterator[None]:
        from sqlalchemy.exc import DBAPIError, IntegrityError

        try:
            with disk_errors(self.path):
                yield
        except IntegrityError as error:
            raise NotFound(
                f"A record refers to one that is not in the catalog: {error.orig}.",
                "Record that one first, or in the same call.",
            ) from error
        except (DBAPIError, sqlite3.Error) as error:
            cause = error.orig if isinstance(error, DBAPIError) else error
            if isinstance(cause, sqlite3.Error):
                raise translated(cause, self.path) from error
            raise


def engine(path: Path) -> Engine:
    """Make the SQLAlchemy engine of a catalog file: one connection, transactions that write."""
    from sqlalchemy import create_engine, event
    from sqlalchemy.pool import StaticPool

    made = create_engine("sqlite://", creator=lambda: _connect(path), poolclass=StaticPool)
    # A transaction that begins as a reader cannot always become a writer.
    event.listen(made, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    return made


def _connect(path: Path) -> sqlite3.Connection:
    require_writable(path)
    connection = sqlite3.connect(
        path, timeout=BUSY_S, isolation_level=None, check_same_thread=False
    )
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA foreign_keys=ON")
    return connection


def _taken(record: Record) -> Conflict:
    return Conflict(
        f"{describe(record)} is recorded already, with other content, and never changes.",
        "Use the next number, or read the one that is there.",
    )
