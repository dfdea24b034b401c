"""
What a worker says of itself on the board, and what it reads there of the others.

    with watched.computing("income", 12, timeout_s=0.05):
        answer(batch)

If the process dies or stands still in there, the supervisor knows whose fault it was.
"""

from __future__ import annotations

import threading
import time
from types import TracebackType

from clewline.errors import ClewlineError
from clewline.protocols.health import Readiness
from clewline.workers.worker_table import (
    LOOP_S,
    START_S,
    THREADS,
    ThreadWork,
    WorkerSlot,
    WorkerState,
    WorkerTable,
    WorkKind,
    packed,
)

COMPUTE_S = 30.0
"""How long an endpoint without `timeout_ms` may compute on a thread."""


Terms = tuple[str, int, float | None, WorkKind]
"""Endpoint, revision, the endpoint's timeout in seconds, and what is done."""


class WorkScope:
    """One kind of work of one thread, shown on the board from `with` to its end."""

    __slots__ = ("_before", "_thread", "_work", "entered", "since", "terms")

    def __init__(self, thread: _Thread, terms: Terms, work: ThreadWork) -> None:
        self.terms = terms
        self.entered = False
        self.since = 0.0
        self._thread = thread
        self._work = packed(work)
        self._before: WorkScope | None = None

    def __enter__(self) -> None:
        thread = self._thread
        self.entered = True
        self.since = time.monotonic()
        self._before, thread.current = thread.current, self
        self.show()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        before = self._thread.current = self._before
        self.entered = False
        if before is not None:
            before.show()
        elif self._thread.place >= 0:
            self._thread.slot.end(self._thread.place)

    def show(self) -> None:
        """Write it on the board."""
        thread = self._thread
        if thread.shown is self:  # nearly always: a lane computes again and again
            thread.slot.again(thread.place, self.since)
        elif thread.place >= 0:
            thread.slot.begin(thread.place, self._work, self.since)
            thread.shown = self


class _Thread:
    """One thread, and its place on the board; -1 when there is none left."""

    def __init__(self, slot: WorkerSlot, place: int, number: int) -> None:
        self.slot = slot
        self.place = place
        self.number = number
        self.current: WorkScope | None = None
        self.shown: WorkScope | None = None  # what stands in the place, begun or ended
        self.last: WorkScope | None = None


class WorkMonitor:
    """
    This process, as the others see it. Made on the thread of the event loop; any thread may use it.

    Args:
        board: The server's.
        number: The slot of this process.
        failures: Revisions that are not to be tried here, each with the reason.
    """

    def __init__(
        self,
        board: WorkerTable,
        number: int,
        failures: dict[tuple[str, int], ClewlineError] | None = None,
    ) -> None:
        self.board = board
        self.slot = board.slot(number)
        self.seat = number % board.seats
        self._failures = failures or {}
        self._loop_thread = threading.get_ident()
        self._own = threading.local()
        self._places: dict[int, int] = {}  # thread → its place
        self._lock = threading.Lock()

    def computing(
        self, endpoint: str, revision: int = 0, timeout_s: float | None = None
    ) -> WorkScope:
        """
        Show that this thread computes for an endpoint, as a context.

        Args:
            endpoint: Whose batch it is.
            revision: The one that answers.
            timeout_s: The endpoint's own, if it has one.
        """
        return self._work((endpoint, revision, timeout_s, WorkKind.COMPUTING))

    def loading(self, endpoint: str, revision: int = 0) -> WorkScope:
        """Show that this thread loads a revision, as a context."""
        return self._work((endpoint, revision, None, WorkKind.LOADING))

    def failure(self, endpoint: str, revision: int) -> ClewlineError | None:
        """Tell why a revision must not be loaded here: it has crashed too often; else None."""
        return self._failures.get((endpoint, revision))

    def forbid(self, endpoint: str, revision: int, error: ClewlineError) -> None:
        """Say that a revision must not be loaded here any more."""
        self._failures[endpoint, revision] = error

    def readiness(self) -> Readiness:
        """Tell how many workers answer, and why the others do not."""
        return readiness(self.board)

    def _work(self, terms: Terms) -> WorkScope:
        try:
            thread: _Thread = self._own.thread
        except AttributeError:
            number = threading.get_ident()
            thread = self._own.thread = _Thread(self.slot, self._new_place(number), number)
        last = thread.last
        if last is not None and last.terms == terms and not last.entered:
            return last
        thread.last = WorkScope(thread, terms, self._described(thread, terms))
        return thread.last

    def _described(self, thread: _Thread, terms: Terms) -> ThreadWork:
        endpoint, revision, timeout_s, kind = terms
        if kind == WorkKind.LOADING:
            return ThreadWork(thread.number, START_S, START_S, revision, kind, endpoint, 0.0)
        loop_s = limit_s = max(LOOP_S, timeout_s or 0.0)
        if timeout_s is None and thread.number != self._loop_thread:
            limit_s = COMPUTE_S
        return ThreadWork(thread.number, limit_s, loop_s, revision, kind, endpoint, 0.0)

    def _new_place(self, thread: int) -> int:
        """Give a thread a place on the board, that of an ended one if need be; else -1."""
        with self._lock:
            alive = {each.ident for each in threading.enumerate()}
            self._places = {t: p for t, p in self._places.items() if t in alive and t != thread}
            free = set(range(THREADS)) - set(self._places.values())
            if not free:
                return -1
            self._places[thread] = min(free)
            return self._places[thread]


def readiness(board: WorkerTable) -> Readiness:
    """Tell how many workers of a board answer, and why the others do not."""
    now = time.monotonic()
    ready = 0
    reasons = []
    for seat in range(board.seats):
        slots = [board.slot(seat), board.slot(seat + board.seats)]
        answering = [slot for slot in slots if slot.state == WorkerState.READY]
        late = [slot.lateness(now) for slot in answering]
        if any(each is None for each in late):
            ready += 1
        else:
            reason = next((each.reason for each in late if each), "") or board.seat(seat)
            reasons.append(f"worker {seat}: {reason or 'it is starting'}")
    return Readiness(ready, board.seats, tuple(reasons))
