"""Endpoints are loaded when called, evicted by bytes, swapped without loss, given up on time."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from support import PATIENCE_S, wait_until

from clewline.errors import DeadlineExceeded, IntegrityError, NotFound, Overloaded
from clewline.model.registry_chain import APPLIED, append_link
from clewline.model.seal import Sealer
from clewline.project import Project
from clewline.serve import endpoint_server as endpoints_module
from clewline.serve.endpoint_server import EndpointServer
from clewline.serve.formats.body_format import JSON_ROWS
from clewline.serve.loaded_revision import LoadedRevision
from clewline.serve.log import reader as log_reader
from clewline.serve.predict import predict
from clewline.serve.request.predict_request import PredictRequest, PredictResponse
from clewline.store.records import LiveRevision, Revision
from clewline.store.store import Store

ROW = {"age": 39, "hours": 40.5}
BODY = msgspec.json.encode(ROW)
MANY = [f"e{i:02}" for i in range(70)]
"""More endpoints than are loaded at the start."""


@pytest.fixture
def project(loans: Callable[[Path], Project], tmp_path: Path) -> Project:
    return loans(tmp_path)


@pytest.fixture
def crowded(project: Project) -> Project:
    """A project of so many endpoints that they are cold at the start; `pinned` is not."""
    add(project, *MANY)
    add(project, "pinned", spec={"pin": True})
    return project


def add(
    project: Project,
    *names: str,
    number: int = 1,
    spec: dict[str, Any] | None = None,
    model: str = "income@1",
) -> None:
    """Make revisions live, whatever their models are."""
    with Store.open(project.store_root) as store, store.catalog.transaction() as transaction:
        like = transaction.get(Revision, "income", 1)
        assert like is not None
        for name in names:
            revision = msgspec.structs.replace(
                like,
                endpoint=name,
                number=number,
                spec=like.spec | (spec or {}),
                models={"model": model},
                packages={model: like.packages["income@1"]},
                graph={},
            )
            live = LiveRevision(endpoint=name, number=number, moved=time.time())
            transaction.add(revision)
            transaction.replace(live)
            append_link(transaction, APPLIED, {}, Sealer.of(project), revision, live)


def run(
    project: Project, test: Callable[[EndpointServer], Awaitable[None]], **settings: Any
) -> None:
    """Open the endpoints of a project, do the test, and close them."""

    async def main() -> None:
        endpoints = EndpointServer(project, **settings)
        await endpoints.open()
        try:
            await test(endpoints)
        finally:
            assert await endpoints.close(5.0)

    asyncio.run(main())


def asked(
    endpoints: EndpointServer, name: str, ask: PredictRequest | None = None
) -> asyncio.Future[Any]:
    """Ask an endpoint; the future gets the answer or the error as its result."""
    answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    predict(endpoints, endpoints.get(name), ask or PredictRequest(BODY), answered.set_result)
    return answered


def test_few_endpoints_are_loaded_at_the_start(project: Project) -> None:
    async def test(endpoints: EndpointServer) -> None:
        assert {e.state for e in endpoints.endpoints.values()} == {"ready"}
        assert endpoints.ready

    run(project, test)


def test_many_are_cold_until_they_are_called_but_for_pinned_ones(crowded: Project) -> None:
    async def test(endpoints: EndpointServer) -> None:
        assert endpoints.get("pinned").state == "ready"
        assert endpoints.get("e07").state == "cold"
        answer = await asked(endpoints, "e07")
        assert isinstance(answer, PredictResponse)
        assert answer.revision == "e07#1"
        assert endpoints.get("e07").state == "ready"
        assert endpoints.get("e08").state == "cold"

    run(crowded, test)


def test_calls_that_come_while_it_loads_wait_for_one_load(crowded: Project) -> None:
    async def test(endpoints: EndpointServer) -> None:
        before = sum(endpoints.load_statistics.seconds.counts)
        calls = [asked(endpoints, "e01") for _ in range(20)]
        assert endpoints.get("e01").state == "loading"
        answers = await asyncio.gather(*calls)
        assert all(isinstance(answer, PredictResponse) for answer in answers)
        assert sum(endpoints.load_statistics.seconds.counts) == before + 1
        assert endpoints.load_statistics.cold_calls == 20

    run(crowded, test)


def test_the_least_recently_used_is_evicted_and_comes_back(crowded: Project) -> None:
    async def test(endpoints: EndpointServer) -> None:
        for name in ("e01", "e02", "e03"):
            assert isinstance(await asked(endpoints, name), PredictResponse)
        assert endpoints.load_statistics.evictions > 0
        assert endpoints.get("e01").state == "cold"
        assert endpoints.get("pinned").state == "ready", "pinned ones stay"
        assert isinstance(await asked(endpoints, "e01"), PredictResponse)

    run(crowded, test, model_bytes=1)


def test_what_cannot_be_loaded_says_why_and_is_tried_again_after_a_pause(
    crowded: Project,
) -> None:
    (package,) = (crowded.packages / "income" / "1").glob("model.*[xs]")  # ONNX or skops
    whole = package.read_bytes()

    async def broken(endpoints: EndpointServer) -> None:
        failure = await asked(endpoints, "e01")
        assert isinstance(failure, IntegrityError)
        assert endpoints.get("e01").state == "failed"
        assert not endpoints.ready
        loads = sum(endpoints.load_statistics.seconds.counts)
        assert isinstance(await asked(endpoints, "e01"), IntegrityError)
        assert sum(endpoints.load_statistics.seconds.counts) == loads, "it is not hammered"
        package.write_bytes(whole)
        endpoints.get("e01").retry_now()
        assert isinstance(await asked(endpoints, "e01"), PredictResponse)
        assert endpoints.ready

    package.chmod(0o644)
    add(crowded, "pinned", number=2)  # nothing holds the model in memory
    package.write_bytes(whole[:-1] + b"?")
    run(crowded, broken)


def test_an_unloaded_endpoint_answers_no_more_here_and_in_other_servers(
    project: Project,
) -> None:
    async def test(endpoints: EndpointServer) -> None:
        other = EndpointServer(project)
        await other.open()
        await endpoints.unload("income")
        assert endpoints.get("income").state == "unloaded"
        assert isinstance(await asked(endpoints, "income"), NotFound)
        assert endpoints.ready, "it is as its operator wants it"
        await wait_until(lambda: other.get("income").state == "unloaded")
        await endpoints.load("income")
        assert isinstance(await asked(endpoints, "income"), PredictResponse)
        await wait_until(lambda: other.get("income").state == "ready")
        assert await other.close(5.0)
        with pytest.raises(NotFound):
            await endpoints.load("incme")

    run(project, test)


@pytest.fixture
def closed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The revisions that were closed, in order."""
    closed: list[str] = []
    close = LoadedRevision.close

    def noting(loaded: LoadedRevision) -> None:
        close(loaded)
        closed.append(loaded.ref)

    monkeypatch.setattr(LoadedRevision, "close", noting)
    return closed


