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


Terms = tuple[str, int, float | None, WorkKind]
"""Endpoint, revision, the endpoint's timeout in seconds, and the kind of work."""


class WorkScope:
    """A context in which a thread does one kind of work. Kept and entered again and again."""

    __slots__ = ("_before", "_thread", "_work", "entered", "since", "terms")

    def __init__(self, thread: _Thread, terms: Terms, work: ThreadWork) -> None:
        self.terms = terms
        self.entered = False
        self.since = 0.0
        self._thread = thread
        self._work = encode_work(work)
        self._before: WorkScope | None = None

    def __enter__(self) -> None:
        thread = self._thread
        self.entered = True
        self.since = time.monotonic()
        self._before, thread.current = thread.current, self
        self.show()

    def __exit__(self, *_: object) -> None:
        before = self._thread.current = self._before
        self.entered = False
        if before is not None:
            before.show()
        elif self._thread.place >= 0:
            self._thread.slot.set_since(self._thread.place, 0.0)

    def show(self) -> None:
        """Write it into the table."""
        thread = self._thread
        if thread.shown is self:  # nearly always, as a batcher computes again and again
            thread.slot.set_since(thread.place, self.since)
        elif thread.place >= 0:
            thread.slot.begin(thread.place, self._work, self.since)
            thread.shown = self


class _Thread:
    """One thread and its place in the table, -1 if there is none left."""

    def __init__(self, slot: WorkerSlot, place: int, number: int) -> None:
        self.slot = slot
        self.place = place
        self.number = number
        self.current: WorkScope | None = None
        self.shown: WorkScope | None = None  # what is written in the place, begun or ended
        self.last: WorkScope | None = None


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
        return self._scope((endpoint, revision, timeout_s, WorkKind.COMPUTING))

    def loading(self, endpoint: str, revision: int = 0) -> WorkScope:
        """Return a context in which this thread loads a revision."""
        return self._scope((endpoint, revision, None, WorkKind.LOADING))

    def failure(self, endpoint: str, revision: int) -> ClewlineError | None:
        """Return why a revision must not be loaded here, or None if it may be."""
        return self._failures.get((endpoint, revision))

    def forbid(self, endpoint: str, revision: int, error: ClewlineError) -> None:
        """Forbid that a revision is loaded here."""
        self._failures[endpoint, revision] = error

    def _scope(self, terms: Terms) -> WorkScope:
        try:
            thread: _Thread = self._own.thread
        except AttributeError:
            number = threading.get_ident()
            thread = self._own.thread = _Thread(self.slot, self._new_place(number), number)
        last = thread.last
        if last is not None and last.terms == terms and not last.entered:
            return last
        endpoint, revision, timeout_s, kind = terms
        if kind == WorkKind.LOADING:
            limit_s = loop_s = START_S
        else:
            limit_s = loop_s = max(LOOP_S, timeout_s or 0.0)
            if timeout_s is None and thread.number != self._loop_thread:
                limit_s = COMPUTE_S
        work = ThreadWork(thread.number, limit_s, loop_s, revision, kind, endpoint, 0.0)
        thread.last = WorkScope(thread, terms, work)
        return thread.last

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
