"""The client that waits."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import Any, Self

import httpx

from clewline.client.api_calls import CallSteps, Connection, RetryPause, StepResult, T
from clewline.client.request_body import RowsLike
from clewline.client.responses import ApiResponse, ConnectionFailure
from clewline.client.results import (
    EndpointInfo,
    Prediction,
    PredictionExplanations,
    PredictionRecord,
    PredictResult,
)


class Client(Connection[httpx.Client]):
    """
    Asks a prediction server. Threads may share one; it keeps connections open until `close`.

    Args:
        url: URL of the server, such as `http://localhost:8470`.
        token: The token that `clewline tokens add` printed, if the server requires one.
        timeout_s: Seconds that one attempt waits for the server.
        retries: Attempts after the first. Each waits a little longer, and at least as long as the
            server asks. Only requests that are safe to repeat are sent again.
        verify: Whether to verify the certificate of an `https` server.
        ca_file: PEM file of the certificate authorities to trust; None trusts the system's.

    Raises:
        UsageError: The URL is not valid, or the file of authorities cannot be read.

    Every call raises the `ClewlineError` that the server reports, such as `InvalidInput` with its
    `fields`; `Unreachable` if no answer came; `DeadlineExceeded` if it took too long.

    Example:
        `with Client("http://localhost:8470") as client: client.predict("income", rows)`
    """

    _http_client = httpx.Client

    def predict(
        self,
        endpoint: str,
        rows: RowsLike,
        *,
        entities: Sequence[str] | None = None,
        timeout_ms: float | None = None,
        idempotency_key: str | None = "auto",
    ) -> PredictResult:
        """
        Ask an endpoint for predictions.

        Args:
            endpoint: Name of the endpoint.
            rows: One row as a dict, several rows, or a table of Polars, pandas or Arrow.
            entities: The entity that each row is about, one string per row.
            timeout_ms: Milliseconds that the server may take before it answers `DeadlineExceeded`.
            idempotency_key: A new key for each call unless given. With a key, an attempt whose
                answer was lost is sent again, gets the first answer, and is logged once. With
                None, a request is sent again only if the server has not begun it.

        Returns:
            One prediction per row, in order, and the revision that answered.

        Raises:
            InvalidInput: The signature refuses rows; `fields` names each problem.
            NotFound: There is no such endpoint; the message suggests the nearest name.
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
        piece_rows: int = 1000,
    ) -> Iterator[Prediction]:
        """
        Ask for the predictions of many rows, and yield them one by one as they come.

        The rows are sent in requests of `piece_rows`, each under its own idempotency key: rows
        that an error leaves unanswered begin at such a request, and no row is logged twice.

        Args:
            endpoint: Name of the endpoint.
            rows: As for `predict`.
            entities: As for `predict`.
            timeout_ms: As for `predict`, for each request.
            piece_rows: Rows per request.
        """
        for piece in self._calls.pieces(endpoint, rows, entities, timeout_ms, piece_rows):
            yield from self._run(piece)

    def prediction(self, id: str) -> PredictionRecord:
        """Read a prediction from the log, with its lineage."""
        return self._run(self._calls.prediction(id))

    def explain(
        self,
        id: str,
        kind: str | None = None,
        *,
        fresh: bool = False,
        timeout_ms: float | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """
        Explain a logged prediction under the version that answered it.

        Args:
            id: Of the prediction.
            kind: Of explanation, such as `attributions`; the server chooses if it is None.
            fresh: Compute it, even if it is stored.
            timeout_ms: Milliseconds that the server may take before it answers
                `DeadlineExceeded`; it goes on, and whoever asks later gets what it has found.
            options: Of the kind, such as `keep=["age"]` of `counterfactuals`.

        Raises:
            NotFound: There is no such prediction.
            InvalidInput: There is no such option, or it does not fit the model.
            NotSupported: There is no such kind, or it cannot explain this prediction.
            Overloaded: Too many explanations are wanted at once.
        """
        return self._run(self._calls.explain(id, kind, options, fresh, timeout_ms))

    def explanations(self, id: str) -> PredictionExplanations:
        """
        List the stored explanations of a prediction, and what failed in the background.

        Raises:
            NotFound: There is no such prediction.
        """
        return self._run(self._calls.explanations(id))

    def endpoints(self) -> list[EndpointInfo]:
        """List the endpoints of the server."""
        return self._run(self._calls.endpoints())

    def endpoint(self, name: str) -> EndpointInfo:
        """Describe an endpoint: its live revision, its models and its signature."""
        return self._run(self._calls.endpoint(name))

    def ready(self) -> bool:
        """Return whether the server is ready; False if nothing answers."""
        return self._run(self._calls.ready())

    def load(self, endpoint: str) -> None:
        """Load an endpoint that was unloaded; return when it answers again."""
        self._run(self._calls.move(endpoint, "load"))

    def unload(self, endpoint: str) -> None:
        """Unload an endpoint: it stops answering, and its memory is freed."""
        self._run(self._calls.move(endpoint, "unload"))

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, steps: CallSteps[T]) -> T:
        result: StepResult = None
        try:
            while True:
                step = steps.send(result)
                if isinstance(step, RetryPause):
                    time.sleep(step.seconds)
                    continue
                try:
                    result = ApiResponse.of(self._http.request(**self._arguments(step)))
                except httpx.RequestError as error:
                    result = ConnectionFailure.of(error)
        except StopIteration as done:
            value: T = done.value
            return value
