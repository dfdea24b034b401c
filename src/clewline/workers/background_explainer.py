"""Explains predictions of the log while nobody asks the explaining process for anything."""

from __future__ import annotations

import logging
import math
import sqlite3
import time
from collections.abc import Callable

from clewline.errors import ClewlineError, Overloaded, StoreFull, StoreReadOnly
from clewline.explain.background import (
    ATTEMPTS,
    BackgroundQueue,
    LogFollower,
    WaitingPrediction,
    first_hour,
)
from clewline.explain.explain_prediction import PredictionExplainer
from clewline.project import Project
from clewline.workers.explaining_metrics import ExplanationStatistics
from clewline.workers.work_watcher import WorkWatcher, lacks_memory

logger = logging.getLogger("clewline.workers.explaining")

LOOK_S = 0.5
"""Time between two looks at the log."""
PAUSE_S = 10.0
"""Time until it is tried again, when the disk is full or another process follows the log."""


class BackgroundExplainer:
    """
    Follows the log of a project, and explains what the rules of endpoints match.

    Args:
        project: Has the log and the catalog.
        explainer: Explains, and stores what it finds.
        watcher: Ends the process at its limits.
        statistics: Counts what was done.
        publish: Makes the statistics visible.
    """

    def __init__(
        self,
        project: Project,
        explainer: PredictionExplainer,
        watcher: WorkWatcher,
        statistics: ExplanationStatistics,
        publish: Callable[[], None],
    ) -> None:
        self._project, self._explainer, self._watcher = project, explainer, watcher
        self._statistics, self._publish = statistics, publish
        self._queue: BackgroundQueue | None = None
        self._follower: LogFollower
        self._next_look = 0.0
        self._paused_until = 0.0

    @property
    def wait_s(self) -> float | None:
        """How long until it wants to look at the log; None: not before the bell is rung."""
        return None if self._queue is None else max(0.0, self._next_look - time.monotonic())

    def step(self) -> bool:
        """Look at the log or explain one prediction; return False if there was nothing to do."""
        now = time.monotonic()
        if now < self._paused_until:
            return False
        try:
            if self._queue is None and not self._open():
                return False
            assert self._queue is not None, "it was opened"
            frames = self._look() if now >= self._next_look else 0
            one = self._queue.newest()
            if one is not None:
                self._explain(self._queue, one)
            return frames > 0 or one is not None
        except (sqlite3.Error, OSError, ClewlineError) as error:
            logger.warning("explaining in the background pauses for %.0f s: %s", PAUSE_S, error)
            self._pause()
            return False

    def _open(self) -> bool:
        """Open the queue, if there is something to follow and no other process does."""
        first = first_hour(self._project)
        if first is None and not self._project.explain_queue.exists():
            self._paused_until = math.inf  # until a worker rings, because a rule has gone live
            return False
        try:
            self._queue = BackgroundQueue(self._project)
        except BlockingIOError:
            self._pause()
            return False
        if self._queue.start is None and first is not None:
            self._queue.move_start(first)
        self._follower = LogFollower(self._project, self._queue)
        return True

    def _pause(self) -> None:
        self._paused_until = time.monotonic() + PAUSE_S
        if self._queue is not None:
            self._queue.close()
            self._queue = None

    def wake(self) -> None:
        """Look at the log at once: the bell was rung."""
        if self._queue is None:
            self._paused_until = 0.0
        self._next_look = 0.0

    def _look(self) -> int:
        assert self._queue is not None, "it was opened"
        before = self._follower.skipped
        frames = self._follower.look()
        self._statistics.skip(self._follower.skipped - before)
        self._next_look = time.monotonic() + LOOK_S
        if waiting := self._queue.waiting or self._statistics.waiting:
            self._statistics.waiting = waiting
            self._publish()
        return frames

    def _explain(self, queue: BackgroundQueue, one: WaitingPrediction) -> None:
        """Explain a prediction, or record why that cannot be done."""
        started, outcome, failure = time.monotonic(), "failed", None
        if one.attempts >= ATTEMPTS:
            failure = (
                f"The explaining process ended {one.attempts} times while it explained this: the "
                "model crashes it, or needs too much time or memory."
            )
        else:
            queue.begin(one)
            try:
                with self._watcher.watch(one.id):
                    found = self._explainer.explain(one.id, one.kind, one.options, only_given=True)
            except (StoreFull, StoreReadOnly, Overloaded):
                queue.postpone(one)
                raise
            except Exception as error:  # a user's model may raise anything
                failure = str(error) or type(error).__name__
                if lacks_memory(error):
                    queue.finish(one, failure)
                    self._watcher.end_process()
            else:
                outcome = "made" if found.is_new else "stored"
                if not found.is_kept:
                    queue.postpone(one)
                    raise StoreFull(found.note)
        if failure is not None:
            logger.warning("%s is not explained by %s: %s", one.id, one.kind, failure)
        queue.finish(one, failure)
        self._statistics.count("background", one.kind, outcome, time.monotonic() - started)
        self._statistics.waiting = queue.waiting
        self._publish()
