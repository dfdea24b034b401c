"""Boosters of other libraries are values: they come back as they are, with the same digest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from clewline.errors import IntegrityError, NotStorable
from clewline.flow import values
from clewline.model.families.sklearn.skops_types import load_skops
from clewline.store.blobs import FileBlobStore

lgb = pytest.importorskip("lightgbm")
xgb = pytest.importorskip("xgboost")
cb = pytest.importorskip("catboost")

DRAW = np.random.default_rng(0)
X = pd.DataFrame({"a": DRAW.normal(size=200), "b": DRAW.normal(size=200)})
Y = (X.a > X.b).astype(int)


def fitted(name: str) -> Any:
    light = {"n_estimators": 3, "verbose": -1, "n_jobs": 1}
    cat = {"iterations": 3, "verbose": 0, "allow_writing_files": False}
    match name:
        case "LGBMClassifier":
            return lgb.LGBMClassifier(**light).fit(X, np.where(Y, "yes", "no"))
        case "XGBRegressor":
            return xgb.XGBRegressor(n_estimators=3, n_jobs=1).fit(X, Y)
        case "CatBoostClassifier":
            return cb.CatBoostClassifier(**cat).fit(X, Y)
        case "CatBoost":
            return cb.CatBoost(cat).fit(X, Y)
        case "lightgbm.Booster":
            return lgb.LGBMRegressor(**light).fit(X, Y).booster_
        case "pipeline":
            return make_pipeline(StandardScaler(), cb.CatBoostRegressor(**cat)).fit(X, Y)
    raise KeyError(name)


NAMES = (
    "LGBMClassifier",
    "XGBRegressor",
    "CatBoostClassifier",
    "CatBoost",
    "lightgbm.Booster",
    "pipeline",
)


@pytest.mark.parametrize("name", NAMES)
def test_a_booster_comes_back_with_its_digest_and_its_answers(name: str, tmp_path: Path) -> None:
    model, blobs = fitted(name), FileBlobStore(tmp_path)
    artifact = values.save(model, blobs)
    assert artifact.kind == "model"
    back = values.load(artifact, blobs)
    assert type(back) is type(model)
    assert values.digest(back) == artifact.digest
    np.testing.assert_array_equal(back.predict(X), model.predict(X))


@pytest.mark.parametrize("name", NAMES)
def test_a_booster_trained_again_the_same_way_has_the_same_digest(name: str) -> None:
    assert values.digest(fitted(name)) == values.digest(fitted(name))


def test_boosters_with_other_trees_have_other_digests() -> None:
    one = cb.CatBoostRegressor(iterations=3, verbose=0, allow_writing_files=False).fit(X, Y)
    other = cb.CatBoostRegressor(iterations=3, verbose=0, allow_writing_files=False).fit(X, 1 - Y)
    assert values.digest(one) != values.digest(other)


def test_a_booster_that_holds_a_function_is_not_stored(tmp_path: Path) -> None:
    def squared(truth: Any, said: Any) -> Any:
        return said - truth, np.ones_like(said)

    model = xgb.XGBRegressor(n_estimators=2, n_jobs=1, objective=squared).fit(X, Y)
    with pytest.raises(NotStorable):
        values.save(model, FileBlobStore(tmp_path))


def test_bytes_that_are_no_skops_file_are_refused() -> None:
    with pytest.raises(IntegrityError):
        load_skops(b"tree\nversion=v4\n")
