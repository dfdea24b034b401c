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


Terms = tuple[str, int, float | None, float, WorkKind]
"""Endpoint, revision, its timeout and the wait for isolated models in seconds, kind of work."""


class WorkScope:
    """
    A context in which a thread does one kind of work; inside another one, it hides that.

    A thread enters the same one again and again, which takes 2 µs: it was encoded once, and
    only the time is written if it stands in the table already.
    """

    __slots__ = ("_before", "_since", "_thread", "_work", "entered", "terms")

    def __init__(self, thread: _Thread, terms: Terms, work: ThreadWork) -> None:
        self.terms = terms
        self.entered = False
        self._thread, self._work = thread, encode_work(work)
        self._since = 0.0
        self._before: WorkScope | None = None

    def __enter__(self) -> None:
        self.entered = True
        self._since = time.monotonic()
        self._before, self._thread.scope = self._thread.scope, self
        self._show()

    def __exit__(self, *_: object) -> None:
        self.entered = False
        before = self._thread.scope = self._before
        if before is not None:
            before._show()
        else:
            self._thread.slot.set_since(self._thread.place, 0.0)

    def _show(self) -> None:
        thread = self._thread
        if thread.shown is not self:
            thread.slot.set_work(thread.place, self._work)
            thread.shown = self
        thread.slot.set_since(thread.place, self._since)


class _Thread:
    """One thread, its place in the table (-1 if there is none left), and its work."""

    def __init__(self, slot: WorkerSlot, place: int) -> None:
        self.slot, self.place = slot, place
        self.number = threading.get_ident()
        self.scope: WorkScope | None = None  # entered last
        self.shown: WorkScope | None = None  # in the table, entered or not
        self.last: WorkScope | None = None  # made last


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
        self,
        endpoint: str,
        revision: int = 0,
        timeout_s: float | None = None,
        isolated_s: float = 0.0,
    ) -> WorkScope:
        """
        Return a context in which this thread computes a batch.

        Args:
            endpoint: The endpoint of the batch.
            revision: The revision that answers.
            timeout_s: The endpoint's timeout, if it has one.
            isolated_s: How much longer it may wait for isolated models, which have limits
                of their own.
        """
        return self._scope((endpoint, revision, timeout_s, isolated_s, WorkKind.COMPUTING))

    def loading(self, endpoint: str, revision: int = 0, isolated_s: float = 0.0) -> WorkScope:
        """Return a context in which this thread loads a revision."""
        return self._scope((endpoint, revision, None, isolated_s, WorkKind.LOADING))

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
            place = self._new_place(threading.get_ident())
            thread = self._own.thread = _Thread(self.slot, place)
        last = thread.last
        if last is not None and last.terms == terms and not last.entered:
            return last
        endpoint, revision, timeout_s, isolated_s, kind = terms
        limit_s = loop_s = START_S
        if kind == WorkKind.COMPUTING:
            limit_s = loop_s = max(LOOP_S, timeout_s or 0.0)
            if timeout_s is None and thread.number != self._loop_thread:
                limit_s = COMPUTE_S
        limit_s += isolated_s
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
