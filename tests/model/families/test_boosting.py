"""Boosters of other libraries answer as they were trained, compiled or in their own formats."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest
from sklearn.compose import make_column_transformer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from support import TREES_IN_ONNX

from clewline.errors import NotSupported
from clewline.evaluation.evaluate import evaluate
from clewline.model.families.family import PackageContents
from clewline.model.register import convert_model
from clewline.model_families import family_named
from clewline.signature.check import Checker
from clewline.signature.columns import Columns

lgb = pytest.importorskip("lightgbm")
xgb = pytest.importorskip("xgboost")
cb = pytest.importorskip("catboost")

LIGHT: dict[str, Any] = {"n_estimators": 12, "verbose": -1, "n_jobs": 1}
EXTREME: dict[str, Any] = {"n_estimators": 12, "n_jobs": 1}
CAT: dict[str, Any] = {"iterations": 12, "verbose": 0, "allow_writing_files": False}
ROWS = 400


@cache
def base() -> pd.DataFrame:
    draw = np.random.default_rng(0)
    table = pd.DataFrame(
        {
            "a": draw.normal(size=ROWS),
            "b": draw.integers(0, 9, ROWS),
            "d": draw.normal(size=ROWS) * 100,
        }
    )
    table.loc[::7, "a"] = np.nan
    table.loc[::9, "d"] = 0.0
    return table


@cache
def letters() -> np.ndarray:
    return np.random.default_rng(1).choice(list("uvwxyz"), ROWS)


def category() -> pd.DataFrame:
    return base().assign(c=pd.Categorical(letters()))


def text() -> pd.DataFrame:
    return base().assign(c=pd.Series(letters(), dtype=object))


@cache
def score() -> np.ndarray:
    found = base().a.fillna(0) + base().b / 2 + (letters() == "x") * 3
    return np.asarray(found)


def words() -> np.ndarray:
    return np.where(score() > 3, "yes", "no")


def bits() -> np.ndarray:
    return (score() > 3).astype(int)


def three() -> np.ndarray:
    return np.select([score() < 2, score() < 4], [0, 1], 2)


def encoded(final: Any, sparse: bool = False) -> Any:
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=sparse)
    prepare = make_column_transformer(
        (encoder, ["c"]), (StandardScaler(), ["a", "b", "d"]), sparse_threshold=float(sparse)
    )
    return make_pipeline(prepare, final)


def packed(model: Any, table: Any, y: np.ndarray, *, fit: bool = True) -> PackageContents:
    if fit:
        model.fit(table, y)
    train = table.assign(y=y) if isinstance(table, pd.DataFrame) else table.with_columns(y=y)
    return convert_model(model, train=train, test=train, target="y")


COMPILED = {
    "LightGBM, categories": lambda: (lgb.LGBMClassifier(**LIGHT), category(), words()),
    "LightGBM, three labels": lambda: (lgb.LGBMClassifier(**LIGHT), base(), three()),
    "LightGBM, values": lambda: (lgb.LGBMRegressor(**LIGHT), category(), score()),
    "LightGBM, counts": lambda: (
        lgb.LGBMRegressor(objective="poisson", **LIGHT),
        base(),
        score() + 9,
    ),
    "LightGBM, pipeline": lambda: (encoded(lgb.LGBMClassifier(**LIGHT), True), text(), words()),
    "LightGBM, Polars": lambda: (lgb.LGBMClassifier(**LIGHT), pl.from_pandas(base()), words()),
    "XGBoost, categories": lambda: (
        xgb.XGBClassifier(enable_categorical=True, max_cat_to_onehot=1, **EXTREME),
        category(),
        bits(),
    ),
    "XGBoost, three labels": lambda: (xgb.XGBClassifier(**EXTREME), base(), three()),
    "XGBoost, values": lambda: (xgb.XGBRegressor(**EXTREME), base(), score() * 10),
    "XGBoost, pipeline": lambda: (encoded(xgb.XGBClassifier(**EXTREME)), text(), bits()),
    "XGBoost, sparse": lambda: (encoded(xgb.XGBClassifier(**EXTREME), True), text(), bits()),
    "XGBoost, Polars": lambda: (xgb.XGBClassifier(**EXTREME), pl.from_pandas(base()), bits()),
    "CatBoost, words": lambda: (cb.CatBoostClassifier(**CAT), base(), words()),
    "CatBoost, three labels": lambda: (cb.CatBoostClassifier(**CAT), base(), three()),
    "CatBoost, nulls high": lambda: (
        cb.CatBoostRegressor(nan_mode="Max", **CAT),
        base(),
        score() * 10,
    ),
    "CatBoost, pipeline": lambda: (encoded(cb.CatBoostRegressor(**CAT)), text(), score()),
}


@TREES_IN_ONNX
@pytest.mark.parametrize("name", COMPILED)
def test_trees_that_only_compare_and_add_are_compiled_and_equal(name: str) -> None:
    made = packed(*COMPILED[name]())
    held = made.compiled.equality
    assert made.compiled.runtime == "onnx", held.reason
    assert (held.form, held.flips) == ("trees on raw fields", 0)
    assert held.split_thresholds > 20 or "sparse" in name
    assert held.max_difference <= 1e-6


OWN = {
    "zeros as missing": lambda: (
        lgb.LGBMClassifier(zero_as_missing=True, **LIGHT),
        base(),
        words(),
        "lightgbm",
        "model.txt",
    ),
    "a random forest": lambda: (
        lgb.LGBMClassifier(
            boosting_type="rf", bagging_freq=1, bagging_fraction=0.5, min_child_samples=5, **LIGHT
        ),
        base(),
        three(),
        "lightgbm",
        "model.txt",
    ),
    "dart": lambda: (
        xgb.XGBClassifier(booster="dart", rate_drop=0.2, **EXTREME),
        base(),
        bits(),
        "xgboost",
        "model.ubj",
    ),
    "categories of CatBoost": lambda: (
        cb.CatBoostClassifier(cat_features=["c"], **CAT),
        text(),
        words(),
        "catboost",
        "model.cbm",
    ),
    "trees that are not symmetric": lambda: (
        cb.CatBoostRegressor(grow_policy="Depthwise", **CAT),
        base(),
        score(),
        "catboost",
        "model.cbm",
    ),
}


@pytest.mark.filterwarnings("ignore:[^\\0]*booster=dart. is deprecated:UserWarning")
@pytest.mark.parametrize("name", OWN)
def test_what_has_no_equal_form_is_served_in_its_own_format_with_the_reason(name: str) -> None:
    model, table, y, runtime, file = OWN[name]()
    made = packed(model, table, y)
    held = made.compiled.equality
    assert (made.compiled.runtime, held.verified, held.flips) == (runtime, False, 0)
    assert held.max_difference <= 1e-6
    assert "cannot be converted" in (held.reason or "")
    assert {file, "frame.json"} <= set(made.files)


def test_a_pipeline_around_categories_of_catboost_is_served_by_skops() -> None:
    model = make_pipeline(cb.CatBoostClassifier(cat_features=[3], **CAT))
    made = packed(model, text(), words())
    assert made.compiled.runtime == "sklearn"
    assert made.compiled.equality.flips == 0


@TREES_IN_ONNX
def test_bare_boosters_are_registered_like_estimators() -> None:
    light = lgb.train({"objective": "binary", "verbose": -1}, lgb.Dataset(category(), bits()), 9)
    extreme = xgb.train({"objective": "binary:logistic"}, xgb.DMatrix(base(), bits()), 9)
    values = xgb.train({"max_depth": 3}, xgb.DMatrix(base(), score()), 9)
    plain = cb.CatBoost(CAT).fit(base(), score())
    for model, table, y in (
        (light, category(), bits()),
        (extreme, base(), bits()),
        (values, base(), score()),
        (plain, base(), score()),
    ):
        made = packed(model, table, y, fit=False)
        assert made.compiled.runtime == "onnx"
        assert [f.name for f in made.signature.fields] == list(table.columns)


def test_a_booster_that_ranks_is_refused() -> None:
    data = lgb.Dataset(base(), bits(), group=[ROWS])
    ranker = lgb.train({"objective": "lambdarank", "verbose": -1}, data, 3)
    with pytest.raises(NotSupported, match="lambdarank"):
        packed(ranker, base(), bits(), fit=False)


@TREES_IN_ONNX
def test_early_stopped_boosters_answer_with_their_best_trees() -> None:
    y = bits() ^ (np.random.default_rng(2).random(ROWS) < 0.4)
    model = xgb.XGBClassifier(n_estimators=200, n_jobs=1, early_stopping_rounds=2, max_depth=2)
    model.fit(base()[:200], y[:200], eval_set=[(base()[200:], y[200:])], verbose=False)
    assert model.best_iteration + 1 < len(model.get_booster().get_dump())
    assert packed(model, base(), y, fit=False).compiled.runtime == "onnx"


@pytest.mark.parametrize("name", ["LightGBM, categories", "XGBoost, values", "CatBoost, words"])
def test_boosters_are_evaluated(name: str) -> None:
    model, table, y = COMPILED[name]()
    model.fit(table, y)
    report = evaluate(model, table.assign(y=y), target="y", resamples=50)
    assert report.beats_baseline


def test_a_bare_booster_is_evaluated() -> None:
    booster = xgb.train({"objective": "binary:logistic"}, xgb.DMatrix(base(), bits()), 9)
    report = evaluate(booster, base().assign(y=bits()), target="y", resamples=50)
    assert report.task == "binary"
    assert report.beats_baseline


def test_a_number_that_counts_as_missing_is_served_as_missing() -> None:
    """The booster's own file does not hold the setting `missing` of its estimator."""
    import xgboost

    draw = np.random.default_rng(0)
    table = pd.DataFrame({"a": draw.uniform(1, 10, 300), "b": draw.uniform(1, 10, 300)})
    table.loc[:30, "a"] = np.nan
    y = np.where(table["a"].isna(), 20.0, table["a"]) + table["b"]
    model = xgboost.XGBRegressor(n_estimators=10, missing=0.0, n_jobs=1)
    model.fit(table.fillna(0.0), y)
    made = packed(model, table.fillna(5.0).assign(a=table["a"].fillna(5.0)), y, fit=False)
    zeros = pd.DataFrame({"a": [0.0], "b": [0.0]})
    predictor = family_named(made.compiled.runtime).load(made.files, made.signature)
    found = predictor.predict(Columns(zeros.to_numpy(), np.empty((1, 0), dtype=object)))
    np.testing.assert_allclose(found.values, model.predict(zeros), rtol=1e-6)


