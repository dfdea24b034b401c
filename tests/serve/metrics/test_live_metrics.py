"""Counts are read as they were written, rates are what Prometheus would say, restarts are gaps."""

from __future__ import annotations

import random

import pytest

from clewline.serve.metrics.live_metrics import (
    IDLE,
    EndpointCounts,
    MetricsHistory,
    ServerCounts,
    bucket_quantile,
    rates_between,
    read_counts,
)
from clewline.serve.metrics.metric_families import MetricFamily, MetricSample, exposition_text

HOSTILE = 'a"b\\c\nd},{'


def text_of(endpoint: str) -> str:
    labels = (("endpoint", endpoint),)
    coded = [(*labels, ("code", code)) for code in ("200", "503")]
    families = [
        MetricFamily(
            "clewline_requests_total",
            "counter",
            "h",
            [MetricSample(coded[0], [8.0]), MetricSample(coded[1], [2.0])],
        ),
        MetricFamily(
            "clewline_request_seconds",
            "histogram",
            "h",
            [
                MetricSample(coded[0], [3.0, 5.0, 0.0, 1.0]),
                MetricSample(coded[1], [0.0, 1.0, 1.0, 9.0]),
            ],
            (0.1, 0.5),
        ),
        MetricFamily("clewline_predictions_total", "counter", "h", [MetricSample(labels, [30.0])]),
        MetricFamily(
            "clewline_batch_rows",
            "histogram",
            "h",
            [MetricSample(labels, [2.0, 3.0, 30.0])],
            (4.0,),
        ),
        MetricFamily(
            "clewline_arm_rows_total",
            "counter",
            "h",
            [
                MetricSample((*labels, ("arm", "a"), ("model", "m@1")), [10.0]),
                MetricSample((*labels, ("arm", "a"), ("model", "m@2")), [5.0]),
                MetricSample((*labels, ("arm", "b"), ("model", "m@1")), [15.0]),
            ],
        ),
        MetricFamily(
            "clewline_node_seconds",
            "histogram",
            "h",
            [MetricSample((*labels, ("node", "route")), [1.0, 3.0, 0.25])],
            (0.1,),
        ),
        MetricFamily("clewline_live_revision", "gauge", "h", [MetricSample(labels, [12.0])]),
        MetricFamily("clewline_endpoint_ready", "gauge", "h", [MetricSample(labels, [0.0])]),
        MetricFamily("clewline_waiting_rows", "gauge", "h", [MetricSample(labels, [7.0])]),
        MetricFamily("clewline_connections", "gauge", "h", [MetricSample((), [99.0])]),
        MetricFamily("process_start_time_seconds", "gauge", "h", [MetricSample((), [1.75e9])]),
    ]
    return exposition_text(families).decode()


@pytest.mark.parametrize("endpoint", ["income", HOSTILE])
def test_counts_are_read_as_the_server_wrote_them(endpoint: str) -> None:
    counts = read_counts(text_of(endpoint), 5.0)
    assert (counts.time, counts.started) == (5.0, 1.75e9)
    assert list(counts.endpoints) == [endpoint]
    assert counts.endpoints[endpoint] == EndpointCounts(
        requests={200: 8.0, 503: 2.0},
        answered={0.1: 3.0, 0.5: 9.0, float("inf"): 10.0},
        rows=30.0,
        batches=5.0,
        batch_rows=30.0,
        arms={"a": 15.0, "b": 15.0},
        node_seconds={"route": 0.25},
        node_batches={"route": 4.0},
        waiting_rows=7.0,
        revision=12,
        is_ready=False,
    )


def test_rates_are_differences_a_second() -> None:
    after = read_counts(text_of("e"), 0.0).endpoints["e"]
    rates = rates_between(EndpointCounts(arms={"a": 5.0}), after, 10.0)
    assert rates is not None
    assert (rates.requests, rates.errors, rates.refused, rates.rows) == (1.0, 0.2, 0.0, 3.0)
    assert rates.batch_rows == 6.0
    assert dict(rates.arms) == {"a": 1.0, "b": 1.5}
    assert rates_between(after, after, 10.0) is IDLE


def test_a_quantile_lies_in_the_bucket_of_the_value() -> None:
    chance = random.Random(5)
    values = sorted(chance.expovariate(20) for _ in range(1_000))
    bounds = [0.001 * 2**n for n in range(10)]
    buckets = [(bound, sum(value <= bound for value in values)) for bound in bounds]
    buckets.append((float("inf"), len(values)))
    for share in (0.01, 0.5, 0.9, 0.99):
        found = bucket_quantile(buckets, share)
        assert found is not None
        true = values[int(share * len(values)) - 1]
        low = max([bound for bound in bounds if bound < true], default=0.0)
        assert low <= found <= min(bound for bound in bounds if bound >= true)
    assert bucket_quantile([(0.1, 0.0), (float("inf"), 0.0)], 0.5) is None
    # As Prometheus: what lies above all bounds is the largest of them.
    assert bucket_quantile([(0.1, 0.0), (float("inf"), 4.0)], 0.5) == 0.1


def counts(time: float, **endpoints: float) -> ServerCounts:
    return ServerCounts(
        time=time,
        endpoints={
            name: EndpointCounts(requests={200: n}, rows=n, answered={1.0: n, float("inf"): n})
            for name, n in endpoints.items()
        },
    )


def test_a_restart_and_a_silence_are_gaps_and_then_it_goes_on() -> None:
    history = MetricsHistory()
    history.add(counts(0.0, a=100.0))
    history.add(counts(2.0, a=104.0))
    history.add_failure(4.0)
    history.add(counts(6.0, a=3.0))  # the first after the silence has nothing to compare with
    history.add(counts(8.0, a=1.0))  # started anew
    history.add(counts(10.0, a=9.0))
    found = [(time, rates and rates.requests) for time, rates in history.of("a")]
    assert found == [(2.0, 2.0), (4.0, None), (8.0, None), (10.0, 4.0)]
    assert history.version == 4


def test_an_endpoint_that_comes_later_has_no_rates_before() -> None:
    history = MetricsHistory(points=3)
    for n in range(4):
        history.add(counts(float(n), a=float(n)))
    history.add(counts(4.0, a=4.0, b=8.0))
    history.add(counts(5.0, a=5.0, b=9.0))
    assert [time for time, _ in history.of("a")] == [3.0, 4.0, 5.0]
    assert [rates and rates.requests for _, rates in history.of("b")] == [None, 8.0, 1.0]
    assert [rates for _, rates in history.of("unknown")] == [None, None, None]


def test_workers_and_the_certificate_are_of_the_server() -> None:
    text = (
        "clewline_workers 2.0\nclewline_workers_ready 1.0\n"
        "clewline_certificate_expires_timestamp_seconds 5.0\n"
    )
    found = read_counts(text, 9.0)
    assert (found.workers, found.workers_ready, found.certificate_ends) == (2.0, 1.0, 5.0)
    assert read_counts("", 9.0).certificate_ends is None
