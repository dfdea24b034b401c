"""Models that were fitted as people often do: on indexes of columns, spaces in names, bools."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pytest
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

import clewline as cl
from clewline.scaffold import create

RNG = np.random.default_rng(0)
ROWS = pd.DataFrame(
    {
        "age": RNG.normal(40, 10, 120),
        "hours worked": RNG.integers(0, 80, 120),
        "job": RNG.choice(["a", "b", "c"], 120),
    }
)
IS_OLD = ROWS["age"] + RNG.normal(0, 3, 120) > 40
LABELS = np.where(IS_OLD, "yes", "no")


def boosted(features: pd.DataFrame, target: Any) -> Any:
    return lightgbm.LGBMClassifier(n_estimators=4, verbose=-1).fit(features, target)


def linear(features: pd.DataFrame, target: Any) -> Any:
    numbers = features.select_dtypes("number").columns
    texts = features.select_dtypes(exclude="number").columns
    encode = ColumnTransformer([("n", StandardScaler(), numbers), ("t", OneHotEncoder(), texts)])
    return make_pipeline(encode, LogisticRegression()).fit(features, target)


CASES: dict[str, tuple[Callable[..., Any], pd.DataFrame, Any]] = {
    "a bool target": (boosted, ROWS[["age"]], IS_OLD),
    "a column name with a space": (boosted, ROWS[["age", "hours worked"]], LABELS),
    "columns given as an index": (linear, ROWS, LABELS),
    "strings in a column of objects": (linear, ROWS.assign(job=ROWS.job.astype(object)), LABELS),
}


@pytest.mark.parametrize(("fit", "features", "target"), CASES.values(), ids=CASES)
def test_it_registers_and_answers_as_the_original(
    fit: Callable[..., Any],
    features: pd.DataFrame,
    target: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(create(tmp_path / "p", template="empty").root)
    original = fit(features, target)
    table = features.assign(y=target)
    report = cl.evaluate(original, table, target="y")
    cl.register("m", original, train=table, test=table, target="y", report=report)
    with cl.load("m@1") as model:
        assert model.predict(features).tolist() == original.predict(features).tolist()
