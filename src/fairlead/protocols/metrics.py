"""
`/metrics`, for Prometheus. `docs/metrics.md` says what each name means.

Queue, compute and log time stand apart, so that a slow answer names its cause.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from fairlead.protocols.families import Family, Sample
from fairlead.serve.endpoints import Endpoint
from fairlead.serve.times import Histogram

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"

HISTOGRAMS = {
    "fairlead_request_seconds": ("request", "From a whole request to predict to its answer."),
    "fairlead_queue_seconds": ("queue", "From a request's rows to the start of their batch."),
    "fairlead_compute_seconds": ("compute", "Checks, model and answers of one batch."),
    "fairlead_log_seconds": ("log", "From an answered batch until its frame is durable."),
    "fairlead_batch_rows": ("batch_rows", "Rows of one batch."),
}
REQUESTS = "fairlead_requests"
PREDICTIONS = "fairlead_predictions"
WAITING = "fairlead_waiting_rows"
REVISION = "fairlead_live_revision"
READY = "fairlead_endpoint_ready"
OTHER = "fairlead_http_requests"


def render(endpoints: Iterable[Endpoint], statuses: Mapping[tuple[str, int], int]) -> bytes:
    """Write all metrics of this process as text."""
    return text(collect(endpoints, statuses))


def collect(endpoints: Iterable[Endpoint], statuses: Mapping[tuple[str, int], int]) -> list[Family]:
    """Read all metrics of this process, so that they can be merged with those of others."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Endpoints(list(endpoints), statuses))
    ProcessCollector(registry=registry)
    return [_family(metric) for metric in registry.collect()]


def text(families: Iterable[Family]) -> bytes:
    """Write metrics in Prometheus's text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Families(list(families)))
    return generate_latest(registry)


def _family(metric: Metric) -> Family:
    samples = [Sample(s.name, tuple(s.labels.items()), s.value) for s in metric.samples]
    return Family(metric.name, metric.type, metric.documentation, samples)


class _Families(Collector):
    def __init__(self, families: list[Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        for family in self._families:
            metric = Metric(family.name, family.help, family.kind)
            for sample in family.samples:
                metric.add_sample(sample.name, dict(sample.labels), sample.value)
            yield metric


class _Endpoints(Collector):
    def __init__(self, endpoints: list[Endpoint], statuses: Mapping[tuple[str, int], int]) -> None:
        self._endpoints = endpoints
        self._statuses = statuses

    def collect(self) -> Iterator[Metric]:
        for name, (part, help_text) in HISTOGRAMS.items():
            family = HistogramMetricFamily(name, help_text, labels=["endpoint"])
            for endpoint in self._endpoints:
                histogram: Histogram = getattr(endpoint.times, part)
                family.add_metric([endpoint.name], _buckets(histogram), histogram.total)
            yield family
        yield self._requests()
        yield self._predictions()
        yield from self._gauges()
        yield self._other()

    def _requests(self) -> Metric:
        family = CounterMetricFamily(
            REQUESTS, "Requests to predict, by HTTP status.", labels=["endpoint", "status"]
        )
        for endpoint in self._endpoints:
            for status, count in endpoint.times.statuses.items():
                family.add_metric([endpoint.name, str(status)], count)
        return family

    def _predictions(self) -> Metric:
        family = CounterMetricFamily(
            PREDICTIONS, "Rows answered, each logged first.", labels=["endpoint"]
        )
        for endpoint in self._endpoints:
            family.add_metric([endpoint.name], endpoint.times.rows)
        return family

    def _gauges(self) -> Iterator[Metric]:
        waiting = GaugeMetricFamily(WAITING, "Rows that wait for answers.", labels=["endpoint"])
        number = GaugeMetricFamily(REVISION, "The revision that answers.", labels=["endpoint"])
        ready = GaugeMetricFamily(
            READY, "1 when the revision that should answer does.", labels=["endpoint"]
        )
        for endpoint in self._endpoints:
            ready.add_metric([endpoint.name], float(endpoint.failure is None))
            if (serving := endpoint.serving) is not None:
                waiting.add_metric([endpoint.name], serving.lane.rows)
                number.add_metric([endpoint.name], serving.loaded.revision.number)
        yield from (waiting, number, ready)

    def _other(self) -> Metric:
        family = CounterMetricFamily(
            OTHER, "Requests to other routes, and refused ones.", labels=["route", "status"]
        )
        for (route, status), count in self._statuses.items():
            family.add_metric([route, str(status)], count)
        return family


def _buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Give the counts as Prometheus wants them: each with all that is below."""
    below, buckets = 0, []
    for bound, count in zip((*histogram.bounds, float("inf")), histogram.counts, strict=True):
        below += count
        buckets.append(("+Inf" if bound == float("inf") else repr(float(bound)), float(below)))
    return buckets
