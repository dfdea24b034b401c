"""
The Open Inference Protocol v2 over REST, with the extensions for raw tensors and the repository.

    GET  /v2    /v2/health/live    /v2/health/ready
    GET  /v2/models/NAME[/versions/V][/ready]
    POST /v2/models/NAME[/versions/V]/infer
    POST /v2/repository/index    /v2/repository/models/NAME/load    …/unload
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import msgspec

from clewline.errors import BodyTooLarge, ClewlineError, MalformedInput, NotFound
from clewline.protocols.http.error_responses import error_response, unless_error
from clewline.protocols.http.health import require_ready
from clewline.protocols.http.request import HttpRequest, HttpResponse
from clewline.protocols.http.request_headers import (
    QUICK_BYTES,
    run_at_once_or_on_thread,
    when_read,
)
from clewline.protocols.http.route import (
    POST,
    READ,
    DocumentedRoute,
    HttpRoute,
    RouteGroup,
    error_route,
)
from clewline.protocols.oip import infer_request, infer_response, model_metadata
from clewline.protocols.oip.body_format import OIP, OIP_BINARY
from clewline.protocols.oip.infer_request import InferOptions
from clewline.serve.access import Need
from clewline.serve.endpoint_server import EndpointServer
from clewline.serve.predict import predict
from clewline.serve.request.predict_request import PredictRequest, PredictResponse
from clewline.serve.served_endpoint import ServedEndpoint, ServedRevision
from clewline.signature.field import Output

HEADER_LENGTH = b"inference-header-content-length"
OCTETS = b"application/octet-stream"
LARGE_BYTES = 128 << 10
"""The options of a larger request are read on a thread; below, it takes under a millisecond."""
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
    """

    def __init__(self, endpoints: EndpointServer, ready: Callable[[], HttpResponse]) -> None:
        self.endpoints = endpoints
        self._is_ready = ready
        self._tasks: set[asyncio.Task[None]] = set()
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
        if len(rest) > 1 or verb not in ("", "ready", "infer"):
            return None
        endpoint = self.endpoints.get(name)
        if verb == "infer":
            handle = partial(handle_infer, self.endpoints, endpoint, version)
            return _route("oip.infer", "predict", POST, handle, endpoint)
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

    def _index(self, request: HttpRequest) -> None:
        ready = _object(request.body).get("ready") is True
        request.answer(_json(model_metadata.list_models(self.endpoints, ready=ready)))

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
    length = request.headers.get(HEADER_LENGTH)
    format, detail = OIP, ""
    if length is not None:
        format, detail = OIP_BINARY, length.strip().decode("latin-1")
    begin = _Inference(server, endpoint, version, request).begin
    when_read(request, server.threads, begin, format, detail)


class _Inference:
    """One request to infer. Each method gets the result of the step before it, or its error."""

    __slots__ = ("endpoint", "options", "output", "predict_request", "request", "server", "version")

    options: InferOptions
    output: Output
    predict_request: PredictRequest

    def __init__(
        self, server: EndpointServer, endpoint: ServedEndpoint, version: str, request: HttpRequest
    ) -> None:
        self.server, self.endpoint, self.version, self.request = server, endpoint, version, request

    def begin(self, read: PredictRequest | ClewlineError) -> None:
        if isinstance(read, ClewlineError):
            self.fail(read)
            return
        self.predict_request = read
        if self.endpoint.serving is None:
            self.server.when_loaded(self.endpoint, self.ask)
        else:
            self.ask(self.endpoint.serving)

    def ask(self, serving: ServedRevision | ClewlineError) -> None:
        if isinstance(serving, ClewlineError):
            self.fail(serving)
            return
        self.output = serving.loaded.signature.output
        takes_long = len(self.predict_request.body) > LARGE_BYTES
        run_at_once_or_on_thread(
            self.server.threads, self.read_options, self.predict, takes_long=takes_long
        )

    def read_options(self) -> InferOptions:
        model_metadata.check_version(self.endpoint, self.version)
        predict_request, length = self.predict_request, None
        if predict_request.format == OIP_BINARY:
            length = infer_request.json_length(predict_request.detail, predict_request.body)
        options = infer_request.decode_options(predict_request.body, length)
        infer_response.check_outputs(options, self.output)
        infer_response.apply_parameters(predict_request, options)
        return options

    def predict(self, options: InferOptions | ClewlineError) -> None:
        if isinstance(options, ClewlineError):
            self.fail(options)
            return
        self.options = options
        predict(self.server, self.endpoint, self.predict_request, self.answer)

    def answer(self, result: PredictResponse | ClewlineError) -> None:
        if isinstance(result, ClewlineError):
            self.fail(result)
            return
        rows = len(result.predictions)
        self.request.rows, self.request.first_id = rows, result.first_id
        run_at_once_or_on_thread(
            self.server.threads,
            partial(_write, self.endpoint.name, self.options, self.output, result),
            self.send,
            takes_long=rows > infer_response.LARGE_ROWS,
        )

    def send(self, response: HttpResponse | ClewlineError) -> None:
        if isinstance(response, ClewlineError):
            self.fail(response)
        else:
            self.request.answer(response)

    def fail(self, error: ClewlineError) -> None:
        self.request.answer(as_oip_error(error_response(error)))


def _write(
    name: str, options: InferOptions, output: Output, result: PredictResponse
) -> HttpResponse:
    """Write an answer: JSON, and behind it the tensors that were wanted raw."""
    answer = infer_response.infer_response(result, output, options)
    outputs, raws = [], []
    for tensor in answer.tensors:
        described: dict[str, Any] = {"name": tensor.name, "datatype": tensor.datatype}
        described["shape"] = tensor.shape
        if _is_wanted_raw(options, tensor.name):
            raws.append(tensor.raw())
            described["parameters"] = {"binary_data_size": len(raws[-1])}
        else:
            described["data"] = tensor.elements
        outputs.append(described)
    content: dict[str, Any] = {"model_name": name, "model_version": answer.model_version}
    if options.id is not None:
        content["id"] = options.id
    body = _encode(content | {"parameters": answer.parameters, "outputs": outputs})
    if not raws:
        return HttpResponse(200, body)
    length = (HEADER_LENGTH, b"%d" % len(body))
    return HttpResponse(200, b"".join([body, *raws]), OCTETS, (length,))


def as_oip_error(response: HttpResponse) -> HttpResponse:
    """Give an error the protocol's shape: its message under `error`, and what else it says."""
    content = msgspec.json.decode(response.body)["error"]
    content["error"] = content.pop("message")
    return msgspec.structs.replace(response, body=_encode(content))


def _is_wanted_raw(options: InferOptions, name: str) -> bool:
    for wanted in options.outputs or ():
        if wanted.name == name and wanted.parameters and "binary_data" in wanted.parameters:
            return bool(wanted.parameters["binary_data"])
    return bool(options.parameters and options.parameters.get("binary_data_output"))


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
