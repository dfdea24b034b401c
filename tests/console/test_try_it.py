"""The page Try it, over a real server: a row is asked, explained, shared, and logged as tried."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlencode

import pytest
from conftest import Shop
from html_pages import ReadPage
from starlette.testclient import TestClient
from support import process

from clewline.console.app import Console
from clewline.console.server_connection import ServerConnection
from clewline.serve import revision
from clewline.serve.endpoint_file import read_endpoint
from clewline.serve.log.reader import latest_predictions
from clewline.store.store import Store

CLEWLINE = Path(sys.executable).with_name("clewline")
FILES = {
    "endpoints/income.yaml": "endpoint: income\nmodel: income@1\n",
    "endpoints/price.yaml": "endpoint: price\nmodel: price@1\n",
    "endpoints/odd.yaml": "endpoint: odd\nmodel: odd@1\n",
    "endpoints/arms.yaml": (
        "endpoint: arms\ngraph:\n  route: {kind: weights, weights: {one: 0.5, other: 0.5}}\n"
        "  arms: {one: income@1, other: income@2}\n"
    ),
}
ROW = {"f-age": "30", "f-hours": "40.5"}
HOSTILE = "</option><script>alert(1)</script>"


class Tried:
    """A console beside a prediction server."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.client = TestClient(console.app, follow_redirects=False)

    def page(self, address: str, status: int = 200, **query: str) -> ReadPage:
        answer = self.client.get(f"{address}?{urlencode(query)}" if query else address)
        assert answer.status_code == status, answer.text
        return ReadPage(re.sub(r"<(input|link) ", "<meta ", answer.text))

    def newest(self) -> str:
        return latest_predictions(self.console.project.log, limit=1).items[0].id


@pytest.fixture(scope="module")
def tried(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tried]:
    project = shop(tmp_path_factory.mktemp("try"), FILES)
    with Store.open(project.store_root) as store:
        for name in ("income", "price", "odd", "arms"):
            revision.apply(project, store, read_endpoint(project, name))
    command = [str(CLEWLINE), "serve", "--port", "0"]
    with process(command, cwd=project.root, stderr=subprocess.PIPE, text=True) as server:
        said = ""
        while "Ready" not in said:
            said += (line := server.stderr.readline())
            assert line, said
        found = re.search(r"http://127\.0\.0\.1:\d+", said)
        assert found is not None
        console = Console(project, server=ServerConnection(found[0]))
        yield Tried(console)
        console.close()
        server.terminate()
        server.wait()


def test_the_form_has_the_fields_with_bounds_and_a_training_row(tried: Tried) -> None:
    page = tried.page("/try/income", example="2")
    inputs = {
        attributes["name"]: attributes.get("value")
        for _, attributes, _ in page.elements
        if (attributes.get("name") or "").startswith("f-")
    }
    assert inputs.keys() == {"f-age", "f-hours"}
    assert all(inputs.values())
    assert "integer, " in page.text
    assert "Change the row, then ask." in page.text
    assert tried.client.get("/try/income?example=x").status_code == 422


def test_an_answer_is_logged_as_tried_once_for_whoever_opens_its_address(tried: Tried) -> None:
    page = tried.page("/try/income", **ROW)
    logged = latest_predictions(tried.console.project.log, limit=5, endpoint="income").items
    assert [each.tried for each in logged] == [True]
    assert "Probabilities" in page.text
    links = {attributes.get("href") for tag, attributes, _ in page.elements if tag == "a"}
    assert {f"/predictions/{logged[0].id}", "/models/income/1"} <= links
    tried.page("/try/income", **ROW)
    assert tried.newest() == logged[0].id
    tried.page("/try/income", **{**ROW, "f-age": "31"})
    assert tried.newest() != logged[0].id


def test_an_answer_is_explained_and_followed_over_a_field(tried: Tried) -> None:
    tried.page("/try/income", **{**ROW, "f-age": "42"})
    prediction = tried.newest()
    moved = tried.client.get(f"/try/income/explanation?prediction={prediction}").text
    assert "if no field were known it would be" in moved
    assert "age = 42" in moved
    curve = tried.client.get(f"/try/income/curve?prediction={prediction}&field=hours").text
    assert "If hours were another" in curve
    assert "<svg" in curve
    unknown = tried.client.get(f"/try/income/curve?prediction={prediction}&field=hour").text
    assert "no field" in unknown


def test_the_same_is_there_without_script(tried: Tried) -> None:
    page = tried.page("/try/price", **ROW, explain="yes", curve="age")
    assert "What moved it" in page.text
    assert "Share of each field" in page.text
    assert "If age were another" in page.text


def test_a_refused_value_is_named_at_its_field_and_foreign_text_is_text(tried: Tried) -> None:
    page = tried.page("/try/income", status=422, **{"f-age": HOSTILE, "f-hours": "1,5"})
    invalid = [a.get("name") for _, a, _ in page.elements if a.get("aria-invalid")]
    assert invalid == ["f-age", "f-hours"]
    assert "expected integer" in page.text
    raw = tried.client.get("/try/odd?" + urlencode({"f-age": HOSTILE, "f-hours": "3"}))
    assert raw.status_code == 422
    assert "alert(1)" in raw.text
    assert HOSTILE not in raw.text
    assert "outside bounds" in tried.page("/try/income", **{**ROW, "f-hours": "500"}).text
    names = {name for _, attributes, _ in page.elements for name in attributes}
    assert not {name for name in names if name == "style" or name.startswith("on")}


def test_a_graph_shows_the_arm_that_answered(tried: Tried) -> None:
    page = tried.page("/try/arms", **ROW)
    assert re.search(r"arm\s*(one|other)", page.text)


def test_the_endpoints_are_listed_and_an_unknown_one_is_named(tried: Tried) -> None:
    page = tried.page("/try")
    links = {attributes.get("href") for tag, attributes, _ in page.elements if tag == "a"}
    assert {"/try/income", "/try/arms"} <= links
    answer = tried.client.get("/try/incom")
    assert answer.status_code == 404
    assert "incom" in answer.text


def test_a_console_without_a_server_says_how_to_start_one(tried: Tried) -> None:
    console = Console(tried.console.project)
    answer = TestClient(console.app).get("/try/income")
    console.close()
    assert answer.status_code == 404
    assert "clewline up" in answer.text
