"""
The REST routes: from a request to the endpoints, and from their answers to JSON.

    POST /v1/endpoints/NAME/predict    POST /v1/endpoints/NAME/load   …/unload
    GET  /v1/endpoints[/NAME]          GET  /v1/predictions[/ID]
    POST /v1/predictions/ID/explain    GET  /v1/predictions/ID/explanations
    GET  /health/live   /health/ready  GET  /metrics
    GET  /openapi.json                 GET  /v1/endpoints/NAME/openapi.json
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from heapq import nsmallest
from operator import attrgetter
from typing import Any, NamedTuple

import msgspec

from clewline.errors import BadRequest, ClewlineError
from clewline.protocols.http.error_responses import coded_response, error_response, unless_error
from clewline.protocols.http.health import ServerHealth
from clewline.protocols.http.request import HttpRequest, HttpResponse
from clewline.protocols.http.request_headers import run_on_thread
from clewline.protocols.http.route import POST, READ, HttpRoute, RouteGroup
from clewline.protocols.http.shared_answer import LARGE, SharedAnswer
from clewline.protocols.rest import metrics
from clewline.protocols.rest.explanations import handle_explain, list_explanations
from clewline.protocols.rest.openapi import OpenApiDocuments
from clewline.protocols.rest.predict import admit, handle_predict
from clewline.serve.access import Need
from clewline.serve.endpoint_server import HELD_S, EndpointServer
from clewline.serve.log import reader as log_reader
from clewline.serve.metrics.metric_families import (
    MetricFamily,
    exposition_text,
    merge_families,
)
from clewline.serve.served_endpoint import ServedEndpoint, ServedRevision
from clewline.signature.field_rules import printable_text
from clewline.signature.json_rows import NameSuggestions
from clewline.store.ids import id_time_s

PAGE_ROWS = 50
"""Default number of predictions on a page."""
MAX_PAGE_ROWS = 1000
NAMED = 20
"""Endpoints that the answer of a server names which is not ready."""
UNREADY_S = 0.25
"""How old the state of more than `LARGE` endpoints may be, which is read on the event loop."""
DESCRIBED_AT_ONCE = 8
"""Endpoints whose document is made on the event loop: each takes some 0.2 ms."""

_encode = msgspec.json.encode


class RestRoutes:
    """The routes of our own protocol. Lives on the loop's thread."""

    def __init__(
        self,
        endpoints: EndpointServer,
        health: ServerHealth,
        documented: Sequence[RouteGroup] = (),
    ) -> None:
        self.endpoints = endpoints
        self._documents = OpenApiDocuments(documented)
        self._health = health
        self._tasks: set[asyncio.Task[None]] = set()
        self._summaries = SharedAnswer(
            endpoints.threads, self._summarize, lambda: len(endpoints.endpoints) > LARGE
        )
        self._server_document = SharedAnswer(
            endpoints.threads,
            lambda: self._document(list(endpoints.endpoints.values())),
            lambda: len(endpoints.endpoints) > DESCRIBED_AT_ONCE,
        )
        self._unready: list[str] = []
        self._unready_until = 0.0
        self._fixed = {
            b"/v1/predictions": HttpRoute("predictions", "review", READ, self._read_page),
            b"/v1/endpoints": HttpRoute("endpoints", "any", READ, self._list),
            b"/health/live": _read_route(
                "live", None, lambda: HttpResponse(200, b'{"status":"live"}')
            ),
            b"/health/ready": _read_route("ready", None, self.ready),
            b"/metrics": HttpRoute("metrics", "any", READ, self._metrics),
            b"/openapi.json": HttpRoute("openapi", "any", READ, self._describe_all),
        }

    def find(self, path: bytes) -> HttpRoute | None:
        """Return the route of a path; raise `NotFound` for an unknown endpoint."""
        if path in self._fixed:
            return self._fixed[path]
        root, _, rest = path.removeprefix(b"/v1/").decode("utf-8", "replace").partition("/")
        name, _, verb = rest.partition("/")
        if not path.startswith(b"/v1/") or not name:
            return None
        if root == "predictions":
            return self._prediction_route(name, verb)
        if root != "endpoints" or verb not in ("", "predict", "load", "unload", "openapi.json"):
            return None
        endpoint = self.endpoints.get(name)
        if verb == "predict":
            handle = partial(handle_predict, self.endpoints, endpoint)
            return HttpRoute("predict", "predict", POST, handle, admit, endpoint)
        if verb == "openapi.json":
            return HttpRoute("openapi", "any", READ, partial(self._describe, endpoint))
        if verb:
            return HttpRoute(verb, "operate", POST, partial(self._load_or_unload, endpoint, verb))
        return _read_route("endpoint", "any", partial(self._show, endpoint))

    def _prediction_route(self, identifier: str, verb: str) -> HttpRoute | None:
        if not verb:
            read = partial(self._read_prediction, identifier)
            return HttpRoute("prediction", "review", READ, read, keep=False)
        if verb == "explanations":
            read = partial(self._read_explanations, identifier)
            return HttpRoute("explanations", "review", READ, read, keep=False)
        if verb == "explain":
            explain = partial(handle_explain, self._health.explanations, identifier)
            return HttpRoute("explain", "review", POST, explain, keep=False)
        return None

    def _load_or_unload(self, endpoint: ServedEndpoint, verb: str, request: HttpRequest) -> None:
        change = self.endpoints.load if verb == "load" else self.endpoints.unload

        async def answer() -> None:
            try:
                await change(endpoint.name)
            except ClewlineError as error:
                request.answer(error_response(error))
            else:
                request.answer(HttpResponse(200, _encode(_summary(endpoint))))

        task = asyncio.get_running_loop().create_task(answer())
        self._tasks.add(task)  # the loop alone would let it be collected
        task.add_done_callback(self._tasks.discard)

    def _list(self, request: HttpRequest) -> None:
        self._summaries.ask(unless_error(request, None, request.answer))

    def _summarize(self) -> HttpResponse:
        endpoints = sorted(self.endpoints.endpoints.values(), key=attrgetter("name"))
        return HttpResponse(200, _encode({"endpoints": [_summary(each) for each in endpoints]}))

    def _show(self, endpoint: ServedEndpoint) -> HttpResponse:
        summary = _summary(endpoint)
        if endpoint.serving is not None:
            loaded = endpoint.serving.loaded
            summary["signature"] = loaded.signature
            summary["accepted"] = loaded.revision.accepted
            summary["packages"] = loaded.revision.packages
            summary["cost"] = {"fixed_s": loaded.cost.fixed_s, "row_s": loaded.cost.row_s}
        return HttpResponse(200, _encode(summary))

    def _document(self, endpoints: Iterable[ServedEndpoint]) -> HttpResponse:
        return HttpResponse(200, self._documents.document(endpoints))

    def _describe_all(self, request: HttpRequest) -> None:
        self._server_document.ask(unless_error(request, None, request.answer))

    def _describe(self, endpoint: ServedEndpoint, request: HttpRequest) -> None:
        """Answer with the OpenAPI document of one endpoint, which is loaded first if it is cold."""

        def answer(_: ServedRevision) -> None:
            request.answer(self._document([endpoint]))

        self.endpoints.when_loaded(endpoint, unless_error(request, None, answer))

    def ready(self) -> HttpResponse:
        """Answer whether every endpoint, and every worker, is ready."""
        if self._health.draining:
            return coded_response("overloaded", "The server is stopping.", retry_after_s=1.0)
        if unready := self._unready_endpoints():
            more = f" and {len(unready) - NAMED} more" if len(unready) > NAMED else ""
            names = ", ".join(nsmallest(NAMED, unready))
            message = f"Not ready: {names}{more}. GET /v1/endpoints has the reasons."
            return coded_response("overloaded", message, retry_after_s=1.0)
        if (held_s := self.endpoints.held_s) > HELD_S:
            message = f"Not ready: every compute thread has been busy for {held_s:.0f} s."
            return coded_response("overloaded", message, retry_after_s=1.0)
        if self._health.peers is None:
            return HttpResponse(200, b'{"status":"ready"}')
        workers = self._health.peers.readiness()
        if workers.ready < workers.of:
            reasons = "; ".join(workers.reasons)
            message = f"{workers.ready} of {workers.of} workers are ready: {reasons}."
            return coded_response("overloaded", message, retry_after_s=1.0)
        shown = {"status": "ready", "workers": {"ready": workers.ready, "of": workers.of}}
        return HttpResponse(200, _encode(shown))

    def _unready_endpoints(self) -> list[str]:
        """Name the endpoints that do not answer; of very many, as they were a moment ago."""
        endpoints, now = self.endpoints.endpoints, time.monotonic()
        if len(endpoints) <= LARGE or now >= self._unready_until:
            self._unready = [
                each.name if each.trouble is not None else f"{each.name} (it loads)"
                for each in endpoints.values()
                if not each.ready
            ]
            self._unready_until = now + UNREADY_S
        return self._unready

    def _metrics(self, request: HttpRequest) -> None:
        def write(read: Callable[[], list[MetricFamily]]) -> None:
            def work() -> HttpResponse:  # takes milliseconds with many endpoints
                return HttpResponse(200, exposition_text(read()), metrics.CONTENT_TYPE)

            self._answer_from_thread(request, work)

        own = metrics.collect(self.endpoints, self._health)
        if self._health.peers is None:
            write(lambda: merge_families([own, *self._health.explaining()]))
        else:
            self._health.peers.gather(own, write)

    def _read_page(self, request: HttpRequest) -> None:
        query = prediction_query(request.query)

        def read() -> HttpResponse:
            page = log_reader.latest_predictions(
                self.endpoints.project.log,
                limit=query.limit,
                before=query.before,
                endpoint=query.endpoint,
                tried=query.tried,
            )
            shown = {"predictions": [_shown(each) for each in page.items], "next": page.next}
            return HttpResponse(200, _encode(shown))

        self._answer_from_thread(request, read)

    def _read_prediction(self, identifier: str, request: HttpRequest) -> None:
        def read() -> HttpResponse:
            from clewline.serve.prediction_lineage import why_prediction

            logged = log_reader.get_prediction(self.endpoints.project.log, identifier)
            why = why_prediction(self.endpoints.project, identifier)
            return HttpResponse(200, _encode(_shown(logged) | {"line": why}))

        self._answer_from_thread(request, read)

    def _read_explanations(self, identifier: str, request: HttpRequest) -> None:
        read = partial(list_explanations, self.endpoints.project, identifier)
        self._answer_from_thread(request, read)

    def _answer_from_thread(self, request: HttpRequest, work: Callable[[], HttpResponse]) -> None:
        run_on_thread(self.endpoints.threads, work, unless_error(request, None, request.answer))


