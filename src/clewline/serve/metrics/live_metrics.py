"""
What a server's metrics say of its endpoints: counts at one moment, and rates between two.

A graph over time, a list of endpoints and a command read the same text that Prometheus reads.
"""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Sequence
from itertools import pairwise

import msgspec

POINTS = 300
"""Intervals that a history holds."""

_LINE = re.compile(r"(clewline_\w+|process_start_time_seconds)(?:\{(.*)\})? (\S+)")
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_ESCAPE = re.compile(r"\\(.)")
_READ = (
    "clewline_requests_total",
    "clewline_request_seconds_bucket",
    "clewline_predictions_total",
    "clewline_failed_rows_total",
    "clewline_batch_rows_",
    "clewline_arm_rows_total",
    "clewline_node_seconds_",
    "clewline_live_revision",
    "clewline_endpoint_ready",
    "clewline_waiting_rows",
    "clewline_workers",
    "clewline_certificate_expires_timestamp_seconds",
    "process_start_time_seconds",
)
_OF_SERVER = {
    "process_start_time_seconds": "started",
    "clewline_workers": "workers",
    "clewline_workers_ready": "workers_ready",
    "clewline_certificate_expires_timestamp_seconds": "certificate_ends",
}


class EndpointCounts(msgspec.Struct, kw_only=True):
    """What was counted of an endpoint since its server started."""

    requests: dict[int, float] = {}  # HTTP status → requests
    answered: dict[float, float] = {}  # seconds → requests that took no longer
    rows: float = 0.0
    failed_rows: float = 0.0
    batches: float = 0.0
    batch_rows: float = 0.0  # in all batches together
    arms: dict[str, float] = {}  # arm → rows; without a route under the empty name
    node_seconds: dict[str, float] = {}
    node_batches: dict[str, float] = {}
    waiting_rows: float = 0.0
    revision: int | None = None  # the live one
    is_ready: bool | None = None


class ServerCounts(msgspec.Struct, kw_only=True):
    """What was counted by a server at one moment."""

    time: float  # seconds since the epoch
    started: float = 0.0  # of the oldest worker
    workers: float = 0.0  # that there should be
    workers_ready: float = 0.0
    certificate_ends: float | None = None  # seconds since the epoch; None without TLS
    endpoints: dict[str, EndpointCounts] = {}


