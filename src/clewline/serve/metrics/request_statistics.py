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
    """The number of observations up to each bound, and the sum of all."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: tuple[float, ...] = SECONDS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)  # the last: above every bound
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one observation."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value


class ArmStatistics:
    """The rows that took one arm of a route to one model."""

    __slots__ = ("rows", "seconds")

    def __init__(self) -> None:
        self.rows = 0
        self.seconds = BucketHistogram()  # in the nodes on the way, per batch


class EndpointStatistics:
    """The statistics of one endpoint. Only the loop's thread changes them."""

    __slots__ = (
        "arms",
        "batch_rows",
        "compute",
        "failed_rows",
        "log",
        "nodes",
        "queue",
        "requests",
        "rows",
        "shared",
        "unlogged",
    )

    def __init__(self, *, shared: bool = False) -> None:
        self.shared = shared  # by several endpoints
        self.requests: dict[int, BucketHistogram] = {}  # HTTP status → seconds to the answer
        self.queue = BucketHistogram()  # of a request, until its batch begins
        self.compute = BucketHistogram()  # of a batch
        self.log = BucketHistogram()  # of a batch, until it is durable
        self.batch_rows = BucketHistogram(ROWS)
        self.rows = 0  # predictions answered
        self.failed_rows = 0  # rows for which a node raised
        self.unlogged = 0  # batches that could not be logged
        self.nodes: dict[str, BucketHistogram] = {}  # node → seconds per batch
        self.arms: dict[tuple[str, str], ArmStatistics] = {}  # by (arm, model)

    def record_request(self, status: int, seconds: float) -> None:
        """Count an answered request under its HTTP status."""
        histogram = self.requests.get(status)
        if histogram is None:
            histogram = self.requests[status] = BucketHistogram()
        histogram.observe(seconds)

    def record_paths(self, paths: tuple[tuple[RoutePath, int], ...]) -> None:
        """Count a batch: the paths that its rows took, and how many rows took each."""
        if self.shared:
            return
        nodes: dict[str, float] = {}
        for path, rows in paths:
            arm = self.arms.get((path.arm, path.model))
            if arm is None:
                key = (path.arm, path.model) if len(self.arms) < ARMS else (OTHERS, "")
                arm = self.arms.setdefault(key, ArmStatistics())
            arm.rows += rows
            arm.seconds.observe(sum([spent_us for _, spent_us in path.path]) / 1e6)
            nodes.update(path.path)  # a node's time is of the batch, whichever paths cross it
        for name, spent_us in nodes.items():
            node = self.nodes.get(name)
            if node is None:
                name = name if len(self.nodes) < ARMS else OTHERS
                node = self.nodes.setdefault(name, BucketHistogram())
            node.observe(spent_us / 1e6)


class RequestStatistics:
    """
    The statistics of all endpoints of a server.

    Args:
        endpoints: Number of endpoints with statistics of their own; further ones share.
    """

    def __init__(self, endpoints: int = ENDPOINTS) -> None:
        self.others = EndpointStatistics(shared=True)
        self._unused = endpoints

    def for_new_endpoint(self) -> EndpointStatistics:
        """Return the statistics in which a further endpoint is counted until the process ends."""
        if not self._unused:
            return self.others
        self._unused -= 1
        return EndpointStatistics()


class LoadStatistics:
    """Counts of revisions that were loaded. Only the loop's thread changes them."""

    __slots__ = ("cold_calls", "evictions", "failed", "seconds")

    def __init__(self) -> None:
        self.seconds = BucketHistogram()  # of a load, whether it succeeds or not
        self.failed = 0  # loads that failed
        self.cold_calls = 0  # requests that had to wait for a load
        self.evictions = 0  # revisions that made room for others
