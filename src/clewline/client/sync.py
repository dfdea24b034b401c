"""The client that waits."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import httpx

from clewline.client import transport
from clewline.client.answers import EndpointInfo, Logged, Prediction, Predictions
from clewline.client.calls import (
    AUTO,
    PIECE_ROWS,
    RETRIES,
    TIMEOUT_S,
    Calls,
    Got,
    Request,
    Steps,
)
from clewline.client.rows import RowsLike

T = TypeVar("T")


class Client:
    """
    Asks a prediction server. Threads may share one; it keeps connections open until `close`.

    Args:
        url: Of the server, such as `http://localhost:8470`.
        token: As `clewline tokens add` showed it, where the server asks for one.
        timeout_s: How long one attempt waits for the server.
        retries: Attempts after the first; each waits a little longer, and no less than the
            server asks. Only what is safe to ask twice is asked again.
        verify: Whether the certificate of an `https` server is checked.
        ca_file: The authorities to trust, in PEM; those of the system if None.

    Raises:
        UsageError: The URL is none, or the file of authorities cannot be read.

    Every call raises the `ClewlineError` that the server means, such as `InvalidInput` with its
    `fields`; `Unreachable` when no answer came; `DeadlineExceeded` when it took too long.

    Example:
        `with Client("http://localhost:8470") as client: client.predict("income", rows)`
    """

    def __init__(
        self,
        url: str = "http://localhost:8470",
        *,
        token: str | None = None,
        timeout_s: float = TIMEOUT_S,
        retries: int = RETRIES,
        verify: bool = True,
        ca_file: str | Path | None = None,
    ) -> None:
        self._calls = Calls(url, token, retries)
        context = transport.context_of(url, verify, ca_file)
        self._http = httpx.Client(headers=self._calls.headers, timeout=timeout_s, verify=context)

    def predict(
        self,
        endpoint: str,
        rows: RowsLike,
        *,
        entities: Sequence[str] | None = None,
        timeout_ms: float | None = None,
        idempotency_key: str | None = AUTO,
    ) -> Predictions:
        """
        Ask an endpoint for predictions.

        Args:
            endpoint: Its name.
            rows: A row as a dict, several of them, or a table of Polars, pandas or Arrow.
            entities: Whom each row is about, one text a row.
            timeout_ms: How long the server may take; it answers `DeadlineExceeded` then.
            idempotency_key: Made anew for each call unless given. With one, an attempt whose
                answer was lost is made again, gets the first answer, and is logged once. None
                sends none; then only what the server has not begun is asked again.

        Returns:
            One prediction a row, in order, and the revision that answered.

        Raises:
            InvalidInput: The signature refuses rows; `fields` names every one.
            NotFound: There is no such endpoint; names the nearest.
            ModelFailed: The model raised; the rows are logged under `ids`.
        """
        return self._run(self._calls.predict(endpoint, rows, entities, timeout_ms, idempotency_key))

    def stream(
        self,
        endpoint: str,
        rows: RowsLike,
        *,
        entities: Sequence[str] | None = None,
        timeout_ms: float | None = None,
        piece_rows: int = PIECE_ROWS,
    ) -> Iterator[Prediction]:
        """
        Ask for the predictions of many rows, and give them one by one as they come.

        The rows are sent in requests of `piece_rows`, each under a key of its own: what an
        error leaves unanswered begins at a piece, and no row is logged twice.

        Args:
            endpoint: Its name.
            rows: As for `predict`.
            entities: As for `predict`.
            timeout_ms: As for `predict`, of each piece.
            piece_rows: Rows a request.
        """
        for piece in self._calls.pieces(endpoint, rows, entities, timeout_ms, piece_rows):
            yield from self._run(piece)

    def prediction(self, id: str) -> Logged:
        """Read a prediction from the log, and the line that leads back to what made it."""
        return self._run(self._calls.prediction(id))

    def endpoints(self) -> list[EndpointInfo]:
        """List the endpoints of the server."""
        return self._run(self._calls.endpoints())

    def endpoint(self, name: str) -> EndpointInfo:
        """Describe an endpoint: its live revision, its models and its signature."""
        return self._run(self._calls.endpoint(name))

    def ready(self) -> bool:
        """Tell whether the server answers all that it should; False where nothing answers, too."""
        return self._run(self._calls.ready())

    def load(self, endpoint: str) -> None:
        """Load an endpoint that was unloaded; returns when it answers again."""
        self._run(self._calls.move(endpoint, "load"))

    def unload(self, endpoint: str) -> None:
        """Unload an endpoint; it answers no more, and its memory is freed."""
        self._run(self._calls.move(endpoint, "unload"))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _run(self, steps: Steps[T]) -> T:
        got: Got = None
        while True:
            try:
                step = steps.send(got)
            except StopIteration as done:
                result: T = done.value
                return result
            if isinstance(step, Request):
                got = self._send(step)
            else:
                time.sleep(step.seconds)

    def _send(self, request: Request) -> Got:
        try:
            response = self._http.request(
                request.method,
                self._calls.url + request.path,
                content=request.body or None,
                headers=request.headers,
            )
        except httpx.RequestError as error:
            return transport.lost_by(error)
        return transport.reply_of(response)
