"""
Asks shadows after an answer is computed, so that the answer never waits for them.

    offer ─► small queue ─► a thread ─► compare with the answer ─► .clewline/shadow/

Each endpoint has a queue and a thread of its own, so a shadow that hangs holds up no other
endpoint's. If the queue is full, rows are dropped and counted: under load shadows stop first.
Their answers stand in their own log, under the
ids of the answered rows: for each row one JSON object, shadow → its prediction with
`agrees`, `difference` and `us`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from contextlib import ExitStack
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from clewline.errors import ClewlineError
from clewline.model.runtime import Outputs
from clewline.model.runtime.outputs import take_outputs, take_rows
from clewline.serve.graph.builder import ShadowGroup
from clewline.serve.graph.node import Batch, NodeAnswers
from clewline.serve.loaded_revision import AnswerWriter
from clewline.serve.log.frame import LoggedBatch
from clewline.serve.log.writer import LogWriter
from clewline.serve.metrics.request_statistics import SECONDS, BucketHistogram
from clewline.store.digest import Digest
from clewline.store.ids import id_text
from clewline.store.records import Revision

QUEUE_ROWS = 1024
"""Rows of one endpoint that may wait for its shadows."""
PIECE_ROWS = 64
"""Rows that a shadow answers at once: it may hold a lock of a model that answers too."""
DIFFERENCES = (0.0, 1e-9, 1e-6, 1e-4, 1e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 10.0, 100.0)
SAME = 1e-6
"""Relative difference up to which two numbers agree."""
WARN_S = 60.0

logger = logging.getLogger(__name__)


class ShadowCounts(msgspec.Struct):
    """
    The counts of one shadow of an endpoint, in rows.

    `difference` is the greatest of a row's probabilities, or that of its values;
    `seconds` are of a batch of up to `PIECE_ROWS` rows.
    """

    agreed: int = 0
    differed: int = 0
    dropped: int = 0
    failed: int = 0
    difference: BucketHistogram = msgspec.field(
        default_factory=lambda: BucketHistogram(DIFFERENCES)
    )
    seconds: BucketHistogram = msgspec.field(default_factory=lambda: BucketHistogram(SECONDS))


class _Waiting(msgspec.Struct, frozen=True, eq=False):
    group: ShadowGroup
    batch: Batch
    outputs: Outputs  # what was answered


class _EndpointQueue:
    """What waits for the shadows of one endpoint, and the thread that asks them."""

    def __init__(self) -> None:
        self.rows = 0  # that wait
        # Rows to ask about, groups to close, and None at the end.
        self.items: SimpleQueue[_Waiting | ShadowGroup | None] = SimpleQueue()
        self.thread: threading.Thread


class ShadowRunner:
    """
    Asks the shadows of all endpoints of a server, each endpoint's on a thread of its own.

    `counts` holds, by endpoint and shadow, the counts since the start.

    Args:
        folder: Folder of their log; it is created when it is first needed.
        queue_rows: Rows of an endpoint that may wait.
        closed: Takes the closed files of the log, as `LogWriter` does.
    """

    def __init__(
        self, folder: Path, *, queue_rows: int = QUEUE_ROWS, closed: deque[Path] | None = None
    ) -> None:
        self.counts: dict[tuple[str, str], ShadowCounts] = {}
        self._folder = folder
        self._closed_files = closed
        self._queue_rows = queue_rows
        self._queues: dict[str, _EndpointQueue] = {}
        self._lock = threading.Lock()  # over the queues
        self._opened = ExitStack()
        self._log: LogWriter | None = None
        self._log_lock = threading.Lock()
        self._warned = -WARN_S
        self._closed = False

    def offer(self, group: ShadowGroup, batch: Batch, answers: NodeAnswers) -> None:
        """Ask the shadows about an answered batch, or drop it; never waits."""
        endpoint = group.revision.endpoint
        with self._lock:
            queue = self._queues.get(endpoint)
            waiting = 0 if queue is None else queue.rows
            is_taken = not self._closed and waiting + len(batch.ids) <= self._queue_rows
            if is_taken:
                queue = queue or self._start(endpoint)
                queue.rows += len(batch.ids)
                queue.items.put(_Waiting(group, batch, answers.outputs))
        for name in () if is_taken else group.shadows:
            self.counts_of(endpoint, name).dropped += len(batch.ids)

    def retire(self, group: ShadowGroup) -> None:
        """Close a group after its shadows have answered the rows that wait for them."""
        with self._lock:
            queue = self._queues.get(group.revision.endpoint)
            if not self._closed and queue is not None:
                queue.items.put(group)
                return
        group.close()

    def counts_of(self, endpoint: str, shadow: str) -> ShadowCounts:
        """Get the counts of a shadow."""
        return self.counts.setdefault((endpoint, shadow), ShadowCounts())

    def close(self) -> None:
        """Ask about the waiting rows, then close the log and the threads."""
        with self._lock:
            self._closed = True
            queues = list(self._queues.values())
        for queue in queues:
            queue.items.put(None)
        for queue in queues:
            queue.thread.join()
        self._opened.close()

    def _start(self, endpoint: str) -> _EndpointQueue:
        queue = self._queues[endpoint] = _EndpointQueue()
        queue.thread = threading.Thread(
            target=self._run, args=(endpoint, queue), name="clewline-shadow", daemon=True
        )
        queue.thread.start()
        return queue

    def _run(self, endpoint: str, queue: _EndpointQueue) -> None:
        while (item := queue.items.get()) is not None:
            if isinstance(item, ShadowGroup):
                item.close()
                with self._lock:  # the endpoint may have no shadows any more
                    if queue.items.empty() and not self._closed:
                        del self._queues[endpoint]
                        return
                continue
            group, batch, rows = item.group, item.batch, len(item.batch.ids)
            with self._lock:
                queue.rows -= rows
            for first in range(0, rows, PIECE_ROWS):
                piece = slice(first, min(first + PIECE_ROWS, rows))
                columns = take_rows(batch.columns, piece)
                part = Batch(columns, batch.ids[piece], batch.entities[piece])
                outputs = take_outputs(item.outputs, piece)
                answers = {name: self._one(group, name, part, outputs) for name in group.shadows}
                self._write(group.revision, part.ids, answers)

    def _one(self, group: ShadowGroup, name: str, batch: Batch, outputs: Outputs) -> list[bytes]:
        """Ask one shadow, and return its compared answer to each row as JSON."""
        counts = self.counts_of(group.revision.endpoint, name)
        start = time.perf_counter()
        try:
            answered = group.shadows[name].answer(batch)
            spent_s = time.perf_counter() - start
            rendered = AnswerWriter(group.output).write(batch.ids, answered, ())
            agrees, differences = compare_outputs(outputs, answered.outputs)
        except BaseException as error:  # or no shadow of any endpoint would answer again
            counts.failed += len(batch.ids)
            self._warn(f"the shadow {name} of {group.revision.endpoint} failed", error)
            message = error.message if isinstance(error, ClewlineError) else type(error).__name__
            return [msgspec.json.encode({"error": message})] * len(batch.ids)
        counts.seconds.observe(spent_s)
        counts.agreed += int(agrees.sum())
        counts.differed += int((~agrees).sum())
        for difference in differences[np.isfinite(differences)].tolist():
            counts.difference.observe(difference)
        facts: dict[str, Any] = {"us": round(spent_s * 1e6, 1)}
        found = []
        for answer, agree, difference in zip(rendered, agrees, differences, strict=True):
            facts |= {"agrees": bool(agree), "difference": float(difference)}
            found.append(answer[:-1] + b"," + msgspec.json.encode(facts)[1:])
        return found

    def _write(self, revision: Revision, ids: list[bytes], answers: dict[str, list[bytes]]) -> None:
        lines = []
        for identifier, *texts in zip(ids, *answers.values(), strict=True):
            shadows = dict(zip(answers, map(msgspec.Raw, texts), strict=True))
            lines.append(msgspec.json.encode({"id": id_text(identifier), "shadows": shadows}))
        frame = LoggedBatch(
            ids=b"".join(ids),
            endpoint=revision.endpoint,
            revision=revision.number,
            model="",
            package=Digest(""),
            time=time.time(),
            requests=[],
            answers=lines,
            path=[],
        )

        def when_logged(error: BaseException | None) -> None:
            if error is not None:
                self._warn("the answers of shadows could not be logged", error)

        try:
            log = self._opened_log()
            if not log.write_now(frame):
                log.append(frame, "process", when_logged)
        except ClewlineError as error:
            when_logged(error)

    def _opened_log(self) -> LogWriter:
        with self._log_lock:
            if self._log is None:
                self._log = self._opened.enter_context(
                    LogWriter(self._folder, closed=self._closed_files)
                )
            return self._log

    def _warn(self, what: str, error: BaseException) -> None:
        """Say it in the server's log, once a minute at most: shadows may fail on every row."""
        if time.monotonic() - self._warned >= WARN_S:
            self._warned = time.monotonic()
            logger.warning("%s: %r", what, error, exc_info=error)


