"""What a server has counted is shown, documented, bounded, and in Prometheus's own words."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from clewline.protocols import metrics
from clewline.serve.log.frame import RoutePath
from clewline.serve.metrics import shared_metrics
from clewline.serve.metrics.request_statistics import (
    ARMS,
    OTHERS,
    BucketHistogram,
    EndpointStatistics,
    RequestStatistics,
)
from clewline.serve.metrics.shared_metrics import MetricFamily, MetricSample

DOCS = Path(__file__).parent.parent.parent / "docs"
ROW = {"age": 30, "hours": 40.5, "job": "sales"}
OF_THE_TEAM = {"clewline_workers", "clewline_workers_ready", "clewline_worker_exits_total"}
WITH_TLS = {"clewline_certificate_expires_timestamp_seconds"}


def documented() -> set[str]:
    return set(re.findall(r"^\| `(clewline_\w+)` \|", (DOCS / "metrics.md").read_text(), re.M))


def shown(text: str) -> dict[str, float]:
    lines = [line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in lines}


def test_every_metric_is_documented_and_every_documented_one_is_there(loans, up):
    text = up(loans.project).ask("GET", "/metrics")[1]
    names = set(re.findall(r"^# HELP (clewline_\S+)", text, re.M))
    assert names == documented() - OF_THE_TEAM - WITH_TLS


def test_requests_arms_nodes_and_batches_are_counted_with_the_right_values(loans, up):
    server = up(loans.project)
    for _ in range(4):
        server.predict({"rows": [ROW] * 5})
    server.predict({"rows": [{"age": "x"}]})
    found = shown(server.ask("GET", "/metrics")[1])
    one = 'endpoint="income"'
    assert found[f'clewline_requests_total{{{one},code="200"}}'] == 4
    assert found[f'clewline_requests_total{{{one},code="422"}}'] == 1
    assert found[f'clewline_request_seconds_count{{{one},code="422"}}'] == 1
    assert found[f"clewline_predictions_total{{{one}}}"] == 20
    assert found[f'clewline_arm_rows_total{{{one},arm="",model="income@1"}}'] == 20
    assert found[f'clewline_arm_seconds_count{{{one},arm="",model="income@1"}}'] == 4
    assert found[f'clewline_node_seconds_count{{{one},node="model"}}'] == 4
    assert found[f'clewline_batch_rows_bucket{{{one},le="4.0"}}'] == 0
    assert found[f'clewline_batch_rows_bucket{{{one},le="8.0"}}'] == 4
    assert found[f"clewline_batch_rows_sum{{{one}}}"] == 20
    assert found['clewline_endpoints{state="ready"}'] == 1
    assert found["clewline_resident_bytes"] > 0
    assert found["clewline_connections"] >= 1


def test_promtool_finds_nothing_to_complain_about(loans, up):
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    server = up(loans.project)
    server.predict({"rows": [ROW]})
    text = server.ask("GET", "/metrics")[1]
    done = subprocess.run(
        [promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_labels_are_written_so_that_they_can_be_read_again():
    family = MetricFamily(
        "asked_total", "counter", "Asked.", [MetricSample((("of", 'a"b\\c\nd'),), [1.0])]
    )
    assert (
        shared_metrics.exposition_text([family]).decode().splitlines()[2]
        == r'asked_total{of="a\"b\\c\nd"} 1.0'
    )


def test_a_histogram_counts_all_below_each_bound():
    counted = BucketHistogram((1.0, 2.0))
    for value in (0.5, 1.0, 1.5, 7.0):
        counted.observe(value)
    family = metrics._histogram("took_seconds", "Took.", counted.bounds, [((), counted)])
    assert shared_metrics.exposition_text([family]).decode().splitlines()[2:] == [
        'took_seconds_bucket{le="1.0"} 2',
        'took_seconds_bucket{le="2.0"} 3',
        'took_seconds_bucket{le="+Inf"} 4',
        "took_seconds_sum 10.0",
        "took_seconds_count 4",
    ]


def test_endpoints_beyond_the_bound_share_their_times():
    book = RequestStatistics(2)
    first, second, third, fourth = (book.open() for _ in range(4))
    assert first is not second
    assert third is fourth is book.others
    third.went(((RoutePath("income@1", (("model", 5.0),)), 3),))
    assert not third.arms


def test_ways_are_counted_by_rows_and_nodes_once_a_batch():
    times = EndpointStatistics()
    above = ("route", 2.0)
    times.went(
        (
            (RoutePath("a@1", (above, ("left", 10.0)), "left"), 3),
            (RoutePath("b@2", (above, ("right", 20.0)), "right"), 5),
        )
    )
    assert {key: arm.rows for key, arm in times.arms.items()} == {
        ("left", "a@1"): 3,
        ("right", "b@2"): 5,
    }
    assert {name: sum(node.counts) for name, node in times.nodes.items()} == {
        "route": 1,
        "left": 1,
        "right": 1,
    }
    assert times.arms["right", "b@2"].seconds.total == pytest.approx(22e-6)


def test_arms_and_nodes_beyond_the_bound_are_counted_together():
    times = EndpointStatistics()
    for number in range(ARMS + 10):
        way = RoutePath(f"m@{number}", ((f"n{number}", 1.0), ("same", 1.0)), f"arm{number}")
        times.went(((way, 1),))
    assert len(times.arms) == ARMS + 1
    assert times.arms[OTHERS, ""].rows == 10
    assert len(times.nodes) == ARMS + 1
    assert sum(arm.rows for arm in times.arms.values()) == ARMS + 10
