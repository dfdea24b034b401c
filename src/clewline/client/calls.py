"""
What both clients do, without doing it: each call is a generator of steps.

    Call ─► send a `Request`, get a `Reply` or `Lost` ─► perhaps `Pause`, and again ─► the result

`Client` and `AsyncClient` carry the steps out, one by waiting, the other by awaiting.

What is asked again: a request that did not reach the server; one that was refused without
being begun (429, 503); and, under an idempotency key or where nothing is changed by asking
twice, one whose answer was lost or timed out (502, 504). The key makes the server give its
first answer to every further attempt, and log it once.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Generator, Iterator, Sequence
from typing import Literal, TypeAlias, TypeVar
from urllib.parse import quote, urlsplit

import msgspec

from clewline.client.answers import EndpointInfo, Logged, Predictions
from clewline.client.failures import Lost, Reply, error_of, wait_of
from clewline.client.rows import Body, RowsLike, body_of, rows_of
from clewline.errors import Fault, UsageError

T = TypeVar("T")
AUTO: Literal["auto"] = "auto"
PIECE_ROWS = 1_000
"""Rows that one request of a stream has, unless it is told otherwise."""
RETRIES = 3
TIMEOUT_S = 30.0
FIRST_WAIT_S = 0.1
"""What the first pause is at most; each further one is twice as long …"""
LONGEST_WAIT_S = 5.0
"""… up to this. A pause is a random part of it, and never less than the server asks."""
LONGEST_RETRY_AFTER_S = 60.0
"""A server that asks for a longer pause is not asked again."""


class Request(msgspec.Struct, frozen=True):
    """One request to send."""

    method: str
    path: str
    body: bytes = b""
    headers: dict[str, str] = {}
    repeatable: bool = True  # asking twice does no more than asking once
    waits: bool = False  # its caller has said how long: a deadline that is over stays over


class Pause(msgspec.Struct, frozen=True):
    """Some time to wait before the next attempt."""

    seconds: float


Got: TypeAlias = Reply | Lost | None
Steps: TypeAlias = Generator[Request | Pause, Got, T]


class Calls:
    """
    The calls of a client, as steps.

    Args:
        url: Of the server.
        token: Sent as a bearer's, where the server asks for one.
        retries: Further attempts after the first.
    """

    def __init__(self, url: str, token: str | None, retries: int) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(
                f"{url!r} is no URL of a server.", "Give http://HOST:PORT or https://…"
            )
        if retries < 0:
            raise UsageError(f"retries is {retries}.", "Give 0 or more.")
        self.url = url.rstrip("/")
        self.headers = {"accept": "application/json"}
        if token is not None:
            self.headers["authorization"] = f"Bearer {_header('The token', token)}"
        self._retries = retries

    def predict(
        self,
        endpoint: str,
        rows: RowsLike,
        entities: Sequence[str] | None,
        timeout_ms: float | None,
        idempotency_key: str | None,
    ) -> Steps[Predictions]:
        """Ask for predictions."""
        body = body_of(rows, entities)
        return (yield from self._predict(endpoint, body, timeout_ms, idempotency_key))

    def pieces(
        self,
        endpoint: str,
        rows: RowsLike,
        entities: Sequence[str] | None,
        timeout_ms: float | None,
        piece_rows: int,
    ) -> Iterator[Steps[Predictions]]:
        """Ask for predictions piece by piece, each under a key of its own."""
        if piece_rows < 1:
            raise UsageError(f"piece_rows is {piece_rows}.", "Give 1 or more.")
        plain = rows_of(rows)
        if entities is not None and len(entities) != len(plain):
            raise UsageError(
                f"There are {len(entities)} entities and {len(plain)} rows.", "Give one a row."
            )
        for start in range(0, len(plain), piece_rows):
            end = start + piece_rows
            about = None if entities is None else entities[start:end]
            body = body_of(plain[start:end], about)
            yield self._predict(endpoint, body, timeout_ms, AUTO)

    def prediction(self, id: str) -> Steps[Logged]:
        """Read a prediction."""
        return (yield from self._read(f"/v1/predictions/{_segment(id)}", Logged))

    def endpoints(self) -> Steps[list[EndpointInfo]]:
        """List the endpoints."""
        found = yield from self._read("/v1/endpoints", dict[str, list[EndpointInfo]])
        return found.get("endpoints", [])

    def endpoint(self, name: str) -> Steps[EndpointInfo]:
        """Describe an endpoint."""
        return (yield from self._read(f"/v1/endpoints/{_segment(name)}", EndpointInfo))

    def ready(self) -> Steps[bool]:
        """Tell whether the server is ready; asked once."""
        got = yield Request("GET", "/health/ready")
        return isinstance(got, Reply) and got.status == 200

    def move(self, endpoint: str, verb: Literal["load", "unload"]) -> Steps[None]:
        """Load or unload an endpoint."""
        path = f"/v2/repository/models/{_segment(endpoint)}/{verb}"
        yield from self._ask(Request("POST", path))

    def _predict(
        self,
        endpoint: str,
        body: Body,
        timeout_ms: float | None,
        idempotency_key: str | None,
    ) -> Steps[Predictions]:
        headers = {"content-type": body.content_type}
        key = str(uuid.uuid4()) if idempotency_key == AUTO else idempotency_key
        if key is not None:
            headers["idempotency-key"] = _header("The idempotency key", key)
        if timeout_ms is not None:
            headers["timeout-ms"] = f"{timeout_ms:.15g}"
        path = f"/v1/endpoints/{_segment(endpoint)}/predict"
        if body.entities is not None:
            path += f"?entities={body.entities}"
        repeatable, waits = key is not None, timeout_ms is not None
        reply = yield from self._ask(Request("POST", path, body.data, headers, repeatable, waits))
        return _decoded(reply, Predictions)

    def _read(self, path: str, kind: type[T]) -> Steps[T]:
        return _decoded((yield from self._ask(Request("GET", path))), kind)

    def _ask(self, request: Request) -> Steps[Reply]:
        """Ask, and again where that is safe; the answer, or the error that it means."""
        attempt = 0
        while True:
            got = yield request
            assert got is not None
            if isinstance(got, Reply) and got.status < 400:
                return got
            wait = None
            if attempt < self._retries:
                wait = _wait_of(request, got, attempt)
            if wait is None:
                raise got.error(self.url) if isinstance(got, Lost) else error_of(got)
            yield Pause(wait)
            attempt += 1


def _wait_of(request: Request, got: Reply | Lost, attempt: int) -> float | None:
    """Tell how long to wait before asking again; None where that would not be safe, or no use."""
    backoff = random.uniform(0, min(FIRST_WAIT_S * 2**attempt, LONGEST_WAIT_S))
    if isinstance(got, Lost):
        return backoff if request.repeatable or not got.sent else None
    if got.status in (502, 504):
        known = request.repeatable and not (got.status == 504 and request.waits)
        return backoff if known else None
    if got.status not in (429, 503):
        return None
    least = wait_of(got) or 0.0
    return max(backoff, least) if least <= LONGEST_RETRY_AFTER_S else None


def _decoded(reply: Reply, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(reply.body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Fault(
            f"The server answered {reply.status} with something else than was asked for: {error}.",
            "See that the URL is that of a clewline server, of a version near to the client's.",
        ) from error


def _header(what: str, text: str) -> str:
    if not (text and text.isascii() and text.isprintable()) or text != text.strip():
        raise UsageError(f"{what} cannot be sent in a header.", "Give printable ASCII.")
    return text


def _segment(name: str) -> str:
    """Write a name as one segment of a path."""
    if name in ("", ".", ".."):
        raise UsageError(f"{name!r} is no name.", "Give the name of an endpoint, or an id.")
    return quote(name, safe="")
