"""
What both clients do, without doing it: each call is a generator of steps.

    call ─► send an `ApiRequest`, get an `ApiResponse` or a `ConnectionFailure`
         ─► perhaps a `RetryPause`, and again ─► the result

`Client` and `AsyncClient` carry the steps out, one by waiting, the other by awaiting.

A request is sent again if it did not reach the server; if it was refused before it was begun
(429, 503); and, if it has an idempotency key or changes nothing, when its answer was lost or timed
out (502, 504). The key makes the server give its first answer to every further attempt, and log
it once.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, Literal, TypeAlias, TypeVar
from urllib.parse import quote, urlsplit

import httpx
import msgspec

from clewline.client.request_body import EncodedRows, RowsLike, encode_rows, rows_of
from clewline.client.responses import ApiResponse, ConnectionFailure, trusted_authorities
from clewline.client.results import (
    EndpointInfo,
    PredictionExplanations,
    PredictionRecord,
    PredictResult,
)
from clewline.errors import Fault, UsageError

T = TypeVar("T")
HttpClient = TypeVar("HttpClient", httpx.Client, httpx.AsyncClient)
FIRST_WAIT_S = 0.1
"""The longest first pause; each further one may be twice as long …"""
LONGEST_WAIT_S = 5.0
"""… up to this. A pause is a random part of it, and at least as long as the server asks."""
LONGEST_RETRY_AFTER_S = 60.0
"""If the server asks for a longer pause, the request is not sent again."""


class ApiRequest(msgspec.Struct, frozen=True):
    """One request to send."""

    method: str
    path: str
    body: bytes = b""
    headers: dict[str, str] = {}
    is_repeatable: bool = True  # sending it twice does no more than sending it once
    has_deadline: bool = False  # its caller said how long: a deadline that is over stays over


class RetryPause(msgspec.Struct, frozen=True):
    """Seconds to wait before the next attempt."""

    seconds: float


StepResult: TypeAlias = ApiResponse | ConnectionFailure | None
CallSteps: TypeAlias = Generator[ApiRequest | RetryPause, StepResult, T]


class ApiCalls:
    """
    The calls of a client, as steps.

    Args:
        url: URL of the server.
        retries: Attempts after the first.
    """

    def __init__(self, url: str, retries: int) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(
                f"{url!r} is not the URL of a server.", "Give http://HOST:PORT or https://…"
            )
        if retries < 0:
            raise UsageError(f"retries is {retries}.", "Give 0 or more.")
        self.url, self._retries = url.rstrip("/"), retries

    def predict(
        self,
        endpoint: str,
        rows: RowsLike,
        entities: Sequence[str] | None,
        timeout_ms: float | None,
        idempotency_key: str | None,
    ) -> CallSteps[PredictResult]:
        """Ask for predictions."""
        return self._predict(endpoint, encode_rows(rows, entities), timeout_ms, idempotency_key)

    def pieces(
        self,
        endpoint: str,
        rows: RowsLike,
        entities: Sequence[str] | None,
        timeout_ms: float | None,
        piece_rows: int,
    ) -> Iterator[CallSteps[PredictResult]]:
        """Ask for predictions piece by piece, each under its own key."""
        if piece_rows < 1:
            raise UsageError(f"piece_rows is {piece_rows}.", "Give 1 or more.")
        plain = rows_of(rows)
        if entities is not None and len(entities) != len(plain):
            raise UsageError(
                f"There are {len(entities)} entities and {len(plain)} rows.", "Give one per row."
            )
        for start in range(0, len(plain), piece_rows):
            end = start + piece_rows
            body = encode_rows(plain[start:end], None if entities is None else entities[start:end])
            yield self._predict(endpoint, body, timeout_ms, "auto")

    def prediction(self, id: str) -> CallSteps[PredictionRecord]:
        """Read a prediction."""
        return self._get(f"/v1/predictions/{_segment(id)}", PredictionRecord)

    def explain(
        self,
        id: str,
        kind: str | None,
        options: dict[str, Any],
        fresh: bool,
        timeout_ms: float | None,
    ) -> CallSteps[dict[str, Any]]:
        """Explain a prediction."""
        headers = {"content-type": "application/json"}
        if timeout_ms is not None:
            headers["timeout-ms"] = f"{timeout_ms:.15g}"
        request = ApiRequest(
            "POST",
            f"/v1/predictions/{_segment(id)}/explain",
            msgspec.json.encode({"kind": kind, "options": options, "fresh": fresh}),
            headers,
            has_deadline=timeout_ms is not None,
        )
        return _decoded((yield from self._send(request)), dict[str, Any])

    def explanations(self, id: str) -> CallSteps[PredictionExplanations]:
        """List the stored explanations of a prediction."""
        return self._get(f"/v1/predictions/{_segment(id)}/explanations", PredictionExplanations)

    def endpoints(self) -> CallSteps[list[EndpointInfo]]:
        """List the endpoints."""
        found = yield from self._get("/v1/endpoints", dict[str, list[EndpointInfo]])
        return found.get("endpoints", [])

    def endpoint(self, name: str) -> CallSteps[EndpointInfo]:
        """Describe an endpoint."""
        return self._get(f"/v1/endpoints/{_segment(name)}", EndpointInfo)

    def ready(self) -> CallSteps[bool]:
        """Return whether the server is ready; asked once."""
        answer = yield ApiRequest("GET", "/health/ready")
        return isinstance(answer, ApiResponse) and answer.status == 200

    def move(self, endpoint: str, verb: Literal["load", "unload"]) -> CallSteps[None]:
        """Load or unload an endpoint."""
        path = f"/v2/repository/models/{_segment(endpoint)}/{verb}"
        yield from self._send(ApiRequest("POST", path))

    def _predict(
        self, endpoint: str, body: EncodedRows, timeout_ms: float | None, key: str | None
    ) -> CallSteps[PredictResult]:
        headers = {"content-type": body.content_type}
        key = str(uuid.uuid4()) if key == "auto" else key
        if key is not None:
            headers["idempotency-key"] = _header_value("The idempotency key", key)
        if timeout_ms is not None:
            headers["timeout-ms"] = f"{timeout_ms:.15g}"
        path = f"/v1/endpoints/{_segment(endpoint)}/predict"
        if body.entities is not None:
            path += f"?entities={body.entities}"
        request = ApiRequest(
            "POST",
            path,
            body.data,
            headers,
            is_repeatable=key is not None,
            has_deadline=timeout_ms is not None,
        )
        return _decoded((yield from self._send(request)), PredictResult)

    def _get(self, path: str, kind: type[T]) -> CallSteps[T]:
        return _decoded((yield from self._send(ApiRequest("GET", path))), kind)

    def _send(self, request: ApiRequest) -> CallSteps[ApiResponse]:
        """Send a request, and again where that is safe; raise the error that the answer means."""
        for attempt in range(self._retries + 1):
            answer = yield request
            assert answer is not None
            if isinstance(answer, ApiResponse) and answer.status < 400:
                return answer
            wait_s = _retry_wait_s(request, answer, attempt) if attempt < self._retries else None
            if wait_s is None:
                raise answer.error() if isinstance(answer, ApiResponse) else answer.error(self.url)
            yield RetryPause(wait_s)
        raise AssertionError("the last attempt returns or raises")


class Connection(Generic[HttpClient]):
    """What both clients hold; `Client` describes the arguments."""

    _http_client: type[HttpClient]

    def __init__(
        self,
        url: str = "http://localhost:8470",
        *,
        token: str | None = None,
        timeout_s: float = 30.0,
        retries: int = 3,
        verify: bool = True,
        ca_file: str | Path | None = None,
    ) -> None:
        self._calls = ApiCalls(url, retries)
        headers = {"accept": "application/json"}
        if token is not None:
            headers["authorization"] = f"Bearer {_header_value('The token', token)}"
        trusted = trusted_authorities(url, verify, ca_file)
        self._http: HttpClient = self._http_client(
            headers=headers, timeout=timeout_s, verify=trusted
        )

    def _arguments(self, request: ApiRequest) -> dict[str, Any]:
        """Return a request as httpx takes it."""
        url, content = self._calls.url + request.path, request.body or None
        return {
            "method": request.method,
            "url": url,
            "content": content,
            "headers": request.headers,
        }


def _retry_wait_s(
    request: ApiRequest, answer: ApiResponse | ConnectionFailure, attempt: int
) -> float | None:
    """Return the seconds before the next attempt; None if it would be unsafe, or no use."""
    backoff = random.uniform(0, min(FIRST_WAIT_S * 2**attempt, LONGEST_WAIT_S))
    if isinstance(answer, ConnectionFailure):
        return backoff if request.is_repeatable or not answer.sent else None
    if answer.status in (502, 504):
        is_over = answer.status == 504 and request.has_deadline
        return backoff if request.is_repeatable and not is_over else None
    least = answer.wait_s() or 0.0
    if answer.status not in (429, 503) or least > LONGEST_RETRY_AFTER_S:
        return None
    return max(backoff, least)


def _decoded(reply: ApiResponse, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(reply.body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Fault(
            f"The server answered {reply.status} with something else than was asked for: {error}.",
            "Check that the URL is of a clewline server whose version is near the client's.",
        ) from error


def _header_value(what: str, text: str) -> str:
    if not (text and text.isascii() and text.isprintable()) or text != text.strip():
        raise UsageError(f"{what} cannot be sent in a header.", "Give printable ASCII.")
    return text


def _segment(name: str) -> str:
    """Write a name as one segment of a path."""
    if name in ("", ".", ".."):
        raise UsageError(
            f"{name!r} is not a valid name.", "Give the name of an endpoint, or an id."
        )
    return quote(name, safe="")
