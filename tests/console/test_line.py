"""The page of the line: any reference, both ways, with a list of what was folded."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import msgspec
import pytest
from conftest import Shop
from explained import answer_rows
from html_pages import ReadPage
from projects import make_project
from starlette.testclient import TestClient

from clewline.console.app import Console
from clewline.serve import revision
from clewline.serve.endpoint_file import read_endpoint
from clewline.store.edges import INPUT
from clewline.store.records import Artifact, Edge, Run, SeenFile, StepRun
from clewline.store.store import Store

GRAPH = """
endpoint: income
graph:
  route: {kind: weights, weights: {one: 0.5, other: 0.5}}
  arms: {one: income@1, other: income@2}
"""


class Served:
    """The console of a project whose endpoint has answered five rows."""

    def __init__(self, console: Console, ids: list[str]) -> None:
        self.console, self.ids = console, ids
        self.client = TestClient(console.app, follow_redirects=False)

    def page(self, address: str) -> ReadPage:
        answer = self.client.get(address)
        assert answer.status_code == 200, answer.text
        return read(answer.text)


def read(text: str) -> ReadPage:
    """Read a page; elements without an end are written as one that the reader knows."""
    return ReadPage(re.sub(r"<(input|link) ", "<meta ", text))


@pytest.fixture(scope="module")
def served(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    project = shop(tmp_path_factory.mktemp("line"), {"endpoints/income.yaml": GRAPH})
    with Store.open(project.store_root) as store:
        revision.apply(project, store, read_endpoint(project, "income"))
    ids = answer_rows(project, "income", [{"age": 20 + n, "hours": 40.0} for n in range(5)])
    console = Console(project)
    yield Served(console, ids)
    console.close()


def links(page: ReadPage) -> set[str | None]:
    return {attributes.get("href") for tag, attributes, _ in page.elements if tag == "a"}


def test_a_prediction_leads_back_to_its_versions(served: Served) -> None:
    page = served.page(f"/line/{served.ids[0]}?direction=why")
    assert {"/models/income/1", "/models/income/2"} <= links(page)
    assert f"/predictions/{served.ids[0]}" in links(page)
    assert page.count("svg") > 1


def test_a_version_leads_forward_to_the_newest_predictions(served: Served) -> None:
    page = served.page("/line/income%401?direction=impact")
    assert "5 of the newest 5 predictions" in page.text
    assert "3 of 5 are shown" in page.text
    shown = {each for each in served.ids if f"/predictions/{each}" in links(page)}
    assert len(shown) == 3
    assert "/predictions?endpoint=income" in links(page)


def test_nothing_else_than_script_of_ours_may_run(served: Served) -> None:
    page = served.page("/line/income%401")
    names = {name for _, attributes, _ in page.elements for name in attributes}
    assert not {name for name in names if name == "style" or name.startswith("on")}


def test_a_typed_reference_leads_to_its_line(served: Served) -> None:
    answer = served.client.get("/line?ref=income%401&direction=impact")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/line/income%401?direction=impact"
    assert served.client.get("/line/").headers["location"] == "/line"
    assert "Name any of them" in served.page("/line").text


def test_what_is_not_there_says_what_is_near(served: Served) -> None:
    answer = served.client.get("/line/incom%401")
    assert answer.status_code == 404
    assert "There is no model &#39;incom&#39;" in answer.text
    assert served.client.get("/line/income%401?direction=up").status_code == 422
    hostile = "<script>alert(1)</script>"
    answer = served.client.get(f"/line/{quote(hostile, safe='')}")
    assert answer.status_code == 404
    assert hostile not in answer.text


def test_the_list_leaves_as_json_and_can_be_narrowed(served: Served) -> None:
    address = "/line/income%401?direction=impact&export=json&table=nodes"
    rows = msgspec.json.decode(served.client.get(address).content)
    kinds = [row["kind"] for row in rows]
    assert kinds[0] == "model"
    assert kinds.count("prediction") == 3
    only = msgspec.json.decode(served.client.get(f"{address}&kind=revision").content)
    assert [row["ref"] for row in only] == ["income#1"]


def test_runs_that_are_folded_open_as_a_list(tmp_path: Path) -> None:
    project = make_project(tmp_path)
    digest = "1" * 64
    with Store.open(project.store_root) as store:
        blob = store.blobs.put(b"x")
        made = Artifact(
            digest=digest, kind="file", format="bytes", blob=blob, size_bytes=1, created=1.0
        )
        store.record(made)
        for n in range(30):
            run = f"{n:012x}"
            store.record(
                Run(id=run, pipeline="p", status="done", started=float(n)),
                StepRun(
                    id=f"{run}/00-load", run=run, index=0, name="load", status="done", started=1.0,
                    inputs={"path": {"artifact": digest}},
                ),
                SeenFile(path="/data/a.csv", digest=digest, run=run),
                Edge(source=f"{INPUT}{digest}", target=f"step:{run}/00-load", role="input:path"),
            )  # fmt: skip
    console = Console(project)
    with TestClient(console.app) as client:
        page = client.get(f"/line/{digest}?direction=impact").text
        assert "25 more runs" in page
        where = f"/line/{digest}?direction=impact&amp;kind=run#nodes"
        assert f'href="{where}"' in page
        answer = client.get(f"/line/{digest}?direction=impact&kind=run&export=json&table=nodes")
        assert len(msgspec.json.decode(answer.content)) == 30
    console.close()
