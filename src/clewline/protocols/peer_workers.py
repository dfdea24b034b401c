"""What a worker knows of its peers. Imports little, as the supervisor imports it too."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from clewline.serve.metrics.metric_families import MetricFamily


class Readiness(NamedTuple):
    """How many workers answer, of how many, and why the others do not."""

    ready: int
    of: int
    reasons: tuple[str, ...] = ()


class PeerWorkers(Protocol):
    """The workers of a server that has a supervisor."""

    def readiness(self) -> Readiness:
        """Count the workers that answer."""

    def gather(
        self, own: list[MetricFamily], then: Callable[[Callable[[], list[MetricFamily]]], None]
    ) -> None:
        """Call `then`, on this thread, with a function that merges the metrics of all workers."""
