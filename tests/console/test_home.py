"""The first page says what needs a person, what endpoints do, and which command comes next."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Shop
from explained import answer_rows
from html_pages import ReadPage
from projects import make_project
from starlette.testclient import TestClient

from clewline.console.app import Console
from clewline.console.live_numbers import live_numbers
from clewline.console.server_connection import ServerConnection
from clewline.serve import revision
from clewline.serve.endpoint_file import read_endpoint
from clewline.serve.metrics.live_metrics import EndpointCounts, ServerCounts
from clewline.store.records import Run
from clewline.store.store import Store

HOSTILE = "<script>alert(1)</script>\u202e"


@pytest.fixture
def console(shop: Shop, tmp_path: Path) -> Iterator[Console]:
    project = shop(tmp_path, {"endpoints/income.yaml": "endpoint: income\nmodel: income@1\n"})
    with Store.open(project.store_root) as store:
        parsed = read_endpoint(project, "income")
        revision.apply(project, store, parsed)
        failed = Run(
            id="f" * 12,
            pipeline=HOSTILE,
            status="failed",
            error={"message": HOSTILE * 1000},
            started=time.time(),
        )
        with store.catalog.transaction() as transaction:
            transaction.record(failed)
    answer_rows(project, "income", [{"age": 30, "hours": 40.0}, {"age": 99, "hours": 40.0}])
    # Two addresses share no numbers; nobody listens at port 1.
    console = Console(project, server=ServerConnection("http://127.0.0.1:1"))
    yield console
    live_numbers(console.server).close()
    live_numbers.cache_clear()
    console.close()


def text_of(console: Console) -> str:
    with TestClient(console.app) as client:
        answer = client.get("/")
    assert answer.status_code == 200
    return answer.text


def test_a_failed_run_needs_a_person_and_is_written_as_text(console: Console) -> None:
    text = text_of(console)
    assert "Failed run" in text
    assert "clewline runs show ffffffffffff" in text
    assert "<script>alert" not in text
    assert len(text) < 40_000


def test_an_endpoint_shows_its_share_of_flags_without_a_server(console: Console) -> None:
    text = text_of(console)
    assert 'href="/endpoints/income"' in text
    assert "50 %</b> <small>of the newest 2 rows" in text
    assert "does not answer" in text


def test_readings_of_the_server_become_lines_and_a_failed_revision_stands_first(
    console: Console,
) -> None:
    history = live_numbers(console.server).history
    for second, requests in ((0.0, 0.0), (2.0, 8.0), (4.0, 12.0)):
        income = EndpointCounts(requests={200: requests}, is_ready=False)
        history.add(ServerCounts(time=second, endpoints={"income": income}))
    text = text_of(console)
    assert "Requests, a second: now 2, at most 4 in the last" in text
    assert 'class="badge tone-bad">failed' in text
    assert text.index("Failed revision") < text.index("Failed run")
    assert "clewline endpoints rollback income" in text


def test_an_empty_project_is_told_what_to_type(tmp_path: Path) -> None:
    console = Console(make_project(tmp_path))
    text = text_of(console)
    console.close()
    for command in ("clewline run PIPELINE", "clewline endpoints apply NAME", "clewline up"):
        assert f'data-copy="{command}"' in text
    assert ReadPage(text.replace("<input ", "<meta ").replace("<link ", "<meta ")).open == []
