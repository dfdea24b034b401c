"""The worker table shows the work of a process that died, and whether a process hangs."""

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
def table() -> Iterator[WorkerTable]:
    """A table of two seats; its first process is ready and has a heartbeat."""
    table, file = WorkerTable.create(2)
    for number in (0, 1):
        table.slot(number).clear(number + 1)
    ready(table, 0)
    yield table
    os.close(file)


def ready(table: WorkerTable, number: int) -> None:
    table.slot(number).state = WorkerState.READY
    table.slot(number).beat_at = time.monotonic()


def on_a_thread(
    monitor: WorkMonitor, revision: int, timeout_s: float | None = None, isolated_s: float = 0.0
) -> None:
    """Begin to compute on another thread, and stay at it."""
    begun = threading.Event()

    def work() -> None:
        monitor.computing("income", revision, timeout_s, isolated_s).__enter__()
        begun.set()

    threading.Thread(target=work).start()
    assert begun.wait(5)


def test_work_is_shown_until_it_ends_and_then_the_work_around_it_again(
    table: WorkerTable,
) -> None:
    monitor, slot = WorkMonitor(table, 0), table.slot(0)
    with monitor.loading("income", 3):
        with monitor.computing("income", 3):
            assert [(w.kind, w.revision) for w in slot.works()] == [(WorkKind.COMPUTING, 3)]
        (work,) = slot.works()
        assert (work.kind, work.thread) == (WorkKind.LOADING, threading.get_ident())
    assert slot.works() == []
    with pytest.raises(ZeroDivisionError), monitor.computing("income", 3):
        raise ZeroDivisionError
    assert slot.works() == []


def test_the_longest_name_fits_and_each_thread_has_a_place_of_its_own(table: WorkerTable) -> None:
    monitor = WorkMonitor(table, 0)
    with monitor.computing("n" * 63, 2**31):
        on_a_thread(monitor, 7)
        assert {(w.endpoint, w.revision) for w in table.slot(0).works()} == {
            ("n" * 63, 2**31),
            ("income", 7),
        }


def test_places_of_ended_threads_are_reused(table: WorkerTable) -> None:
    monitor = WorkMonitor(table, 0)
    for _ in range(3 * THREADS):
        thread = threading.Thread(target=lambda: monitor.computing("income", 1).__enter__())
        thread.start()
        thread.join()
    assert len(table.slot(0).works()) <= THREADS
    on_a_thread(monitor, 99)
    assert 99 in {work.revision for work in table.slot(0).works()}


@pytest.mark.parametrize(
    ("timeout_s", "isolated_s", "limit_s"),
    [(None, 0.0, COMPUTE_S), (0.05, 0.0, LOOP_S), (10.0, 0.0, 10.0), (10.0, 90.0, 100.0)],
)
def test_a_computation_on_a_thread_may_take_its_endpoints_timeout_and_at_least_2_s(
    table: WorkerTable, timeout_s: float | None, isolated_s: float, limit_s: float
) -> None:
    on_a_thread(WorkMonitor(table, 0), 12, timeout_s, isolated_s)
    slot = table.slot(0)
    now = time.monotonic()
    slot.beat_at = now + limit_s  # the loop is well
    assert slot.hang(now + limit_s - 0.5) is None
    hang = slot.hang(now + limit_s + 0.5)
    assert hang is not None
    assert [work.revision for work in hang.causes] == [12]
    assert slot.hang(now + limit_s + 0.5, awake_since=now + 1.0) is None  # the machine slept


@pytest.mark.parametrize(("timeout_s", "limit_s"), [(None, LOOP_S), (10.0, 10.0)])
def test_a_loop_that_stands_still_is_blamed_on_the_work_that_began_before(
    table: WorkerTable, timeout_s: float | None, limit_s: float
) -> None:
    slot, now = table.slot(0), time.monotonic()
    with WorkMonitor(table, 0).computing("income", 12, timeout_s):
        assert slot.hang(now + limit_s - 0.5) is None
        hang = slot.hang(now + limit_s + 0.5)
        assert hang is not None
        assert [work.revision for work in hang.causes] == [12]


def test_a_start_and_a_load_may_take_longer(table: WorkerTable) -> None:
    now = time.monotonic()
    table.slot(1).beat_at = now
    assert table.slot(1).hang(now + START_S - 1) is None
    assert table.slot(1).hang(now + START_S + 1) is not None
    with WorkMonitor(table, 0).loading("income", 12):
        assert table.slot(0).hang(now + START_S - 1) is None
        assert table.slot(0).hang(now + START_S + 1) is not None


def test_readiness_names_the_worker_that_does_not_answer_and_why(table: WorkerTable) -> None:
    assert table.readiness() == (1, 2, ("worker 1: it is starting",))
    table.set_reason(1, "it crashed by SIGSEGV, and is being replaced" + "é" * 1000)
    assert table.readiness().reasons[0].startswith("worker 1: it crashed by SIGSEGV")
    ready(table, 1)
    assert table.readiness() == (2, 2, ())
    ready(table, 3)  # the one that takes over from it
    table.slot(1).state = WorkerState.STOPPING
    assert table.readiness().ready == 2
    table.slot(3).beat_at = time.monotonic() - 10
    assert "stood still" in table.readiness().reasons[0]


def test_a_forbidden_revision_is_known_with_its_reason_and_others_are_free(
    table: WorkerTable,
) -> None:
    error = Fault("It crashed.")
    monitor = WorkMonitor(table, 0, {("income", 3): error})
    monitor.forbid("sure", 1, error)
    assert monitor.failure("income", 3) is monitor.failure("sure", 1) is error
    assert monitor.failure("income", 4) is None
