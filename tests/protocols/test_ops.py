"""The rules and the dashboard of `ops/` work with the real Prometheus and a live server."""

from __future__ import annotations

import http.client
import json
import re
import shutil
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import free_port, process, start_process, wait_for

OPS = Path(__file__).parent.parent.parent / "ops"
ROW = {"age": 30, "hours": 40.5, "job": "nurse"}
NO_DATA = {  # what only comes with faults, cold endpoints, shadows or TLS
    "clewline_shadow",
    "clewline_isolated_restarts",
    "clewline_certificate",
}

pytestmark = pytest.mark.skipif(
    shutil.which("prometheus") is None or shutil.which("promtool") is None,
    reason="prometheus is not installed: apt-get install prometheus",
)


def promtool(*words: str) -> None:
    done = subprocess.run(
        ["promtool", *words], cwd=OPS, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_rules_are_valid_and_every_alert_fires_when_it_should() -> None:
    promtool("check", "rules", "clewline.rules.yml")
    promtool("check", "config", "prometheus.yml")
    promtool("test", "rules", "clewline.rules_test.yml")


def test_every_alert_says_what_to_do_next_and_has_a_test() -> None:
    tested = (OPS / "clewline.rules_test.yml").read_text()
    for rule in rules():
        if "alert" in rule:
            assert rule["annotations"].keys() == {"summary", "action"}
            assert f"alertname: {rule['alert']}\n" in tested


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((OPS / "clewline.rules.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def expressions() -> list[str]:
    """Every expression of the dashboard and the rules, as it is asked over all endpoints."""
    dashboard = json.loads((OPS / "clewline.dashboard.json").read_text())
    targets = [target for panel in dashboard["panels"] for target in panel.get("targets", ())]
    found = [target["expr"] for target in targets] + [rule["expr"] for rule in rules()]
    return [
        expression.replace("$__rate_interval", "30s")
        .replace("$instance", ".*")
        .replace("$endpoint", ".*")
        for expression in found
    ]


class Prometheus:
    """The real one, which scrapes a server several times a second."""

    def __init__(self, folder: Path, target: int) -> None:
        self.port = free_port()
        config = yaml.safe_load((OPS / "prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "200ms", "evaluation_interval": "200ms"}
        config["scrape_configs"][0]["static_configs"][0]["targets"] = [f"127.0.0.1:{target}"]
        shutil.copy(OPS / "clewline.rules.yml", folder)
        (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
        self._said = (folder / "said").open("wb")
        self._process = start_process(
            [
                "prometheus",
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{self.port}",
            ],
            stderr=self._said,
        )

    def ask(self, expression: str) -> list[dict[str, Any]]:
        """Ask for the value of an expression now."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        try:
            words = urllib.parse.urlencode({"query": expression})
            connection.request("GET", f"/api/v1/query?{words}")
            answer = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        assert answer["status"] == "success", (expression, answer)
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    def wait_for(self, expression: str) -> list[dict[str, Any]]:
        """Wait until an expression has a value."""

        def value() -> list[dict[str, Any]]:
            assert self._process.poll() is None
            with suppress(ConnectionError, http.client.HTTPException, json.JSONDecodeError):
                return self.ask(expression)
            return []

        return wait_for(value)

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()
        self._said.close()


def ask(port: int, method: str, path: str, body: Any = None) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        data = None if body is None else json.dumps(body)
        connection.request(method, path, data, {"content-type": "application/json"})
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


@pytest.fixture
def port(loans: Any) -> Iterator[int]:
    """A server of two workers."""
    words = [sys.executable, "-m", "clewline.cli.main", "serve", "--port", "0", "--workers", "2"]
    with process(words, cwd=loans.project.root, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        said = ""
        while (found := re.search(r"Ready on http://127\.0\.0\.1:(\d+)", said)) is None:
            line = server.stderr.readline()
            assert line, said
            said += line
        yield int(found[1])
        server.terminate()
        server.communicate()


def test_prometheus_reads_a_live_server_and_every_expression_has_a_value(
    port: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    prometheus = Prometheus(tmp_path_factory.mktemp("prometheus"), port)
    try:
        path = "/v1/endpoints/income/predict"
        assert ask(port, "POST", path, ROW) == 200
        prometheus.wait_for('clewline_predictions_total{endpoint="income"} == 1')
        for _ in range(5):
            assert ask(port, "POST", path, {"rows": [ROW] * 3}) == 200
        assert ask(port, "POST", path, {"age": "x"}) == 422
        prometheus.wait_for('clewline_requests_total{endpoint="income",code="422"} == 1')
        prometheus.wait_for('clewline_requests_total{endpoint="income",code="200"} == 6')
        prometheus.wait_for('clewline_predictions_total{endpoint="income"} == 16')
        prometheus.wait_for("clewline_workers_ready == 2")
        prometheus.wait_for("endpoint:clewline_request_seconds:p99_5m > 0")
        prometheus.wait_for("endpoint:clewline_requests:rate5m > 0")
        alerts = {rule["expr"] for rule in rules() if "alert" in rule}
        for expression in expressions():
            found = prometheus.ask(expression)
            may_be_empty = expression in alerts or any(word in expression for word in NO_DATA)
            assert found or may_be_empty, expression
        assert not prometheus.ask('ALERTS{alertstate="firing"}')
    finally:
        prometheus.stop()
