"""
MLflow's scoring protocol: callers of a model that MLflow served change the address alone.

    POST /mlflow/NAME/invocations      GET /mlflow/NAME/ping    …/health    …/version
    POST /invocations                  GET /ping    /health    /version

Those at the root are of the only endpoint, or of the one named `default`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from clewline.errors import ClewlineError, Fault, NotFound, Overloaded, UnknownFormat
from clewline.protocols.error_responses import error_response
from clewline.protocols.http.request import HttpRequest, HttpResponse
from clewline.protocols.mlflow.body_format import MLFLOW
from clewline.protocols.request_headers import run_on_thread, when_read
from clewline.protocols.route import POST, READ, HttpRoute
from clewline.serve.access import Need
from clewline.serve.endpoint_server import EndpointServer
from clewline.serve.predict import predict
from clewline.serve.predict_request import PredictRequest
from clewline.serve.predict_response import PredictResponse
from clewline.serve.served_endpoint import ServedEndpoint
from clewline.signature.field_rules import printable_text

VERSION = b"3.17.0"
"""The MLflow whose scoring protocol is spoken: what callers who ask `/version` compare with."""
DEFAULT = "default"
"""The endpoint that the routes at the root ask, where there are several."""
FORMATS = {
    "application/json": MLFLOW,
    "text/csv": "csv",
    "application/vnd.apache.parquet": "parquet",
}
"""Content type → format of the body."""
LARGE_ROWS = 1024
"""An answer of more rows is written on a thread; below it takes under a millisecond."""
NAMED = 20
"""Endpoints that an error names."""
ERROR_CODES: dict[int, str] = {
    400: "BAD_REQUEST",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "RESOURCE_DOES_NOT_EXIST",
    409: "RESOURCE_CONFLICT",
    422: "INVALID_PARAMETER_VALUE",
    429: "REQUEST_LIMIT_EXCEEDED",
    501: "NOT_IMPLEMENTED",
    503: "TEMPORARILY_UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
    507: "RESOURCE_EXHAUSTED",
}
"""Status → MLflow's code of an error; of others BAD_REQUEST below 500, else INTERNAL_ERROR."""
PONG = HttpResponse(200, b"\n", b"text/plain")
_HEAD = b"/mlflow/"
_VERBS = ("invocations", "ping", "health", "version")
_encode = msgspec.json.encode


class Mlflow:
    """
    Finds the routes of the protocol and answers them. Lives on the loop's thread.

    Args:
        endpoints: What is served.
        ready: Tells whether the server is ready, as `/health/ready` does.
    """

    def __init__(self, endpoints: EndpointServer, ready: Callable[[], HttpResponse]) -> None:
        self.endpoints = endpoints
        self._is_ready = ready
        self._fixed = {
            b"/ping": _read("mlflow.ping", None, self._ping),
            b"/health": _read("mlflow.ping", None, self._ping),
            b"/version": _read("mlflow.version", None, _version),
        }

    def find(self, path: bytes) -> HttpRoute | None:
        """Find the route of a path; one that leads to an error where there is none below."""
        if (route := self._fixed.get(path)) is not None:
            return route
        if path != b"/invocations" and not path.startswith(_HEAD):
            return None
        try:
            if path == b"/invocations":
                # Which endpoint is asked may change while the server runs: found anew each time.
                return self._invocations(self._default(), keep=False)
            return self._of_endpoint(path)
        except ClewlineError as error:
            return _dead_end(error)

    def _of_endpoint(self, path: bytes) -> HttpRoute:
        name, _, verb = path.removeprefix(_HEAD).decode("utf-8", "replace").partition("/")
        if not name or verb not in _VERBS:
            raise NotFound(
                f"There is nothing at {printable_text(path.decode('utf-8', 'replace'))}.",
                "docs/mlflow.md lists the routes.",
            )
        endpoint = self.endpoints.get(name)
        if verb == "invocations":
            return self._invocations(endpoint)
        if verb == "version":
            return _read("mlflow.version", "any", _version)
        return _read("mlflow.ping", "any", lambda: _ping_of(endpoint))

    def _default(self) -> ServedEndpoint:
        """Give the endpoint that the routes at the root ask."""
        known = self.endpoints.endpoints
        if DEFAULT in known:
            return known[DEFAULT]
        if len(known) == 1:
            return next(iter(known.values()))
        if not known:
            raise NotFound("There is no endpoint here.", "`clewline endpoints apply` makes one.")
        names = sorted(known)
        more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
        raise NotFound(
            f"There are {len(names)} endpoints and none is named {DEFAULT!r}: "
            f"{', '.join(names[:NAMED])}{more}.",
            "POST to /mlflow/NAME/invocations.",
        )

    def _invocations(self, endpoint: ServedEndpoint, *, keep: bool = True) -> HttpRoute:
        return HttpRoute(
            "mlflow.invocations",
            "predict",
            POST,
            lambda request: self._invoke(request, endpoint),
            _admit,
            endpoint,
            dressed,
            keep,
        )

    def _invoke(self, request: HttpRequest, endpoint: ServedEndpoint) -> None:
        invocation = _Invocation(self.endpoints, request, endpoint)
        try:
            format = format_of(request)
        except ClewlineError as error:
            invocation(error)
            return
        when_read(request, self.endpoints.threads, invocation.begin, format)

    def _ping(self) -> HttpResponse:
        response = self._is_ready()
        return dressed(response) if response.status != 200 else PONG


