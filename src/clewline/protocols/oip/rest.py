"""
The Open Inference Protocol v2 over REST, with the extensions for raw tensors and the repository.

    GET  /v2    /v2/health/live    /v2/health/ready
    GET  /v2/models/NAME[/versions/V][/ready]
    POST /v2/models/NAME[/versions/V]/infer    …/explain
    POST /v2/repository/index    /v2/repository/models/NAME/load    …/unload
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import msgspec

from clewline.errors import BodyTooLarge, ClewlineError, MalformedInput, NotFound
from clewline.explain.requests import ExplanationRequests
from clewline.protocols.http.error_responses import error_response, unless_error
from clewline.protocols.http.health import require_ready
from clewline.protocols.http.request import HttpRequest, HttpResponse
from clewline.protocols.http.request_headers import QUICK_BYTES
from clewline.protocols.http.route import (
    POST,
    READ,
    DocumentedRoute,
    HttpRoute,
    RouteGroup,
    error_route,
)
from clewline.protocols.oip import model_metadata
from clewline.protocols.oip.explain import OipExplanation
from clewline.protocols.oip.inference import Inference, as_oip_error
from clewline.serve.access import Need, TokenChecker
from clewline.serve.endpoint_server import EndpointServer
from clewline.serve.served_endpoint import ServedEndpoint, ServedRevision

_encode = msgspec.json.encode


_MODEL, _REPOSITORY = "/v2/models/{name}", "/v2/repository/models/{name}"
DOCUMENTED = RouteGroup(
    "Open Inference Protocol",
    "Every endpoint as a model of version 2 of that protocol.",
    (
        DocumentedRoute("get", "/v2", "Show the server."),
        DocumentedRoute("get", "/v2/health/live", "Return 200 while the process lives."),
        DocumentedRoute("get", "/v2/health/ready", "Return 200 if the server is ready."),
        DocumentedRoute("post", "/v2/repository/index", "List the models."),
        DocumentedRoute("post", f"{_REPOSITORY}/load", "Load a model."),
        DocumentedRoute("post", f"{_REPOSITORY}/unload", "Unload a model."),
        *(
            DocumentedRoute(method, f"{path}{end}", summary)
            for path in (_MODEL, f"{_MODEL}/versions/{{version}}")
            for method, end, summary in (
                ("get", "", "Show one model: its tensors."),
                ("get", "/ready", "Return 200 if a model is ready."),
                ("post", "/infer", "Predict with tensors."),
                ("post", "/explain", "Predict with tensors, and explain."),
            )
        ),
    ),
)


class OipRestRoutes:
    """
    Finds the routes of the protocol and answers them. Lives on the loop's thread.

    Args:
        endpoints: The endpoints that are served.
        ready: Returns the answer of `/health/ready`.
        token_checker: Checks callers who name a logged prediction.
        explanations: Ask the explaining process; None: there is none.
    """

    def __init__(
        self,
        endpoints: EndpointServer,
        ready: Callable[[], HttpResponse],
        token_checker: TokenChecker,
        explanations: ExplanationRequests | None,
    ) -> None:
        self.endpoints = endpoints
        self._token_checker, self._explanations = token_checker, explanations
        self._is_ready = ready
        self._tasks: set[asyncio.Task[None]] = set()
        self._lists = model_metadata.shared_lists(endpoints, _json)
        server = _read("oip.server", "any", lambda: _json(model_metadata.SERVER_METADATA))
        self._fixed = {
            b"/v2": server,
            b"/v2/": server,
            b"/v2/health/live": _read("oip.live", None, lambda: _json({"live": True})),
            b"/v2/health/ready": _read("oip.ready", None, self._ready),
            b"/v2/repository/index": _route("oip.index", "any", POST, self._index),
        }

    def find(self, path: bytes) -> HttpRoute | None:
        """Find the route of a path; return one that raises if there is none below /v2."""
        route = self._fixed.get(path)
        if route is not None:
            return route
        if not path.startswith(b"/v2/"):
            return None
        text = path.decode("utf-8", "replace")
        error: ClewlineError = NotFound(
            f"There is nothing at {text[:200]}.", "docs/oip.md lists the routes."
        )
        try:
            match text.split("/")[2:]:
                case ["models", name, *rest] if name:
                    route = self._model_route(name, rest)
                case ["repository", "models", name, "load" | "unload" as verb]:
                    self.endpoints.get(name)
                    move = self.endpoints.load if verb == "load" else self.endpoints.unload
                    route = _route(f"oip.{verb}", "operate", POST, partial(self._move, move, name))
        except ClewlineError as raised:
            error = raised
        return route or error_route("oip.unknown", error, as_oip_error)

    def _model_route(self, name: str, rest: list[str]) -> HttpRoute | None:
        """Find the route of NAME[/versions/V][/VERB]."""
        version = ""
        if len(rest) >= 2 and rest[0] == "versions" and rest[1]:
            version, rest = rest[1], rest[2:]
        verb = rest[0] if rest else ""
        if len(rest) > 1 or verb not in ("", "ready", "infer", "explain"):
            return None
        endpoint = self.endpoints.get(name)
        if verb == "infer":
            handle = partial(handle_infer, self.endpoints, endpoint, version)
            return _route("oip.infer", "predict", POST, handle, endpoint)
        if verb == "explain":
            explain = partial(self._explain, endpoint, version)
            return _route("oip.explain", "predict", POST, explain, endpoint)
        if verb == "ready":
            return _read("oip.model_ready", "any", partial(_model_ready, endpoint, version))
        return _route("oip.model", "any", READ, partial(self._model, endpoint, version))

    def _ready(self) -> HttpResponse:
        response = self._is_ready()
        return (
            _json({"live": True, "ready": True})
            if response.status == 200
            else as_oip_error(response)
        )

    def _model(self, endpoint: ServedEndpoint, version: str, request: HttpRequest) -> None:
        model_metadata.check_version(endpoint, version)

        def answer(found: ServedRevision) -> None:
            request.answer(_json(model_metadata.describe_model(found, endpoint.name)))

        self.endpoints.when_loaded(endpoint, unless_error(request, as_oip_error, answer))

    def _explain(self, endpoint: ServedEndpoint, version: str, request: HttpRequest) -> None:
        OipExplanation(
            self._explanations, self._token_checker, self.endpoints, endpoint, version, request
        ).start()

    def _index(self, request: HttpRequest) -> None:
        ready = _object(request.body).get("ready") is True
        self._lists[ready].ask(unless_error(request, as_oip_error, request.answer))

    def _move(
        self, move: Callable[[str], Coroutine[Any, Any, None]], name: str, request: HttpRequest
    ) -> None:
        model_metadata.check_load_parameters(_object(request.body).get("parameters"))

        async def do() -> None:
            try:
                await move(name)
            except ClewlineError as error:
                request.answer(as_oip_error(error_response(error)))
            else:
                request.answer(HttpResponse(200, b"{}"))

        task = asyncio.get_running_loop().create_task(do())
        self._tasks.add(task)  # the loop alone would let it be collected
        task.add_done_callback(self._tasks.discard)


def handle_infer(
    server: EndpointServer, endpoint: ServedEndpoint, version: str, request: HttpRequest
) -> None:
    """Answer a request to infer, now or later."""
    Inference(server, endpoint, version, request).start()


def _model_ready(endpoint: ServedEndpoint, version: str) -> HttpResponse:
    model_metadata.check_version(endpoint, version)
    require_ready(endpoint)
    return _json({"name": endpoint.name, "ready": True})


def _json(value: Any) -> HttpResponse:
    return HttpResponse(200, _encode(value))


def _read(name: str, role: Need | None, answer: Callable[[], HttpResponse]) -> HttpRoute:
    return _route(name, role, READ, lambda request: request.answer(answer()))


def _route(
    name: str,
    role: Need | None,
    methods: tuple[bytes, ...],
    handle: Callable[[HttpRequest], None],
    endpoint: ServedEndpoint | None = None,
) -> HttpRoute:
    return HttpRoute(name, role, methods, handle, endpoint=endpoint, shape_error=as_oip_error)


def _object(body: bytes) -> dict[str, Any]:
    """Read a body that may be left out, and is small."""
    if len(body) > QUICK_BYTES:
        raise BodyTooLarge(
            f"The body has {len(body)} bytes; the limit of this route is {QUICK_BYTES}.",
            "Leave out what is not a parameter.",
        )
    try:
        return msgspec.json.decode(body.strip() or b"{}", type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedInput(
            f"The body is not a JSON object: {error}.", "Send one, or none."
        ) from error