class PredictionQuery(NamedTuple):
    """Which logged predictions a caller asks for."""

    endpoint: str | None
    limit: int
    before: str | None
    tried: bool | None = None


def prediction_query(parameters: dict[str, str]) -> PredictionQuery:
    """
    Read which page of predictions a request asks for.

    Raises:
        BadRequest: A parameter is unknown, or the limit or `tried` is not valid.
    """
    known = PredictionQuery._fields
    for name in parameters:
        if name not in known:
            hint = NameSuggestions(known).hint(name)
            raise BadRequest(
                f"There is no parameter {printable_text(name)!r}{hint}.",
                f"The parameters are {', '.join(known)}.",
            )
    text = parameters.get("limit", str(PAGE_ROWS))
    limit = int(text) if text.isascii() and text.isdigit() and len(text) < 5 else 0
    if not 0 < limit <= MAX_PAGE_ROWS:
        raise BadRequest(f"The limit is {printable_text(text)!r}.", f"Send 1 to {MAX_PAGE_ROWS}.")
    tried = parameters.get("tried")
    if tried not in (None, "true", "false"):
        raise BadRequest(f"tried is {printable_text(tried)!r}.", "Send true or false.")
    return PredictionQuery(
        parameters.get("endpoint"),
        limit,
        parameters.get("before"),
        None if tried is None else tried == "true",
    )


