"""
Idempotency keys under way, held against every process that serves the project.

    claims/claims.sqlite    key → body, owner, and the first id once it is answered
    claims/gate             locked around each transaction
    claims/OWNER.alive      locked by each process as long as it lives

The prediction log is the truth about answered keys. What stands here says who is
answering one now, so that a retry that another process gets waits for the same
answer, and what was answered since that process last read the log. Nothing is
synced: after kill -9 the kernel has it, after a crash of the machine the log has.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

KEPT_S = 24 * 3600
"""A key is remembered for a day …"""
KEPT_KEYS = 100_000
"""… unless there are more than so many: then the oldest go first."""

_TABLE = """
CREATE TABLE IF NOT EXISTS claims (
    number INTEGER PRIMARY KEY,
    mark BLOB NOT NULL UNIQUE,
    body BLOB NOT NULL,
    owner TEXT NOT NULL,
    time REAL NOT NULL,
    first_id BLOB
)
"""


class KeyClaim(NamedTuple):
    """What is known of a key: who answers it, or the first id of its answer."""

    body: bytes  # digest of what was asked
    owner: str
    time: float
    first_id: bytes | None


class KeyClaims:
    """
    The claims of one process. One thread at a time may use it.

    Args:
        folder: Where they stand; made when missing.

    Raises:
        sqlite3.Error, OSError: They cannot be read or written; so may every method.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.owner = f"{os.getpid()}-{secrets.token_hex(4)}"
        with ExitStack() as opened:  # closed again where the disk is full
            self._gate = _open(folder / "gate")
            opened.callback(os.close, self._gate)
            with self._locked():
                self._bury()
                self._alive = _open(self._alive_path(self.owner))
                opened.callback(os.close, self._alive)
                fcntl.flock(self._alive, fcntl.LOCK_EX)
                self._database = _connect(folder / "claims.sqlite")
            opened.pop_all()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Hold the claims of all processes still; what is done within is done whole or not."""
        with self._locked():
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:  # SQLite itself has undone what a full disk ended
                    self._database.execute("ROLLBACK")
                raise

    def take(self, mark: bytes, body: bytes) -> KeyClaim | None:
        """Claim a key for this process; None when it is, else the claim that stands already."""
        inserted = self._database.execute(
            "INSERT INTO claims (mark, body, owner, time) VALUES (?, ?, ?, ?) "
            "ON CONFLICT DO NOTHING",
            (mark, body, self.owner, time.time()),
        )
        if inserted.rowcount:
            if inserted.lastrowid is not None and inserted.lastrowid % 1000 == 0:
                self._forget(inserted.lastrowid - KEPT_KEYS)
            return None
        found = self._database.execute(
            "SELECT body, owner, time, first_id FROM claims WHERE mark = ?", (mark,)
        ).fetchone()
        return KeyClaim(*found)

    def inherit(self, mark: bytes, body: bytes) -> None:
        """Take over a key whose owner has died unanswered."""
        self._database.execute(
            "UPDATE claims SET body = ?, owner = ?, time = ?, first_id = NULL WHERE mark = ?",
            (body, self.owner, time.time(), mark),
        )

    def settle(self, mark: bytes, first_id: bytes) -> None:
        """Remember the answer to a key."""
        self._database.execute("UPDATE claims SET first_id = ? WHERE mark = ?", (first_id, mark))

    def drop(self, mark: bytes) -> None:
        """Forget a key that got no answer, so that it may be tried again."""
        self._database.execute(
            "DELETE FROM claims WHERE mark = ? AND owner = ?", (mark, self.owner)
        )

    def is_alive(self, owner: str) -> bool:
        """Tell whether the process that made a claim still lives; within a transaction."""
        if owner == self.owner:
            return True
        try:
            file = os.open(self._alive_path(owner), os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(file)
        self._alive_path(owner).unlink(missing_ok=True)
        return False

    def close(self) -> None:
        """Let go of everything; what was not answered can be claimed by others."""
        self._database.close()
        self._alive_path(self.owner).unlink(missing_ok=True)
        os.close(self._gate)
        os.close(self._alive)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        # SQLite's own lock is waited for by sleeping, this one by being woken.
        fcntl.flock(self._gate, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._gate, fcntl.LOCK_UN)

    def _bury(self) -> None:
        """Remove what killed processes have left behind."""
        for path in self._folder.glob("*.alive"):
            self.is_alive(path.stem)

    def _forget(self, number: int) -> None:
        self._database.execute(
            "DELETE FROM claims WHERE number <= ? AND first_id IS NOT NULL", (number,)
        )

    def _alive_path(self, owner: str) -> Path:
        return self._folder / f"{owner}.alive"


def _connect(path: Path) -> sqlite3.Connection:
    with ExitStack() as opened:
        database = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        opened.callback(database.close)
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=NORMAL")
        database.execute(_TABLE)
        database.execute("DELETE FROM claims WHERE time < ?", (time.time() - KEPT_S,))
        opened.pop_all()
    return database


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
