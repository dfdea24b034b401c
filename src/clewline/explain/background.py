"""
Predictions that are explained in the background, because a rule of their endpoint says so.

    prediction log ──(follow)──► rules of the revision ──► queue ──► explained, newest first

The queue is a small database beside the log. In one transaction it gets the predictions that
match and how far the log was read, so that kill -9 neither loses one nor explains one twice. It
is bounded: what is oldest is skipped. A prediction whose explanation ends the process
is tried once more, and then recorded as failed. One process of a project follows its log.
"""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from typing import Any, NamedTuple

import msgspec

from clewline.errors import ClewlineError
from clewline.project import Project
from clewline.serve.explain_rules import ExplainRule, explain_rules
from clewline.serve.log.frame import ID_BYTES, LoggedBatch, decode_frame, scan_frames
from clewline.serve.log.reader import request_rows
from clewline.serve.log.segment import HOUR_MS, Segment, segments
from clewline.serve.log.windowed_file import WALK_BYTES, open_windowed
from clewline.store.ids import id_bytes, id_text
from clewline.store.reader import FILE, CatalogReader
from clewline.store.records import LiveRevision, Revision

logger = logging.getLogger(__name__)

BACKLOG = 10_000
"""Maximum predictions that wait; beyond it the oldest are skipped."""
ATTEMPTS = 2
"""How often an explanation is begun that ends its process."""
FAILURES_KEPT = 10_000
FRAMES_READ = 1_000
"""Frames of the log that are read at once, so that a caller does not wait for more."""

_TABLES = """
CREATE TABLE IF NOT EXISTS segment (hour INTEGER, name TEXT PRIMARY KEY, offset INTEGER);
CREATE TABLE IF NOT EXISTS start (hour INTEGER);
CREATE TABLE IF NOT EXISTS waiting (
    id BLOB, rule INTEGER, kind TEXT, options TEXT, attempts INTEGER DEFAULT 0,
    PRIMARY KEY (id, rule)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS failed (
    id BLOB, kind TEXT, reason TEXT, time REAL, PRIMARY KEY (id, kind)
) WITHOUT ROWID;
"""


class WaitingPrediction(NamedTuple):
    """A prediction that waits to be explained by a rule of its endpoint."""

    id: str
    rule: int  # its place among the rules of the revision
    kind: str
    options: dict[str, Any]
    attempts: int  # that ended the process


class FailedExplanation(msgspec.Struct, frozen=True):
    """Why a prediction was not explained in the background."""

    kind: str
    reason: str
    time: float  # seconds since the epoch


