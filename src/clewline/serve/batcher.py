"""
Batches form by themselves: all rows that arrived in a turn of the event loop go through one call.

    submit(call) ─► queue ─► one batch a turn ─► answer (here, or on a thread) ─► log ─► call.done

A `Batcher` is that path for one revision of an endpoint. Nobody waits for a timer:
an idle lane answers at once, a busy one gathers what comes meanwhile. A call of
more rows than a batch should have goes through in pieces, in turn with its
neighbours. An answer leaves only after its frame is in the log.
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
from clewline.serve.batch_cost import BatchCost
from clewline.serve.graph.row_trace import RowTrace
from clewline.serve.log.frame import RoutePath
from clewline.serve.log.writer import Done, Durability, LoggedBatch, LoggedRequest
from clewline.serve.metrics.request_statistics import EndpointStatistics
from clewline.serve.metrics.request_timings import RequestTimings
from clewline.store.ids import id_bytes, id_text, prediction_ids

logger = logging.getLogger(__name__)

BATCH_ROWS = 512
"""Rows of a batch at most, however quick the model."""
LARGE_ROWS = 64
"""Calls of so many rows are computed on a thread: the next is read and checked meanwhile."""
IN_FLIGHT = 2
"""Batches on threads at once, where one may be prepared while a model computes another."""
LONG_ROWS = 1024
"""Frames of more rows are written by the log's thread: that takes milliseconds."""
BATCH_S = 0.005
"""How long a batch may be expected to take; neighbours of a large request wait so long."""
INLINE_S = 0.006
"""What is expected to take longer is computed on a thread …"""
WARY = 8
"""… and after a batch that did, so many more that do not, whatever was expected."""
TELL_S = 1.0
"""How often a lane writes to the server's log that a node raised."""
QUEUE_ROWS = 20_000
"""Rows of one endpoint that may wait for their answers."""


class BatchAnswer(msgspec.Struct, frozen=True, gc=False):
    """A batch answered: ids of 16 bytes, the JSON of each prediction, and how each went."""

    ids: list[bytes]
    answers: list[bytes]
    trails: list[RowTrace]
    ways: tuple[tuple[RoutePath, int], ...] = ()  # that rows of the batch went, each with how many


class BatchPredictor(Protocol):
    """What a lane runs its batches through; free of I/O."""

    concurrent: bool  # whether several threads may call it at once; otherwise one at a time

    def answer(
        self, rows: list[Any], entities: list[str | None], ids: list[bytes] | None = None
    ) -> BatchAnswer:
        """
        Answer checked rows, in order; the rows and entities are as many.

        Args:
            rows: Checked rows.
            entities: Whom each is about.
            ids: Of rows that are answered a second time, so that a route chooses
                the same arm; new ones by default.

        Raises:
            InvalidInput: A model refuses rows.
            ModelFailed: A node raised; names the ids, which `failed` logs.
        """

    def failed(self, error: ModelFailed) -> BatchAnswer:
        """Make the answers that the log keeps of rows whose node raised, under its ids."""

    def frame(self, predictions: BatchAnswer, parts: list[LoggedRequest]) -> LoggedBatch:
        """Make the frame of the log that holds answered rows; the parts' rows are as many."""


class FrameLog(Protocol):
    """The prediction log, as `clewline.serve.log.writer.LogWriter` keeps it."""

    def write_now(self, frame: LoggedBatch) -> bool: ...

    def append(self, frame: LoggedBatch, durability: Durability, done: Done) -> None: ...


