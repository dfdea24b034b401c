"""The thread that looks up idempotency keys and claims them, since locks and files take time."""

from __future__ import annotations

import errno
import logging
import math
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue

import msgspec
from blake3 import blake3

from clewline.errors import ClewlineError, Conflict, Fault, Overloaded
from clewline.serve.idempotency.key_claims import KeyClaim, KeyClaims
from clewline.serve.log import reader as log_reader
from clewline.serve.log.frame import ID_BYTES, LoggedBatch
from clewline.serve.log.reader import LogLocation
from clewline.serve.request.predict_request import PredictResponse
from clewline.store.disk import disk_error, known_error, open_error

logger = logging.getLogger(__name__)

RETRY_S = 1.0
"""Time between two attempts to record the outcome of a key when the disk was full."""
REPORT_S = 10.0
"""Shortest time between two messages in the log that keys cannot be claimed."""

_ERRNO = {sqlite3.SQLITE_FULL: errno.ENOSPC, sqlite3.SQLITE_READONLY: errno.EROFS}

KeyOutcome = PredictResponse | ClewlineError | KeyClaim | None
"""The response to a key, the reason why there is none, or the claim of another process that is
answering it; None if the key is now claimed for the caller."""

Location = LogLocation | bytes
"""Where a response stands in the log, or the first id of its predictions."""


@dataclass(frozen=True, slots=True)
class _LookUp:
    mark: bytes
    body: bytes
    known: Location | None  # the response, as far as this process knows
    then: Callable[[KeyOutcome], object]


@dataclass(frozen=True, slots=True)
class _Settle:
    mark: bytes
    first_id: bytes | None