class EndpointRates(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What an endpoint did in an interval. Rates are per second."""

    requests: float = 0.0
    errors: float = 0.0  # requests that ended with a status of 500 or more
    refused: float = 0.0  # requests that ended with a status from 400 to 499
    rows: float = 0.0
    failed_rows: float = 0.0
    p50_s: float | None = None  # None without a request
    p90_s: float | None = None
    p99_s: float | None = None
    batch_rows: float | None = None  # in a batch, on average
    arms: tuple[tuple[str, float], ...] = ()  # arm and rows


IDLE = EndpointRates()


def read_counts(text: str, time_s: float) -> ServerCounts:
    """
    Read the metrics of a server; what belongs to no endpoint is left out.

    Args:
        text: In the text format of Prometheus, as `GET /metrics` answers.
        time_s: When it was read, in seconds since the epoch.
    """
    found = ServerCounts(time=time_s)
    for line in text.splitlines():
        if not line.startswith(_READ):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            continue
        name, value = match[1], float(match[3])
        if name in _OF_SERVER:
            setattr(found, _OF_SERVER[name], value)
            continue
        labels = {key: _unescaped(text) for key, text in _LABEL.findall(match[2] or "")}
        of = found.endpoints.setdefault(labels.get("endpoint", ""), EndpointCounts())
        match name.removeprefix("clewline_"):
            case "requests_total":
                of.requests[int(labels["code"])] = value
            case "request_seconds_bucket":
                bound = float(labels["le"])
                of.answered[bound] = of.answered.get(bound, 0.0) + value
            case "predictions_total":
                of.rows = value
            case "failed_rows_total":
                of.failed_rows = value
            case "batch_rows_sum":
                of.batch_rows = value
            case "batch_rows_count":
                of.batches = value
            case "arm_rows_total":
                of.arms[labels["arm"]] = of.arms.get(labels["arm"], 0.0) + value
            case "node_seconds_sum":
                of.node_seconds[labels["node"]] = value
            case "node_seconds_count":
                of.node_batches[labels["node"]] = value
            case "waiting_rows":
                of.waiting_rows = value
            case "live_revision":
                of.revision = int(value)
            case "endpoint_ready":
                of.is_ready = value == 1
    return found


def _unescaped(text: str) -> str:
    return _ESCAPE.sub(lambda match: "\n" if match[1] == "n" else match[1], text)


def rates_between(
    before: EndpointCounts, after: EndpointCounts, seconds: float
) -> EndpointRates | None:
    """
    Return what an endpoint did between two moments.

    Returns:
        The rates; None if the server has started anew meanwhile, so that its counts began again.
    """
    if seconds <= 0 or after.rows < before.rows or _total(after) < _total(before):
        return None
    by_status = {code: n - before.requests.get(code, 0.0) for code, n in after.requests.items()}
    requests = sum(by_status.values())
    if not requests and after.rows == before.rows:
        return IDLE
    answered = [
        (bound, count - before.answered.get(bound, 0.0))
        for bound, count in sorted(after.answered.items())
    ]
    batches = after.batches - before.batches
    arms = {arm: (rows - before.arms.get(arm, 0.0)) / seconds for arm, rows in after.arms.items()}
    return EndpointRates(
        requests=requests / seconds,
        errors=sum(n for code, n in by_status.items() if code >= 500) / seconds,
        refused=sum(n for code, n in by_status.items() if 400 <= code < 500) / seconds,
        rows=(after.rows - before.rows) / seconds,
        failed_rows=(after.failed_rows - before.failed_rows) / seconds,
        p50_s=bucket_quantile(answered, 0.5),
        p90_s=bucket_quantile(answered, 0.9),
        p99_s=bucket_quantile(answered, 0.99),
        batch_rows=(after.batch_rows - before.batch_rows) / batches if batches > 0 else None,
        arms=tuple(arms.items()) if len(arms) > 1 else (),
    )


def _total(counts: EndpointCounts) -> float:
    return sum(counts.requests.values())


def bucket_quantile(buckets: Sequence[tuple[float, float]], share: float) -> float | None:
    """
    Estimate a quantile from cumulative counts, in a straight line within a bucket.

    Args:
        buckets: Upper bounds, ascending, with the observations up to each; the last is infinite.
        share: The quantile, in (0, 1).

    Returns:
        The estimate; the largest finite bound if it lies above; None without observations.

    Source:
        Prometheus, `histogram_quantile`.

    >>> bucket_quantile([(0.1, 5), (0.2, 10), (float("inf"), 10)], 0.75)
    0.15000000000000002
    """
    if not buckets or buckets[-1][1] <= 0:
        return None
    rank = share * buckets[-1][1]
    for (low, below), (high, up_to) in pairwise([(0.0, 0.0), *buckets]):
        if up_to >= rank:
            if high == float("inf"):
                return low
            return low + (high - low) * (rank - below) / (up_to - below)
    return None


class MetricsHistory:
    """
    The rates of all endpoints over the last intervals. May be used from any thread.

    An interval in which the server did not answer, or started anew, has no rates.

    Args:
        points: Number of intervals that are kept.
    """

    def __init__(self, points: int = POINTS) -> None:
        self.version = 0  # number of the intervals so far
        self.latest: ServerCounts | None = None  # None while the server does not answer
        self._lock = threading.Lock()
        self._times: deque[float] = deque(maxlen=points)
        self._rates: dict[str, deque[EndpointRates | None]] = {}

    def add(self, counts: ServerCounts) -> None:
        """Add what was counted by now."""
        with self._lock:
            before, self.latest = self.latest, counts
            if before is None:
                return
            rates: dict[str, EndpointRates | None] = {}
            for name, after in counts.endpoints.items():
                earlier = before.endpoints.get(name, EndpointCounts())
                rates[name] = rates_between(earlier, after, counts.time - before.time)
            self._append(counts.time, rates)

    def add_failure(self, time_s: float) -> None:
        """Add that the server did not answer."""
        with self._lock:
            self.latest = None
            self._append(time_s, {})

    def _append(self, time_s: float, rates: dict[str, EndpointRates | None]) -> None:
        earlier = len(self._times)
        self._times.append(time_s)
        self.version += 1
        for name in rates.keys() - self._rates.keys():
            self._rates[name] = deque([None] * earlier, maxlen=self._times.maxlen)
        for name, known in self._rates.items():
            known.append(rates.get(name))

    def of(self, endpoint: str) -> list[tuple[float, EndpointRates | None]]:
        """Return the ends of the intervals, oldest first, with the rates of an endpoint."""
        with self._lock:
            known = self._rates.get(endpoint) or [None] * len(self._times)
            return list(zip(self._times, known, strict=False))
