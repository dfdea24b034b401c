"""
POST /v2/models/NAME/explain: rows are predicted and logged as by `infer`, and then explained.

The protocol itself has no such method. The route is that of KServe's model servers, and the answer
has the shape of an inference: one output, `explanation`, of one string of JSON a row.
"""

from __future__ import annotations

from typing import Any

import msgspec

from clewline.errors import ClewlineError, MalformedInput, TooManyRows
from clewline.explain.channel import ExplainRequest
from clewline.explain.requests import ExplanationRequests, require_requests
from clewline.protocols.http.access import check_token
from clewline.protocols.http.request import HttpRequest, HttpResponse
from clewline.protocols.http.request_headers import deadline
from clewline.protocols.oip.body_format import OIP_BINARY
from clewline.protocols.oip.infer_request import (
    InferOptions,
    decode_exactly,
    decode_quickly,
    json_length,
)
from clewline.protocols.oip.inference import Inference
from clewline.protocols.rest.explanations import wait_s
from clewline.serve.access import TokenChecker
from clewline.serve.endpoint_server import EndpointServer
from clewline.serve.request.predict_request import PredictRequest, PredictResponse
from clewline.serve.served_endpoint import ServedEndpoint
from clewline.store.ids import id_bytes

EXPLAINED_ROWS = 16
"""Maximum rows of one request: each is explained after the other."""
PARAMETERS = {"prediction": str, "kind": str, "options": dict, "fresh": bool}


class OipExplanation(Inference):
    """One request to explain. After the prediction, one row after another is explained."""

    __slots__ = ("_found", "_ids", "_requests", "_token_checker", "_version_answered", "_wanted")

    def __init__(
        self,
        requests: ExplanationRequests | None,
        token_checker: TokenChecker,
        server: EndpointServer,
        endpoint: ServedEndpoint,
        version: str,
        request: HttpRequest,
    ) -> None:
        super().__init__(server, endpoint, version, request)
        self._requests = require_requests(requests)
        self._token_checker = token_checker
        self._wanted: dict[str, Any] = {}
        self._ids: list[str] = []
        self._found: list[bytes] = []
        self._version_answered = ""

    def read_options(self) -> InferOptions:
        """Read what is asked for, and check how many rows there are."""
        options = super().read_options()
        self._wanted = _read_parameters(options.parameters or {})
        if "prediction" not in self._wanted:
            _check_rows(self.predict_request)
        return options

    def predict(self, options: InferOptions | ClewlineError) -> None:
        """Have the rows predicted, or take the prediction that is named."""
        if isinstance(options, ClewlineError) or "prediction" not in self._wanted:
            super().predict(options)
            return
        self.options = options
        try:
            # Knowing an id is no permission: who may predict may not read what others sent.
            check_token(self._token_checker, self.request, "review")
            id_bytes(self._wanted["prediction"])
        except ClewlineError as error:
            self.fail(error)
            return
        assert self.endpoint.serving is not None, "the options were read after it was loaded"
        self._version_answered = str(self.endpoint.serving.loaded.revision.number)
        self._ids = [self._wanted["prediction"]]
        self._explain_next()

    def answer(self, result: PredictResponse | ClewlineError) -> None:
        """Explain the rows that were predicted."""
        if isinstance(result, ClewlineError):
            self.fail(result)
            return
        self.request.rows, self.request.first_id = len(result.predictions), result.first_id
        self._version_answered = result.revision.rpartition("#")[2]
        self._ids = [msgspec.json.decode(each, type=_Answer).id for each in result.predictions]
        self._explain_next()

    def _explain_next(self, found: bytes | ClewlineError | None = None) -> None:
        if isinstance(found, ClewlineError):
            self.fail(found)
            return
        if found is not None:
            self._found.append(found)
        if len(self._found) == len(self._ids):
            self.request.answer(self._write())
            return
        wanted = ExplainRequest(
            prediction=self._ids[len(self._found)],
            kind=self._wanted.get("kind"),
            options=self._wanted.get("options", {}),
            fresh=self._wanted.get("fresh", False),
        )
        until = min(self.predict_request.deadline, deadline(self.request))
        try:
            self._requests.explain(
                wanted, wait_s(until), self.request.is_abandoned, self._explain_next
            )
        except ClewlineError as error:
            self.fail(error)

    def _write(self) -> HttpResponse:
        content: dict[str, Any] = {"model_name": self.endpoint.name}
        content["model_version"] = self._version_answered
        if self.options.id is not None:
            content["id"] = self.options.id
        content["parameters"] = {"prediction_ids": ",".join(self._ids)}
        output: dict[str, Any] = {"name": "explanation", "datatype": "BYTES"}
        output["shape"] = [len(self._found)]
        output["parameters"] = {"content_type": "str"}
        output["data"] = [each.decode() for each in self._found]
        return HttpResponse(200, msgspec.json.encode(content | {"outputs": [output]}))


class _Answer(msgspec.Struct):
    id: str


def _check_rows(asked: PredictRequest) -> None:
    """
    Accept a request of few rows, before they are predicted.

    Raises:
        TooManyRows: There are more than can be explained in one request.
        MalformedInput: It is no inference request.
    """
    length = json_length(asked.detail, asked.body) if asked.format == OIP_BINARY else None
    parsed = decode_quickly(asked.body, length) or decode_exactly(asked.body, length)
    shapes = [each.shape for each in parsed.request.inputs if each.shape]
    rows = max((shape[0] for shape in shapes), default=0)
    if rows > EXPLAINED_ROWS:
        raise TooManyRows(
            f"There are {rows} rows; one request explains at most {EXPLAINED_ROWS}.",
            "Send fewer, or predict them with /infer and explain those that matter by their ids.",
        )


def _read_parameters(given: dict[str, Any]) -> dict[str, Any]:
    """
    Read the parameters of an explanation; others are those of a request to infer.

    Raises:
        MalformedInput: One has another type; `options` may be an object, or JSON in a string.
    """
    found = {name: given[name] for name in PARAMETERS if given.get(name) is not None}
    if isinstance(found.get("options"), str):
        try:
            found["options"] = msgspec.json.decode(found["options"])
        except msgspec.DecodeError as error:
            raise MalformedInput(f"The parameter options is no JSON: {error}.") from error
    for name, value in found.items():
        if not isinstance(value, PARAMETERS[name]):
            raise MalformedInput(
                f"The parameter {name} of a request to explain is {str(value)[:100]!r}.",
                f"Send a value of the JSON type that {PARAMETERS[name].__name__} is in Python.",
            )
    return found