class _Invocation:
    """The answer that is owed to a request; called with what became of it."""

    __slots__ = ("_endpoint", "_endpoints", "_request")

    def __init__(
        self, endpoints: EndpointServer, request: HttpRequest, endpoint: ServedEndpoint
    ) -> None:
        self._endpoints = endpoints
        self._request = request
        self._endpoint = endpoint

    def begin(self, ask: PredictRequest | ClewlineError) -> None:
        """Ask the endpoint."""
        if isinstance(ask, ClewlineError):
            self(ask)
        else:
            predict(self._endpoints, self._endpoint, ask, self)

    def __call__(self, result: PredictResponse | ClewlineError) -> None:
        if isinstance(result, ClewlineError):
            self._settle(result)
            return
        self._request.rows = len(result.predictions)
        self._request.first_id = result.first_id
        if len(result.predictions) > LARGE_ROWS:
            run_on_thread(self._endpoints.threads, lambda: written(result), self._settle)
        else:
            self._settle(_tried(result))

    def _settle(self, body: bytes | ClewlineError) -> None:
        if isinstance(body, ClewlineError):
            response = dressed(error_response(body))
        else:
            response = HttpResponse(200, body)
        self._request.answer(response)


class _Prediction(msgspec.Struct, gc=False):
    id: str
    model: str = ""
    arm: str = ""
    label: msgspec.Raw = msgspec.Raw()
    value: msgspec.Raw = msgspec.Raw()
    flags: list[dict[str, Any]] | None = None


_decode = msgspec.json.Decoder(list[_Prediction]).decode


def written(answer: PredictResponse) -> bytes:
    """
    Write an answer: labels of a classifier or values of a regressor, and behind them ours.

    Raises:
        Fault: A prediction has neither.
    """
    rows = _decode(b"[" + b",".join(answer.predictions) + b"]")
    predictions = [bytes(row.label) or bytes(row.value) for row in rows]
    if not all(predictions):
        raise Fault("A prediction has neither label nor value.", "The server's log has it.")
    said: dict[str, Any] = {
        "revision": answer.revision,
        "prediction_ids": [row.id for row in rows],
    }
    if any(row.arm for row in rows):
        said["models"] = [row.model for row in rows]
        said["arms"] = [row.arm for row in rows]
    else:
        said["model"] = rows[0].model
    flags = [{"row": number} | flag for number, row in enumerate(rows) for flag in row.flags or ()]
    if flags:
        said["flags"] = flags
    return b'{"predictions":[%b],%b' % (b",".join(predictions), _encode(said)[1:])


def format_of(request: HttpRequest) -> str:
    """
    Tell the format of a body by its content type; a charset may be UTF-8 alone, as in MLflow.

    Raises:
        UnknownFormat: It is none that is read.
    """
    header = request.headers.get(b"content-type", b"").decode("latin-1")
    kind, *parameters = [part.strip().lower() for part in header.split(";")]
    format = FORMATS.get(kind)
    if format is None:
        raise UnknownFormat(
            f"The content type is {printable_text(kind) or 'missing'}.",
            f"Send one of {', '.join(FORMATS)}.",
        )
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name != "charset" or value.strip('"') not in ("utf-8", "utf8"):
            raise UnknownFormat(
                f"The content type says {printable_text(parameter)!r}.",
                "Send UTF-8, and say no more.",
            )
    return format


def dressed(response: HttpResponse) -> HttpResponse:
    """Give an error MLflow's shape, `{"error_code", "message"}`, with ours beside it."""
    error = msgspec.json.decode(response.body)["error"]
    usual = "BAD_REQUEST" if response.status < 500 else "INTERNAL_ERROR"
    code = ERROR_CODES.get(response.status, usual)
    said = {"error_code": code, "message": error["message"], "error": error}
    return msgspec.structs.replace(response, body=_encode(said))


def _tried(answer: PredictResponse) -> bytes | ClewlineError:
    try:
        return written(answer)
    except ClewlineError as error:
        return error


def _admit(request: HttpRequest) -> HttpResponse | None:
    format_of(request)
    return None


def _version() -> HttpResponse:
    return HttpResponse(200, VERSION, b"text/plain")


def _ping_of(endpoint: ServedEndpoint) -> HttpResponse:
    """Tell whether an endpoint answers; a cold one does, after it is loaded."""
    if endpoint.state in ("ready", "cold"):
        return PONG
    if endpoint.trouble is not None:
        raise endpoint.trouble
    if endpoint.state == "unloaded":
        raise NotFound(f"{endpoint.name} is unloaded.", "An operator can load it.")
    raise Overloaded(f"{endpoint.name} is {endpoint.state}.", "Ask again in a second.")


def _read(name: str, role: Need | None, answer: Callable[[], HttpResponse]) -> HttpRoute:
    return HttpRoute(name, role, READ, lambda request: request.answer(answer()), dress=dressed)


def _dead_end(error: ClewlineError) -> HttpRoute:
    """Give a route that leads to an error, for those who may know what there is."""

    def handle(request: HttpRequest) -> None:
        raise error

    def admit(request: HttpRequest) -> HttpResponse:
        raise error

    return HttpRoute("mlflow.unknown", "any", (), handle, admit, dress=dressed, keep=False)
