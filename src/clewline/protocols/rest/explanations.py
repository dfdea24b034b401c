"""
Explanations of logged predictions.

    POST /v1/predictions/ID/explain         the explaining process explains it
    GET  /v1/predictions/ID/explanations    those that are stored, and why others failed
"""

from __future__ import annotations

import math
import time
from functools import partial
from typing import Any

import msgspec

from clewline.errors import BodyTooLarge, ClewlineError, MalformedInput
from clewline.explain.channel import ExplainRequest
from clewline.explain.requests import ExplanationRequests, require_requests
from clewline.project import Project
from clewline.protocols.http.error_responses import error_response
from clewline.protocols.http.request import HttpRequest, HttpResponse
from clewline.protocols.http.request_headers import QUICK_BYTES, deadline
from clewline.serve.log.reader import get_prediction
from clewline.store.ids import id_bytes

WAIT_S = 20.0
"""How long a caller waits who does not say how long."""
SHAPE = 'Send {"kind": …, "options": {…}, "fresh": false}, or no body.'


class ExplainBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a request to explain."""

    kind: str | None = None
    options: dict[str, Any] = {}
    fresh: bool = False


def handle_explain(
    requests: ExplanationRequests | None, identifier: str, request: HttpRequest
) -> None:
    """Answer a request to explain a prediction, later."""
    waiting = require_requests(requests)
    id_bytes(identifier)
    body = _read_body(request.body)
    wanted = ExplainRequest(
        prediction=identifier, kind=body.kind, options=body.options, fresh=body.fresh
    )
    waiting.explain(
        wanted, wait_s(deadline(request)), request.is_abandoned, partial(_answer, request)
    )


def list_explanations(project: Project, identifier: str) -> HttpResponse:
    """
    Answer with the stored explanations of a prediction, the oldest first. Reads the catalog.

    Raises:
        NotFound: There is neither an explanation nor such a prediction.
    """
    from clewline.explain.background import failed_explanations
    from clewline.explain.explain_prediction import stored_explanations

    stored = [
        {
            "id": each.id,
            "kind": each.kind,
            "created": each.created,
            "seconds": each.seconds,
            "explanation": each.body,
        }
        for each in stored_explanations(project, identifier)
    ]
    failed = failed_explanations(project, identifier)
    if not stored and not failed:
        get_prediction(project.log, identifier)
    return HttpResponse(200, msgspec.json.encode({"explanations": stored, "failed": failed}))


def wait_s(deadline: float) -> float:
    """Return how long a caller waits whose deadline is a time of `time.perf_counter`."""
    return WAIT_S if deadline == math.inf else max(0.0, deadline - time.perf_counter())


def _read_body(body: bytes) -> ExplainBody:
    if len(body) > QUICK_BYTES:
        raise BodyTooLarge(
            f"The body has {len(body)} bytes; the limit of this route is {QUICK_BYTES}.", SHAPE
        )
    try:
        return msgspec.json.decode(body.strip() or b"{}", type=ExplainBody)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedInput(f"The body is no request to explain: {error}.", SHAPE) from error


def _answer(request: HttpRequest, result: bytes | ClewlineError) -> None:
    if isinstance(result, ClewlineError):
        request.answer(error_response(result))
    else:
        request.answer(HttpResponse(200, result))
