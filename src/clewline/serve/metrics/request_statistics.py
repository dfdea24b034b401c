"""
Counts and histograms of endpoints, kept so cheaply that nobody has to turn them off.

A batch is counted, not its rows. An endpoint has statistics of its own from its
first load or call on; beyond `ENDPOINTS` of them, all further ones share one.
"""

from __future__ import annotations

from bisect import bisect_left

from clewline.serve.log.frame import RoutePath

SECONDS = tuple(float(f"{step}e{power}") for power in range(-5, 1) for step in (1, 2, 5))
ROWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0)
ENDPOINTS = 500
"""Endpoints with statistics of their own. One scrape of all of them takes some 80 ms."""
ARMS = 64
"""Arms, and nodes, of one endpoint with statistics of their own."""
OTHERS = "(others)"
"""The name under which the rest is counted together."""


class BucketHistogram:
    """
    The number of observations up to each bound, and the sum of all.

    `observe` only appends to a list, because it runs for every request. Observations are
    sorted into buckets when somebody reads them, and by `fold`.
    """

    __slots__ = ("_counts", "_pending", "_total", "bounds", "observe")

    def __init__(self, bounds: tuple[float, ...] = SECONDS) -> None:
        self.bounds = bounds
        self._counts = [0] * (len(bounds) + 1)  # the last: above every bound
        self._total = 0.0
        self._pending: list[float] = []
        self.observe = self._pending.append

    @property
    def counts(self) -> list[int]:
        """The observations in each bucket: up to its bound; the last above every bound."""
        self.fold()
        return self._counts

    @property
    def total(self) -> float:
        """The sum of all observations."""
        self.fold()
        return self._total

    def fold(self) -> None:
        """Sort the latest observations into their buckets."""
        for value in self._pending:
            self._counts[bisect_left(self.bounds, value)] += 1
        self._total += sum(self._pending)
        self._pending.clear()


class ArmStatistics:
    """The rows that took one arm of a route to one model."""

    __slots__ = ("rows", "seconds")

    def __init__(self) -> None:
        self.rows = 0
        self.seconds = BucketHistogram()  # in the nodes on the way, per batch


class EndpointStatistics:
    """
    The statistics of one endpoint. Only the loop's thread changes them.

    Requests and batches are counted by `record_request((status, seconds))` and
    `record_paths(paths)`, which only append; `fold` counts them, some times a second.
    """

    __slots__ = (
        "_arms",
        "_nodes",
        "_paths",
        "_requests",
        "_statuses",
        "batch_rows",
        "compute",
        "failed_rows",
        "log",
        "queue",
        "record_paths",
        "record_request",
        "rows",
        "shared",
        "tried_rows",
        "unlogged",
    )

    def __init__(self, *, shared: bool = False) -> None:
        self.shared = shared  # by several endpoints
        self.queue = BucketHistogram()  # of a request, until its batch begins
        self.compute = BucketHistogram()  # of a batch
        self.log = BucketHistogram()  # of a batch, until it is durable
        self.batch_rows = BucketHistogram(ROWS)
        self.rows = 0  # predictions answered
        self.failed_rows = 0  # rows for which a node raised
        self.tried_rows = 0  # answered beside these, made up by somebody to see the answer
        self.unlogged = 0  # batches that could not be logged
        self._statuses: dict[int, BucketHistogram] = {}
        self._nodes: dict[str, BucketHistogram] = {}
        self._arms: dict[tuple[str, str], ArmStatistics] = {}
        self._requests: list[tuple[int, float]] = []  # not counted yet
        self._paths: list[tuple[tuple[RoutePath, int], ...]] = []  # not counted yet
        self.record_request = self._requests.append
        """Count an answered request: its HTTP status, and the seconds to its answer."""
        self.record_paths = self._paths.append
        """Count a batch: the paths that its rows took, each with its number of rows."""

    @property
    def requests(self) -> dict[int, BucketHistogram]:
        """Seconds to the answer, by HTTP status."""
        self.fold()
        return self._statuses

    @property
    def nodes(self) -> dict[str, BucketHistogram]:
        """Seconds of a batch, by node."""
        self.fold()
        return self._nodes

    @property
    def arms(self) -> dict[tuple[str, str], ArmStatistics]:
        """Rows and seconds by (arm, model)."""
        self.fold()
        return self._arms

    def fold(self) -> None:
        """Count the latest requests and batches."""
        for histogram in (self.queue, self.compute, self.log, self.batch_rows):
            histogram.fold()
        for status, seconds in self._requests:
            self._statuses.setdefault(status, BucketHistogram()).observe(seconds)
        self._requests.clear()
        for paths in () if self.shared else self._paths:
            nodes: dict[str, float] = {}
            for path, rows in paths:
                arm = self._arms.get((path.arm, path.model))
                if arm is None:
                    key = (path.arm, path.model) if len(self._arms) < ARMS else (OTHERS, "")
                    arm = self._arms.setdefault(key, ArmStatistics())
                arm.rows += rows
                arm.seconds.observe(sum([spent_us for _, spent_us in path.path]) / 1e6)
                nodes.update(path.path)  # a node's time is of the batch, whichever paths cross it
            for name, spent_us in nodes.items():
                known = name if name in self._nodes or len(self._nodes) < ARMS else OTHERS
                self._nodes.setdefault(known, BucketHistogram()).observe(spent_us / 1e6)
        self._paths.clear()


class RequestStatistics:
    """
    The statistics of all endpoints of a server.

    Args:
        endpoints: Number of endpoints with statistics of their own; further ones share.
    """

    def __init__(self, endpoints: int = ENDPOINTS) -> None:
        self.others = EndpointStatistics(shared=True)
        self._own: list[EndpointStatistics] = []
        self._endpoints = endpoints

    def for_new_endpoint(self) -> EndpointStatistics:
        """Return the statistics in which a further endpoint is counted until the process ends."""
        if len(self._own) >= self._endpoints:
            return self.others
        self._own.append(EndpointStatistics())
        return self._own[-1]

    def fold(self) -> None:
        """Count the latest requests and batches, so that they take no more memory."""
        for statistics in (self.others, *self._own):
            statistics.fold()


class LoadStatistics:
    """Counts of revisions that were loaded. Only the loop's thread changes them."""

    __slots__ = ("cold_calls", "evictions", "failed", "seconds")

    def __init__(self) -> None:
        self.seconds = BucketHistogram()  # of a load, whether it succeeds or not
        self.failed = 0  # loads that failed
        self.cold_calls = 0  # requests that had to wait for a load
        self.evictions = 0  # revisions that made room for others
