"""
Predictions as they are computed: newline-delimited JSON, one prediction a line, in order.

The rows are cut into pieces. Each piece is a call of its own, logged before its lines leave;
the next one is computed when the caller has read enough. An error before the first line is
answered like any other; later it is the last line.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import msgspec

from clewline.errors import BadRequest, ClewlineError, InvalidInput
from clewline.protocols.http.error_responses import error_response, unless_error
from clewline.protocols.http.request import HttpRequest, HttpResponse, ResponseStream
from clewline.protocols.http.request_headers import run_on_thread
from clewline.protocols.rest.content_types import NDJSON_TYPE
from clewline.serve.endpoint_server import EndpointServer
from clewline.serve.formats.body_format import JSON, JSON_ROWS, load_format
from clewline.serve.loaded_revision import LoadedRevision
from clewline.serve.predict import predict
from clewline.serve.request.predict_request import PredictRequest, PredictResponse
from clewline.serve.served_endpoint import ServedEndpoint, ServedRevision

PIECE_ROWS = 512
"""Rows of one call: the caller waits for so many, and no more are computed ahead."""
STREAM_ROWS = 100_000
"""Maximum rows of one request with a streamed answer."""


class RowsPiece(NamedTuple):
    """Some rows of a request, as a JSON array, and their entities as a JSON array or ''."""

    body: bytes
    entities: str


class StreamedPrediction:
    """One request with a streamed answer. Lives on the loop's thread."""

    def __init__(
        self, server: EndpointServer, request: HttpRequest, endpoint: ServedEndpoint
    ) -> None:
        self._server = server
        self._request = request
        self._endpoint = endpoint
        self._stream: ResponseStream | None = None
        self._predict_request: PredictRequest
        self._pieces: list[RowsPiece] = []
        self._next = 0
        self._rows = 0  # answered

    def begin(self, predict_request: PredictRequest) -> None:
        """
        Cut the rows, once the endpoint is loaded, and have the first piece computed.

        Raises:
            BadRequest: The request has an idempotency key, which stands for one answer.
        """
        if predict_request.key is not None:
            raise BadRequest(
                "An Idempotency-Key stands for one answer, but a stream has many.",
                "Leave the key out, or Accept application/json.",
            )
        self._predict_request = predict_request

        def cut(serving: ServedRevision) -> None:
            work = partial(cut_rows, predict_request, serving.loaded)
            run_on_thread(self._server.threads, work, unless_error(self._request, None, start))

        def start(pieces: list[RowsPiece]) -> None:
            predict_request.body = b""  # the pieces have it
            self._pieces = pieces
            self._predict_next()

        self._server.when_loaded(self._endpoint, unless_error(self._request, None, cut))

    def _predict_next(self) -> None:
        if self._request.is_abandoned():
            self._end()
            return
        piece = self._pieces[self._next]
        self._pieces[self._next] = RowsPiece(b"", "")
        self._next += 1
        predict_request = msgspec.structs.replace(
            self._predict_request, body=piece.body, format=JSON_ROWS, detail=piece.entities
        )
        predict(self._server, self._endpoint, predict_request, self._send)

    def _send(self, result: PredictResponse | ClewlineError) -> None:
        if isinstance(result, ClewlineError):
            if self._rows and isinstance(result, InvalidInput) and result.fields:
                # The caller counts rows from the start of the request, not of the piece.
                fields = tuple(
                    msgspec.structs.replace(each, row=each.row + self._rows)
                    for each in result.fields
                )
                message = f"From row {self._rows} on: {result.message}"
                result = InvalidInput(message, result.fix, fields)
            self._fail(result)
            return
        if self._stream is None:
            self._request.first_id = result.first_id
            self._stream = self._request.start(HttpResponse(200, b"", NDJSON_TYPE))
        self._rows += len(result.predictions)
        self._request.rows = self._rows
        self._stream.send(b"\n".join([*result.predictions, b""]))
        if self._next == len(self._pieces):
            self._end()
        else:
            self._stream.when_writable(self._predict_next)

    def _fail(self, error: ClewlineError) -> None:
        response = error_response(error)
        if self._request.reply is None:
            self._request.answer(response)
        elif self._stream is None:  # it has begun, and what should carry its body was not made
            self._request.abort()
        elif not self._stream.ended:
            try:
                self._stream.send(response.body + b"\n")
                self._end()
            except BaseException:
                self._stream.abort()
                raise

    def _end(self) -> None:
        self._pieces = []
        if self._stream is None:
            self._fail(BadRequest("The caller has gone."))
        else:
            self._stream.end()


def cut_rows(predict_request: PredictRequest, loaded: LoadedRevision) -> list[RowsPiece]:
    """
    Cut a request's rows into pieces; on a thread.

    JSON is cut as it came, and checked piece by piece; other formats are checked as a whole.

    Raises:
        MalformedInput, TooManyRows, InvalidInput: As the format says.
    """
    if predict_request.format == JSON:
        bodies, entities = loaded.json_reader.pieces(predict_request.body, PIECE_ROWS, STREAM_ROWS)
    else:
        read = load_format(predict_request.format).read_rows(
            predict_request.body, predict_request.detail, loaded.checker, STREAM_ROWS
        )
        names = [rule.field.name for rule in loaded.checker.rules]
        rows = [dict(zip(names, msgspec.structs.astuple(row), strict=True)) for row in read.rows]
        starts = range(0, len(rows), PIECE_ROWS)
        bodies = [msgspec.json.encode(rows[start : start + PIECE_ROWS]) for start in starts]
        entities = read.entities
    return [
        RowsPiece(
            body,
            msgspec.json.encode(entities[at * PIECE_ROWS : (at + 1) * PIECE_ROWS]).decode()
            if entities
            else "",
        )
        for at, body in enumerate(bodies)
    ]
