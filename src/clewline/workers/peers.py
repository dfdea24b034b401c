"""One worker among the others of its server: what it shows them, and what it reads of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from clewline.protocols.health import Readiness
from clewline.serve.metrics.shared_metrics import (
    NO_EXITS,
    MetricFamily,
    MetricSample,
    MetricsSnapshot,
    SharedMetrics,
    merge_families,
)
from clewline.workers.work_monitor import WorkMonitor
from clewline.workers.worker_table import WorkerState

POLL_S = 0.002
ANSWER_S = 0.6
"""How long the other workers have to write down their metrics; then the last ones stand."""

ANSWERING = (WorkerState.READY, WorkerState.STOPPING)

Collect = Callable[[], list[MetricFamily]]


class Peers:
    """
    The workers of a server, seen from one of them. Lives on the loop's thread.

    Args:
        watched: This worker on the board.
        shelf: Where every worker leaves its metrics.
        number: This worker's slot.
    """

    def __init__(self, watched: WorkMonitor, shelf: SharedMetrics, number: int) -> None:
        self._collect: Collect = list
        self.watched = watched
        self._shelf = shelf
        self._number = number
        self._board = watched.board

    def readiness(self) -> Readiness:
        """Tell how many workers answer, and why the others do not."""
        return self.watched.readiness()

    def beat(self, collect: Collect) -> None:
        """Say that the loop runs, and write down the metrics if another worker wants them."""
        self._collect = collect
        self.watched.slot.beat(time.monotonic())
        if self._board.asked > self.watched.slot.published:
            self.publish(collect())

    def publish(self, own: list[MetricFamily]) -> None:
        """Write down this worker's metrics."""
        slot = self.watched.slot
        asked = self._board.asked
        self._shelf.put(self._number, MetricsSnapshot(slot.generation, own))
        slot.publish(asked)

    def wake(self) -> None:
        """Write down the metrics at once: the bell was rung."""
        self._shelf.hear(self._number)
        self.beat(self._collect)

    def gather(self, own: list[MetricFamily], then: Callable[[Collect], None]) -> None:
        """
        Merge the metrics of all workers.

        What is given out is written down first, so that no other worker gives out less.

        Args:
            own: This worker's, as they are now.
            then: Called, now or later, on this thread, with what reads and merges them all:
                on whichever thread, since it takes milliseconds where there are many.
        """
        asked = self._board.ask()
        self.publish(own)
        for number, slot in enumerate(self._board.slots):
            if slot.state in ANSWERING and slot.published < asked:
                self._shelf.ring(number)
        self._wait(asked, time.monotonic() + ANSWER_S, then)

    def _wait(self, asked: int, until: float, then: Callable[[Collect], None]) -> None:
        missing = any(
            slot.state in ANSWERING and slot.published < asked for slot in self._board.slots
        )
        if missing and time.monotonic() < until:
            asyncio.get_running_loop().call_later(POLL_S, self._wait, asked, until, then)
        else:
            workers = self._workers()
            then(lambda: [*merge_families([*self._shelf.all(), [NO_EXITS]]), *workers])

    def _workers(self) -> list[MetricFamily]:
        team = self.readiness()
        return [
            _gauge("clewline_workers", "Workers that the server should have.", team.of),
            _gauge("clewline_workers_ready", "Workers that answer.", team.ready),
        ]


def _gauge(name: str, help_text: str, value: float) -> MetricFamily:
    return MetricFamily(name, "gauge", help_text, [MetricSample((), [float(value)])])
