"""
MLflow's scoring protocol: callers of a model that MLflow served change only the address.

    POST /mlflow/NAME/invocations      GET /mlflow/NAME/ping    …/health    …/version
    POST /invocations                  GET /ping    /health    /version

Those at the root ask the only endpoint, or the one named `default`.

Source: MLflow 3.17, mlflow/pyfunc/scoring_server.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from clewline.errors import ClewlineError, Fault, NotFound, UnknownFormat
from clewline.protocols.http.error_responses import unless_error
from clewline.protocols.http.health import require_ready
from clewline.protocols.http.request import HttpRequest, HttpResponse
from clewline.protocols.http.request_headers import run_at_once_or_on_thread, when_read
from clewline.protocols.http.route import (
    POST,
    READ,
    DocumentedRoute,
    HttpRoute,
    RouteGroup,
    error_route,
)
from clewline.protocols.mlflow.body_format import MLFLOW
from clewline.serve.access import Need
from clewline.serve.endpoint_server import EndpointServer
from clewline.serve.formats.body_format import CSV, PARQUET
from clewline.serve.predict import predict
from clewline.serve.request.predict_request import PredictRequest, PredictResponse
from clewline.serve.served_endpoint import ServedEndpoint
from clewline.signature.field_rules import printable_text

VERSION = b"3.17.0"
"""The version of MLflow that `/version` reports; its clients compare it with their own."""
DEFAULT = "default"
"""The endpoint that the routes at the root ask, where there are several."""
FORMATS = {"application/json": MLFLOW, "text/csv": CSV, "application/vnd.apache.parquet": PARQUET}
"""Content type → format of the body."""
LARGE_ROWS = 1024
"""An answer of more rows is written on a thread; below, it takes under a millisecond."""
NAMED = 20
"""The most endpoints that an error names."""
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
_PATH = b"/mlflow/"
_encode = msgspec.json.encode


DOCUMENTED = RouteGroup(
    "MLflow",
    "Every endpoint as a model that MLflow serves.",
    tuple(
        DocumentedRoute(method, f"{head}/{name}", summary)
        for head in ("", "/mlflow/{name}")
        for method, name, summary in (
            ("post", "invocations", "Predict."),
            ("get", "ping", "Return 200 if the server is ready."),
            ("get", "health", "Return 200 if the server is ready."),
            ("get", "version", "Return the version of MLflow."),
        )
    ),
)


class MlflowRoutes:
    """
    Finds the routes of the protocol and answers them. Lives on the loop's thread.

    Args:
        endpoints: The endpoints that are served.
        ready: Returns the answer of `/health/ready`.
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
        """Find the route of a path; return one that raises if there is none below /mlflow."""
        if (route := self._fixed.get(path)) is not None:
            return route
        try:
            if path == b"/invocations":
                # The default endpoint may change while the server runs, so the route is not kept.
                return self._invocations(self._default_endpoint(), keep=False)
            return self._endpoint_route(path) if path.startswith(_PATH) else None
        except ClewlineError as error:
            return error_route("mlflow.unknown", error, as_mlflow_error)

    def _endpoint_route(self, path: bytes) -> HttpRoute:
        text = path.decode("utf-8", "replace")
        name, _, verb = text.removeprefix(_PATH.decode()).partition("/")
        if not name or verb not in ("invocations", "ping", "health", "version"):
            raise NotFound(
                f"There is nothing at {printable_text(text)}.", "docs/mlflow.md lists the routes."
            )
        endpoint = self.endpoints.get(name)
        if verb == "invocations":
            return self._invocations(endpoint)
        if verb == "version":
            return _read("mlflow.version", "any", _version)
        return _read("mlflow.ping", "any", partial(_ping_endpoint, endpoint))

    def _default_endpoint(self) -> ServedEndpoint:
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
        handle = partial(handle_invocation, self.endpoints, endpoint)
        name = "mlflow.invocations"
        return HttpRoute(name, "predict", POST, handle, _admit, endpoint, as_mlflow_error, keep)

    def _ping(self) -> HttpResponse:
        response = self._is_ready()
        return as_mlflow_error(response) if response.status != 200 else PONG


