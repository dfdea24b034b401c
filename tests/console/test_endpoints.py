"""The pages of endpoints, over a real prediction server that is stopped and started again."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from conftest import Shop
from html_pages import ReadPage
from starlette.testclient import TestClient
from support import free_port, process, wait_for

from clewline.console.app import Console, LoopbackAccess
from clewline.console.jobs import Jobs
from clewline.console.live_numbers import LiveNumbers, live_numbers
from clewline.console.page import Event, PageRequest, Person
from clewline.console.pages.endpoints import events_of
from clewline.console.server_connection import ServerConnection
from clewline.project import Project
from clewline.serve import revision
from clewline.serve.endpoint_file import read_endpoint
from clewline.store.records import LiveRevision
from clewline.store.store import Store

GRAPH = """
endpoint: income
graph:
  transform: nodes.py:tidy
  route: {kind: weights, weights: {one: SHARE, other: REST}}
  arms: {one: income@1, other: income@2}
shadow: [income@2]
"""
NODES = "def tidy(rows: list[dict]) -> list[dict]:\n    return rows\n"
ROWS = [{"age": 20 + n, "hours": 40.0} for n in range(60)]


def apply(project: Project, share: float) -> None:
    text = GRAPH.replace("SHARE", str(share)).replace("REST", str(round(1 - share, 1)))
    (project.endpoints / "income.yaml").write_text(text)
    with Store.open(project.store_root) as store:
        revision.apply(project, store, read_endpoint(project, "income"))


@pytest.fixture(scope="module")
def project(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with an endpoint of two arms and a shadow, in two revisions."""
    made = shop(tmp_path_factory.mktemp("endpoints"), {"nodes.py": NODES})
    apply(made, 0.9)
    apply(made, 0.5)
    return made


@contextmanager
def running(project: Project, port: int) -> Iterator[str]:
    """Run the prediction server until the block ends; gives its address."""
    command = [str(Path(sys.executable).parent / "clewline"), "serve", "--port", str(port)]
    url = f"http://127.0.0.1:{port}"
    with process(command, cwd=project.root, stderr=subprocess.DEVNULL) as server:
        wait_for(lambda: is_ready(url))
        yield url
        server.terminate()
        server.wait()


def is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def predict(url: str) -> None:
    body = msgspec.json.encode({"rows": ROWS})
    head = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/v1/endpoints/income/predict", body, head)
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 200


@pytest.fixture(scope="module")
def url(project: Project) -> Iterator[str]:
    with running(project, free_port()) as found:
        yield found


@contextmanager
def console_of(project: Project, server: ServerConnection, **options: Any) -> Iterator[TestClient]:
    console = Console(project, server=server, **options)
    with TestClient(console.app, follow_redirects=False) as client:
        yield client
    live_numbers(server).close()
    live_numbers.cache_clear()
    console.close()


def timed_nodes(numbers: LiveNumbers) -> set[str]:
    """Name the nodes that the latest reading has times of; they are counted after their rows."""
    latest = numbers.history.latest
    return set(latest.endpoints["income"].node_batches) if latest else set()


def read(text: str) -> ReadPage:
    """Read a page; elements without an end are written as one that the reader knows."""
    return ReadPage(re.sub(r"<(input|link) ", "<meta ", text))


def test_the_page_shows_numbers_graph_revisions_yaml_and_calls(project: Project, url: str) -> None:
    server = ServerConnection(url)
    with console_of(project, server) as client:
        client.get("/endpoints")  # the first reading
        predict(url)
        numbers = live_numbers(server)
        wait_for(lambda: any(r and r.rows for _, r in numbers.history.of("income")))
        wait_for(lambda: {"tidy", "one", "other"} <= timed_nodes(numbers))
        answer = client.get("/endpoints/income")
        assert answer.status_code == 200
        page = read(answer.text)
        listed = read(client.get("/endpoints").text)
    assert "income#2 is live since" in page.text
    # Each node that computed has its time, each arm its share of the rows.
    for node in ("tidy", "one", "other"):
        assert re.search(rf">{node}</text>.*? ms a batch</text>", answer.text, re.DOTALL), node
    shares = dict(re.findall(r">(one|other) (\d+)%<", answer.text))
    assert shares.keys() == {"one", "other"}
    assert sum(map(int, shares.values())) in (99, 100, 101)
    assert "model (shadow)" in page.text
    assert "node route: route weights: one 0.9, other 0.1" in page.text
    assert "shadow: - income@2" in page.text
    assert "On average over the last" in page.text
    for client_name in ("curl", "Python", "tritonclient", "MLflow"):
        assert client_name in page.text
    assert page.count("svg") > 5
    names = {name for _, attributes, _ in page.elements for name in attributes}
    assert not {name for name in names if name == "style" or name.startswith("on")}
    assert "income#2" in listed.text
    assert "1–1 of 1" in listed.text


