"""`cl.calibrate` as a step: stored, remembered, and refused on the rows that were fitted on."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from clewline import project
from clewline.flow.pipeline_files import find_pipeline
from clewline.flow.run import RunFailed, execute
from clewline.store import Store
from clewline.store.records import StepRun

PIPELINE = """
import clewline as cl
import numpy as np
import polars as pl
from sklearn.linear_model import LogisticRegression


@cl.step
def split() -> tuple[pl.DataFrame, pl.DataFrame]:
    random = np.random.default_rng(0)
    age = random.normal(size=120)
    labels = np.where(age + random.normal(size=120) > 0, "yes", "no")
    table = pl.DataFrame({"age": age, "y": labels})
    return table[:60], table[60:]


@cl.step
def fit(table: pl.DataFrame) -> LogisticRegression:
    return LogisticRegression().fit(table.drop("y"), table["y"].to_list())


@cl.pipeline
def honest():
    train, hold = split()
    cl.calibrate(fit(train), hold, target="y", kind="sigmoid")


@cl.pipeline
def same_rows():
    train, hold = split()
    cl.calibrate(fit(train), train, target="y", kind="sigmoid")
"""


def test_it_is_remembered_and_refuses_the_rows_of_the_step_that_fitted(
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
            run = execute(find_pipeline(here, "honest"), {}, project=here, store=store)
            steps = store.catalog.find(StepRun, run=run.id, order="index")
            statuses.append([step.status for step in steps])
        assert statuses == [["done"] * 3, ["cached"] * 3]
        with pytest.raises(RunFailed, match="'fit' that made the model took the same table"):
            execute(find_pipeline(here, "same_rows"), {}, project=here, store=store)
    sys.modules.pop("pipelines", None)  # other tests have projects of their own
