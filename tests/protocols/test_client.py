"""The client against a real server: typed answers, the server's errors, retries that log once."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pandas as pd
import polars as pl
import pytest

from clewline.client import AsyncClient, Client, Unreachable
from clewline.errors import Forbidden, InvalidInput, NotFound, Unauthorized, UsageError
from clewline.protocols.http.request import HttpLimits
from clewline.protocols.http.tls import Certificate
from clewline.serve import access
from clewline.serve.log.reader import latest_predictions
from clewline.store.store import Store

ROWS: list[dict[str, Any]] = [
    {"age": 39, "hours": 40.5, "job": "nurse"},
    {"age": 120, "hours": 1.0, "job": None},
]


class Dropping:
    """Stands before a server, and breaks off the first answers of it before they are read."""

    def __init__(self, port: int, drops: int) -> None:
        self.requests = 0
        self._left = drops
        self._to = ("127.0.0.1", port)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                near = self._listening.accept()[0]
            except OSError:
                return
            with near, socket.create_connection(self._to, timeout=10) as far:
                near.settimeout(10)
                self._relay(near, far)

    def _relay(self, near: socket.socket, far: socket.socket) -> None:
        """Carry one request and its answer, and end the connection."""
        self.requests += 1
        far.sendall(whole(near))
        answer = whole(far)
        if self._left:
            self._left -= 1
            near.shutdown(socket.SHUT_RDWR)
        else:
            near.sendall(answer.replace(b"\r\n", b"\r\nConnection: close\r\n", 1))

    def stop(self) -> None:
        self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._thread.join(10)
        assert not self._thread.is_alive()


def whole(source: socket.socket) -> bytes:
    """Read one message of HTTP, as long as its head says."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += source.recv(1 << 16)
    head, _, body = data.partition(b"\r\n\r\n")
    lines = head.lower().split(b"\r\n")
    length = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
    while len(body) < length:
        body += source.recv(1 << 16)
    return head + b"\r\n\r\n" + body


@pytest.fixture
def dropping(income: Any) -> Iterator[Callable[[int], Dropping]]:
    """Stand before the server; all are stopped at the end."""
    running: list[Dropping] = []

    def start(drops: int) -> Dropping:
        running.append(Dropping(income.port, drops))
        return running[-1]

    yield start
    for each in running:
        each.stop()


@pytest.fixture
def client(income: Any) -> Iterator[Client]:
    with Client(income.url) as client:
        yield client


def test_predictions_are_typed(client, income):
    found = client.predict("income", ROWS, entities=["c-1", "c-2"])
    native = income.predict({"rows": ROWS})[1]["predictions"]
    assert found.revision == "income#1"
    assert [each.label for each in found] == [each["label"] for each in native]
    assert [each.probabilities for each in found] == [each["probabilities"] for each in native]
    assert found[0].flags == ()
    assert (found[1].flags[0].field, found[1].flags[0].value) == ("age", 120)
    assert len(found) == 2


@pytest.mark.parametrize(
    "table", [pl.DataFrame(ROWS), pd.DataFrame(ROWS), pl.DataFrame(ROWS).to_arrow()]
)
def test_a_table_gets_the_answers_of_its_rows(client, table):
    labels = [each.label for each in client.predict("income", ROWS)]
    found = client.predict("income", table, entities=["c-1", "c-2"])
    assert [each.label for each in found] == labels
    assert client.prediction(found[1].id).entity == "c-2"


def test_a_prediction_is_read_back_with_its_line(client):
    id = client.predict("income", ROWS[0], entities=["c-17"])[0].id
    logged = client.prediction(id)
    assert (logged.endpoint, logged.entity, logged.row) == ("income", "c-17", ROWS[0])
    assert logged.answer["id"] == id
    assert logged.line


def test_a_prediction_is_explained(client):
    id = client.predict("income", {"age": 39, "hours": 40.5, "job": "nurse"})[0].id
    found = client.explain(id, "counterfactuals", count=1, keep=["job"])
    assert found["prediction"] == id
    assert found["terms"]["keep"] == ["job"]
    assert client.explain(id)["kind"] == "attributions"
    stored = client.explanations(id)
    assert [each.kind for each in stored.explanations] == ["counterfactuals", "attributions"]
    assert stored.explanations[0].explanation == found
    with pytest.raises(InvalidInput, match="budget"):
        client.explain(id, "attributions", budgt=3)


def test_endpoints_are_described(client):
    (listed,) = client.endpoints()
    assert (listed.endpoint, listed.ready, listed.revision) == ("income", True, "income#1")
    shown = client.endpoint("income")
    assert shown.signature is not None
    assert {field.name for field in shown.signature.fields} == {"age", "hours", "job"}
    assert client.ready()


