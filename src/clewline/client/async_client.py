"""The client that awaits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
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


class AsyncClient(Connection[httpx.AsyncClient]):
    """
    Asks a prediction server from asyncio; arguments, answers and errors are those of `Client`.

    Tasks of one event loop may share it.

    Example:
        `async with AsyncClient() as client: await client.predict("income", rows)`
    """

    _http_client = httpx.AsyncClient

    async def predict(
        self,
        endpoint: str,
        rows: RowsLike,
        *,
        entities: Sequence[str] | None = None,
        timeout_ms: float | None = None,
        idempotency_key: str | None = "auto",
    ) -> PredictResult:
        """Ask an endpoint for predictions, as `Client.predict`."""
        call = self._calls.predict(endpoint, rows, entities, timeout_ms, idempotency_key)
        return await self._run(call)

    async def stream(
        self,
        endpoint: str,
        rows: RowsLike,
        *,
        entities: Sequence[str] | None = None,
        timeout_ms: float | None = None,
        piece_rows: int = 1000,
    ) -> AsyncIterator[Prediction]:
        """Ask for the predictions of many rows, as `Client.stream`."""
        for piece in self._calls.pieces(endpoint, rows, entities, timeout_ms, piece_rows):
            for prediction in await self._run(piece):
                yield prediction

    async def prediction(self, id: str) -> PredictionRecord:
        """Read a prediction from the log, as `Client.prediction`."""
        return await self._run(self._calls.prediction(id))

    async def explain(
        self,
        id: str,
        kind: str | None = None,
        *,
        fresh: bool = False,
        timeout_ms: float | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """Explain a logged prediction, as `Client.explain`."""
        return await self._run(self._calls.explain(id, kind, options, fresh, timeout_ms))

    async def explanations(self, id: str) -> PredictionExplanations:
        """List the stored explanations of a prediction, as `Client.explanations`."""
        return await self._run(self._calls.explanations(id))

    async def endpoints(self) -> list[EndpointInfo]:
        """List the endpoints of the server."""
        return await self._run(self._calls.endpoints())

    async def endpoint(self, name: str) -> EndpointInfo:
        """Describe an endpoint, as `Client.endpoint`."""
        return await self._run(self._calls.endpoint(name))

    async def ready(self) -> bool:
        """Return whether the server is ready, as `Client.ready`."""
        return await self._run(self._calls.ready())

    async def load(self, endpoint: str) -> None:
        """Load an endpoint that was unloaded."""
        await self._run(self._calls.move(endpoint, "load"))

    async def unload(self, endpoint: str) -> None:
        """Unload an endpoint."""
        await self._run(self._calls.move(endpoint, "unload"))

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _run(self, steps: CallSteps[T]) -> T:
        result: StepResult = None
        try:
            while True:
                step = steps.send(result)
                if isinstance(step, RetryPause):
                    await asyncio.sleep(step.seconds)
                    continue
                try:
                    result = ApiResponse.of(await self._http.request(**self._arguments(step)))
                except httpx.RequestError as error:
                    result = ConnectionFailure.of(error)
        except StopIteration as done:
            value: T = done.value
            return value
