"""A batcher forms a batch a turn, isolates failures, bounds its queue, logs before it answers."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import PATIENCE_S, wait_until

from clewline.errors import DeadlineExceeded, Fault, ModelFailed, Overloaded
from clewline.serve.batcher import BATCH_ROWS, BatchAnswer, BatchCost, Batcher, PredictCall, late
from clewline.serve.graph.row_trace import RowTrace
from clewline.serve.log import reader as log_reader
from clewline.serve.log.frame import LoggedBatch, LoggedRequest, RoutePath
from clewline.serve.log.writer import LogWriter
from clewline.serve.metrics.request_statistics import EndpointStatistics
from clewline.store.digest import Digest
from clewline.store.ids import id_bytes, id_text, prediction_ids


class Doubler:
    """Answers a number with its double; -1 makes the whole batch fail."""

    concurrent = False
    may_hang = False

    def __init__(self, row_s: float = 0.0) -> None:
        self.row_s = row_s
        self.batches: list[list[int]] = []
        self.threads: set[str] = set()

    def answer(
        self, rows: list[Any], entities: list[str | None], ids: list[bytes] | None = None
    ) -> BatchAnswer:
        self.batches.append(list(rows))
        self.threads.add(threading.current_thread().name)
        time.sleep(self.row_s * len(rows))
        if -1 in rows:
            raise ValueError("no double of -1")
        answers = [b"%d" % (2 * row) for row in rows]
        way = RoutePath("double@1", (("model", 1.0),))
        return BatchAnswer(ids or prediction_ids(len(rows)), answers, [RowTrace(way)] * len(rows))

    def failed(self, error: ModelFailed) -> BatchAnswer:
        ids = [id_bytes(text) for text in error.ids]
        return BatchAnswer(
            ids, [b"failed"] * len(ids), [RowTrace(RoutePath("double@1", ()))] * len(ids)
        )

    def frame(self, predictions: BatchAnswer, parts: list[LoggedRequest]) -> LoggedBatch:
        return LoggedBatch(
            ids=b"".join(predictions.ids),
            endpoint="double",
            revision=1,
            model="double@1",
            package=Digest("ab" * 32),
            time=0.0,
            requests=parts,
            answers=predictions.answers,
            path=list(predictions.traces[-1].path.path),
        )


class Bench:
    """A batcher over a real log, and the calls that came back."""

    def __init__(
        self, log: LogWriter, answerer: Doubler, *, workers: int = 1, **settings: Any
    ) -> None:
        self.threads = ThreadPoolExecutor(workers, "compute")
        self.batcher = Batcher(
            answerer, log, "process", self.threads, EndpointStatistics(), **settings
        )
        self.done: list[PredictCall] = []

    def call(self, *rows: int, tried: bool = False, **settings: Any) -> PredictCall:
        part = LoggedRequest("json", b"[]", len(rows), tried=tried)
        call = PredictCall(list(rows), part, self.done.append, **settings)
        self.batcher.submit(call)
        return call

    async def finish(self) -> None:
        await self.batcher.drained()
        self.threads.shutdown()


@pytest.fixture
def run(tmp_path: Path) -> Callable[[Callable[[LogWriter], Coroutine[Any, Any, None]]], None]:
    def go(test: Callable[[LogWriter], Coroutine[Any, Any, None]]) -> None:
        with LogWriter(tmp_path) as log:
            asyncio.run(test(log))

    return go


Run = Callable[[Callable[[LogWriter], Coroutine[Any, Any, None]]], None]


def test_all_calls_of_a_turn_go_through_one_batch_and_one_frame(run: Run, tmp_path: Path) -> None:
    doubler = Doubler()

    async def test(log: LogWriter) -> None:
        bench = Bench(log, doubler)
        calls = [bench.call(1), bench.call(2, 3), bench.call(4)]
        assert not bench.done, "nothing is answered from within"
        await bench.finish()
        assert [call.answers for call in calls] == [[b"2"], [b"4", b"6"], [b"8"]]

    run(test)
    assert doubler.batches == [[1, 2, 3, 4]]
    items = log_reader.latest_predictions(tmp_path, limit=10).items
    assert len({item.location.offset for item in items}) == 1


def test_a_tried_call_is_answered_and_logged_and_counted_apart(run: Run, tmp_path: Path) -> None:
    class Routed(Doubler):
        """Doubles odd numbers on one path and even ones on another."""

        def answer(
            self, rows: list[Any], entities: list[str | None], ids: list[bytes] | None = None
        ) -> BatchAnswer:
            found = super().answer(rows, entities, ids)
            paths = [RoutePath("double@1", (("model", 1.0),), arm) for arm in ("even", "odd")]
            traces = [RowTrace(paths[row % 2]) for row in rows]
            counted = tuple((path, sum(t.path is path for t in traces)) for path in paths)
            return BatchAnswer(found.ids, found.answers, traces, counted)

    async def test(log: LogWriter) -> None:
        bench = Bench(log, Routed())
        calls = [bench.call(1, 2), bench.call(3, 4, 5, tried=True), bench.call(7)]
        await bench.finish()
        assert [call.answers[0] for call in calls] == [b"2", b"6", b"14"]
        counted = bench.batcher._statistics
        assert (counted.rows, counted.tried_rows) == (3, 3)
        assert {arm: found.rows for (arm, _), found in counted.arms.items()} == {
            "even": 1,
            "odd": 2,
        }

    run(test)
    for tried, expected in ((None, 6), (True, 3), (False, 3)):
        items = log_reader.latest_predictions(tmp_path, limit=10, tried=tried).items
        assert len(items) == expected
        assert tried is None or {item.tried for item in items} == {tried}


def test_what_cannot_be_logged_fails_and_the_batcher_goes_on(run: Run) -> None:
    async def test(log: LogWriter) -> None:
        bench = Bench(log, Doubler())
        odd = bench.call(1)
        odd.part = LoggedRequest("json", b"[]", 1, ["\ud800"])
        await bench.finish()
        assert isinstance(odd.error, Fault)
        good = bench.call(2)
        await bench.batcher.drained()
        assert good.answers == [b"4"]

    run(test)


def test_only_the_call_that_makes_the_batch_fail_fails(run: Run, tmp_path: Path) -> None:
    async def test(log: LogWriter) -> None:
        bench = Bench(log, Doubler())
        good, bad, other = bench.call(1), bench.call(-1), bench.call(2)
        await bench.finish()
        assert (good.answers, other.answers) == ([b"2"], [b"4"])
        assert isinstance(bad.error, Fault)
        assert "ValueError" in bad.error.message

    run(test)
    assert len(log_reader.latest_predictions(tmp_path, limit=10).items) == 2


def test_a_large_call_goes_through_in_pieces_between_its_neighbours(
    run: Run, tmp_path: Path
) -> None:
    doubler = Doubler()

    async def test(log: LogWriter) -> None:
        bench = Bench(log, doubler)
        large = bench.call(*range(3 * BATCH_ROWS))
        small = bench.call(7)
        await bench.finish()
        assert bench.done == [small, large]
        assert large.answers == [b"%d" % (2 * row) for row in range(3 * BATCH_ROWS)]
        for place in (0, 3 * BATCH_ROWS - 1):
            logged = log_reader.get_prediction(tmp_path, id_text(large.ids[place]))
            assert (logged.row, len(logged.batch.answers)) == (place, 3 * BATCH_ROWS)

    run(test)
    assert max(map(len, doubler.batches)) <= BATCH_ROWS


def test_a_piece_that_fails_fails_its_call_once_and_logs_nothing(run: Run, tmp_path: Path) -> None:
    async def test(log: LogWriter) -> None:
        bench = Bench(log, Doubler())
        large = bench.call(*range(BATCH_ROWS), -1, *range(2 * BATCH_ROWS))
        await bench.finish()
        assert bench.done == [large]
        assert isinstance(large.error, Fault)
        assert bench.batcher.rows == 0

    run(test)
    assert not log_reader.latest_predictions(tmp_path, limit=10).items


def test_a_slow_model_computes_on_a_thread_while_rows_queue(run: Run) -> None:
    doubler = Doubler(row_s=0.02)

    async def test(log: LogWriter) -> None:
        cost = BatchCost()
        cost.observe(1, 0.02)
        bench = Bench(log, doubler, cost=cost)
        bench.call(1)
        await asyncio.sleep(0.005)
        for row in range(2, 6):
            bench.call(row)
        ticks = 0
        while len(bench.done) < 5:
            await asyncio.sleep(0.001)
            ticks += 1
        assert ticks > 5, "the loop went on"
        await bench.finish()

    run(test)
    assert doubler.batches[0] == [1]
    assert all(name.startswith("compute") for name in doubler.threads)


def test_a_full_queue_refuses_at_once_and_takes_again_when_it_has_room(run: Run) -> None:
    async def test(log: LogWriter) -> None:
        bench = Bench(log, Doubler(), queue_rows=3)
        bench.call(1, 2)
        with pytest.raises(Overloaded) as refused:
            bench.call(3, 4)
        assert refused.value.retry_after_s >= 1
        await bench.batcher.drained()
        bench.call(*range(10))  # more than the queue holds, but nothing else waits
        await bench.finish()
        assert len(bench.done) == 2

    run(test)


def test_nothing_is_computed_for_a_caller_that_has_gone(run: Run) -> None:
    doubler = Doubler()

    async def test(log: LogWriter) -> None:
        bench = Bench(log, doubler)
        gone = bench.call(1, abandoned=lambda: True)
        bench.call(2)
        await bench.finish()
        assert gone.error is not None

    run(test)
    assert doubler.batches == [[2]]


class Failing(Doubler):
    """Answers as `Doubler`, but says which rows a node raised on."""

    def answer(
        self, rows: list[Any], entities: list[str | None], ids: list[bytes] | None = None
    ) -> BatchAnswer:
        ids = ids or prediction_ids(len(rows))
        self.batches.append(list(rows))
        if -1 in rows:
            raise ModelFailed("no double of -1", None, tuple(map(id_text, ids)))
        answers = [b"%d" % (2 * row) for row in rows]
        return BatchAnswer(ids, answers, [RowTrace(RoutePath("double@1", ()))] * len(rows))

    def failed(self, error: ModelFailed) -> BatchAnswer:
        ids = list(map(id_bytes, error.ids))
        return BatchAnswer(
            ids, [b'{"error":1}'] * len(ids), [RowTrace(RoutePath("double@1", ()))] * len(ids)
        )


def test_a_node_that_raises_leaves_an_id_a_row_in_the_log(run: Run, tmp_path: Path) -> None:
    async def test(log: LogWriter) -> tuple[PredictCall, PredictCall]:
        bench = Bench(log, Failing())
        good, bad = bench.call(1), bench.call(3, -1)
        await bench.finish()
        assert good.answers == [b"2"]
        return good, bad

    calls: list[PredictCall] = []

    async def keep(log: LogWriter) -> None:
        calls.extend(await test(log))

    run(keep)
    error = calls[1].error
    assert isinstance(error, ModelFailed)
    assert len(error.ids) == 2
    logged = log_reader.get_prediction(tmp_path, error.ids[1])
    assert logged.answer == b'{"error":1}'
    assert logged.batch.requests[0].count == 2
    assert log_reader.get_prediction(tmp_path, id_text(calls[0].ids[0])).answer == b"2"


def test_a_large_call_with_a_bad_row_fails_as_a_whole_with_every_id(
    run: Run, tmp_path: Path
) -> None:
    calls: list[PredictCall] = []

    async def test(log: LogWriter) -> None:
        bench = Bench(log, Failing())
        calls.append(bench.call(*range(BATCH_ROWS), -1, *range(BATCH_ROWS)))
        await bench.finish()
        assert len(bench.done) == 1

    run(test)
    error = calls[0].error
    assert isinstance(error, ModelFailed)
    assert len(set(error.ids)) == 2 * BATCH_ROWS + 1
    for place in (0, BATCH_ROWS, 2 * BATCH_ROWS):
        assert log_reader.get_prediction(tmp_path, error.ids[place]).row == place


def test_pieces_keep_their_order_however_they_come_back(run: Run) -> None:
    class Uneven(Doubler):
        """The first batch takes longest."""

        concurrent = True

        def answer(self, rows: list[Any], *more: Any) -> BatchAnswer:
            if rows[0] == 0:
                assert self.second.wait(PATIENCE_S)
            elif rows[0] == BATCH_ROWS:
                self.second.set()
            return super().answer(rows, *more)

        second = threading.Event()

    async def test(log: LogWriter) -> None:
        bench = Bench(log, Uneven(), workers=2)
        call = bench.call(*range(3 * BATCH_ROWS))
        await bench.finish()
        assert call.answers == [b"%d" % (2 * row) for row in range(3 * BATCH_ROWS)]

    run(test)


def test_a_call_that_is_given_up_is_answered_at_once_and_not_computed(
    run: Run, tmp_path: Path
) -> None:
    doubler = Doubler()

    async def test(log: LogWriter) -> None:
        bench = Bench(log, doubler)
        given_up, other = bench.call(1), bench.call(2)
        bench.batcher.give_up(given_up, late())
        assert bench.done == [given_up]
        assert isinstance(given_up.error, DeadlineExceeded)
        await bench.finish()
        assert bench.done == [given_up, other]

    run(test)
    assert doubler.batches == [[2]]


def test_what_is_past_its_deadline_is_not_computed(run: Run) -> None:
    doubler = Doubler()

    async def test(log: LogWriter) -> None:
        bench = Bench(log, doubler)
        call = bench.call(1, deadline=time.perf_counter() - 1)
        await bench.finish()
        assert isinstance(call.error, DeadlineExceeded)

    run(test)
    assert doubler.batches == []


def test_what_was_computed_in_vain_is_logged(run: Run, tmp_path: Path) -> None:
    class Waiting(Doubler):
        def answer(self, rows: list[Any], *more: Any) -> BatchAnswer:
            begun.set()
            assert go_on.wait(PATIENCE_S)
            return super().answer(rows, *more)

    begun, go_on = threading.Event(), threading.Event()

    async def test(log: LogWriter) -> None:
        slow = BatchCost()
        slow.observe(1, 1.0)  # so that it is computed on a thread
        bench = Bench(log, Waiting(), cost=slow)
        call = bench.call(1)
        await asyncio.to_thread(begun.wait, PATIENCE_S)
        bench.batcher.give_up(call, late())
        assert bench.done == [call]
        go_on.set()
        await bench.finish()
        assert bench.done == [call]

    run(test)
    assert len(log_reader.latest_predictions(tmp_path, limit=10).items) == 1


def test_a_model_that_becomes_slow_stalls_the_loop_once(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.perf_counter()  # only the model moves it: a pause of the machine does not count
    clock = SimpleNamespace(perf_counter=lambda: now, monotonic=lambda: now)
    monkeypatch.setattr("clewline.serve.batcher.time", clock)

    class Timed(Doubler):
        def answer(self, rows: list[Any], *more: Any) -> BatchAnswer:
            nonlocal now
            now += self.row_s * len(rows)
            return super().answer(rows, *more)

    doubler = Timed()

    async def test(log: LogWriter) -> None:
        bench = Bench(log, doubler)
        for _ in range(50):
            bench.call(1)
            await bench.batcher.drained()
        assert doubler.threads == {threading.current_thread().name}
        doubler.row_s = 0.3
        bench.call(1)
        await bench.batcher.drained()
        doubler.threads.clear()
        bench.call(1)
        await bench.finish()

    run(test)
    assert threading.current_thread().name not in doubler.threads


def test_a_model_that_may_hang_is_never_asked_on_the_loop(run: Run) -> None:
    doubler = Doubler()
    doubler.may_hang = True

    async def test(log: LogWriter) -> None:
        bench = Bench(log, doubler)
        for _ in range(50):
            bench.call(1)
            await bench.batcher.drained()
        await bench.finish()

    run(test)
    assert len(doubler.batches) == 50
    assert threading.current_thread().name not in doubler.threads


def test_after_a_batch_that_failed_late_no_row_is_asked_again_for_nobody(run: Run) -> None:
    class Late(Doubler):
        def answer(self, rows: list[Any], *more: Any) -> BatchAnswer:
            if len(rows) > 1:
                closed.wait(PATIENCE_S)
                raise ValueError("it took too long")
            return super().answer(rows, *more)

    doubler, closed = Late(), threading.Event()
    doubler.may_hang = True

    async def test(log: LogWriter) -> None:
        bench = Bench(log, doubler)
        gone, waits = bench.call(1), bench.call(2)
        await wait_until(lambda: not bench.batcher._small)
        bench.batcher.give_up(gone, DeadlineExceeded("late"))
        closed.set()
        await bench.finish()
        assert isinstance(gone.error, DeadlineExceeded)
        assert waits.answers == [b"4"]

    run(test)
    assert doubler.batches == [[2]]


def broken(*_: Any, **__: Any) -> Any:
    raise RuntimeError("broken on purpose")


@pytest.mark.parametrize(
    "point",
    [
        "answer",
        "frame",
        "write_now",
        "compute.observe",
        "batch_rows.observe",
        "queue.observe",
        "log.observe",
        "record_paths",
        "cost.observe",
        "cost.estimate",
        "cost.batch_rows",
        "computing",
        "threads",
        "done",
        "abandoned",
        "failed",
    ],
)
@pytest.mark.parametrize("on_thread", [False, True])
def test_every_call_ends_whatever_raises(
    run: Run, monkeypatch: pytest.MonkeyPatch, point: str, on_thread: bool
) -> None:
    """An error between the model and the reply fails calls, but strands none, also later ones."""

    async def test(log: LogWriter) -> None:
        answerer = Failing() if point == "failed" else Doubler()
        slow = BatchCost()
        slow.observe(1, 1.0 if on_thread else 1e-6)
        bench = Bench(log, answerer, cost=slow)
        statistics = bench.batcher._statistics
        with monkeypatch.context() as patched:
            if point in ("answer", "frame", "failed"):
                patched.setattr(answerer, point, broken)
            elif point == "write_now":
                patched.setattr(log, point, broken)
            elif point == "record_paths":
                patched.setattr(statistics, point, broken)
            elif point == "computing":
                patched.setattr(bench.batcher, "_computing", broken)
            elif point == "threads":
                patched.setattr(bench.threads, "submit", broken)
            elif point.startswith("cost"):
                patched.setattr(slow, point.partition(".")[2], broken)
            elif "." in point:
                patched.setattr(getattr(statistics, point.partition(".")[0]), "observe", broken)
            calls = [bench.call(1), bench.call(2), bench.call(-1 if point == "failed" else 3)]
            if point == "done":
                calls[1].done = broken
            elif point == "abandoned":
                calls[1].abandoned = broken
            async with asyncio.timeout(PATIENCE_S):
                await bench.batcher.drained()
            assert all(call.over for call in calls)
        good = bench.call(5)
        async with asyncio.timeout(PATIENCE_S):
            await bench.finish()
        assert good.answers == [b"10"]
        assert bench.batcher.rows == 0

    run(test)


def test_a_model_with_a_high_fixed_cost_soon_answers_many_rows_at_once() -> None:
    cost = BatchCost()
    cost.observe(1, 0.3)
    waiting, batches = 32, 0
    while waiting > 0:
        rows = min(cost.batch_rows(0.005), waiting)
        cost.observe(rows, 0.3)
        waiting, batches = waiting - rows, batches + 1
    assert batches <= 3


def test_one_slow_first_call_is_forgotten() -> None:
    cost = BatchCost()
    cost.observe(1, 0.8)
    for _ in range(40):
        rows = min(cost.batch_rows(0.005), 32)
        cost.observe(rows, 0.04)
    assert cost.batch_rows(0.005) >= 32


def test_a_model_whose_rows_cost_keeps_to_small_batches() -> None:
    cost = BatchCost()
    sizes = []
    for _ in range(200):
        sizes.append(cost.batch_rows(0.005))
        cost.observe(sizes[-1], 0.3 * sizes[-1])
    assert max(sizes[10:]) <= 2


@given(
    fixed=st.floats(1e-6, 0.1),
    row=st.floats(1e-7, 1e-3),
    sizes=st.lists(st.integers(1, 500), min_size=5, max_size=50).filter(lambda s: len(set(s)) > 2),
)
def test_a_line_is_found_again(fixed: float, row: float, sizes: list[int]) -> None:
    cost = BatchCost()
    for size in sizes:
        cost.observe(size, fixed + row * size)
    for size in sizes:
        assert cost.estimate(size) == pytest.approx(fixed + row * size, rel=0.01)


@given(st.lists(st.tuples(st.integers(1, 10_000), st.floats(0, 10)), max_size=30))
def test_neither_part_is_negative_and_one_row_always_fits(seen: list[tuple[int, float]]) -> None:
    cost = BatchCost()
    for rows, seconds in seen:
        cost.observe(rows, seconds)
    assert cost.fixed_s >= 0
    assert cost.row_s >= 0
    assert cost.rows_within(0.005) >= 1


def test_one_pause_of_the_machine_teaches_little_and_a_slower_model_is_learned() -> None:
    cost = BatchCost()
    for _ in range(50):
        cost.observe(1, 0.0001)
    cost.observe(1, 0.5)
    assert cost.estimate(1) < 0.0002
    for _ in range(200):
        cost.observe(1, 0.05)
    assert cost.estimate(1) == pytest.approx(0.05, rel=0.2)


def test_a_fixed_cost_above_the_budget_is_doubled_by_rows_at_most() -> None:
    cost = BatchCost()
    for size in (1, 10, 100):
        cost.observe(size, 0.02 + 0.0001 * size)
    assert cost.rows_within(0.005) == pytest.approx(200, rel=0.02)
