"""`cl.evaluate` as a step: recorded, remembered, its metrics kept."""

import sys
from pathlib import Path

import pytest

from clewline import project
from clewline.evaluation.report import Report
from clewline.flow import values
from clewline.flow.pipeline_files import find_pipeline
from clewline.flow.run import execute
from clewline.store import Store
from clewline.store.records import Artifact, StepRun

PIPELINE = """
import clewline as cl
import polars as pl
from sklearn.linear_model import LogisticRegression


@cl.step
def table() -> pl.DataFrame:
    return pl.DataFrame({"age": range(60), "y": ["no", "yes", "no", "yes", "yes", "no"] * 10})


@cl.step
def fit(table: pl.DataFrame) -> LogisticRegression:
    return LogisticRegression().fit(table.drop("y"), table["y"])


def worth(answer, truth):
    return 3 if answer == truth else -1


@cl.pipeline
def measured():
    data = table()
    cl.evaluate(
        fit(data), data, target="y", resamples=20, value=worth, unit="points",
        slices={"old": "age > 30"}, protected=["age"],
    )
"""


def test_its_metrics_and_its_report_are_recorded_and_it_is_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "clewline.toml").write_text('[project]\nname = "p"\nid = "p1"\n')
    (tmp_path / "pipelines.py").write_text(PIPELINE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    here = project.load(tmp_path)
    with Store.create(here.store_root) as store:
        statuses = []
        for _ in range(2):
            run = execute(find_pipeline(here, "measured"), {}, project=here, store=store)
            assert run.status == "done"
            [step] = store.catalog.find(StepRun, run=run.id, name="evaluate")
            statuses.append(step.status)
            artifact = store.catalog.get(Artifact, step.outputs[0])
            report = values.load(artifact, store.blobs)
            assert isinstance(report, Report)
            assert report.metrics["accuracy"].value == run.metrics["accuracy"]
            assert report.value.unit == "points"
            assert report.slices.given[0].name == "old"
            assert set(report.fairness.fields) == {"age"}
    assert statuses == ["done", "cached"]
    sys.modules.pop("pipelines", None)  # other tests have projects of their own
