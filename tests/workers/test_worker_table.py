"""The board tells what a process was at when it died, and whether it hangs."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator

import pytest

from clewline.errors import Fault
from clewline.workers.work_monitor import COMPUTE_S, WorkMonitor
from clewline.workers.worker_table import (
    LOOP_S,
    START_S,
    THREADS,
    WorkerState,
    WorkerTable,
    WorkKind,
)


@pytest.fixture
def board() -> Iterator[WorkerTable]:
    """A board of two seats; its first process is ready and has a heartbeat."""
    board, file = WorkerTable.create(2)
    for number in (0, 1):
        board.slot(number).clear(number + 1)
    ready(board, 0)
    yield board
    os.close(file)


def ready(board: WorkerTable, number: int) -> None:
    board.slot(number).show(WorkerState.READY)
    board.slot(number).beat(time.monotonic())


def on_a_thread(watched: WorkMonitor, revision: int, timeout_s: float | None = None) -> None:
    """Begin to compute on another thread, and stay at it."""
    begun = threading.Event()

    def work() -> None:
        watched.computing("income", revision, timeout_s).__enter__()
        begun.set()

    threading.Thread(target=work).start()
    assert begun.wait(5)


def test_work_is_shown_from_its_begin_to_its_end_and_what_it_interrupts_again_after_it(
    board: WorkerTable,
) -> None:
    watched, slot = WorkMonitor(board, 0), board.slot(0)
    with watched.loading("income", 3):
        with watched.computing("income", 3):
            assert [(w.kind, w.revision) for w in slot.works()] == [(WorkKind.COMPUTING, 3)]
        (work,) = slot.works()
        assert (work.kind, work.thread) == (WorkKind.LOADING, threading.get_ident())
    assert slot.works() == []
    with pytest.raises(ZeroDivisionError), watched.computing("income", 3):
        raise ZeroDivisionError
    assert slot.works() == []


def test_the_longest_name_fits_and_each_thread_has_a_place_of_its_own(board: WorkerTable) -> None:
    watched = WorkMonitor(board, 0)
    with watched.computing("n" * 63, 2**31):
        on_a_thread(watched, 7)
        assert {(w.endpoint, w.revision) for w in board.slot(0).works()} == {
            ("n" * 63, 2**31),
            ("income", 7),
        }


def test_places_of_ended_threads_are_used_again(board: WorkerTable) -> None:
    watched = WorkMonitor(board, 0)
    for _ in range(3 * THREADS):
        thread = threading.Thread(target=lambda: watched.computing("income", 1).__enter__())
        thread.start()
        thread.join()
    assert len(board.slot(0).works()) <= THREADS
    on_a_thread(watched, 99)
    assert 99 in {work.revision for work in board.slot(0).works()}


@pytest.mark.parametrize(
    ("timeout_s", "limit_s"), [(None, COMPUTE_S), (0.05, LOOP_S), (10.0, 10.0)]
)
def test_a_computation_on_a_thread_has_its_endpoints_time_and_2_s_at_least(
    board: WorkerTable, timeout_s: float | None, limit_s: float
) -> None:
    on_a_thread(WorkMonitor(board, 0), 12, timeout_s)
    slot = board.slot(0)
    now = time.monotonic()
    slot.beat(now + limit_s)  # the loop is well
    assert slot.lateness(now + limit_s - 0.5) is None
    late = slot.lateness(now + limit_s + 0.5)
    assert late is not None
    assert [work.revision for work in late.causes] == [12]
    assert slot.lateness(now + limit_s + 0.5, awake_since=now + 1.0) is None  # the machine slept


@pytest.mark.parametrize(("timeout_s", "limit_s"), [(None, LOOP_S), (10.0, 10.0)])
def test_a_loop_that_stands_still_is_the_fault_of_what_was_begun_before(
    board: WorkerTable, timeout_s: float | None, limit_s: float
) -> None:
    slot, now = board.slot(0), time.monotonic()
    with WorkMonitor(board, 0).computing("income", 12, timeout_s):
        assert slot.lateness(now + limit_s - 0.5) is None
        late = slot.lateness(now + limit_s + 0.5)
        assert late is not None
        assert [work.revision for work in late.causes] == [12]


def test_a_start_and_a_load_have_longer(board: WorkerTable) -> None:
    now = time.monotonic()
    board.slot(1).beat(now)
    assert board.slot(1).lateness(now + START_S - 1) is None
    assert board.slot(1).lateness(now + START_S + 1) is not None
    with WorkMonitor(board, 0).loading("income", 12):
        assert board.slot(0).lateness(now + START_S - 1) is None
        assert board.slot(0).lateness(now + START_S + 1) is not None


def test_readiness_names_the_worker_that_does_not_answer_and_why(board: WorkerTable) -> None:
    watched = WorkMonitor(board, 0)
    assert watched.readiness() == (1, 2, ("worker 1: it is starting",))
    board.explain(1, "it crashed by SIGSEGV, and is being replaced" + "é" * 1000)
    assert watched.readiness().reasons[0].startswith("worker 1: it crashed by SIGSEGV")
    ready(board, 1)
    assert watched.readiness() == (2, 2, ())
    ready(board, 3)  # the one that takes over from it
    board.slot(1).show(WorkerState.STOPPING)
    assert watched.readiness().ready == 2
    board.slot(3).beat(time.monotonic() - 10)
    assert "stood still" in watched.readiness().reasons[0]


def test_a_forbidden_revision_is_known_with_its_reason_and_others_are_free(
    board: WorkerTable,
) -> None:
    error = Fault("It crashed.")
    watched = WorkMonitor(board, 0, {("income", 3): error})
    watched.forbid("sure", 1, error)
    assert watched.failure("income", 3) is watched.failure("sure", 1) is error
    assert watched.failure("income", 4) is None