class PredictCall(msgspec.Struct, eq=False):
    """
    The rows of one request on their way through a lane.

    `done` is called on the loop's thread, once: `answers` then holds the JSON of
    each prediction, or `error` says why there are none.
    """

    rows: list[Any]  # checked, one or more
    part: LoggedRequest  # the request as the log will hold it
    done: Callable[[PredictCall], None]
    abandoned: Callable[[], bool] | None = None  # tells that nobody waits any more
    deadline: float = math.inf  # of `time.perf_counter`; what is not begun by then is not computed
    closed: bool = False  # nothing more of it is computed
    answers: list[bytes] = []
    ids: list[bytes] = []
    trails: list[RowTrace] = []
    partial: list[tuple[int, BatchAnswer]] = []  # answered pieces, each with its first row
    failure: ModelFailed | None = None  # a node raised: the answers are those that are logged
    error: ClewlineError | None = None
    over: bool = False  # `done` was called
    stamps: RequestTimings | None = None  # where somebody traces it
    arrived: float = msgspec.field(default_factory=time.perf_counter)


class _Piece(msgspec.Struct, frozen=True, eq=False):
    """Rows `start` to `stop` of a call, as they stand in the queue or in a batch."""

    call: PredictCall
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    @property
    def is_whole(self) -> bool:
        return self.start == 0 and self.stop == len(self.call.rows)


class _Outcome(msgspec.Struct, frozen=True, eq=False):
    """What became of the pieces that went through one call of the answerer."""

    pieces: list[_Piece]
    result: BatchAnswer | Exception


