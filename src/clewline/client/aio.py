"""The client that awaits."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import httpx

from clewline.client import transport
from clewline.client.answers import EndpointInfo, Logged, Prediction, Predictions
from clewline.client.calls import AUTO, PIECE_ROWS, RETRIES, TIMEOUT_S, Calls, Got, Request, Steps
from clewline.client.rows import RowsLike

T = TypeVar("T")


class AsyncClient:
    """
    Asks a prediction server from asyncio; arguments, answers and errors are those of `Client`.

    Tasks of one event loop may share it.

    Example:
        `async with AsyncClient() as client: await client.predict("income", rows)`
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
        self._http = httpx.AsyncClient(
            headers=self._calls.headers, timeout=timeout_s, verify=context
        )

    async def predict(
        self,
        endpoint: str,
        rows: RowsLike,
        *,
        entities: Sequence[str] | None = None,
        timeout_ms: float | None = None,
        idempotency_key: str | None = AUTO,
    ) -> Predictions:
        """Ask an endpoint for predictions, as `Client.predict`."""
        return await self._run(
            self._calls.predict(endpoint, rows, entities, timeout_ms, idempotency_key)
        )

    async def stream(
        self,
        endpoint: str,
        rows: RowsLike,
        *,
        entities: Sequence[str] | None = None,
        timeout_ms: float | None = None,
        piece_rows: int = PIECE_ROWS,
    ) -> AsyncIterator[Prediction]:
        """Ask for the predictions of many rows, as `Client.stream`."""
        for piece in self._calls.pieces(endpoint, rows, entities, timeout_ms, piece_rows):
            for prediction in await self._run(piece):
                yield prediction

    async def prediction(self, id: str) -> Logged:
        """Read a prediction from the log, as `Client.prediction`."""
        return await self._run(self._calls.prediction(id))

    async def endpoints(self) -> list[EndpointInfo]:
        """List the endpoints of the server."""
        return await self._run(self._calls.endpoints())

    async def endpoint(self, name: str) -> EndpointInfo:
        """Describe an endpoint, as `Client.endpoint`."""
        return await self._run(self._calls.endpoint(name))

    async def ready(self) -> bool:
        """Tell whether the server answers all that it should, as `Client.ready`."""
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

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def _run(self, steps: Steps[T]) -> T:
        got: Got = None
        while True:
            try:
                step = steps.send(got)
            except StopIteration as done:
                result: T = done.value
                return result
            if isinstance(step, Request):
                got = await self._send(step)
            else:
                await asyncio.sleep(step.seconds)

    async def _send(self, request: Request) -> Got:
        try:
            response = await self._http.request(
                request.method,
                self._calls.url + request.path,
                content=request.body or None,
                headers=request.headers,
            )
        except httpx.RequestError as error:
            return transport.lost_by(error)
        return transport.reply_of(response)
