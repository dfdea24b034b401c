"""Errors as HTTP answers: one table of statuses, and one shape of the body."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec

from clewline.errors import ClewlineError, FieldProblem, InvalidInput, ModelFailed, Overloaded
from clewline.protocols.http.request import HttpRefusal, HttpRequest, HttpResponse

T = TypeVar("T")
STATUS: dict[str, int] = {
    "usage": 400,
    "bad_request": 400,
    "invalid_input": 422,
    "malformed_input": 400,
    "too_many_rows": 413,
    "invalid_config": 422,
    "unauthorized": 401,
    "forbidden": 403,
    "cross_site": 403,
    "not_found": 404,
    "not_storable": 422,
    "not_supported": 501,
    "method_not_allowed": 405,
    "not_acceptable": 406,
    "request_timeout": 408,
    "conflict": 409,
    "too_many_requests": 429,
    "body_too_large": 413,
    "unsupported_media_type": 415,
    "expectation_failed": 417,
    "misdirected": 421,
    "head_too_large": 431,
    "check_failed": 422,
    "gate_refused": 422,
    "run_failed": 422,
    "integrity": 500,
    "blob_missing": 500,
    "blob_corrupt": 500,
    "error": 500,
    "fault": 500,
    "model_failed": 500,
    "not_implemented": 501,
    "overloaded": 503,
    "deadline_exceeded": 504,
    "http_version": 505,
    "store_full": 507,
    "store_read_only": 507,
    "store_newer": 500,
}
"""Code of an error → status; other codes are 500. `docs/errors.md` explains each."""

REFUSALS: dict[int, str] = {
    400: "bad_request",
    408: "request_timeout",
    413: "body_too_large",
    417: "expectation_failed",
    431: "head_too_large",
    500: "fault",
    501: "not_implemented",
    503: "overloaded",
    505: "http_version",
}
"""Status of a refusal by the HTTP server itself → code."""

CHALLENGE = ((b"www-authenticate", b'Bearer realm="clewline"'),)
"""The header that RFC 9110 (11.6.1) requires of every 401."""
NAMED_PROBLEMS = 10_000
"""Maximum field problems that one answer names; its message has the full number."""


def error_response(error: ClewlineError) -> HttpResponse:
    """Return the answer to an error of ours."""
    fields = error.fields if isinstance(error, InvalidInput) else ()
    retry_after_s = error.retry_after_s if isinstance(error, Overloaded) else None
    ids = error.ids if isinstance(error, ModelFailed) else ()
    headers = CHALLENGE if error.code == "unauthorized" else ()
    return coded_response(
        error.code, str(error), fields, ids=ids, retry_after_s=retry_after_s, headers=headers
    )


def unless_error(
    request: HttpRequest,
    shape_error: Callable[[HttpResponse], HttpResponse] | None,
    then: Callable[[T], None],
) -> Callable[[T | ClewlineError], None]:
    """
    Return a callback that answers a request with an error if it gets one, and else calls `then`.

    `shape_error` gives an error the shape of a protocol other than REST.
    """

    def settle(result: T | ClewlineError) -> None:
        if isinstance(result, ClewlineError):
            response = error_response(result)
            request.answer(response if shape_error is None else shape_error(response))
        else:
            then(result)

    return settle


def refusal_response(refused: HttpRefusal) -> HttpResponse:
    """Return the answer to a refusal by the HTTP server."""
    message = f"{refused.message} {refused.fix}"
    retry_after_s = 1.0 if refused.status == 503 else None
    return coded_response(REFUSALS[refused.status], message, retry_after_s=retry_after_s)


def coded_response(
    code: str,
    message: str,
    fields: Sequence[FieldProblem] = (),
    *,
    ids: Sequence[str] = (),
    retry_after_s: float | None = None,
    headers: tuple[tuple[bytes, bytes], ...] = (),
) -> HttpResponse:
    """Return the answer for a code of the table, in the shape of all errors."""
    error: dict[str, Any] = {"code": code, "message": message}
    if fields:
        error["fields"] = fields[:NAMED_PROBLEMS]
    if ids:
        error["ids"] = ids
    if retry_after_s is not None:
        headers += ((b"retry-after", b"%d" % max(1, math.ceil(retry_after_s))),)
    return HttpResponse(
        STATUS.get(code, 500), msgspec.json.encode({"error": error}), headers=headers
    )