def _read_route(name: str, role: Need | None, answer: Callable[[], HttpResponse]) -> HttpRoute:
    return HttpRoute(name, role, READ, lambda request: request.answer(answer()))


def _summary(endpoint: ServedEndpoint) -> dict[str, Any]:
    """Describe an endpoint; on any thread."""
    is_ready = endpoint.ready and endpoint.state != "unloaded"
    summary: dict[str, Any] = {"endpoint": endpoint.name, "ready": is_ready}
    if (serving := endpoint.serving) is not None:
        live = serving.loaded.revision
        summary |= {"revision": live.ref, "models": live.models}
        summary |= {"waiting_rows": serving.batcher.rows}
    if (trouble := endpoint.trouble) is not None:
        wanted = f"{endpoint.name}#{endpoint.wanted}"
        summary["failure"] = {"revision": wanted, "message": str(trouble)}
    return summary


def _shown(logged: log_reader.LoggedPrediction) -> dict[str, Any]:
    return {
        "id": logged.id,
        "time": id_time_s(logged.id),
        "endpoint": logged.batch.endpoint,
        "revision": f"{logged.batch.endpoint}#{logged.batch.revision}",
        "entity": logged.entity,
        "tried": logged.tried,
        "row": logged.input,
        "answer": msgspec.Raw(logged.answer),
    }
