"""Behind Granian the application answers as it does behind our own HTTP server."""

from __future__ import annotations

import http.client
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from support import free_port, process, wait_for

from clewline.protocols.http.request import HttpLimits
from clewline.serve import access
from clewline.serve.log import reader as log_reader
from clewline.store.store import Store

if TYPE_CHECKING:
    from conftest import Loans

ROW: dict[str, Any] = {"age": 39, "hours": 40.5, "job": "nurse"}
PREDICT = "/v1/endpoints/income/predict"


@pytest.fixture
def host() -> str:
    """What Granian binds."""
    return "127.0.0.1"


@pytest.fixture
def ask(loans: Loans, host: str) -> Iterator[Callable[..., tuple[int, Any]]]:
    """Send requests to Granian around the application; give status and decoded answer."""
    port = free_port()
    words = f"--interface rsgi --loop uvloop --no-ws --factory --host {host} --port {port}"
    application = "clewline.protocols.granian:application"
    command = [Path(sys.executable).with_name("granian"), *words.split(), application]

    def send(method: str, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, {"content-type": "application/json"} | named)
            answer = connection.getresponse()
            return answer.status, msgspec.json.decode(answer.read())
        finally:
            connection.close()

    def is_up() -> bool:
        assert server.poll() is None, "Granian did not come up"
        with suppress(OSError):
            return send("GET", "/health/live")[0] == 200
        return False

    env = os.environ | {"CLEWLINE_PROJECT": str(loans.project.root)}
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with process(command, env=env, **silent) as server:
        wait_for(is_up)
        yield send
        server.terminate()
        server.wait()


def body(*rows: Any) -> bytes:
    return msgspec.json.encode({"rows": list(rows)})


def test_rows_are_answered_logged_and_refused_as_elsewhere(
    ask: Callable[..., tuple[int, Any]], loans: Loans
) -> None:
    status, answer = ask("POST", PREDICT, body(ROW))
    assert status == 200
    logged = log_reader.get_prediction(loans.project.log, answer["predictions"][0]["id"])
    assert msgspec.json.decode(logged.answer) == answer["predictions"][0]

    status, refusal = ask("POST", PREDICT, body(ROW, {**ROW, "age": "x"}))
    assert (status, refusal["error"]["code"]) == (422, "invalid_input")
    assert [field["row"] for field in refusal["error"]["fields"]] == [1]

    assert ask("POST", PREDICT, b"{")[0] == 400
    assert ask("GET", PREDICT)[0] == 405
    assert ask("GET", "/nowhere")[0] == 404
    assert ask("POST", PREDICT, body(ROW), content_type="text/html")[0] == 415
    assert ask("POST", PREDICT, b" " * (HttpLimits().body_bytes + 1))[0] == 413
    assert ask("GET", "/health/ready") == (200, {"status": "ready"})


def test_a_retry_with_a_key_gets_the_first_answer(ask: Callable[..., tuple[int, Any]]) -> None:
    first = ask("POST", PREDICT, body(ROW), idempotency_key="k")
    assert ask("POST", PREDICT, body(ROW), idempotency_key="k") == first


def test_each_of_many_callers_gets_its_own_answers(ask: Callable[..., tuple[int, Any]]) -> None:
    rows = [{**ROW, "age": 17 + at % 70} for at in range(64)]
    alone = [ask("POST", PREDICT, body(row))[1]["predictions"][0] for row in rows]
    with ThreadPoolExecutor(16) as callers:
        together = list(callers.map(lambda row: ask("POST", PREDICT, body(row))[1], rows))
    found = [answer["predictions"][0]["probabilities"] for answer in together]
    assert found == [answer["probabilities"] for answer in alone]


@pytest.mark.parametrize("host", ["0.0.0.0"])
def test_bound_beyond_loopback_callers_need_tokens_there_as_well(
    ask: Callable[..., tuple[int, Any]], loans: Loans
) -> None:
    with Store.open(loans.project.store_root) as store:
        token = access.add_token(loans.project, store, ["predict"]).text
    assert ask("POST", PREDICT, body(ROW))[0] == 401
    wait_for(lambda: ask("POST", PREDICT, body(ROW), authorization=f"Bearer {token}")[0] == 200)
    assert ask("GET", "/health/live")[0] == 200


def test_hosts_and_origins_are_checked_there_as_well(ask: Callable[..., tuple[int, Any]]) -> None:
    assert ask("GET", "/v1/endpoints", host="evil.example")[0] == 421
    unload = "/v1/endpoints/income/unload"
    assert ask("POST", unload, b"a=b", origin="http://evil.example")[0] == 403
    assert ask("POST", PREDICT, body(ROW), sec_fetch_site="cross-site")[0] == 403
    assert ask("POST", PREDICT, body(ROW), host="localhost")[0] == 200
    assert ask("GET", "/v1/endpoints%253fincome")[0] == 404  # decoded once