def test_what_was_unloaded_or_replaced_is_closed_when_nobody_uses_it(
    project: Project, closed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoints_module, "WATCH_S", 0.02)

    async def test(endpoints: EndpointServer) -> None:
        used = endpoints.get("income").serving
        assert used is not None
        used.users += 1  # as a request under way
        await endpoints.unload("income")
        await endpoints.load("income")
        assert closed == []
        used.release()
        await wait_until(lambda: closed == ["income#1"])
        add(project, "income", number=2)
        await wait_until(lambda: closed == ["income#1"] * 2)
        assert endpoints.get("income").state == "ready"

    run(project, test)
    assert sorted(closed[2:]) == ["income#2", "sure#1"]


def test_what_was_evicted_is_closed(crowded: Project, closed: list[str]) -> None:
    async def test(endpoints: EndpointServer) -> None:
        for name in ("e01", "e02"):
            assert isinstance(await asked(endpoints, name), PredictResponse)
        await wait_until(lambda: closed == ["e01#1"])

    run(crowded, test, model_bytes=1)


def test_a_failed_endpoint_answers_its_reason_until_another_revision_goes_live(
    project: Project,
) -> None:
    async def test(endpoints: EndpointServer) -> None:
        endpoints.fail("income", Overloaded("It crashed three times."))
        assert endpoints.get("income").state == "failed"
        failure = await asked(endpoints, "income")
        assert failure.message == "It crashed three times."
        add(project, "income", number=2)
        await wait_until(lambda: endpoints.get("income").state == "ready")
        assert (await asked(endpoints, "income")).revision == "income#2"

    run(project, test)


