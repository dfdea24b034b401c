"""
Batches form by themselves: all rows that arrived in one turn of the event loop share one call.

    submit(call) ─► queue ─► one batch a turn ─► predict (here, or on a thread) ─► log ─► call.done

A `Batcher` is that path for one revision of an endpoint. Nobody waits for a timer: an idle
batcher answers at once, a busy one gathers the calls that arrive meanwhile. A call with more
rows than a batch may have is computed in pieces, in turn with its neighbours. An answer leaves
only after its frame is in the log. Every call ends, even if a part of this path raises.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager, nullcontext
from operator import itemgetter
from typing import Any, Protocol

import msgspec

from clewline.errors import (
    ClewlineError,
    DeadlineExceeded,
    Fault,
    InvalidInput,
    ModelFailed,
    Overloaded,
)
from clewline.serve.graph.row_trace import RowTrace
from clewline.serve.log.frame import LoggedBatch, LoggedRequest, RoutePath
from clewline.serve.log.writer import Done, Durability
from clewline.serve.metrics.request_statistics import EndpointStatistics
from clewline.serve.request.predict_request import RequestTimings
from clewline.store.disk import known_error
from clewline.store.ids import id_bytes, id_text, prediction_ids

logger = logging.getLogger(__name__)

BATCH_ROWS = 512
"""Maximum rows of a batch, however quick the model is."""
LARGE_ROWS = 64
"""Calls with this many rows are computed on a thread, so that the next call is read meanwhile …"""
LARGE_BYTES = 64 << 10
"""… and so are calls with a longer body: their rows take longer than the learned cost says."""
IN_FLIGHT = 2
"""Maximum large batches on threads: one is prepared while the model computes the other."""
LONG_ROWS = 1024
"""Frames with more rows are written by the log's thread, because that takes milliseconds …"""
LONG_BYTES = 1 << 20
"""… and so are frames with more bytes of bodies."""
BATCH_S = 0.005
"""How long a batch should take: the neighbours of a large request wait for this long."""
INLINE_S = 0.006
"""A batch that is expected to take longer is computed on a thread …"""
SLOW_BATCHES = 8
"""… and after one that did take longer, so are this many quick ones."""
REPORT_S = 1.0
"""Minimum time between two lines of the server's log about failed rows of one revision."""
QUEUE_ROWS = 20_000
"""Maximum rows of one endpoint that may wait for their answers."""


class BatchAnswer(msgspec.Struct, frozen=True, gc=False):
    """An answered batch: for each row an id of 16 bytes, the JSON of its prediction, its trace."""

    ids: list[bytes]
    answers: list[bytes]
    traces: list[RowTrace]
    paths: tuple[tuple[RoutePath, int], ...] = ()  # each path through the graph, with its rows


class BatchPredictor(Protocol):
    """Answers the batches of a batcher; free of I/O."""

    concurrent: bool  # whether several threads may call `answer` at the same time
    may_hang: bool  # whether a call may wait for another process, so never on the loop

    def answer(
        self, rows: list[Any], entities: list[str | None], ids: list[bytes] | None = None
    ) -> BatchAnswer:
        """
        Answer checked rows, in order.

        Args:
            rows: Checked rows.
            entities: The entity of each row; as many as rows.
            ids: Ids of rows that are answered a second time, so that each route
                chooses the same arm; by default new ids.

        Raises:
            InvalidInput: A model refuses rows.
            ModelFailed: A node raised; the error has the ids, which `failed` logs.
        """

    def failed(self, error: ModelFailed) -> BatchAnswer:
        """Return the answers to log for rows on which a node raised, under the error's ids."""

    def frame(self, predictions: BatchAnswer, parts: list[LoggedRequest]) -> LoggedBatch:
        """Return the log frame of answered rows; the parts have as many rows."""


class FrameLog(Protocol):
    """The prediction log, as `clewline.serve.log.writer.LogWriter` keeps it."""

    def write_now(self, frame: LoggedBatch) -> bool: ...

    def append(self, frame: LoggedBatch, durability: Durability, done: Done) -> None: ...


