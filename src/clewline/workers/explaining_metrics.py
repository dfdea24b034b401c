"""The metrics of the explaining process."""

from __future__ import annotations

from collections import Counter

from clewline.serve.metrics.metric_families import MetricFamily, MetricSample
from clewline.serve.metrics.request_statistics import SECONDS, BucketHistogram

EXIT_REASONS = ("idle", "crashed", "killed", "limit", "failed")


class ExplanationStatistics:
    """What one explaining process has done."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, str, str]] = Counter()
        self.waiting = 0  # in the background
        self._seconds: dict[str, BucketHistogram] = {}

    def count(self, trigger: str, kind: str, outcome: str, seconds: float) -> None:
        """Count an explanation that a `request` or the `background` wanted, by its outcome."""
        self._counts[trigger, kind, outcome] += 1
        if kind not in self._seconds:
            self._seconds[kind] = BucketHistogram(SECONDS)
        self._seconds[kind].observe(seconds)

    def skip(self, count: int) -> None:
        """Count predictions that were too many to be explained in the background."""
        self._counts["background", "", "skipped"] += count

    def families(self) -> list[MetricFamily]:
        """Return the counts and times, as metrics."""
        counts = [
            MetricSample(
                (("trigger", trigger), ("kind", kind), ("outcome", outcome)), [float(count)]
            )
            for (trigger, kind, outcome), count in self._counts.items()
        ]
        waiting = [MetricSample((), [float(self.waiting)])]
        times = [
            MetricSample((("kind", kind),), [*map(float, each.counts), each.total])
            for kind, each in self._seconds.items()
        ]
        about = "Explanations, by who wanted them and what became of them."
        name, text = "clewline_explanation_seconds", "Time of the explaining process for one."
        return [
            MetricFamily("clewline_explanations_total", "counter", about, counts),
            MetricFamily(name, "histogram", text, times, SECONDS),
            MetricFamily(
                "clewline_explanations_waiting",
                "gauge",
                "Predictions that wait to be explained in the background.",
                waiting,
            ),
        ]


def explaining_exits(reason: str | None = None) -> MetricFamily:
    """
    Count one exit of an explaining process, or none.

    All reasons are shown before any process has ended, so that the first exit is seen.
    """
    samples = [MetricSample((("reason", r),), [float(r == reason)]) for r in EXIT_REASONS]
    name, text = "clewline_explaining_exits_total", "Explaining processes that have ended."
    return MetricFamily(name, "counter", text, samples)


def before_any_process() -> list[MetricFamily]:
    """Return the metrics as they are before the first explaining process has started."""
    return [*ExplanationStatistics().families(), explaining_exits()]
