"""
Shows what the threads of this process work on, for the supervisor.

    with monitor.computing("income", 12, timeout_s=0.05):
        answer(batch)

If the process dies or hangs inside, the supervisor knows which revision caused it.
"""

from __future__ import annotations

import threading
import time

from clewline.errors import ClewlineError
from clewline.workers.worker_table import (
    LOOP_S,
    START_S,
    THREADS,
    ThreadWork,
    WorkerSlot,
    WorkerTable,
    WorkKind,
    encode_work,
)

COMPUTE_S = 30.0
"""How long an endpoint without `timeout_ms` may compute on a thread."""
ENCODED = 1000
"""Kinds of work that a thread keeps encoded."""


class WorkScope:
    """A context in which a thread does one kind of work; inside another one, it hides that."""

    __slots__ = ("_before", "_since", "_thread", "_work")

    def __init__(self, thread: _Thread, work: bytes) -> None:
        self._thread, self._work = thread, work
        self._since = 0.0
        self._before: WorkScope | None = None

    def __enter__(self) -> None:
        self._since = time.monotonic()
        self._before, self._thread.scope = self._thread.scope, self
        self._show()

    def __exit__(self, *_: object) -> None:
        before = self._thread.scope = self._before
        if before is None:
            self._thread.slot.end(self._thread.place)
        else:
            before._show()

    def _show(self) -> None:
        self._thread.slot.begin(self._thread.place, self._work, self._since)


class _Thread:
    """One thread, its place in the table (-1 if there is none left), and its work."""

    def __init__(self, slot: WorkerSlot, place: int) -> None:
        self.slot, self.place = slot, place
        self.number = threading.get_ident()
        self.scope: WorkScope | None = None
        self.encoded: dict[tuple[str, int, float | None, WorkKind], bytes] = {}


class WorkMonitor:
    """
    The work of this process. Made on the event loop's thread; any thread may use it.

    Args:
        table: The table of the server.
        number: The slot of this process.
        failures: Revisions that must not be loaded here, each with the reason.
    """

    def __init__(
        self,
        table: WorkerTable,
        number: int,
        failures: dict[tuple[str, int], ClewlineError] | None = None,
    ) -> None:
        self.table = table
        self.slot = table.slot(number)
        self.seat = number % table.seats
        self._failures = failures or {}
        self._loop_thread = threading.get_ident()
        self._own = threading.local()
        self._places: dict[int, int] = {}  # thread → its place
        self._lock = threading.Lock()

    def computing(
        self, endpoint: str, revision: int = 0, timeout_s: float | None = None
    ) -> WorkScope:
        """
        Return a context in which this thread computes a batch.

        Args:
            endpoint: The endpoint whose batch it is.
            revision: The revision that answers.
            timeout_s: The endpoint's timeout, if it has one.
        """
        return self._scope(endpoint, revision, timeout_s, WorkKind.COMPUTING)

    def loading(self, endpoint: str, revision: int = 0) -> WorkScope:
        """Return a context in which this thread loads a revision."""
        return self._scope(endpoint, revision, None, WorkKind.LOADING)

    def failure(self, endpoint: str, revision: int) -> ClewlineError | None:
        """Return why a revision must not be loaded here, or None if it may be."""
        return self._failures.get((endpoint, revision))

    def forbid(self, endpoint: str, revision: int, error: ClewlineError) -> None:
        """Forbid that a revision is loaded here."""
        self._failures[endpoint, revision] = error

    def _scope(
        self, endpoint: str, revision: int, timeout_s: float | None, kind: WorkKind
    ) -> WorkScope:
        thread: _Thread | None = getattr(self._own, "thread", None)
        if thread is None:
            place = self._new_place(threading.get_ident())
            thread = self._own.thread = _Thread(self.slot, place)
        terms = (endpoint, revision, timeout_s, kind)
        work = thread.encoded.get(terms)  # a batcher computes the same again and again
        if work is None:
            limit_s = loop_s = START_S
            if kind == WorkKind.COMPUTING:
                limit_s = loop_s = max(LOOP_S, timeout_s or 0.0)
                if timeout_s is None and thread.number != self._loop_thread:
                    limit_s = COMPUTE_S
            if len(thread.encoded) >= ENCODED:
                thread.encoded.clear()
            work = thread.encoded[terms] = encode_work(
                ThreadWork(thread.number, limit_s, loop_s, revision, kind, endpoint, 0.0)
            )
        return WorkScope(thread, work)

    def _new_place(self, thread: int) -> int:
        """Give a thread a place in the table, that of an ended thread if need be; else -1."""
        with self._lock:
            alive = {each.ident for each in threading.enumerate()}
            self._places = {t: p for t, p in self._places.items() if t in alive and t != thread}
            free = set(range(THREADS)) - set(self._places.values())
            if not free:
                return -1
            self._places[thread] = min(free)
            return self._places[thread]