@pytest.mark.parametrize("which", ["curl", "Python"])
def test_a_call_that_is_shown_runs(project: Project, url: str, which: str) -> None:
    with console_of(project, ServerConnection(url)) as client:
        page = client.get("/endpoints/income").text
    (text,) = re.findall(
        rf"<summary>{which}</summary>\s*<pre.*?<code>(.*?)</code>", page, re.DOTALL
    )
    code = ReadPage(f"<p>{text}</p>").texts[0]
    command = ["sh", "-c", code] if which == "curl" else [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "income@" in done.stdout


def test_without_a_server_the_page_says_how_to_start_one(project: Project) -> None:
    with console_of(project, ServerConnection()) as client:
        for address in ("/endpoints", "/endpoints/income"):
            page = read(client.get(address).text)
            assert "No prediction server runs beside this console" in page.text
        assert "income#2 is live since" in page.text


def test_an_earlier_revision_shows_what_would_change_and_becomes_live(
    shop: Shop, tmp_path: Path
) -> None:
    project = shop(tmp_path, {"nodes.py": NODES})
    apply(project, 0.9)
    apply(project, 0.5)
    with console_of(project, ServerConnection()) as client:
        page = read(client.get("/endpoints/income?revision=1").text)
        assert "income#1 was applied" in page.text
        assert "node route route weights: one 0.5" in page.text
        form = {"revision": "1", "reason": "The new weights lose money."}
        answer = client.post("/endpoints/income/rollback", data=form)
        assert answer.status_code == 303
        assert answer.headers["location"] == "/endpoints/income"
        page = read(client.get("/endpoints/income").text)
        assert "rolled back to local The new weights lose money." in page.text
        for wrong in ("9", "x", ""):
            form = {"revision": wrong, "reason": "why not"}
            answer = client.post("/endpoints/income/rollback", data=form)
            assert answer.status_code in (404, 422)
        answer = client.post("/endpoints/income/rollback", data={"revision": "2", "reason": " "})
        assert answer.status_code == 422
    with Store.open(project.store_root, write=False) as store:
        live = store.catalog.get(LiveRevision, "income")
    assert live is not None
    assert live.number == 1


def test_only_an_operator_rolls_back(project: Project) -> None:
    class Viewing(LoopbackAccess):
        def person(self, request: Any) -> Person:
            return Person("guest", "view")

    with console_of(project, ServerConnection(), access=Viewing()) as client:
        page = client.get("/endpoints/income?revision=1").text
        assert "needs the role operate" in page
        assert 'action="/endpoints/income/rollback"' not in page
        assert client.post("/endpoints/income/rollback", data={"revision": "1"}).status_code == 403


def test_an_endpoint_that_is_not_there_is_named(project: Project) -> None:
    with console_of(project, ServerConnection()) as client:
        answer = client.get("/endpoints/incom")
        assert answer.status_code == 404
        assert "There is no endpoint &#39;incom&#39;" in answer.text
        assert client.get("/endpoints/income?revision=9").status_code == 404
        assert client.get("/endpoints/incom/live").status_code == 404


def test_the_events_go_on_after_the_server_was_started_again(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    server = ServerConnection(f"http://127.0.0.1:{port}")
    numbers = LiveNumbers(server, interval_s=0.1)
    monkeypatch.setattr("clewline.console.pages.endpoints.live_numbers", lambda _: numbers)
    with Store.open(project.store_root, write=False) as store:
        request = PageRequest(
            project=project,
            store=store,
            person=Person("local", "operate"),
            server=server,
            jobs=Jobs(),
            path={"name": "income"},
            query={},
            form={},
        )
        asyncio.run(follow_restart(project, request, port))
    numbers.close()


async def follow_restart(project: Project, request: PageRequest, port: int) -> None:
    events = events_of(request, "income", look_s=0.02)

    async def until(is_it: Callable[[Event], bool]) -> Event:
        while True:
            event = await anext(events)
            if is_it(event):
                return event

    def has_rows(event: Event) -> bool:
        if event.name not in ("history", "point"):
            return False
        charts = msgspec.json.decode(event.data)["charts"]
        return any(value for line in charts[-1]["lines"] for value in line["values"][-1:])

    first = await anext(events)
    assert first.name == "silence"
    assert "does not answer" in first.data
    for _ in range(2):
        with running(project, port) as url:
            await until(lambda event: event.name == "point")
            predict(url)
            found = await until(has_rows)
            lines = msgspec.json.decode(found.data)["charts"][-1]["lines"]
            assert {line["name"] for line in lines} == {"one", "other"}
        await until(lambda event: event.name == "silence")
    await events.aclose()  # type: ignore[attr-defined]
