"""A model knows its levels: the training table that is registered may be a part of what it saw."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingRegressor, VotingRegressor
from sklearn.linear_model import Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from sklearn.svm import SVR
from support import TREES_IN_ONNX, needs

from clewline.model.register import convert_model
from clewline.model_families import family_named
from clewline.signature.check import Checker

lightgbm = pytest.importorskip("lightgbm")
xgboost = pytest.importorskip("xgboost")

LEVELS = ["red", "green", "blue"]
DRAW = np.random.default_rng(0)
COLORS = DRAW.choice(LEVELS, 300)
WHOLE = pd.DataFrame({"a": DRAW.normal(size=300), "c": pd.Categorical(COLORS, categories=LEVELS)})
TARGET = (COLORS == "blue") * 5 + (COLORS == "red") * 2 + WHOLE["a"]
ASKED = pd.DataFrame({"a": [0.0] * 3, "c": pd.Categorical(LEVELS, categories=LEVELS)})
FEW = {"n_estimators": 20}
BAGGED = {"boosting_type": "rf", "bagging_freq": 1, "bagging_fraction": 0.9}


def behind_an_encoder(final: Any) -> Any:
    encoder = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["c"]), remainder="passthrough"
    )
    return make_pipeline(encoder, final)


MODELS = {
    "LightGBM": lightgbm.LGBMRegressor(**FEW, verbose=-1),
    "LightGBM itself": lightgbm.LGBMRegressor(**FEW, **BAGGED, verbose=-1),
    "XGBoost": xgboost.XGBRegressor(**FEW, enable_categorical=True),
    "XGBoost itself": xgboost.XGBRegressor(**FEW, booster="dart", rate_drop=0.3,
                                           enable_categorical=True),
    "histogram": HistGradientBoostingRegressor(max_iter=20, categorical_features="from_dtype"),
    "encoder": behind_an_encoder(Ridge()),
    "encoder itself": behind_an_encoder(SVR()),
    "encoder inside": VotingRegressor([("a", behind_an_encoder(Ridge()))]),
}  # fmt: skip


@TREES_IN_ONNX
@needs("xgboost-cpu", "3.1")
@pytest.mark.parametrize("name", MODELS)
def test_a_level_that_the_registered_table_lacks_is_answered_as_the_model_does(name: str) -> None:
    model = MODELS[name].fit(WHOLE, TARGET)
    part = WHOLE[COLORS != "blue"].reset_index(drop=True)
    part["c"] = part["c"].astype("str").astype("category")  # two levels, in another order
    made = convert_model(model, train=part.assign(y=TARGET[COLORS != "blue"].tolist()), target="y")
    loaded = family_named(made.compiled.runtime).load(made.files, made.signature)
    found = loaded.predict(Checker(made.signature).table(ASKED).columns).values
    np.testing.assert_allclose(found, model.predict(ASKED), atol=1e-5)