def test_no_call_fails_while_revisions_are_swapped_even_for_one_that_cannot_load(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoints_module, "WATCH_S", 0.02)

    async def test(endpoints: EndpointServer) -> None:
        stop, seen = asyncio.Event(), set[str]()

        async def hammer() -> None:
            while not stop.is_set():
                answer = await asked(endpoints, "income")
                assert isinstance(answer, PredictResponse), answer
                seen.add(answer.revision)

        hammers = [asyncio.create_task(hammer()) for _ in range(32)]
        endpoint = endpoints.get("income")
        for number in (2, 3):
            await asyncio.to_thread(add, project, "income", number=number)
            wanted = f"income#{number}"
            await wait_until(partial(seen.__contains__, wanted))
        await asyncio.to_thread(add, project, "income", number=4, model="lost@1")
        await wait_until(lambda: endpoint.failure is not None)
        assert "lost" in str(endpoint.failure)
        assert not endpoints.ready
        assert (await asked(endpoints, "income")).revision == "income#3"
        await asyncio.to_thread(add, project, "income", number=5)
        await wait_until(lambda: "income#5" in seen)
        assert endpoints.ready
        stop.set()
        await asyncio.gather(*hammers)

    run(project, test)


def test_a_cold_endpoint_answers_with_the_revision_that_went_live_meanwhile(
    crowded: Project,
) -> None:
    async def test(endpoints: EndpointServer) -> None:
        add(crowded, "e05", number=2)
        await wait_until(lambda: endpoints.get("e05").wanted == 2)
        assert endpoints.get("e05").state == "cold"
        assert (await asked(endpoints, "e05")).revision == "e05#2"

    run(crowded, test)


def test_a_deadline_is_answered_while_the_endpoint_is_still_loading(crowded: Project) -> None:
    async def test(endpoints: EndpointServer) -> None:
        soon = time.perf_counter()
        assert isinstance(
            await asked(endpoints, "e09", PredictRequest(BODY, deadline=soon)), DeadlineExceeded
        )
        assert not endpoints.under_way

    run(crowded, test)


def test_the_timeout_of_an_endpoint_holds_for_every_call(project: Project) -> None:
    async def test(endpoints: EndpointServer) -> None:
        assert isinstance(await asked(endpoints, "hasty"), DeadlineExceeded)
        assert isinstance(await asked(endpoints, "patient"), PredictResponse)

    add(project, "hasty", spec={"timeout_ms": 1e-6})
    add(project, "patient", spec={"timeout_ms": 60_000})
    run(project, test)


def test_a_keyed_call_that_came_too_late_is_answered_to_who_tries_again(
    project: Project,
) -> None:
    async def test(endpoints: EndpointServer) -> None:
        soon = time.perf_counter() + 1e-4
        late = await asked(endpoints, "income", PredictRequest(BODY, key="k", deadline=soon))
        again = await asked(endpoints, "income", PredictRequest(BODY, key="k"))
        assert isinstance(late, DeadlineExceeded)
        assert isinstance(again, PredictResponse)

    run(project, test)
    assert len(log_reader.latest_predictions(project.log, limit=10).items) == 1


@pytest.mark.parametrize("count", [1, 900])
def test_an_array_of_rows_is_read_small_and_large(project: Project, count: int) -> None:
    body = msgspec.json.encode([ROW] * count)
    about = msgspec.json.encode([f"c-{row}" for row in range(count)]).decode()

    async def test(endpoints: EndpointServer) -> None:
        answer = await asked(endpoints, "income", PredictRequest(body, JSON_ROWS, about))
        assert len(answer.predictions) == count

    run(project, test)
    (first, *_) = log_reader.latest_predictions(project.log, limit=1).items
    part = first.batch.requests[0]
    assert (part.format, part.detail, part.body) == (JSON_ROWS, about, body)


def test_a_large_body_is_read_as_a_small_one(project: Project) -> None:
    body = msgspec.json.encode({"rows": [ROW] * 3000})
    bad = msgspec.json.encode({"rows": [ROW] * 2999 + [{"age": "x", "hours": 1}]})

    async def test(endpoints: EndpointServer) -> None:
        assert len((await asked(endpoints, "income", PredictRequest(body))).predictions) == 3000
        refused = await asked(endpoints, "income", PredictRequest(bad))
        assert [(p.row, p.field) for p in refused.fields] == [(2999, "age")]

    run(project, test)


