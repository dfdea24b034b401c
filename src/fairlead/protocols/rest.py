"""
The REST routes: from a request to the endpoints, and from their answers to JSON.

    POST /v1/endpoints/NAME/predict    GET /v1/predictions/ID
    GET  /v1/endpoints[/NAME]          GET /health/live   /health/ready
    GET  /metrics                      GET /openapi.json
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote_to_bytes

import msgspec

from fairlead.errors import FairleadError, NotFound
from fairlead.protocols import metrics, openapi
from fairlead.protocols.http import Exchange, Refused, Response
from fairlead.protocols.status import of_code, of_error, of_refusal
from fairlead.serve import log_reader, revision
from fairlead.serve.ask import Ask
from fairlead.serve.endpoints import Endpoint, Endpoints
from fairlead.serve.once import Answer
from fairlead.store.ids import id_time_s

logger = logging.getLogger(__name__)

KEY_CHARACTERS = 255
"""How long an Idempotency-Key may be."""

READ = (b"GET", b"HEAD")
_encode = msgspec.json.encode


class Rest:
    """The application behind the HTTP server. Lives on the loop's thread."""

    def __init__(self, endpoints: Endpoints) -> None:
        self.endpoints = endpoints
        self.draining = False
        self.statuses: Counter[tuple[str, int]] = Counter()  # other routes' answers
        self._predict: dict[bytes, Endpoint] = {}  # target → endpoint, as it was asked before
        self._routes: dict[bytes, tuple[str, Callable[[], Response]]] = {
            b"/v1/endpoints": ("endpoints", self._list),
            b"/health/live": ("live", self._live),
            b"/health/ready": ("ready", self._ready),
            b"/metrics": ("metrics", self._metrics),
            b"/openapi.json": ("openapi", self._openapi),
        }

    def handle(self, exchange: Exchange) -> None:
        """Answer a request, now or later."""
        endpoint = self._predict.get(exchange.target)
        if endpoint is not None and exchange.method == b"POST":
            self._answer_predict(exchange, endpoint)
        else:
            self._find_route(exchange)

    def admit(self, exchange: Exchange) -> Response | None:
        """Judge a request to predict by its head, before its body is sent."""
        path = _path(exchange.target)
        if (name := _between(path, b"/v1/endpoints/", b"/predict")) is None:
            return None
        try:
            self.endpoints.get(name)
        except FairleadError as error:
            return of_error(error)
        return _wrong_head(exchange)

    def refuse(self, refused: Refused) -> Response:
        """Give the answer to what the HTTP server refuses."""
        self.statuses["refused", refused.status] += 1
        return of_refusal(refused)

    def _answer_predict(self, exchange: Exchange, endpoint: Endpoint) -> None:
        prediction = _Prediction(exchange, endpoint)
        headers = exchange.headers
        plain = headers.get(b"content-type") == b"application/json"
        if (not plain or b"content-encoding" in headers) and (wrong := _wrong_head(exchange)):
            prediction.answer(wrong)
            return
        key = None
        if b"idempotency-key" in headers:
            key = headers[b"idempotency-key"].decode("latin-1")
            if not 0 < len(key) <= KEY_CHARACTERS:
                prediction.answer(_wrong_key(key))
                return
        ask = Ask(exchange.body, key=key, abandoned=exchange.is_abandoned)
        self.endpoints.predict(endpoint, ask, prediction)

    def _find_route(self, exchange: Exchange) -> None:
        path = _path(exchange.target)
        if (name := _between(path, b"/v1/endpoints/", b"/predict")) is not None:
            self._route_predict(exchange, name)
        elif path in self._routes:
            route, answer = self._routes[path]
            self._read(exchange, route, answer)
        elif (name := _between(path, b"/v1/endpoints/", b"")) is not None:
            self._read(exchange, "endpoint", lambda: self._show(name))
        elif (identifier := _between(path, b"/v1/predictions/", b"")) is not None:
            self._read_prediction(exchange, identifier)
        else:
            shown = path.decode("utf-8", "replace")[:200]
            error = NotFound(f"There is nothing at {shown}.", "GET /openapi.json lists the routes.")
            self._reply(exchange, "unknown", of_error(error))

    def _route_predict(self, exchange: Exchange, name: str) -> None:
        try:
            endpoint = self.endpoints.get(name)
        except FairleadError as error:
            self._reply(exchange, "predict", of_error(error))
            return
        if exchange.method != b"POST":
            self._reply(exchange, "predict", _wrong_method(exchange, b"POST"))
            return
        if exchange.target == b"/v1/endpoints/%b/predict" % name.encode():
            self._predict[exchange.target] = endpoint  # one spelling each: others have no end
        self._answer_predict(exchange, endpoint)

    def _read(self, exchange: Exchange, route: str, answer: Callable[[], Response]) -> None:
        if exchange.method not in READ:
            self._reply(exchange, route, _wrong_method(exchange, b"GET, HEAD"))
            return
        try:
            response = answer()
        except FairleadError as error:
            response = of_error(error)
        self._reply(exchange, route, response)

    def _read_prediction(self, exchange: Exchange, identifier: str) -> None:
        if exchange.method not in READ:
            self._reply(exchange, "prediction", _wrong_method(exchange, b"GET, HEAD"))
            return
        loop = asyncio.get_running_loop()
        found = loop.run_in_executor(self.endpoints.threads, self._prediction, identifier)
        found.add_done_callback(lambda done: self._reply(exchange, "prediction", done.result()))

    def _reply(self, exchange: Exchange, route: str, response: Response) -> None:
        self.statuses[route, response.status] += 1
        exchange.answer(response)

    def _list(self) -> Response:
        shown = [self._summary(endpoint) for endpoint in self.endpoints.endpoints.values()]
        return Response(
            200, _encode({"endpoints": sorted(shown, key=lambda e: str(e["endpoint"]))})
        )

    def _show(self, name: str) -> Response:
        endpoint = self.endpoints.get(name)
        summary = self._summary(endpoint)
        if endpoint.serving is not None:
            loaded = endpoint.serving.loaded
            summary["signature"] = loaded.signature
            summary["accepted"] = loaded.revision.accepted
            summary["packages"] = loaded.revision.packages
            summary["cost"] = {"fixed_s": loaded.cost.fixed_s, "row_s": loaded.cost.row_s}
        return Response(200, _encode(summary))

    def _summary(self, endpoint: Endpoint) -> dict[str, Any]:
        summary: dict[str, Any] = {"endpoint": endpoint.name, "ready": endpoint.failure is None}
        if endpoint.serving is not None:
            live = endpoint.serving.loaded.revision
            summary |= {"revision": revision.ref(live), "models": live.models}
            summary |= {"waiting_rows": endpoint.serving.lane.rows}
        if endpoint.failure is not None:
            wanted = f"{endpoint.name}#{endpoint.wanted}"
            summary["failure"] = {"revision": wanted, "message": str(endpoint.failure)}
        return summary

    def _live(self) -> Response:
        return Response(200, b'{"status":"live"}')

    def _ready(self) -> Response:
        if self.draining:
            return of_code("overloaded", "The server is stopping.", retry_after_s=1.0)
        failing = [e.name for e in self.endpoints.endpoints.values() if e.failure is not None]
        if failing:
            message = f"Not ready: {', '.join(sorted(failing))}. GET /v1/endpoints says why."
            return of_code("overloaded", message, retry_after_s=1.0)
        return Response(200, b'{"status":"ready"}')

    def _metrics(self) -> Response:
        text = metrics.render(self.endpoints.endpoints.values(), self.statuses)
        return Response(200, text, metrics.CONTENT_TYPE)

    def _openapi(self) -> Response:
        return Response(200, _encode(openapi.document(self.endpoints.endpoints.values())))

    def _prediction(self, identifier: str) -> Response:
        """Read a prediction and its line; on a thread, since it reads files."""
        from fairlead.serve import line

        try:
            logged = log_reader.get(self.endpoints.project.log, identifier)
            why = line.why(self.endpoints.project, identifier)
        except FairleadError as error:
            return of_error(error)
        except Exception:
            logger.exception("prediction %s could not be read", identifier)
            return of_code("fault", "The prediction could not be read. The server's log says why.")
        shown = {
            "id": logged.id,
            "time": id_time_s(logged.id),
            "endpoint": logged.frame.endpoint,
            "revision": f"{logged.frame.endpoint}#{logged.frame.revision}",
            "entity": logged.entity,
            "row": logged.input,
            "answer": msgspec.Raw(logged.answer),
            "line": why,
        }
        return Response(200, _encode(shown))