DECLARED = ["aqua", "blue", "cyan", "never trained"]


@TREES_IN_ONNX
@pytest.mark.parametrize(
    "model",
    [
        xgb.XGBClassifier(enable_categorical=True, max_cat_to_onehot=10, **EXTREME),
        xgb.XGBClassifier(enable_categorical=True, max_cat_to_onehot=1, **EXTREME),
        lgb.LGBMClassifier(min_data_per_group=1, cat_smooth=0.1, **LIGHT),
    ],
    ids=["XGBoost, one by one", "XGBoost, sets", "LightGBM"],
)
def test_a_level_that_is_declared_and_never_trained_is_not_null(model: Any) -> None:
    """A split on one level sends such a level with the others, and null where it learned."""
    draw = np.random.default_rng(0)
    color, x = draw.choice(DECLARED[:3], ROWS).astype(object), draw.normal(size=ROWS)
    color[draw.random(ROWS) < 0.2] = None
    y = ((color == "aqua") * 2 + (color == None) * 4 + x > 1).astype(int)  # noqa: E711
    table = pd.DataFrame({"color": pd.Categorical(color, categories=DECLARED), "x": x})
    made = packed(model, table, y)
    assert made.compiled.runtime == "onnx"
    asked = pd.DataFrame(
        {"color": pd.Categorical([*DECLARED, None], categories=DECLARED), "x": 0.3}
    )
    rows = Checker(made.signature).table(asked).columns
    found = family_named("onnx").load(made.files, made.signature).predict(rows)
    np.testing.assert_allclose(found.probabilities, model.predict_proba(asked), atol=1e-6)
