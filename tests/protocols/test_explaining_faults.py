"""Callers leave, disks fill, servers stop: explaining goes on, or says why it does not."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from explained import GOOD, HANGS, odd_project
from support import PATIENCE_S, tmpfs, wait_for

from clewline.project import Project
from clewline.protocols.http.request import HttpLimits
from clewline.serve import access
from clewline.store.store import Store


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Project, list[str]]]:
    with tmpfs(tmp_path_factory.mktemp("odd"), "size=16m") as root:
        yield odd_project(root)


def explain(server: Any, prediction: str, body: bytes = b"", **headers: str) -> tuple[int, Any]:
    path = f"/v1/predictions/{prediction}/explain"
    status, answer, _ = server.ask("POST", path, body, **headers)
    return status, answer


def leave(server: Any, prediction: str) -> None:
    """Ask for an explanation, wait until it is asked for, and go away."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=PATIENCE_S) as caller:
        path = f"/v1/predictions/{prediction}/explain"
        head = f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 0\r\n\r\n"
        caller.sendall(head.encode())
        wait_for(lambda: waiting(server) == 1)


def fill_disk(file: Path) -> None:
    """Write a file until its disk is full."""
    with suppress(OSError), file.open("wb", buffering=0) as ballast:
        while True:
            ballast.write(bytes(4096))


def waiting(server: Any) -> float:
    text = server.ask("GET", "/metrics")[1]
    lines = [line for line in text.splitlines() if line.startswith("clewline_explain_requests_w")]
    return float(lines[0].split()[1])


def test_an_explanation_whose_caller_has_left_keeps_nobody_waiting(odd, module_up):
    project, ids = odd
    server = module_up(project, HttpLimits(drain_s=5.0))
    for _ in range(3):
        leave(server, ids[HANGS])  # each would take the 60 s that one may
    status, found = explain(server, ids[GOOD])
    assert (status, found["prediction"]) == (200, ids[GOOD])
    wait_for(lambda: waiting(server) == 0)


def test_on_a_full_disk_an_explanation_that_cannot_be_stored_is_an_error(odd, module_up):
    project, ids = odd
    server = module_up(project, HttpLimits(drain_s=5.0))
    assert explain(server, ids[GOOD])[0] == 200
    ballast = project.root / "ballast"
    fill_disk(ballast)
    body = b'{"options": {"budget": 77}}'
    status, answer = explain(server, ids[GOOD], body)
    assert (status, answer["error"]["code"]) == (507, "store_full")
    ballast.unlink()
    assert explain(server, ids[GOOD], body)[0] == 200


def test_a_stopping_server_tells_those_who_wait(odd, up):
    project, ids = odd
    server = up(project, HttpLimits(drain_s=2.0))
    answers: list[tuple[int, Any]] = []

    def ask(prediction: str) -> None:
        answers.append(explain(server, prediction))

    callers = [threading.Thread(target=ask, args=(ids[HANGS],)) for _ in range(20)]
    for caller in callers:
        caller.start()
    wait_for(lambda: waiting(server) == 20)
    server.stop()
    for caller in callers:
        caller.join(PATIENCE_S)
    assert [status for status, _ in answers] == [503] * 20
    assert "stopping" in answers[0][1]["error"]["message"]


def test_reading_and_explaining_predictions_need_the_same_role(odd, module_up):
    project, ids = odd
    server = module_up(project, HttpLimits(drain_s=5.0))
    with Store.open(project.store_root) as store:
        bearer = {
            role: f"Bearer {access.add_token(project, store, [role]).text}"
            for role in ("predict", "review")
        }
    for role, allowed in (("predict", 403), ("review", 200)):
        wait_for(
            lambda role=role, allowed=allowed: (
                explain(server, ids[GOOD], authorization=bearer[role])[0] == allowed
            )
        )
        path = f"/v1/predictions/{ids[GOOD]}/explanations"
        assert server.ask("GET", path, authorization=bearer[role])[0] == allowed
    inputs = b'{"inputs": [{"name": "x", "datatype": "FP64", "shape": [1], "data": [7]}]}'
    named = b'{"parameters": {"prediction": "%b"}}' % ids[GOOD].encode()
    path, predict = "/v2/models/e/explain", bearer["predict"]
    assert server.ask("POST", path, inputs, authorization=predict)[0] == 200
    assert server.ask("POST", path, named, authorization=predict)[0] == 403
    assert server.ask("POST", path, inputs, authorization=bearer["review"])[0] == 403
