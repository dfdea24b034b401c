"""The pages of runs: found by conditions, compared, with what people wrote shown as text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient

from clewline.console.app import Console
from clewline.scaffold import create
from clewline.store.records import Run
from clewline.store.store import Store

HOSTILE = "<script>alert('x')</script>\u202e🙂"


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    project = create(tmp_path / "p")
    with Store.open(project.store_root) as store:
        for number in range(60):
            store.record(
                Run(
                    id=f"{number:012x}",
                    pipeline=HOSTILE if number == 59 else "income",
                    status="failed" if number == 3 else "done",
                    params={"trees": number, "model": "forest", "note": HOSTILE},
                    metrics={"auc": number / 100, HOSTILE: 1.0},
                    started=1_790_000_000.0 + number,
                    ended=1_790_000_001.0 + number,
                )
            )
    console = Console(project)
    with TestClient(console.app) as made:
        yield made
    console.close()


def runs_in(text: str) -> list[str]:
    return re.findall(r'<th scope="row"[^>]*><a href="/runs/(\w{12})"', text)


def test_the_list_is_filtered_sorted_and_paged_by_its_address(client: TestClient) -> None:
    found = client.get("/runs?metric=auc+%3E%3D+0.57&runs-sort=metric.auc")
    assert found.status_code == 200
    assert runs_in(found.text) == [f"{number:012x}" for number in (57, 58, 59)]
    assert runs_in(client.get("/runs?status=failed").text) == [f"{3:012x}"]
    first = runs_in(client.get("/runs").text)
    second = runs_in(client.get("/runs?runs-after=50").text)
    assert len(first) == 50
    assert [*first, *second] == [f"{number:012x}" for number in range(59, -1, -1)]


def test_what_cannot_be_read_is_said_as_on_the_command_line(client: TestClient) -> None:
    answer = client.get("/runs?metric=auc")
    assert answer.status_code == 400
    assert "is not a condition" in answer.text


def test_chosen_columns_are_shown_and_exported(client: TestClient) -> None:
    query = "/runs?column=param.trees&column=metric.auc&metric=auc+%3E+0.58"
    assert "trees" in client.get(query).text
    lines = client.get(f"{query}&export=csv&table=runs").text.splitlines()
    assert lines[0].endswith(",param.trees,metric.auc")
    assert lines[1].endswith(",59,0.59")


def test_text_of_others_is_shown_as_text(client: TestClient) -> None:
    for address in ("/runs", f"/runs?pipeline={quote(HOSTILE)}", "/runs/compare?run=0"):
        text = client.get(address).text
        assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in client.get("/runs").text


def test_runs_side_by_side_begin_with_what_differs(client: TestClient) -> None:
    ids = [f"{number:012x}" for number in range(5)]
    address = "/runs/compare?" + "&".join(f"run={each}" for each in ids)
    shown = client.get(address).text
    assert runs_compared_names(shown) == ["trees", "auc"]
    assert shown.count('class="parallel-line"') == 5
    assert "model" in runs_compared_names(client.get(f"{address}&show=all").text)
    assert client.get("/runs/compare", follow_redirects=False).headers["location"] == "/runs"


def runs_compared_names(text: str) -> list[str]:
    table = text.partition('id="values"')[2].partition("</table>")[0]
    return re.findall(r'<th scope="row"[^>]*><bdi>(.*?)</bdi>', table)