def test_the_nearest_name_is_given(crowded: Project) -> None:
    async def test(endpoints: EndpointServer) -> None:
        with pytest.raises(NotFound, match=r"Did you mean 'e\d\d'"):
            endpoints.get("e0 1")

    run(crowded, test)


def test_a_newer_catalog_is_told_and_what_is_loaded_answers_on(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sqlite3

    from clewline.store import reader

    monkeypatch.setattr(endpoints_module, "WATCH_S", 0.02)

    async def test(endpoints: EndpointServer) -> None:
        with sqlite3.connect(project.store_root / reader.FILE) as other:
            other.execute("UPDATE alembic_version SET version_num = '9999'")
        other.close()
        await wait_until(lambda: endpoints.failure is not None)
        assert not endpoints.ready
        assert isinstance(await asked(endpoints, "income"), PredictResponse)

    run(project, test)


def test_a_deadline_and_the_end_wait_for_no_model_that_stands_still(project: Project) -> None:
    body = msgspec.json.encode({"rows": [ROW] * 100})  # so many are computed on a thread

    async def main() -> None:
        endpoints = EndpointServer(project)
        await endpoints.open()
        serving = endpoints.get("income").serving
        assert serving is not None
        lock = serving.loaded.models[0].lock = threading.Lock()  # as if it took one call at a time
        with lock:
            soon = time.perf_counter() + 0.02
            late = await asked(endpoints, "income", PredictRequest(body, deadline=soon))
            assert isinstance(late, DeadlineExceeded)
            answered = asked(endpoints, "income", PredictRequest(body))
            closing = asyncio.create_task(endpoints.close(0.05))
            assert isinstance(await answered, Overloaded)
        assert await closing

    asyncio.run(main())


def test_what_stands_still_is_left_behind(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoints_module, "MIN_CLOSE_S", 0.05)

    async def main() -> None:
        endpoints = EndpointServer(project)
        await endpoints.open()
        serving = endpoints.get("income").serving
        assert serving is not None
        body = msgspec.json.encode({"rows": [ROW] * 100})
        lock = serving.loaded.models[0].lock = threading.Lock()  # as if it took one call at a time
        with lock:
            asked(endpoints, "income", PredictRequest(body))
            assert not await endpoints.close(0.05)

    asyncio.run(main())


def test_a_start_does_not_wait_for_an_isolated_model_that_loads_slowly(
    project: Project, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    add(project, "slow")
    go, load = threading.Event(), LoadedRevision.load

    def loaded(revision: Revision, *given: Any, **named: Any) -> LoadedRevision:
        assert revision.endpoint != "slow" or go.wait(PATIENCE_S)
        return load(revision, *given, **named)

    monkeypatch.setattr(LoadedRevision, "load", loaded)
    monkeypatch.setattr(endpoints_module, "ISOLATED_START_S", 0.0)
    monkeypatch.setattr(
        endpoints_module, "longest_isolated_s", lambda r: 9.0 if r.endpoint == "slow" else 0.0
    )

    async def test(endpoints: EndpointServer) -> None:
        slow = endpoints.get("slow")
        assert (slow.state, slow.ready, endpoints.ready) == ("loading", False, False)
        assert endpoints.get("income").ready
        assert "the server starts: slow" in caplog.text
        answered = asked(endpoints, "slow")
        go.set()
        assert isinstance(await answered, PredictResponse)
        assert endpoints.ready

    run(project, test)


def test_an_answered_request_leaves_nothing_for_the_garbage_collector(project: Project) -> None:
    async def test(endpoints: EndpointServer) -> None:
        await asked(endpoints, "income", PredictRequest(BODY))
        gc.collect()
        gc.disable()
        gc.set_debug(gc.DEBUG_SAVEALL)
        try:
            for _ in range(10):
                await asked(endpoints, "income", PredictRequest(BODY))
            gc.collect()
            left = {type(found).__name__ for found in gc.garbage}
        finally:
            gc.set_debug(0)
            gc.garbage.clear()
            gc.enable()
        assert left.isdisjoint({"Request", "Call", "Part", "Ask"})

    run(project, test)


def test_a_server_that_was_not_opened_can_be_closed(project: Project) -> None:
    async def close() -> bool:
        return await EndpointServer(project).close()

    assert asyncio.run(close())
