"""Requests to predict over native REST: any body that is read, any answer that is written."""

from __future__ import annotations

import time

from clewline.errors import ClewlineError
from clewline.protocols.error_responses import coded_response, error_response
from clewline.protocols.http.request import HttpRequest, HttpResponse
from clewline.protocols.request_headers import coding_of, later, when_asked
from clewline.protocols.rest.answer_tables import table_of
from clewline.protocols.rest.content_types import (
    JSON_TYPE,
    NDJSON_TYPE,
    PLAIN,
    WRITTEN,
    NotAcceptable,
    format_of_json,
    sent,
    wanted,
)
from clewline.protocols.rest.streams import Streamed
from clewline.serve.endpoint_server import EndpointServer, ServedEndpoint
from clewline.serve.formats.body_format import JSON
from clewline.serve.predict_request import PredictRequest
from clewline.serve.predict_response import PredictResponse


def predict(endpoints: EndpointServer, request: HttpRequest, endpoint: ServedEndpoint) -> None:
    """Answer a request to predict, now or later."""
    prediction = _Prediction(endpoints, request, endpoint)
    if _is_usual(request):
        body = request.body
        ask = PredictRequest(body, format_of_json(body), abandoned=request.is_abandoned)
        endpoints.predict(endpoint, ask, prediction)
        return
    try:
        prediction.content_type = wanted(request)
        format, detail = sent(request)
    except ClewlineError as error:
        prediction(error)
    except NotAcceptable:
        prediction.answer(not_acceptable())
    else:
        when_asked(request, endpoints.threads, prediction.begin, format, detail)


def admit(request: HttpRequest) -> HttpResponse | None:
    """Refuse by the head what would not be read or could not be answered."""
    try:
        wanted(request)
        sent(request)
        coding_of(request)
    except ClewlineError as error:
        return error_response(error)
    except NotAcceptable:
        return not_acceptable()
    return None


def not_acceptable() -> HttpResponse:
    """Make the answer to callers that take nothing which is written here."""
    known = ", ".join(kind.decode() for kind in WRITTEN)
    return coded_response(
        "not_acceptable", f"Nothing that Accept names is written here. Take {known}."
    )


def _is_usual(request: HttpRequest) -> bool:
    """Tell a request of plain JSON for plain JSON, which says nothing that matters beside."""
    headers = request.headers
    return (
        headers.get(b"content-type") == JSON_TYPE
        and headers.get(b"accept", b"*/*") in PLAIN
        and _SPECIAL.isdisjoint(headers)
        and b"?" not in request.target
    )


_SPECIAL = frozenset({b"content-encoding", b"idempotency-key", b"timeout-ms", b"traceparent"})


class _Prediction:
    """The answer that is owed to a request to predict; called with what became of it."""

    __slots__ = ("_endpoint", "_endpoints", "_request", "content_type")

    def __init__(
        self, endpoints: EndpointServer, request: HttpRequest, endpoint: ServedEndpoint
    ) -> None:
        self.content_type = JSON_TYPE
        self._endpoints = endpoints
        self._request = request
        self._endpoint = endpoint

    def begin(self, ask: PredictRequest | ClewlineError) -> None:
        """Ask the endpoint."""
        if isinstance(ask, ClewlineError):
            self(ask)
            return
        if ask.format == JSON:
            ask.format = format_of_json(ask.body)
        if self.content_type != NDJSON_TYPE:
            self._endpoints.predict(self._endpoint, ask, self)
            return
        try:
            Streamed(self._endpoints, self._request, self._endpoint).begin(ask)
        except ClewlineError as error:
            self(error)

    def __call__(self, result: PredictResponse | ClewlineError) -> None:
        if isinstance(result, ClewlineError):
            self.answer(error_response(result))
            return
        self._request.rows = len(result.predictions)
        self._request.first_id = result.first_id
        if self.content_type != JSON_TYPE:
            self._as_table(result)
            return
        body = b'{"revision":"%b","predictions":[%b]}' % (
            result.revision.encode(),
            b",".join(result.predictions),
        )
        self.answer(HttpResponse(200, body))

    def answer(self, response: HttpResponse) -> None:
        """Give the answer, and note it."""
        seconds = time.perf_counter() - self._request.started
        self._endpoint.statistics.record_request(response.status, seconds)
        self._request.answer(response)

    def _as_table(self, result: PredictResponse) -> None:
        content_type = self.content_type

        def then(written: bytes | ClewlineError) -> None:
            if isinstance(written, ClewlineError):
                self.answer(error_response(written))
            else:
                self.answer(HttpResponse(200, written, content_type))

        later(self._endpoints.threads, lambda: table_of(result, content_type), then)