class _Prediction:
    """The answer that is owed to a request to predict; called with what became of it."""

    __slots__ = ("_endpoint", "_exchange", "_started")

    def __init__(self, exchange: Exchange, endpoint: Endpoint) -> None:
        self._exchange = exchange
        self._endpoint = endpoint
        self._started = time.perf_counter()

    def __call__(self, result: Answer | FairleadError) -> None:
        if isinstance(result, FairleadError):
            self.answer(of_error(result))
            return
        body = b'{"revision":"%b","predictions":[%b]}' % (
            result.revision.encode(),
            b",".join(result.predictions),
        )
        self.answer(Response(200, body))

    def answer(self, response: Response) -> None:
        times = self._endpoint.times
        times.request.observe(time.perf_counter() - self._started)
        times.statuses[response.status] += 1
        self._exchange.answer(response)


def _path(target: bytes) -> bytes:
    """Give the path of a target: without query, without the origin of an absolute form."""
    path = target.partition(b"?")[0]
    if not path.startswith(b"/") and b"://" in path:
        path = b"/" + path.partition(b"://")[2].partition(b"/")[2]
    return unquote_to_bytes(path) if b"%" in path else path


def _between(path: bytes, head: bytes, tail: bytes) -> str | None:
    """Give the one segment between a head and a tail of a path."""
    if not (path.startswith(head) and path.endswith(tail)):
        return None
    name = path[len(head) : len(path) - len(tail)]
    return name.decode("utf-8", "replace") if name and b"/" not in name else None


def _wrong_head(exchange: Exchange) -> Response | None:
    """Refuse a body that is not plain JSON."""
    kind = exchange.headers.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if kind != b"application/json":
        shown = kind.decode("latin-1") or "missing"
        message = f"The content type is {shown}. Send the rows as application/json."
        return of_code("unsupported_media_type", message)
    coding = exchange.headers.get(b"content-encoding", b"identity").strip().lower()
    if coding != b"identity":
        message = f"Content-Encoding {coding.decode('latin-1')} is not read here. Send plain JSON."
        return of_code("unsupported_media_type", message)
    return None


def _wrong_key(key: str) -> Response:
    message = f"The Idempotency-Key has {len(key)} characters. Send 1 to {KEY_CHARACTERS}."
    return of_code("bad_request", message)


def _wrong_method(exchange: Exchange, allowed: bytes) -> Response:
    message = f"{exchange.method.decode()} is not answered here. Use {allowed.decode()}."
    return of_code("method_not_allowed", message, headers=((b"allow", allowed),))
