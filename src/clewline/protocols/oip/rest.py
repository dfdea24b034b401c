"""
The Open Inference Protocol v2 over REST, with the extensions for raw tensors and the repository.

    GET  /v2    /v2/health/live    /v2/health/ready
    GET  /v2/models/NAME[/versions/V][/ready]
    POST /v2/models/NAME[/versions/V]/infer
    POST /v2/repository/index    /v2/repository/models/NAME/load    …/unload
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import msgspec

from clewline.errors import (
    ClewlineError,
    MalformedInput,
    NotFound,
    NotSupported,
    Overloaded,
)
from clewline.protocols.error_responses import error_response
from clewline.protocols.http.request import HttpRequest, HttpResponse
from clewline.protocols.oip import metadata as oip
from clewline.protocols.oip.body_format import OIP, OIP_BINARY
from clewline.protocols.oip.infer_request import exact, header_length
from clewline.protocols.oip.metadata import Options, Tensor
from clewline.protocols.request_headers import later, when_asked
from clewline.protocols.route import POST, READ, HttpRoute
from clewline.serve.access import Need
from clewline.serve.endpoint_server import EndpointServer, ServedEndpoint, ServedRevision
from clewline.serve.predict_request import PredictRequest
from clewline.serve.predict_response import PredictResponse

HEADER_LENGTH = b"inference-header-content-length"
OCTETS = b"application/octet-stream"
T = TypeVar("T")
_MODELS = b"/v2/models/"
_REPOSITORY = b"/v2/repository/models/"
_encode = msgspec.json.encode
_decode_options = msgspec.json.Decoder(Options).decode


class OipRest:
    """
    Finds the routes of the protocol and answers them. Lives on the loop's thread.

    Args:
        endpoints: What is served.
        ready: Tells whether the server is ready, as `/health/ready` does.
    """

    def __init__(self, endpoints: EndpointServer, ready: Callable[[], HttpResponse]) -> None:
        self.endpoints = endpoints
        self._is_ready = ready
        self._tasks: set[asyncio.Task[None]] = set()
        self._fixed = {
            b"/v2": _read("oip.server", "any", self._server),
            b"/v2/": _read("oip.server", "any", self._server),
            b"/v2/health/live": _read("oip.live", None, self._live),
            b"/v2/health/ready": _read("oip.ready", None, self._ready),
            b"/v2/repository/index": _route("oip.index", "any", POST, self._index),
        }

    def find(self, path: bytes) -> HttpRoute | None:
        """Find the route of a path; one that leads to an error where there is none below /v2."""
        if (route := self._fixed.get(path)) is not None:
            return route
        if not path.startswith(b"/v2/"):
            return None
        try:
            return self._of_model(path) or self._of_repository(path) or _nowhere(path)
        except ClewlineError as error:
            return _dead_end(error)

    def _of_model(self, path: bytes) -> HttpRoute | None:
        parts = path.removeprefix(_MODELS).decode("utf-8", "replace").split("/")
        if not path.startswith(_MODELS) or not parts[0]:
            return None
        name, version, verb = _apart(parts)
        if verb not in ("", "ready", "infer"):
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

    def _of_repository(self, path: bytes) -> HttpRoute | None:
        parts = path.removeprefix(_REPOSITORY).decode("utf-8", "replace").split("/")
        if not path.startswith(_REPOSITORY) or len(parts) != 2 or parts[1] not in _MOVES:
            return None
        name, verb = parts
        self.endpoints.get(name)
        move = self.endpoints.load if verb == "load" else self.endpoints.unload
        return _route(
            f"oip.{verb}", "operate", POST, lambda request: self._move(request, move, name)
        )

    def _server(self) -> HttpResponse:
        return HttpResponse(200, _encode(oip.ServerMetadata()))

    def _live(self) -> HttpResponse:
        return HttpResponse(200, b'{"live":true}')

    def _ready(self) -> HttpResponse:
        response = self._is_ready()
        if response.status != 200:
            return dressed(response)
        return HttpResponse(200, b'{"live":true,"ready":true}')

    def _model(self, request: HttpRequest, endpoint: ServedEndpoint, version: str) -> None:
        oip.check_version(endpoint, version)

        def then(serving: ServedRevision | ClewlineError) -> None:
            if isinstance(serving, ClewlineError):
                request.answer(dressed(error_response(serving)))
            else:
                request.answer(HttpResponse(200, _encode(oip.metadata(serving, endpoint.name))))

        self.endpoints.when_loaded(endpoint, then)

    def _index(self, request: HttpRequest) -> None:
        asked = _object(request.body)
        listed = oip.index(self.endpoints, ready=asked.get("ready") is True)
        request.answer(HttpResponse(200, _encode(listed)))

    def _move(
        self, request: HttpRequest, move: Callable[[str], Coroutine[Any, Any, None]], name: str
    ) -> None:
        check_move(_object(request.body).get("parameters"))

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
        if length is None:
            when_asked(request, self.endpoints.threads, inference.begin, OIP)
        else:
            detail = length.strip().decode("latin-1")
            when_asked(request, self.endpoints.threads, inference.begin, OIP_BINARY, detail)


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
        self._options: Options
        self._output: Any

    def begin(self, ask: PredictRequest | ClewlineError) -> None:
        """Ask the endpoint, once it is loaded."""
        if isinstance(ask, ClewlineError):
            self._refuse(ask)
            return
        serving = self._endpoint.serving
        if serving is not None:
            self._ask(ask, serving)
        else:
            self._endpoints.when_loaded(self._endpoint, lambda found: self._ask(ask, found))

    def __call__(self, result: PredictResponse | ClewlineError) -> None:
        """Answer with what became of it."""
        if isinstance(result, ClewlineError):
            self._refuse(result)
            return
        self._request.rows = len(result.predictions)
        self._request.first_id = result.first_id

        def work() -> HttpResponse:
            return self._response(oip.outcome(result, self._output, self._options))

        self._do(work, self._settle, large=len(result.predictions) > oip.LARGE_ROWS)

    def _ask(self, ask: PredictRequest, serving: ServedRevision | ClewlineError) -> None:
        if isinstance(serving, ClewlineError):
            self._refuse(serving)
            return
        self._output = output = serving.loaded.signature.output

        def work() -> Options:
            oip.check_version(self._endpoint, self._version)
            options = options_of(ask)
            oip.check_outputs(options, output)
            oip.complete(ask, options.parameters)
            return options

        def then(options: Options | ClewlineError) -> None:
            if isinstance(options, ClewlineError):
                self._refuse(options)
            else:
                self._options = options
                self._endpoints.predict(self._endpoint, ask, self)

        self._do(work, then, large=len(ask.body) > oip.LARGE_BYTES)

    def _do(
        self, work: Callable[[], T], then: Callable[[T | ClewlineError], None], *, large: bool
    ) -> None:
        """Do what takes long on a thread, and anything else at once."""
        if large:
            later(self._endpoints.threads, work, then)
            return
        try:
            done: T | ClewlineError = work()
        except ClewlineError as error:
            done = error
        then(done)

    def _settle(self, response: HttpResponse | ClewlineError) -> None:
        if isinstance(response, ClewlineError):
            self._refuse(response)
        else:
            self._answer(response)

    def _response(self, outcome: oip.Outcome) -> HttpResponse:
        """Write an answer: JSON, and behind it the tensors that were wanted raw."""
        options = self._options
        outputs, raws = [], []
        for tensor in outcome.tensors:
            if oip.is_binary(options, tensor.name):
                raws.append(tensor.raw())
                outputs.append(_described(tensor, len(raws[-1])))
            else:
                outputs.append(_described(tensor, None))
        said: dict[str, Any] = {
            "model_name": self._endpoint.name,
            "model_version": outcome.model_version,
        }
        if options.id is not None:
            said["id"] = options.id
        said["parameters"] = outcome.parameters
        said["outputs"] = outputs
        body = _encode(said)
        if not raws:
            return HttpResponse(200, body)
        length = (HEADER_LENGTH, b"%d" % len(body))
        return HttpResponse(200, b"".join([body, *raws]), OCTETS, (length,))

    def _refuse(self, error: ClewlineError) -> None:
        self._answer(dressed(error_response(error)))

    def _answer(self, response: HttpResponse) -> None:
        seconds = time.perf_counter() - self._request.started
        self._endpoint.statistics.record_request(response.status, seconds)
        self._request.answer(response)


def options_of(ask: PredictRequest) -> Options:
    """
    Read what a request asks for beside its rows.

    Raises:
        MalformedInput: It is no inference request.
    """
    length = None if ask.format == OIP else header_length(ask.detail, ask.body)
    try:
        return _decode_options(ask.body if length is None else ask.body[:length])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        request = exact(ask.body, length).request
        return Options(request.id, request.parameters, request.outputs)


def dressed(response: HttpResponse) -> HttpResponse:
    """Give an error the protocol's shape: its message under `error`, and what else it says."""
    said = msgspec.json.decode(response.body)["error"]
    said["error"] = said.pop("message")
    return msgspec.structs.replace(response, body=_encode(said))


