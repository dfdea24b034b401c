"""The workers of one server, seen from one of them: their health and their metrics."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from clewline.protocols.http.health import Readiness
from clewline.serve.metrics.metric_families import MetricFamily, MetricSample, merge_families
from clewline.serve.metrics.shared_metrics import MetricsSnapshot, SharedMetrics
from clewline.workers.explaining_metrics import before_any_process
from clewline.workers.work_monitor import WorkMonitor
from clewline.workers.worker_table import WorkerState

POLL_S = 0.002
ANSWER_S = 0.6
"""How long other workers may take to write their metrics; then the previous ones count."""

EXIT_REASONS = ("crashed", "hung", "exited", "failed", "killed", "stopped")

Collect = Callable[[], list[MetricFamily]]


class Peers:
    """
    The workers of a server. Lives on the loop's thread of one of them.

    Args:
        monitor: Shows the work of this worker.
        shared: The metrics of every worker.
        number: The slot of this worker.
    """

    def __init__(self, monitor: WorkMonitor, shared: SharedMetrics, number: int) -> None:
        self.monitor = monitor
        self._collect: Collect = list
        self._shared = shared
        self._number = number

    def readiness(self) -> Readiness:
        """Count the workers that answer, and say why the others do not."""
        return self.monitor.table.readiness()

    def beat(self, collect: Collect) -> None:
        """Show that the loop runs, and write the metrics if another worker wants them."""
        self._collect = collect
        slot = self.monitor.slot
        slot.beat_at = time.monotonic()
        if self.monitor.table.wanted > slot.published:
            self.publish(collect())

    def publish(self, own: list[MetricFamily]) -> None:
        """Write the metrics of this worker."""
        slot = self.monitor.slot
        wanted = self.monitor.table.wanted
        self._shared.write(self._number, MetricsSnapshot(slot.generation, own))
        slot.published = wanted

    def answer_bell(self) -> None:
        """Write the metrics at once, because another worker wants them."""
        self._shared.answer_bell(self._number)
        self.beat(self._collect)

    def gather(self, own: list[MetricFamily], then: Callable[[Collect], None]) -> None:
        """
        Merge the metrics of all workers.

        Those of this worker are written first, so that no other worker shows less.

        Args:
            own: The metrics of this worker.
            then: Called on this thread, now or later, with a function that reads and merges
                the metrics of all. It may take milliseconds; any thread may call it.
        """
        table = self.monitor.table
        table.wanted += 1  # two workers that do this at once may share a number
        wanted, until = table.wanted, time.monotonic() + ANSWER_S
        self.publish(own)

        def missing() -> list[int]:
            answering = (WorkerState.READY, WorkerState.STOPPING)
            slots = enumerate(table.slots)
            return [n for n, s in slots if s.state in answering and s.published < wanted]

        def wait() -> None:
            if missing() and time.monotonic() < until:
                asyncio.get_running_loop().call_later(POLL_S, wait)
            else:
                counts = self._worker_counts()
                unseen = [[exits()], before_any_process()]
                then(lambda: [*merge_families([*self._shared.all(), *unseen]), *counts])

        for number in missing():
            self._shared.ring(number)
        wait()

    def _worker_counts(self) -> list[MetricFamily]:
        readiness = self.readiness()
        counts = (
            ("clewline_workers", "Workers that the server should have.", readiness.of),
            ("clewline_workers_ready", "Workers that answer.", readiness.ready),
        )
        return [
            MetricFamily(name, "gauge", help_text, [MetricSample((), [float(value)])])
            for name, help_text, value in counts
        ]


def exits(reason: str | None = None) -> MetricFamily:
    """
    Count one exit of a worker process, or none.

    All reasons are shown before any worker has ended, so that the first exit is seen as a change.
    """
    samples = [MetricSample((("reason", r),), [float(r == reason)]) for r in EXIT_REASONS]
    help_text = "Worker processes that have ended."
    return MetricFamily("clewline_worker_exits_total", "counter", help_text, samples)
