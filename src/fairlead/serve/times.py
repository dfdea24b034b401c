"""Counts and times of one endpoint, kept so cheaply that nobody has to turn them off."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter

SECONDS = tuple(float(f"{step}e{power}") for power in range(-5, 1) for step in (1, 2, 5))
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class Histogram:
    """How many observations fell under each bound, and their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)  # the last: above every bound
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one observation."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class Times:
    """What is counted of one endpoint. Only the loop's thread touches it."""

    __slots__ = ("batch_rows", "compute", "log", "queue", "request", "rows", "statuses")

    def __init__(self) -> None:
        self.request = Histogram(SECONDS)  # from the whole request to its answer
        self.queue = Histogram(SECONDS)  # of a request, until its batch begins
        self.compute = Histogram(SECONDS)  # of a batch
        self.log = Histogram(SECONDS)  # of a frame, until it is durable
        self.batch_rows = Histogram(ROWS)
        self.rows = 0  # predictions answered
        self.statuses: Counter[int] = Counter()  # requests by HTTP status


class Loads:
    """What is counted of loading revisions. Only the loop's thread touches it."""

    __slots__ = ("cold_calls", "evictions", "failed", "seconds")

    def __init__(self) -> None:
        self.seconds = Histogram(SECONDS)  # of a load, whether it succeeds or not
        self.failed = 0  # loads that failed
        self.cold_calls = 0  # requests that had to wait for a load
        self.evictions = 0  # revisions that made room for others