def check_move(parameters: Any) -> None:
    """
    Let a request to load or unload pass, unless it brings a model along.

    Raises:
        NotSupported: It does.
    """
    names = parameters if isinstance(parameters, dict) else {}
    for name in names:
        if name == "config" or name.startswith("file:"):
            raise NotSupported(
                f"A model's {name} is not taken over the wire.",
                "`clewline endpoints apply` makes a revision; load answers with it.",
            )


_MOVES = ("load", "unload")


def _described(tensor: Tensor, size: int | None) -> dict[str, Any]:
    head: dict[str, Any] = {
        "name": tensor.name,
        "datatype": tensor.datatype,
        "shape": tensor.shape,
    }
    if size is None:
        head["data"] = tensor.elements
    else:
        head["parameters"] = {"binary_data_size": size}
    return head


def _model_ready(endpoint: ServedEndpoint, version: str) -> HttpResponse:
    oip.check_version(endpoint, version)
    if not oip.is_ready(endpoint):
        raise endpoint.trouble or _not_ready(endpoint)
    return HttpResponse(200, _encode({"name": endpoint.name, "ready": True}))


def _not_ready(endpoint: ServedEndpoint) -> ClewlineError:
    if endpoint.state == "unloaded":
        return NotFound(f"{endpoint.name} is unloaded.", "An operator can load it.")
    return Overloaded(f"{endpoint.name} is {endpoint.state}.", "Ask again in a second.")


def _apart(parts: list[str]) -> tuple[str, str, str]:
    """Take NAME[/versions/V][/VERB] apart; a verb that there is not where it is none of these."""
    name, rest = parts[0], parts[1:]
    version = ""
    if len(rest) >= 2 and rest[0] == "versions" and rest[1]:
        version, rest = rest[1], rest[2:]
    if len(rest) > 1:
        return name, version, "?"
    return name, version, rest[0] if rest else ""


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
        raise MalformedInput(f"The body is no JSON object: {error}.", "Send one, or none.") from (
            error
        )


def _nowhere(path: bytes) -> HttpRoute:
    shown = path.decode("utf-8", "replace")[:200]
    return _dead_end(NotFound(f"There is nothing at {shown}.", "docs/oip.md lists the routes."))


def _dead_end(error: ClewlineError) -> HttpRoute:
    """Give a route that leads to an error, for those who may know that there is nothing."""

    def handle(request: HttpRequest) -> None:
        raise error

    def admit(request: HttpRequest) -> HttpResponse:
        raise error

    return HttpRoute("oip.unknown", "any", (), handle, admit, dress=dressed, keep=False)