class PredictCall(msgspec.Struct, eq=False):
    """
    The rows of one request on their way through a batcher.

    `done` is called once, on the loop's thread. Then `answers` has the JSON of
    each prediction, or `error` has the reason why there are none.
    """

    rows: list[Any]  # checked, one or more
    part: LoggedRequest  # the request as the log keeps it
    done: Callable[[PredictCall], None]
    abandoned: Callable[[], bool] | None = None  # returns whether the caller has gone
    deadline: float = math.inf  # of `time.perf_counter`; rows not begun by then are not computed
    closed: bool = False  # nothing more of it is computed
    answers: list[bytes] = []
    ids: list[bytes] = []
    traces: list[RowTrace] = []
    partial: list[tuple[int, BatchAnswer]] = []  # answered pieces, each with its first row
    failure: ModelFailed | None = None  # a node raised: `answers` are the logged failures
    error: ClewlineError | None = None
    over: bool = False  # `done` was called
    timings: RequestTimings | None = None  # set if the request is traced
    arrived: float = msgspec.field(default_factory=time.perf_counter)


class _Piece(msgspec.Struct, frozen=True, eq=False):
    """Rows `start` to `stop` of a call."""

    call: PredictCall
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def is_whole(self) -> bool:
        return self.start == 0 and self.stop == len(self.call.rows)


_Outcome = tuple[list[_Piece], BatchAnswer | Exception]
"""The pieces of one call of the predictor, and its result."""