class Batcher:
    """
    The queue, the batches and the log of one revision. Lives on the loop's thread.

    Args:
        answerer: Answers the batches.
        log: Where the frames go.
        durability: When a frame counts as written.
        threads: Where slow batches are computed.
        times: Where rows and times are counted.
        cost: What batches are known to cost.
        computing: Makes what stands around every call of the answerer, for those who watch.
        queue_rows: So many rows may wait; beyond, calls are refused.
        ref: Whose lane it is, for the server's log.
    """

    def __init__(
        self,
        answerer: BatchPredictor,
        log: FrameLog,
        durability: Durability,
        threads: Executor,
        times: EndpointStatistics,
        *,
        cost: BatchCost | None = None,
        computing: Callable[[], AbstractContextManager[None]] = nullcontext,
        queue_rows: int = QUEUE_ROWS,
        ref: str = "a revision",
    ) -> None:
        self.cost = cost or BatchCost()
        self.rows = 0  # taken in, and not yet answered
        self._answerer = answerer
        self._log = log
        self._durability = durability
        self._threads = threads
        self._times = times
        self._computing = computing
        self._queue_rows = queue_rows
        self._ref = ref
        self._loop = asyncio.get_running_loop()
        self._small: deque[_Piece] = deque()
        self._large: deque[_Piece] = deque()  # of calls of many rows; they hold up no small ones
        self._due = False  # a turn is
        self._in_flight = {False: 0, True: 0}  # batches on threads; of large calls: True
        self._large_is_next = False  # where one batch at a time is computed, they take turns
        self._wary = 0  # batches that go to a thread, since one took long
        self._unlogged = 0  # frames that are with the writer
        self._when_idle: list[Callable[[], None]] = []
        self._told_at = -TELL_S

    def submit(self, call: PredictCall) -> None:
        """
        Take a call; its `done` comes later, never from within.

        Raises:
            Overloaded: The queue is full.
        """
        rows = len(call.rows)
        if self.rows and self.rows + rows > self._queue_rows:
            raise self._overloaded()
        self.rows += rows
        queue = self._large if rows >= LARGE_ROWS else self._small
        queue.append(_Piece(call, 0, rows))
        self._wake()

    def give_up(self, call: PredictCall, error: ClewlineError) -> None:
        """
        Answer a call with an error now.

        What waits of it is not computed. What is being computed just now is
        logged when it was the rest of the call, and reaches nobody.
        """
        call.closed = True
        self._finish(call, error)

    def when_idle(self, then: Callable[[], None]) -> None:
        """Call `then` when nothing waits, is computed or is being logged; at once if so now."""
        if self._is_idle:
            then()
        else:
            self._when_idle.append(then)

    async def drained(self) -> None:
        """Wait until every call that was taken is done."""
        idle: asyncio.Future[None] = self._loop.create_future()
        self.when_idle(lambda: idle.set_result(None))
        await idle

    @property
    def _is_idle(self) -> bool:
        waits = self._small or self._large or self._due
        return not (waits or self._in_flight[False] or self._in_flight[True] or self._unlogged)

    def _wake(self) -> None:
        if not self._due and self._next_queue() is not None:
            self._due = True
            self._loop.call_soon(self._turn)

    def _next_queue(self) -> deque[_Piece] | None:
        """Say from which queue the next batch may come now, if any."""
        small, large = self._in_flight[False], self._in_flight[True]
        if self._answerer.concurrent:
            if self._small and not small:
                return self._small
            return self._large if self._large and large < IN_FLIGHT else None
        if small or large:
            return None
        if self._large and (self._large_is_next or not self._small):
            return self._large
        return self._small or None

    def _turn(self) -> None:
        self._due = False
        queue = self._next_queue()
        if queue is None:
            self._tell_idle()
            return
        is_large = queue is self._large
        self._large_is_next = not is_large
        if pieces := self._next_batch(queue):
            self._begin(pieces, is_large)
        self._wake()
        self._tell_idle()

    def _begin(self, pieces: list[_Piece], is_large: bool) -> None:
        """Compute a batch: here, or on a thread when it takes long or others are there."""
        rows = sum(map(len, pieces))
        slow = is_large or self._wary or self.cost.estimate(rows) > INLINE_S
        if slow or self._in_flight[True] or self._in_flight[False]:
            self._send_off(pieces, rows, is_large)
        else:
            self._computed(rows, *self._compute(pieces))

    def _send_off(self, pieces: list[_Piece], rows: int, is_large: bool) -> None:
        self._in_flight[is_large] += 1
        sharing = sum(self._in_flight.values())  # the model or the processors
        future = self._loop.run_in_executor(self._threads, self._compute, pieces)

        def done(computed: asyncio.Future[tuple[list[_Outcome], float]]) -> None:
            self._in_flight[is_large] -= 1
            outcomes, spent_s = computed.result()
            self._computed(rows, outcomes, spent_s / sharing)
            self._wake()
            self._tell_idle()

        future.add_done_callback(done)

    def _next_batch(self, queue: deque[_Piece]) -> list[_Piece]:
        """Take a piece of each call in turn, until the batch has its rows."""
        room = self._room()
        now = time.perf_counter()
        pieces: list[_Piece] = []
        while queue and room > 0:
            piece = queue.popleft()
            if self._is_over(piece.call, now):
                continue
            if len(piece) > room:
                cut = piece.start + room
                queue.append(_Piece(piece.call, cut, piece.stop))
                piece = _Piece(piece.call, piece.start, cut)
            if piece.start == 0:
                self._times.queue.observe(now - piece.call.arrived)
                if (stamps := piece.call.stamps) is not None:
                    stamps.begun = now
            pieces.append(piece)
            room -= len(piece)
        return pieces

    def _is_over(self, call: PredictCall, now: float) -> bool:
        """Tell whether nothing more of a call is to be computed."""
        if call.closed:
            return True
        if call.abandoned is not None and call.abandoned():
            self.give_up(call, Fault("Nobody waits for the answer."))
        elif call.deadline <= now:
            self.give_up(call, late())
        return call.closed

    def _room(self) -> int:
        """Say how many rows a batch may have."""
        return min(BATCH_ROWS, self.cost.rows_within(BATCH_S))

    def _compute(self, pieces: list[_Piece]) -> tuple[list[_Outcome], float]:
        """Answer a batch; if that fails, each piece by itself, so that only the cause fails."""
        start = time.perf_counter()
        with self._computing():
            outcomes = [self._attempt(pieces)]
            if len(pieces) > 1 and isinstance(failure := outcomes[0].result, Exception):
                outcomes = self._one_by_one(pieces, failure)
        return outcomes, time.perf_counter() - start

    def _one_by_one(self, pieces: list[_Piece], failure: Exception) -> list[_Outcome]:
        known = list(map(id_bytes, failure.ids)) if isinstance(failure, ModelFailed) else []
        outcomes, first = [], 0
        for piece in pieces:
            last = first + len(piece)
            outcomes.append(self._attempt([piece], known[first:last] or None))
            first = last
        return outcomes

    def _attempt(self, pieces: list[_Piece], ids: list[bytes] | None = None) -> _Outcome:
        rows, entities = _gather(pieces)
        try:
            return _Outcome(pieces, self._answerer.answer(rows, entities, ids))
        except InvalidInput as error:  # a level that the model's own encoder refuses
            return _Outcome(pieces, _moved(error, pieces[0].start))
        except Exception as error:
            return _Outcome(pieces, error)

    def _computed(self, rows: int, outcomes: list[_Outcome], spent_s: float) -> None:
        self.cost.observe(rows, spent_s)
        # The estimate forgets slowly; a model that has become slow stalls the loop once.
        if spent_s > INLINE_S:
            self._wary = WARY
        elif self._wary:
            self._wary -= 1
        self._times.compute.observe(spent_s)
        self._times.batch_rows.observe(rows)
        for outcome in outcomes:
            if isinstance(outcome.result, Exception):
                self._failed(outcome.pieces, outcome.result)
            else:
                self._times.record_paths(outcome.result.ways)
                self._hand_out(outcome.pieces, outcome.result)

    def _failed(self, pieces: list[_Piece], error: Exception) -> None:
        """Answer calls with an error; where a node raised, each row gets an id and is logged."""
        if not isinstance(error, InvalidInput):
            self._tell(error)
        if not isinstance(error, ModelFailed):
            self._fail([piece.call for piece in pieces], _explained(error))
            return
        first = 0
        for piece in pieces:
            call, last = piece.call, first + len(piece)
            if not call.closed:
                self._log_failure(call, piece, error, error.ids[first:last])
            first = last

    def _log_failure(
        self, call: PredictCall, piece: _Piece, error: ModelFailed, ids: Sequence[str]
    ) -> None:
        """Log all rows of a call as failed: none of them is answered."""
        call.closed = True
        self._times.failed_rows += len(call.rows)
        every = list(map(id_text, prediction_ids(len(call.rows))))
        every[piece.start : piece.stop] = ids
        for start, answered in call.partial:
            every[start : start + len(answered.ids)] = map(id_text, answered.ids)
        call.failure = ModelFailed(error.message, error.fix, tuple(every))
        made = self._answerer.failed(call.failure)
        call.ids, call.answers, call.trails = made.ids, made.answers, made.trails
        self._write([call])

    def _tell(self, error: Exception) -> None:
        """Write to the server's log why rows could not be answered; not for every batch."""
        now = time.monotonic()
        if now - self._told_at >= TELL_S:
            self._told_at = now
            logger.error("%s: rows could not be answered", self._ref, exc_info=error)

    def _hand_out(self, pieces: list[_Piece], predictions: BatchAnswer) -> None:
        """Give each call its answers. Calls that came whole share a frame of the log."""
        ids, answers, trails = predictions.ids, predictions.answers, predictions.trails
        whole: list[PredictCall] = []
        first = 0
        for piece in pieces:
            call, last = piece.call, first + len(piece)
            if piece.is_whole:
                call.ids, call.answers = ids[first:last], answers[first:last]
                call.trails = trails[first:last]
                whole.append(call)
            elif call.failure is None:
                part = BatchAnswer(ids[first:last], answers[first:last], trails[first:last])
                call.partial.append((piece.start, part))
                if sum(len(part.ids) for _, part in call.partial) == len(call.rows):
                    _join(call)
                    self._write([call])
            first = last
        if whole:
            self._write(whole)

    def _write(self, calls: list[PredictCall]) -> None:
        """Log calls that are wholly answered."""
        ids = [id_ for call in calls for id_ in call.ids]
        answers = [answer for call in calls for answer in call.answers]
        trails = [trail for call in calls for trail in call.trails]
        predictions = BatchAnswer(ids, answers, trails)
        start = time.perf_counter()
        self._unlogged += 1
        try:
            frame = self._answerer.frame(predictions, [call.part for call in calls])
            quick = self._durability == "process" and len(ids) <= LONG_ROWS
            written = quick and self._log.write_now(frame)
            if not written:
                self._log.append(frame, self._durability, self._when_logged(calls, start))
        except Exception as error:  # whatever it is, the lane goes on
            self._logged(calls, start, error)
        else:
            if written:
                self._logged(calls, start, None)

    def _when_logged(self, calls: list[PredictCall], start: float) -> Done:
        def done(error: BaseException | None) -> None:
            self._loop.call_soon_threadsafe(self._logged, calls, start, error)

        return done

    def _logged(self, calls: list[PredictCall], start: float, error: BaseException | None) -> None:
        self._unlogged -= 1
        now = time.perf_counter()
        self._times.log.observe(now - start)
        for call in calls:
            if call.stamps is not None:
                _stamp(call.stamps, call, start, now)
        if error is not None:
            if not isinstance(error, ClewlineError):
                logger.error("%s: a frame could not be logged", self._ref, exc_info=error)
            self._times.unlogged += 1
            self._fail(calls, _explained(error))
        else:
            for call in calls:
                self._finish(call, call.failure)
        self._tell_idle()

    def _fail(self, calls: list[PredictCall], error: ClewlineError) -> None:
        for call in calls:
            call.closed, call.answers, call.partial = True, [], []
            self._finish(call, error)

    def _finish(self, call: PredictCall, error: ClewlineError | None = None) -> None:
        if call.over:
            return
        call.over, call.error = True, error
        self.rows -= len(call.rows)
        if error is None:
            self._times.rows += len(call.rows)
        call.done(call)

    def _tell_idle(self) -> None:
        if self._when_idle and self._is_idle:
            waiting, self._when_idle = self._when_idle, []
            for then in waiting:
                then()

    def _overloaded(self) -> Overloaded:
        wait_s = max(1.0, math.ceil(self.cost.estimate(self.rows)))
        return Overloaded(
            f"{self.rows} rows wait already, and {self._queue_rows} may.",
            f"Try again in {wait_s:.0f} s.",
            retry_after_s=wait_s,
        )