class ClaimThread:
    """
    Looks up keys and claims them. The thread starts with the first key.

    Args:
        log: The folder of the prediction log; the claims stand beside it.
    """

    def __init__(self, log: Path) -> None:
        self._log = log
        self._folder = log.parent / "claims"
        self._jobs: SimpleQueue[_LookUp | _Settle | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._claims: KeyClaims | None = None
        self._unrecorded: list[_Settle] = []  # outcomes that could not be written yet
        self._reported_at = -math.inf

    def look_up(
        self,
        mark: bytes,
        body: bytes,
        known: Location | None,
        then: Callable[[KeyOutcome], object],
    ) -> None:
        """
        Look up a key, and claim it if it has no response.

        Args:
            mark: The digest of the key.
            body: The digest of the request.
            known: Where this process knows a response.
            then: Called on this thread with the outcome.
        """
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="clewline-claims", daemon=True)
            self._thread.start()
        self._jobs.put(_LookUp(mark, body, known, then))

    def settle(self, mark: bytes, first_id: bytes | None) -> None:
        """Record the first id of the response to a key; None frees the key."""
        self._jobs.put(_Settle(mark, first_id))

    def close(self) -> None:
        """Finish all jobs, and end the thread."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join()

    def _run(self) -> None:
        jobs: list[_LookUp | _Settle | None] = []
        while None not in jobs:
            jobs = []
            with suppress(Empty):
                jobs.append(self._jobs.get(timeout=RETRY_S if self._unrecorded else None))
            while not self._jobs.empty():
                jobs.append(self._jobs.get())
            self._do([job for job in jobs if job is not None])
        if self._claims is not None:
            self._claims.close()

    def _do(self, jobs: list[_LookUp | _Settle]) -> None:
        """Do all jobs in one transaction, and report the outcomes after it."""
        outcomes: list[tuple[_LookUp, KeyOutcome]] = []
        rest: list[_LookUp | _Settle] = []
        for job in jobs:  # a key that is answered already needs no lock
            found = None
            if isinstance(job, _LookUp) and job.known is not None:
                found = self._read(job.known, job.body)
            if isinstance(job, _LookUp) and found is not None:
                outcomes.append((job, found))
            else:
                rest.append(job)
        if rest or self._unrecorded:
            outcomes += self._transact(rest)
        for look_up, outcome in outcomes:
            look_up.then(outcome)

    def _transact(self, jobs: list[_LookUp | _Settle]) -> list[tuple[_LookUp, KeyOutcome]]:
        outcomes: list[tuple[_LookUp, KeyOutcome]] = []
        try:
            if self._claims is None:
                self._claims = KeyClaims(self._folder)
            with self._claims.transaction():
                for job in [*self._unrecorded, *jobs]:
                    if isinstance(job, _Settle):
                        self._claims.settle(job.mark, job.first_id)
                    else:
                        outcomes.append((job, self._claim(self._claims, job)))
        except (sqlite3.Error, OSError) as error:
            # Others would wait for an outcome that is never recorded as long as we live.
            self._unrecorded += [job for job in jobs if isinstance(job, _Settle)]
            now = time.monotonic()
            if now - self._reported_at >= REPORT_S:
                self._reported_at = now
                logger.error("idempotency keys cannot be claimed", exc_info=error)
            failure = self._explain(error)
            return [(job, failure) for job in jobs if isinstance(job, _LookUp)]
        self._unrecorded = []
        return outcomes

    def _claim(self, claims: KeyClaims, job: _LookUp) -> KeyOutcome:
        claim = claims.take(job.mark, job.body)
        if claim is None:
            return None
        if claim.body != job.body:
            return _other_body()
        found: PredictResponse | ClewlineError | None
        if claim.first_id is not None:
            found = self._read(claim.first_id, job.body)
        elif claims.is_alive(claim.owner):
            return claim
        else:  # the owner died, before or after it wrote the response to the log
            location = log_reader.logged_keys(self._log, claim.time).get(job.mark)
            found = None if location is None else self._read(location, job.body)
        if found is None:
            claims.take_over(job.mark, job.body)
        return found

    def _read(self, known: Location, body: bytes) -> PredictResponse | ClewlineError | None:
        """Read a response from the log; None if it is not there, or the model failed."""
        try:
            if isinstance(known, LogLocation):
                return _response(log_reader.read_batch(known), known.position, body)
            logged = log_reader.find_prediction(self._log, known)
            return None if logged is None else _response(logged.batch, logged.request[0], body)
        except ClewlineError as error:
            return error
        except Exception as error:  # its segment was removed, or the disk fails
            logger.exception("the first response to an idempotency key could not be read")
            fault = Fault(
                f"The first response could not be read: {type(error).__name__}.",
                "The server's log has the reason. A new key gets a new response.",
            )
            return known_error(error, fault)

    def _explain(self, error: Exception) -> ClewlineError:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the low byte is the kind
        if code == sqlite3.SQLITE_BUSY:
            return Overloaded("Another process holds the idempotency keys.", "Try again in 1 s.")
        if code in _ERRNO:
            error = OSError(_ERRNO[code], str(error))
        elif code == sqlite3.SQLITE_CANTOPEN:
            error = open_error(self._folder)
        if isinstance(error, OSError):
            return disk_error(error, self._folder)
        return Fault(
            f"Idempotency keys cannot be claimed: {type(error).__name__}: {error}.",
            f"Check the disk. {self._folder} may be deleted while no server runs: "
            "the log keeps the responses.",
        )


class _Failure(msgspec.Struct):
    error: msgspec.Raw = msgspec.Raw(b"")


def _response(batch: LoggedBatch, index: int, body: bytes) -> PredictResponse | Conflict | None:
    """Return the response to a request of a batch; None if the model failed on it."""
    request = batch.requests[index]
    if body_digest(request.format, request.detail, request.body, request.tried) != body:
        return _other_body()
    first = sum(earlier.count for earlier in batch.requests[:index])
    answers = batch.answers[first : first + request.count]
    if any(bytes(msgspec.json.decode(answer, type=_Failure).error) for answer in answers):
        return None
    first_id = batch.ids[first * ID_BYTES : (first + 1) * ID_BYTES]
    return PredictResponse(f"{batch.endpoint}#{batch.revision}", answers, first_id)


def body_digest(format: str, detail: str, body: bytes, tried: bool = False) -> bytes:
    """Return the digest that distinguishes a request from others under the same key."""
    if tried:
        format = f"{format} tried"
    return blake3(b"%b\0%b\0%b" % (format.encode(), detail.encode(), body)).digest(16)


def _other_body() -> Conflict:
    return Conflict(
        "This Idempotency-Key was sent with another body before.", "Use a new key for new rows."
    )
