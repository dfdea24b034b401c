"""
`/metrics`, for Prometheus. `docs/metrics.md` says what each name means.

    counted on the loop ─► families of this process ─► merged over the workers ─► text

Queue, compute and log time stand apart, so that a slow answer names its cause. An
endpoint has series from its first load or call on; beyond `times.ENDPOINTS` of
them, the rest is counted together under the name `(others)`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice

from prometheus_client.process_collector import ProcessCollector

from clewline import __version__
from clewline.protocols.health import ServerHealth
from clewline.serve.endpoint_server import EndpointServer, ServedEndpoint
from clewline.serve.graph.shadow_runner import DIFFERENCES, ShadowCounts
from clewline.serve.metrics.request_statistics import (
    ENDPOINTS,
    OTHERS,
    ROWS,
    SECONDS,
    BucketHistogram,
    EndpointStatistics,
)
from clewline.serve.metrics.shared_metrics import MetricFamily, MetricSample

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"

FAILURES = (500, 503, 504, 507)
"""HTTP statuses that are shown before they come, so that the first one is seen as a change."""
REFUSALS = ("unauthorized", "forbidden", "too_many_requests")
STATES = ("ready", "cold", "loading", "failed", "unloaded")

Labels = tuple[tuple[str, str], ...]
Series = Iterable[tuple[Labels, float]]


def collect(endpoints: EndpointServer, vitals: ServerHealth) -> list[MetricFamily]:
    """Read all metrics of this process, so that they can be merged with those of others."""
    counted = _counted(endpoints)
    return [
        *_requests(counted),
        *_batches(counted),
        *_arms(counted),
        *_endpoints(endpoints),
        *_loads(endpoints),
        *_shadows(endpoints),
        *_others(endpoints, vitals),
        *_process(),
    ]


def _counted(endpoints: EndpointServer) -> list[tuple[str, EndpointStatistics]]:
    """Give what is counted of each endpoint that has series, by its name."""
    found = [
        (endpoint.name, endpoint.counted)
        for endpoint in endpoints.endpoints.values()
        if endpoint.counted is not None and not endpoint.counted.shared
    ]
    others = endpoints.book.others
    return [*found, (OTHERS, others)] if others.requests or others.compute.total else found


def _requests(counted: list[tuple[str, EndpointStatistics]]) -> Iterator[MetricFamily]:
    by_code = [
        ((("endpoint", name), ("code", str(code))), histogram)
        for name, times in counted
        for code, histogram in times.requests.items()
    ]
    yield _counter(
        "clewline_requests_total",
        "Requests to predict that were answered, by HTTP status.",
        [
            ((("endpoint", name), ("code", str(code))), times.asked(code))
            for name, times in counted
            for code in sorted({200, *FAILURES, *times.requests})
        ],
    )
    yield _histogram(
        "clewline_request_seconds",
        "From a whole request to predict to its answer.",
        SECONDS,
        by_code,
    )
    yield _counter(
        "clewline_predictions_total",
        "Rows answered, each logged first.",
        [(_of(name), times.rows) for name, times in counted],
    )
    yield _counter(
        "clewline_failed_rows_total",
        "Rows that were logged with an error, since a node raised.",
        [(_of(name), times.failed_rows) for name, times in counted],
    )
    yield _counter(
        "clewline_log_failures_total",
        "Frames that the log did not take; their rows were not answered.",
        [(_of(name), times.unlogged) for name, times in counted],
    )


def _batches(counted: list[tuple[str, EndpointStatistics]]) -> Iterator[MetricFamily]:
    yield _histogram(
        "clewline_queue_seconds",
        "From a request's rows to the start of their batch.",
        SECONDS,
        [(_of(name), times.queue) for name, times in counted],
    )
    yield _histogram(
        "clewline_compute_seconds",
        "Checks, model and answers of one batch.",
        SECONDS,
        [(_of(name), times.compute) for name, times in counted],
    )
    yield _histogram(
        "clewline_log_seconds",
        "From an answered batch until its frame is durable.",
        SECONDS,
        [(_of(name), times.log) for name, times in counted],
    )
    yield _histogram(
        "clewline_batch_rows",
        "Rows of one batch.",
        ROWS,
        [(_of(name), times.batch_rows) for name, times in counted],
    )


def _arms(counted: list[tuple[str, EndpointStatistics]]) -> Iterator[MetricFamily]:
    arms = [
        ((("endpoint", name), ("arm", arm), ("model", model)), went)
        for name, times in counted
        for (arm, model), went in times.arms.items()
    ]
    yield _counter(
        "clewline_arm_rows_total",
        "Rows computed, by the arm and the model that had them.",
        [(labels, went.rows) for labels, went in arms],
    )
    yield _histogram(
        "clewline_arm_seconds",
        "In the nodes on the way to an arm and its model, of one batch.",
        SECONDS,
        [(labels, went.seconds) for labels, went in arms],
    )
    yield _histogram(
        "clewline_node_seconds",
        "In one node, of one batch.",
        SECONDS,
        [
            ((("endpoint", name), ("node", node)), histogram)
            for name, times in counted
            for node, histogram in times.nodes.items()
        ],
    )


def _endpoints(endpoints: EndpointServer) -> Iterator[MetricFamily]:
    states: Counter[str] = Counter(endpoint.state for endpoint in endpoints.endpoints.values())
    yield _gauge(
        "clewline_endpoints",
        "Endpoints by state.",
        [((("state", state),), states[state]) for state in STATES],
    )
    shown = list(islice(filter(_is_shown, endpoints.endpoints.values()), ENDPOINTS))
    serving = [(each.name, each.serving) for each in shown if each.serving is not None]
    yield _gauge(
        "clewline_waiting_rows",
        "Rows that wait for their answers.",
        [(_of(name), each.batcher.rows) for name, each in serving],
    )
    yield _gauge(
        "clewline_live_revision",
        "The number of the revision that answers.",
        [(_of(name), each.loaded.revision.number) for name, each in serving],
    )
    yield _gauge(
        "clewline_endpoint_ready",
        "1 when the revision that should answer does, or may be loaded.",
        [(_of(endpoint.name), endpoint.trouble is None) for endpoint in shown],
    )
    yield _gauge(
        "clewline_router_state",
        "The number of what a router has learned.",
        [
            ((("endpoint", endpoint), ("node", node)), number)
            for (endpoint, node), number in islice(endpoints.router_states.items(), ENDPOINTS)
        ],
    )
    yield _gauge(
        "clewline_catalog_followed",
        "1 while changes of live revisions are seen.",
        [((), endpoints.failure is None)],
    )


def _is_shown(endpoint: ServedEndpoint) -> bool:
    """Tell whether an endpoint has gauges of its own: not while it was never needed."""
    if endpoint.failure is not None:
        return True
    return endpoint.counted is not None and not endpoint.counted.shared


def _loads(endpoints: EndpointServer) -> Iterator[MetricFamily]:
    loads, warm = endpoints.loads, endpoints.model_cache
    yield _histogram(
        "clewline_load_seconds",
        "Loading a revision, whether it succeeds or not.",
        SECONDS,
        [((), loads.seconds)],
    )
    yield _single("clewline_load_failures_total", "Loads that failed.", loads.failed)
    yield _single(
        "clewline_cold_calls_total", "Requests that had to wait for a load.", loads.cold_calls
    )
    yield _single(
        "clewline_evictions_total", "Revisions that made room for others.", loads.evictions
    )
    yield _gauge("clewline_resident_revisions", "Revisions in memory.", [((), len(warm))])
    yield _gauge(
        "clewline_resident_bytes", "What models in memory cost, estimated.", [((), warm.bytes)]
    )
    yield _gauge(
        "clewline_resident_limit_bytes",
        "What models in memory may cost.",
        [((), warm.budget_bytes)],
    )
    yield _counter(
        "clewline_isolated_restarts_total",
        "Processes of isolated models that were started again.",
        [((("model", ref),), count) for ref, count in endpoints.restarts.items()],
    )


def _shadows(endpoints: EndpointServer) -> Iterator[MetricFamily]:
    tallies = list(islice(list(endpoints.shadows.tallies.items()), ENDPOINTS))
    found: list[tuple[Labels, ShadowCounts]] = [
        ((("endpoint", endpoint), ("shadow", shadow)), tally)
        for (endpoint, shadow), tally in tallies
    ]
    yield _counter(
        "clewline_shadow_rows_total",
        "Rows by what became of them at a shadow.",
        [
            ((*labels, ("outcome", outcome)), getattr(tally, outcome))
            for labels, tally in found
            for outcome in ("agreed", "differed", "failed", "dropped")
        ],
    )
    yield _histogram(
        "clewline_shadow_difference",
        "How far a shadow's answer is from the one that was given.",
        DIFFERENCES,
        [(labels, tally.difference) for labels, tally in found],
    )
    yield _histogram(
        "clewline_shadow_seconds",
        "A shadow's answer to up to 64 rows.",
        SECONDS,
        [(labels, tally.seconds) for labels, tally in found],
    )


def _others(endpoints: EndpointServer, vitals: ServerHealth) -> Iterator[MetricFamily]:
    yield _counter(
        "clewline_http_requests_total",
        "Requests and gRPC calls by route and HTTP status.",
        [
            ((("route", route), ("code", str(status))), count)
            for (route, status), count in vitals.statuses.items()
        ],
    )
    yield _gauge("clewline_connections", "Open connections.", [((), vitals.connections())])
    yield _single(
        "clewline_replays_total",
        "Requests whose idempotency key had an answer already.",
        endpoints.replays,
    )
    yield _counter(
        "clewline_refused_callers_total",
        "Callers whose token was refused, or who had none.",
        [
            ((("reason", code),), vitals.refused[code])
            for code in {**dict.fromkeys(REFUSALS), **vitals.refused}
        ],
    )
    dropped = 0 if vitals.access_log is None else vitals.access_log.dropped
    yield _single("clewline_access_log_dropped_total", "Lines that were not written.", dropped)
    if (certificate := vitals.certificate) is not None:
        yield _gauge(
            "clewline_certificate_expires_timestamp_seconds",
            "When the TLS certificate ends, since the epoch.",
            [((), certificate.ends)],
        )
    yield _gauge("clewline_build_info", "1, of this version.", [((("version", __version__),), 1)])


def _process() -> Iterator[MetricFamily]:
    """Read what the system tells of the process."""
    for metric in ProcessCollector(registry=None).collect():
        name = metric.name + "_total" * (metric.type == "counter")
        values = [sample.value for sample in metric.samples]
        yield MetricFamily(name, metric.type, metric.documentation, [MetricSample((), values)])


def _of(endpoint: str) -> Labels:
    return (("endpoint", endpoint),)


def _single(name: str, help_text: str, value: float) -> MetricFamily:
    return _counter(name, help_text, [((), value)])


def _counter(name: str, help_text: str, series: Series) -> MetricFamily:
    return MetricFamily(name, "counter", help_text, _samples(series))


def _gauge(name: str, help_text: str, series: Series) -> MetricFamily:
    return MetricFamily(name, "gauge", help_text, _samples(series))


def _samples(series: Series) -> list[MetricSample]:
    return [MetricSample(labels, [float(value)]) for labels, value in series]


def _histogram(
    name: str,
    help_text: str,
    bounds: tuple[float, ...],
    series: Iterable[tuple[Labels, BucketHistogram]],
) -> MetricFamily:
    samples = [MetricSample(labels, [*each.counts, each.total]) for labels, each in series]
    return MetricFamily(name, "histogram", help_text, samples, tuple(map(float, bounds)))
