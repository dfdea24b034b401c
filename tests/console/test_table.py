"""Tables show a page of rows, say how to sort and go on in their address, and leave as files."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any, cast

import msgspec
import pytest
from starlette.testclient import TestClient

from clewline.console.app import Console
from clewline.console.page import ConsolePage, PageAnswer, PageRequest, PageRoute, View
from clewline.console.table import EXPORT_ROWS, Column, Table, offset_source
from clewline.scaffold import create

COUNT = EXPORT_ROWS + 7
HOSTILE = "<b>\u202e" + "x" * 100_000
COLUMNS = (
    Column("name", "Name", link=lambda row: f"/things/{row['number']}"),
    Column("number", "Number", kind="number", sort=True),
    Column("begun", "Begun", kind="time"),
    Column("id", "Id", kind="id"),
)


def rows(offset: int, limit: int, sort: str) -> Sequence[Mapping[str, Any]]:
    numbers = range(COUNT) if sort == "number" else range(COUNT - 1, -1, -1)
    return [
        {
            "name": HOSTILE if number == 0 else f"thing {number}",
            "number": number,
            "begun": None if number % 2 else 1_700_000_000.0,
            "id": f"{number:032x}",
        }
        for number in numbers[offset : offset + limit]
    ]


class ThingsPage:
    """A table in a template of the frame."""

    name = "table"
    title = "Things"
    place = 1

    def routes(self) -> Sequence[PageRoute]:
        return (PageRoute("/things", show_things),)


def show_things(request: PageRequest) -> PageAnswer:
    source = offset_source(rows, COUNT)
    table = Table("things", COLUMNS, source, request, caption="All things", sort="number")
    values = {"message": table, "table": table, "kind": "Things", "fix": "", "problems": ()}
    return View("error.html", title="Things", values=values)


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> TestClient:
    project = create(tmp_path_factory.mktemp("table") / "p")
    return TestClient(Console(project, pages=[cast(ConsolePage, ThingsPage())]).app)


def test_a_page_of_rows_leads_to_the_next_and_keeps_the_sort(client: TestClient) -> None:
    first = client.get("/things?things-sort=-number&x=1").text
    assert "1–50 of 1,007" in first
    assert 'aria-sort="descending"' in first
    following = "/things?things-sort=-number&amp;x=1&amp;things-after=50"
    assert f'href="{following}" rel="next"' in first
    second = client.get(following.replace("&amp;", "&")).text
    assert "51–100 of 1,007" in second
    assert "First page" in second
    last = client.get("/things?things-after=1000").text
    assert "Next page" not in last


def test_values_are_written_by_kind_and_long_ones_are_shortened(client: TestClient) -> None:
    text = client.get("/things").text
    assert "<b>" not in text.replace("<bdi>", "")
    assert len(text) < 60_000
    assert 'class="whole" scope="row"' in text or 'scope="row" class="whole"' in text
    assert 'data-copy="00000000000000000000000000000002"' in text
    assert "2023-11-14 22:13:20 UTC" in text
    assert 'href="/things/1"' in text


@pytest.mark.parametrize(
    "query",
    ["things-sort=name", "things-sort=-", "things-after=-1", "things-after=x", "export=xml"],
)
def test_an_address_that_says_something_else_is_refused(client: TestClient, query: str) -> None:
    answer = client.get(f"/things?{query}")
    assert 400 <= answer.status_code < 500


def test_all_rows_leave_as_csv_and_as_json(client: TestClient) -> None:
    answer = client.get("/things?export=csv&table=things")
    assert answer.headers["content-disposition"] == 'attachment; filename="things.csv"'
    read = list(csv.DictReader(io.StringIO(answer.text)))
    assert [int(row["number"]) for row in read] == list(range(COUNT))
    assert read[1]["begun"] == ""
    found = msgspec.json.decode(client.get("/things?export=json&table=things").content)
    assert [row["number"] for row in found] == list(range(COUNT))
    assert found[0]["name"] == HOSTILE
    assert client.get("/things?export=csv&table=other").status_code == 422


def test_a_text_that_a_spreadsheet_would_run_is_written_as_text() -> None:
    def formulas(offset: int, limit: int, sort: str) -> Sequence[Mapping[str, Any]]:
        return [{"name": "=1+1", "number": -5}][offset : offset + limit]

    table = Table("t", COLUMNS[:2], offset_source(formulas), _request())
    assert b"".join(table.export("csv")) == b"name,number\n'=1+1,-5\n"


def test_an_empty_table_says_what_to_type() -> None:
    table = Table("t", COLUMNS, offset_source(lambda *_: []), _request(), empty="Type it.")
    assert table.markup() == '<div class="empty" id="t"><p>Type it.</p></div>'
    assert b"".join(table.export("json")) == b"[]\n"


class _Bare:
    query: Mapping[str, str] = {}


def _request() -> PageRequest:
    return cast(PageRequest, _Bare())
