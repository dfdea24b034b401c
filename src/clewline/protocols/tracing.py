"""
Spans of requests to predict, for OpenTelemetry: `clewline serve --otel`.

    predict ─┬─ load       where the endpoint was not in memory
             ├─ queue      until the first batch begins
             ├─ compute ─┬─ node NAME
             │           └─ …
             └─ log        until it is durable

The `OTEL_*` variables of the SDK say where spans go, how many wait, and which
requests are sampled; a caller's `traceparent` decides for its own. Spans are
made when the answer has left, and sent by a thread: a collector that is away
costs spans, never an answer.
"""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections.abc import Callable

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased
from opentelemetry.trace import Span, SpanKind, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from opentelemetry.util.types import AnyValue

from clewline.errors import ClewlineError
from clewline.protocols.http.error_responses import STATUS
from clewline.serve.log.frame import RoutePath
from clewline.serve.request.predict_request import (
    PredictRequest,
    PredictResponse,
    Reply,
    RequestTimings,
)
from clewline.store.ids import id_text
from clewline.version import __version__

SHOWN_IDS = 16
"""Prediction ids that a span names."""
SHOWN_NODES = 64
"""Nodes of a request that have spans."""
CLOSE_S = 3.0
"""How long a server that stops waits for the collector."""
REPEAT_S = 60.0
"""Shortest time between two messages about the collector."""
REASON_CHARACTERS = 120
SERVICE = "clewline"
TRACEPARENT_CHARACTERS = 55
"""Length of a traceparent of version 00 (W3C Trace Context)."""
NOISY_LOGGERS = (
    "opentelemetry.sdk._shared_internal",
    "opentelemetry.exporter.otlp.common.http",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
)


class RequestTracing:
    """
    Records spans of the requests that are sampled. Lives on the loop's thread.

    Args:
        exporter: Receives the spans; by default OTLP over HTTP, as `OTEL_EXPORTER_OTLP_*` says.
    """

    def __init__(self, exporter: SpanExporter | None = None) -> None:
        for name in NOISY_LOGGERS:
            if _in_our_words not in (filters := logging.getLogger(name).filters):
                filters.append(_in_our_words)
        about: dict[str, AnyValue] = {"service.version": __version__, "process.pid": os.getpid()}
        attributes = os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
        if "OTEL_SERVICE_NAME" not in os.environ and "service.name=" not in attributes:
            about["service.name"] = SERVICE
        provider = TracerProvider(resource=Resource.create(about), shutdown_on_exit=False)
        self._processor = BatchSpanProcessor(exporter or OTLPSpanExporter())
        provider.add_span_processor(self._processor)
        self._asks_parent = isinstance(provider.sampler, ParentBased)
        self._tracer = provider.get_tracer("clewline", __version__)
        self._propagator = TraceContextTextMapPropagator()

    def follow(self, endpoint: str, request: PredictRequest, reply: Reply) -> Reply:
        """Begin the span of a request; returns a callback to use in place of `reply`."""
        parent = None
        if request.trace is not None:
            text = request.trace["traceparent"]
            is_plain = len(text) == TRACEPARENT_CHARACTERS and text.startswith("00-")
            if self._asks_parent and is_plain and text.endswith("-00"):
                return reply  # not sampled, like most: seen without parsing
            parent = self._propagator.extract(request.trace)
        span = self._tracer.start_span("predict", parent, SpanKind.SERVER)
        if not span.is_recording():
            return reply
        timings = request.timings = RequestTimings(time.perf_counter())
        clock = time.time_ns() - int(timings.arrived * 1e9)
        span.set_attribute("clewline.endpoint", endpoint)

        def answered(result: PredictResponse | ClewlineError) -> None:
            over = time.time_ns()
            reply(result)
            _describe(span, result, timings)
            self._add_stages(span, timings, lambda at: clock + int(at * 1e9))
            span.end(over)

        return answered

    def close(self) -> None:
        """Send what waits; a collector that does not answer is not waited for."""
        closing = threading.Thread(target=self._processor.shutdown, daemon=True)
        closing.start()
        closing.join(CLOSE_S)

    def _add_stages(self, span: Span, timings: RequestTimings, ns: Callable[[float], int]) -> None:
        """Add a span for each stage that a request has passed."""

        def add(name: str, begin: float, end: float, parent: Span = span) -> Span:
            context = set_span_in_context(parent)
            stage = self._tracer.start_span(name, context, start_time=ns(begin))
            stage.end(ns(end))
            return stage

        if timings.waited:
            add("load", timings.arrived, timings.waited)
        if timings.begun:
            add("queue", timings.waited or timings.arrived, timings.begun)
        if not timings.answered:
            return
        compute = add("compute", timings.begun, timings.answered)
        # Times of nodes are measured, and stand one after another in the order of the graph.
        # Branches that ran side by side all begin at the start of what is left.
        spent_us = {name: us for path in _paths(timings) for name, us in path.path}
        begin, until = timings.begun, timings.answered
        for name, us in list(spent_us.items())[:SHOWN_NODES]:
            if begin + us / 1e6 > until:
                begin = max(timings.begun, until - us / 1e6)
            add(f"node {name}", begin, begin + us / 1e6, compute)
            begin += us / 1e6
        add("log", timings.answered, timings.logged)


def _paths(timings: RequestTimings) -> list[RoutePath]:
    return list({id(trace.path): trace.path for trace in timings.traces}.values())


def _describe(span: Span, result: PredictResponse | ClewlineError, timings: RequestTimings) -> None:
    """Set the attributes for the outcome of a request."""
    if timings.ids:
        span.set_attribute("clewline.prediction_ids", list(map(id_text, timings.ids[:SHOWN_IDS])))
    if paths := _paths(timings):
        span.set_attribute("clewline.model", sorted({path.model for path in paths})[:SHOWN_IDS])
        if arms := sorted({path.arm for path in paths if path.arm}):
            span.set_attribute("clewline.arm", arms[:SHOWN_IDS])
    if isinstance(result, PredictResponse):
        span.set_attribute("clewline.revision", result.revision)
        span.set_attribute("clewline.rows", len(result.predictions))
        return
    span.set_attribute("error.type", result.code)
    if STATUS.get(result.code, 500) >= 500:
        span.set_status(StatusCode.ERROR, result.message)


class _CollectorFilter(logging.Filter):
    """Says in one line, once in `REPEAT_S`, that the collector does not take spans."""

    def __init__(self) -> None:
        super().__init__()
        self._said = -math.inf

    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        if record.levelno < logging.WARNING or now - self._said < REPEAT_S:
            return False
        self._said = now
        text = record.getMessage()
        is_away = any(sign in text for sign in ("Max retries exceeded", "Connection", "timeout"))
        reason = "it does not answer" if is_away else text.split("\n")[0][:REASON_CHARACTERS]
        default = os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318")
        url = os.environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", default)
        record.levelno, record.levelname = logging.WARNING, "WARNING"
        record.exc_info = record.exc_text = record.stack_info = None
        record.args = (url, reason)
        record.msg = (
            "the collector at %s takes no spans: %s. Predictions go on. "
            "Start it, or name another with OTEL_EXPORTER_OTLP_ENDPOINT."
        )
        return True


_in_our_words = _CollectorFilter()
