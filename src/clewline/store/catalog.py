"""
The catalog: records in SQLite, written in transactions, read without waiting.

Reading goes through `store.reader`. Neither loads SQLAlchemy, which takes 0.2 s: it is for
migrations.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import Literal

from clewline.errors import Conflict, NotFound
from clewline.store.disk import disk_errors
from clewline.store.edges import artifact_uses, require_forward
from clewline.store.locks import hold_lock
from clewline.store.reader import (
    BUSY_S,
    CatalogReader,
    RecordQueries,
    discard,
    require_writable,
    translated,
)
from clewline.store.records import Edge, Record, Run, RunValue, StepRun
from clewline.store.rows import describe, encode, key_of, table
from clewline.store.run_values import run_values

SYNCHRONOUS = {"process": "NORMAL", "fsync": "FULL"}
"""How SQLite syncs its write-ahead log: when it is moved into the file, or at each commit too."""


class Transaction(RecordQueries):
    """
    Reads and writes that happen together or not at all.

    Between its beginning and its end nobody else writes, so that what it read still holds when
    it writes. For one thread, inside its `with` only.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def connection(self) -> sqlite3.Connection:
        """Return the connection of the transaction."""
        return self._connection

    def add(self, *records: Record) -> None:
        """
        Insert records.

        Raises:
            Conflict: The keys are taken.
        """
        for same in _by_kind(records):
            self._write(table(type(same[0])).insert, same)

    def replace(self, *records: Record) -> None:
        """Insert records, or replace those with the same keys."""
        for same in _by_kind(records):
            self._write(table(type(same[0])).insert_or_replace, same)

    def record(self, *records: Record) -> None:
        """
        Insert records; where keys are taken, do what the kind's `ON_CONFLICT` says.

        A model version, revision or link of the chain never changes: the same one again is
        nothing new, another one is refused.

        Raises:
            Conflict: A record that never changes is there with other content.
        """
        for same in _by_kind(records):
            here = table(type(same[0]))
            if same[0].ON_CONFLICT == "replace":
                self._write(here.insert_or_replace, same)
            elif same[0].ON_CONFLICT == "ignore":
                self._write(here.insert_or_ignore, same)
            else:
                self._write(here.insert, [each for each in same if not self._is_there(each)])

    def _is_there(self, record: Record) -> bool:
        there = self.get(type(record), *key_of(record))
        # Rows compare where records do not: NaN is not equal to itself.
        if there is not None and encode(there) != encode(record):
            raise _taken(record)
        return there is not None

    def _write(self, statement: str, records: Sequence[Record]) -> None:
        for record in records:
            if isinstance(record, Edge):
                require_forward(record)
        runs = [record for record in records if isinstance(record, Run)]
        before = [value for run in runs for value in self._values_recorded(run)]
        try:
            self._connection.executemany(statement, [encode(record) for record in records])
        except sqlite3.IntegrityError as error:
            taken = (each for each in records if self.get(type(each), *key_of(each)) is not None)
            raise _taken(next(taken, records[0])) from error
        steps = [record for record in records if isinstance(record, StepRun)]
        self.record(*(use for step in steps for use in artifact_uses(step)))
        if runs:
            self._replace_values(before, [value for run in runs for value in run_values(run)])

    def _values_recorded(self, run: Run) -> Iterator[RunValue]:
        there = self.get(Run, run.id)
        return run_values(there) if there is not None else iter(())

    def _replace_values(self, before: list[RunValue], after: list[RunValue]) -> None:
        gone = {key_of(value) for value in before} - {key_of(value) for value in after}
        self._connection.executemany(
            "DELETE FROM run_value WHERE kind = ? AND name = ? AND run = ?", sorted(gone)
        )
        self.replace(*after)


def _by_kind(records: Sequence[Record]) -> list[list[Record]]:
    return [list(same) for _, same in groupby(records, type)]


class Catalog(RecordQueries):
    """
    Records, behind one writer at a time and any number of readers.

    Thread-safe, and safe between processes: a writer waits for another for up to ten
    minutes, and never raises "database is locked". What a finished transaction wrote is durable.
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
        self._writer: sqlite3.Connection | None = None
        self._pid = os.getpid()

    def connection(self) -> sqlite3.Connection:
        """Return this thread's reading connection."""
        return self.reader.connection()

    @contextmanager
    def transaction(
        self, *, settle: bool = True, durability: Literal["process", "fsync"] = "fsync"
    ) -> Iterator[Transaction]:
        """
        Read, then write, as one: all of it is durable at the end, or none of it happened.

        Args:
            settle: First wait for what this process's recorders still hold.
            durability: "process" survives kill -9; "fsync" survives a power failure too, and
                makes durable what was written before it.

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
            if self._writer is None or self._pid != os.getpid():
                discard(self._writer, self._pid)
                self._writer, self._pid = connect_to_write(self.path), os.getpid()
            self._writing = threading.get_ident()
            try:
                self._writer.execute(f"PRAGMA synchronous = {SYNCHRONOUS[durability]}")
                # A transaction that begins as a reader cannot always become a writer.
                self._writer.execute("BEGIN IMMEDIATE")
                yield Transaction(self._writer)
                self._writer.execute("COMMIT")
            except BaseException:
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise
            finally:
                self._writing = None

    def close(self) -> None:
        """Close the writing connection and this thread's reading one."""
        self.reader.close()
        discard(self._writer, self._pid)
        self._writer = None

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            with disk_errors(self.path):
                yield
        except sqlite3.IntegrityError as error:
            raise NotFound(
                f"A record refers to one that is not in the catalog: {error}.",
                "Record that one first, or in the same call.",
            ) from error
        except sqlite3.Error as error:
            raise translated(error, self.path) from error


def connect_to_write(path: Path) -> sqlite3.Connection:
    """
    Open a catalog file for writing.

    Raises:
        StoreReadOnly: It cannot be written.
    """
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