def compare_outputs(
    answered: Outputs, shadow: Outputs
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """
    Compare answers with those of a shadow, in the same labels.

    Returns:
        Shape (n,): whether the labels are the same, or the numbers but for a
        millionth of the greatest; and the greatest difference of a row, which is
        0 or 1 where there are labels alone.
    """
    if answered.choices is not None and shadow.choices is not None:
        agrees = answered.choices == shadow.choices
        if answered.probabilities is None or shadow.probabilities is None:
            return agrees, (~agrees).astype(np.float64)
        return agrees, np.abs(answered.probabilities - shadow.probabilities).max(axis=1)
    ours, theirs = _numbers(answered), _numbers(shadow)
    with np.errstate(invalid="ignore"):  # arrays may hold infinity and NaN
        distances = np.abs(ours - theirs)
    distances[(ours == theirs) | (np.isnan(ours) & np.isnan(theirs))] = 0.0
    differences = distances.max(axis=1, initial=0.0)
    sizes = np.maximum(np.abs(ours), np.abs(theirs))
    scale = sizes.max(axis=1, initial=0.0, where=np.isfinite(sizes))
    return differences <= SAME * scale, differences


def _numbers(outputs: Outputs) -> NDArray[np.float64]:
    """Values or arrays as numbers, shape (n, as many as a row has)."""
    found = outputs.values if outputs.values is not None else outputs.tensor
    assert found is not None
    return np.asarray(found, dtype=np.float64).reshape(len(found), -1)
