"""
Idempotency keys that are being answered, claimed against every process that serves the project.

    claims/claims.sqlite    key → body, owner, and the first id once it is answered
    claims/OWNER.alive      locked by each process as long as it lives

The prediction log is the truth about answered keys. A claim says who answers a key
now, so that a retry that reaches another process waits for the same answer. Nothing
is synced: after kill -9 the kernel still has it, after a power failure the log does.
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
"""… unless there are more than this many: then the oldest are forgotten first."""
LOCK_S = 5.0
"""How long to wait for another process that holds the claims."""
LOCK_POLL_S = 0.0003

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
    """The state of a key: who answers it, or the first id of its answer."""

    body: bytes  # digest of the request
    owner: str
    time: float
    first_id: bytes | None


class KeyClaims:
    """
    The claims of one process. One thread at a time may use it; only within `transaction`.

    Args:
        folder: The folder of the claims; created if missing.

    Raises:
        sqlite3.Error, OSError: The claims cannot be read or written. Every method may raise them.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(0o700, parents=True, exist_ok=True)
        self._folder = folder
        self.owner = f"{os.getpid()}-{secrets.token_hex(4)}"
        with ExitStack() as opened:  # closed again if the disk is full
            path = folder / "claims.sqlite"
            os.close(_open(path))  # whatever the umask, only this user may read or lock it
            self._database = sqlite3.connect(
                path, timeout=LOCK_S, isolation_level=None, check_same_thread=False
            )
            opened.callback(self._database.close)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=NORMAL")
            self._database.execute(_TABLE)
            self._database.execute("PRAGMA busy_timeout=0")  # `transaction` waits itself
            with self.transaction():
                self._database.execute("DELETE FROM claims WHERE time < ?", (time.time() - KEPT_S,))
                for left in folder.glob("*.alive"):
                    self.is_alive(left.stem)  # removes what killed processes have left
                self._alive = _open(self._alive_path(self.owner))
                opened.callback(os.close, self._alive)
                fcntl.flock(self._alive, fcntl.LOCK_EX)
            opened.pop_all()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Lock the claims of all processes. What is done inside is done whole or not at all."""
        until = time.monotonic() + LOCK_S
        while True:
            try:
                self._database.execute("BEGIN IMMEDIATE")
                break
            except sqlite3.OperationalError as error:
                is_busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
                if not is_busy or time.monotonic() > until:
                    raise
                time.sleep(LOCK_POLL_S)  # SQLite itself would sleep for milliseconds
        try:
            yield
            self._database.execute("COMMIT")
        except BaseException:
            if self._database.in_transaction:  # SQLite rolls back itself when the disk is full
                self._database.execute("ROLLBACK")
            raise

    def take(self, mark: bytes, body: bytes) -> KeyClaim | None:
        """Claim a key for this process; returns the existing claim if there is one."""
        inserted = self._database.execute(
            "INSERT INTO claims (mark, body, owner, time) VALUES (?, ?, ?, ?) "
            "ON CONFLICT DO NOTHING",
            (mark, body, self.owner, time.time()),
        )
        if inserted.rowcount:
            if inserted.lastrowid is not None and inserted.lastrowid % 1000 == 0:
                self._database.execute(
                    "DELETE FROM claims WHERE number <= ? AND first_id IS NOT NULL",
                    (inserted.lastrowid - KEPT_KEYS,),
                )
            return None
        found = self._database.execute(
            "SELECT body, owner, time, first_id FROM claims WHERE mark = ?", (mark,)
        ).fetchone()
        return KeyClaim(*found)

    def take_over(self, mark: bytes, body: bytes) -> None:
        """Claim a key for this process that another one has not answered."""
        self._database.execute(
            "UPDATE claims SET body = ?, owner = ?, time = ?, first_id = NULL WHERE mark = ?",
            (body, self.owner, time.time(), mark),
        )

    def settle(self, mark: bytes, first_id: bytes | None) -> None:
        """Record the answer to a key; None frees the key, so that it may be tried again."""
        if first_id is None:
            free = "DELETE FROM claims WHERE mark = ? AND owner = ?"
            self._database.execute(free, (mark, self.owner))
        else:
            answer = "UPDATE claims SET first_id = ? WHERE mark = ?"
            self._database.execute(answer, (first_id, mark))

    def is_alive(self, owner: str) -> bool:
        """Return whether the process that made a claim still lives."""
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
        """Close the claims; others may take over the keys that this process has not answered."""
        self._database.close()
        self._alive_path(self.owner).unlink(missing_ok=True)
        os.close(self._alive)

    def _alive_path(self, owner: str) -> Path:
        return self._folder / f"{owner}.alive"


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
