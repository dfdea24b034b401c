"""Every caller of one request gets an answer, whatever raises on the way to it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from support import wait_until

from clewline.errors import ClewlineError, Fault
from clewline.project import Project
from clewline.serve.endpoint_server import EndpointServer
from clewline.serve.json_reader import JsonReader
from clewline.serve.predict import predict
from clewline.serve.request.predict_request import PredictRequest, PredictResponse

BODY = b'{"age":30,"hours":40}'
Result = PredictResponse | ClewlineError


@pytest.fixture
def serve(
    loans: Callable[[Path], Project], tmp_path: Path
) -> Callable[[Callable[[EndpointServer], Awaitable[None]]], None]:
    """Run a test beside a server of two endpoints, with a limit on its time."""

    def run(test: Callable[[EndpointServer], Awaitable[None]]) -> None:
        async def main() -> None:
            server = EndpointServer(loans(tmp_path))
            await server.open()
            try:
                async with asyncio.timeout(20):
                    await test(server)
                assert not server.under_way
            finally:
                assert await server.close(5.0)

        asyncio.run(main())

    return run


def ask(server: EndpointServer, reply: Callable[[Result], None], key: str | None = None) -> None:
    predict(server, server.get("income"), PredictRequest(BODY, key=key), reply)


@pytest.mark.parametrize("keyed", [False, True])
def test_an_answer_that_cannot_be_written_becomes_an_error_and_harms_no_neighbour(
    serve: Any, keyed: bool
) -> None:
    async def test(server: EndpointServer) -> None:
        results: list[Result] = []
        loop = asyncio.get_running_loop()
        last: asyncio.Future[Result] = loop.create_future()

        def cannot_write(result: Result) -> None:
            results.append(result)
            if isinstance(result, PredictResponse):
                raise ValueError("NaN is no JSON")

        def never(result: Result) -> None:
            raise ValueError("nothing can be written")

        key = "the same" if keyed else None
        ask(server, cannot_write, key)
        ask(server, never, key)
        ask(server, last.set_result, key)
        assert isinstance(await last, PredictResponse)
        await wait_until(lambda: len(results) == 2)
        assert isinstance(results[1], Fault)
        assert "ValueError" in results[1].message

    serve(test)


def test_a_reader_that_raises_answers_with_an_error(
    serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: JsonReader, body: bytes) -> None:
        raise RuntimeError("broken on purpose")

    async def test(server: EndpointServer) -> None:
        monkeypatch.setattr(JsonReader, "read", broken)
        found: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        ask(server, found.set_result)
        assert isinstance(await found, Fault)

    serve(test)


def test_a_caller_who_waits_for_a_load_is_not_stranded_by_another_one(serve: Any) -> None:
    async def test(server: EndpointServer) -> None:
        endpoint = server.get("income")
        found: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def broken(_: Any) -> None:
            raise RuntimeError("broken on purpose")

        endpoint.waiting += [broken, found.set_result]
        assert endpoint.serving is not None
        endpoint.notify(endpoint.serving)
        assert await found is endpoint.serving

    serve(test)


def test_an_unknown_format_is_an_error_and_leaves_nothing_under_way(serve: Any) -> None:
    async def test(server: EndpointServer) -> None:
        found: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        request = PredictRequest(BODY, format="unheard-of")
        predict(server, server.get("income"), request, found.set_result)
        assert isinstance(await found, ClewlineError)

    serve(test)
