"""
The Open Inference Protocol v2 over REST, with the extensions for raw tensors and the repository.

    GET  /v2    /v2/health/live    /v2/health/ready
    GET  /v2/models/NAME[/versions/V][/ready]
    POST /v2/models/NAME[/versions/V]/infer
    POST /v2/repository/index    /v2/repository/models/NAME/load    …/unload
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import msgspec

from clewline.errors import ClewlineError, Fault, MalformedInput, NotFound, Overloaded
from clewline.protocols.error_responses import error_response
from clewline.protocols.http.request import HttpRequest, HttpResponse
from clewline.protocols.oip.body_format import OIP, OIP_BINARY
from clewline.protocols.oip.infer_request import InferOptions, decode_options, json_length
from clewline.protocols.oip.infer_response import (
    LARGE_ROWS,
    InferResponse,
    apply_parameters,
    check_outputs,
    infer_response,
)
from clewline.protocols.oip.model_metadata import (
    OipServerMetadata,
    check_load_parameters,
    check_version,
    describe_model,
    is_ready,
    list_models,
)
from clewline.protocols.request_headers import run_on_thread, when_read
from clewline.protocols.route import POST, READ, HttpRoute, error_route
from clewline.serve.access import Need
from clewline.serve.endpoint_server import EndpointServer
from clewline.serve.predict import predict
from clewline.serve.predict_request import PredictRequest
from clewline.serve.predict_response import PredictResponse
from clewline.serve.served_endpoint import ServedEndpoint, ServedRevision

logger = logging.getLogger(__name__)

HEADER_LENGTH = b"inference-header-content-length"
OCTETS = b"application/octet-stream"
LARGE_BYTES = 128 << 10
"""The options of a larger request are read on a thread; below, it takes under a millisecond."""
T = TypeVar("T")
_encode = msgspec.json.encode


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
        server = _read("oip.server", "any", lambda: _json(OipServerMetadata()))
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
                    route = self._repository_route(name, verb)
        except ClewlineError as raised:
            error = raised
        return route or error_route("oip.unknown", error, dressed)

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
            return _route(
                "oip.infer",
                "predict",
                POST,
                lambda request: self._infer(request, endpoint, version),
                endpoint,
            )
        if verb == "ready":
            return _read("oip.model_ready", "any", lambda: _model_ready(endpoint, version))
        return _route(
            "oip.model", "any", READ, lambda request: self._model(request, endpoint, version)
        )

    def _repository_route(self, name: str, verb: str) -> HttpRoute:
        self.endpoints.get(name)
        move = self.endpoints.load if verb == "load" else self.endpoints.unload
        return _route(
            f"oip.{verb}", "operate", POST, lambda request: self._move(request, move, name)
        )

    def _ready(self) -> HttpResponse:
        response = self._is_ready()
        return _json({"live": True, "ready": True}) if response.status == 200 else dressed(response)

    def _model(self, request: HttpRequest, endpoint: ServedEndpoint, version: str) -> None:
        check_version(endpoint, version)

        def answer(found: ServedRevision | ClewlineError) -> None:
            if isinstance(found, ClewlineError):
                request.answer(dressed(error_response(found)))
            else:
                request.answer(_json(describe_model(found, endpoint.name)))

        self.endpoints.when_loaded(endpoint, answer)

    def _index(self, request: HttpRequest) -> None:
        only_ready = _object(request.body).get("ready") is True
        request.answer(_json(list_models(self.endpoints, ready=only_ready)))

    def _move(
        self, request: HttpRequest, move: Callable[[str], Coroutine[Any, Any, None]], name: str
    ) -> None:
        check_load_parameters(_object(request.body).get("parameters"))

        async def do() -> None:
            try:
                await move(name)
            except ClewlineError as error:
                request.answer(dressed(error_response(error)))
            else:
                request.answer(HttpResponse(200, b"{}"))

        task = asyncio.get_running_loop().create_task(do())
        self._tasks.add(task)  # the loop alone would let it be collected
        task.add_done_callback(self._tasks.discard)

    def _infer(self, request: HttpRequest, endpoint: ServedEndpoint, version: str) -> None:
        inference = _Inference(self.endpoints, request, endpoint, version)
        length = request.headers.get(HEADER_LENGTH)
        format, detail = OIP, ""
        if length is not None:
            format, detail = OIP_BINARY, length.strip().decode("latin-1")
        when_read(request, self.endpoints.threads, inference.begin, format, detail)


class _Inference:
    """The answer that is owed to a request to infer, from its body to its tensors."""

    __slots__ = ("_endpoint", "_endpoints", "_options", "_output", "_request", "_version")

    def __init__(
        self,
        endpoints: EndpointServer,
        request: HttpRequest,
        endpoint: ServedEndpoint,
        version: str,
    ) -> None:
        self._endpoints = endpoints
        self._request = request
        self._endpoint = endpoint
        self._version = version
        self._options: InferOptions
        self._output: Any

    def begin(self, asked: PredictRequest | ClewlineError) -> None:
        """Ask the endpoint, once it is loaded."""
        if isinstance(asked, ClewlineError):
            self._refuse(asked)
        elif (serving := self._endpoint.serving) is not None:
            self._ask(asked, serving)
        else:
            self._endpoints.when_loaded(self._endpoint, lambda found: self._ask(asked, found))

    def _ask(self, asked: PredictRequest, serving: ServedRevision | ClewlineError) -> None:
        if isinstance(serving, ClewlineError):
            self._refuse(serving)
            return
        self._output = output = serving.loaded.signature.output

        def read_options() -> InferOptions:
            check_version(self._endpoint, self._version)
            length = None if asked.format == OIP else json_length(asked.detail, asked.body)
            options = decode_options(asked.body, length)
            check_outputs(options, output)
            apply_parameters(asked, options)
            return options

        def ask(options: InferOptions) -> None:
            self._options = options
            predict(self._endpoints, self._endpoint, asked, self)

        self._do(read_options, ask, large=len(asked.body) > LARGE_BYTES)

    def __call__(self, result: PredictResponse | ClewlineError) -> None:
        """Answer with the outcome."""
        if isinstance(result, ClewlineError):
            self._refuse(result)
            return
        self._request.rows = len(result.predictions)
        self._request.first_id = result.first_id

        def write() -> HttpResponse:
            return self._write(infer_response(result, self._output, self._options))

        self._do(write, self._answer, large=len(result.predictions) > LARGE_ROWS)

    def _do(self, work: Callable[[], T], then: Callable[[T], None], *, large: bool) -> None:
        """Do what takes long on a thread, and anything else at once; refuse if it raises."""

        def settle(done: T | ClewlineError) -> None:
            if isinstance(done, ClewlineError):
                self._refuse(done)
            else:
                then(done)

        if large:
            run_on_thread(self._endpoints.threads, work, settle)
            return
        try:
            done: T | ClewlineError = work()
        except ClewlineError as error:
            done = error
        except Exception:  # it would leave this caller, and all others of its batch, unanswered
            logger.exception("a part of a request failed")
            done = Fault("The server failed on this request.", "Its log has the reason.")
        settle(done)

    def _write(self, answer: InferResponse) -> HttpResponse:
        """Write an answer: JSON, and behind it the tensors that were wanted raw."""
        options, outputs, raws = self._options, [], []
        for tensor in answer.tensors:
            described: dict[str, Any] = {
                "name": tensor.name,
                "datatype": tensor.datatype,
                "shape": tensor.shape,
            }
            if _is_wanted_raw(options, tensor.name):
                raws.append(tensor.raw())
                described["parameters"] = {"binary_data_size": len(raws[-1])}
            else:
                described["data"] = tensor.elements
            outputs.append(described)
        said: dict[str, Any] = {
            "model_name": self._endpoint.name,
            "model_version": answer.model_version,
        }
        if options.id is not None:
            said["id"] = options.id
        body = _encode(said | {"parameters": answer.parameters, "outputs": outputs})
        if not raws:
            return HttpResponse(200, body)
        length = (HEADER_LENGTH, b"%d" % len(body))
        return HttpResponse(200, b"".join([body, *raws]), OCTETS, (length,))

    def _refuse(self, error: ClewlineError) -> None:
        self._answer(dressed(error_response(error)))

    def _answer(self, response: HttpResponse) -> None:
        self._request.answer(response)


def dressed(response: HttpResponse) -> HttpResponse:
    """Give an error the protocol's shape: its message under `error`, and what else it says."""
    said = msgspec.json.decode(response.body)["error"]
    said["error"] = said.pop("message")
    return msgspec.structs.replace(response, body=_encode(said))


def _is_wanted_raw(options: InferOptions, name: str) -> bool:
    for wanted in options.outputs or ():
        if wanted.name == name and wanted.parameters and "binary_data" in wanted.parameters:
            return bool(wanted.parameters["binary_data"])
    return bool(options.parameters and options.parameters.get("binary_data_output"))


def _model_ready(endpoint: ServedEndpoint, version: str) -> HttpResponse:
    check_version(endpoint, version)
    if is_ready(endpoint):
        return _json({"name": endpoint.name, "ready": True})
    if endpoint.trouble is not None:
        raise endpoint.trouble
    if endpoint.state == "unloaded":
        raise NotFound(f"{endpoint.name} is unloaded.", "An operator can load it.")
    raise Overloaded(f"{endpoint.name} is {endpoint.state}.", "Ask again in a second.")


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
    return HttpRoute(name, role, methods, handle, endpoint=endpoint, dress=dressed)


def _object(body: bytes) -> dict[str, Any]:
    """Read a body that may be left out."""
    if not body.strip():
        return {}
    try:
        return msgspec.json.decode(body, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedInput(
            f"The body is no JSON object: {error}.", "Send one, or none."
        ) from error