class BackgroundQueue:
    """
    The predictions that wait, and how far the log was read. For one thread of one process.

    Args:
        project: Its store has the queue.

    Raises:
        BlockingIOError: Another process follows the log of this project.
        sqlite3.Error, OSError: The queue cannot be written.
    """

    def __init__(self, project: Project) -> None:
        path = project.explain_queue
        path.parent.mkdir(0o700, parents=True, exist_ok=True)
        self._lock = os.open(
            path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._connection = sqlite3.connect(path, isolation_level=None)
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")
            self._connection.executescript(_TABLES)
        except BaseException:
            os.close(self._lock)
            raise

    def close(self) -> None:
        """Let another process follow the log."""
        self._connection.close()
        os.close(self._lock)

    @property
    def waiting(self) -> int:
        """How many explanations wait."""
        return int(self._connection.execute("SELECT count(*) FROM waiting").fetchone()[0])

    @property
    def start(self) -> int | None:
        """The hour from which on the log is to be read; None if nobody said."""
        found = self._connection.execute("SELECT hour FROM start").fetchone()
        return None if found is None else int(found[0])

    def move_start(self, hour: int) -> None:
        """Read the log from an hour on; forget what is known of the hours before."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM start")
            connection.execute("INSERT INTO start VALUES (?)", (hour,))
            connection.execute("DELETE FROM segment WHERE hour < ?", (hour,))

    def offset(self, segment: Segment) -> int:
        """Return how far a segment was read."""
        query = "SELECT offset FROM segment WHERE name = ?"
        found = self._connection.execute(query, (segment.frames.name,)).fetchone()
        return 0 if found is None else int(found[0])

    def add(
        self, hour: int, segment: Segment, offset: int, found: Sequence[WaitingPrediction]
    ) -> int:
        """Add predictions, and how far the segment was read; return how many were skipped."""
        with self._transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO segment VALUES (?, ?, ?)",
                (hour, segment.frames.name, offset),
            )
            connection.executemany(
                "INSERT OR IGNORE INTO waiting (id, rule, kind, options) VALUES (?, ?, ?, ?)",
                [
                    (id_bytes(each.id), each.rule, each.kind, msgspec.json.encode(each.options))
                    for each in found
                ],
            )
            if not found:
                return 0
            surplus = self.waiting - BACKLOG
            if surplus > 0:
                connection.execute(
                    "DELETE FROM waiting WHERE (id, rule) IN "
                    "(SELECT id, rule FROM waiting ORDER BY id, rule LIMIT ?)",
                    (surplus,),
                )
        return max(0, surplus)

    def newest(self) -> WaitingPrediction | None:
        """Return the newest prediction that waits."""
        query = (
            "SELECT id, rule, kind, options, attempts FROM waiting ORDER BY id DESC, rule LIMIT 1"
        )
        found = self._connection.execute(query).fetchone()
        if found is None:
            return None
        raw, rule, kind, options, attempts = found
        return WaitingPrediction(id_text(raw), rule, kind, msgspec.json.decode(options), attempts)

    def begin(self, one: WaitingPrediction) -> None:
        """Note that an explanation is begun, in case that it ends the process."""
        query = "UPDATE waiting SET attempts = attempts + 1 WHERE id = ? AND rule = ?"
        self._connection.execute(query, (id_bytes(one.id), one.rule))

    def postpone(self, one: WaitingPrediction) -> None:
        """Take back that an explanation was begun: it is not its fault that it did not end."""
        query = "UPDATE waiting SET attempts = ? WHERE id = ? AND rule = ?"
        self._connection.execute(query, (one.attempts, id_bytes(one.id), one.rule))

    def finish(self, one: WaitingPrediction, failure: str | None = None) -> None:
        """Let a prediction wait no more; record why it could not be explained."""
        raw = id_bytes(one.id)
        with self._transaction() as connection:
            connection.execute("DELETE FROM waiting WHERE id = ? AND rule = ?", (raw, one.rule))
            if failure is None:
                connection.execute("DELETE FROM failed WHERE id = ? AND kind = ?", (raw, one.kind))
                return
            connection.execute(
                "INSERT OR REPLACE INTO failed VALUES (?, ?, ?, ?)",
                (raw, one.kind, failure[:2000], time.time()),
            )
            connection.execute(
                "DELETE FROM failed WHERE (id, kind) IN "
                "(SELECT id, kind FROM failed ORDER BY id DESC LIMIT -1 OFFSET ?)",
                (FAILURES_KEPT,),
            )

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield self._connection
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise
        self._connection.execute("COMMIT")


class LogFollower:
    """
    Reads the prediction log as it grows, and puts what the rules match into the queue.

    Args:
        project: Its log is followed.
        queue: Gets the predictions that match.
    """

    def __init__(self, project: Project, queue: BackgroundQueue) -> None:
        self._project, self._queue = project, queue
        self._rules: dict[tuple[str, int], tuple[ExplainRule, ...]] = {}
        self.skipped = 0  # predictions that matched, and were too many

    def look(self) -> int:
        """
        Read what has come since the last time, up to `FRAMES_READ` frames.

        Returns:
            The number of frames that were read; there may be more if it is that many.
        """
        hour, now = self._queue.start, int(time.time() * 1000) // HOUR_MS
        if hour is None:
            return 0
        frames, all_read = 0, True
        for each in range(hour, now + 2):
            for segment in segments(self._project.log, each):
                frames += self._read(each, segment, FRAMES_READ - frames)
                if frames >= FRAMES_READ:
                    return frames
            # A segment takes frames of its hour and of the one before, perhaps a little late.
            if all_read and each < now - 1:
                self._queue.move_start(each + 1)
            else:
                all_read = False
        return frames

    def _read(self, hour: int, segment: Segment, most: int) -> int:
        """Read up to so many frames of a segment, and queue the predictions that match."""
        offset, count = self._queue.offset(segment), 0
        found: list[WaitingPrediction] = []
        with suppress(FileNotFoundError), open_windowed(segment.frames, WALK_BYTES) as frames:
            for span in scan_frames(frames, offset):
                try:
                    found += self._matches(decode_frame(frames, span))
                except (ClewlineError, msgspec.MsgspecError, ValueError) as error:
                    logger.error("a frame of %s is passed over: %s", segment.frames, error)
                offset, count = span.end, count + 1
                if count >= most:
                    break
        if count:
            self.skipped += self._queue.add(hour, segment, offset, found)
        return count

    def _matches(self, batch: LoggedBatch) -> Iterable[WaitingPrediction]:
        """Return the predictions of a batch that a rule of its revision matches."""
        rules = self._rules_of(batch)
        if not any(rule.condition for rule in rules):
            return []
        rows = [row for request in batch.requests for row in request_rows(request)]
        found = []
        for at, (sent, row) in enumerate(zip(batch.answers, rows, strict=True)):
            answer, values = msgspec.json.decode(sent), msgspec.json.decode(row)
            id_ = id_text(batch.ids[at * ID_BYTES : (at + 1) * ID_BYTES])
            for place, rule in enumerate(rules):
                if rule.matches(answer, values):
                    found.append(WaitingPrediction(id_, place, rule.kind, rule.options, 0))
        return found

    def _rules_of(self, batch: LoggedBatch) -> tuple[ExplainRule, ...]:
        key = batch.endpoint, batch.revision
        if key not in self._rules:
            with closing(CatalogReader(self._project.store_root / FILE)) as reader:
                revision = reader.get(Revision, *key)
            self._rules[key] = () if revision is None else readable_rules(revision)
        return self._rules[key]


def readable_rules(revision: Revision) -> tuple[ExplainRule, ...]:
    """Return the rules of a revision; none, and a line in the log, if they cannot be read."""
    try:
        return explain_rules(revision)
    except ClewlineError as error:
        logger.error("the explainers of %s cannot be read: %s", revision.ref, error)
        return ()


def explains_in_background(revision: Revision) -> bool:
    """Return whether a rule of a revision explains predictions by itself."""
    return any(rule.condition is not None for rule in readable_rules(revision))


def first_hour(project: Project) -> int | None:
    """Return the hour from which on live revisions explain in the background; None if none does."""
    created = []
    with closing(CatalogReader(project.store_root / FILE)) as reader:
        for live in reader.find(LiveRevision, limit=None, unreadable=[]):
            revision = reader.get(Revision, live.endpoint, live.number)
            if revision is not None and explains_in_background(revision):
                created.append(revision.created)
    return int(min(created) * 1000) // HOUR_MS if created else None


def failed_explanations(project: Project, prediction: str) -> list[FailedExplanation]:
    """List why a prediction could not be explained in the background; empty if it was not tried."""
    raw, path = id_bytes(prediction), project.explain_queue
    if not path.exists():
        return []
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        tables = "SELECT count(*) FROM sqlite_master WHERE name = 'failed'"
        if not connection.execute(tables).fetchone()[0]:
            return []  # the queue is just being made
        query = "SELECT kind, reason, time FROM failed WHERE id = ? ORDER BY time"
        return [FailedExplanation(*row) for row in connection.execute(query, (raw,))]
