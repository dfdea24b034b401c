"""Spans of sampled requests reach a collector; a missing collector costs no answer."""

from __future__ import annotations

import http.server
import logging
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from clewline.protocols.tracing import SHOWN_IDS, RequestTracing, _CollectorFilter

ROW = {"age": 30, "hours": 40.5, "job": "nurse"}
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SAMPLED, NOT_SAMPLED = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"


class Collector:
    """Takes spans by OTLP over HTTP."""

    def __init__(self) -> None:
        self.spans: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.resources: list[dict[str, Any]] = []
        collector = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                collector._take(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                return

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1/traces"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def _take(self, message: Any) -> None:
        for resource in message.resource_spans:
            self.resources.append(attributes(resource.resource))
            for scope in resource.scope_spans:
                for span in scope.spans:
                    self.spans.put(span)

    def get(self) -> dict[str, Any]:
        """Give what has come, by name."""
        found = {}
        while not self.spans.empty():
            span = self.spans.get()
            found[span.name] = span
        return found

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def attributes(holder: Any) -> dict[str, Any]:
    return {each.key: value(each.value) for each in holder.attributes}


def value(any_value: Any) -> Any:
    kind = any_value.WhichOneof("value")
    if kind == "array_value":
        return [value(each) for each in any_value.array_value.values]
    return getattr(any_value, kind)


@pytest.fixture
def collector() -> Iterator[Collector]:
    started = Collector()
    yield started
    started.stop()


@pytest.fixture
def traced(loans: Any, up: Callable[..., Any]) -> Callable[[str], tuple[Any, RequestTracing]]:
    """Bring up a server whose spans go to a URL."""

    def start(url: str) -> tuple[Any, RequestTracing]:
        server = up(loans.project)
        server.endpoints.tracer = tracing = RequestTracing(OTLPSpanExporter(url, timeout=2))
        return server, tracing

    return start


def test_a_request_has_spans_of_its_stages_and_nodes_under_the_callers(traced, collector):
    server, tracing = traced(collector.url)
    status, answer, _ = server.predict({"rows": [ROW] * 20}, traceparent=SAMPLED)
    assert status == 200
    tracing.close()
    spans = collector.get()
    assert spans.keys() == {"predict", "queue", "compute", "node model", "log"}
    predict = spans["predict"]
    assert {span.trace_id.hex() for span in spans.values()} == {TRACE}
    assert predict.parent_span_id.hex() == PARENT
    assert spans["compute"].parent_span_id == predict.span_id
    assert spans["node model"].parent_span_id == spans["compute"].span_id
    said = attributes(predict)
    assert said["clewline.endpoint"] == "income"
    assert said["clewline.revision"] == "income#1"
    assert said["clewline.model"] == ["income@1"]
    assert said["clewline.rows"] == 20
    ids = [each["id"] for each in answer["predictions"]]
    assert said["clewline.prediction_ids"] == ids[:SHOWN_IDS]
    assert collector.resources[0]["service.name"] == "clewline"


def test_the_stages_of_a_request_follow_each_other(traced, collector):
    server, tracing = traced(collector.url)
    server.predict(ROW)
    tracing.close()
    spans = collector.get()
    parts = [spans[name] for name in ("predict", "queue", "compute", "log")]
    begins = [span.start_time_unix_nano for span in parts]
    assert begins == sorted(begins)
    for span in parts:
        assert span.start_time_unix_nano <= span.end_time_unix_nano
    node, compute = spans["node model"], spans["compute"]
    assert compute.start_time_unix_nano <= node.start_time_unix_nano
    assert node.end_time_unix_nano <= compute.end_time_unix_nano


def test_a_caller_that_is_not_sampled_has_no_spans(traced, collector):
    server, tracing = traced(collector.url)
    assert server.predict(ROW, traceparent=NOT_SAMPLED)[0] == 200
    tracing.close()
    assert not collector.get()


def test_the_span_of_a_refused_request_has_the_reason_and_is_no_error(traced, collector):
    server, tracing = traced(collector.url)
    assert server.predict({"age": "x"})[0] == 422
    tracing.close()
    predict = collector.get()["predict"]
    assert attributes(predict)["error.type"] == "invalid_input"
    assert predict.status.code == predict.status.STATUS_CODE_UNSET


def test_the_environment_decides_how_many_are_sampled(traced, collector, monkeypatch):
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "lending")
    server, tracing = traced(collector.url)
    assert server.predict(ROW)[0] == 200
    assert server.predict(ROW, traceparent=SAMPLED)[0] == 200
    tracing.close()
    assert attributes(collector.get()["predict"])["clewline.endpoint"] == "income"
    assert collector.resources == [collector.resources[0]]
    assert collector.resources[0]["service.name"] == "lending"


def test_requests_are_answered_if_the_collector_is_missing_or_hangs(traced):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        server, hangs = traced(f"http://127.0.0.1:{port}/v1/traces")
        assert {server.predict(ROW)[0] for _ in range(20)} == {200}
        closing = threading.Thread(target=hangs.close)
        closing.start()
    closing.join(10)
    assert not closing.is_alive()
    assert server.predict(ROW)[0] == 200


def test_a_collector_that_is_away_is_one_line_a_minute_in_our_words():
    words = _CollectorFilter()
    raw = "Transient error %s encountered while exporting span batch, retrying in %.2fs."
    error = ConnectionRefusedError("Max retries exceeded with url: /v1/traces")
    found = (type(error), error, None)
    record = logging.LogRecord("x", logging.ERROR, "", 0, raw, (error, 1.0), found)
    assert words.filter(record)
    said = logging.Formatter("%(levelname)s %(message)s").format(record)
    assert said == (
        "WARNING the collector at http://localhost:4318 takes no spans: it does not answer. "
        "Predictions go on. Start it, or name another with OTEL_EXPORTER_OTLP_ENDPOINT."
    )
    other = logging.LogRecord("x", logging.WARNING, "", 0, "Failed to export", (), None)
    assert not words.filter(other)