class Batcher:
    """
    The queue, the batches and the log of one revision. Lives on the loop's thread.

    Args:
        predictor: Answers the batches.
        log: Takes the frames.
        durability: When a frame counts as written.
        threads: Computes slow batches.
        statistics: Counts rows and times.
        cost: The known cost of batches.
        computing: Returns a context that surrounds every call of the predictor.
        queue_rows: Maximum rows that may wait; beyond it, calls are refused.
        ref: Names the revision in the server's log.
    """

    def __init__(
        self,
        predictor: BatchPredictor,
        log: FrameLog,
        durability: Durability,
        threads: Executor,
        statistics: EndpointStatistics,
        *,
        cost: BatchCost | None = None,
        computing: Callable[[], AbstractContextManager[None]] = nullcontext,
        queue_rows: int = QUEUE_ROWS,
        ref: str = "a revision",
    ) -> None:
        self.cost = cost or BatchCost()
        self.rows = 0  # taken, and not yet answered
        self._tried_calls = 0  # of these, which statistics leave out
        self._predictor = predictor
        self._log = log
        self._durability = durability
        self._threads = threads
        self._statistics = statistics
        self._computing = computing
        self._queue_rows = queue_rows
        self._ref = ref
        self._loop = asyncio.get_running_loop()
        self._small: deque[_Piece] = deque()
        self._large: deque[_Piece] = deque()  # of calls with many rows: they delay no small call
        self._is_scheduled = False
        self._in_flight = {False: 0, True: 0}  # batches on threads; True: of large calls
        self._large_is_next = False  # they take turns where one batch is computed at a time
        self._slow_left = 0  # batches that go to a thread, since one took long
        self._unlogged = 0  # frames that the log's thread has
        self._when_idle: list[Callable[[], None]] = []
        self._reported_at = -REPORT_S

    def submit(self, call: PredictCall) -> None:
        """
        Take a call; its `done` is called later, never from within.

        Raises:
            Overloaded: The queue is full.
        """
        rows = len(call.rows)
        if self.rows and self.rows + rows > self._queue_rows:
            wait_s = max(1.0, math.ceil(self.cost.estimate(self.rows)))
            raise Overloaded(
                f"{self.rows} rows wait already; the limit is {self._queue_rows}.",
                f"Try again in {wait_s:.0f} s.",
                retry_after_s=wait_s,
            )
        self.rows += rows
        if call.part.tried:
            self._tried_calls += 1
        is_large = rows >= LARGE_ROWS or len(call.part.body) > LARGE_BYTES
        queue = self._large if is_large else self._small
        queue.append(_Piece(call, 0, rows))
        self._schedule()

    def give_up(self, call: PredictCall, error: ClewlineError) -> None:
        """
        Answer a call with an error now.

        Rows that wait are not computed. Rows that are being computed now are logged
        if they complete the call, but their answer goes to nobody.
        """
        call.closed = True
        self._finish(call, error)

    def when_idle(self, then: Callable[[], None]) -> None:
        """Call `then` as soon as nothing waits, is computed or is being logged."""
        self._when_idle.append(then)
        self._report_idle()

    async def drained(self) -> None:
        """Wait until every call that was taken is done."""
        idle: asyncio.Future[None] = self._loop.create_future()
        self.when_idle(lambda: idle.set_result(None))
        await idle

    def _report_idle(self) -> None:
        if not self._when_idle or self._small or self._large or self._is_scheduled:
            return
        if not (self._in_flight[False] or self._in_flight[True] or self._unlogged):
            waiting, self._when_idle = self._when_idle, []
            for then in waiting:
                then()

    # ---- one turn of the loop: form a batch, compute it

    def _schedule(self) -> None:
        if not self._is_scheduled and self._next_queue() is not None:
            self._is_scheduled = True
            self._loop.call_soon(self._turn)

    def _next_queue(self) -> deque[_Piece] | None:
        """Return the queue of the next batch; None if none may begin now."""
        small, large = self._in_flight[False], self._in_flight[True]
        if self._predictor.concurrent:
            if self._small and not small:
                return self._small
            return self._large if self._large and large < IN_FLIGHT else None
        if small or large:
            return None
        if self._large and (self._large_is_next or not self._small):
            return self._large
        return self._small or None

    def _turn(self) -> None:
        """Form one batch and compute it: here, or on a thread if it takes long."""
        self._is_scheduled = False
        queue = self._next_queue()
        if queue is not None:
            self._large_is_next = queue is not self._large
            pieces: list[_Piece] = []
            try:
                rows = self._form_batch(queue, pieces)
                slow = (
                    queue is self._large
                    or self._predictor.may_hang
                    or self._slow_left
                    or self.cost.estimate(rows) > INLINE_S
                )
                if slow or self._in_flight[True] or self._in_flight[False]:
                    self._compute_on_thread(pieces, rows, queue is self._large)
                elif pieces:
                    self._deliver(rows, *self._compute(pieces))
            except Exception as error:
                if not pieces and queue:  # or the next turn would be like this one
                    pieces.append(queue.popleft())
                self._fail_pieces(pieces, error)
            self._schedule()
        self._report_idle()

    def _form_batch(self, queue: deque[_Piece], pieces: list[_Piece]) -> int:
        """Move a piece of each call to `pieces`, until the batch is full; return its rows."""
        limit = room = min(BATCH_ROWS, self.cost.batch_rows(BATCH_S))
        now = time.perf_counter()
        while queue and room > 0:
            piece = queue.popleft()
            pieces.append(piece)
            call, size = piece.call, len(piece)
            if not call.closed and call.abandoned is not None and call.abandoned():
                self.give_up(call, Fault("The caller has gone."))
            elif not call.closed and call.deadline <= now:
                self.give_up(call, late())
            if call.closed:
                pieces.pop()
                continue
            if size > room:
                cut = piece.start + room
                queue.append(_Piece(call, cut, piece.stop))
                piece, size = _Piece(call, piece.start, cut), room
                pieces[-1] = piece
            if piece.start == 0:
                self._statistics.queue.observe(now - call.arrived)
                if call.timings is not None:
                    call.timings.begun = now
            room -= size
        return limit - room

    def _compute_on_thread(self, pieces: list[_Piece], rows: int, is_large: bool) -> None:
        if not pieces:
            return
        future = self._loop.run_in_executor(self._threads, self._compute, pieces)
        self._in_flight[is_large] += 1
        sharing = sum(self._in_flight.values())  # the model or the processors

        def computed(done: asyncio.Future[tuple[list[_Outcome], float]]) -> None:
            self._in_flight[is_large] -= 1
            try:
                outcomes, spent_s = done.result()
                self._deliver(rows, outcomes, spent_s / sharing)
            except (Exception, asyncio.CancelledError) as error:
                self._fail_pieces(pieces, error)
            self._schedule()
            self._report_idle()

        future.add_done_callback(computed)

    def _compute(self, pieces: list[_Piece]) -> tuple[list[_Outcome], float]:
        """Answer a batch; if it fails, answer each piece alone, so that only the cause fails."""
        start = time.perf_counter()
        outcomes = [self._attempt(pieces)]
        failure = outcomes[0][1]
        if len(pieces) > 1 and isinstance(failure, Exception):
            ids = list(map(id_bytes, failure.ids)) if isinstance(failure, ModelFailed) else []
            outcomes, first = [], 0
            for piece in pieces:
                last = first + len(piece)
                if piece.call.closed or piece.call.deadline <= time.perf_counter():
                    outcomes.append(([piece], late()))  # nobody waits for it
                else:
                    outcomes.append(self._attempt([piece], ids[first:last] or None))
                first = last
        return outcomes, time.perf_counter() - start

    def _attempt(self, pieces: list[_Piece], ids: list[bytes] | None = None) -> _Outcome:
        rows: list[Any] = []
        entities: list[str | None] = []
        for piece in pieces:
            call, named = piece.call, piece.call.part.entities
            rows += call.rows if piece.is_whole else call.rows[piece.start : piece.stop]
            entities += named[piece.start : piece.stop] if named else [None] * len(piece)
        try:
            with self._computing():
                return pieces, self._predictor.answer(rows, entities, ids)
        except InvalidInput as error:  # a level that the model's own encoder refuses
            start = pieces[0].start  # the caller counts rows from the start of the call
            moved = [msgspec.structs.replace(each, row=each.row + start) for each in error.fields]
            return pieces, InvalidInput(error.message, error.fix, tuple(moved))
        except Exception as error:
            return pieces, error

    # ---- a computed batch: log it, answer its calls

    def _deliver(self, rows: int, outcomes: list[_Outcome], spent_s: float) -> None:
        """Log each call that is complete, and answer it."""
        has_tried = self._tried_calls > 0  # logging ends calls
        for pieces, result in outcomes:
            if isinstance(result, Exception):
                self._fail_pieces(pieces, result)
                continue
            ids, answers, traces = result.ids, result.answers, result.traces
            whole: list[PredictCall] = []  # these share one frame of the log
            first = 0
            for piece in pieces:
                call, last = piece.call, first + len(piece)
                if piece.is_whole:
                    call.ids, call.answers = ids[first:last], answers[first:last]
                    call.traces = traces[first:last]
                    whole.append(call)
                elif call.failure is None:
                    part = BatchAnswer(ids[first:last], answers[first:last], traces[first:last])
                    call.partial.append((piece.start, part))
                    if sum(len(part.ids) for _, part in call.partial) == len(call.rows):
                        # They may have been answered in any order.
                        for _, part in sorted(call.partial, key=itemgetter(0)):
                            call.ids += part.ids
                            call.answers += part.answers
                            call.traces += part.traces
                        call.partial = []
                        self._log_calls([call])
                first = last
            if whole:
                self._log_calls(whole)
            paths = _counted_paths(pieces, result) if has_tried else result.paths
            self._statistics.record_paths(paths)
        self.cost.observe(rows, spent_s)
        # The cost forgets slowly; a model that has become slow stalls the loop once.
        left = self._slow_left - 1
        self._slow_left = SLOW_BATCHES if spent_s > INLINE_S else max(left, 0)
        self._statistics.compute.observe(spent_s)
        self._statistics.batch_rows.observe(rows)

    def _log_calls(self, calls: list[PredictCall]) -> None:
        """Log calls that are answered completely, and finish them when they are in the log."""
        if len(calls) == 1:
            ids, answers, traces = calls[0].ids, calls[0].answers, calls[0].traces
            size = len(calls[0].part.body)
        else:
            ids = [id_ for call in calls for id_ in call.ids]
            answers = [answer for call in calls for answer in call.answers]
            traces = [trace for call in calls for trace in call.traces]
            size = sum([len(call.part.body) for call in calls])
        start = time.perf_counter()
        self._unlogged += 1

        def appended(error: BaseException | None) -> None:
            self._loop.call_soon_threadsafe(settled, error)

        def settled(error: BaseException | None) -> None:
            try:
                self._logged(calls, start, error)
            except Exception as failure:  # the loop would only report it
                self._fail(calls, failure)

        try:
            frame = self._predictor.frame(
                BatchAnswer(ids, answers, traces), [call.part for call in calls]
            )
            is_short = len(ids) <= LONG_ROWS and size <= LONG_BYTES
            quick = is_short and self._durability == "process"
            if not (quick and self._log.write_now(frame)):
                self._log.append(frame, self._durability, appended)
                return
        except Exception as error:
            self._logged(calls, start, error)
        else:
            self._logged(calls, start, None)

    def _logged(self, calls: list[PredictCall], start: float, error: BaseException | None) -> None:
        self._unlogged -= 1
        now = time.perf_counter()
        for call in calls:
            if call.timings is not None:
                call.timings.answered, call.timings.logged = start, now
                call.timings.ids, call.timings.traces = call.ids, call.traces
            if error is None:
                self._finish(call, call.failure)
        if error is not None:
            if not isinstance(error, ClewlineError):
                logger.error("%s: a frame could not be logged", self._ref, exc_info=error)
            self._statistics.unlogged += 1
            self._fail(calls, error)
        self._statistics.log.observe(now - start)
        self._report_idle()

    def _fail_pieces(self, pieces: list[_Piece], error: BaseException) -> None:
        """Answer calls with an error; if a node raised, log each row under its id."""
        now = time.monotonic()
        if not isinstance(error, InvalidInput) and now - self._reported_at >= REPORT_S:
            self._reported_at = now
            logger.error("%s: rows could not be answered", self._ref, exc_info=error)
        first = 0
        for piece in pieces:
            call, last = piece.call, first + len(piece)
            if not isinstance(error, ModelFailed):
                self._fail([call], error)
            elif not call.closed:
                try:
                    self._log_failure(call, piece, error, error.ids[first:last])
                except Exception as second:
                    logger.exception("%s: a failure could not be logged", self._ref)
                    self._fail([call], second)
            first = last

    def _log_failure(
        self, call: PredictCall, piece: _Piece, error: ModelFailed, ids: Sequence[str]
    ) -> None:
        """Log all rows of a call as failed, because none of them is answered."""
        call.closed = True
        if not call.part.tried:
            self._statistics.failed_rows += len(call.rows)
        all_ids = list(map(id_text, prediction_ids(len(call.rows))))
        all_ids[piece.start : piece.stop] = ids
        for start, answered in call.partial:
            all_ids[start : start + len(answered.ids)] = map(id_text, answered.ids)
        call.failure = ModelFailed(error.message, error.fix, tuple(all_ids))
        failed = self._predictor.failed(call.failure)
        call.ids, call.answers, call.traces = failed.ids, failed.answers, failed.traces
        self._log_calls([call])

    def _fail(self, calls: list[PredictCall], error: BaseException) -> None:
        if not isinstance(error, ClewlineError):
            error = unanswered(error)
        for call in calls:
            call.closed, call.partial = True, []
            if not call.over:
                call.answers = []
            self._finish(call, error)

    def _finish(self, call: PredictCall, error: ClewlineError | None = None) -> None:
        """End a call. If its `done` raises, the other calls of the batch go on."""
        if call.over:
            return
        call.over, call.error = True, error
        self.rows -= len(call.rows)
        if call.part.tried:
            self._tried_calls -= 1
            if error is None:
                self._statistics.tried_rows += len(call.rows)
        elif error is None:
            self._statistics.rows += len(call.rows)
        try:
            call.done(call)
        except Exception as failure:
            logger.exception("%s: an answer could not be delivered", self._ref)
            call.error = unanswered(failure)
            try:
                call.done(call)
            except Exception:
                logger.exception("%s: nor could the error", self._ref)


