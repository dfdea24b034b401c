"""The metrics of a server are right and documented, and Prometheus's own tool accepts them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[3] / "docs"
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


def test_promtool_reports_no_problem(loans, up):
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed: apt-get install prometheus")
    server = up(loans.project)
    server.predict({"rows": [ROW]})
    text = server.ask("GET", "/metrics")[1]
    done = subprocess.run(
        [promtool, "check", "metrics"], input=text, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