def test_an_endpoint_is_unloaded_and_loaded(client):
    client.unload("income")
    try:
        assert not client.endpoint("income").ready
        with pytest.raises(NotFound, match="unloaded"):
            client.predict("income", ROWS)
    finally:
        client.load("income")
    assert client.endpoint("income").ready
    assert len(client.predict("income", ROWS)) == 2


def test_errors_are_the_ones_that_the_server_raised(client):
    with pytest.raises(InvalidInput) as caught:
        client.predict("income", [{"age": "x", "hours": 1, "job": "nurse"}])
    (problem,) = caught.value.fields
    assert (problem.row, problem.field, problem.value) == (0, "age", "x")
    with pytest.raises(NotFound, match="Did you mean 'income'"):
        client.predict("incom", ROWS)
    with pytest.raises(InvalidInput):
        client.predict("income", {"age": float("inf"), "hours": 1, "job": None})


def test_many_rows_come_one_by_one_in_order(client):
    rows = [{"age": age, "hours": 1.0, "job": "nurse"} for age in range(20, 90)]
    labels = [each.label for each in client.predict("income", rows)]
    streamed = list(client.stream("income", rows, piece_rows=9, entities=list(map(str, range(70)))))
    assert [each.label for each in streamed] == labels
    assert len({each.id for each in streamed}) == 70
    with pytest.raises(UsageError, match="entities"):
        next(client.stream("income", rows, entities=["one"]))


def test_a_retry_after_a_lost_answer_gets_the_first_one_and_is_logged_once(income, dropping):
    before = {each.id for each in latest_predictions(income.project.log, limit=1000).items}
    proxy = dropping(2)
    with Client(f"http://127.0.0.1:{proxy.port}") as client:
        found = client.predict("income", {"age": 77, "hours": 7.0, "job": "smith"})
    assert proxy.requests == 3
    logged = {each.id for each in latest_predictions(income.project.log, limit=1000).items} - before
    assert logged == {found[0].id}


def test_without_a_key_a_lost_answer_is_an_error_and_is_not_asked_for_again(income, dropping):
    proxy = dropping(1)
    with Client(f"http://127.0.0.1:{proxy.port}") as client, pytest.raises(Unreachable):
        client.predict("income", ROWS, idempotency_key=None)
    assert proxy.requests == 1


def test_where_nobody_listens_the_error_says_so_and_the_server_is_not_ready():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
    with Client(url, retries=1) as client:
        assert not client.ready()
        with pytest.raises(Unreachable, match="Check that the server runs"):
            client.endpoints()


def test_the_async_client_does_the_same(income, dropping):
    proxy = dropping(1)

    async def ask() -> None:
        async with AsyncClient(income.url) as client:
            several = await asyncio.gather(*(client.predict("income", ROWS) for _ in range(5)))
            assert len({each[0].id for each in several}) == 5
            assert [each async for each in client.stream("income", ROWS, piece_rows=1)][1].flags
            assert (await client.prediction(several[0][0].id)).row == ROWS[0]
            assert (await client.endpoint("income")).revision == "income#1"
            assert [each.endpoint for each in await client.endpoints()] == ["income"]
            assert await client.ready()
            await client.unload("income")
            await client.load("income")
            with pytest.raises(NotFound):
                await client.predict("incom", ROWS)
        async with AsyncClient(f"http://127.0.0.1:{proxy.port}") as client:
            assert len(await client.predict("income", ROWS)) == 2

    asyncio.run(ask())
    assert proxy.requests == 2


def test_a_token_is_shown_and_its_roles_count(loans, up):
    with Store.open(loans.project.store_root) as store:
        token = access.add_token(loans.project, store, ["review"]).text
    url = up(loans.project).url
    with Client(url, token=token) as client:
        assert client.endpoints()
        with pytest.raises(Forbidden):
            client.predict("income", ROWS)
    with Client(url, token="cl_no_one") as client, pytest.raises(Unauthorized):
        client.endpoints()


def test_a_server_of_tls_is_trusted_by_its_authority_alone(pem, run_http):
    server = run_http(HttpLimits(), Certificate(*pem))
    url = f"https://localhost:{server.port}"
    try:
        with Client(url, ca_file=pem[0]) as client:
            assert client.ready()
        with Client(url, retries=0) as client:
            assert not client.ready()
        with Client(url, verify=False) as client:
            assert client.ready()
    finally:
        server.stop()
    with pytest.raises(UsageError, match="cannot be read"):
        Client(url, ca_file=pem[1].with_name("none.pem"))
