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
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from clewline.errors import BadRequest, ClewlineError
from clewline.protocols import metrics, openapi, predicting
from clewline.protocols.asking import later
from clewline.protocols.health import Readiness, ServerHealth
from clewline.protocols.http.exchange import Exchange, Response
from clewline.protocols.route import POST, READ, Route
from clewline.protocols.status import of_code, of_error
from clewline.serve.access import Need
from clewline.serve.endpoints import Endpoint, Endpoints, Serving
from clewline.serve.log import reader as log_reader
from clewline.serve.metrics import shared_metrics
from clewline.serve.metrics.shared_metrics import MetricFamily
from clewline.serve.spec import revision
from clewline.signature.field_rules import printable_text
from clewline.signature.json_rows import NameSuggestions
from clewline.store.ids import id_time_s

logger = logging.getLogger(__name__)

PAGE_ROWS = 50
"""Predictions of a page, unless its caller says otherwise …"""
MOST_PAGE_ROWS = 1000
"""… and at most."""

_encode = msgspec.json.encode


class Rest:
    """Finds the routes of ours and answers them. Lives on the loop's thread."""

    def __init__(self, endpoints: Endpoints, vitals: ServerHealth) -> None:
        self.endpoints = endpoints
        self._vitals = vitals
        self._tasks: set[asyncio.Task[None]] = set()
        self._fixed = {
            b"/v1/predictions": Route("predictions", "review", READ, self._read_page),
            b"/v1/endpoints": self._read("endpoints", "any", self._list),
            b"/health/live": self._read("live", None, self._live),
            b"/health/ready": self._read("ready", None, self.ready),
            b"/metrics": Route("metrics", "any", READ, self._metrics),
            b"/openapi.json": self._read("openapi", "any", self._openapi),
        }

    def find(self, path: bytes) -> Route | None:
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
            return Route(
                "openapi", "any", READ, lambda exchange: self._describe(exchange, endpoint)
            )
        if (name := between(path, b"/v1/endpoints/", b"")) is not None:
            self.endpoints.get(name)
            return self._read("endpoint", "any", lambda: self._show(name))
        if (identifier := between(path, b"/v1/predictions/", b"")) is not None:
            return Route(
                "prediction",
                "review",
                READ,
                lambda exchange: self._read_prediction(exchange, identifier),
                keep=False,
            )
        return None

    def _predict(self, endpoint: Endpoint) -> Route:
        return Route(
            "predict",
            "predict",
            POST,
            lambda exchange: predicting.predict(self.endpoints, exchange, endpoint),
            predicting.admit,
            endpoint,
        )

    def _move(self, endpoint: Endpoint, verb: str) -> Route:
        return Route(
            verb, "operate", POST, lambda exchange: self._do_move(exchange, endpoint, verb)
        )

    def _do_move(self, exchange: Exchange, endpoint: Endpoint, verb: str) -> None:
        move = self.endpoints.load if verb == "load" else self.endpoints.unload

        async def do() -> None:
            try:
                await move(endpoint.name)
            except ClewlineError as error:
                exchange.answer(of_error(error))
            else:
                exchange.answer(Response(200, _encode(self._summary(endpoint))))

        task = asyncio.get_running_loop().create_task(do())
        self._tasks.add(task)  # the loop alone would let it be collected
        task.add_done_callback(self._tasks.discard)

    def _read(self, name: str, role: Need | None, answer: Callable[[], Response]) -> Route:
        return Route(name, role, READ, lambda exchange: exchange.answer(answer()))

    def _read_prediction(self, exchange: Exchange, identifier: str) -> None:
        loop = asyncio.get_running_loop()
        found = loop.run_in_executor(self.endpoints.threads, self._prediction, identifier)
        found.add_done_callback(lambda done: exchange.answer(done.result()))

    def _read_page(self, exchange: Exchange) -> None:
        asked = page_of(exchange.query)

        def answer(page: Response | ClewlineError) -> None:
            exchange.answer(of_error(page) if isinstance(page, ClewlineError) else page)

        later(self.endpoints.threads, lambda: self._page(asked), answer)

    def _page(self, asked: Asked) -> Response:
        """Read a page of the log; on a thread."""
        page = log_reader.latest_predictions(
            self.endpoints.project.log,
            limit=asked.limit,
            before=asked.before,
            endpoint=asked.endpoint,
        )
        shown = {"predictions": [_shown(logged) for logged in page.items], "next": page.next}
        return Response(200, _encode(shown))

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
        summary: dict[str, Any] = {"endpoint": endpoint.name, "ready": endpoint.trouble is None}
        if endpoint.serving is not None:
            live = endpoint.serving.loaded.revision
            summary |= {"revision": revision.ref(live), "models": live.models}
            summary |= {"waiting_rows": endpoint.serving.lane.rows}
        if endpoint.trouble is not None:
            wanted = f"{endpoint.name}#{endpoint.wanted}"
            summary["failure"] = {"revision": wanted, "message": str(endpoint.trouble)}
        return summary

    def _live(self) -> Response:
        return Response(200, b'{"status":"live"}')

    def ready(self) -> Response:
        """Tell whether the server answers all that it should."""
        if self._vitals.draining:
            return of_code("overloaded", "The server is stopping.", retry_after_s=1.0)
        failing = [e.name for e in self.endpoints.endpoints.values() if e.trouble is not None]
        if failing:
            message = f"Not ready: {', '.join(sorted(failing))}. GET /v1/endpoints says why."
            return of_code("overloaded", message, retry_after_s=1.0)
        if self._vitals.peers is None:
            return Response(200, b'{"status":"ready"}')
        return _ready_team(self._vitals.peers.readiness())

    def _metrics(self, exchange: Exchange) -> None:
        def answer(written: bytes | ClewlineError) -> None:
            if isinstance(written, ClewlineError):
                exchange.answer(of_error(written))
            else:
                exchange.answer(Response(200, written, metrics.CONTENT_TYPE))

        def write(
            read: Callable[[], list[MetricFamily]],
        ) -> None:  # milliseconds, of many endpoints
            later(self.endpoints.threads, lambda: shared_metrics.exposition_text(read()), answer)

        own = metrics.collect(self.endpoints, self._vitals)
        if self._vitals.peers is None:
            write(lambda: own)
        else:
            self._vitals.peers.gather(own, write)

    def _openapi(self) -> Response:
        return Response(200, _encode(openapi.document(self.endpoints.endpoints.values())))

    def _describe(self, exchange: Exchange, endpoint: Endpoint) -> None:
        """Describe one endpoint, loaded first if it is cold."""

        def then(found: Serving | ClewlineError) -> None:
            if isinstance(found, ClewlineError):
                exchange.answer(of_error(found))
            else:
                exchange.answer(Response(200, _encode(openapi.document([endpoint]))))

        self.endpoints.when_loaded(endpoint, then)

    def _prediction(self, identifier: str) -> Response:
        """Read a prediction and its line; on a thread, since it reads files."""
        from clewline.serve import line

        try:
            logged = log_reader.get_prediction(self.endpoints.project.log, identifier)
            why = line.why(self.endpoints.project, identifier)
        except ClewlineError as error:
            return of_error(error)
        except Exception:
            logger.exception("prediction %s could not be read", identifier)
            return of_code("fault", "The prediction could not be read. The server's log says why.")
        return Response(200, _encode(_shown(logged) | {"line": why}))


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
        "endpoint": logged.frame.endpoint,
        "revision": f"{logged.frame.endpoint}#{logged.frame.revision}",
        "entity": logged.entity,
        "row": logged.input,
        "answer": msgspec.Raw(logged.answer),
    }


def _ready_team(team: Readiness) -> Response:
    if team.ready == team.of:
        workers = {"ready": team.ready, "of": team.of}
        return Response(200, _encode({"status": "ready", "workers": workers}))
    message = f"{team.ready} of {team.of} workers are ready: {'; '.join(team.reasons)}."
    return of_code("overloaded", message, retry_after_s=1.0)


def between(path: bytes, head: bytes, tail: bytes) -> str | None:
    """Give the one segment between a head and a tail of a path."""
    if not (path.startswith(head) and path.endswith(tail)):
        return None
    name = path[len(head) : len(path) - len(tail)]
    return name.decode("utf-8", "replace") if name and b"/" not in name else None