def _join(call: PredictCall) -> None:
    """Put the pieces of a call together; they may have been answered in any order."""
    for _, part in sorted(call.partial, key=itemgetter(0)):
        call.ids += part.ids
        call.answers += part.answers
        call.trails += part.trails
    call.partial = []


def late() -> DeadlineExceeded:
    """Make the error of a caller whose time is over."""
    return DeadlineExceeded(
        "The time for the answer is over.", "Allow more time, or ask for fewer rows at once."
    )


def _stamp(stamps: RequestTimings, call: PredictCall, answered: float, logged: float) -> None:
    stamps.answered, stamps.logged = answered, logged
    stamps.ids, stamps.trails = call.ids, call.trails


def _gather(pieces: list[_Piece]) -> tuple[list[Any], list[str | None]]:
    rows: list[Any] = []
    entities: list[str | None] = []
    for piece in pieces:
        call, about = piece.call, piece.call.part.entities
        rows += call.rows if piece.is_whole else call.rows[piece.start : piece.stop]
        entities += about[piece.start : piece.stop] if about else [None] * len(piece)
    return rows, entities


def _moved(error: InvalidInput, start: int) -> InvalidInput:
    """Count the rows of an error from the start of the call, not of its piece."""
    moved = [msgspec.structs.replace(found, row=found.row + start) for found in error.fields]
    return InvalidInput(error.message, error.fix, tuple(moved))


def _explained(error: BaseException) -> ClewlineError:
    if isinstance(error, ClewlineError):
        return error
    return Fault(
        f"The rows could not be answered: {type(error).__name__}.",
        "The server's log has the reason; it is not in the request.",
    )
