"""A registered version answers tables in Python, as it answers them when it is served."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

import clewline as cl
from clewline.cli.main import status
from clewline.errors import InvalidInput, NotFound
from clewline.project import Project
from clewline.scaffold import create

ROWS = pl.DataFrame(
    {
        "age": [20.0, 30.0, 40.0, 50.0, 60.0, 25.0],
        "work": ["own", "state", "own", "state", "own", "own"],
        "y": ["no", "no", "yes", "yes", "yes", "no"],
        "cost": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0],
    }
)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    made = create(tmp_path / "p", template="empty")
    monkeypatch.chdir(made.root)
    train = ROWS.select("age", "y").to_pandas()
    model = RandomForestClassifier(5, random_state=0).fit(train[["age"]], train["y"])
    cl.register("income", model, train=train, target="y")
    costs = ROWS.select("age", "cost").to_pandas()
    regressor = RandomForestRegressor(5, random_state=0).fit(costs[["age"]], costs["cost"])
    cl.register("cost", regressor, train=costs, target="cost")
    return made


def test_it_answers_any_frame_as_the_original_does(project: Project) -> None:
    train = ROWS.select("age").to_pandas()
    original = RandomForestClassifier(5, random_state=0).fit(train, ROWS["y"].to_pandas())
    with cl.load("income@1") as model:
        assert model.ref == "income@1"
        assert model.classes_.tolist() == ["no", "yes"]
        for frame in (ROWS, ROWS.to_pandas(), ROWS.to_arrow()):
            assert model.predict(frame).tolist() == original.predict(train).tolist()
            np.testing.assert_allclose(
                model.predict_proba(frame), original.predict_proba(train), atol=1e-6
            )
    with cl.load("cost") as model:
        assert model.predict(ROWS).shape == (6,)
        assert not hasattr(model, "predict_proba")


def test_a_missing_column_and_a_missing_version_are_named(project: Project) -> None:
    with cl.load("income") as model, pytest.raises(InvalidInput, match="'age'"):
        model.predict(pd.DataFrame({"ag": [1.0]}))
    with pytest.raises(NotFound, match=r"income@7"):
        cl.load("income@7")


def test_a_file_is_answered_on_the_command_line(
    project: Project, capsys: pytest.CaptureFixture[str]
) -> None:
    ROWS.select("age").write_csv("rows.csv")
    capsys.readouterr()
    assert status(["predict", "income@1", "rows.csv", "--out", "answers.parquet"]) == 0
    assert "income@1 answered 6 rows" in capsys.readouterr().err
    answered = pl.read_parquet("answers.parquet")
    assert answered.columns == ["age", "label", "probability of no", "probability of yes"]
    assert status(["predict", "income@1", "rows.csv", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == answered.to_dicts()
    assert status(["predict", "income@1", "answers.parquet"]) == 2
    assert "has a column 'label' already" in capsys.readouterr().err
    assert status(["predict", "income@1", "rows.csv", "--out", "answers.txt"]) == 2
    assert "ends in .csv or .parquet" in capsys.readouterr().err
