"""
The REST routes: from a request to the endpoints, and from their answers to JSON.

    POST /v1/endpoints/NAME/predict    POST /v1/endpoints/NAME/load   …/unload
    GET  /v1/endpoints[/NAME]          GET  /v1/predictions[/ID]
    GET  /health/live   /health/ready  GET  /metrics
    GET  /openapi.json                 GET  /v1/endpoints/NAME/openapi.json
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import msgspec

from clewline.errors import BadRequest, ClewlineError
from clewline.protocols import metrics
from clewline.protocols.error_responses import coded_response, error_response
from clewline.protocols.health import ServerHealth
from clewline.protocols.http.request import HttpRequest, HttpResponse
from clewline.protocols.peer_workers import Readiness
from clewline.protocols.request_headers import run_on_thread
from clewline.protocols.rest.openapi import OpenApiDocuments
from clewline.protocols.rest.predict import admit, handle_predict
from clewline.protocols.route import POST, READ, HttpRoute, RouteGroup
from clewline.serve.access import Need
from clewline.serve.endpoint_server import EndpointServer
from clewline.serve.log import reader as log_reader
from clewline.serve.metrics.metric_families import MetricFamily, exposition_text
from clewline.serve.served_endpoint import ServedEndpoint, ServedRevision
from clewline.signature.field_rules import printable_text
from clewline.signature.json_rows import NameSuggestions
from clewline.store.ids import id_time_s

logger = logging.getLogger(__name__)

PAGE_ROWS = 50
"""Predictions of a page, unless its caller says otherwise …"""
MOST_PAGE_ROWS = 1000
"""… and at most."""

_encode = msgspec.json.encode


class RestRoutes:
    """Finds the routes of ours and answers them. Lives on the loop's thread."""

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
        self._fixed = {
            b"/v1/predictions": HttpRoute("predictions", "review", READ, self._read_page),
            b"/v1/endpoints": self._read("endpoints", "any", self._list),
            b"/health/live": self._read("live", None, self._live),
            b"/health/ready": self._read("ready", None, self.ready),
            b"/metrics": HttpRoute("metrics", "any", READ, self._metrics),
            b"/openapi.json": self._read("openapi", "any", self._openapi),
        }

    def find(self, path: bytes) -> HttpRoute | None:
        """Find the route of a path; raises `NotFound` for an endpoint that is not here."""
        if (name := between(path, b"/v1/endpoints/", b"/predict")) is not None:
            return self._predict(self.endpoints.get(name))
        if path in self._fixed:
            return self._fixed[path]
        for verb in (b"load", b"unload"):
            if (name := between(path, b"/v1/endpoints/", b"/" + verb)) is not None:
                return self._move(self.endpoints.get(name), verb.decode())
        if (name := between(path, b"/v1/endpoints/", b"/openapi.json")) is not None:
            endpoint = self.endpoints.get(name)
            return HttpRoute(
                "openapi", "any", READ, lambda request: self._describe(request, endpoint)
            )
        if (name := between(path, b"/v1/endpoints/", b"")) is not None:
            self.endpoints.get(name)
            return self._read("endpoint", "any", lambda: self._show(name))
        if (identifier := between(path, b"/v1/predictions/", b"")) is not None:
            return HttpRoute(
                "prediction",
                "review",
                READ,
                lambda request: self._read_prediction(request, identifier),
                keep=False,
            )
        return None

    def _predict(self, endpoint: ServedEndpoint) -> HttpRoute:
        return HttpRoute(
            "predict",
            "predict",
            POST,
            partial(handle_predict, self.endpoints, endpoint),
            admit,
            endpoint,
        )

    def _move(self, endpoint: ServedEndpoint, verb: str) -> HttpRoute:
        return HttpRoute(
            verb, "operate", POST, lambda request: self._do_move(request, endpoint, verb)
        )

    def _do_move(self, request: HttpRequest, endpoint: ServedEndpoint, verb: str) -> None:
        move = self.endpoints.load if verb == "load" else self.endpoints.unload

        async def do() -> None:
            try:
                await move(endpoint.name)
            except ClewlineError as error:
                request.answer(error_response(error))
            else:
                request.answer(HttpResponse(200, _encode(self._summary(endpoint))))

        task = asyncio.get_running_loop().create_task(do())
        self._tasks.add(task)  # the loop alone would let it be collected
        task.add_done_callback(self._tasks.discard)

    def _read(self, name: str, role: Need | None, answer: Callable[[], HttpResponse]) -> HttpRoute:
        return HttpRoute(name, role, READ, lambda request: request.answer(answer()))

    def _read_prediction(self, request: HttpRequest, identifier: str) -> None:
        loop = asyncio.get_running_loop()
        found = loop.run_in_executor(self.endpoints.threads, self._prediction, identifier)
        found.add_done_callback(lambda done: request.answer(done.result()))

    def _read_page(self, request: HttpRequest) -> None:
        asked = page_of(request.query)

        def answer(page: HttpResponse | ClewlineError) -> None:
            request.answer(error_response(page) if isinstance(page, ClewlineError) else page)

        run_on_thread(self.endpoints.threads, lambda: self._page(asked), answer)

    def _page(self, asked: Asked) -> HttpResponse:
        """Read a page of the log; on a thread."""
        page = log_reader.latest_predictions(
            self.endpoints.project.log,
            limit=asked.limit,
            before=asked.before,
            endpoint=asked.endpoint,
        )
        shown = {"predictions": [_shown(logged) for logged in page.items], "next": page.next}
        return HttpResponse(200, _encode(shown))

    def _list(self) -> HttpResponse:
        shown = [self._summary(endpoint) for endpoint in self.endpoints.endpoints.values()]
        return HttpResponse(
            200, _encode({"endpoints": sorted(shown, key=lambda e: str(e["endpoint"]))})
        )

    def _show(self, name: str) -> HttpResponse:
        endpoint = self.endpoints.get(name)
        summary = self._summary(endpoint)
        if endpoint.serving is not None:
            loaded = endpoint.serving.loaded
            summary["signature"] = loaded.signature
            summary["accepted"] = loaded.revision.accepted
            summary["packages"] = loaded.revision.packages
            summary["cost"] = {"fixed_s": loaded.cost.fixed_s, "row_s": loaded.cost.row_s}
        return HttpResponse(200, _encode(summary))

    def _summary(self, endpoint: ServedEndpoint) -> dict[str, Any]:
        summary: dict[str, Any] = {"endpoint": endpoint.name, "ready": endpoint.trouble is None}
        if endpoint.serving is not None:
            live = endpoint.serving.loaded.revision
            summary |= {"revision": live.ref, "models": live.models}
            summary |= {"waiting_rows": endpoint.serving.batcher.rows}
        if endpoint.trouble is not None:
            wanted = f"{endpoint.name}#{endpoint.wanted}"
            summary["failure"] = {"revision": wanted, "message": str(endpoint.trouble)}
        return summary

    def _live(self) -> HttpResponse:
        return HttpResponse(200, b'{"status":"live"}')

    def ready(self) -> HttpResponse:
        """Tell whether the server answers all that it should."""
        if self._health.draining:
            return coded_response("overloaded", "The server is stopping.", retry_after_s=1.0)
        failing = [e.name for e in self.endpoints.endpoints.values() if e.trouble is not None]
        if failing:
            message = f"Not ready: {', '.join(sorted(failing))}. GET /v1/endpoints says why."
            return coded_response("overloaded", message, retry_after_s=1.0)
        if self._health.peers is None:
            return HttpResponse(200, b'{"status":"ready"}')
        return _ready_team(self._health.peers.readiness())

    def _metrics(self, request: HttpRequest) -> None:
        def answer(written: bytes | ClewlineError) -> None:
            if isinstance(written, ClewlineError):
                request.answer(error_response(written))
            else:
                request.answer(HttpResponse(200, written, metrics.CONTENT_TYPE))

        def write(
            read: Callable[[], list[MetricFamily]],
        ) -> None:  # milliseconds, of many endpoints
            run_on_thread(self.endpoints.threads, lambda: exposition_text(read()), answer)

        own = metrics.collect(self.endpoints, self._health)
        if self._health.peers is None:
            write(lambda: own)
        else:
            self._health.peers.gather(own, write)

    def _openapi(self) -> HttpResponse:
        return HttpResponse(200, self._documents.document(self.endpoints.endpoints.values()))

    def _describe(self, request: HttpRequest, endpoint: ServedEndpoint) -> None:
        """Describe one endpoint, loaded first if it is cold."""

        def then(found: ServedRevision | ClewlineError) -> None:
            if isinstance(found, ClewlineError):
                request.answer(error_response(found))
            else:
                request.answer(HttpResponse(200, self._documents.document([endpoint])))

        self.endpoints.when_loaded(endpoint, then)

    def _prediction(self, identifier: str) -> HttpResponse:
        """Read a prediction and its line; on a thread, since it reads files."""
        from clewline.serve.prediction_lineage import why_prediction

        try:
            logged = log_reader.get_prediction(self.endpoints.project.log, identifier)
            why = why_prediction(self.endpoints.project, identifier)
        except ClewlineError as error:
            return error_response(error)
        except Exception:
            logger.exception("prediction %s could not be read", identifier)
            return coded_response(
                "fault", "The prediction could not be read. The server's log says why."
            )
        return HttpResponse(200, _encode(_shown(logged) | {"line": why}))


