"""Metrics of several processes are one, and Prometheus's own parser reads what we write."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from clewline.serve.metrics.metric_families import (
    MetricFamily,
    MetricSample,
    exposition_text,
    merge_families,
)
from clewline.serve.metrics.request_statistics import BucketHistogram


def values(families: list[MetricFamily]) -> dict[str, list[float]]:
    return {family.name: sample.values for family in families for sample in family.samples}


def test_counters_are_summed_and_each_gauge_is_merged_by_its_own_rule() -> None:
    def process(asked: float, waiting: float, ready: float) -> list[MetricFamily]:
        return [
            MetricFamily("asked_total", "counter", "Asked.", [MetricSample((), [asked])]),
            MetricFamily("waiting", "gauge", "Now.", [MetricSample((), [waiting])]),
            MetricFamily("clewline_endpoint_ready", "gauge", "Now.", [MetricSample((), [ready])]),
        ]

    merged = merge_families([process(3, 2, 1), process(4, 5, 0)])
    assert values(merged) == {
        "asked_total": [7],
        "waiting": [7],
        "clewline_endpoint_ready": [0],
    }


@given(st.text(), st.floats(allow_nan=False))
def test_prometheus_reads_any_label_and_value_as_it_was(label: str, value: float) -> None:
    sample = MetricSample((("of", label),), [value])
    text = exposition_text([MetricFamily("asked_total", "counter", "Asked.", [sample])])
    (family,) = text_string_to_metric_families(text.decode())
    assert [(s.name, s.labels, s.value) for s in family.samples] == [
        ("asked_total", {"of": label}, value)
    ]


def test_a_histogram_counts_all_below_each_bound() -> None:
    counted = BucketHistogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 7.0):
        counted.observe(value)
    sample = MetricSample((), [*counted.counts, counted.total])
    family = MetricFamily("took_seconds", "histogram", "Took.", [sample], counted.bounds)
    assert exposition_text([family]).decode().splitlines() == [
        "# HELP took_seconds Took.",
        "# TYPE took_seconds histogram",
        'took_seconds_bucket{le="1.0"} 2',
        'took_seconds_bucket{le="2.0"} 3',
        'took_seconds_bucket{le="+Inf"} 4',
        "took_seconds_sum 10.0",
        "took_seconds_count 4",
    ]
