"""
What is counted of endpoints, kept so cheaply that nobody has to turn it off.

    Book ─► Times of an endpoint ─► Histogram of requests, of waiting, of batches …

A batch is counted, not its rows. An endpoint has `EndpointStatistics` from its first load or
call on; beyond `ENDPOINTS` of them, all further ones share one.
"""

from __future__ import annotations

from bisect import bisect_left

from clewline.serve.log.frame import RoutePath

SECONDS = tuple(float(f"{step}e{power}") for power in range(-5, 1) for step in (1, 2, 5))
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
ENDPOINTS = 500
"""Endpoints that are counted each by itself; a scrape of all of them takes some 40 ms."""
ARMS = 64
"""Arms, and nodes, of an endpoint that are counted each by itself."""
OTHERS = "(others)"
"""Under which name the rest is counted together."""


class BucketHistogram:
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


class ArmStatistics:
    """What is counted of the rows that went one way: to an arm of a route, to one model."""

    __slots__ = ("rows", "seconds")

    def __init__(self) -> None:
        self.rows = 0
        self.seconds = BucketHistogram(SECONDS)  # in its nodes, of a batch


class EndpointStatistics:
    """What is counted of one endpoint. Only the loop's thread touches it."""

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
        self.queue = BucketHistogram(SECONDS)  # of a request, until its batch begins
        self.compute = BucketHistogram(SECONDS)  # of a batch
        self.log = BucketHistogram(SECONDS)  # of a frame, until it is durable
        self.batch_rows = BucketHistogram(ROWS)
        self.rows = 0  # predictions answered
        self.failed_rows = 0  # rows whose node raised
        self.unlogged = 0  # frames that the log did not take
        self.nodes: dict[str, BucketHistogram] = {}  # node → seconds of a batch
        self.arms: dict[tuple[str, str], ArmStatistics] = {}  # (arm, model) → what went there

    def answered(self, status: int, seconds: float) -> None:
        """Count a request that has its answer, by the HTTP status that it maps to."""
        histogram = self.requests.get(status)
        if histogram is None:
            histogram = self.requests[status] = BucketHistogram(SECONDS)
        histogram.observe(seconds)

    def asked(self, status: int) -> int:
        """Say how many requests were answered with a status."""
        histogram = self.requests.get(status)
        return 0 if histogram is None else sum(histogram.counts)

    def went(self, ways: tuple[tuple[RoutePath, int], ...]) -> None:
        """Count the ways of a batch, each with how many rows went it."""
        if self.shared:
            return
        if len(ways) == 1 and len(ways[0][0].path) == 1:
            self._went(ways[0][0], ways[0][1])
            name, spent_us = ways[0][0].path[0]
            self._node(name).observe(spent_us / 1e6)
            return
        nodes: dict[str, float] = {}
        for way, rows in ways:
            self._went(way, rows)
            nodes.update(way.path)  # of a batch, whichever ways lead through it
        for name, spent_us in nodes.items():
            self._node(name).observe(spent_us / 1e6)

    def _went(self, way: RoutePath, rows: int) -> None:
        arm = self.arms.get((way.arm, way.model))
        if arm is None:
            key = (way.arm, way.model) if len(self.arms) < ARMS else (OTHERS, "")
            arm = self.arms.setdefault(key, ArmStatistics())
        arm.rows += rows
        arm.seconds.observe(sum([spent_us for _, spent_us in way.path]) / 1e6)

    def _node(self, name: str) -> BucketHistogram:
        histogram = self.nodes.get(name)
        if histogram is None:
            key = name if len(self.nodes) < ARMS else OTHERS
            histogram = self.nodes.setdefault(key, BucketHistogram(SECONDS))
        return histogram


class RequestStatistics:
    """
    The `EndpointStatistics` of the endpoints of a server.

    Args:
        endpoints: So many have their own; further ones share.
    """

    def __init__(self, endpoints: int = ENDPOINTS) -> None:
        self.others = EndpointStatistics(shared=True)
        self._endpoints = endpoints
        self._opened = 0

    def open(self) -> EndpointStatistics:
        """Give an endpoint what it is counted in, from now to the end of the process."""
        if self._opened >= self._endpoints:
            return self.others
        self._opened += 1
        return EndpointStatistics()


class LoadStatistics:
    """What is counted of loading revisions. Only the loop's thread touches it."""

    __slots__ = ("cold_calls", "evictions", "failed", "seconds")

    def __init__(self) -> None:
        self.seconds = BucketHistogram(SECONDS)  # of a load, whether it succeeds or not
        self.failed = 0  # loads that failed
        self.cold_calls = 0  # requests that had to wait for a load
        self.evictions = 0  # revisions that made room for others
