"""The page of a model version: what its record holds is shown, what it lacks is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import polars as pl
import pytest
from html_pages import ReadPage, check_page
from projects import make_project
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import LogisticRegression

from clewline.cli.main import status
from clewline.evaluation.evaluate import evaluate
from clewline.evaluation.metrics import Interval
from clewline.evaluation.report import Report
from clewline.html.model_report import write_model_report
from clewline.model.families.family import EVALUATION
from clewline.model.package import Package, PackageMetadata
from clewline.model.register import convert_model
from clewline.model.registry import Registry
from clewline.model.reported_version import (
    PairedDifference,
    ReportedVersion,
    compare_metrics,
)
from clewline.project import Project
from clewline.store.store import Store

HOSTILE = "</title><script>alert(1)</script>"


def people(rows: int = 400) -> pl.DataFrame:
    random = np.random.default_rng(0)
    age, pay = random.normal(40, 10, rows), random.normal(3000, 900, rows)
    level = age + pay / 90 + random.normal(0, 5, rows)
    return pl.DataFrame(
        {
            "age": age,
            HOSTILE: pay,
            "sex": random.choice(["f", "m"], rows),
            "level": level,
            "two": np.where(level > 73, "high <b>", "low"),
            "three": np.where(level > 80, "c", np.where(level > 66, "b", "a")),
        }
    )


FIELDS = ["age", HOSTILE]


def add(registry: Registry, name: str, model: Any, target: str, report: Report | None) -> str:
    """Register a model with an evaluation record, without a run."""
    table = people().select(*FIELDS, target)
    made = convert_model(model, train=table, test=table.head(50), target=target)
    files = dict(made.files)
    if report is not None:
        files[EVALUATION] = msgspec.json.encode(report)
    about = PackageMetadata(
        name=name,
        number=0,
        runtime=made.compiled.runtime,
        task=made.signature.output.task,
        target=target,
        created=0.0,
        data={"test": {"artifact": "ab" * 32, "rows": 400}},
        code={"commit": "c" * 40, "changed": [HOSTILE]},
        report=None if report is None else report.small,
        versions={"numpy": "2"},
    )
    return registry.add(files, about).ref


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A project with classifiers of two and three labels, a regression, and one not evaluated."""
    root = tmp_path_factory.mktemp("report")
    made, table = make_project(root), people()
    inputs = table.select(FIELDS)
    with Store.open(made.store_root) as store:
        registry = Registry(made, store)
        for strength in (1.0, 0.0001):
            two = LogisticRegression(C=strength, max_iter=5000).fit(inputs, table["two"])
            report = evaluate(
                two,
                table.drop("level", "three"),
                target="two",
                resamples=50,
                explain=True,
                robustness=True,
                slices=["sex"],
                protected=["sex"],
                costs={"high <b>": {"low": 5}, "low": {"high <b>": 1}},
            )
            add(registry, "two", two, "two", report)
        three = LogisticRegression(max_iter=5000).fit(inputs, table["three"])
        report = evaluate(three, table.drop("level", "two"), target="three", resamples=20)
        add(registry, "three", three, "three", report)
        trees = RandomForestRegressor(5, random_state=0).fit(inputs, table["level"])
        report = evaluate(trees, table.drop("two", "three"), target="level", resamples=20)
        add(registry, "level", trees, "level", report)
        add(registry, "plain", two, "two", None)
    return made


Page = Callable[..., ReadPage]


