"""POST /v1/endpoints/NAME/predict: any body that we read, any answer that we write."""

from __future__ import annotations

from functools import partial

from clewline.errors import ClewlineError
from clewline.protocols.http.error_responses import coded_response, error_response, unless_error
from clewline.protocols.http.request import HttpRequest, HttpResponse
from clewline.protocols.http.request_headers import content_coding, run_on_thread, when_read
from clewline.protocols.rest.answer_tables import table_of
from clewline.protocols.rest.content_types import (
    JSON_TYPE,
    NDJSON_TYPE,
    PLAIN,
    WRITTEN,
    accepted_type,
    body_format,
    format_of_json,
)
from clewline.protocols.rest.streams import StreamedPrediction
from clewline.serve.endpoint_server import EndpointServer
from clewline.serve.formats.body_format import JSON
from clewline.serve.predict import predict
from clewline.serve.request.predict_request import PredictRequest, PredictResponse, Reply
from clewline.serve.served_endpoint import ServedEndpoint

SPECIAL = frozenset(
    {b"clewline-tried", b"content-encoding", b"idempotency-key", b"timeout-ms", b"traceparent"}
)
"""Headers that say more of a request than its content type."""


def handle_predict(server: EndpointServer, endpoint: ServedEndpoint, request: HttpRequest) -> None:
    """Answer a request to predict, now or later."""
    headers, body = request.headers, request.body
    if (
        headers.get(b"content-type") == JSON_TYPE
        and headers.get(b"accept", b"*/*") in PLAIN
        and SPECIAL.isdisjoint(headers)
        and b"?" not in request.target
    ):  # nearly always: plain JSON for plain JSON
        format = JSON if b'"columns"' not in body else format_of_json(body)
        predict_request = PredictRequest(body, format, abandoned=request.is_abandoned)
        predict(server, endpoint, predict_request, partial(answer_json, request))
        return
    reply: Reply = partial(answer_json, request)
    try:
        content_type = accepted_type(request)
        format, detail = body_format(request)
    except ClewlineError as error:
        reply(error)
        return
    if content_type is None:
        request.answer(not_acceptable())
        return
    if content_type not in (JSON_TYPE, NDJSON_TYPE):
        reply = partial(answer_table, server, request, content_type)

    def begin(predict_request: PredictRequest | ClewlineError) -> None:
        try:
            if isinstance(predict_request, ClewlineError):
                raise predict_request
            if predict_request.format == JSON:
                predict_request.format = format_of_json(predict_request.body)
            if content_type == NDJSON_TYPE:
                StreamedPrediction(server, request, endpoint).begin(predict_request)
            else:
                predict(server, endpoint, predict_request, reply)
        except ClewlineError as error:
            reply(error)

    when_read(request, server.threads, begin, format, detail)


def answer_json(request: HttpRequest, result: PredictResponse | ClewlineError) -> None:
    """Answer with the predictions as JSON, or with an error."""
    if isinstance(result, ClewlineError):
        request.answer(error_response(result))
        return
    request.rows, request.first_id = len(result.predictions), result.first_id
    body = b'{"revision":"%b","predictions":[%b]}' % (
        result.revision.encode(),
        b",".join(result.predictions),
    )
    request.answer(HttpResponse(200, body))


def answer_table(
    server: EndpointServer,
    request: HttpRequest,
    content_type: bytes,
    result: PredictResponse | ClewlineError,
) -> None:
    """Answer with the predictions as CSV or Arrow, or with an error."""
    if isinstance(result, ClewlineError):
        request.answer(error_response(result))
        return
    request.rows, request.first_id = len(result.predictions), result.first_id

    def work() -> HttpResponse:
        return HttpResponse(200, table_of(result, content_type), content_type)

    run_on_thread(server.threads, work, unless_error(request, None, request.answer))


def admit(request: HttpRequest) -> HttpResponse | None:
    """
    Return the refusal of a request by its head alone; None admits it.

    Raises:
        UnknownFormat: The content type or the coding is not supported.
    """
    body_format(request)
    content_coding(request)
    return not_acceptable() if accepted_type(request) is None else None


def not_acceptable() -> HttpResponse:
    """Return the answer to a caller who accepts no format that we write."""
    known = ", ".join(kind.decode() for kind in WRITTEN)
    return coded_response(
        "not_acceptable", f"The Accept header names no available format. Accept one of {known}."
    )