def _counted_paths(pieces: list[_Piece], result: BatchAnswer) -> tuple[tuple[RoutePath, int], ...]:
    """Return the paths of a batch with their rows, without those of tried calls."""
    rows: dict[int, int] = {}  # by the identity of a path, which rows share
    first = 0
    for piece in pieces:
        last = first + len(piece)
        if not piece.call.part.tried:
            for trace in result.traces[first:last]:
                rows[id(trace.path)] = rows.get(id(trace.path), 0) + 1
        first = last
    return tuple((path, rows[id(path)]) for path, _ in result.paths if id(path) in rows)


def late() -> DeadlineExceeded:
    """Return the error for a caller after the deadline."""
    return DeadlineExceeded(
        "The deadline of the request has passed.", "Allow more time, or send fewer rows at once."
    )


def unanswered(error: BaseException) -> ClewlineError:
    """Return the error for a caller whose rows met a bug, or the disk's error, on their way."""
    fault = Fault(
        f"The rows could not be answered: {type(error).__name__}.",
        "The server's log has the reason; the request is not the cause.",
    )
    return known_error(error, fault)


FORGET = 0.98
"""Weight that each batch leaves to the earlier ones: about the last fifty count."""
SURPRISE = 3.0
"""A batch counts for at most this many times its expected time …"""
ENOUGH = 5.0
"""… once this many batches, by weight, are known."""
EXPLORE = 16
"""One batch in this many may have twice the rows that are known to fit."""
MIN_ROW_S = 1e-9