@pytest.fixture
def page(project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Page:
    """Write and read the page of a version, by the command."""
    monkeypatch.chdir(project.root)

    def write(*words: str) -> ReadPage:
        path = tmp_path / "report.html"
        assert status(["models", "report", *words, "--out", str(path)]) == 0
        assert path.stat().st_size < 1_000_000
        return check_page(path.read_text("utf-8"))

    return write


def headings(found: ReadPage) -> list[str]:
    return [
        str(attributes.get("aria-label"))
        for tag, attributes, _ in found.elements
        if tag == "section"
    ]


def test_the_first_thing_said_is_whether_a_model_is_needed(page: Page) -> None:
    found = page("two@1")
    assert "This is a machine learning problem" in found.text.partition("Metrics")[0]
    assert "of the rule" in found.text


def test_every_section_of_the_record_is_shown(page: Page) -> None:
    shown = headings(page("two@1"))
    for title in ("Metrics", "Right and wrong answers", "Thresholds", "Calibration", "Fairness"):
        assert title in shown
    for title in ("Value", "Slices", "Changed rows", "What the model looks at", "Fields"):
        assert title in shown
    for title in ("Label quality", "Answers at a stated coverage", "The version"):
        assert title in shown
    assert "Errors" not in shown


def test_a_section_that_the_record_lacks_is_named_with_how_to_get_it(page: Page) -> None:
    found = page("three")
    assert "What the model looks at" not in headings(found)
    assert "What the model looks at : call cl.evaluate(…, explain=True)" in found.text
    assert "Most frequent mistakes" in found.text


def test_a_regression_shows_its_errors(page: Page) -> None:
    shown = headings(page("level"))
    assert "Errors" in shown
    assert "Calibration" not in shown


def test_a_version_that_was_not_evaluated_says_so(page: Page) -> None:
    found = page("plain")
    assert "was not evaluated" in found.text
    assert "pass report=cl.evaluate(…)" in found.text


def test_hostile_names_are_text(page: Page) -> None:
    found = page("two@1")
    assert "alert(1)" in found.text
    assert found.count("script") == 0


def test_another_version_is_compared(page: Page, capsys: pytest.CaptureFixture[str]) -> None:
    found = page("two@1", "--against", "two@2")
    assert "Against two@2" in headings(found)
    # No step returned the test rows, so that both cannot be asked about them again.
    assert "The differences have no intervals. The store does not hold the test rows" in found.text
    assert "accuracy" in capsys.readouterr().out


def test_paired_differences_are_drawn_by_what_is_better(project: Project) -> None:
    with Store.open(project.store_root, write=False) as store:
        registry = Registry(project, store)
        one, other = (registry.open(ref) for ref in ("two@1", "two@2"))
    report = msgspec.convert(one.manifest.report, Report)
    differences = [
        PairedDifference("accuracy", 0.9, 0.8, Interval(0.1, 0.05, 0.15)),
        PairedDifference("log_loss", 0.3, 0.4, Interval(-0.1, -0.3, 0.1)),
    ]
    text = write_model_report(
        ReportedVersion(one, report),
        "1",
        against=ReportedVersion(other, report),
        differences=differences,
    )
    found = check_page(text)
    assert "Above 0 two@1 is better. 1 difference is clear of 0" in found.text
    assert "Below 0 two@1 is better. 0 differences are clear of 0" in found.text


def test_json_prints_the_whole_record(page: Page, capsys: pytest.CaptureFixture[str]) -> None:
    assert status(["models", "report", "two@1", "--json"]) == 0
    said = msgspec.json.decode(capsys.readouterr().out)
    assert said["model"] == "two@1"
    assert msgspec.convert(said["evaluation"], Report).confusion is not None


def test_a_record_of_an_older_clewline_is_shown_as_far_as_it_goes(project: Project) -> None:
    with Store.open(project.store_root, write=False) as store:
        package = Registry(project, store).open("two@1")
    old = msgspec.convert(package.manifest.report, Report)
    found = check_page(write_model_report(ReportedVersion(package, old), "1"))
    assert "Calibration" not in headings(found)
    assert "Right and wrong answers : evaluate and register again" in found.text


def test_metrics_are_compared_only_if_both_have_them(project: Project) -> None:
    with Store.open(project.store_root, write=False) as store:
        registry = Registry(project, store)
        one, other = (registry.open(ref) for ref in ("two@1", "plain"))
    report = msgspec.convert(one.manifest.report, Report)
    assert compare_metrics(ReportedVersion(one, report), ReportedVersion(other, None)) == []
    assert isinstance(one, Package)
