"""
Predictions as they are computed: newline-delimited JSON, one prediction a line, in order.

The rows are cut into pieces. Each is a call of its own, logged before its lines
leave; the next one is asked for when the caller has read enough. What goes wrong
before the first line is an error like any other; later it is the last line.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from clewline.errors import BadRequest, ClewlineError, InvalidInput
from clewline.protocols.error_responses import error_response
from clewline.protocols.http.request import HttpRequest, HttpResponse, ResponseStream
from clewline.protocols.request_headers import later
from clewline.protocols.rest.content_types import NDJSON_TYPE
from clewline.serve.endpoint_server import EndpointServer, ServedEndpoint, ServedRevision
from clewline.serve.formats import body_format
from clewline.serve.formats.body_format import JSON, JSON_ROWS
from clewline.serve.loaded_revision import LoadedRevision
from clewline.serve.predict_request import PredictRequest
from clewline.serve.predict_response import PredictResponse

PIECE_ROWS = 512
"""Rows of one call: the caller waits for so many, and no more are computed ahead."""
STREAM_ROWS = 100_000
"""Rows of one request whose answer is streamed."""


class Piece(NamedTuple):
    """Some rows of a request, as a JSON array."""

    body: bytes
    entities: list[str] | None


class Streamed:
    """
    The streamed answer that is owed to a request.

    Args:
        endpoints: Whom to ask.
        request: The request.
        endpoint: Which endpoint.
    """

    def __init__(
        self, endpoints: EndpointServer, request: HttpRequest, endpoint: ServedEndpoint
    ) -> None:
        self._endpoints = endpoints
        self._request = request
        self._endpoint = endpoint
        self._stream: ResponseStream | None = None
        self._ask: PredictRequest
        self._pieces: list[Piece] = []
        self._next = 0
        self._rows = 0  # answered

    def begin(self, ask: PredictRequest) -> None:
        """
        Cut the rows, once the endpoint is loaded, and ask for the first piece.

        Raises:
            BadRequest: There is a key, which stands for one answer.
        """
        if ask.key is not None:
            raise BadRequest(
                "An Idempotency-Key stands for one answer, and a stream is many.",
                "Leave the key out, or Accept application/json.",
            )
        self._ask = ask
        self._endpoints.when_loaded(self._endpoint, self._loaded)

    def _loaded(self, serving: ServedRevision | ClewlineError) -> None:
        if isinstance(serving, ClewlineError):
            self._fail(serving)
            return
        ask, loaded = self._ask, serving.loaded
        later(self._endpoints.threads, lambda: cut(ask, loaded), self._cut)

    def _cut(self, pieces: list[Piece] | ClewlineError) -> None:
        if isinstance(pieces, ClewlineError):
            self._fail(pieces)
            return
        self._ask.body = b""  # the pieces have it
        self._pieces = pieces
        self._ask_next()

    def _ask_next(self) -> None:
        if self._request.is_abandoned():
            self._end()
            return
        piece = self._pieces[self._next]
        self._pieces[self._next] = Piece(b"", None)
        self._next += 1
        asked = msgspec.structs.replace(
            self._ask, body=piece.body, format=JSON_ROWS, detail=_detail(piece.entities)
        )
        self._endpoints.predict(self._endpoint, asked, self._answered)

    def _answered(self, result: PredictResponse | ClewlineError) -> None:
        if isinstance(result, ClewlineError):
            self._fail(_moved(result, self._rows))
            return
        stream = self._started(result)
        self._rows += len(result.predictions)
        self._request.rows = self._rows
        stream.send(b"\n".join([*result.predictions, b""]))
        if self._next == len(self._pieces):
            self._end()
        else:
            stream.when_writable(self._ask_next)

    def _started(self, result: PredictResponse) -> ResponseStream:
        if self._stream is None:
            self._request.first_id = result.first_id
            self._stream = self._request.start(HttpResponse(200, b"", NDJSON_TYPE))
        return self._stream

    def _fail(self, error: ClewlineError) -> None:
        response = error_response(error)
        if self._stream is not None:
            self._stream.send(response.body + b"\n")
            self._end()
            return
        self._observe(response.status)
        self._request.answer(response)

    def _end(self) -> None:
        assert self._stream is not None or self._request.is_abandoned()
        self._pieces = []
        if self._stream is None:
            self._fail(BadRequest("Nobody waits for the answer."))
            return
        self._observe(200)
        self._stream.end()

    def _observe(self, status: int) -> None:
        seconds = time.perf_counter() - self._request.started
        self._endpoint.statistics.record_request(status, seconds)


def cut(ask: PredictRequest, loaded: LoadedRevision) -> list[Piece]:
    """
    Cut a request's rows into pieces; on a thread.

    JSON is cut as it came, and checked piece by piece; other formats are checked whole.

    Raises:
        MalformedInput, TooManyRows, InvalidInput: As its format says.
    """
    if ask.format == JSON:
        bodies, entities = loaded.json_reader.pieces(ask.body, PIECE_ROWS, STREAM_ROWS)
    else:
        read = body_format.load_format(ask.format).read_rows(
            ask.body, ask.detail, loaded.checker, STREAM_ROWS
        )
        names = [rule.field.name for rule in loaded.checker.rules]
        entities = read.entities
        bodies = [_encoded(part, names) for part in _parts(read.rows)]
    return [
        Piece(body, entities[place * PIECE_ROWS : (place + 1) * PIECE_ROWS] if entities else None)
        for place, body in enumerate(bodies)
    ]


def _parts(rows: Sequence[msgspec.Struct]) -> list[Sequence[msgspec.Struct]]:
    return [rows[start : start + PIECE_ROWS] for start in range(0, len(rows), PIECE_ROWS)]


def _encoded(rows: Sequence[msgspec.Struct], names: list[str]) -> bytes:
    return msgspec.json.encode(
        [dict(zip(names, msgspec.structs.astuple(row), strict=True)) for row in rows]
    )


def _detail(entities: list[str] | None) -> str:
    return "" if entities is None else msgspec.json.encode(entities).decode()


def _moved(error: ClewlineError, rows: int) -> ClewlineError:
    """Number the rows of a piece as the caller does."""
    if not rows or not isinstance(error, InvalidInput) or not error.fields:
        return error
    fields = tuple(msgspec.structs.replace(each, row=each.row + rows) for each in error.fields)
    return InvalidInput(f"From row {rows} on: {error.message}", error.fix, fields)