class BatchCost:
    """
    The cost of a batch, `fixed_s + row_s * rows` seconds, learned from computed batches.

    A line through (rows, seconds), fitted by weighted least squares.
    """

    def __init__(self) -> None:
        self.fixed_s = 0.0
        self.row_s = 0.0
        self._batches = 0
        self._is_one_size = True  # all known batches have about as many rows
        self._weight = self._n = self._nn = self._t = self._nt = 0.0

    def observe(self, rows: int, seconds: float) -> None:
        """
        Learn from one batch.

        A batch that took many times the expected time counts as `SURPRISE` times that:
        a pause of the machine teaches nothing, and a model that did become slower is
        still learned within a few batches.
        """
        if self._weight > ENOUGH:
            seconds = min(seconds, SURPRISE * self.estimate(rows))
        self._weight = self._weight * FORGET + 1
        self._n = self._n * FORGET + rows
        self._nn = self._nn * FORGET + rows * rows
        self._t = self._t * FORGET + seconds
        self._nt = self._nt * FORGET + rows * seconds
        mean_n, mean_t = self._n / self._weight, self._t / self._weight
        spread = self._nn / self._weight - mean_n * mean_n
        self._is_one_size = spread <= 1e-9 * mean_n * mean_n
        if self._is_one_size:
            self.row_s = mean_t / mean_n  # the careful guess
        else:
            slope = (self._nt / self._weight - mean_n * mean_t) / spread
            # Neither part can be negative, whatever the noise says.
            self.row_s = min(max(slope, 0.0), mean_t / mean_n)
        self.fixed_s = max(mean_t - self.row_s * mean_n, 0.0)

    def estimate(self, rows: int) -> float:
        """Return the expected time of a batch, in seconds."""
        return self.fixed_s + self.row_s * rows

    def rows_within(self, seconds: float) -> int:
        """
        Return how many rows fit into a time; at least 1.

        If the fixed cost alone is longer, return the rows that double it: smaller
        batches would save nothing.
        """
        spare_s = max(seconds - self.fixed_s, self.fixed_s)
        return max(1, int(spare_s / max(self.row_s, MIN_ROW_S)))

    def batch_rows(self, seconds: float) -> int:
        """
        Return how many rows the next batch may have; from time to time more than `rows_within`.

        Without larger batches nobody would learn that they cost no more: a model with
        a fixed cost of 0.3 s would answer one row at a time for ever.
        """
        rows = self.rows_within(seconds)
        self._batches += 1
        if self._is_one_size and self._weight:
            return max(rows, 2 * math.ceil(self._n / self._weight))
        return rows if self._batches % EXPLORE else 2 * rows