class Asked(NamedTuple):
    """Which predictions a caller wants to see."""

    endpoint: str | None
    limit: int
    before: str | None


def page_of(query: dict[str, str]) -> Asked:
    """
    Read which page of predictions is asked for.

    Raises:
        BadRequest: A parameter is not known, or the limit is none.
    """
    for name in query:
        if name not in Asked._fields:
            hint = NameSuggestions(Asked._fields).hint(name)
            raise BadRequest(
                f"There is no parameter {printable_text(name)!r}{hint}.",
                f"There are {', '.join(Asked._fields)}.",
            )
    text = query.get("limit", str(PAGE_ROWS))
    limit = int(text) if text.isascii() and text.isdigit() and len(text) < 5 else 0
    if not 0 < limit <= MOST_PAGE_ROWS:
        raise BadRequest(f"The limit is {printable_text(text)!r}.", f"Send 1 to {MOST_PAGE_ROWS}.")
    return Asked(query.get("endpoint"), limit, query.get("before"))


def _shown(logged: log_reader.LoggedPrediction) -> dict[str, Any]:
    return {
        "id": logged.id,
        "time": id_time_s(logged.id),
        "endpoint": logged.batch.endpoint,
        "revision": f"{logged.batch.endpoint}#{logged.batch.revision}",
        "entity": logged.entity,
        "row": logged.input,
        "answer": msgspec.Raw(logged.answer),
    }


def _ready_team(team: Readiness) -> HttpResponse:
    if team.ready == team.of:
        workers = {"ready": team.ready, "of": team.of}
        return HttpResponse(200, _encode({"status": "ready", "workers": workers}))
    message = f"{team.ready} of {team.of} workers are ready: {'; '.join(team.reasons)}."
    return coded_response("overloaded", message, retry_after_s=1.0)


def between(path: bytes, head: bytes, tail: bytes) -> str | None:
    """Give the one segment between a head and a tail of a path."""
    if not (path.startswith(head) and path.endswith(tail)):
        return None
    name = path[len(head) : len(path) - len(tail)]
    return name.decode("utf-8", "replace") if name and b"/" not in name else None
