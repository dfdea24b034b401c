"""
The metrics of a server, for Prometheus. `docs/metrics.md` explains each of them.

Queue, compute and log time are separate, so that a slow answer names its cause. An
endpoint has series from its first load or call on; beyond `ENDPOINTS` of them, the
rest is counted together under the name `(others)`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import islice

from prometheus_client.process_collector import ProcessCollector

from clewline.protocols.http.health import ServerHealth
from clewline.serve.endpoint_server import EndpointServer
from clewline.serve.metrics.metric_families import MetricFamily, MetricSample
from clewline.serve.metrics.request_statistics import (
    ENDPOINTS,
    OTHERS,
    ROWS,
    SECONDS,
    BucketHistogram,
    EndpointStatistics,
)
from clewline.serve.shadow_runner import DIFFERENCES
from clewline.version import __version__

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"

HELP = {
    "clewline_requests_total": "Requests to predict that were answered, by HTTP status.",
    "clewline_request_seconds": "Time from a whole request to predict to its answer.",
    "clewline_predictions_total": "Rows that were logged and answered.",
    "clewline_tried_rows_total": "Rows that were answered as tried, in no other count of rows.",
    "clewline_failed_rows_total": "Rows that were logged with an error because a node raised.",
    "clewline_log_failures_total": "Batches that could not be logged, and were not answered.",
    "clewline_queue_seconds": "Time from a request's rows to the start of their batch.",
    "clewline_compute_seconds": "Time of the checks, the model and the answers of one batch.",
    "clewline_log_seconds": "Time from an answered batch until it is durable.",
    "clewline_batch_rows": "Rows of one batch.",
    "clewline_arm_rows_total": "Rows computed, by the arm and model that they took.",
    "clewline_arm_seconds": "Time of one batch in the nodes on the way to an arm and its model.",
    "clewline_node_seconds": "Time of one batch in one node.",
    "clewline_endpoints": "Endpoints by state.",
    "clewline_waiting_rows": "Rows that wait for their answers.",
    "clewline_live_revision": "Number of the revision that answers.",
    "clewline_endpoint_ready": "1 if the live revision answers or can be loaded.",
    "clewline_router_state": "Number of the state that a router has learned.",
    "clewline_catalog_followed": "1 while the server sees changes of live revisions.",
    "clewline_load_seconds": "Time to load a revision, whether it succeeds or not.",
    "clewline_load_failures_total": "Loads that failed.",
    "clewline_cold_calls_total": "Requests that had to wait for a load.",
    "clewline_evictions_total": "Revisions that were removed from memory to make room.",
    "clewline_resident_revisions": "Revisions in memory.",
    "clewline_resident_bytes": "Estimated size of the models in memory.",
    "clewline_resident_limit_bytes": "Limit on the size of the models in memory.",
    "clewline_isolated_restarts_total": "Restarts of the processes of isolated models.",
    "clewline_shadow_rows_total": "Rows sent to a shadow, by outcome.",
    "clewline_shadow_difference": "Difference between a shadow's answer and the one sent.",
    "clewline_shadow_seconds": "Time of a shadow for up to 64 rows.",
    "clewline_explain_requests_waiting": "Requests to explain that wait for their reply.",
    "clewline_http_requests_total": "Requests and gRPC calls by route and HTTP status.",
    "clewline_connections": "Open connections.",
    "clewline_replays_total": "Requests whose idempotency key had an answer already.",
    "clewline_refused_callers_total": "Callers who had no valid token.",
    "clewline_access_log_dropped_total": "Lines of the access log that were not written.",
    "clewline_certificate_expires_timestamp_seconds": "Expiry of the TLS certificate, Unix time.",
    "clewline_build_info": "1, labelled with the version of clewline.",
}

TIMED = ("request", "queue", "compute", "log", "arm", "node", "load", "shadow")
BOUNDS = {f"clewline_{timed}_seconds": SECONDS for timed in TIMED} | {
    "clewline_batch_rows": ROWS,
    "clewline_shadow_difference": DIFFERENCES,
}
"""The histograms, each with its bounds."""

FAILURES = (500, 503, 504, 507)
"""HTTP statuses that are shown from the start, so that the first failure is seen as a change."""
REFUSALS = ("unauthorized", "forbidden", "too_many_requests")
STATES = ("ready", "cold", "loading", "failed", "unloaded")
OUTCOMES = ("agreed", "differed", "failed", "dropped")

Add = Callable[..., None]
"""Adds a sample: `add(name, value, **labels)`."""


def collect(endpoints: EndpointServer, health: ServerHealth) -> list[MetricFamily]:
    """Read all metrics of this process, so that they can be merged with those of others."""
    families: dict[str, MetricFamily] = {}
    for name, text in HELP.items():
        bounds = BOUNDS.get(name, ())
        kind = "histogram" if bounds else "counter" if name.endswith("_total") else "gauge"
        families[name] = MetricFamily(name, kind, text, [], bounds)

    def add(metric: str, value: float | BucketHistogram, **labels: str) -> None:
        if isinstance(value, BucketHistogram):
            values = [*value.counts, value.total]
        else:
            values = [float(value)]
        families[metric].samples.append(MetricSample(tuple(labels.items()), values))

    for endpoint in endpoints.endpoints.values():
        statistics = endpoint.opened_statistics
        if statistics is not None and not statistics.shared:
            _add_requests(add, endpoint.name, statistics)
    others = endpoints.statistics.others
    if others.requests or others.compute.total:
        _add_requests(add, OTHERS, others)
    _add_endpoints(add, endpoints)
    _add_server(add, endpoints, health)
    if health.certificate is None:
        del families["clewline_certificate_expires_timestamp_seconds"]
    # The CPU time, memory and open files of this process.
    for metric in ProcessCollector(registry=None).collect():
        name = metric.name + "_total" * (metric.type == "counter")
        values = [sample.value for sample in metric.samples]
        samples = [MetricSample((), values)]
        families[name] = MetricFamily(name, metric.type, metric.documentation, samples)
    return list(families.values())


def _add_requests(add: Add, endpoint: str, counted: EndpointStatistics) -> None:
    for status in sorted({200, *FAILURES, *counted.requests}):
        requests = counted.requests.get(status)
        count = 0 if requests is None else sum(requests.counts)
        add("clewline_requests_total", count, endpoint=endpoint, code=str(status))
        if requests is not None:
            add("clewline_request_seconds", requests, endpoint=endpoint, code=str(status))
    add("clewline_predictions_total", counted.rows, endpoint=endpoint)
    add("clewline_tried_rows_total", counted.tried_rows, endpoint=endpoint)
    add("clewline_failed_rows_total", counted.failed_rows, endpoint=endpoint)
    add("clewline_log_failures_total", counted.unlogged, endpoint=endpoint)
    add("clewline_queue_seconds", counted.queue, endpoint=endpoint)
    add("clewline_compute_seconds", counted.compute, endpoint=endpoint)
    add("clewline_log_seconds", counted.log, endpoint=endpoint)
    add("clewline_batch_rows", counted.batch_rows, endpoint=endpoint)
    for (arm, model), passed in counted.arms.items():
        add("clewline_arm_rows_total", passed.rows, endpoint=endpoint, arm=arm, model=model)
        add("clewline_arm_seconds", passed.seconds, endpoint=endpoint, arm=arm, model=model)
    for node, seconds in counted.nodes.items():
        add("clewline_node_seconds", seconds, endpoint=endpoint, node=node)


def _add_endpoints(add: Add, endpoints: EndpointServer) -> None:
    states: Counter[str] = Counter(endpoint.state for endpoint in endpoints.endpoints.values())
    for state in STATES:
        add("clewline_endpoints", states[state], state=state)
    # An endpoint that was never needed has no gauges of its own, unless it fails.
    needed = (
        endpoint
        for endpoint in endpoints.endpoints.values()
        if endpoint.failure is not None
        or (endpoint.opened_statistics is not None and not endpoint.opened_statistics.shared)
    )
    for endpoint in islice(needed, ENDPOINTS):
        name, serving = endpoint.name, endpoint.serving
        add("clewline_endpoint_ready", endpoint.ready, endpoint=name)
        if serving is not None:
            add("clewline_waiting_rows", serving.batcher.rows, endpoint=name)
            add("clewline_live_revision", serving.loaded.revision.number, endpoint=name)
    for (name, node), number in islice(endpoints.router_states.items(), ENDPOINTS):
        add("clewline_router_state", number, endpoint=name, node=node)
    add("clewline_catalog_followed", endpoints.failure is None)
    loads, cache = endpoints.load_statistics, endpoints.model_cache
    add("clewline_load_seconds", loads.seconds)
    add("clewline_load_failures_total", loads.failed)
    add("clewline_cold_calls_total", loads.cold_calls)
    add("clewline_evictions_total", loads.evictions)
    add("clewline_resident_revisions", len(cache))
    add("clewline_resident_bytes", cache.bytes)
    add("clewline_resident_limit_bytes", cache.budget_bytes)
    for model, count in endpoints.restarts.items():
        add("clewline_isolated_restarts_total", count, model=model)
    for (name, shadow), counts in islice(list(endpoints.shadows.counts.items()), ENDPOINTS):
        labels = {"endpoint": name, "shadow": shadow}
        for outcome in OUTCOMES:
            add("clewline_shadow_rows_total", getattr(counts, outcome), **labels, outcome=outcome)
        add("clewline_shadow_difference", counts.difference, **labels)
        add("clewline_shadow_seconds", counts.seconds, **labels)


def _add_server(add: Add, endpoints: EndpointServer, health: ServerHealth) -> None:
    for (route, status), count in health.statuses.items():
        add("clewline_http_requests_total", count, route=route, code=str(status))
    add("clewline_connections", health.connections())
    waiting = health.explanations
    add("clewline_explain_requests_waiting", 0 if waiting is None else waiting.waiting)
    add("clewline_replays_total", endpoints.idempotency.replays)
    for code in {**dict.fromkeys(REFUSALS), **health.refused}:
        add("clewline_refused_callers_total", health.refused[code], reason=code)
    log, certificate = health.access_log, health.certificate
    add("clewline_access_log_dropped_total", 0 if log is None else log.dropped)
    if certificate is not None:
        add("clewline_certificate_expires_timestamp_seconds", certificate.ends)
    add("clewline_build_info", 1, version=__version__)
