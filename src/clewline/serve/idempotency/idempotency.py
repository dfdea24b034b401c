"""
Idempotency keys: a request that comes again gets its first answer, and is logged once.

The log remembers the keys, so they hold across restarts. Here stands where each
answer is that this process knows of: under its first id, or at its place in the
log. What another process may be answering right now, `claims.py` tells, on a
thread of its own: its lock may have to be waited for.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import math
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue

import msgspec
from blake3 import blake3

from clewline.errors import ClewlineError, Conflict, Fault, StoreFull, StoreReadOnly
from clewline.serve.idempotency.key_claims import KEPT_KEYS, KEPT_S, KeyClaim, KeyClaims
from clewline.serve.log import reader as log_reader
from clewline.serve.log.frame import ID_BYTES, LoggedBatch, LoggedRequest, key_hash
from clewline.serve.log.reader import LogLocation
from clewline.serve.predict_request import PredictRequest
from clewline.serve.predict_response import PredictResponse, Reply

logger = logging.getLogger(__name__)

POLL_S = 0.01
"""How often we ask whether another process has answered by now."""
OWED_S = 1.0
"""How often it is tried again to write down what became of a key, when the disk was full."""
TELL_S = 10.0
"""The log of the server says at most so often that keys cannot be claimed."""


Found = PredictResponse | ClewlineError | None
"""What a key got: an answer, the reason why it gets none; None when it is not answered yet."""


@dataclass(frozen=True, slots=True)
class _UnderWay:
    body: bytes  # digest
    replies: list[Reply] = field(default_factory=list)
    later: list[Callable[[], None]] = field(default_factory=list)  # came with other bodies


class Idempotency:
    """
    Answers requests that were answered before. Lives on the loop's thread.

    Args:
        log: The folder of the log; the claims stand beside it.
    """

    def __init__(self, log: Path) -> None:
        self._loop = asyncio.get_running_loop()
        self.replays = 0  # requests that got an answer which was there already, or coming
        self._under_way: dict[bytes, _UnderWay] = {}
        # Read before the server listens; a day of them takes milliseconds.
        self._known: dict[bytes, LogLocation | bytes] = dict(
            log_reader.logged_keys(log, time.time() - KEPT_S)
        )
        self._clerk = _Clerk(log)

    def claim(
        self, endpoint: str, ask: PredictRequest, reply: Reply, go: Callable[[Reply], None]
    ) -> None:
        """
        Claim the key of a request.

        Args:
            endpoint: Who is asked.
            ask: The request; it has a key.
            reply: Called once, now or later, with the first answer to the key, or with
                the reason why there is none: a Conflict when it came with another body.
            go: Called instead when nobody has answered the key, now or later, at most
                once, with what must be told what became of the request.
        """
        assert ask.key is not None
        mark, body = key_hash(endpoint, ask.key), _digest(ask.format, ask.detail, ask.body)
        under_way = self._under_way.get(mark)
        if under_way is None:
            self._under_way[mark] = _UnderWay(body, [reply])
            self._ask_clerk(mark, body, go)
        elif under_way.body == body:
            self.replays += 1
            under_way.replies.append(reply)
        else:  # whichever is answered first, the other one is refused then
            under_way.later.append(lambda: self.claim(endpoint, ask, reply, go))

    def close(self) -> None:
        """Write down what is answered, and let go of the claims."""
        self._clerk.close()

    def _ask_clerk(self, mark: bytes, body: bytes, go: Callable[[Reply], None]) -> None:
        """Ask whether the key is answered; ask again while another process is at it."""
        where = self._known.get(mark)

        def told(found: Found | KeyClaim) -> None:
            self._loop.call_soon_threadsafe(self._told, mark, body, go, found)

        self._clerk.ask(mark, body, where, told)

    def _told(
        self, mark: bytes, body: bytes, go: Callable[[Reply], None], found: Found | KeyClaim
    ) -> None:
        if found is None:
            self._known.pop(mark, None)
            go(lambda result: self._settle(mark, result))
        elif isinstance(found, KeyClaim):
            self._loop.call_later(POLL_S, self._ask_clerk, mark, body, go)
        else:
            self.replays += isinstance(found, PredictResponse)
            self._reply(mark, found)

    def _settle(self, mark: bytes, result: PredictResponse | ClewlineError) -> None:
        """Remember an answer, but no failure: whoever tries again may have better luck."""
        self._clerk.settle(mark, result.first_id if isinstance(result, PredictResponse) else None)
        self._reply(mark, result)

    def _reply(self, mark: bytes, result: PredictResponse | ClewlineError) -> None:
        if isinstance(result, PredictResponse):
            self._known[mark] = result.first_id
            if len(self._known) > KEPT_KEYS:
                del self._known[next(iter(self._known))]
        under_way = self._under_way.pop(mark)
        for reply in under_way.replies:
            reply(result)
        for again in under_way.later:
            again()


@dataclass(frozen=True, slots=True)
class _Question:
    mark: bytes
    body: bytes
    where: LogLocation | bytes | None  # of its answer, as far as this process knows
    told: Callable[[Found | KeyClaim], None]


@dataclass(frozen=True, slots=True)
class _Settled:
    mark: bytes
    first_id: bytes | None


class _Clerk:
    """Looks up keys and claims them, on a thread of its own that starts with the first."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self._jobs: SimpleQueue[_Question | _Settled | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._claims: KeyClaims | None = None
        self._owed: list[_Settled] = []  # outcomes that could not be written down yet
        self._told_at = -math.inf

    def ask(
        self,
        mark: bytes,
        body: bytes,
        where: LogLocation | bytes | None,
        told: Callable[[Found | KeyClaim], None],
    ) -> None:
        """
        Ask what became of a key; `told` is called on the clerk's thread.

        It gets the answer, an error, the claim of another process that is at it, or
        None when the key is claimed for the one who asks.
        """
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="clewline-once", daemon=True)
            self._thread.start()
        self._jobs.put(_Question(mark, body, where, told))

    def settle(self, mark: bytes, first_id: bytes | None) -> None:
        """Write down the first id of the answer to a key; None gives the key free."""
        self._jobs.put(_Settled(mark, first_id))

    def close(self) -> None:
        """Do what is to be done, and end the thread."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join()

    def _run(self) -> None:
        jobs: list[_Question | _Settled | None] = []
        while None not in jobs:
            jobs = self._next()
            self._do([job for job in jobs if job is not None])
        if self._claims is not None:
            self._claims.close()

    def _next(self) -> list[_Question | _Settled | None]:
        """Wait for jobs, or until what is owed is to be tried again; None is the end."""
        jobs = []
        with suppress(Empty):
            jobs.append(self._jobs.get(timeout=OWED_S if self._owed else None))
        while not self._jobs.empty():
            jobs.append(self._jobs.get())
        return jobs

    def _do(self, jobs: list[_Question | _Settled]) -> None:
        """Do what has come in one transaction, and tell the outcome after it."""
        outcomes: list[tuple[_Question, Found | KeyClaim]] = []
        open_jobs: list[_Question | _Settled] = []
        for job in jobs:  # what is answered already holds nobody up
            found = self._known(job) if isinstance(job, _Question) else None
            if isinstance(job, _Question) and found is not None:
                outcomes.append((job, found))
            else:
                open_jobs.append(job)
        if open_jobs or self._owed:
            outcomes += self._transact(open_jobs)
        for question, outcome in outcomes:
            question.told(outcome)

    def _known(self, asked: _Question) -> Found:
        return None if asked.where is None else self._read(asked.where, asked.body)

    def _transact(
        self, jobs: list[_Question | _Settled]
    ) -> list[tuple[_Question, Found | KeyClaim]]:
        outcomes: list[tuple[_Question, Found | KeyClaim]] = []
        try:
            if self._claims is None:
                self._claims = KeyClaims(self._log.parent / "claims")
            with self._claims.transaction():
                for job in [*self._owed, *jobs]:
                    if isinstance(job, _Settled):
                        self._write(self._claims, job)
                    else:
                        outcomes.append((job, self._answer(self._claims, job)))
        except (sqlite3.Error, OSError) as error:
            # A key whose outcome nobody learns would be waited for as long as we live.
            self._owed += [job for job in jobs if isinstance(job, _Settled)]
            self._tell(error)
            failure = _cannot_claim(error, self._log.parent / "claims")
            return [(job, failure) for job in jobs if isinstance(job, _Question)]
        self._owed = []
        return outcomes

    def _tell(self, error: Exception) -> None:
        """Write it to the server's log; not for every key."""
        now = time.monotonic()
        if now - self._told_at >= TELL_S:
            self._told_at = now
            logger.error("idempotency keys cannot be claimed", exc_info=error)

    def _write(self, claims: KeyClaims, job: _Settled) -> None:
        if job.first_id is None:
            claims.drop(job.mark)
        else:
            claims.settle(job.mark, job.first_id)

    def _answer(self, claims: KeyClaims, asked: _Question) -> Found | KeyClaim:
        found: Found
        claim = claims.take(asked.mark, asked.body)
        if claim is None:
            return None
        if claim.body != asked.body:
            return _other_body()
        if claim.first_id is not None:
            found = self._read(claim.first_id, asked.body)
        elif claims.is_alive(claim.owner):
            return claim
        else:  # it died between the log and us, or before the log
            found = self._search(asked, claim.time)
        if found is None:
            claims.inherit(asked.mark, asked.body)
        return found

    def _search(self, asked: _Question, since_s: float) -> Found:
        where = log_reader.logged_keys(self._log, since_s).get(asked.mark)
        return None if where is None else self._read(where, asked.body)

    def _read(self, where: LogLocation | bytes, body: bytes) -> Found:
        """Read an answer from the log; None when it is not there, or is a failure."""
        try:
            if isinstance(where, LogLocation):
                return _answer(log_reader.read_batch(where), where.position, body)
            logged = log_reader.find_prediction(self._log, where)
            return None if logged is None else _answer(logged.frame, logged.part[0], body)
        except ClewlineError as error:
            return error
        except Exception as error:  # its segment was taken away, or the disk fails
            logger.exception("the first answer to an idempotency key could not be read")
            return Fault(
                f"The first answer could not be read: {type(error).__name__}.",
                "The server's log has the reason; a new key gets a new answer.",
            )


