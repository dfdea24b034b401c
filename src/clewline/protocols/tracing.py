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

from clewline import __version__
from clewline.errors import ClewlineError
from clewline.protocols.error_responses import STATUS
from clewline.serve.metrics.request_timings import RequestTimings
from clewline.serve.predict_request import PredictRequest
from clewline.serve.predict_response import PredictResponse, Reply
from clewline.store.ids import id_text

SHOWN_IDS = 16
"""Prediction ids that a span names."""
SHOWN_NODES = 64
"""Nodes of a request that have spans."""
CLOSE_S = 3.0
"""How long a server that stops waits for the collector."""
SAY_S = 60.0
"""How often the same trouble with the collector is written to the server's log."""
SERVICE = "clewline"
LENGTH = 55
"""Characters of a traceparent of version 00."""


class RequestTracing:
    """
    Records spans of the requests that are sampled. Lives on the loop's thread.

    Args:
        exporter: Where spans go; by default OTLP over HTTP, as `OTEL_EXPORTER_OTLP_*` says.
    """

    def __init__(self, exporter: SpanExporter | None = None) -> None:
        _say_seldom()
        self._processor = BatchSpanProcessor(exporter or OTLPSpanExporter())
        provider = TracerProvider(resource=_resource(), shutdown_on_exit=False)
        provider.add_span_processor(self._processor)
        self._asks_parent = isinstance(provider.sampler, ParentBased)
        self._tracer = provider.get_tracer("clewline", __version__)
        self._propagator = TraceContextTextMapPropagator()

    def follow(self, endpoint: str, ask: PredictRequest, reply: Reply) -> Reply:
        """Begin the span of a request; gives what is to be told of its answer."""
        if ask.trace is not None and self._asks_parent and _is_unsampled(ask.trace):
            return reply
        parent = None if ask.trace is None else self._propagator.extract(ask.trace)
        span = self._tracer.start_span("predict", parent, SpanKind.SERVER)
        if not span.is_recording():
            return reply
        stamps = ask.stamps = RequestTimings(time.perf_counter())
        clock = time.time_ns() - int(stamps.arrived * 1e9)
        span.set_attribute("clewline.endpoint", endpoint)

        def answered(result: PredictResponse | ClewlineError) -> None:
            over = time.time_ns()
            reply(result)
            _describe(span, result, stamps)
            self._parts(span, stamps, lambda at: clock + int(at * 1e9))
            span.end(over)

        return answered

    def close(self) -> None:
        """Send what waits; a collector that does not answer is not waited for."""
        closing = threading.Thread(target=self._processor.shutdown, daemon=True)
        closing.start()
        closing.join(CLOSE_S)

    def _parts(self, span: Span, stamps: RequestTimings, at: Callable[[float], int]) -> None:
        """Record the parts that a request has gone through."""
        context = set_span_in_context(span)

        def part(name: str, begin: float, end: float, inside: Span | None = None) -> Span:
            around = context if inside is None else set_span_in_context(inside)
            made = self._tracer.start_span(name, around, start_time=at(begin))
            made.end(at(end))
            return made

        if stamps.waited:
            part("load", stamps.arrived, stamps.waited)
        if stamps.begun:
            part("queue", stamps.waited or stamps.arrived, stamps.begun)
        if stamps.answered:
            compute = part("compute", stamps.begun, stamps.answered)
            for name, begin, end in _nodes(stamps):
                part(f"node {name}", begin, end, compute)
            part("log", stamps.answered, stamps.logged)


def _is_unsampled(carrier: dict[str, str]) -> bool:
    """Tell at once that a caller has decided against spans, as most do."""
    text = carrier["traceparent"]
    return len(text) == LENGTH and text.startswith("00-") and text.endswith("-00")


def _describe(span: Span, result: PredictResponse | ClewlineError, stamps: RequestTimings) -> None:
    """Say of a request what became of it."""
    if stamps.ids:
        span.set_attribute("clewline.prediction_ids", list(map(id_text, stamps.ids[:SHOWN_IDS])))
    if stamps.trails:
        ways = {id(trail.path): trail.path for trail in stamps.trails}.values()
        span.set_attribute("clewline.model", sorted({way.model for way in ways})[:SHOWN_IDS])
        if arms := sorted({way.arm for way in ways if way.arm}):
            span.set_attribute("clewline.arm", arms[:SHOWN_IDS])
    if isinstance(result, PredictResponse):
        span.set_attribute("clewline.revision", result.revision)
        span.set_attribute("clewline.rows", len(result.predictions))
        return
    span.set_attribute("error.type", result.code)
    if STATUS.get(result.code, 500) >= 500:
        span.set_status(StatusCode.ERROR, result.message)


def _nodes(stamps: RequestTimings) -> list[tuple[str, float, float]]:
    """
    Give the nodes that rows went through, each with its begin and end.

    Their times are measured, and stand one after another as the graph has them;
    branches that ran beside each other all stand at the begin of what is left.
    """
    ways = {id(trail.path): trail.path for trail in stamps.trails}.values()
    spent_us = {name: us for way in ways for name, us in way.path}
    found, begin, until = [], stamps.begun, stamps.answered
    for name, us in list(spent_us.items())[:SHOWN_NODES]:
        if begin + us / 1e6 > until:
            begin = max(stamps.begun, until - us / 1e6)
        found.append((name, begin, begin + us / 1e6))
        begin += us / 1e6
    return found


def _resource() -> Resource:
    """Say who traces; what the environment says of it comes first."""
    said: dict[str, AnyValue] = {"service.version": __version__, "process.pid": os.getpid()}
    attributes = os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    if "OTEL_SERVICE_NAME" not in os.environ and "service.name=" not in attributes:
        said["service.name"] = SERVICE
    return Resource.create(said)


def _say_seldom() -> None:
    """Keep the SDK from a line for every span that finds no collector."""
    for name in NOISY:
        logger = logging.getLogger(name)
        if not any(isinstance(each, _Seldom) for each in logger.filters):
            logger.addFilter(_Seldom())


NOISY = (
    "opentelemetry.sdk._shared_internal",
    "opentelemetry.exporter.otlp.common.http",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
)


class _Seldom(logging.Filter):
    """Lets each kind of message pass once in `SAY_S`."""

    def __init__(self) -> None:
        super().__init__()
        self._said: dict[object, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        if now - self._said.get(record.msg, -SAY_S) < SAY_S:
            return False
        self._said[record.msg] = now
        return True