def handle_invocation(
    server: EndpointServer, endpoint: ServedEndpoint, request: HttpRequest
) -> None:
    """Answer a request to predict, now or later."""

    def begin(predict_request: PredictRequest) -> None:
        predict(server, endpoint, predict_request, unless_error(request, as_mlflow_error, answer))

    def answer(result: PredictResponse) -> None:
        request.rows, request.first_id = len(result.predictions), result.first_id
        then = unless_error(request, as_mlflow_error, request.answer)
        run_at_once_or_on_thread(
            server.threads,
            lambda: HttpResponse(200, write_answer(result)),
            then,
            takes_long=request.rows > LARGE_ROWS,
        )

    then = unless_error(request, as_mlflow_error, begin)
    when_read(request, server.threads, then, format_of(request))


class _Prediction(msgspec.Struct, gc=False):
    id: str
    model: str = ""
    arm: str = ""
    label: msgspec.Raw = msgspec.Raw()
    value: msgspec.Raw = msgspec.Raw()
    set: msgspec.Raw = msgspec.Raw()
    interval: msgspec.Raw = msgspec.Raw()
    flags: list[dict[str, Any]] | None = None


_decode = msgspec.json.Decoder(list[_Prediction]).decode


def write_answer(answer: PredictResponse) -> bytes:
    """
    Write an answer: labels of a classifier or values of a regressor, then ids and the rest.

    Raises:
        Fault: A prediction has neither.
    """
    rows = _decode(b"[" + b",".join(answer.predictions) + b"]")
    predictions = [bytes(row.label) or bytes(row.value) for row in rows]
    if not all(predictions):
        raise Fault("A prediction has neither label nor value.", "The server's log has it.")
    content: dict[str, Any] = {
        "revision": answer.revision,
        "prediction_ids": [row.id for row in rows],
    }
    if any(row.arm for row in rows):
        content["models"] = [row.model for row in rows]
        content["arms"] = [row.arm for row in rows]
    else:
        content["model"] = rows[0].model
    for key in ("set", "interval"):  # one for each row
        found = [getattr(row, key) for row in rows]
        if all(map(bytes, found)):
            content[f"{key}s"] = found
    flags = [{"row": number} | flag for number, row in enumerate(rows) for flag in row.flags or ()]
    if flags:
        content["flags"] = flags
    return b'{"predictions":[%b],%b' % (b",".join(predictions), _encode(content)[1:])


def format_of(request: HttpRequest) -> str:
    """
    Return the format of a body by its content type; as in MLflow, the charset must be UTF-8.

    Raises:
        UnknownFormat: The content type or the charset is not supported.
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
                f"The content type has the parameter {printable_text(parameter)!r}.",
                "Send UTF-8, without other parameters.",
            )
    return format


def as_mlflow_error(response: HttpResponse) -> HttpResponse:
    """Give an error MLflow's shape, `{"error_code", "message"}`, with ours beside it."""
    error = msgspec.json.decode(response.body)["error"]
    usual = "BAD_REQUEST" if response.status < 500 else "INTERNAL_ERROR"
    code = ERROR_CODES.get(response.status, usual)
    content = {"error_code": code, "message": error["message"], "error": error}
    return msgspec.structs.replace(response, body=_encode(content))


def _admit(request: HttpRequest) -> HttpResponse | None:
    format_of(request)
    return None


def _version() -> HttpResponse:
    return HttpResponse(200, VERSION, b"text/plain")


def _ping_endpoint(endpoint: ServedEndpoint) -> HttpResponse:
    require_ready(endpoint)
    return PONG


def _read(name: str, role: Need | None, answer: Callable[[], HttpResponse]) -> HttpRoute:
    return HttpRoute(
        name, role, READ, lambda request: request.answer(answer()), shape_error=as_mlflow_error
    )