class _Failure(msgspec.Struct):
    error: msgspec.Raw = msgspec.Raw(b"")


def _answer(frame: LoggedBatch, index: int, body: bytes) -> Found:
    """Give the answer that a part of a frame got; None when the model failed on it."""
    part = frame.parts[index]
    if _digest_of(part) != body:
        return _other_body()
    first = sum(earlier.count for earlier in frame.parts[:index])
    answers = frame.answers[first : first + part.count]
    if any(bytes(msgspec.json.decode(answer, type=_Failure).error) for answer in answers):
        return None
    return PredictResponse(
        f"{frame.endpoint}#{frame.revision}",
        answers,
        frame.ids[first * ID_BYTES : (first + 1) * ID_BYTES],
    )


def _digest_of(part: LoggedRequest) -> bytes:
    return _digest(part.format, part.detail, part.body)


def _digest(format: str, detail: str, body: bytes) -> bytes:
    return blake3(b"%b\0%b\0%b" % (format.encode(), detail.encode(), body)).digest(16)


def _other_body() -> Conflict:
    return Conflict(
        "This Idempotency-Key came with another body before.", "Use a new key for new rows."
    )


def _cannot_claim(error: Exception, folder: Path) -> ClewlineError:
    if _is(error, sqlite3.SQLITE_FULL, errno.ENOSPC, errno.EDQUOT):
        return StoreFull(
            f"The disk under the idempotency keys is full ({folder}).",
            "Free some space: nothing was answered; a request without a key needs none of it.",
        )
    if _is(error, sqlite3.SQLITE_READONLY, errno.EROFS, errno.EACCES, errno.EPERM):
        return StoreReadOnly(
            f"Idempotency keys cannot be claimed in {folder}: {error}.",
            "Mount it writable, or give this user the right to write there.",
        )
    return Fault(
        f"Idempotency keys cannot be claimed: {type(error).__name__}: {error}.",
        f"Check the disk. {folder} may be deleted while no server runs: the log keeps the answers.",
    )


def _is(error: Exception, sqlite_code: int, *numbers: int) -> bool:
    """Tell what stood in the way, by the codes of SQLite (the low byte is the kind) or the OS."""
    if isinstance(error, OSError):
        return error.errno in numbers
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return code is not None and code & 0xFF == sqlite_code
