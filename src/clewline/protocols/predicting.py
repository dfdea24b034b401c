"""Requests to predict over native REST: any body that is read, any answer that is written."""

from __future__ import annotations

import time

from clewline.errors import ClewlineError
from clewline.protocols.answer_formats import table_of
from clewline.protocols.asking import coding_of, later, when_asked
from clewline.protocols.bodies import (
    JSON_TYPE,
    NDJSON_TYPE,
    PLAIN,
    WRITTEN,
    NotAcceptable,
    format_of_json,
    sent,
    wanted,
)
from clewline.protocols.http.exchange import Exchange, Response
from clewline.protocols.status import of_code, of_error
from clewline.protocols.streamed import Streamed
from clewline.serve.ask import Ask
from clewline.serve.endpoints import Endpoint, Endpoints
from clewline.serve.formats import JSON
from clewline.serve.predict_response import PredictResponse


def predict(endpoints: Endpoints, exchange: Exchange, endpoint: Endpoint) -> None:
    """Answer a request to predict, now or later."""
    prediction = _Prediction(endpoints, exchange, endpoint)
    if _is_usual(exchange):
        body = exchange.body
        ask = Ask(body, format_of_json(body), abandoned=exchange.is_abandoned)
        endpoints.predict(endpoint, ask, prediction)
        return
    try:
        prediction.content_type = wanted(exchange)
        format, detail = sent(exchange)
    except ClewlineError as error:
        prediction(error)
    except NotAcceptable:
        prediction.answer(not_acceptable())
    else:
        when_asked(exchange, endpoints.threads, prediction.begin, format, detail)


def admit(exchange: Exchange) -> Response | None:
    """Refuse by the head what would not be read or could not be answered."""
    try:
        wanted(exchange)
        sent(exchange)
        coding_of(exchange)
    except ClewlineError as error:
        return of_error(error)
    except NotAcceptable:
        return not_acceptable()
    return None


def not_acceptable() -> Response:
    """Make the answer to callers that take nothing which is written here."""
    known = ", ".join(kind.decode() for kind in WRITTEN)
    return of_code("not_acceptable", f"Nothing that Accept names is written here. Take {known}.")


def _is_usual(exchange: Exchange) -> bool:
    """Tell a request of plain JSON for plain JSON, which says nothing that matters beside."""
    headers = exchange.headers
    return (
        headers.get(b"content-type") == JSON_TYPE
        and headers.get(b"accept", b"*/*") in PLAIN
        and _SPECIAL.isdisjoint(headers)
        and b"?" not in exchange.target
    )


_SPECIAL = frozenset({b"content-encoding", b"idempotency-key", b"timeout-ms", b"traceparent"})


class _Prediction:
    """The answer that is owed to a request to predict; called with what became of it."""

    __slots__ = ("_endpoint", "_endpoints", "_exchange", "content_type")

    def __init__(self, endpoints: Endpoints, exchange: Exchange, endpoint: Endpoint) -> None:
        self.content_type = JSON_TYPE
        self._endpoints = endpoints
        self._exchange = exchange
        self._endpoint = endpoint

    def begin(self, ask: Ask | ClewlineError) -> None:
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
            Streamed(self._endpoints, self._exchange, self._endpoint).begin(ask)
        except ClewlineError as error:
            self(error)

    def __call__(self, result: PredictResponse | ClewlineError) -> None:
        if isinstance(result, ClewlineError):
            self.answer(of_error(result))
            return
        self._exchange.rows = len(result.predictions)
        self._exchange.first_id = result.first_id
        if self.content_type != JSON_TYPE:
            self._as_table(result)
            return
        body = b'{"revision":"%b","predictions":[%b]}' % (
            result.revision.encode(),
            b",".join(result.predictions),
        )
        self.answer(Response(200, body))

    def answer(self, response: Response) -> None:
        """Give the answer, and note it."""
        seconds = time.perf_counter() - self._exchange.started
        self._endpoint.times.answered(response.status, seconds)
        self._exchange.answer(response)

    def _as_table(self, result: PredictResponse) -> None:
        content_type = self.content_type

        def then(written: bytes | ClewlineError) -> None:
            if isinstance(written, ClewlineError):
                self.answer(of_error(written))
            else:
                self.answer(Response(200, written, content_type))

        later(self._endpoints.threads, lambda: table_of(result, content_type), then)
