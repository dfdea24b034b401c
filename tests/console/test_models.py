"""The pages of models: versions, their record, comparison, gate and promotion."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest
from html_pages import ReadPage
from projects import make_project
from sklearn.linear_model import LogisticRegression
from starlette.requests import Request
from starlette.testclient import TestClient

from clewline.console.app import Console, LoopbackAccess
from clewline.console.page import Person
from clewline.evaluation.evaluate import evaluate
from clewline.model.families.family import EVALUATION
from clewline.model.package import PackageMetadata
from clewline.model.register import convert_model
from clewline.model.registry import Registry
from clewline.serve import revision
from clewline.serve.endpoint_file import read_endpoint
from clewline.store.records import Alias
from clewline.store.store import Store

HOSTILE = "</title><script>alert(1)</script>"
GATE = "two:\n  metrics:\n    accuracy: {min: 0.9}\n"


class Viewer(LoopbackAccess):
    """Lets everybody look, and change nothing."""

    def person(self, request: Request) -> Person:
        return Person("visitor", "view")


class Shown:
    """A console over two evaluated versions: the first passes the gate, the second fails it."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.client = TestClient(console.app, follow_redirects=False)

    def page(self, address: str) -> ReadPage:
        answer = self.client.get(address)
        assert answer.status_code == 200, answer.text
        return read(answer.text)


def read(text: str) -> ReadPage:
    """Read a page; elements without an end are written as one that the reader knows."""
    return ReadPage(re.sub(r"<(input|link) ", "<meta ", text))


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shown]:
    project = make_project(tmp_path_factory.mktemp("models"))
    project.gate.write_text(GATE)
    random = np.random.default_rng(0)
    table = pl.DataFrame({"age": random.normal(40, 10, 200), HOSTILE: random.normal(0, 1, 200)})
    table = table.with_columns(two=np.where(table["age"] > 44, "high <b>", "low"))
    inputs = table.drop("two")
    with Store.open(project.store_root) as store:
        for strength in (1.0, 1e-7):
            model = LogisticRegression(C=strength, max_iter=5000).fit(inputs, table["two"])
            report = evaluate(model, table, target="two", resamples=20)
            made = convert_model(model, train=table, test=table.head(50), target="two")
            files = {**made.files, EVALUATION: msgspec.json.encode(report)}
            about = PackageMetadata(
                name="two",
                number=0,
                runtime=made.compiled.runtime,
                task=made.signature.output.task,
                target="two",
                created=0.0,
                equality=msgspec.to_builtins(made.compiled.equality),
                report=report.small,
            )
            Registry(project, store).add(files, about)
        (project.root / "endpoints" / "e.yaml").write_text("endpoint: e\nmodel: two@1\n")
        revision.apply(project, store, read_endpoint(project, "e"))
    console = Console(project)
    yield Shown(console)
    console.close()


ADDRESSES = (
    "/models",
    "/models?name=tw",
    "/models/two",
    "/models/two/1",
    "/models/two/1?part=served&verify=yes",
    "/models/two/2?part=promote",
    "/models/two/1?part=used",
    "/models/compare",
    "/models/compare?first=two@1&second=two@2",
)


@pytest.mark.parametrize("address", ADDRESSES)
def test_pages_hold_neither_inline_style_nor_script_of_names(shown: Shown, address: str) -> None:
    answer = shown.client.get(address)
    assert answer.status_code == 200
    assert HOSTILE not in answer.text
    names = {name for _, attributes, _ in read(answer.text).elements for name in attributes}
    assert not {name for name in names if name == "style" or name.startswith("on")}


def test_the_list_can_be_narrowed_and_leaves_as_json(shown: Shown) -> None:
    rows = msgspec.json.decode(shown.client.get("/models?export=json&table=versions").content)
    assert [row["model"] for row in rows] == ["two@2", "two@1"]
    assert rows[0]["metric"] == "accuracy"
    assert "No version is registered here" in shown.page("/models?name=x").text


def test_a_model_shows_its_metric_over_its_versions(shown: Shown) -> None:
    page = shown.page("/models/two")
    assert "best 1 of two@1" in page.text or "best 0.9" in page.text
    assert page.count("svg") > 1


def test_a_version_shows_its_whole_record(shown: Shown) -> None:
    page = shown.page("/models/two/1")
    for title in ("Metrics", "Right and wrong answers", "Calibration", "Fields"):
        assert title in page.text
    assert page.count("svg") > 3


def test_a_version_shows_how_it_is_served_and_that_the_chain_is_sound(shown: Shown) -> None:
    assert "verified equal on" in shown.page("/models/two/1?part=served").text
    assert "Sound." in shown.page("/models/two/1?part=served&verify=yes").text


def test_a_version_shows_the_revisions_that_use_it(shown: Shown) -> None:
    page = shown.page("/models/two/1?part=used")
    links = {attributes.get("href") for tag, attributes, _ in page.elements if tag == "a"}
    assert "/endpoints/e?revision=1" in links
    assert "No endpoint uses two@2" in shown.page("/models/two/2?part=used").text


def test_a_version_whose_bytes_were_changed_is_refused(shown: Shown, tmp_path: Path) -> None:
    project = shown.console.project
    file = next((project.packages / "two" / "2").glob("signature.json"))
    before = file.read_bytes()
    file.chmod(0o600)
    file.write_bytes(before.replace(b"age", b"ago"))
    try:
        answer = shown.client.get("/models/two/2")
        assert answer.status_code == 500
        assert "signature.json" in answer.text
    finally:
        file.write_bytes(before)


def test_two_versions_are_compared_with_intervals_when_both_answer(shown: Shown) -> None:
    quick = shown.page("/models/compare?first=two@1&second=two@2")
    assert "two@2 against two@1" in quick.text
    assert "Let both answer the same test rows" in quick.text
    asked = shown.page("/models/compare?first=two@1&second=two@2&ask=yes")
    assert "two@1 was registered without test rows" in asked.text
    assert shown.client.get("/models/compare?first=two@1&second=too@2").status_code == 404


def test_the_gate_bars_a_version_until_a_person_overrules_it(shown: Shown) -> None:
    assert "refuses two@2" in shown.page("/models/two/2?part=promote").text

    def post(number: int, **form: str) -> tuple[int, str]:
        answer = shown.client.post(f"/models/two/{number}/promote", data={"csrf": "x", **form})
        return answer.status_code, answer.headers.get("location", answer.text)

    def champion() -> int | None:
        held = shown.console.store.catalog.get(Alias, "two", "champion")
        return held.number if held else None

    assert post(1, alias="champion", reason=" ")[0] == 422
    assert champion() is None
    assert post(1, alias="champion", reason="first") == (303, "/models/two/1?part=promote")
    status, text = post(2, alias="champion", reason="why not")
    assert (status, champion()) == (422, 1)
    assert "metrics.accuracy" in text
    assert post(2, alias="champion", reason=HOSTILE, overrule="yes")[0] == 303
    assert champion() == 2
    page = shown.page("/models/two/2?part=promote").text
    for shown_text in ("local", "first", "overruled", HOSTILE):
        assert shown_text in page


def test_who_may_only_look_is_refused_and_sees_no_form(shown: Shown) -> None:
    console = Console(shown.console.project, access=Viewer())
    try:
        client = TestClient(console.app)
        assert "may look" in client.get("/models/two/1?part=promote").text
        form = {"alias": "champion", "reason": "x"}
        assert client.post("/models/two/1/promote", data=form).status_code == 403
    finally:
        console.close()
